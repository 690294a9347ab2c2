//! Tests of `copies`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use proto::{
    Code, Problem,
    cluster::{Member, Role},
    ingest::{BlockDigest, Ingest as _},
    replica::{Grant, GrantRequest, OfferedCopy, ReplicaPeers},
};

use proto::catalog::Restored;
use snapshots::SnapshotStore;

use super::*;
use crate::{
    LeafOptions,
    leaf::shards::PLACED_SINCE,
    tests::support::{Fixture, small},
};

fn leaf(number: u32) -> NodeName {
    format!("leaf-{number}").parse().expect("a name")
}

fn as_first(options: &mut LeafOptions) {
    small(options);
    options.node = Some(leaf(1));
}

fn as_second(options: &mut LeafOptions) {
    small(options);
    options.node = Some(leaf(2));
    options.moved_kept = Duration::ZERO;
}

fn one_at_once(options: &mut LeafOptions) {
    as_second(options);
    options.copies_at_once = 1;
}

/// A leaf that serves a shard, and another one to which a replica of it has been added.
fn two_leaves() -> (Fixture, Fixture) {
    let first = Fixture::start(as_first);
    change(&first, |collection| {
        collection.placement = vec![vec![leaf(1), leaf(2)]];
        let moved = Move {
            instead_of: None,
            since: 7,
        };
        collection.moves = [(0, [(leaf(2), moved)].into())].into();
        collection.not_serving = [(0, [(leaf(2), ReplicaState::Behind { since: 7 })].into())].into();
    });
    let second = first.another(as_second);
    (first, second)
}

fn change(fixture: &Fixture, change: impl FnOnce(&mut Collection)) {
    fixture.catalog.send_modify(|catalog| {
        let mut changed = (**catalog).clone();
        for number in [1, 2] {
            let member = Member::new(Role::Leaf, format!("http://10.0.0.{number}:7700"), Uuid::nil());
            changed.members.insert(leaf(number), member);
        }
        change(changed.collections.values_mut().next().expect("a collection"));
        *catalog = Arc::new(changed);
    });
}

/// The first leaf, as the second one reaches it.
struct First {
    leaf: Arc<Leaf>,
    /// How many reads succeed.
    reads: AtomicUsize,
    read: AtomicUsize,
    /// How many copies it was asked to offer.
    offers: AtomicUsize,
}

impl First {
    fn reached(leaf: &Arc<Leaf>, reads: usize) -> Arc<dyn ReplicaPeers> {
        Arc::new(Self::new(leaf, reads))
    }

    fn new(leaf: &Arc<Leaf>, reads: usize) -> Self {
        Self {
            leaf: leaf.clone(),
            reads: reads.into(),
            read: 0.into(),
            offers: 0.into(),
        }
    }
}

#[async_trait]
impl ReplicaPeers for First {
    async fn grant(&self, _leaf: &NodeName, request: &GrantRequest) -> Result<Grant, Problem> {
        self.leaf.grant(request.clone()).await
    }

    async fn digests(&self, _leaf: &NodeName, shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
        self.leaf.digests(shard).await
    }

    async fn offer_copy(&self, _leaf: &NodeName, shard: ShardId) -> Result<OfferedCopy, Problem> {
        self.offers.fetch_add(1, Ordering::SeqCst);
        self.leaf.offer_copy(shard).await
    }

    async fn read_copy(&self, _leaf: &NodeName, copy: Uuid, file: &str, from: u64) -> Result<Bytes, Problem> {
        if self.read.fetch_add(1, Ordering::SeqCst) >= self.reads.load(Ordering::SeqCst) {
            return Err(Problem::new(Code::Unavailable, "it is away"));
        }
        self.leaf.read_copy(copy, file.to_owned(), from).await
    }

    async fn end_copy(&self, _leaf: &NodeName, copy: Uuid) -> Result<(), Problem> {
        self.leaf.end_copy(copy).await
    }
}

/// One attempt to copy the shard to the second leaf; whether it is there now.
async fn attempt(second: &Fixture, peers: &Arc<dyn ReplicaPeers>) -> bool {
    let catalog = second.catalog.borrow().clone();
    let waits = || second.leaf.awaits_copy(&catalog, second.shard);
    // The pause between two attempts is over.
    if let Some(copy) = second.leaf.copies.incoming.lock().get_mut(&second.shard) {
        copy.ended = None;
    }
    second.leaf.copy_missing(&catalog, Some(peers), &[second.shard]);
    let runs = async |second: &Fixture| {
        let incoming = second.leaf.copies.incoming.lock();
        !incoming.values().any(Incoming::is_running)
    };
    second.eventually("the attempt has ended", runs).await;
    !waits()
}

async fn fill(first: &Fixture) {
    for round in 0..5 {
        let documents: Vec<String> = (0..100)
            .map(|n| format!("{{\"_id\":\"k{round}-{n}\",\"n\":{n}}}"))
            .collect();
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        first.push(&documents).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_accepts_nothing_until_it_is_copied_and_is_then_the_same() {
    let (first, second) = two_leaves();
    fill(&first).await;
    let stored = second
        .leaf
        .stored(second.shard, &"push".parse().expect("a source"), 0)
        .await;
    assert!(stored.expect("a position").awaits_copy);
    let refused = second.leaf.digests(second.shard).await.expect_err("it has nothing yet");
    assert!(refused.detail.contains("is being copied"), "{refused}");
    assert!(
        second
            .leaf
            .partitions(second.shard.collection)
            .await
            .expect("no partition")
            .is_empty()
    );
    assert!(attempt(&second, &First::reached(&first.leaf, usize::MAX)).await);
    let digests = async |fixture: &Fixture| fixture.leaf.digests(fixture.shard).await.expect("digests");
    assert_eq!(digests(&second).await, digests(&first).await);
    let store = async |fixture: &Fixture| {
        fixture
            .leaf
            .shard(fixture.shard)
            .await
            .expect("a shard")
            .store()
            .incarnation()
    };
    assert_ne!(store(&second).await, store(&first).await, "it is another replica");
    assert!(first.leaf.copies.offered.lock().is_empty());
    let copies = std::fs::read_dir(first.folder.path()).expect("a folder").flatten();
    assert_eq!(
        copies
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(OFFERED))
            .count(),
        0
    );
    let second = second.restart().await;
    assert_eq!(digests(&second).await, digests(&first).await);
}

fn restored(collection: &Collection, awaited: &[u32]) -> Option<Restored> {
    Some(Restored {
        snapshot: "20261130-021500-3f9a1c07".parse().expect("a name"),
        collection: collection.uid,
        since: 9,
        awaited: awaited.iter().copied().collect(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_awaits_its_snapshot_answers_nothing_and_says_why() {
    let (first, second) = two_leaves();
    change(&second, |collection| {
        collection.placement = vec![vec![leaf(2)]];
        (collection.moves, collection.not_serving) = Default::default();
        collection.restored = restored(collection, &[0]);
    });
    let catalog = second.catalog.borrow().clone();
    assert!(second.leaf.awaits_copy(&catalog, second.shard));
    assert!(second.leaf.shard(second.shard).await.is_err());
    assert!(second.leaf.restored_here(&catalog).is_empty());
    second.leaf.copy_shards(&catalog, None, &BTreeSet::new());
    let is_said = async |second: &Fixture| {
        let status = second.leaf.copy_status();
        let error = status.first().and_then(|status| status.error.clone());
        error.is_some_and(|error| error.contains("no snapshot store"))
    };
    second.eventually("it is said why", is_said).await;
    // Another leaf has it.
    change(&second, |collection| collection.restored = None);
    assert!(!second.leaf.awaits_copy(&second.catalog.borrow().clone(), second.shard));
    drop(first);
}

/// The folder of a snapshot store, in the folder of the leaf.
const STORE: &str = "snapshots";

/// The second leaf, with a snapshot store.
fn with_store(options: &mut LeafOptions) {
    as_second(options);
    let store = options.folder.join(STORE);
    std::fs::create_dir_all(&store).expect("a folder");
    let store = SnapshotStore::open(store.to_str().expect("a path"), &BTreeMap::new());
    options.snapshots = Some(store.expect("a store"));
}

/// The shard is there without documents, and the leaf is about to say so: it is filled from the log.
async fn assert_begun_empty(second: &Fixture) {
    let catalog = second.catalog.borrow().clone();
    assert_eq!(second.leaf.restored_here(&catalog), [second.shard]);
    let shard = second.leaf.shard(second.shard).await.expect("it is open");
    assert!(shard.with_state(|state| state.positions()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_shard_of_a_restored_copy_does_not_begin_empty() {
    let (first, _) = two_leaves();
    let second = first.another(with_store);
    write_snapshot_of_nothing(&second.folder.path().join(STORE));
    let attempt = lose(&second).await;
    change(&second, |collection| {
        collection.own_topics_after = "push/0@41".parse().expect("a vector");
    });
    assert!(!attempt().await, "its topics do not have its first documents");
    let error = second.leaf.copy_status()[0].error.clone().unwrap_or_default();
    assert!(error.contains("its first documents are nowhere else"), "{error}");
}

fn write_snapshot_of_nothing(store: &std::path::Path) {
    let manifest = snapshots::Manifest {
        format: 1,
        id: "20261130-021500-3f9a1c07".parse().expect("a name"),
        cluster: None,
        release: "0.1.0".to_owned(),
        by: "aggregator-1".to_owned(),
        scheduled: true,
        begun_ms: 0,
        ended_ms: 1,
        collections: BTreeMap::new(),
        definitions: String::new(),
    };
    let folder = store.join("snapshots");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = serde_json::to_string(&manifest).expect("JSON");
    std::fs::write(folder.join(format!("{}.json", manifest.id)), text).expect("a file");
}

/// A leaf that serves a shard alone that it has lost, and whether the shard is there after an attempt to copy it.
async fn lose(second: &Fixture) -> impl AsyncFn() -> bool {
    change(second, |collection| {
        collection.placement = vec![vec![leaf(2)]];
        (collection.moves, collection.not_serving) = Default::default();
        collection.lost = [(0, 9)].into();
    });
    let catalog = second.catalog.borrow().clone();
    assert!(second.leaf.awaits_copy(&catalog, second.shard));
    assert!(
        second.leaf.shard(second.shard).await.is_err(),
        "it does not answer without its documents"
    );
    async || {
        let peers = First::reached(&second.leaf, 0);
        attempt(second, &peers).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_shard_that_no_snapshot_has_begins_empty_once_that_is_known() {
    let (first, _) = two_leaves();
    let second = first.another(with_store);
    let (store, away) = (second.folder.path().join(STORE), second.folder.path().join("away"));
    let attempt = lose(&second).await;
    std::fs::rename(&store, &away).expect("the disk is not mounted");
    assert!(!attempt().await, "a snapshot may have it");
    let status = second.leaf.copy_status();
    assert!(
        status[0].error.as_ref().is_some_and(|error| error.contains("mounted")),
        "{status:?}"
    );
    std::fs::rename(&away, &store).expect("it is mounted again");
    assert!(!attempt().await, "a store without any snapshot is another one");
    let status = second.leaf.copy_status();
    let error = status[0].error.clone().unwrap_or_default();
    assert!(
        error.contains("has no snapshots") && error.contains("without url"),
        "{error}"
    );
    write_snapshot_of_nothing(&store);
    assert!(attempt().await);
    assert_begun_empty(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_shard_begins_empty_on_a_leaf_without_a_snapshot_store() {
    let (_first, second) = two_leaves();
    let attempt = lose(&second).await;
    assert!(attempt().await);
    assert_begun_empty(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_something_of_a_lost_shard_keeps_it() {
    let (first, second) = two_leaves();
    fill(&first).await;
    assert!(attempt(&second, &First::reached(&first.leaf, usize::MAX)).await);
    change(&second, |collection| {
        collection.not_serving = [].into();
        // Its replica is there since version 7.
        collection.lost = [(0, 7)].into();
    });
    let catalog = second.catalog.borrow().clone();
    assert!(!second.leaf.awaits_copy(&catalog, second.shard));
    assert_eq!(
        second.leaf.restored_here(&catalog),
        [second.shard],
        "the catalog is to know it"
    );
    change(&second, |collection| collection.lost = [(0, 8)].into());
    assert!(second.leaf.awaits_copy(&second.catalog.borrow().clone(), second.shard));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_whose_placement_cannot_be_read_is_neither_copied_nor_removed() {
    let (first, second) = two_leaves();
    fill(&first).await;
    assert!(attempt(&second, &First::reached(&first.leaf, usize::MAX)).await);
    let file = second.leaf.shards.folder(second.shard).join(PLACED_SINCE);
    std::fs::write(&file, [0xff, 0xfe]).expect("a file");
    let second = second.restart().await;
    change(&second, |collection| {
        collection.placement = vec![vec![leaf(2)]];
        (collection.moves, collection.not_serving) = Default::default();
        collection.restored = restored(collection, &[0]);
    });
    assert!(!second.leaf.awaits_copy(&second.catalog.borrow().clone(), second.shard));
    change(&second, |collection| {
        collection.placement = vec![vec![leaf(1)]];
        collection.left = [(0, [(leaf(2), 90)].into())].into();
    });
    second.leaf.remove_moved(&second.catalog.borrow().clone());
    assert!(second.leaf.shards.folder(second.shard).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_copied_once_the_last_one_has_what_was_written_since() {
    let first = Fixture::start(as_first);
    let other = ShardId {
        number: 1,
        ..first.shard
    };
    let behind = [(leaf(2), ReplicaState::Behind { since: 7 })];
    change(&first, |collection| {
        let moved = Move {
            instead_of: None,
            since: 7,
        };
        collection.placement = vec![vec![leaf(1), leaf(2)]; 2];
        collection.moves = [0, 1].map(|shard| (shard, [(leaf(2), moved.clone())].into())).into();
        collection.not_serving = [0, 1].map(|shard| (shard, behind.clone().into())).into();
    });
    fill(&first).await;
    let second = first.another(one_at_once);
    let peers = First::reached(&first.leaf, usize::MAX);
    let is_begun = |second: &Fixture| {
        let catalog = second.catalog.borrow().clone();
        second.leaf.copy_missing(&catalog, Some(&peers), &[second.shard]);
        !second.leaf.copies.incoming.lock().is_empty()
    };
    let now = Instant::now();
    second.leaf.copies.catching_up.lock().insert(other, now);
    assert!(!is_begun(&second));
    change(&second, |collection| drop(collection.not_serving.remove(&1)));
    assert!(is_begun(&second), "the other one serves");
    let is_copied = async |second: &Fixture| !second.leaf.copies.incoming.lock().values().any(Incoming::is_running);
    second.eventually("it is copied", is_copied).await;
    assert_eq!(
        second.leaf.catching_up(&second.catalog.borrow()),
        1,
        "it does not serve yet"
    );

    for (at_once, since) in [(2, Duration::ZERO), (1, Duration::from_mins(1))] {
        let second = first.another(match at_once {
            1 => one_at_once,
            _ => as_second,
        });
        let since = now.checked_sub(since).expect("a time");
        second.leaf.copies.catching_up.lock().insert(other, since);
        assert!(is_begun(&second), "{at_once} at once, since {since:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_breaks_off_goes_on_with_what_is_missing() {
    let (first, second) = two_leaves();
    fill(&first).await;
    let shard = first.leaf.shard(first.shard).await.expect("a shard");
    shard.store().flush().expect("a table");
    drop(shard);
    let files = first.leaf.offer_copy(first.shard).await.expect("a copy").files.len();
    let mut attempts = 0;
    // Each attempt reads three files, and may have to read again what changes: but no table twice.
    while !attempt(&second, &First::reached(&first.leaf, 3 + attempts)).await {
        attempts += 1;
        assert!(attempts < files, "{attempts} attempts for {files} files");
        let status = second.leaf.copy_status();
        assert!(
            status[0]
                .error
                .as_ref()
                .is_some_and(|error| error.contains("it is away")),
            "{status:?}"
        );
    }
    assert!(attempts > 0);
    let digests = async |fixture: &Fixture| fixture.leaf.digests(fixture.shard).await.expect("digests");
    assert_eq!(digests(&second).await, digests(&first).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_has_left_is_removed_unless_it_was_placed_here_again() {
    let (first, second) = two_leaves();
    fill(&first).await;
    assert!(attempt(&second, &First::reached(&first.leaf, usize::MAX)).await);
    let is_there = || second.leaf.shards.folder(second.shard).exists();
    // A catalog from before this placement.
    leave(&second, 6);
    assert!(is_there());
    // A shard in use is removed in a later round.
    let is_removed = async |second: &Fixture| {
        leave(second, 9);
        !is_there()
    };
    second.eventually("the shard is removed", is_removed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_has_left_takes_no_memory_until_it_is_removed() {
    let (first, second) = two_leaves();
    fill(&first).await;
    assert!(attempt(&second, &First::reached(&first.leaf, usize::MAX)).await);
    let second = second
        .restart_with_options(|options| {
            as_second(options);
            options.moved_kept = Duration::from_hours(1);
        })
        .await;
    second.leaf.shard(second.shard).await.expect("a shard");
    leave(&second, 6);
    assert_eq!(second.leaf.open_shards(), 1);
    let is_closed = async |second: &Fixture| {
        leave(second, 9);
        second.leaf.open_shards() == 0
    };
    second.eventually("the shard is closed", is_closed).await;
    assert!(second.leaf.shards.folder(second.shard).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_comes_back_is_copied_again_once_nothing_uses_it_or_builds_again_if_it_serves() {
    let (first, second) = two_leaves();
    fill(&first).await;
    let reached = Arc::new(First::new(&first.leaf, usize::MAX));
    let peers: Arc<dyn ReplicaPeers> = reached.clone();
    assert!(attempt(&second, &peers).await);
    let second = second
        .restart_with_options(|options| {
            as_second(options);
            options.moved_kept = Duration::from_hours(1);
        })
        .await;
    let used = second.leaf.shard(second.shard).await.expect("a shard");
    leave(&second, 9);
    assert!(used.has_left());
    let offers = || reached.offers.load(Ordering::SeqCst);
    assert_eq!(offers(), 1);
    let comes_back = |collection: &mut Collection, state: Option<ReplicaState>| {
        collection.placement = vec![vec![leaf(1), leaf(2)]];
        collection.left.clear();
        let moved = Move {
            instead_of: None,
            since: 11,
        };
        collection.moves = [(0, [(leaf(2), moved)].into())].into();
        collection.not_serving = state.map(|state| (0, [(leaf(2), state)].into())).into_iter().collect();
    };
    let behind = ReplicaState::Behind { since: 11 };
    change(&second, |collection| comes_back(collection, Some(behind)));
    for _ in 0..3 {
        assert!(!attempt(&second, &peers).await);
        let incoming = second.leaf.copies.incoming.lock();
        let copy = &incoming[&second.shard];
        let error = copy.error.as_deref().unwrap_or_default();
        assert!(error.contains("still in use"), "{error}");
        assert_eq!(
            (copy.tried, copy.failed),
            (0, 0),
            "that is not for another leaf to mend"
        );
    }
    assert_eq!(offers(), 1, "none is made for nothing");

    // The others are lost before.
    change(&second, |collection| {
        comes_back(collection, None);
        collection.placement = vec![vec![leaf(2)]];
        collection.moves.clear();
    });
    second.leaf.remove_moved(&second.catalog.borrow().clone());
    assert!(!used.has_left());
    drop(used);
    change(&second, |collection| comes_back(collection, Some(behind)));
    let is_copied = async |second: &Fixture| attempt(second, &peers).await;
    second.eventually("it is copied once nothing uses it", is_copied).await;
}

/// The shard leaves the second leaf, as of this version of the catalog; one round of housekeeping.
fn leave(second: &Fixture, since: u64) {
    change(second, |collection| {
        collection.placement = vec![vec![leaf(1)]];
        (collection.moves, collection.not_serving) = Default::default();
        collection.left = [(0, [(leaf(2), since)].into())].into();
    });
    let catalog = second.catalog.borrow().clone();
    second.leaf.remove_moved(&catalog);
}

#[test]
fn reads_stay_below_the_rate() {
    let (now, mut next) = (Instant::now(), None);
    let mut read = |at| {
        next = Some(next_read(next, 100_000, 1_000_000, at));
        next.map(|next| (next - now).as_millis())
    };
    assert_eq!([read(now), read(now), read(now)], [Some(100), Some(200), Some(300)]);
    assert_eq!(
        read(now + Duration::from_secs(9)),
        Some(9_100),
        "what was not used is not saved up"
    );
}
