//! Ingesting dead letters again: a dead letter becomes at most one document, after any restart, and in any order in which a
//! shard that is filled again reads events and changes.

use std::collections::{BTreeMap, BTreeSet};

use plan::scan::{RedriveQuery, Scan as _};
use proptest::prelude::*;
use proto::{
    Address, SourceName,
    document_change::{DeletedRanges, DocumentChange, Redrive},
    ingest::{ALREADY_REDRIVEN, BatchOutcome, CHANGE_RULES_LEVEL, Ingest as _, Push, PushResult},
    place_ranges::range_of,
    record::{Format, Record, RecordValue, RequestKey, Rules},
};

use super::{
    deletions::change_batch,
    made_up,
    support::{Fixture, clicks, record, small, tail_only},
};

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

/// What would become of the dead letter at an address, perhaps with another value or other rules: its change, or a code.
async fn offer(fixture: &Fixture, address: &str, value: Option<&str>, rules: Rules) -> Result<Redrive, String> {
    let address: Address = address.parse().expect("an address");
    let query = RedriveQuery {
        from: Some(address.clone()),
        only: true,
        limit: 1,
        rules: BTreeMap::from([(address.source.clone(), rules)]),
        value: value.map(|value| value.to_owned().into()),
        ..RedriveQuery::default()
    };
    let page = fixture.leaf.redrives(fixture.shard, &query).await.expect("an offer");
    let [offered] = &page.offered[..] else {
        return Err("none".into());
    };
    assert_eq!(offered.address, address);
    let change = offered.change.as_ref().map_err(|(code, _)| code.clone())?;
    match DocumentChange::decode(change) {
        Some(DocumentChange::Redrive(redrive)) => Ok(*redrive),
        other => panic!("{other:?}"),
    }
}

/// The change that ingests the dead letter at an address again with this value.
async fn redrive(fixture: &Fixture, address: &str, value: &str) -> Redrive {
    let rules = fixture.batch(0, -1, -1, vec![]).rules;
    offer(fixture, address, Some(value), rules).await.expect("a change")
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
    let rules = || fixture.batch(0, -1, -1, vec![]).rules;
    let stays = offer(&fixture, "clicks/0@0", None, rules()).await;
    assert_eq!(stays.map_err(|code| code == "not_json"), Err(true));
    assert_eq!(offer(&fixture, "clicks/0@1", None, rules()).await, Err("none".into()));
    let fixed = redrive(&fixture, "clicks/0@0", "{\"a\":1}").await;
    assert_eq!(fixed.record.headers, [("trace".to_owned(), Some("7".into()))]);
    assert_eq!(fixed.read_through, 2);

    let in_vain = push_redrives(&fixture, &[edited(&fixed, "{")]).await;
    assert_eq!((in_vain.accepted, codes(&in_vain)), (0, vec!["not_json"]));
    assert_eq!(
        letters(&fixture).await,
        ["clicks/0@0", "clicks/0@2"],
        "it stays as it is"
    );

    let twice = push_redrives(&fixture, &[fixed.clone(), fixed.clone()]).await;
    assert_eq!((twice.accepted, codes(&twice)), (1, vec![ALREADY_REDRIVEN]));
    assert!(twice.errors[0].detail.contains("_changes/0@1.0"), "{twice:?}");
    let again = push_redrives(&fixture, std::slice::from_ref(&fixed)).await;
    assert_eq!((again.accepted, codes(&again)), (0, vec![ALREADY_REDRIVEN]));
    assert_eq!(letters(&fixture).await, ["clicks/0@2"]);
    let document = fixture
        .leaf
        .document(fixture.shard, "k0", &Default::default())
        .await
        .expect("an answer")
        .document;
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
    let rules = Rules {
        format: Format::Text,
        ..Rules::default()
    };
    let text = offer(&fixture, "clicks/0@0", None, rules).await.expect("a change");
    assert_eq!(push_redrives(&fixture, &[text]).await.accepted, 1);
    let documents = fixture.documents().await;
    assert_eq!(documents.into_values().collect::<Vec<_>>(), ["GET / 200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_was_cleared_meanwhile_is_ingested_again_and_counted_once() {
    let fixture = Fixture::start(tail_only);
    let bad = (0..4).map(|offset| record(offset, None, Some("nonsense"))).collect();
    fixture.write(fixture.batch(0, -1, 3, bad)).await;
    let first = redrive(&fixture, "clicks/0@0", "{}").await;
    let second = redrive(&fixture, "clicks/0@1", "{}").await;
    assert_eq!(push_redrives(&fixture, &[first]).await.accepted, 1);
    let cleared = fixture.leaf.clear_dead_letters(fixture.shard.collection, None).await;
    assert_eq!(cleared.expect("cleared").letters, 3);
    assert_eq!(push_redrives(&fixture, &[second]).await.accepted, 1);
    assert_eq!(fixture.documents().await.len(), 2);
    assert_eq!(fixture.outcomes(&clicks(), 0).await.dead_letters, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_and_its_delete_that_are_read_together_are_counted_once() {
    let fixture = Fixture::start(tail_only);
    let bad = (0..3).map(|offset| record(offset, None, Some("nonsense"))).collect();
    fixture.write(fixture.batch(0, -1, 2, bad)).await;
    let redrive = redrive(&fixture, "clicks/0@1", "{}").await;
    let ranges = [range_of(0, None)].into_iter().collect();
    let delete = DocumentChange::Delete(DeletedRanges::from([((SourceName::changes(), 0), ranges)]));
    let changes = [DocumentChange::Redrive(Box::new(redrive)), delete];
    let change = |(number, change): (i64, &DocumentChange)| Record {
        value: RecordValue::One(change.encode()),
        ..record(number, None, None)
    };
    let batch = change_batch(&fixture, -1, (0..).zip(&changes).map(change).collect());
    assert_eq!(fixture.write(batch).await, BatchOutcome::Applied { stored: 1 });
    assert!(fixture.documents().await.is_empty());
    let outcomes = fixture.outcomes(&SourceName::changes(), 0).await;
    assert_eq!((outcomes.accepted, outcomes.deleted, outcomes.documents), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_a_later_record_has_replaced_stays_one() {
    let fixture = Fixture::start(tail_only);
    let records = vec![
        record(0, Some("a"), Some("{")),
        record(1, Some("a"), Some("{}")),
        record(2, Some("b"), Some("{")),
        record(3, Some("b"), Some("{}")),
        record(4, Some("b"), None),
    ];
    fixture.write(fixture.batch(0, -1, 4, records)).await;
    let rules = || fixture.batch(0, -1, -1, vec![]).rules;
    let stays = offer(&fixture, "clicks/0@0", Some("{}"), rules()).await;
    assert_eq!(stays.map_err(|code| code == "superseded"), Err(true));
    // What was deleted may come back.
    let again = offer(&fixture, "clicks/0@2", Some("{\"n\":2}"), rules())
        .await
        .expect("a change");
    assert_eq!(push_redrives(&fixture, &[again]).await.accepted, 1);
    assert_eq!(fixture.documents().await.len(), 2);

    // Of two dead letters of a key, the later one counts, in whatever order they are ingested again.
    let two = vec![record(5, Some("c"), Some("{")), record(6, Some("c"), Some("{"))];
    fixture.write(fixture.batch(0, 4, 6, two)).await;
    let older = offer(&fixture, "clicks/0@5", Some("{\"n\":5}"), rules())
        .await
        .expect("a change");
    assert_eq!(push_redrives(&fixture, &[older]).await.accepted, 1);
    let newer = offer(&fixture, "clicks/0@6", Some("{\"n\":6}"), rules())
        .await
        .expect("a change");
    assert_eq!(push_redrives(&fixture, &[newer]).await.accepted, 1);
    let found = fixture
        .leaf
        .document(fixture.shard, "c", &Default::default())
        .await
        .expect("an answer")
        .document;
    assert_eq!(found.map(|found| found.bytes), Some("{\"n\":6}".into()));

    // A pushed document with an _id has a partition of its own; with one partition, that is it.
    fixture.push(&["{\"_id\":\"x\","]).await;
    let push = offer(&fixture, "push/0@0", Some("{\"_id\":\"x\"}"), Rules::default()).await;
    assert!(push.is_ok(), "{push:?}");
}

/// An event of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
enum MadeUp {
    Good,
    Bad,
    Tombstone,
}

/// A change of the model.
#[derive(Debug, Clone, Copy)]
enum MadeUpChange {
    /// A dead letter is ingested again, with a good value or not, when the partition was read through here.
    Redrive { offset: usize, good: bool, through: usize },
    /// The document at an offset is deleted.
    Delete { offset: usize },
    /// The document that an earlier change has made is deleted.
    DeleteRedriven { number: usize },
}

/// What a shard must have: documents by address, with the value of each.
fn expected(events: &[(u8, MadeUp)], changes: &[MadeUpChange]) -> BTreeMap<String, String> {
    // Place in the order of keys, key, and the address and the value of its document, if it has one.
    let mut steps = Vec::new();
    let deleted: BTreeSet<usize> = changes
        .iter()
        .filter_map(|change| match change {
            MadeUpChange::Delete { offset } => Some(*offset),
            _ => None,
        })
        .collect();
    for (offset, (key, kind)) in events.iter().enumerate() {
        match kind {
            MadeUp::Good if !deleted.contains(&offset) => {
                steps.push((offset, 0, *key, Some((format!("clicks/0@{offset}"), offset))));
            }
            MadeUp::Good | MadeUp::Tombstone => steps.push((offset, 0, *key, None)),
            MadeUp::Bad => {}
        }
    }
    let mut done = BTreeSet::new();
    for (number, change) in changes.iter().enumerate() {
        if let MadeUpChange::Redrive {
            offset,
            good: true,
            through,
        } = change
            && done.insert(*offset)
        {
            let is_deleted =
                |change: &MadeUpChange| matches!(change, MadeUpChange::DeleteRedriven { number: of } if *of == number);
            let document = (!changes.iter().any(is_deleted)).then(|| (format!("_changes/0@{number}"), *offset));
            steps.push((*through, 1 + number, events[*offset].0, document));
        }
    }
    steps.sort();
    let newest: BTreeMap<u8, Option<(String, usize)>> =
        steps.into_iter().map(|(_, _, key, document)| (key, document)).collect();
    newest
        .into_values()
        .flatten()
        .map(|(address, offset)| (address, format!("{{\"n\":{offset}}}")))
        .collect()
}

fn made_up() -> impl Strategy<Value = MadeUp> {
    prop_oneof![5 => Just(MadeUp::Good), 4 => Just(MadeUp::Bad), 1 => Just(MadeUp::Tombstone)]
}

proptest! {
    #![proptest_config(made_up::cases(30))]
    #[test]
    fn the_order_in_which_events_and_changes_are_read_makes_no_difference(
        events in prop::collection::vec((0u8..5, made_up()), 1..40),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0usize..10, any::<prop::sample::Index>()), 0..20),
        steps in prop::collection::vec((any::<bool>(), 1usize..6, prop::bool::weighted(0.05)), 0..40),
        in_splits: bool,
    ) {
        let of_kind = |kind: MadeUp| (0..events.len()).filter(|offset| events[*offset].1 == kind).collect::<Vec<_>>();
        let (bad, good) = (of_kind(MadeUp::Bad), of_kind(MadeUp::Good));
        let mut deleted = BTreeSet::new();
        let mut change = |(number, (pick, kind, through)): (usize, &(prop::sample::Index, usize, prop::sample::Index))| match kind {
            2 if number > 0 => Some(MadeUpChange::DeleteRedriven { number: pick.index(number) }),
            0..2 if !good.is_empty() => {
                let offset = *pick.get(&good);
                deleted.insert(offset).then_some(MadeUpChange::Delete { offset })
            }
            0..2 => None,
            _ if bad.is_empty() => None,
            kind => {
                let offset = *pick.get(&bad);
                let through = offset + through.index(events.len() - offset);
                // Whoever makes a change knows what was deleted before.
                let is_of_key = |deleted: &&usize| events[**deleted].0 == events[offset].0;
                let through = deleted.iter().filter(is_of_key).fold(through, |through, deleted| through.max(*deleted));
                Some(MadeUpChange::Redrive { offset, good: *kind < 8, through })
            }
        };
        let mut changes: Vec<MadeUpChange> = Vec::new();
        for pick in &picks {
            changes.extend(change((changes.len(), pick)));
        }
        // A delete names a document that is there: none that a dead letter, ingested again before, has replaced.
        let is_replaced = |number: usize, deleted: usize| changes[..number].iter().any(|change| match change {
            MadeUpChange::Redrive { offset, good, through } => {
                *good && *through >= deleted && events[*offset].0 == events[deleted].0
            }
            _ => false,
        });
        let is_possible = changes.iter().enumerate().all(|(number, change)| match change {
            MadeUpChange::Delete { offset } => !is_replaced(number, *offset),
            _ => true,
        });
        prop_assume!(is_possible);
        // A tombstone that follows the change is not remembered, so the change must come first.
        let changes_first = changes.iter().any(|change| match change {
            MadeUpChange::Redrive { offset, through, .. } => events[through + 1..]
                .iter()
                .any(|event| *event == (events[*offset].0, MadeUp::Tombstone)),
            _ => false,
        });
        let value = |offset: usize, is_good: bool| match is_good {
            true => format!("{{\"n\":{offset}}}"),
            false => format!("{{\"n\":{offset}"),
        };
        let event = |(offset, (key, kind)): (usize, &(u8, MadeUp))| {
            let value = (*kind != MadeUp::Tombstone).then(|| value(offset, *kind == MadeUp::Good));
            record(offset as i64, Some(&format!("k{key}")), value.as_deref())
        };
        let mut documents: Vec<Record> = events.iter().enumerate().map(event).collect();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut fixture = Fixture::start(if in_splits { small } else { tail_only });
            let rules = fixture.batch(0, -1, -1, vec![]).rules;
            let encode = |change: &MadeUpChange| match change {
                MadeUpChange::Redrive { offset, good, through } => DocumentChange::Redrive(Box::new(Redrive {
                    address: format!("clicks/0@{offset}").parse().expect("an address"),
                    rules: rules.clone(),
                    record: record(0, Some(&format!("k{}", events[*offset].0)), Some(&value(*offset, *good))),
                    read_through: *through as i64,
                })),
                MadeUpChange::Delete { offset } => {
                    let ranges = [range_of(*offset as i64, None)].into_iter().collect();
                    DocumentChange::Delete(DeletedRanges::from([((clicks(), 0), ranges)]))
                }
                MadeUpChange::DeleteRedriven { number } => {
                    let ranges = [range_of(*number as i64, None)].into_iter().collect();
                    DocumentChange::Delete(DeletedRanges::from([((SourceName::changes(), 0), ranges)]))
                }
            };
            let change = |(number, change): (usize, &MadeUpChange)| Record {
                value: RecordValue::One(encode(change).encode()),
                request: Some(RequestKey { key: format!("change {number}"), body: 0 }),
                ..record(number as i64, None, None)
            };
            let mut left_changes: Vec<Record> = changes.iter().enumerate().map(change).collect();
            let (mut documents_after, mut changes_after) = (-1, -1);
            let mut steps = steps.into_iter();
            while !documents.is_empty() || !left_changes.is_empty() {
                let (is_change, count, restarts) = steps.next().unwrap_or((documents.is_empty(), 100, false));
                let is_change = is_change || changes_first && !left_changes.is_empty();
                let (left, after) = match is_change {
                    true => (&mut left_changes, &mut changes_after),
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
            assert_eq!(fixture.documents().await, expected(&events, &changes));
            let redrives = changes.iter().filter_map(|change| match change {
                MadeUpChange::Redrive { offset, good, .. } => Some((*offset, *good)),
                _ => None,
            });
            let redrives: Vec<(usize, bool)> = redrives.collect();
            let redriven: BTreeSet<usize> = redrives.iter().filter(|redrive| redrive.1).map(|redrive| redrive.0).collect();
            let mut left: Vec<String> = bad
                .iter()
                .filter(|offset| !redriven.contains(offset))
                .map(|offset| format!("clicks/0@{offset}"))
                .collect();
            left.sort();
            assert_eq!(letters(&fixture).await, left);
            let of_events = fixture.outcomes(&clicks(), 0).await;
            let of_changes = match changes.is_empty() {
                true => Default::default(),
                false => fixture.outcomes(&SourceName::changes(), 0).await,
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
