//! The change log leads every node to the same state, even if requests are retried, late, duplicated or read again. A
//! record that cannot be right stops a node; it is never skipped.

use proptest::prelude::*;
use proto::{
    Catalog,
    catalog::{
        CATALOG_RULES_LEVEL, Change, ChangeRecord, CollectionSettings, Entry, LogChange, LogFault, LogHeader,
        LogRecord, Outcome, ReadUpTo, Skip, Skips, State, StatePosition,
    },
};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(1);

fn begin(cluster: Uuid, from: Option<State>) -> Vec<u8> {
    let entry = Entry::Begin(LogHeader {
        cluster,
        from: from.map(Box::new),
    });
    serde_json::to_vec(&LogRecord {
        level: CATALOG_RULES_LEVEL,
        entry,
    })
    .expect("JSON")
}

fn change(uid: u128, name: &str, not_after_ms: i64, seen: ReadUpTo) -> LogChange {
    let change = Change::CreateCollection {
        name: name.parse().expect("a name"),
        settings: CollectionSettings::default(),
        placement: Vec::new(),
    };
    LogChange {
        record: ChangeRecord {
            uid: Uuid::from_u128(uid),
            level: CATALOG_RULES_LEVEL,
            expected: None,
            change,
        },
        not_after_ms,
        seen,
    }
}

fn drop_collection(uid: u128, name: &str, seen: ReadUpTo) -> LogChange {
    let change = Change::DropCollection {
        name: name.parse().expect("a name"),
    };
    LogChange {
        record: ChangeRecord {
            uid: Uuid::from_u128(uid),
            level: CATALOG_RULES_LEVEL,
            expected: None,
            change,
        },
        not_after_ms: i64::MAX,
        seen,
    }
}

fn bytes(change: LogChange) -> Vec<u8> {
    serde_json::to_vec(&LogRecord {
        level: CATALOG_RULES_LEVEL,
        entry: Entry::Change(Box::new(change)),
    })
    .expect("JSON")
}

/// The state of a node that has read the header of a log.
fn started() -> State {
    let mut state = State::default();
    assert_eq!(state.read(0, 0, &begin(CLUSTER, None)), Ok(Outcome::Began));
    state
}

fn names(catalog: &Catalog) -> Vec<&str> {
    catalog.collections.keys().map(|name| name.as_str()).collect()
}

/// A proposal: `view` is the number of records that its proposer is behind, `valid_ms` sets its deadline.
#[derive(Debug, Clone)]
struct Proposal {
    uid: u128,
    collection: usize,
    drop: bool,
    view: usize,
    valid_ms: i64,
}

fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let proposal = (0..12_u128, 0..3_usize, any::<bool>(), 0..6_usize, 0..40_i64);
    let proposal = proposal.prop_map(|(uid, collection, drop, view, valid_ms)| Proposal {
        uid: uid + 1,
        collection,
        drop,
        view,
        valid_ms,
    });
    proptest::collection::vec(proposal, 1..60)
}

proptest! {
    #[test]
    fn all_nodes_reach_the_same_state_despite_repeated_and_late_requests(
        proposals in proposals(),
        restarts in proptest::collection::vec(1..10_usize, 8),
    ) {
        // The log on the broker, written by proposers that are some records behind.
        let mut log: Vec<(i64, Vec<u8>)> = vec![(0, begin(CLUSTER, None))];
        let mut states = vec![started()];
        for (step, proposal) in proposals.iter().enumerate() {
            let now = (step as i64 + 1) * 10;
            let seen = states[states.len().saturating_sub(1 + proposal.view)].seen();
            let name = ["a", "b", "c"][proposal.collection];
            let mut record = match proposal.drop {
                true => drop_collection(proposal.uid, name, seen),
                false => change(proposal.uid, name, 0, seen),
            };
            record.not_after_ms = now + proposal.valid_ms - 10;
            let record = bytes(record);
            let mut next = states.last().expect("the log has started").clone();
            next.read(log.len() as i64, now, &record).expect("the record is valid");
            log.push((now, record));
            states.push(next);
        }
        // Another node reads the log in pieces. In between it restarts from its saved state, and starts again at the
        // last record that it has read.
        let mut node = State::default();
        let mut pieces = restarts.iter().cycle();
        while node.offset + 1 < log.len() as i64 {
            let from = node.offset.max(0);
            let to = (node.offset + 1 + *pieces.next().expect("endless") as i64).min(log.len() as i64);
            for offset in from..to {
                let (time, record) = &log[offset as usize];
                let outcome = node.read(offset, *time, record);
                prop_assert!(outcome.is_ok(), "{outcome:?}");
            }
            node = serde_json::from_slice(&serde_json::to_vec(&node).expect("JSON")).expect("a saved state is valid");
        }
        prop_assert_eq!(&node, states.last().expect("the log has started"));
    }

    #[test]
    fn a_request_is_applied_once_however_often_it_is_in_the_log(repeats in 1..6_usize) {
        let mut state = started();
        let seen = state.seen();
        for offset in 1..=repeats as i64 {
            let outcome = state.read(offset, offset, &bytes(change(7, "events", 1_000, seen))).expect("it reads");
            let first = Outcome::Judged(Uuid::from_u128(7), Ok(()));
            prop_assert_eq!(outcome, first, "a repetition gets the outcome of the first");
        }
        prop_assert_eq!(state.catalog.version, 1);
        // A late duplicate: the request occurs again after its deadline, when the collection has been dropped.
        let next = state.offset + 1;
        state.read(next, 500, &bytes(drop_collection(8, "events", seen))).expect("it reads");
        let late = state.read(next + 1, 2_000, &bytes(change(7, "events", 1_000, seen))).expect("it reads");
        prop_assert!(matches!(late, Outcome::Judged(_, Err(_))), "{:?}", late);
        prop_assert!(names(&state.catalog).is_empty(), "the collection is not created again");
    }
}

#[test]
fn an_invalid_record_stops_a_node_and_changes_nothing() {
    let mut state = started();
    let seen = state.seen();
    state
        .read(1, 1, &bytes(change(1, "a", i64::MAX, seen)))
        .expect("it reads");
    let known = state.clone();
    let mut fault = |offset: i64, record: &[u8]| {
        let found = state.read(offset, 2, record).expect_err("the record is invalid");
        assert_eq!(state, known, "the state is unchanged");
        found
    };
    let other = bytes(change(2, "b", i64::MAX, seen));
    assert_eq!(
        fault(1, &other),
        LogFault::RecordChanged { offset: 1 },
        "the log was recreated"
    );
    assert_eq!(
        fault(3, &other),
        LogFault::MissingRecords { expected: 2, found: 3 },
        "the log was compacted"
    );
    let wrong = ReadUpTo {
        offset: 1,
        hash: known.hash ^ 1,
    };
    assert_eq!(
        fault(2, &bytes(change(2, "b", i64::MAX, wrong))),
        LogFault::Diverged { offset: 2, seen: 1 },
        "another node decided differently"
    );
    for unknown in [
        "{\"level\":99}",
        "{\"level\":1,\"change\":{\"kind\":\"make_tea\"}}",
        "not JSON",
        "",
    ] {
        assert!(
            matches!(fault(2, unknown.as_bytes()), LogFault::Unknown { offset: 2, .. }),
            "{unknown}"
        );
    }
    assert!(
        matches!(fault(2, &begin(CLUSTER, None)), LogFault::Unknown { .. }),
        "a log has only one header"
    );
    assert!(
        matches!(State::default().read(0, 0, &other), Err(LogFault::Unknown { .. })),
        "a log starts with a header"
    );
}

#[test]
fn a_skip_survives_the_log_and_a_restore() {
    let mut state = started();
    let source = r#"{"kind":"put_source","name":"s","settings":{"collection":"a","topic":"t","config":{}}}"#;
    let skip = r#"{"kind":"skip_source","name":"s","skips":{"0":[{"from":42,"to":50}],"12":[{"from":0,"to":7}]}}"#;
    let create = r#"{"kind":"create_collection","name":"a","settings":{}}"#;
    for (offset, text) in (1..).zip([create, source, skip]) {
        let change: Change = serde_json::from_str(text).expect("a change");
        let record = ChangeRecord {
            uid: Uuid::from_u128(offset as u128),
            level: CATALOG_RULES_LEVEL,
            expected: None,
            change,
        };
        let outcome = state.read(
            offset,
            offset,
            &bytes(LogChange {
                record,
                not_after_ms: i64::MAX,
                seen: state.seen(),
            }),
        );
        assert!(matches!(outcome, Ok(Outcome::Judged(_, Ok(())))), "{text}: {outcome:?}");
    }
    let skips = |state: &State| state.catalog.sources[&"s".parse().expect("a name")].skips.clone();
    assert_eq!(
        skips(&state),
        Skips([(0, vec![Skip::new(42, 50)]), (12, vec![Skip::new(0, 7)])].into())
    );
    let restored = State::default()
        .adopt(&begin(CLUSTER, Some(state.clone())))
        .expect("the log is restored");
    assert_eq!(skips(&restored), skips(&state));
}

#[test]
fn a_recreated_log_is_adopted_by_nodes_that_are_not_ahead_of_its_copy() {
    let mut state = started();
    for offset in 1..=3 {
        let seen = state.seen();
        state
            .read(
                offset,
                offset,
                &bytes(change(offset as u128, &format!("c{offset}"), i64::MAX, seen)),
            )
            .expect("it reads");
    }
    let first = begin(CLUSTER, Some(state.clone()));
    let mut behind = started();
    behind
        .read(1, 1, &bytes(change(1, "c1", i64::MAX, behind.seen())))
        .expect("it reads");
    for node in [&state, &behind, &State::default()] {
        let mut adopted = node.adopt(&first).expect("the log is adopted");
        assert_eq!((names(&adopted.catalog), adopted.offset), (vec!["c1", "c2", "c3"], 0));
        let seen = adopted.seen();
        adopted
            .read(1, 9, &bytes(change(9, "more", i64::MAX, seen)))
            .expect("it reads");
        assert!(adopted.position().is_newer_than(&state.position()));
        // A node of an earlier release sends the whole state instead of its position.
        let sent = serde_json::to_value(&adopted).expect("JSON");
        let read: StatePosition = serde_json::from_value(sent).expect("a position");
        assert_eq!(read, adopted.position());
    }
    let mut ahead = state.clone();
    ahead
        .read(4, 4, &bytes(change(4, "c4", i64::MAX, ahead.seen())))
        .expect("it reads");
    assert_eq!(
        ahead.adopt(&first),
        Err(LogFault::Behind { known: 4, from: 3 }),
        "changes that the node knows would be lost"
    );
    assert_eq!(
        state.adopt(&begin(Uuid::from_u128(2), Some(state.clone()))),
        Err(LogFault::OtherCluster {
            found: Uuid::from_u128(2)
        })
    );
    assert_eq!(
        state.adopt(&begin(CLUSTER, None)),
        Err(LogFault::RecordChanged { offset: 0 }),
        "an empty log is not a restored one"
    );
}
