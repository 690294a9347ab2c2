//! Shard: one replica of a slice of a collection. It ingests batches and pushes, and provides read views.
//!
//! ```text
//! write, push ─ queue ─ writer: check ─ one RocksDB batch ─ tail (visible) ─ ack
//! in the background: tail ─ micro-split      (in memory)
//!                    micro-splits ─ split    (file, then manifest row, then the state)
//!                    splits ─ larger split   (the same)
//! open ─ state: a consistent read view that contains everything acknowledged before
//! ```
//!
//! Only the writer changes rows of documents, keys and positions; once the shard is open, only `build_splits.rs`
//! changes the manifest. The state in memory changes under one lock, after the change is stored.
//!
//! Handles of a shard are counted. An idle shard is closed by the owner of the last handle (`retire.rs`), so closing
//! loses nothing: no job waits, no build runs, no view is held.

pub(crate) mod apply;
pub(crate) mod batch_check;
pub(crate) mod budget;
pub(crate) mod build_splits;
pub(crate) mod dead_letters;
pub(crate) mod event;
pub(crate) mod index_tail;
pub(crate) mod recover;
mod requests;
mod retire;
pub(crate) mod scheduler;
pub(crate) mod state;
pub(crate) mod summary;
pub(crate) mod sweep;
pub(crate) mod tail;
pub(crate) mod trie;
pub(crate) mod writer;
pub(crate) mod writer_pool;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use budget::MemoryBudget;
use metrics::counter;
use parking_lot::Mutex;
use proto::{
    SourceName,
    ingest::{ShardId, StoredRange},
};
use scheduler::{BuildScheduler, Task};
use state::{ShardState, StateChange};
use summary::Summary;
use sweep::ObsoleteSegments;
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};
use writer::{Job, QUEUE_JOBS_MAX, ShardWriter};
use writer_pool::WriterPool;

use crate::{
    disk::Disk,
    error::{Error, panic_text},
    options::LeafOptions,
    store::{Store, WriteError},
};

/// How long a shard that was opened on a full disk stays read-only at least, even if the disk has room again.
const READ_ONLY_WAIT: Duration = Duration::from_secs(2);
/// The subfolder with the store of a shard.
pub(crate) const STORE_FOLDER: &str = "rows";
/// The subfolder with the splits of a shard.
pub(crate) const SPLITS_FOLDER: &str = "splits";

/// One replica of a shard.
pub(crate) struct Shard {
    /// Its id.
    pub id: ShardId,
    options: Arc<LeafOptions>,
    store: Arc<Store>,
    splits: PathBuf,
    state: Mutex<ShardState>,
    /// Counts changes of the state, to wake waiting requests.
    changed: watch::Sender<u64>,
    queue: mpsc::Sender<Job>,
    /// None once the shard is closed or failed; this also closes the queue.
    writer: Mutex<Option<ShardWriter>>,
    /// Whether the shard is in the queue of the writer pool, or a thread of the pool is processing it.
    enqueued: AtomicBool,
    services: Arc<ShardServices>,
    scheduler: Arc<BuildScheduler>,
    failed: OnceLock<String>,
    opened_at: Instant,
    obsolete: Mutex<Vec<ObsoleteSegments>>,
    /// Serializes the removal of dead letters, so that no letter's bytes are subtracted twice.
    dead_letter_removal: Mutex<()>,
    /// Whether to write the micro-splits to disk even if there are few of them.
    split_requested: AtomicBool,
}

/// Resources that the shards of a leaf share.
pub(crate) struct ShardServices {
    /// Limits.
    pub options: Arc<LeafOptions>,
    /// The writer threads.
    pub writers: Arc<WriterPool>,
    /// The build threads.
    pub scheduler: Arc<BuildScheduler>,
    /// The disk with the shards.
    pub disk: Arc<Disk>,
    /// Limits the memory of all shards together.
    pub budget: Arc<MemoryBudget>,
    /// The maximum number of SST files a shard keeps open.
    pub tables_open_max: usize,
}

impl Shard {
    /// Opens the shard in a folder, or creates it.
    pub(crate) fn open(id: ShardId, folder: &Path, services: Arc<ShardServices>) -> Result<Arc<Self>, Error> {
        let rows = folder.join(STORE_FOLDER);
        let store = Arc::new(open_store(id, &rows, &services)?);
        // Before the first write makes the summary stale. The summary of a read-only shard stays valid.
        if !store.is_read_only() {
            Summary::remove(&rows).map_err(|source| Error::File {
                path: rows.clone(),
                source,
            })?;
        }
        let splits = folder.join(SPLITS_FOLDER);
        let mut state = recover::recover(&store, &splits)?;
        state.count_against(&services.budget);
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS_MAX);
        let shard = Arc::new(Self {
            id,
            options: services.options.clone(),
            store,
            splits,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            queue,
            writer: Mutex::new(Some(ShardWriter::new(jobs))),
            enqueued: AtomicBool::new(false),
            scheduler: services.scheduler.clone(),
            services,
            failed: OnceLock::new(),
            opened_at: Instant::now(),
            obsolete: Mutex::new(Vec::new()),
            dead_letter_removal: Mutex::new(()),
            split_requested: AtomicBool::new(false),
        });
        shard.schedule_all();
        Ok(shard)
    }

    /// Accepts no more jobs and writes the waiting ones; everything acknowledged is stored. Owners of handles drop them
    /// on their own.
    pub(crate) fn close(self: &Arc<Self>) {
        let Some(mut writer) = self.writer.lock().take() else {
            return;
        };
        // A panic must not keep the caller from closing other shards.
        let written = catch_unwind(AssertUnwindSafe(|| writer.write_rest(self)));
        match written {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                error!(shard = %self.id, error = %failure, "the store failed while the shard was closing");
                self.fail(failure.to_string());
            }
            Err(panic) => self.note_panic(&*panic),
        }
        self.sync();
        // Requests that wait for a change must fail now.
        self.notify_waiters();
    }

    /// Writes one group of jobs.
    fn write_group(self: &Arc<Self>) {
        let mut writer = self.writer.lock();
        let written = writer.as_mut().map_or(Ok(()), |writer| writer.write_group(self));
        if let Err(failure) = written {
            error!(shard = %self.id, error = %failure, "the store failed; the shard will be reopened");
            self.fail(failure.to_string());
            *writer = None;
            self.sync();
        }
    }

    /// Fails the shard after a panic that the writer did not catch: its state in memory cannot be trusted.
    fn note_panic(&self, panic: &(dyn std::any::Any + Send)) {
        counter!("rachis_leaf_panics_total").increment(1);
        let panic = panic_text(panic);
        error!(shard = %self.id, panic, "the writer panicked; the shard will be reopened");
        self.fail(format!("its writer panicked: {panic}"));
    }

    /// Drops the writer. Waiting jobs fail.
    fn stop_writing(&self) {
        *self.writer.lock() = None;
    }

    fn has_jobs(&self) -> bool {
        self.writer.lock().as_ref().is_some_and(ShardWriter::has_jobs)
    }

    fn sync(&self) {
        if let Err(failure) = self.store.sync() {
            warn!(shard = %self.id, error = %failure, "could not sync the write-ahead log while closing the shard");
        }
    }

    /// Why the replica must be reopened, if it must.
    pub(crate) fn failure(&self) -> Option<&str> {
        let stopped = || self.queue.is_closed().then_some("its writer has stopped");
        self.failed.get().map(String::as_str).or_else(stopped)
    }

    fn fail(&self, reason: String) {
        let _first_reason_stays = self.failed.set(reason);
        self.notify_waiters();
    }

    /// Makes waiting requests check their condition again.
    pub(crate) fn notify_waiters(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Runs a background task. Returns when it must run again, if that is already known.
    fn run(self: &Arc<Self>, task: Task) -> Result<Option<Instant>, Error> {
        match task {
            Task::IndexTail => index_tail::index_tail(self),
            Task::Split => build_splits::split(self),
            Task::Merge => build_splits::merge(self),
        }
    }

    /// Turns the result of a write into an error of the shard, which fails if the write failed.
    fn check_written(&self, written: Result<(), WriteError>) -> Result<(), Error> {
        match written {
            Ok(()) => Ok(()),
            Err(WriteError::Stalled) => Err(writer::busy("the store cannot keep up".into()).into()),
            Err(WriteError::Failed(source)) => {
                self.fail(source.to_string());
                Err(Error::Storage { shard: self.id, source })
            }
        }
    }

    /// Schedules writing everything that is in no split yet to a split.
    pub(crate) fn request_split(self: &Arc<Self>) {
        self.split_requested.store(true, Ordering::Relaxed);
        if self.state.lock().tail.documents() > 0 {
            self.scheduler.schedule(Task::IndexTail, self, Instant::now());
        }
        self.scheduler.schedule(Task::Split, self, Instant::now());
    }

    /// Schedules the rebuild of damaged splits, one after another, and returns whether there are any.
    pub(crate) fn rebuild_damaged_splits(self: &Arc<Self>) -> bool {
        let damaged = self.with_state(|state| state.segments.iter().any(|entry| entry.segment.is_damaged()));
        if damaged {
            self.scheduler.schedule(Task::Merge, self, Instant::now());
        }
        damaged
    }

    /// Fails a read-only shard so that it is reopened for writing. Called when the disk has room again.
    pub(crate) fn open_for_writing(&self) {
        if self.store.is_read_only() && self.opened_at.elapsed() >= READ_ONLY_WAIT && self.failure().is_none() {
            self.fail("the disk has space again".into());
        }
    }

    /// Its rows.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Runs a function on the locked state.
    pub(crate) fn with_state<T>(&self, run: impl FnOnce(&mut ShardState) -> T) -> T {
        run(&mut self.state.lock())
    }

    /// What is stored of a partition.
    pub(crate) fn stored(&self, source: &SourceName, partition: i32) -> StoredRange {
        summary::stored(&self.state.lock().rows, source, partition)
    }

    /// Makes a stored change visible.
    fn apply(self: &Arc<Self>, change: StateChange) {
        let mut state = self.state.lock();
        let removes = !change.deleted.is_empty();
        state.apply(change, now_ms());
        let index_at = self.index_tail_at(&state);
        let merge = removes
            && state
                .segments
                .iter()
                .any(|entry| entry.on_disk && entry.is_mostly_deleted());
        drop(state);
        self.notify_waiters();
        if let Some(at) = index_at {
            self.scheduler.schedule(Task::IndexTail, self, at);
        }
        if merge {
            self.scheduler.schedule(Task::Merge, self, Instant::now());
        }
    }

    /// When to index the tail, even if no query needs it.
    fn index_tail_at(&self, state: &ShardState) -> Option<Instant> {
        let options = &self.options;
        let full = state.tail.documents() >= options.publish_documents || state.tail.bytes() >= options.publish_bytes;
        match state.waiting_since {
            _ if full => Some(Instant::now()),
            Some(since) => Some(since + options.publish_after),
            None => None,
        }
    }

    /// Why the shard cannot accept more now, given the documents and bytes of the current group.
    fn busy_reason(&self, (documents, bytes): (usize, usize)) -> Option<String> {
        if let Some(reason) = self.services.disk.full() {
            return Some(reason);
        }
        if self.store.is_read_only() {
            return Some(format!(
                "the disk was full when shard {} was opened; it is read-only until there is space",
                self.id
            ));
        }
        let state = self.state.lock();
        let options = &self.options;
        let (waiting, waiting_bytes) = (state.tail.documents() + documents, state.tail.bytes() + bytes);
        let (_, in_memory) = state.in_memory();
        if waiting >= options.tail_documents_max || waiting_bytes >= options.tail_bytes_max {
            return Some(format!(
                "{waiting} documents ({waiting_bytes} bytes) are waiting to be indexed"
            ));
        }
        if in_memory >= options.memory_bytes_max {
            return Some(format!(
                "{in_memory} bytes of documents are waiting to be written to a split"
            ));
        }
        let (own, budget) = (state.reserved_bytes(), &self.services.budget);
        budget.is_full(own, bytes).then(|| {
            format!(
                "{} bytes of documents in all shards of this node are waiting to be written to splits",
                budget.bytes()
            )
        })
    }

    fn schedule_all(self: &Arc<Self>) {
        let now = Instant::now();
        let index_at = self.index_tail_at(&self.state.lock());
        if let Some(at) = index_at {
            self.scheduler.schedule(Task::IndexTail, self, at);
        }
        self.scheduler.schedule(Task::Split, self, now);
        self.scheduler.schedule(Task::Merge, self, now);
    }
}

/// Opens the store of a shard. If the disk is full, deletes the ballast and tries again, then opens it read-only.
fn open_store(id: ShardId, folder: &Path, services: &ShardServices) -> Result<Store, Error> {
    let opened = match Store::open(id, folder, services.tables_open_max) {
        Err(full) if full.is_no_room() && services.disk.drop_ballast() => {
            Store::open(id, folder, services.tables_open_max)
        }
        opened => opened,
    };
    match opened {
        Err(full) if full.is_no_room() => {
            tracing::error!(
                shard = %id,
                error = %full,
                "the disk is full: the shard is read-only until there is space"
            );
            Store::open_read_only(id, folder, services.tables_open_max)
                .map_err(|failure| if failure.is_no_room() { failure } else { full })
        }
        opened => opened,
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
