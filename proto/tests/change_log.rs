//! The change log gives every node the same state, whatever is retried, late, sent twice or read again; and what cannot
//! be right stops a node instead of being skipped.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proto::{
    Catalog,
    catalog::{
        Begin, Change, ChangeRecord, CollectionSettings, Entry, LEVEL, LogChange, LogRecord, Outcome, Seen, Skip,
        Skips, State, Trouble,
    },
    client::{copy::Copy, follower::Known},
};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(1);

fn begin(cluster: Uuid, from: Option<State>) -> Vec<u8> {
    let entry = Entry::Begin(Begin {
        cluster,
        from: from.map(Box::new),
    });
    serde_json::to_vec(&LogRecord { level: LEVEL, entry }).expect("JSON")
}

fn change(uid: u128, name: &str, not_after_ms: i64, seen: Seen) -> LogChange {
    let change = Change::CreateCollection {
        name: name.parse().expect("a name"),
        settings: CollectionSettings::default(),
        placement: Vec::new(),
    };
    LogChange {
        record: ChangeRecord {
            uid: Uuid::from_u128(uid),
            level: LEVEL,
            expected: None,
            change,
        },
        not_after_ms,
        seen,
    }
}

fn drop_of(uid: u128, name: &str, seen: Seen) -> LogChange {
    let change = Change::DropCollection {
        name: name.parse().expect("a name"),
    };
    LogChange {
        record: ChangeRecord {
            uid: Uuid::from_u128(uid),
            level: LEVEL,
            expected: None,
            change,
        },
        not_after_ms: i64::MAX,
        seen,
    }
}

fn bytes(change: LogChange) -> Vec<u8> {
    serde_json::to_vec(&LogRecord {
        level: LEVEL,
        entry: Entry::Change(change),
    })
    .expect("JSON")
}

/// A node that has read a log that begins.
fn begun() -> State {
    let mut state = State::default();
    assert_eq!(state.read(0, 0, &begin(CLUSTER, None)), Ok(Outcome::Began));
    state
}

fn names(catalog: &Catalog) -> Vec<&str> {
    catalog.collections.keys().map(|name| name.as_str()).collect()
}

/// What a proposer does: which request, of how many it knows; create or drop; how old its view is; how late it comes.
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
    fn every_node_comes_to_the_same_state_whatever_is_repeated_or_late(proposals in proposals(), restarts in proptest::collection::vec(1..10_usize, 8)) {
        // The log as the broker has it, written by proposers whose views are behind by some records.
        let mut log: Vec<(i64, Vec<u8>)> = vec![(0, begin(CLUSTER, None))];
        let mut states = vec![begun()];
        for (step, proposal) in proposals.iter().enumerate() {
            let now = (step as i64 + 1) * 10;
            let seen = states[states.len().saturating_sub(1 + proposal.view)].seen();
            let name = ["a", "b", "c"][proposal.collection];
            let mut record = if proposal.drop { drop_of(proposal.uid, name, seen) } else { change(proposal.uid, name, 0, seen) };
            record.not_after_ms = now + proposal.valid_ms - 10;
            let record = bytes(record);
            let mut next = states.last().expect("it begins").clone();
            next.read(log.len() as i64, now, &record).expect("nothing is wrong with it");
            log.push((now, record));
            states.push(next);
        }
        // Another node reads it in pieces, is restarted from its copy in between, and begins again at the last record
        // that it has.
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
            node = serde_json::from_slice(&serde_json::to_vec(&node).expect("JSON")).expect("a copy reads back");
        }
        prop_assert_eq!(&node, states.last().expect("it begins"));
    }

    #[test]
    fn a_request_counts_once_however_often_it_is_in_the_log(repeats in 1..6_usize) {
        let mut state = begun();
        let seen = state.seen();
        for offset in 1..=repeats as i64 {
            let outcome = state.read(offset, offset, &bytes(change(7, "events", 1_000, seen))).expect("it reads");
            prop_assert_eq!(outcome, Outcome::Judged(Uuid::from_u128(7), Ok(())), "each gets the answer of the first");
        }
        prop_assert_eq!(state.catalog.version, 1);
        // A late twin: the collection is dropped meanwhile, and the request comes by once more after its time.
        let next = state.offset + 1;
        state.read(next, 500, &bytes(drop_of(8, "events", seen))).expect("it reads");
        let late = state.read(next + 1, 2_000, &bytes(change(7, "events", 1_000, seen))).expect("it reads");
        prop_assert!(matches!(late, Outcome::Judged(_, Err(_))), "{:?}", late);
        prop_assert!(names(&state.catalog).is_empty(), "it is not made again");
    }
}

#[test]
fn what_cannot_be_right_stops_a_node_and_changes_nothing() {
    let mut state = begun();
    let seen = state.seen();
    state
        .read(1, 1, &bytes(change(1, "a", i64::MAX, seen)))
        .expect("it reads");
    let known = state.clone();
    let mut trouble = |offset: i64, record: &[u8]| {
        let found = state.read(offset, 2, record).expect_err("it stops");
        assert_eq!(state, known, "nothing changes");
        found
    };
    let other = bytes(change(2, "b", i64::MAX, seen));
    assert_eq!(
        trouble(1, &other),
        Trouble::Other { offset: 1 },
        "the log was made anew"
    );
    assert_eq!(
        trouble(3, &other),
        Trouble::Hole { expected: 2, found: 3 },
        "it was compacted"
    );
    let wrong = Seen {
        offset: 1,
        hash: known.hash ^ 1,
    };
    assert_eq!(
        trouble(2, &bytes(change(2, "b", i64::MAX, wrong))),
        Trouble::Diverged { offset: 2, seen: 1 },
        "another node judged otherwise"
    );
    for unknown in [
        "{\"level\":99}",
        "{\"level\":1,\"change\":{\"kind\":\"make_tea\"}}",
        "not JSON",
        "",
    ] {
        assert!(
            matches!(trouble(2, unknown.as_bytes()), Trouble::Unknown { offset: 2, .. }),
            "{unknown}"
        );
    }
    assert!(
        matches!(trouble(2, &begin(CLUSTER, None)), Trouble::Unknown { .. }),
        "a log begins once"
    );
    assert!(
        matches!(State::default().read(0, 0, &other), Err(Trouble::Unknown { .. })),
        "and it begins"
    );
}

#[test]
fn a_skip_reads_back_in_the_log_and_in_what_is_restored_from_it() {
    let mut state = begun();
    let source = r#"{"kind":"put_source","name":"s","settings":{"collection":"a","topic":"t","config":{}}}"#;
    let skip = r#"{"kind":"skip_source","name":"s","skips":{"0":[{"from":42,"to":50}],"12":[{"from":0,"to":7}]}}"#;
    let create = r#"{"kind":"create_collection","name":"a","settings":{}}"#;
    for (offset, text) in (1..).zip([create, source, skip]) {
        let change: Change = serde_json::from_str(text).expect("a change");
        let record = ChangeRecord {
            uid: Uuid::from_u128(offset as u128),
            level: LEVEL,
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
        Skips(
            [
                (0, vec![Skip { from: 42, to: 50 }]),
                (12, vec![Skip { from: 0, to: 7 }])
            ]
            .into()
        )
    );
    let restored = State::default()
        .adopt(&begin(CLUSTER, Some(state.clone())))
        .expect("it is restored");
    assert_eq!(skips(&restored), skips(&state));
}

#[test]
fn a_log_made_anew_from_a_copy_is_gone_on_with_by_who_has_read_no_further() {
    let mut state = begun();
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
    let mut behind = begun();
    behind
        .read(1, 1, &bytes(change(1, "c1", i64::MAX, behind.seen())))
        .expect("it reads");
    for node in [&state, &behind, &State::default()] {
        let mut adopted = node.adopt(&first).expect("it goes on");
        assert_eq!((names(&adopted.catalog), adopted.offset), (vec!["c1", "c2", "c3"], 0));
        let seen = adopted.seen();
        adopted
            .read(1, 9, &bytes(change(9, "more", i64::MAX, seen)))
            .expect("it reads on");
        assert!(adopted.is_newer_than(&state));
    }
    let mut ahead = state.clone();
    ahead
        .read(4, 4, &bytes(change(4, "c4", i64::MAX, ahead.seen())))
        .expect("it reads");
    assert_eq!(
        ahead.adopt(&first),
        Err(Trouble::Behind { known: 4, from: 3 }),
        "what it knows would be lost"
    );
    assert_eq!(
        state.adopt(&begin(Uuid::from_u128(2), Some(state.clone()))),
        Err(Trouble::OtherCluster {
            found: Uuid::from_u128(2)
        })
    );
    assert_eq!(
        state.adopt(&begin(CLUSTER, None)),
        Err(Trouble::Other { offset: 0 }),
        "an empty log is no restored one"
    );
}

#[test]
fn a_node_never_goes_back_its_copy_reads_and_who_hears_of_a_state_finds_its_catalog() {
    const STATES: i64 = 100;
    let folder = tempfile::tempdir().expect("a folder");
    let copy = Copy::new(folder.path()).expect("a copy");
    let known = Known::open(copy.clone()).expect("nothing is kept yet");
    let state = |offset: i64| State {
        offset,
        catalog: Catalog {
            version: offset as u64,
            ..Catalog::default()
        },
        ..State::default()
    };
    let (states, catalogs, done) = (known.state(), known.catalog(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // As a tailer has it: it reads the log itself, and its peers tell of it.
        let writers = [0, 1].map(|from| {
            scope.spawn({
                let known = &known;
                move || (from..=STATES).for_each(|offset| known.advance(state(offset)))
            })
        });
        scope.spawn(|| {
            let mut seen = -1;
            while !done.load(Ordering::Relaxed) {
                let now = states.borrow().clone();
                let catalog = catalogs.borrow().version;
                assert!(now.offset >= seen, "{} after {seen}", now.offset);
                assert!(
                    catalog >= now.catalog.version,
                    "the catalog is {catalog}, the state has {}",
                    now.catalog.version
                );
                seen = now.offset;
            }
        });
        writers.into_iter().for_each(|writer| writer.join().expect("it writes"));
        done.store(true, Ordering::Relaxed);
    });
    known.advance(state(STATES - 1));
    assert_eq!(
        (known.state().borrow().offset, known.catalog().borrow().version),
        (STATES, STATES as u64)
    );
    assert_eq!(copy.load().expect("it reads"), Some(state(STATES)));
}
