//! Limits: open shards, open files, threads and memory stay bounded, however many collections there are.

use std::collections::BTreeSet;

use crate::LeafOptions;
use futures::{StreamExt as _, stream};
use plan::scan::Scan as _;
use proto::{Code, ingest::Push};

use super::{
    super::support::{Fixture, all_documents, small, tail_only},
    two_open,
};

/// The number of files below the fixture's folder that this process has open.
fn open_files(fixture: &Fixture) -> usize {
    let open = std::fs::read_dir("/proc/self/fd")
        .expect("this process")
        .filter_map(Result::ok);
    open.filter(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(fixture.folder.path())))
        .count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("this process").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_collections_than_the_open_limit_accept_writes_and_queries() {
    let fixture = Fixture::start(two_open);
    let shards = fixture.add_collections(30);
    for round in 0..3 {
        let pushed = stream::iter(&shards)
            .map(|shard| fixture.push_to(*shard, r#"{"a":1}"#))
            .buffer_unordered(16);
        assert_eq!(pushed.count().await, shards.len());
        let queried = stream::iter(&shards)
            .map(|shard| fixture.documents_of(*shard))
            .buffer_unordered(16);
        let counts: BTreeSet<usize> = queried.map(|documents| documents.len()).collect().await;
        assert_eq!(
            counts,
            [round + 1].into(),
            "each shard has all documents that were pushed to it"
        );
        fixture
            .eventually("the limit of open shards holds", async |fixture| {
                fixture.leaf.open_shards() <= 2
            })
            .await;
    }
    for shard in &shards {
        assert_eq!(
            fixture.leaf.status(*shard).await.expect("a status").outcomes.documents,
            3
        );
    }
    let fixture = fixture.restart().await;
    for shard in &shards {
        assert_eq!(
            fixture.leaf.status(*shard).await.expect("a status").outcomes.documents,
            3
        );
    }
    assert_eq!(
        fixture.leaf.open_shards(),
        0,
        "a status does not open a cleanly closed shard"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_open_shards_holds_while_the_disk_is_full() {
    let fixture = Fixture::start(two_open);
    let shards = fixture.add_collections(30);
    for shard in &shards {
        fixture.push_to(*shard, "1").await;
    }
    // The disk has space, but the leaf may not use it.
    let full = fixture
        .restart_with_options(|options| {
            two_open(options);
            options.disk_used_percent_max = 0;
        })
        .await;
    let refused = full
        .try_push(Push {
            shard: shards[0],
            ..full.push_request(&["2"])
        })
        .await
        .expect_err("the disk is full");
    assert!(
        refused.code == Code::Busy && refused.detail.contains("full"),
        "{refused}"
    );
    for shard in &shards {
        assert_eq!(full.documents_of(*shard).await.len(), 1);
    }
    full.eventually("the limit of open shards holds", async |fixture| {
        fixture.leaf.open_shards() <= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_query_may_need_more_shards_than_the_open_limit() {
    let fixture = Fixture::start(two_open);
    let shards = fixture.add_collections(30);
    fixture.push_to_each(&shards, 8, "1").await;
    let mut open = Vec::new();
    for shard in &shards {
        open.push(fixture.open(*shard).await);
    }
    for (shard, views) in shards.iter().zip(&open) {
        assert_eq!(all_documents(views.of(*shard).expect("it is open")).len(), 1);
    }
    drop(open);
    fixture.wait_until_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_shard_fails_at_the_file_limit_while_open_shards_keep_working() {
    let fixture = Fixture::start(|options| {
        two_open(options);
        options.open_files_max = 60;
    });
    let shards = fixture.add_collections(12);
    for shard in &shards {
        fixture.push_to(*shard, "1").await;
    }
    let mut all = Vec::new();
    let refused = loop {
        match fixture.try_open(shards[all.len()]).await {
            Ok(views) => all.push(views),
            Err(refused) => break refused,
        }
    };
    let open = all.len();
    assert!(
        refused.code == Code::Busy && refused.detail.contains(&format!("all {open} open shards are in use")),
        "{open}: {refused:?}"
    );
    assert!((2..10).contains(&open), "{open}");

    // Many requests wait to open a shard. Meanwhile, open shards accept writes and queries as usual.
    let waits = stream::iter(&shards[open..]).map(|shard| fixture.try_open(*shard));
    let mut waits = Box::pin(waits.buffer_unordered(12));
    let keep_working = async {
        for round in 0..100 {
            fixture.push_to(shards[round % open], "2").await;
            fixture.documents_of(shards[round % open]).await;
        }
    };
    tokio::select! {
        waited = waits.next() => {
            panic!("a waiting open blocks shards that are already open: {:?}", waited.map(|opened| opened.map(drop)))
        }
        () = keep_working => {}
    }
    drop(all);
    let opened = waits.next().await.expect("a waiting request").map(drop);
    assert!(opened.is_ok(), "a shard can be opened again: {opened:?}");
    drop(waits);
    for shard in &shards[open..] {
        assert_eq!(fixture.documents_of(*shard).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_threads_does_not_grow_with_collections() {
    let fixture = Fixture::start(small);
    let few = fixture.add_collections(5);
    fixture.push_to_each(&few, 16, "1").await;
    let before = threads();
    let many = fixture.add_collections(120);
    fixture.push_to_each(&many, 16, "1").await;
    assert!(
        fixture.leaf.open_shards() > 100,
        "{} are open",
        fixture.leaf.open_shards()
    );
    let grown = threads().saturating_sub(before);
    assert!(grown < 60, "{grown} threads for 120 collections");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_files_stay_within_their_limit() {
    let few = |options: &mut LeafOptions| {
        small(options);
        options.open_files_max = 100;
    };
    let fixture = Fixture::start(few);
    let shards = fixture.add_collections(30);
    for _ in 0..4 {
        fixture.push_to_each(&shards, 8, r#"{"a":1}"#).await;
        assert!(
            (1..100).contains(&open_files(&fixture)),
            "{} files are open",
            open_files(&fixture)
        );
    }
    assert!(
        (2..20).contains(&fixture.leaf.open_shards()),
        "{} are open",
        fixture.leaf.open_shards()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_shards_together_stay_within_their_memory_budget() {
    // No shard writes a split by itself, and none exceeds a limit of its own.
    let tight = |options: &mut LeafOptions| {
        tail_only(options);
        options.unsplit_bytes_max = 1 << 20;
    };
    let fixture = Fixture::start(tight);
    let shards = fixture.add_collections(8);
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(2_000));
    let used = || fixture.leaf.unsplit_bytes();
    for _ in 0..200 {
        fixture.push_to_each(&shards, 8, &text).await;
        assert!(used() <= 1 << 20, "{} bytes are in memory", used());
    }
    let mut on_disk = 0;
    for shard in &shards {
        assert_eq!(fixture.documents_of(*shard).await.len(), 200);
        on_disk += fixture
            .leaf
            .status(*shard)
            .await
            .expect("a status")
            .splits
            .iter()
            .filter(|split| split.on_disk)
            .count();
    }
    assert!(on_disk > 0, "the largest shard wrote a split to disk");
}
