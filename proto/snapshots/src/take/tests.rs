//! Tests of `take`: leaves are folders of files.

use std::{collections::HashMap, path::PathBuf};

use async_trait::async_trait;
use proto::{
    CollectionUid, PositionVector, SourceName,
    catalog::{Change, CollectionSettings, Source},
    cluster::{Member, Role},
    ingest::{Batch, BatchOutcome, Loss, PartitionStatus, PushResult, StoredPosition},
    record::RequestKey,
    tailer::LogHealth,
};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::{
    Pace, Removed, RestoreRequest, Running, ShardFiles, ShardSource, plan_restore, remove, verify, write_shard,
};

/// The change log, as a node sees it that has missed something.
struct Follower {
    catalog: watch::Sender<Arc<Catalog>>,
    /// What it has missed.
    missed: Mutex<Option<Catalog>>,
    is_connected: Mutex<bool>,
}

#[async_trait]
impl Changes for Follower {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }
    async fn propose(&self, _: Change, _: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        unreachable!("nothing is changed")
    }
    fn health(&self) -> LogHealth {
        LogHealth::default()
    }
    async fn catch_up(&self) -> bool {
        if let Some(missed) = self.missed.lock().take() {
            self.catalog.send_replace(Arc::new(missed));
        }
        *self.is_connected.lock()
    }
}

/// Leaves, each with a folder of files that stand for its replica of every shard.
struct Leaves {
    store: SnapshotStore,
    folders: HashMap<String, (TempDir, Uuid)>,
    /// Leaves that do not answer.
    away: Mutex<Vec<String>>,
}

struct NoPace(Mutex<[u64; 2]>);

#[async_trait]
impl Pace for NoPace {
    async fn wait(&self) -> Result<(), Problem> {
        Ok(())
    }
    fn wrote(&self, bytes: u64) {
        self.0.lock()[1] += bytes;
    }
    fn had(&self, bytes: u64) {
        self.0.lock()[0] += bytes;
    }
}

/// The leaves as one, or one of them.
struct View(Arc<Leaves>, Option<String>);

#[async_trait]
impl Ingest for View {
    fn replica_on(&self, leaf: &NodeName) -> Option<Arc<dyn Ingest>> {
        Some(Arc::new(View(self.0.clone(), Some(leaf.to_string()))))
    }

    async fn snapshot_shard(&self, request: &ShardSnapshotRequest) -> Result<ShardSnapshotStatus, Problem> {
        let name = self.1.clone().expect("one leaf is asked");
        if self.0.away.lock().contains(&name) {
            return Err(Problem::new(Code::NotFound, format!("{name} has nothing")));
        }
        let (folder, store) = &self.0.folders[&name];
        let mut files: Vec<(String, u64, bool)> = std::fs::read_dir(folder.path().join("store"))
            .expect("a folder")
            .map(|file| {
                let file = file.expect("a file");
                let name = format!("store/{}", file.file_name().to_string_lossy());
                let never_changes = name.ends_with(".sst");
                (name, file.metadata().expect("its size").len(), never_changes)
            })
            .collect();
        files.sort();
        let total = files.iter().map(|(_, bytes, _)| bytes).sum();
        let source = ShardSource {
            folder: folder.path().to_owned(),
            about: ShardFiles {
                shard: request.shard,
                store: *store,
                positions: "push/0@41,clicks/0@7".parse().expect("a vector"),
                digests: Vec::new(),
                files: Vec::new(),
            },
            files,
        };
        let earlier = match &request.earlier {
            Some(earlier) => Some(self.0.store.get_json::<ShardFiles>(earlier).await?),
            None => None,
        };
        let pace = NoPace(Mutex::default());
        let list = write_shard(&self.0.store, source, earlier.as_ref(), &pace).await?;
        let [had, written] = *pace.0.lock();
        Ok(ShardSnapshotStatus {
            bytes: had + written,
            total,
            written,
            ended: Some(Ok(list)),
        })
    }

    async fn write(&self, _: Batch) -> Result<BatchOutcome, Problem> {
        unreachable!("nothing is written")
    }
    async fn stored(&self, _: ShardId, _: &SourceName, _: i32) -> Result<StoredPosition, Problem> {
        unreachable!("nothing is asked")
    }
    async fn pushed(&self, _: ShardId, _: &proto::Position, _: &RequestKey, _: Instant) -> Result<PushResult, Problem> {
        unreachable!("nothing is asked")
    }
    async fn partitions(&self, _: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        unreachable!("nothing is asked")
    }
    async fn note_loss(&self, _: ShardId, _: Loss) -> Result<(), Problem> {
        unreachable!("nothing is lost")
    }
    async fn losses(&self, _: CollectionUid) -> Result<Vec<Loss>, Problem> {
        unreachable!("nothing is asked")
    }
}

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

struct Fixture {
    folder: TempDir,
    store: SnapshotStore,
    leaves: Arc<Leaves>,
    changes: Arc<Follower>,
}

impl Fixture {
    /// A collection with two shards, each on two leaves.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = folder.path().join("store").display().to_string();
        std::fs::create_dir(folder.path().join("store")).expect("a folder");
        let store = SnapshotStore::open(&url, &BTreeMap::new()).expect("a store");
        let folders = ["leaf-1", "leaf-2"].map(|leaf| {
            let files = tempfile::tempdir().expect("a folder");
            std::fs::create_dir(files.path().join("store")).expect("a folder");
            (leaf.to_owned(), (files, Uuid::now_v7()))
        });
        let mut catalog = Catalog::default();
        let settings = CollectionSettings {
            shards: 2,
            replicas: Some(2),
            ..CollectionSettings::default()
        };
        let mut collection = Collection::new(CollectionUid(Uuid::from_u128(7)), 1, settings);
        collection.placement = vec![vec![name("leaf-1"), name("leaf-2")]; 2];
        catalog
            .collections
            .insert("events".parse().expect("a name"), collection);
        for leaf in ["leaf-1", "leaf-2"] {
            let member = Member::new(Role::Leaf, "http://10.0.0.1:7700", Uuid::nil());
            catalog.members.insert(name(leaf), member);
        }
        let fixture = Self {
            leaves: Arc::new(Leaves {
                store: store.clone(),
                folders: folders.into(),
                away: Mutex::default(),
            }),
            store,
            folder,
            changes: Arc::new(Follower {
                catalog: watch::Sender::new(Arc::new(catalog)),
                missed: Mutex::default(),
                is_connected: Mutex::new(true),
            }),
        };
        for (leaf, text) in [("leaf-1", "one"), ("leaf-2", "two")] {
            fixture.write(leaf, "000001.sst", text);
            fixture.write(leaf, "CURRENT", "MANIFEST-000001");
        }
        fixture
    }

    fn write(&self, leaf: &str, file: &str, text: &str) {
        let path = self.leaves.folders[leaf].0.path().join("store").join(file);
        std::fs::write(path, text).expect("a file");
    }

    fn input(&self) -> TakeInput {
        TakeInput {
            cluster: None,
            by: "aggregator-1".to_owned(),
            collections: None,
            changes: self.changes.clone(),
            ingest: Arc::new(View(self.leaves.clone(), None)),
            definitions: String::new(),
            scheduled: false,
        }
    }

    async fn take(&self) -> Manifest {
        let take = Take::begin(&self.store, self.input()).await.expect("it begins");
        take.run().await.expect("a snapshot")
    }

    async fn remove(&self, id: &SnapshotId) -> Result<Removed, Problem> {
        let ids = std::slice::from_ref(id);
        remove(&self.store, ids, new_id(), "aggregator-2", async { Ok(()) }).await
    }

    fn objects(&self) -> usize {
        let mut folders: Vec<PathBuf> = vec![self.folder.path().join("store/objects")];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path().is_dir() {
                    true => folders.push(entry.path()),
                    false => count += 1,
                }
            }
        }
        count
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_written_again_and_the_same_replica_is_taken() {
    let fixture = Fixture::new();
    let first = fixture.take().await;
    assert_eq!(
        verify(&fixture.store, &first.id, true).await.expect("a check").damaged,
        0
    );
    let shards = |manifest: &Manifest| manifest.collections.values().next().expect("it").shards.clone();
    // A table that changed without a new name would not be read again: it never does.
    fixture.write("leaf-1", "000001.sst", "ONE");
    fixture.write("leaf-1", "CURRENT", "MANIFEST-000002");
    fixture.write("leaf-1", "000002.sst", "more");
    let second = fixture.take().await;
    for (before, after) in shards(&first).iter().zip(shards(&second)) {
        assert_eq!(before.leaf, after.leaf);
        match after.leaf == Some(name("leaf-1")) {
            true => assert_eq!((after.bytes, after.written), (3 + 4 + 15, 4 + 15)),
            false => assert_eq!((after.bytes, after.written), (3 + 15, 0)),
        }
    }
    assert_eq!(
        verify(&fixture.store, &second.id, true).await.expect("a check").damaged,
        0
    );
    assert!(fixture.store.works().await.expect("nothing").is_empty());
}

#[tokio::test]
async fn another_replica_is_taken_if_a_leaf_has_none() {
    let fixture = Fixture::new();
    fixture.leaves.away.lock().push("leaf-1".to_owned());
    let manifest = fixture.take().await;
    let shards = &manifest.collections.values().next().expect("it").shards;
    assert!(
        shards.iter().all(|shard| shard.leaf == Some(name("leaf-2"))),
        "{shards:?}"
    );
}

#[tokio::test]
async fn a_shard_that_no_leaf_has_fails_the_snapshot_and_the_reason_is_known() {
    let fixture = Fixture::new();
    fixture
        .leaves
        .away
        .lock()
        .extend(["leaf-1".to_owned(), "leaf-2".to_owned()]);
    let take = Take::begin(&fixture.store, fixture.input()).await.expect("it begins");
    let problem = take.run().await.expect_err("no leaf has it");
    assert!(
        problem.detail.contains(" of events: ") && problem.detail.contains("has nothing"),
        "{problem}"
    );
    let works = fixture.store.works().await.expect("what has failed");
    assert!(works[0].error.as_ref().is_some_and(|why| why.contains("has nothing")));
    fixture.remove(&works[0].id).await.expect("it is removed");
    assert!(fixture.store.works().await.expect("nothing").is_empty());
    assert!(fixture.store.list().await.expect("none").is_empty());
    fixture.leaves.away.lock().clear();
    fixture.take().await;
}

#[tokio::test]
async fn one_thing_is_done_at_a_time_and_what_a_dead_process_did_ends_by_itself() {
    let fixture = Fixture::new();
    let first = fixture.take().await;
    let taking = Take::begin(&fixture.store, fixture.input()).await.expect("it begins");
    let busy = |problem: Problem| (problem.code, problem.detail.contains("is taking snapshot"));
    let second = Take::begin(&fixture.store, fixture.input()).await.map(drop);
    assert_eq!(second.map_err(busy), Err((Code::Busy, true)));
    let removed = fixture.remove(&first.id).await;
    assert_eq!(removed.map_err(busy), Err((Code::Busy, true)));
    assert_eq!(
        verify(&fixture.store, &first.id, true).await.expect("a check").damaged,
        0
    );
    // The process dies. Other nodes ignore its lease after five minutes.
    let id = taking.id().clone();
    drop(taking);
    let path = fixture.folder.path().join(format!("store/running/{id}.json"));
    let long_ago = std::time::SystemTime::now() - Duration::from_mins(6);
    let file = std::fs::File::options().write(true).open(path).expect("its file");
    file.set_modified(long_ago).expect("another time");
    let works: Vec<Running> = fixture.store.works().await.expect("what is known");
    assert!(
        works[0].error.as_ref().is_some_and(|why| why.contains("has stopped")),
        "{works:?}"
    );
    fixture.take().await;
}

#[tokio::test]
async fn a_removal_keeps_what_another_snapshot_needs() {
    let fixture = Fixture::new();
    let first = fixture.take().await;
    fixture.write("leaf-1", "000002.sst", "more");
    let second = fixture.take().await;
    let all = fixture.objects();
    let removed = fixture.remove(&first.id).await.expect("a removal");
    assert_eq!(removed.objects as usize, all - fixture.objects());
    assert!(removed.objects > 0);
    assert_eq!(
        verify(&fixture.store, &second.id, true).await.expect("a check").damaged,
        0
    );
    assert!(verify(&fixture.store, &first.id, false).await.is_err());
    // If one cannot be read, nothing is removed.
    let manifest = fixture.folder.path().join(format!("store/snapshots/{}.json", first.id));
    std::fs::write(&manifest, "{\"format\":99}").expect("a file");
    let problem = fixture.remove(&second.id).await;
    assert!(problem.expect_err("a later format").detail.contains("its format is 99"));
    assert_eq!(
        verify(&fixture.store, &second.id, true).await.expect("a check").damaged,
        0
    );
    // That one itself can be removed.
    for id in [&first.id, &second.id] {
        let removed = fixture.remove(id).await;
        removed.expect("a removal");
    }
    assert_eq!(fixture.objects(), 0);
    assert!(fixture.store.works().await.expect("nothing").is_empty());
}

#[tokio::test]
async fn snapshots_with_damaged_lists_can_be_removed_one_after_the_other() {
    let fixture = Fixture::new();
    let first = fixture.take().await;
    fixture.write("leaf-1", "000002.sst", "more");
    let second = fixture.take().await;
    for list in first.lists().chain(second.lists()) {
        let hash = list.sha256.to_string();
        let path = fixture.folder.path().join("store/objects").join(&hash[..2]).join(&hash);
        std::fs::write(path, "x").expect("damaged");
    }
    for id in [&first.id, &second.id] {
        let removed = fixture.remove(id).await;
        removed.expect("a removal");
    }
    assert_eq!(fixture.objects(), 0);
}

#[tokio::test]
async fn a_collection_with_a_lost_shard_is_left_out_and_refused_by_name() {
    let fixture = Fixture::new();
    let name = fixture
        .changes
        .catalog
        .borrow()
        .collections
        .keys()
        .next()
        .expect("a collection")
        .clone();
    fixture.changes.catalog.send_modify(|catalog| {
        let collection = Arc::make_mut(catalog).collections.values_mut().next().expect("it");
        collection.lost.insert(0, 7);
    });
    assert!(
        fixture.take().await.collections.is_empty(),
        "an earlier snapshot may have more of it"
    );
    let input = TakeInput {
        collections: Some(vec![name]),
        ..fixture.input()
    };
    let refused = Take::begin(&fixture.store, input)
        .await
        .map(|_| ())
        .expect_err("it is not whole");
    assert_eq!(refused.code, Code::Busy, "{refused}");
}

#[tokio::test]
async fn a_node_that_was_frozen_meanwhile_writes_what_its_catalog_has_missed() {
    let fixture = Fixture::new();
    let mut newer = (*fixture.changes.catalog.borrow().clone()).clone();
    let (name, collection) = newer.collections.iter_mut().next().expect("it");
    let name = name.clone();
    collection.settings.time_path = Some("at".to_owned());
    *fixture.changes.missed.lock() = Some(newer);
    let manifest = fixture.take().await;
    let settings = &manifest.collections[&name].collection.settings;
    assert_eq!(settings.time_path.as_deref(), Some("at"));
    // Without its peers, it does not know what it has missed.
    *fixture.changes.is_connected.lock() = false;
    let take = Take::begin(&fixture.store, fixture.input()).await.expect("it begins");
    assert_eq!(
        take.run().await.expect_err("it may be outdated").code,
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_snapshot_that_is_needed_by_now_is_not_removed() {
    let fixture = Fixture::new();
    let first = fixture.take().await;
    let needed = async { Err(Problem::new(Code::InUse, "it is being restored")) };
    let ids = std::slice::from_ref(&first.id);
    let refused = remove(&fixture.store, ids, new_id(), "aggregator-1", needed).await;
    assert_eq!(refused.expect_err("it is needed").code, Code::InUse);
    let checked = verify(&fixture.store, &first.id, true).await.expect("a check");
    assert_eq!(checked.damaged, 0);
    assert!(fixture.store.works().await.expect("nothing").is_empty());
}

#[tokio::test]
async fn a_collection_that_is_dropped_meanwhile_is_left_out() {
    let fixture = Fixture::new();
    let input = fixture.input();
    fixture.changes.catalog.send_modify(|catalog| {
        let mut dropped = (**catalog).clone();
        let mut other = dropped.collections.values().next().expect("it").clone();
        other.uid = CollectionUid(Uuid::from_u128(8));
        dropped.collections.insert("other".parse().expect("a name"), other);
        *catalog = Arc::new(dropped);
    });
    let take = Take::begin(&fixture.store, input).await.expect("it begins");
    fixture
        .leaves
        .away
        .lock()
        .extend(["leaf-1".to_owned(), "leaf-2".to_owned()]);
    let running = tokio::spawn(take.run());
    fixture.changes.catalog.send_modify(|catalog| *catalog = Arc::default());
    let manifest = running.await.expect("it ends").expect("a snapshot of nothing");
    assert!(manifest.collections.is_empty());
}

#[tokio::test]
async fn a_copy_begins_its_topics_after_what_it_has_and_its_sources_go_on() {
    let fixture = Fixture::new();
    fixture.changes.catalog.send_modify(|catalog| {
        let mut with_source = (**catalog).clone();
        let settings = serde_json::json!({
            "collection": "events", "topic": "clicks",
            "config": { "bootstrap.servers": "k:9092", "sasl.password": "hunter2" },
        });
        let source = Source {
            version: 1,
            settings: serde_json::from_value(settings).expect("settings"),
            suspended: false,
            skips: Default::default(),
        };
        with_source.sources.insert("clicks".parse().expect("a name"), source);
        *catalog = Arc::new(with_source);
    });
    let manifest = fixture.take().await;
    let written = std::fs::read_to_string(
        fixture
            .folder
            .path()
            .join(format!("store/snapshots/{}.json", manifest.id)),
    );
    assert!(!written.expect("a manifest").contains("hunter2"));
    let request = RestoreRequest {
        id: manifest.id.clone(),
        collections: vec!["events".parse().expect("a name")],
        rename: Some("copy".parse().expect("a name")),
        continued: false,
    };
    let steps = plan_restore(&fixture.store, &request, &fixture.changes.catalog.borrow().clone())
        .await
        .expect("a plan");
    let Change::RestoreCollection { name, restored, .. } = &steps[0].change else {
        panic!("{:?}", steps[0].change);
    };
    assert_eq!(name.as_str(), "copy");
    assert_eq!(
        restored.own_positions,
        "push/0@41".parse::<PositionVector>().expect("a vector")
    );
    assert!(
        restored
            .collection
            .retired_sources
            .contains_key(&"clicks".parse().expect("a name"))
    );
    assert!(restored.collection.placement.is_empty());
    let (_, source) = steps[0].sources.first_key_value().expect("a source");
    assert_eq!(
        (source.settings.collection.as_str(), source.settings.is_redacted()),
        ("copy", true)
    );
    let taken = RestoreRequest {
        rename: None,
        ..request
    };
    let problem = plan_restore(&fixture.store, &taken, &fixture.changes.catalog.borrow().clone()).await;
    assert_eq!(problem.expect_err("the name is taken").code, Code::Conflict);
}
