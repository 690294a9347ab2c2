//! A leaf, a change log and a tailer in memory. The leaf records all requests and computes them by brute force.

mod compute;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use datafusion::arrow::{array::RecordBatch, compute::concat_batches};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use plan::{
    scan::{
        DeadLetter, DeadRecord, Document, Lookup, PathIndex, PathStatus, RedrivePage, RedriveQuery, Scan, ScanChunk,
        ScanRequest, ScanStream, ShardStatus,
    },
    views::{OpenOutcomes, OpenRequest, Opened, ReadViews, ShardView, WantedShards},
};
use proto::{
    Address, Catalog, Code, CollectionUid, Position, PositionVector, Problem, SourceName,
    catalog::{Change, ChangeRecord, SourceSettings},
    document_change::DocumentChange,
    ingest::{Batch, BatchOutcome, Ingest, Loss, PartitionStatus, Push, PushResult, Pushes, ShardId, StoredPosition},
    place_ranges::Place,
    record::{Record, RequestKey},
    status::{SourceState, TailStatus},
    tailer::{Changes, LogHealth, SourceAdmin},
};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use self::compute::{compute, kinds_of};

/// A leaf in memory.
#[derive(Default)]
pub(super) struct FakeLeaf {
    this: Weak<Self>,
    shards: Mutex<BTreeMap<ShardId, Vec<(Address, Value)>>>,
    /// How far each shard has read, also if the documents are gone.
    read: Mutex<BTreeMap<ShardId, PositionVector>>,
    /// All scans so far, also those that began when their views were opened.
    pub requests: Mutex<Vec<ScanRequest>>,
    /// The current read views, by numbers that tell their queries apart.
    pub open: Mutex<BTreeSet<(u64, ShardId)>>,
    /// How many scans began when their views were opened.
    pub prefetched: AtomicUsize,
    /// How often read views were opened.
    pub opened: AtomicU64,
    /// The positions that each view so far had to cover.
    pub at_least: Mutex<Vec<(ShardId, PositionVector)>>,
    /// The number of restarts.
    pub boot: AtomicU64,
    /// Whether a view that cannot cover what it must fails, as those of real leaves do after a while.
    pub waits: AtomicBool,
    /// How many openings of a view take too long, from now on.
    pub late_openings: AtomicUsize,
    /// Holds the next opening of views back: it says when its views are open, and waits for the second.
    pub hold: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
    /// Whether a document is found only by those who ask for the positions of the shard.
    pub is_replica_behind: AtomicBool,
    /// Shards that do not answer.
    pub unavailable: Mutex<BTreeSet<u32>>,
    /// The changes that shards have applied.
    pub changes: Mutex<Vec<Push>>,
    /// Shards whose changes fail, and how. If the outcome is unknown, they have applied them.
    pub failing_changes: Mutex<BTreeMap<u32, Code>>,
    /// What scans do instead of answering.
    pub fault: Mutex<Option<Fault>>,
    /// The number of scans that wait forever and have not been dropped.
    pub hanging_scans: Arc<AtomicUsize>,
}

/// What scans do instead of answering.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    Hang,
    NoTrailer,
    Panic,
}

/// Decrements the number of hanging scans when dropped.
struct HangingScan(Arc<AtomicUsize>);

impl Drop for HangingScan {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeLeaf {
    pub(super) fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            ..Self::default()
        })
    }

    pub(super) fn add(&self, shard: ShardId, document: Value) {
        let mut shards = self.shards.lock();
        let documents = shards.entry(shard).or_default();
        let address = Address {
            source: SourceName::push(),
            partition: i32::try_from(shard.number).expect("small"),
            offset: documents.len() as i64,
            item: None,
        };
        self.read
            .lock()
            .entry(shard)
            .or_default()
            .advance(&address.source, address.partition, address.offset);
        documents.push((address, document));
    }

    /// Removes every second document of each shard, as if others had replaced them.
    pub(super) fn remove_every_second(&self) {
        for documents in self.shards.lock().values_mut() {
            documents.retain(|(address, _)| address.offset % 2 == 0);
        }
    }

    /// Removes expired documents; a delete is only recorded.
    fn apply_expiry(&self, push: &Push) {
        let change = DocumentChange::decode(&push.items[0]).expect("a change");
        let DocumentChange::Expire { ranges, .. } = change else {
            return;
        };
        let mut shards = self.shards.lock();
        let documents = shards.entry(push.shard).or_default();
        documents.retain(|(address, _)| {
            let ranges = ranges.get(&(address.source.clone(), address.partition));
            !ranges.is_some_and(|ranges| ranges.contains(Place::of(address)))
        });
    }

    fn documents(&self, shard: ShardId) -> Vec<(Address, Value)> {
        self.shards.lock().get(&shard).cloned().unwrap_or_default()
    }

    /// Records a scan. It runs when its answers are read.
    fn scan_all(self: &Arc<Self>, query: u64, request: &ScanRequest) -> Vec<ScanStream> {
        self.requests.lock().push(request.clone());
        let scan = |shard: &ShardId| {
            let (leaf, request, shard) = (Arc::clone(self), request.clone(), *shard);
            stream::once(async move { leaf.scan_shard(query, &request, shard) })
                .flatten()
                .boxed()
        };
        request.shards.iter().map(scan).collect()
    }

    fn scan_shard(&self, query: u64, request: &ScanRequest, shard: ShardId) -> ScanStream {
        assert!(
            self.open.lock().contains(&(query, shard)),
            "a scan reads an open read view"
        );
        match *self.fault.lock() {
            Some(Fault::Hang) => {
                self.hanging_scans.fetch_add(1, Ordering::SeqCst);
                let scan = HangingScan(Arc::clone(&self.hanging_scans));
                return stream::once(async move {
                    let _scan = scan;
                    std::future::pending().await
                })
                .boxed();
            }
            Some(Fault::Panic) => panic!("a scan that panics"),
            _ => {}
        }
        let (batches, trailer) = compute(request, &self.documents(shard));
        let batches = batches
            .into_iter()
            .flat_map(|batch| [Ok(ScanChunk::Progress(trailer.clone())), Ok(ScanChunk::Rows(batch))])
            .collect::<Vec<_>>();
        let end = (*self.fault.lock() != Some(Fault::NoTrailer)).then_some(Ok(ScanChunk::End(trailer)));
        stream::iter(batches.into_iter().chain(end)).boxed()
    }

    fn open_shard(&self, query: u64, shard: ShardId, at_least: &PositionVector) -> Result<ShardView, Problem> {
        self.check_available(shard)?;
        self.open.lock().insert((query, shard));
        self.at_least.lock().push((shard, at_least.clone()));
        let documents = self.documents(shard);
        let mut positions = self.read.lock().get(&shard).cloned().unwrap_or_default();
        let changes = self.changes.lock();
        for (change, offset) in changes.iter().zip(0..).filter(|(change, _)| change.shard == shard) {
            positions.advance(&change.source, change.partition, offset);
        }
        let late = |left: usize| left.checked_sub(1);
        let is_late = self
            .late_openings
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, late)
            .is_ok();
        if is_late || self.waits.load(Ordering::SeqCst) && !positions.covers(at_least) {
            return Err(Problem::new(Code::Timeout, "the view was not opened in time"));
        }
        Ok(ShardView {
            positions,
            boot: self.boot.load(Ordering::SeqCst),
            paths: Arc::new(kinds_of(&documents)),
            documents: documents.len() as u64,
            freshness_ms: 1,
        })
    }

    fn check_available(&self, shard: ShardId) -> Result<(), Problem> {
        match self.unavailable.lock().contains(&shard.number) {
            true => Err(Problem::new(Code::Unavailable, "the leaf is unavailable")),
            false => Ok(()),
        }
    }
}

/// The read views of one query.
struct FakeViews {
    leaf: Arc<FakeLeaf>,
    query: u64,
}

impl Drop for FakeViews {
    fn drop(&mut self) {
        self.leaf.open.lock().retain(|(query, _)| *query != self.query);
    }
}

#[async_trait]
impl ReadViews for FakeViews {
    async fn reopen(&mut self, shards: &WantedShards, _: Instant) -> OpenOutcomes {
        let open = |(shard, at_least): &(ShardId, PositionVector)| self.leaf.open_shard(self.query, *shard, at_least);
        shards.iter().map(open).collect()
    }

    fn scan(&self, request: ScanRequest) -> Vec<ScanStream> {
        self.leaf.scan_all(self.query, &request)
    }
}

#[async_trait]
impl Scan for FakeLeaf {
    async fn open(&self, request: OpenRequest<'_>) -> Opened {
        let (leaf, query) = (
            self.this.upgrade().expect("a leaf"),
            self.opened.fetch_add(1, Ordering::SeqCst),
        );
        let prefetched = request.expected.map(|expected| {
            self.prefetched.fetch_add(1, Ordering::SeqCst);
            leaf.scan_all(query, &expected)
        });
        let mut views = FakeViews { leaf, query };
        let outcomes = views.reopen(request.shards, request.deadline).await;
        let hold = self.hold.lock().take();
        if let Some((are_open, released)) = hold {
            are_open.send(()).expect("a test that waits");
            released.await.expect("a test that releases it");
        }
        Opened {
            outcomes,
            prefetched,
            views: Box::new(views),
        }
    }

    async fn document(&self, shard: ShardId, id: &str, at_least: &PositionVector) -> Result<Lookup, Problem> {
        let boot = self.boot.load(Ordering::SeqCst);
        if self.is_replica_behind.load(Ordering::SeqCst) && at_least.is_empty() {
            return Ok(Lookup { document: None, boot });
        }
        let shards = self.shards.lock();
        let found = shards.get(&shard).and_then(|documents| {
            documents.iter().find(|(a, d)| {
                d.get("_id")
                    .and_then(Value::as_str)
                    .map_or_else(|| a.to_string() == id, |own| own == id)
            })
        });
        let document = found.map(|(address, document)| Document {
            address: address.clone(),
            id: id.to_owned(),
            bytes: document.to_string().into(),
            json: true,
        });
        Ok(Lookup { document, boot })
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<PathStatus>, Problem> {
        self.check_available(shard)?;
        let documents = self.documents(shard);
        let status = |(path, kinds)| PathStatus {
            path,
            kinds,
            documents: documents.len() as u64,
            indexed: PathIndex::Columns,
            sample: None,
        };
        Ok(kinds_of(&documents).paths.into_iter().map(status).collect())
    }

    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem> {
        Ok(ShardStatus {
            shard,
            positions: PositionVector::default(),
            outcomes: Default::default(),
            tail: 0,
            splits: Vec::new(),
            bytes: 0,
            heat: Default::default(),
        })
    }

    async fn dead_letters(&self, _: ShardId, _: usize) -> Result<Vec<DeadLetter>, Problem> {
        Ok(Vec::new())
    }

    async fn dead_record(&self, _: ShardId, _: &Address) -> Result<Option<DeadRecord>, Problem> {
        unsupported()
    }

    async fn redrives(&self, _: ShardId, _: &RedriveQuery) -> Result<RedrivePage, Problem> {
        unsupported()
    }
}

fn unsupported<T>() -> Result<T, Problem> {
    Err(Problem::new(Code::NotSupported, "the fake does not support this"))
}

#[async_trait]
impl Ingest for FakeLeaf {
    async fn write(&self, _: Batch) -> Result<BatchOutcome, Problem> {
        unsupported()
    }
    async fn pushed(&self, _: ShardId, _: &Position, _: &RequestKey, _: Instant) -> Result<PushResult, Problem> {
        unsupported()
    }
    async fn stored(&self, _: ShardId, _: &SourceName, _: i32) -> Result<StoredPosition, Problem> {
        unsupported()
    }
    async fn partitions(&self, _: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        Ok(Vec::new())
    }
    async fn note_loss(&self, _: ShardId, _: Loss) -> Result<(), Problem> {
        unsupported()
    }
    async fn losses(&self, _: CollectionUid) -> Result<Vec<Loss>, Problem> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Pushes for FakeLeaf {
    async fn push(&self, push: Push, _: Instant) -> Result<PushResult, Problem> {
        let failure = self.failing_changes.lock().get(&push.shard.number).copied();
        let failure = failure.map(|code| Problem::new(code, "the fake fails"));
        if !push.source.is_changes() {
            return unsupported();
        }
        let position = Position {
            source: push.source.clone(),
            partition: push.partition,
            offset: self.changes.lock().len() as i64,
        };
        if failure
            .as_ref()
            .is_none_or(|problem| problem.code == Code::UnknownOutcome)
        {
            self.apply_expiry(&push);
            self.changes.lock().push(push);
        }
        failure.map_or_else(
            || {
                Ok(PushResult {
                    accepted: 1,
                    rejected: 0,
                    errors: Vec::new(),
                    position,
                    repeated: false,
                })
            },
            Err,
        )
    }
}

/// A change log in memory.
#[derive(Default)]
pub(super) struct FakeChanges {
    pub catalogs: watch::Sender<Arc<Catalog>>,
    /// Changes that come just before those proposed.
    pub before: Mutex<Vec<Change>>,
}

impl FakeChanges {
    fn apply(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        let record = ChangeRecord {
            uid: uuid::Uuid::now_v7(),
            level: proto::catalog::CATALOG_RULES_LEVEL,
            expected,
            change,
        };
        let (after, result) = self.catalogs.borrow().apply(&record);
        let after = Arc::new(after);
        self.catalogs.send_replace(Arc::clone(&after));
        result.map(|()| after)
    }
}

#[async_trait]
impl Changes for FakeChanges {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalogs.subscribe()
    }
    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        let before = self.before.lock().pop();
        if let Some(before) = before {
            self.apply(before, None).expect("an accepted change");
        }
        self.apply(change, expected)
    }
    fn health(&self) -> LogHealth {
        LogHealth::default()
    }
}

/// What a tailer reports of the first push partition of `events`, of the collection with this id.
pub(super) fn sent_push(uid: Option<CollectionUid>, offset: i64) -> TailStatus {
    TailStatus {
        collection: "events".parse().expect("a name"),
        uid,
        source: SourceName::push(),
        partition: Some(0),
        state: SourceState::Reading,
        end: None,
        lag: None,
        sent: Some(offset),
        error: None,
    }
}

/// A tailer without sources.
#[derive(Default)]
pub(super) struct FakeTailer {
    /// What `status` returns.
    pub rows: Mutex<Vec<TailStatus>>,
    /// The number of `status` calls.
    pub status_calls: AtomicUsize,
}

#[async_trait]
impl SourceAdmin for FakeTailer {
    async fn status(&self) -> Result<Vec<TailStatus>, Problem> {
        self.status_calls.fetch_add(1, Ordering::SeqCst);
        Ok(self.rows.lock().clone())
    }
    async fn ends(&self, _: &SourceSettings) -> Result<Vec<i64>, Problem> {
        unsupported()
    }
    async fn preview(&self, _: &SourceSettings, _: usize) -> Result<Vec<(i32, Record)>, Problem> {
        unsupported()
    }
}

/// Concatenates batches; None if there are none.
pub(super) fn one_batch(batches: &[RecordBatch]) -> Option<RecordBatch> {
    batches
        .first()
        .map(|first| concat_batches(&first.schema(), batches).expect("one schema"))
}
