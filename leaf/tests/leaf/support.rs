//! A leaf on a folder of its own, and everything that a view of it holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use plan::scan::{QueryId, Scan as _};
use proto::{
    Catalog, CollectionUid, PositionVector, Problem, SourceName,
    catalog::{Collection, CollectionSettings},
    ingest::{Batch, Ingest as _, LEVEL, Outcomes, Push, Pushed, Pushes as _, ShardId, Verdict},
    record::{Record, RequestKey, Rules, TimeKind, Value},
};
use tempfile::TempDir;
use tokio::sync::watch;

use super::under_test::{Leaf, LeafOptions, document::Document, view::View};

pub struct Fixture {
    pub folder: TempDir,
    pub leaf: Arc<Leaf>,
    pub catalog: watch::Sender<Arc<Catalog>>,
    pub shard: ShardId,
    pub adjust: fn(&mut LeafOptions),
}

/// Small thresholds: everything happens with a few documents.
pub fn small(options: &mut LeafOptions) {
    options.scan_tail_documents_max = 5;
    options.publish_documents = 40;
    options.publish_after = Duration::from_millis(20);
    options.publish_pause = Duration::from_millis(1);
    options.split_documents = 100;
    options.split_idle = Duration::from_millis(50);
    options.merge_splits = 3;
}

/// Nothing is ever indexed: the tail is scanned.
pub fn tail_only(options: &mut LeafOptions) {
    options.scan_tail_documents_max = usize::MAX;
    options.publish_documents = usize::MAX;
    options.publish_bytes = usize::MAX;
    options.publish_after = Duration::from_secs(3600);
    options.tail_documents_max = usize::MAX;
}

/// No shard stays open for nothing.
pub fn none_idle(options: &mut LeafOptions) {
    small(options);
    options.idle_shards_max = 0;
    options.shard_idle = Duration::ZERO;
    // The pushes of these tests are of 2023.
    options.dead_letters_kept = Duration::from_secs(100 * 365 * 24 * 3600);
}

impl Fixture {
    pub async fn all_closed(&self) {
        self.eventually("nobody uses a shard and all are closed", async |fixture| {
            fixture.leaf.open_shards() == 0
        })
        .await;
    }

    pub fn start(adjust: fn(&mut LeafOptions)) -> Self {
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

    /// Closes in order and opens again.
    pub async fn restart(self) -> Self {
        self.restart_changed(|_| ()).await
    }

    /// Closes in order, changes what is on disk, and opens again.
    pub async fn restart_changed(self, change: impl FnOnce(&Path)) -> Self {
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

    /// Closes in order and opens again with other options.
    pub async fn restart_as(self, adjust: fn(&mut LeafOptions)) -> Self {
        Self { adjust, ..self }.restart().await
    }

    /// Opens what is on disk at this moment, as after a `kill -9`: a copy of the folder, while the first goes on.
    pub fn crashed(&self) -> Self {
        self.crashed_changed(|_| ())
    }

    /// As after a `kill -9`, with other options from now on.
    pub fn crashed_as(&self, adjust: fn(&mut LeafOptions)) -> Self {
        let folder = snapshot(self.folder.path());
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

    /// As after a `kill -9`, with the files changed.
    pub fn crashed_changed(&self, change: impl FnOnce(&Path)) -> Self {
        let folder = snapshot(self.folder.path());
        change(folder.path());
        let leaf = open(folder.path(), self.adjust, self.catalog.subscribe());
        let catalog = watch::Sender::new(self.catalog.borrow().clone());
        Self {
            folder,
            leaf,
            catalog,
            shard: self.shard,
            adjust: self.adjust,
        }
    }

    pub fn splits_folder(&self) -> PathBuf {
        self.folder
            .path()
            .join(self.shard.collection.to_string())
            .join("0")
            .join("splits")
    }

    pub fn batch(&self, partition: i32, after: i64, through: i64, records: Vec<Record>) -> Batch {
        Batch {
            shard: self.shard,
            source: clicks(),
            topic: "topic-1".into(),
            partition,
            after,
            through,
            level: LEVEL,
            rules: Rules {
                key: Some("record".to_owned().into()),
                ..Rules::default()
            },
            records,
        }
    }

    pub async fn write(&self, batch: Batch) -> Verdict {
        self.leaf.write(batch).await.expect("a verdict")
    }

    pub fn pushing(&self, items: &[&str]) -> Push {
        Push {
            shard: self.shard,
            partition: 0,
            rules: Rules::default(),
            request: None,
            time_ms: 1_700_000_000_000,
            level: LEVEL,
            items: items
                .iter()
                .map(|item| Bytes::copy_from_slice(item.as_bytes()))
                .collect(),
        }
    }

    pub async fn push(&self, items: &[&str]) -> proto::ingest::Pushed {
        self.try_push(self.pushing(items)).await.expect("a push")
    }

    pub async fn try_push(&self, push: Push) -> Result<Pushed, Problem> {
        self.leaf.push(push, Instant::now() + Duration::from_secs(20)).await
    }

    pub fn pushing_as(&self, key: &str, items: &[&str]) -> Push {
        let body = items.iter().fold(7u128, |hash, item| hash * 31 + item.len() as u128);
        Push {
            request: Some(RequestKey { key: key.into(), body }),
            ..self.pushing(items)
        }
    }

    pub async fn view(&self) -> View {
        let query = query();
        let deadline = Instant::now() + Duration::from_secs(20);
        self.leaf
            .pin(query, self.shard, &PositionVector::default(), deadline)
            .await
            .expect("a view");
        let view = self.leaf.pinned(query, self.shard).expect("it is pinned");
        self.leaf.unpin(query);
        view
    }

    /// Address -> text of all documents that a new question sees.
    pub async fn documents(&self) -> BTreeMap<String, String> {
        texts(&everything(&self.view().await))
    }

    pub async fn outcomes(&self, source: &SourceName, partition: i32) -> Outcomes {
        let partitions = self.leaf.partitions(self.shard.collection).await.expect("partitions");
        let found = partitions
            .into_iter()
            .find(|p| p.position.source == *source && p.position.partition == partition);
        let outcomes = found.map(|p| p.outcomes).unwrap_or_default();
        assert!(outcomes.balance(), "{outcomes:?}");
        outcomes
    }

    /// Waits until something holds, by looking again and again.
    pub async fn eventually(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self).await {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "it never came to pass that {what}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn open(folder: &Path, adjust: fn(&mut LeafOptions), catalog: watch::Receiver<Arc<Catalog>>) -> Arc<Leaf> {
    let mut options = LeafOptions::new(folder);
    // The records and pushes of these tests are of 2023: their dead letters are not old unless a test says so.
    options.dead_letters_kept = Duration::from_secs(100 * 365 * 24 * 3600);
    adjust(&mut options);
    Leaf::open(options, catalog).expect("a leaf")
}

/// A copy of a folder as it is at one moment: what a crash leaves. It is made again where files came or went meanwhile,
/// for a crash never leaves an old manifest beside the files of a new one.
fn snapshot(from: &Path) -> TempDir {
    loop {
        let (folder, before) = (tempfile::tempdir().expect("a folder"), files(from));
        copy(from, folder.path());
        if files(from) == before {
            return folder;
        }
    }
}

/// The files below a folder.
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
            let _gone_meanwhile = std::fs::copy(entry.path(), target);
        }
    }
}

pub fn clicks() -> SourceName {
    "clicks".parse().expect("a name")
}

pub fn query() -> QueryId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    QueryId(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

pub fn record(offset: i64, key: Option<&str>, value: Option<&str>) -> Record {
    let value = value.map_or(Value::Null, |text| Value::One(Bytes::copy_from_slice(text.as_bytes())));
    let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
    Record {
        offset,
        key,
        value,
        time_ms: 1_700_000_000_000 + offset,
        time_kind: TimeKind::Create,
        headers: vec![],
        request: None,
    }
}

/// All documents of a view, by index and by row.
pub fn everything(view: &View) -> Vec<Document> {
    let mut documents = Vec::new();
    for segment in &view.segments {
        let live = (0..segment.segment.documents()).filter(|number| !segment.gone.contains(*number));
        let addresses: Vec<_> = live.map(|number| segment.segment.address(number)).collect();
        assert!(addresses.is_sorted(), "a segment holds its documents in address order");
        documents.extend(view.store.read(&addresses).expect("rows"));
    }
    documents.extend(view.tail.iter().map(|document| (**document).clone()));
    assert_eq!(documents.len() as u64, view.documents());
    documents
}

pub fn texts(documents: &[Document]) -> BTreeMap<String, String> {
    let texts: BTreeMap<String, String> = documents
        .iter()
        .map(|d| (d.address.to_string(), d.text().to_owned()))
        .collect();
    assert_eq!(texts.len(), documents.len(), "no document is there twice");
    texts
}
