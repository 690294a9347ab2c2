//! Deletes by address: what is deleted is gone with the acknowledgement, after any restart, and when its records are read
//! again, in whatever order documents and changes arrive. What is not deleted stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use plan::scan::Scan as _;
use proptest::prelude::*;
use proto::{
    CollectionUid, SourceName,
    catalog::{Change, ChangeRecord, Deletion},
    document_change::{DeletedRanges, DocumentChange},
    ingest::{Batch, BatchOutcome, CHANGE_RULES_LEVEL, Ingest as _, Push},
    place_ranges::range_of,
    record::{Record, RecordValue, RequestKey, Rules},
};

use super::{
    made_up::{self, Dice, seed},
    replay::{model, streams},
    support::{Fixture, clicks, record, small, tail_only},
};
use crate::LeafOptions;

/// A change that deletes the records at these offsets of `clicks/0`.
fn delete(offsets: &BTreeSet<i64>) -> DocumentChange {
    let ranges = offsets.iter().map(|offset| range_of(*offset, None)).collect();
    DocumentChange::Delete(DeletedRanges::from([((clicks(), 0), ranges)]))
}

/// The same, because the documents are too old at this time.
fn expire(offsets: &BTreeSet<i64>, as_of_ms: i64) -> DocumentChange {
    let DocumentChange::Delete(ranges) = delete(offsets) else {
        unreachable!("it is a delete");
    };
    DocumentChange::Expire { ranges, as_of_ms }
}

/// Changes as records of the source of changes, as a tailer reads them: offsets, and whether they expire.
fn change_records(changes: &[(BTreeSet<i64>, bool)]) -> Vec<Record> {
    let encode = |(hidden, expires): &(BTreeSet<i64>, bool)| match expires {
        true => expire(hidden, 0).encode(),
        false => delete(hidden).encode(),
    };
    let change = |(offset, change): (i64, &(BTreeSet<i64>, bool))| Record {
        value: RecordValue::One(encode(change)),
        request: Some(RequestKey {
            key: format!("delete {offset}"),
            body: 0,
        }),
        ..record(offset, None, None)
    };
    (0..).zip(changes).map(change).collect()
}

pub(super) fn change_batch(fixture: &Fixture, after: i64, records: Vec<Record>) -> Batch {
    let through = records.last().map_or(after, |record| record.offset);
    Batch {
        source: SourceName::changes(),
        level: CHANGE_RULES_LEVEL,
        rules: Rules::default(),
        ..fixture.batch(0, after, through, records)
    }
}

/// Deletes as an aggregator asks for it where the leaf assigns the offsets.
async fn push_delete(fixture: &Fixture, change: &DocumentChange) -> String {
    let push = Push {
        source: SourceName::changes(),
        level: CHANGE_RULES_LEVEL,
        items: vec![change.encode()],
        ..fixture.push_request(&[])
    };
    let result = fixture.try_push(push).await.expect("a delete");
    assert_eq!((result.accepted, result.rejected), (1, 0));
    result.position.to_string()
}

fn addresses(offsets: impl IntoIterator<Item = i64>) -> BTreeSet<String> {
    offsets.into_iter().map(|offset| format!("clicks/0@{offset}")).collect()
}

async fn visible(fixture: &Fixture) -> BTreeSet<String> {
    fixture.documents().await.into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_hides_documents_in_tail_and_splits_at_once_and_after_restarts() {
    for (adjust, indexed) in [(small as fn(&mut LeafOptions), true), (tail_only, false)] {
        let fixture = Fixture::start(adjust);
        let records = |from: i64, to: i64| -> Vec<Record> {
            let keyed = |offset: i64| record(offset, Some(&format!("k{offset}")), Some("{\"a\":1}"));
            (from..=to).map(keyed).collect()
        };
        fixture.write(fixture.batch(0, -1, 299, records(0, 299))).await;
        assert_eq!(fixture.documents().await.len(), 300);
        if indexed {
            fixture.eventually("a split is on disk", has_split).await;
        }
        fixture.write(fixture.batch(0, 299, 303, records(300, 303))).await;
        let deleted = BTreeSet::from_iter((10..100).chain([250, 301]));
        let before = fixture.view().await;
        assert_eq!(push_delete(&fixture, &delete(&deleted)).await, "_changes/0@0");
        let left = addresses((0..304).filter(|offset| !deleted.contains(offset)));
        assert_eq!(visible(&fixture).await, left);
        assert_eq!(before.documents(), 304, "a view that was open stays as it is");
        drop(before);
        let outcomes = fixture.outcomes(&clicks(), 0).await;
        assert_eq!((outcomes.deleted, outcomes.documents), (92, 212));
        for (id, found) in [("k9", true), ("k10", false), ("k301", false), ("k302", true)] {
            let document = fixture
                .leaf
                .document(fixture.shard, id, &Default::default())
                .await
                .expect("an answer")
                .document;
            assert_eq!(document.is_some(), found, "{id}");
        }
        // A second delete of the same documents deletes none, and its records take no room of theirs.
        assert_eq!(push_delete(&fixture, &delete(&deleted)).await, "_changes/0@1");
        assert_eq!(fixture.outcomes(&clicks(), 0).await.deleted, 92);
        assert_eq!(visible(&fixture.crashed()).await, left);
        let fixture = fixture.restart().await;
        assert_eq!(visible(&fixture).await, left);
        // The key of a deleted document is free for another one.
        fixture
            .write(fixture.batch(0, 303, 304, vec![record(304, Some("k10"), Some("{\"a\":2}"))]))
            .await;
        let outcomes = fixture.outcomes(&clicks(), 0).await;
        assert_eq!(
            (outcomes.superseded, outcomes.deleted, outcomes.documents),
            (0, 92, 213)
        );
        let document = fixture
            .leaf
            .document(fixture.shard, "k10", &Default::default())
            .await
            .expect("an answer")
            .document;
        assert_eq!(
            document.map(|found| found.address.to_string()).as_deref(),
            Some("clicks/0@304")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_that_is_rebuilt_has_no_deleted_document() {
    let fixture = Fixture::start(small);
    let records = (0..300).map(|offset| record(offset, None, Some("{}"))).collect();
    fixture.write(fixture.batch(0, -1, 299, records)).await;
    fixture.eventually("a split is on disk", has_split).await;
    let deleted = BTreeSet::from_iter(3..60);
    push_delete(&fixture, &delete(&deleted)).await;
    let fixture = fixture
        .restart_with_files(|folder| {
            let splits = walk(folder).into_iter().filter(|path| path.ends_with("splits"));
            for folder in splits {
                std::fs::remove_dir_all(folder).expect("removed");
            }
        })
        .await;
    let left = addresses((0..300).filter(|offset| !deleted.contains(offset)));
    assert_eq!(visible(&fixture).await, left);
    assert_eq!(fixture.outcomes(&clicks(), 0).await.documents, 243);
}

async fn has_split(fixture: &Fixture) -> bool {
    let status = fixture.leaf.status(fixture.shard).await.expect("its status");
    status.splits.iter().any(|split| split.on_disk)
}

/// All folders below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    let folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    let below = folders.iter().flat_map(|folder| walk(folder)).collect::<Vec<_>>();
    folders.into_iter().chain(below).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_arrive_together_with_their_delete_are_counted_once() {
    let fixture = Fixture::start(tail_only);
    for round in 0..50 {
        let documents = fixture.batch(0, round - 1, round, vec![record(round, None, Some("{}"))]);
        let change = Record {
            offset: round,
            ..change_records(&[(BTreeSet::from([round]), false)]).remove(0)
        };
        let change = Record {
            request: None,
            ..change
        };
        let change = change_batch(&fixture, round - 1, vec![change]);
        let (documents, change) = tokio::join!(fixture.write(documents), fixture.write(change));
        let applied = BatchOutcome::Applied { stored: round };
        assert_eq!((documents, change), (applied.clone(), applied));
        let outcomes = fixture.outcomes(&clicks(), 0).await;
        assert_eq!((outcomes.deleted, outcomes.documents), (round.cast_unsigned() + 1, 0));
    }
    assert!(fixture.documents().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_deleted_document_is_left_in_any_file() {
    fn erased_at_once(options: &mut LeafOptions) {
        small(options);
        options.deleted_kept = std::time::Duration::ZERO;
    }
    let fixture = Fixture::start(small);
    let mut dice = Dice::new(seed());
    // So random that no compression hides them, with a key, in three places of an index.
    let secrets: Vec<String> = (0..400).map(|n| format!("{n}x{}", dice.word())).collect();
    let document = |secret: &String| format!("{{\"a\":\"{secret}\",\"b\":\"some {secret} text\"}}");
    let records = (0..)
        .zip(&secrets)
        .map(|(offset, secret)| record(offset, Some(secret), Some(&document(secret))));
    fixture.write(fixture.batch(0, -1, 399, records.collect())).await;
    fixture.eventually("a split is on disk", has_split).await;
    let deleted: BTreeSet<i64> = (0..400).filter(|offset| offset % 3 == 0).collect();
    push_delete(&fixture, &delete(&deleted)).await;
    let found = |fixture: &Fixture| found_in_files(fixture.folder.path(), &secrets);
    let before = found(&fixture);
    assert!(before.len() > 300, "the search finds {} of 400", before.len());
    // The pushes of tests date from 2023, so these are due.
    let fixture = fixture.restart_with_options(erased_at_once).await;
    let mut deleted = deleted;
    for round in 0..5 {
        if round > 0 {
            let more: BTreeSet<i64> = (1..400).step_by(3).skip(round as usize).step_by(11).collect();
            push_delete(&fixture, &delete(&more)).await;
            deleted.extend(more);
        }
        let left = addresses((0..400).filter(|offset| !deleted.contains(offset)));
        let is_erased = async |fixture: &Fixture| {
            assert_eq!(visible(fixture).await, left);
            let partitions = fixture.leaf.partitions(fixture.shard.collection).await;
            let partitions = partitions.expect("partitions");
            partitions
                .iter()
                .any(|partition| partition.erased_through == Some(round))
        };
        fixture.eventually("the documents are erased", is_erased).await;
        let found = found(&fixture);
        let wrong: Vec<_> = found.iter().filter(|(offset, _)| deleted.contains(offset)).collect();
        assert!(
            wrong.is_empty(),
            "round {round}: {} are left: {:?}",
            wrong.len(),
            wrong.first()
        );
    }
    let fixture = fixture.restart().await;
    assert_eq!(
        visible(&fixture).await,
        addresses((0..400).filter(|offset| !deleted.contains(offset)))
    );
    check(&fixture, &fixture.documents().await, 400, &(0..=0)).await;
}

/// The numbers of the texts that occur in a file, each with the first such file.
fn found_in_files(folder: &std::path::Path, texts: &[String]) -> BTreeMap<i64, std::path::PathBuf> {
    let folders = walk(folder).into_iter().chain([folder.to_owned()]);
    let entries = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let mut found = BTreeMap::new();
    for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        for (number, text) in (0..).zip(texts) {
            if !found.contains_key(&number) && memchr::memmem::find(&bytes, text.as_bytes()).is_some() {
                found.insert(number, path.clone());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_of_a_push_is_deleted_without_its_neighbours() {
    let fixture = Fixture::start(tail_only);
    fixture.push(&["0", "1", "2"]).await;
    fixture.push(&["3"]).await;
    let ranges = [range_of(0, Some(1)), range_of(1, None)].into_iter().collect();
    let change = DocumentChange::Delete(DeletedRanges::from([((SourceName::push(), 0), ranges)]));
    push_delete(&fixture, &change).await;
    let left = ["push/0@0.0", "push/0@0.2"].map(str::to_owned);
    assert_eq!(visible(&fixture).await, left.into());
    assert_eq!(fixture.outcomes(&SourceName::push(), 0).await.deleted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_change_is_a_dead_letter_and_the_next_change_is_applied() {
    let fixture = Fixture::start(tail_only);
    fixture
        .write(fixture.batch(0, -1, 0, vec![record(0, None, Some("{}"))]))
        .await;
    let mut records = vec![record(0, None, Some("{\"delete\": \"all\"}"))];
    let change = change_records(&[(BTreeSet::from([0]), false)]).remove(0);
    records.push(Record { offset: 1, ..change });
    let outcome = fixture.write(change_batch(&fixture, -1, records)).await;
    assert_eq!(outcome, BatchOutcome::Applied { stored: 1 });
    assert!(fixture.documents().await.is_empty());
    let letters = fixture.leaf.dead_letters(fixture.shard, 9).await.expect("dead letters");
    let codes: Vec<&str> = letters.iter().map(|letter| letter.code.as_str()).collect();
    assert_eq!(codes, ["not_a_change"]);
    let outcomes = fixture.outcomes(&SourceName::changes(), 0).await;
    assert_eq!((outcomes.events, outcomes.dead_letters, outcomes.documents), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_a_clock_in_the_future_found_too_old_stay() {
    let fixture = Fixture::start(tail_only);
    let documents = (0..4).map(|offset| record(offset, None, Some("{}"))).collect();
    fixture.write(fixture.batch(0, -1, 3, documents)).await;
    let changes = [(0, 300_000), (1, 300_001)].map(|(offset, ahead_ms)| {
        let at = record(offset, None, None);
        let change = expire(&BTreeSet::from([offset]), at.time_ms + ahead_ms);
        Record {
            value: RecordValue::One(change.encode()),
            ..at
        }
    });
    fixture.write(change_batch(&fixture, -1, changes.into())).await;
    assert_eq!(visible(&fixture).await, addresses(1..4));
    let letters = fixture.leaf.dead_letters(fixture.shard, 9).await.expect("dead letters");
    assert!(letters[0].detail.contains("clock"), "{letters:?}");
    let outcomes = fixture.outcomes(&clicks(), 0).await;
    assert_eq!((outcomes.expired, outcomes.deleted, outcomes.documents), (1, 0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_level_of_documents_are_refused() {
    let fixture = Fixture::start(tail_only);
    let batch = fixture.batch(0, -1, 0, change_records(&[(BTreeSet::from([0]), false)]));
    let outcome = fixture
        .write(Batch {
            source: SourceName::changes(),
            ..batch
        })
        .await;
    assert!(
        matches!(&outcome, BatchOutcome::Refused { reason } if reason.contains("level 1")),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_answers_only_once_it_has_read_the_changes_that_the_catalog_knows() {
    let fixture = Fixture::start(tail_only);
    fixture
        .write(fixture.batch(
            0,
            -1,
            1,
            vec![record(0, Some("a"), Some("1")), record(1, None, Some("2"))],
        ))
        .await;
    add_deletion(&fixture, "_changes/0@0");
    let (leaf, shard) = (fixture.leaf.clone(), fixture.shard);
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(50);
    let early = fixture.open_at(shard, Default::default(), deadline).await.err();
    let detail = early.map(|problem| problem.detail).unwrap_or_default();
    assert!(detail.contains("has not ingested _changes/0@0"), "{detail}");
    let waiting = tokio::spawn(async move { leaf.document(shard, "a", &Default::default()).await });
    let records = change_records(&[(BTreeSet::from([0]), false)]);
    fixture.write(change_batch(&fixture, -1, records)).await;
    let found = waiting.await.expect("it runs").expect("an answer");
    assert_eq!(found.document, None, "it waited for the change");
    assert_eq!(visible(&fixture).await, addresses([1]));
}

/// Has the catalog say that a delete was applied.
fn add_deletion(fixture: &Fixture, position: &str) {
    let CollectionUid(id) = fixture.shard.collection;
    let change = Change::AddDeletion {
        collection: fixture.shard.collection,
        deletion: Deletion {
            id,
            requested_ms: 0,
            condition: "true".into(),
            documents: 1,
            complete: true,
            author: None,
            expired: false,
            position: position.parse().expect("a position"),
        },
    };
    let opened = Change::OpenChanges {
        collection: fixture.shard.collection,
    };
    for change in [opened, change] {
        fixture.catalog.send_modify(|catalog| {
            let record = ChangeRecord {
                uid: uuid::Uuid::now_v7(),
                level: proto::catalog::CATALOG_RULES_LEVEL,
                expected: None,
                change,
            };
            let (next, result) = catalog.apply(&record);
            result.expect("accepted");
            *catalog = std::sync::Arc::new(next);
        });
    }
}

/// One step of a replica: this many records of the documents, or one of the changes, and perhaps a restart.
#[derive(Debug, Clone)]
enum ReplicaStep {
    Documents(usize),
    Change,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<ReplicaStep>> {
    let step = prop_oneof![
        6 => (1..12usize).prop_map(ReplicaStep::Documents),
        4 => Just(ReplicaStep::Change),
        1 => Just(ReplicaStep::Restart),
    ];
    proptest::collection::vec(step, 0..20)
}

proptest! {
    #![proptest_config(made_up::cases(10))]

    #[test]
    fn the_order_in_which_documents_and_changes_arrive_changes_nothing(
        records in streams(),
        changes in proptest::collection::vec((proptest::collection::btree_set(0i64..80, 0..30), any::<bool>()), 0..5),
        orders in proptest::collection::vec((steps(), any::<bool>()), 2),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let deleted: BTreeSet<i64> = changes.iter().flat_map(|(hidden, _)| hidden).copied().collect();
            let (mut wanted, counted) = model(&records);
            let is_deleted = |address: &String| addresses(deleted.iter().copied()).contains(address);
            wanted.retain(|address, _| !is_deleted(address));
            let expired = expired(&records, &changes);
            for (steps, indexed) in orders {
                let fixture = replica(&records, &change_records(&changes), steps, indexed).await;
                check(&fixture, &wanted, counted.accepted, &expired).await;
                check(&fixture.crashed(), &wanted, counted.accepted, &expired).await;
                check(&fixture.restart().await, &wanted, counted.accepted, &expired).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_counts_as_deleted_or_as_expired_by_the_first_change_in_any_order() {
    let changes = change_records(&[
        (BTreeSet::from([1, 2, 3]), false),
        (BTreeSet::from([2, 3, 4, 5]), true),
        (BTreeSet::from([5, 6]), false),
    ]);
    let records: Vec<Record> = (0..8).map(|offset| record(offset, None, Some("{}"))).collect();
    let (documents, change) = (ReplicaStep::Documents, || ReplicaStep::Change);
    for steps in [
        vec![],
        vec![change(), change(), change()],
        vec![documents(3), change(), documents(2), change(), ReplicaStep::Restart],
        vec![change(), documents(4), change(), ReplicaStep::Restart, change()],
    ] {
        let fixture = replica(&records, &changes, steps.clone(), false).await;
        let outcomes = fixture.outcomes(&clicks(), 0).await;
        let counts = (outcomes.deleted, outcomes.expired, outcomes.documents);
        assert_eq!(counts, (4, 2, 2), "{steps:?}");
    }
}

/// A replica that reads both sources to their ends, in this order.
async fn replica(records: &[Record], changes: &[Record], steps: Vec<ReplicaStep>, indexed: bool) -> Fixture {
    let mut fixture = Fixture::start(if indexed { small } else { tail_only });
    let (mut documents, mut changes) = (records, changes);
    let (mut after, mut changed) = (-1, -1);
    let rest = [ReplicaStep::Documents(usize::MAX)]
        .into_iter()
        .chain([const { ReplicaStep::Change }; 5]);
    for step in steps.into_iter().chain(rest) {
        match step {
            ReplicaStep::Documents(count) => {
                let (now, later) = documents.split_at(count.min(documents.len()));
                let Some(last) = now.last() else { continue };
                let batch = fixture.batch(0, after, last.offset, now.to_vec());
                fixture.write(batch).await;
                (documents, after) = (later, last.offset);
            }
            ReplicaStep::Change => {
                let Some((first, later)) = changes.split_first() else {
                    continue;
                };
                let batch = change_batch(&fixture, changed, vec![first.clone()]);
                fixture.write(batch).await;
                (changes, changed) = (later, first.offset);
            }
            ReplicaStep::Restart => fixture = fixture.restart().await,
        }
    }
    fixture
}

/// How many documents have expired: the first change that has them says so. One that another replaces counts as that, if
/// it is replaced first.
fn expired(records: &[Record], changes: &[(BTreeSet<i64>, bool)]) -> RangeInclusive<u64> {
    let has_expired = |record: &&Record| {
        let first = changes.iter().find(|(hidden, _)| hidden.contains(&record.offset));
        let is_document = matches!(&record.value, RecordValue::One(bytes) if &bytes[..] != b"bad");
        is_document && first.is_some_and(|(_, expires)| *expires)
    };
    let expired = records.iter().filter(has_expired);
    let unkeyed = expired.clone().filter(|record| record.key.is_none()).count();
    unkeyed as u64..=expired.count() as u64
}

async fn check(fixture: &Fixture, wanted: &BTreeMap<String, String>, accepted: u64, expired: &RangeInclusive<u64>) {
    assert_eq!(fixture.documents().await, *wanted);
    let outcomes = fixture.outcomes(&clicks(), 0).await;
    assert!(
        expired.contains(&outcomes.expired),
        "{outcomes:?}, not {expired:?} expired"
    );
    assert_eq!((outcomes.documents, outcomes.accepted), (wanted.len() as u64, accepted));
    let again = fixture
        .leaf
        .partitions(fixture.shard.collection)
        .await
        .expect("partitions");
    assert!(again.iter().all(|partition| partition.outcomes.balance()));
}
