//! Dead letters that are ingested again: each once, whoever asks how often, after any restart, and in whatever order a
//! shard that is filled again reads the events and the changes.

use std::collections::{BTreeMap, BTreeSet};

use plan::scan::{DeadLettersFrom, Scan as _};
use proptest::{prelude::*, test_runner::Config};
use proto::{
    Address, SourceName,
    document_change::{DeletedRanges, DocumentChange, Redrive},
    ingest::{ALREADY_REDRIVEN, Batch, BatchOutcome, CHANGE_RULES_LEVEL, Ingest as _, Push, PushResult},
    place_ranges::range_of,
    record::{Format, Record, RecordValue, RequestKey, Rules},
};

use super::support::{Fixture, clicks, record, small, tail_only};

async fn letters(fixture: &Fixture) -> Vec<String> {
    let letters = fixture.leaf.dead_letters(fixture.shard, 10_000).await;
    let mut letters: Vec<String> = letters
        .expect("dead letters")
        .iter()
        .map(|letter| letter.address.to_string())
        .collect();
    letters.sort();
    letters
}

/// The change that ingests the stored dead letter at an address again.
async fn redrive(fixture: &Fixture, address: &str) -> Redrive {
    let address: Address = address.parse().expect("an address");
    let wanted = DeadLettersFrom {
        source: None,
        from: Some(address.clone()),
        limit: 1,
    };
    let found = fixture.leaf.dead_records(fixture.shard, &wanted).await;
    let found = found.expect("dead letters").remove(0);
    assert_eq!(found.letter.address, address);
    Redrive {
        address,
        rules: fixture.batch(0, -1, -1, vec![]).rules,
        record: found.record.expect("its record"),
    }
}

fn edited(redrive: &Redrive, value: &str) -> Redrive {
    Redrive {
        record: Record {
            value: RecordValue::One(value.to_owned().into()),
            ..redrive.record.clone()
        },
        ..redrive.clone()
    }
}

async fn push_changes(fixture: &Fixture, changes: Vec<DocumentChange>) -> PushResult {
    let push = Push {
        source: SourceName::changes(),
        level: CHANGE_RULES_LEVEL,
        items: changes.iter().map(DocumentChange::encode).collect(),
        ..fixture.push_request(&[])
    };
    fixture.try_push(push).await.expect("changes")
}

async fn push_redrives(fixture: &Fixture, redrives: &[Redrive]) -> PushResult {
    push_changes(
        fixture,
        redrives
            .iter()
            .cloned()
            .map(|redrive| DocumentChange::Redrive(Box::new(redrive)))
            .collect(),
    )
    .await
}

fn codes(result: &PushResult) -> Vec<&str> {
    result.errors.iter().map(|error| error.code.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_dead_letter_becomes_one_document_with_the_key_and_the_headers_of_its_record() {
    let fixture = Fixture::start(tail_only);
    let bad = Record {
        headers: vec![("trace".into(), Some("7".into()))],
        ..record(0, Some("k0"), Some("{\"a\":"))
    };
    fixture
        .write(fixture.batch(
            0,
            -1,
            2,
            vec![bad, record(1, Some("k1"), Some("{}")), record(2, None, Some("["))],
        ))
        .await;
    assert_eq!(letters(&fixture).await, ["clicks/0@0", "clicks/0@2"]);
    let letter = redrive(&fixture, "clicks/0@0").await;
    assert_eq!(letter.record.headers, [("trace".to_owned(), Some("7".into()))]);

    let in_vain = push_redrives(&fixture, std::slice::from_ref(&letter)).await;
    assert_eq!((in_vain.accepted, codes(&in_vain)), (0, vec!["not_json"]));
    assert_eq!(
        letters(&fixture).await,
        ["clicks/0@0", "clicks/0@2"],
        "it stays as it is"
    );

    let fixed = edited(&letter, "{\"a\":1}");
    let twice = push_redrives(&fixture, &[fixed.clone(), fixed.clone()]).await;
    assert_eq!((twice.accepted, codes(&twice)), (1, vec![ALREADY_REDRIVEN]));
    assert!(twice.errors[0].detail.contains("_changes/0@1.0"), "{twice:?}");
    let again = push_redrives(&fixture, std::slice::from_ref(&fixed)).await;
    assert_eq!((again.accepted, codes(&again)), (0, vec![ALREADY_REDRIVEN]));
    assert_eq!(letters(&fixture).await, ["clicks/0@2"]);
    let document = fixture.leaf.document(fixture.shard, "k0").await.expect("an answer");
    let document = document.expect("the document");
    assert_eq!(
        (document.address.to_string().as_str(), &document.bytes[..]),
        ("_changes/0@1.0", &b"{\"a\":1}"[..])
    );
    let expected = BTreeMap::from([
        ("_changes/0@1.0".to_owned(), "{\"a\":1}".to_owned()),
        ("clicks/0@1".to_owned(), "{}".to_owned()),
    ]);
    assert_eq!(fixture.documents().await, expected);
    let outcomes = fixture.outcomes(&SourceName::changes(), 0).await;
    assert_eq!(
        (
            outcomes.events,
            outcomes.accepted,
            outcomes.duplicates,
            outcomes.documents
        ),
        (4, 1, 3, 1)
    );
    assert!(outcomes.balance());
    let fixture = fixture.restart().await;
    assert_eq!(fixture.documents().await, expected);
    assert_eq!(letters(&fixture).await, ["clicks/0@2"]);

    // It can be deleted like any other.
    let ranges = [range_of(1, Some(0))].into_iter().collect();
    let delete = DocumentChange::Delete(DeletedRanges::from([((SourceName::changes(), 0), ranges)]));
    assert_eq!(push_changes(&fixture, vec![delete]).await.accepted, 1);
    assert_eq!(fixture.documents().await.len(), 1);
    assert_eq!(codes(&push_redrives(&fixture, &[fixed]).await), [ALREADY_REDRIVEN]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_becomes_a_document_by_other_rules() {
    let fixture = Fixture::start(tail_only);
    fixture
        .write(fixture.batch(0, -1, 0, vec![record(0, None, Some("GET / 200"))]))
        .await;
    let letter = redrive(&fixture, "clicks/0@0").await;
    let text = Redrive {
        rules: Rules {
            format: Format::Text,
            ..Rules::default()
        },
        ..letter
    };
    assert_eq!(push_redrives(&fixture, &[text]).await.accepted, 1);
    let documents = fixture.documents().await;
    assert_eq!(documents.into_values().collect::<Vec<_>>(), ["GET / 200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_was_cleared_meanwhile_is_ingested_again_and_counted_once() {
    let fixture = Fixture::start(tail_only);
    let bad = (0..4).map(|offset| record(offset, None, Some("nonsense"))).collect();
    fixture.write(fixture.batch(0, -1, 3, bad)).await;
    let letters_before = [
        redrive(&fixture, "clicks/0@0").await,
        redrive(&fixture, "clicks/0@1").await,
    ];
    let [first, second] = letters_before.map(|letter| edited(&letter, "{}"));
    assert_eq!(push_redrives(&fixture, &[first]).await.accepted, 1);
    let cleared = fixture.leaf.clear_dead_letters(fixture.shard.collection, None).await;
    assert_eq!(cleared.expect("cleared").letters, 3);
    assert_eq!(push_redrives(&fixture, &[second]).await.accepted, 1);
    assert_eq!(fixture.documents().await.len(), 2);
    assert_eq!(fixture.outcomes(&clicks(), 0).await.dead_letters, 4);
}

/// An event of the model: its key, and whether it is good.
type MadeUpEvent = (u8, bool);

/// What a shard must have: documents by address, with the value of each.
fn expected(events: &[MadeUpEvent], redrives: &[(usize, bool)]) -> BTreeMap<String, String> {
    // The place in the order of its key, and the address of the newest document.
    let mut newest: BTreeMap<u8, (usize, String)> = BTreeMap::new();
    let mut done = BTreeSet::new();
    let mut put = |key: u8, place: usize, address: String| {
        let newest = newest.entry(key).or_insert((place, address.clone()));
        if place >= newest.0 {
            *newest = (place, address);
        }
    };
    for (offset, (key, is_good)) in events.iter().enumerate() {
        if *is_good {
            put(*key, offset, format!("clicks/0@{offset}"));
        }
    }
    for (number, (offset, is_fixed)) in redrives.iter().enumerate() {
        if *is_fixed && done.insert(*offset) {
            put(events[*offset].0, *offset, format!("_changes/0@{number}"));
        }
    }
    newest
        .into_values()
        .map(|(place, address)| (address, format!("{{\"n\":{place}}}")))
        .collect()
}

fn change_batch(fixture: &Fixture, after: i64, records: Vec<Record>) -> Batch {
    let through = records.last().map_or(after, |record| record.offset);
    Batch {
        source: SourceName::changes(),
        level: CHANGE_RULES_LEVEL,
        rules: Rules::default(),
        ..fixture.batch(0, after, through, records)
    }
}

proptest! {
    #![proptest_config(Config { cases: 60, ..Config::default() })]
    #[test]
    fn the_order_in_which_events_and_changes_are_read_makes_no_difference(
        events in prop::collection::vec((0u8..5, prop::bool::weighted(0.6)), 1..40),
        picks in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.7)), 0..20),
        steps in prop::collection::vec((any::<bool>(), 1usize..6, prop::bool::weighted(0.05)), 0..40),
        in_splits: bool,
    ) {
        let bad: Vec<usize> = (0..events.len()).filter(|offset| !events[*offset].1).collect();
        let redrives: Vec<(usize, bool)> = match bad.is_empty() {
            true => Vec::new(),
            false => picks.iter().map(|(pick, is_fixed)| (*pick.get(&bad), *is_fixed)).collect(),
        };
        let value = |offset: usize, is_good: bool| match is_good {
            true => format!("{{\"n\":{offset}}}"),
            false => format!("{{\"n\":{offset}"),
        };
        let event = |(offset, (key, is_good)): (usize, &MadeUpEvent)| {
            record(offset as i64, Some(&format!("k{key}")), Some(&value(offset, *is_good)))
        };
        let mut documents: Vec<Record> = events.iter().enumerate().map(event).collect();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut fixture = Fixture::start(if in_splits { small } else { tail_only });
            let rules = fixture.batch(0, -1, -1, vec![]).rules;
            let change = |(number, (offset, is_fixed)): (usize, &(usize, bool))| {
                let redrive = Redrive {
                    address: format!("clicks/0@{offset}").parse().expect("an address"),
                    rules: rules.clone(),
                    record: Record {
                        offset: 0,
                        ..record(0, Some(&format!("k{}", events[*offset].0)), Some(&value(*offset, *is_fixed)))
                    },
                };
                Record {
                    value: RecordValue::One(DocumentChange::Redrive(Box::new(redrive)).encode()),
                    request: Some(RequestKey { key: format!("change {number}"), body: 0 }),
                    ..record(number as i64, None, None)
                }
            };
            let mut changes: Vec<Record> = redrives.iter().enumerate().map(change).collect();
            let (mut documents_after, mut changes_after) = (-1, -1);
            let mut steps = steps.into_iter();
            while !documents.is_empty() || !changes.is_empty() {
                let (is_change, count, restarts) = steps.next().unwrap_or((documents.is_empty(), 100, false));
                let (left, after) = match is_change {
                    true => (&mut changes, &mut changes_after),
                    false => (&mut documents, &mut documents_after),
                };
                let taken: Vec<Record> = left.drain(..count.min(left.len())).collect();
                if let Some(last) = taken.last().map(|record| record.offset) {
                    let batch = match is_change {
                        true => change_batch(&fixture, *after, taken),
                        false => fixture.batch(0, *after, last, taken),
                    };
                    assert_eq!(fixture.write(batch).await, BatchOutcome::Applied { stored: last });
                    *after = last;
                }
                if restarts {
                    fixture = fixture.restart().await;
                }
            }
            assert_eq!(fixture.documents().await, expected(&events, &redrives));
            let redriven: BTreeSet<usize> = redrives.iter().filter(|redrive| redrive.1).map(|redrive| redrive.0).collect();
            let mut left: Vec<String> = bad
                .iter()
                .filter(|offset| !redriven.contains(offset))
                .map(|offset| format!("clicks/0@{offset}"))
                .collect();
            left.sort();
            assert_eq!(letters(&fixture).await, left);
            let (of_events, of_changes) = match redrives.is_empty() {
                true => (fixture.outcomes(&clicks(), 0).await, Default::default()),
                false => (
                    fixture.outcomes(&clicks(), 0).await,
                    fixture.outcomes(&SourceName::changes(), 0).await,
                ),
            };
            assert!(of_events.balance() && of_changes.balance(), "{of_events:?} {of_changes:?}");
            assert_eq!(of_events.dead_letters as usize, bad.len());
            assert_eq!(of_changes.accepted as usize, redriven.len());
            assert_eq!(of_changes.duplicates as usize, redrives.len() - redriven.len());
            let documents = fixture.documents().await.len() as u64;
            assert_eq!(of_events.documents + of_changes.documents, documents);
        });
    }
}
