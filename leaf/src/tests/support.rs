//! A leaf on a temporary folder, and helpers to write to it and to read its documents.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proto::{
    Catalog, CollectionUid, PositionVector, Problem, SourceName,
    catalog::{Collection, CollectionSettings},
    ingest::{Batch, BatchOutcome, INGEST_RULES_LEVEL, Ingest as _, Outcomes, Push, PushResult, Pushes as _, ShardId},
    record::{Record, RecordValue, RequestKey, Rules, TimeKind},
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{Leaf, LeafOptions, document::Document, leaf::views::LeafViews, view::ReadView};

pub(crate) struct Fixture {
    pub folder: TempDir,
    pub leaf: Arc<Leaf>,
    pub catalog: watch::Sender<Arc<Catalog>>,
    pub shard: ShardId,
    pub adjust: fn(&mut LeafOptions),
}

/// Small thresholds, so that builds and merges happen with few documents.
pub(crate) fn small(options: &mut LeafOptions) {
    options.index_tail_documents = 3;
    options.scan_tail_documents_max = 5;
    options.publish_documents = 40;
    options.publish_after = Duration::from_millis(20);
    options.publish_pause = Duration::from_millis(1);
    options.split_documents = 100;
    options.split_idle = Duration::from_millis(50);
    options.merge_splits = 3;
    options.merge_idle = Duration::from_secs(3600);
}

/// Nothing is ever indexed; queries scan the tail.
pub(crate) fn tail_only(options: &mut LeafOptions) {
    options.index_tail_documents = usize::MAX;
    options.scan_tail_documents_max = usize::MAX;
    options.scan_tail_bytes_max = usize::MAX;
    options.publish_documents = usize::MAX;
    options.publish_bytes = usize::MAX;
    options.publish_after = Duration::from_secs(3600);
    options.tail_documents_max = usize::MAX;
}

/// Idle shards are closed at once.
pub(crate) fn close_idle_shards(options: &mut LeafOptions) {
    small(options);
    options.idle_shards_max = 0;
    options.shard_idle = Duration::ZERO;
    // The pushes in these tests date from 2023 and must not expire.
    options.dead_letters_kept = Duration::from_secs(100 * 365 * 24 * 3600);
}

impl Fixture {
    pub(crate) async fn wait_until_closed(&self) {
        self.eventually("all shards are closed", async |fixture| fixture.leaf.open_shards() == 0)
            .await;
    }

    pub(crate) fn start(adjust: fn(&mut LeafOptions)) -> Self {
        let collection = CollectionUid(uuid::Uuid::now_v7());
        let mut catalog = Catalog {
            version: 1,
            ..Catalog::default()
        };
        let settings = CollectionSettings {
            shards: 1,
            ..CollectionSettings::default()
        };
        catalog.collections.insert(
            "events".parse().expect("a name"),
            Collection::new(collection, 1, settings),
        );
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, receiver) = watch::channel(Arc::new(catalog));
        let leaf = open(folder.path(), adjust, receiver);
        Self {
            folder,
            leaf,
            catalog: sender,
            shard: ShardId { collection, number: 0 },
            adjust,
        }
    }

    /// Another leaf, with the same catalog as of now, on an empty folder.
    pub(crate) fn another(&self, adjust: fn(&mut LeafOptions)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (catalog, receiver) = watch::channel(self.catalog.borrow().clone());
        Self {
            leaf: open(folder.path(), adjust, receiver),
            folder,
            catalog,
            shard: self.shard,
            adjust,
        }
    }

    /// Closes the leaf cleanly and reopens it.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with_files(|_| ()).await
    }

    /// Closes the leaf cleanly, changes its files and reopens it.
    pub(crate) async fn restart_with_files(self, change: impl FnOnce(&Path)) -> Self {
        self.leaf.close().await;
        let Self {
            folder,
            leaf,
            catalog,
            shard,
            adjust,
        } = self;
        drop(leaf);
        change(folder.path());
        let leaf = open(folder.path(), adjust, catalog.subscribe());
        Self {
            folder,
            leaf,
            catalog,
            shard,
            adjust,
        }
    }

    /// Closes the leaf cleanly and reopens it with other options.
    pub(crate) async fn restart_with_options(self, adjust: fn(&mut LeafOptions)) -> Self {
        Self { adjust, ..self }.restart().await
    }

    /// Opens a copy of what is on disk now, as after a `kill -9`. This leaf continues to run.
    pub(crate) fn crashed(&self) -> Self {
        self.crashed_with_files(|_| ())
    }

    /// Like [`crashed`](Self::crashed), with other options.
    pub(crate) fn crashed_with_options(&self, adjust: fn(&mut LeafOptions)) -> Self {
        self.crashed_with(|_| (), adjust)
    }

    /// Like [`crashed`](Self::crashed), with changed files.
    pub(crate) fn crashed_with_files(&self, change: impl FnOnce(&Path)) -> Self {
        self.crashed_with(change, self.adjust)
    }

    fn crashed_with(&self, change: impl FnOnce(&Path), adjust: fn(&mut LeafOptions)) -> Self {
        let folder = snapshot(self.folder.path());
        change(folder.path());
        let leaf = open(folder.path(), adjust, self.catalog.subscribe());
        let catalog = watch::Sender::new(self.catalog.borrow().clone());
        Self {
            folder,
            leaf,
            catalog,
            shard: self.shard,
            adjust,
        }
    }

    pub(crate) fn splits_folder(&self) -> PathBuf {
        self.folder
            .path()
            .join(self.shard.collection.to_string())
            .join("0")
            .join("splits")
    }

    pub(crate) fn batch(&self, partition: i32, after: i64, through: i64, records: Vec<Record>) -> Batch {
        Batch {
            shard: self.shard,
            source: clicks(),
            topic: "topic-1".into(),
            partition,
            after,
            through,
            level: INGEST_RULES_LEVEL,
            runs: 0,
            rules: Rules {
                key: Some("record".to_owned().into()),
                ..Rules::default()
            },
            records,
        }
    }

    pub(crate) async fn write(&self, batch: Batch) -> BatchOutcome {
        self.leaf.write(batch).await.expect("an outcome")
    }

    pub(crate) fn push_request(&self, items: &[&str]) -> Push {
        Push {
            shard: self.shard,
            source: SourceName::push(),
            partition: 0,
            rules: Rules::default(),
            request: None,
            time_ms: 1_700_000_000_000,
            level: INGEST_RULES_LEVEL,
            items: items
                .iter()
                .map(|item| Bytes::copy_from_slice(item.as_bytes()))
                .collect(),
        }
    }

    pub(crate) async fn push(&self, items: &[&str]) -> proto::ingest::PushResult {
        self.try_push(self.push_request(items)).await.expect("a push")
    }

    pub(crate) async fn try_push(&self, push: Push) -> Result<PushResult, Problem> {
        self.leaf.push(push, Instant::now() + Duration::from_secs(20)).await
    }

    pub(crate) fn keyed_push_request(&self, key: &str, items: &[&str]) -> Push {
        let body = items.iter().fold(7u128, |hash, item| hash * 31 + item.len() as u128);
        Push {
            request: Some(RequestKey { key: key.into(), body }),
            ..self.push_request(items)
        }
    }

    /// Opens a view of a shard that covers these positions.
    pub(crate) async fn open_at(
        &self,
        shard: ShardId,
        at_least: PositionVector,
        deadline: Instant,
    ) -> Result<LeafViews, Problem> {
        let (views, mut outcomes) = self.leaf.open_read_views(&[(shard, at_least)], deadline).await;
        outcomes.pop().expect("an outcome").map(|_| views)
    }

    pub(crate) async fn try_open(&self, shard: ShardId) -> Result<LeafViews, Problem> {
        let deadline = Instant::now() + Duration::from_secs(20);
        self.open_at(shard, PositionVector::default(), deadline).await
    }

    /// Opens a view of a shard for a new query.
    pub(crate) async fn open(&self, shard: ShardId) -> LeafViews {
        self.try_open(shard).await.expect("a view")
    }

    pub(crate) async fn view(&self) -> ReadView {
        self.view_of(self.shard).await
    }

    pub(crate) async fn view_of(&self, shard: ShardId) -> ReadView {
        self.open(shard).await.of(shard).expect("it is open").clone()
    }

    /// Address -> text of all documents that a new query sees.
    pub(crate) async fn documents(&self) -> BTreeMap<String, String> {
        texts(&all_documents(&self.view().await))
    }

    pub(crate) async fn outcomes(&self, source: &SourceName, partition: i32) -> Outcomes {
        let partitions = self.leaf.partitions(self.shard.collection).await.expect("partitions");
        let found = partitions
            .into_iter()
            .find(|p| p.position.source == *source && p.position.partition == partition);
        let outcomes = found.map(|p| p.outcomes).unwrap_or_default();
        assert!(outcomes.balance(), "{outcomes:?}");
        outcomes
    }

    /// Polls until a condition holds; panics after 30 seconds.
    pub(crate) async fn eventually(&self, condition: &str, holds: impl AsyncFn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self).await {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "timed out waiting until {condition}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn open(folder: &Path, adjust: fn(&mut LeafOptions), catalog: watch::Receiver<Arc<Catalog>>) -> Arc<Leaf> {
    let mut options = LeafOptions::new(folder);
    // The records and pushes in these tests date from 2023. Their dead letters must not expire unless a test wants it.
    options.dead_letters_kept = Duration::from_secs(100 * 365 * 24 * 3600);
    adjust(&mut options);
    Leaf::open(options, catalog).expect("a leaf")
}

/// A copy of a folder at one instant, as a crash leaves it. It is repeated if files appeared or disappeared meanwhile,
/// because a crash never leaves an old manifest with the files of a new one.
fn snapshot(from: &Path) -> TempDir {
    loop {
        let (folder, before) = (tempfile::tempdir().expect("a folder"), files(from));
        copy(from, folder.path());
        if files(from) == before {
            return folder;
        }
    }
}

/// The files below a folder, recursively.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { [path].into() })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).into_iter().flatten() {
        let entry = entry.expect("an entry");
        if entry.file_name() == "ballast" {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir_all(&target).expect("a folder");
            copy(&entry.path(), &target);
        } else {
            let _removed_meanwhile = std::fs::copy(entry.path(), target);
        }
    }
}

pub(crate) fn clicks() -> SourceName {
    "clicks".parse().expect("a name")
}

pub(crate) fn record(offset: i64, key: Option<&str>, value: Option<&str>) -> Record {
    let value = value.map_or(RecordValue::Null, |text| {
        RecordValue::One(Bytes::copy_from_slice(text.as_bytes()))
    });
    let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
    Record {
        offset,
        key,
        value,
        time_ms: 1_700_000_000_000 + offset,
        time_kind: TimeKind::Create,
        headers: vec![],
        request: None,
        ingested_ms: None,
    }
}

/// All documents of a view: those of its segments, then those of its tail.
pub(crate) fn all_documents(view: &ReadView) -> Vec<Document> {
    let mut documents = Vec::new();
    for segment in &view.segments {
        let live = (0..segment.segment.documents()).filter(|number| !segment.deleted.contains(*number));
        let addresses: Vec<_> = live.map(|number| segment.segment.address(number)).collect();
        assert!(addresses.is_sorted(), "the documents of a segment are in address order");
        documents.extend(view.store.read(&addresses).expect("rows"));
    }
    documents.extend(view.tail.iter().map(|document| (**document).clone()));
    assert_eq!(documents.len() as u64, view.documents());
    documents
}

pub(crate) fn texts(documents: &[Document]) -> BTreeMap<String, String> {
    let texts: BTreeMap<String, String> = documents
        .iter()
        .map(|d| (d.address.to_string(), d.text().to_owned()))
        .collect();
    assert_eq!(texts.len(), documents.len(), "no document occurs twice");
    texts
}
