//! DELETE: which changes the engine sends to each shard, and what it records if some shards fail.

use std::sync::atomic::Ordering;

use proto::{
    Code, Position, SourceName,
    catalog::{Collection, Deletion},
    document_change::{DeletedRanges, DocumentChange},
    ingest::ShardId,
    place_ranges::{Place, PlaceRanges},
    routing::shard_of,
};
use serde_json::json;

use super::{Bench, bench, events, fake::sent_push, lines};

async fn ten() -> Bench {
    bench((0..10).map(|n| json!({ "n": n }))).await
}

fn collection(bench: &Bench) -> Collection {
    bench.engine.catalog().collections[&events()].clone()
}

/// The ranges in the changes that the engine has sent to all shards.
fn deleted(bench: &Bench) -> DeletedRanges {
    let mut all = DeletedRanges::new();
    for change in bench.leaf.changes.lock().iter() {
        let Some(DocumentChange::Delete(ranges)) = DocumentChange::decode(&change.items[0]) else {
            panic!("no delete: {change:?}");
        };
        for ((source, partition), ranges) in ranges {
            assert_eq!(shard_of(&source, partition, 2), change.shard.number);
            all.entry((source, partition)).or_default().add(&ranges);
        }
    }
    all
}

fn offsets(ranges: &PlaceRanges) -> Vec<i64> {
    (0..10)
        .filter(|offset| ranges.contains(Place::first(*offset)))
        .collect()
}

#[tokio::test]
async fn each_shard_gets_its_ranges_and_the_catalog_records_the_delete_once() {
    let bench = ten().await;
    let (batches, _) = bench
        .try_sql("delete from events e where e.n in (2, 3, 4)")
        .await
        .expect("a delete");
    assert_eq!(lines(&batches)[0].split(" | ").next(), Some("3"));
    // The documents alternate between two partitions.
    let deleted = deleted(&bench);
    assert_eq!(offsets(&deleted[&(SourceName::push(), 0)]), [1, 2]);
    assert_eq!(offsets(&deleted[&(SourceName::push(), 1)]), [1]);
    let collection = collection(&bench);
    let [
        Deletion {
            documents,
            complete,
            condition,
            position,
            ..
        },
    ] = collection.deletions.as_slice()
    else {
        panic!("not one delete: {:?}", collection.deletions);
    };
    assert_eq!(
        (*documents, *complete, condition.as_str()),
        (3, true, "e.n in (?, ?, ?)")
    );
    assert_eq!(&collection.changed_through, position);
    assert_eq!(position.iter().count(), 2);
}

#[tokio::test]
async fn after_a_failure_answers_cover_what_was_applied_and_a_repetition_covers_the_rest() {
    for (codes, expected) in [
        (
            [None, Some(Code::Unavailable)],
            "only some of the documents are deleted",
        ),
        (
            [None, Some(Code::UnknownOutcome)],
            "only some of the documents are deleted",
        ),
        (
            [Some(Code::Unavailable), Some(Code::UnknownOutcome)],
            "the documents may or may not be deleted",
        ),
        (
            [Some(Code::UnknownOutcome), Some(Code::Unavailable)],
            "the documents may or may not be deleted",
        ),
    ] {
        let bench = ten().await;
        let failing = (0..).zip(codes).filter_map(|(shard, code)| Some((shard, code?)));
        *bench.leaf.failing_changes.lock() = failing.collect();
        let problem = bench
            .try_sql("delete from events where true")
            .await
            .expect_err("a failure");
        assert_eq!(problem.code, Code::UnknownOutcome, "{codes:?}: {problem:?}");
        assert!(problem.detail.contains(expected), "{codes:?}: {problem:?}");
        assert!(problem.hint.is_some_and(|hint| hint.contains("repeat")), "{codes:?}");
        let acknowledged = codes.iter().filter(|code| code.is_none()).count();
        let before = collection(&bench);
        assert_eq!(before.changed_through.iter().count(), acknowledged, "{codes:?}");
        assert!(before.deletions.iter().all(|deletion| !deletion.complete), "{codes:?}");
        // A repetition finds nothing, and the changes of both shards count from then on.
        bench.leaf.failing_changes.lock().clear();
        bench.sql("delete from events where n > 1000").await;
        let applied = bench.leaf.changes.lock().len();
        assert_eq!(collection(&bench).changed_through.iter().count(), applied, "{codes:?}");
    }
}

#[tokio::test]
async fn nothing_is_deleted_if_no_shard_could_apply_it() {
    let bench = ten().await;
    *bench.leaf.failing_changes.lock() = [(0, Code::Unavailable), (1, Code::Unavailable)].into();
    let problem = bench
        .try_sql("delete from events where true")
        .await
        .expect_err("a failure");
    assert_eq!(problem.code, Code::Unavailable, "{problem:?}");
    assert_eq!(collection(&bench).deletions, []);
}

#[tokio::test]
async fn nothing_is_deleted_while_a_shard_is_missing_or_behind() {
    let bench = ten().await;
    bench.leaf.unavailable.lock().insert(1);
    let problem = bench
        .try_sql("delete from events where true")
        .await
        .expect_err("a shard is missing");
    assert_eq!(problem.code, Code::Incomplete, "{problem:?}");
    bench.leaf.unavailable.lock().clear();
    let shard = ShardId {
        collection: collection(&bench).uid,
        number: 0,
    };
    let acknowledged = Position {
        source: SourceName::push(),
        partition: 0,
        offset: 99,
    };
    bench.engine.on_push_acknowledged(shard, acknowledged);
    bench.leaf.waits.store(true, Ordering::SeqCst);
    let problem = bench
        .try_sql("delete from events where true")
        .await
        .expect_err("a shard is behind");
    assert_eq!(problem.code, Code::Incomplete, "{problem:?}");
    assert!(problem.detail.contains("lacks push/0@99"), "{problem:?}");
    assert!(bench.leaf.changes.lock().is_empty());
}

#[tokio::test]
async fn nothing_is_deleted_if_only_the_tailers_know_what_a_shard_lacks() {
    for condition in ["true", "_id = 'unknown'"] {
        let bench = ten().await;
        bench.leaf.waits.store(true, Ordering::SeqCst);
        *bench.tailer.rows.lock() = vec![sent_push(None, 99)];
        let problem = bench
            .try_sql(&format!("delete from events where {condition}"))
            .await
            .expect_err("a shard is behind");
        assert_eq!(problem.code, Code::Incomplete, "{problem:?}");
        assert!(problem.detail.contains("lacks push/0@99"), "{problem:?}");
        assert!(bench.leaf.changes.lock().is_empty());
    }
}
