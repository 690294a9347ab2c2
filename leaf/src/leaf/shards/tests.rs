//! Tests of `shards`.

use std::sync::atomic::AtomicUsize;

use futures::{StreamExt as _, stream};
use proto::{
    catalog::{Collection, CollectionSettings},
    ingest::{Push, Pushes as _},
};

use super::*;
use crate::tests::support::{Fixture, all_documents, small};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Adds a collection with one shard to the catalog, and returns that shard.
fn add_collection(fixture: &Fixture) -> ShardId {
    let shard = ShardId {
        collection: CollectionUid(uuid::Uuid::now_v7()),
        number: 0,
    };
    fixture.catalog.send_modify(|catalog| {
        let settings = CollectionSettings {
            shards: 1,
            ..CollectionSettings::default()
        };
        Arc::make_mut(catalog).collections.insert(
            "other".parse().expect("a name"),
            Collection::new(shard.collection, 1, settings),
        );
    });
    shard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_closes_before_it_is_opened_needs_a_new_reservation() {
    let fixture = Fixture::start(small);
    let (shards, id) = (&fixture.leaf.shards, fixture.shard);
    let slot = shards.slot(id);
    // As if the shard had been open when room was reserved for it.
    let opened = shards.open_at(id, &slot, None).expect("it has not failed");
    assert!(opened.is_none() && slot.shard().is_none());
    shards.open_unused(id).expect("it opens with a reservation");
    assert!(slot.shard().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_open_does_not_block_other_shards() {
    let fixture = Fixture::start(small);
    let other = add_collection(&fixture);
    let slot = fixture.leaf.shards.slot(fixture.shard);
    let ((begins, begun), (ends, ended)) = (std::sync::mpsc::sync_channel(1), std::sync::mpsc::sync_channel::<()>(1));
    let opens = std::thread::spawn(move || {
        let _lifecycle = slot.lifecycle.write();
        begins.send(()).expect("the test waits for it");
        let _ends = ended.recv();
    });
    begun.recv().expect("it has the lock");
    let waiting = Arc::new(AtomicUsize::new(0));
    let many = stream::iter(0..4 * CONCURRENT_OPENS_MAX).map(|_| {
        let (leaf, push, waiting) = (fixture.leaf.clone(), fixture.push_request(&["1"]), waiting.clone());
        tokio::spawn(async move {
            waiting.fetch_add(1, Ordering::SeqCst);
            leaf.push(push, soon()).await
        })
    });
    let many: Vec<_> = many.collect().await;
    while waiting.load(Ordering::SeqCst) < many.len() {
        tokio::task::yield_now().await;
    }
    fixture
        .leaf
        .push(
            Push {
                shard: other,
                ..fixture.push_request(&["1"])
            },
            soon(),
        )
        .await
        .expect("another shard opens and accepts a push");
    assert!(!many.iter().any(tokio::task::JoinHandle::is_finished));
    drop(ends);
    opens.join().expect("it ends");
    for one in many {
        one.await.expect("it ends").expect("it is open by now");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_shard_reopens_while_views_are_open_and_its_store_is_never_open_twice() {
    let fixture = Fixture::start(small);
    fixture.push(&["1"]).await;
    let first = fixture.open(fixture.shard).await;
    let view = first.of(fixture.shard).expect("it is open");
    assert_eq!(all_documents(view).len(), 1);
    // A shard without a writer has failed. It does not reopen while a handle of it is in use.
    let in_use = fixture.leaf.shard(fixture.shard).await.expect("the shard");
    in_use.close();
    let files = || {
        std::fs::read_dir(fixture.leaf.shards.folder(fixture.shard).join(STORE_FOLDER))
            .expect("a folder")
            .count()
    };
    let before = files();
    for _ in 0..3 {
        let refused = fixture
            .try_push(fixture.push_request(&["1"]))
            .await
            .expect_err("a handle of it is in use");
        assert_eq!(refused.code, Code::Busy, "{refused}");
    }
    assert_eq!(files(), before, "the store was not opened a second time");
    drop(in_use);
    // Background work may use the shard for a moment longer. Until then, a push is told to retry.
    let reopened = async |fixture: &Fixture| match fixture.try_push(fixture.push_request(&["1"])).await {
        Ok(_) => true,
        Err(problem) => {
            assert_eq!(problem.code, Code::Busy, "{problem}");
            false
        }
    };
    fixture.eventually("it has reopened", reopened).await;
    let addresses = ["push/0@0".parse().expect("an address")];
    let error = view
        .store
        .read(&addresses)
        .map(|_| ())
        .expect_err("its store is closed");
    assert_eq!(Problem::from(error).code, Code::Unavailable);
    drop(first);
    assert_eq!(fixture.view().await.documents(), 2);
}
