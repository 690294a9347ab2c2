//! Retention: which changes the engine sends, and what it records, when shards are away and when it must go on in parts.

use std::{collections::BTreeSet, time::Duration};

use proto::{
    Code,
    catalog::{Change, Collection, CollectionSettings},
    document_change::DocumentChange,
    ingest::Push,
    place_ranges::{Place, PlaceRange},
    tailer::Changes as _,
};
use serde_json::json;

use super::{Bench, bench_with, events};

const WAIT: Duration = Duration::from_secs(60);

/// Ten documents of 2023, in two shards. One delete takes only those of one shard.
async fn ten() -> Bench {
    bench_with((0..10).map(|n| json!({ "at": 1_700_000_000 + n })), |options| {
        options.delete_ranges_max = 4
    })
    .await
}

async fn keep(bench: &Bench, retention: &str) {
    let settings = CollectionSettings {
        shards: 2,
        retention: Some(retention.parse().expect("a retention")),
        ..CollectionSettings::default()
    };
    let name = events();
    let change = Change::AlterCollection { name, settings };
    bench.changes.propose(change, None).await.expect("settings");
}

fn collection(bench: &Bench) -> Collection {
    bench.engine.catalog().collections[&events()].clone()
}

/// The shards to which the engine has sent a removal.
fn told(bench: &Bench) -> BTreeSet<u32> {
    let changes = bench.leaf.changes.lock();
    let is_expiry = |change| matches!(DocumentChange::decode(change), Some(DocumentChange::Expire { .. }));
    assert!(changes.iter().all(|change| is_expiry(&change.items[0])), "{changes:?}");
    changes.iter().map(|change| change.shard.number).collect()
}

#[tokio::test]
async fn shards_that_are_there_lose_what_has_expired_and_the_others_later() {
    let bench = ten().await;
    bench.leaf.unavailable.lock().insert(1);
    keep(&bench, "1d by event").await;
    let problem = bench
        .engine
        .expire(&events(), WAIT)
        .await
        .expect_err("a shard is missing");
    assert!(
        problem.code == Code::Incomplete && problem.detail.contains("shard 1"),
        "{problem:?}"
    );
    assert_eq!(told(&bench), BTreeSet::from([0]));
    assert!(collection(&bench).deletions.iter().all(|deletion| !deletion.complete));
    bench.leaf.unavailable.lock().clear();
    bench.engine.expire(&events(), WAIT).await.expect("a removal");
    assert_eq!(told(&bench), BTreeSet::from([0, 1]));
    let collection = collection(&bench);
    assert_eq!(collection.deletions.len(), 1, "{:?}", collection.deletions);
    assert!(collection.deletions[0].expired && collection.deletions[0].complete);
    assert_eq!(collection.changed_through.iter().count(), 2);
    assert_eq!(bench.sql("select count(*) from events").await.0, ["0"]);
}

#[tokio::test]
async fn what_is_too_much_for_one_delete_expires_in_several() {
    let bench = ten().await;
    keep(&bench, "1d by event").await;
    bench.engine.expire(&events(), WAIT).await.expect("a removal");
    assert_eq!(told(&bench), BTreeSet::from([0, 1]));
    assert_eq!(collection(&bench).deletions[0].documents, 5, "the last one of two");
}

#[tokio::test]
async fn scattered_documents_are_one_range_up_to_the_first_that_stays() {
    let young = chrono::Utc::now().timestamp();
    // Two shards: the documents of each have the offsets 0 to 299, of which 200 stays.
    let at = |n: i64| if n / 2 == 200 { young } else { 1_700_000_000 + n };
    let bench = bench_with((0..600).map(|n| json!({ "at": at(n) })), |_| {}).await;
    bench.leaf.remove_every_second();
    keep(&bench, "1d by event").await;
    bench.engine.expire(&events(), WAIT).await.expect("a removal");
    let sent = bench.leaf.changes.lock().clone();
    let ranges = |push: &Push| match DocumentChange::decode(&push.items[0]) {
        Some(DocumentChange::Expire { ranges, .. }) => ranges
            .into_values()
            .flat_map(|ranges| ranges.iter().collect::<Vec<_>>())
            .collect(),
        other => panic!("no removal: {other:?}"),
    };
    let sent: Vec<Vec<PlaceRange>> = sent.iter().map(ranges).collect();
    let range = |from: i64, to: i64| (Place::first(from), Place::first(to));
    let scattered = (202..300).step_by(2).map(|offset| range(offset, offset + 1));
    let wanted: Vec<PlaceRange> = [range(0, 199)].into_iter().chain(scattered).collect();
    assert_eq!(sent, vec![wanted; 2]);
    assert_eq!(bench.sql("select count(*) from events").await.0, ["2"]);
}

#[tokio::test]
async fn a_removal_that_failed_is_repeated() {
    let bench = ten().await;
    *bench.leaf.failing_changes.lock() = [(0, Code::Unavailable), (1, Code::Unavailable)].into();
    keep(&bench, "1d by event").await;
    let problem = bench.engine.expire(&events(), WAIT).await.expect_err("a failure");
    assert_eq!(problem.code, Code::Unavailable, "{problem:?}");
    assert_eq!(collection(&bench).deletions, []);
    bench.leaf.failing_changes.lock().clear();
    bench.engine.expire(&events(), WAIT).await.expect("a removal");
    assert_eq!(bench.sql("select count(*) from events").await.0, ["0"]);
}

#[tokio::test]
async fn settings_that_change_meanwhile_end_a_removal_before_it_removes_anything() {
    let bench = ten().await;
    keep(&bench, "1d by event").await;
    let before = collection(&bench);
    let retention = before.settings.retention.clone().expect("a retention");
    let removal = bench
        .engine
        .removal(&events(), &before, &retention, WAIT)
        .expect("a removal");
    keep(&bench, "90y by event").await;
    let problem = bench
        .engine
        .delete(removal)
        .await
        .expect_err("the settings have changed");
    assert_eq!(problem.code, Code::Conflict, "{problem:?}");
    assert!(bench.leaf.changes.lock().is_empty());
}

#[tokio::test]
async fn settings_are_answered_only_once_a_removal_under_the_former_ones_has_ended() {
    let bench = ten().await;
    let lock = bench.engine.removal_lock(collection(&bench).uid);
    let running = lock.lock().await;
    let changed = bench.engine.expire(&events(), Duration::from_millis(1)).await;
    assert_eq!(changed.map_err(|problem| problem.code), Err(Code::Timeout));
    drop(running);
    assert_eq!(bench.engine.expire(&events(), WAIT).await, Ok(0));
}

#[tokio::test]
async fn what_is_young_enough_stays() {
    let bench = ten().await;
    keep(&bench, "90y by event").await;
    assert_eq!(bench.engine.expire(&events(), WAIT).await, Ok(0));
    assert!(bench.leaf.changes.lock().is_empty());
    assert_eq!(collection(&bench).deletions, []);
}
