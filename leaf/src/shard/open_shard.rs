//! An open shard: its parts, its state in memory, and what its writer and its builds need of both.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::Utc;
use parking_lot::Mutex;
use proto::{
    Code, Problem,
    ingest::{Backpressure, ShardId},
};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::{
    budget::MemoryBudget,
    erase::ErasePass,
    job::{Job, busy},
    obsolete::ObsoleteSegments,
    scheduler::{BuildScheduler, Task},
    state::{ShardState, StateChange},
    writer::ShardWriter,
    writer_pool::WriterPool,
};
use crate::{
    disk::Disk,
    error::Error,
    options::LeafOptions,
    store::{Store, WriteError},
};

/// How long a shard that was opened on a full disk stays read-only at least, even if the disk has room again.
const READ_ONLY_WAIT: Duration = Duration::from_secs(2);

/// An open shard.
pub(crate) struct Shard {
    pub id: ShardId,
    pub(super) options: Arc<LeafOptions>,
    pub(super) store: Arc<Store>,
    pub(super) splits: PathBuf,
    pub(super) state: Mutex<ShardState>,
    /// Counts changes of the state, to wake waiting requests.
    pub(super) changed: watch::Sender<u64>,
    pub(super) queue: mpsc::Sender<Job>,
    /// None once the shard is closed or failed; this also closes the queue.
    pub(super) writer: Mutex<Option<ShardWriter>>,
    /// Whether the shard is in the queue of the writer pool, or a thread of the pool is processing it.
    pub(super) enqueued: AtomicBool,
    pub(super) services: Arc<ShardServices>,
    pub(super) scheduler: Arc<BuildScheduler>,
    pub(super) failed: OnceLock<String>,
    pub(super) opened_at: Instant,
    pub(super) obsolete: Mutex<Vec<ObsoleteSegments>>,
    /// Serializes the removal of dead letters, so that no letter's bytes are subtracted twice.
    pub(super) dead_letter_removal: Mutex<()>,
    /// The pass that erases deleted documents, while there is one. The thread that merges splits runs it.
    pub(super) erase_pass: Mutex<Option<Arc<ErasePass>>>,
    /// Whether to write the micro-splits to disk even if there are few of them.
    pub(super) split_requested: AtomicBool,
    /// Whether the shard was moved to another leaf, so that its files are removed soon.
    pub(super) has_left: AtomicBool,
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
    /// Drops the writer. Waiting jobs fail.
    pub(super) fn stop_writing(&self) {
        *self.writer.lock() = None;
    }

    pub(super) fn has_jobs(&self) -> bool {
        self.writer.lock().as_ref().is_some_and(ShardWriter::has_jobs)
    }

    pub(super) fn sync(&self) {
        if let Err(failure) = self.store.sync() {
            warn!(shard = %self.id, error = %failure, "could not sync the write-ahead log while closing the shard");
        }
    }

    /// Why the shard must be reopened, if it must.
    pub(crate) fn failure(&self) -> Option<&str> {
        let stopped = || self.queue.is_closed().then_some("its writer has stopped");
        self.failed.get().map(String::as_str).or_else(stopped)
    }

    pub(super) fn fail(&self, reason: String) {
        let _first_reason_stays = self.failed.set(reason);
        self.notify_waiters();
    }

    /// Makes waiting requests check their condition again.
    pub(crate) fn notify_waiters(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Turns the result of a write into an error of the shard, which fails if the write failed.
    pub(super) fn check_written(&self, written: Result<(), WriteError>) -> Result<(), Error> {
        match written {
            Ok(()) => Ok(()),
            Err(WriteError::Stalled) => Err(busy("the store cannot keep up".into()).into()),
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

    /// The shard was moved to another leaf, and its files are removed soon: nothing is written to splits any more. A build that
    /// runs ends at the next document that it indexes.
    pub(crate) fn end_builds(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    /// The shard stays on this leaf after all.
    pub(crate) fn build_again(self: &Arc<Self>) {
        self.has_left.store(false, Ordering::Relaxed);
        self.schedule_all();
    }

    /// Whether it was moved to another leaf.
    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }

    /// Fails if the shard has left this leaf.
    pub(super) fn check_here(&self) -> Result<(), Error> {
        match self.has_left() {
            true => Err(Problem::new(
                Code::Unavailable,
                format!("shard {} was moved to another leaf", self.id),
            )
            .into()),
            false => Ok(()),
        }
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

    /// Makes a stored change visible.
    pub(super) fn make_visible(self: &Arc<Self>, change: StateChange) {
        let mut state = self.state.lock();
        let removes = !change.deleted.is_empty() || !change.gone.is_empty();
        let erase_at = (!change.gone.is_empty()).then(|| Instant::now() + self.options.deleted_kept);
        state.apply(change, Utc::now().timestamp_millis());
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
        if let Some(at) = erase_at {
            self.scheduler.schedule(Task::Merge, self, at);
        }
    }

    /// When to index the tail, even if no query needs it.
    pub(super) fn index_tail_at(&self, state: &ShardState) -> Option<Instant> {
        let options = &self.options;
        let full = state.tail.documents() >= options.publish_documents || state.tail.bytes() >= options.publish_bytes;
        match state.waiting_since {
            _ if full => Some(Instant::now()),
            Some(since) => Some(since + options.publish_after),
            None => None,
        }
    }

    /// Why the shard cannot accept more now, given the documents and bytes of the current group.
    pub(super) fn backpressure(&self, (documents, bytes): (usize, usize)) -> Option<Backpressure> {
        if let Some(reason) = self.services.disk.full() {
            return Some(Backpressure::lasting(reason));
        }
        if self.store.is_read_only() {
            return Some(Backpressure::lasting(format!(
                "the disk was full when shard {} was opened; it is read-only until there is space",
                self.id
            )));
        }
        self.full_memory(documents, bytes).map(Backpressure::passing)
    }

    /// Why so many more documents would take too much memory, if they would.
    fn full_memory(&self, documents: usize, bytes: usize) -> Option<String> {
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

    pub(super) fn schedule_all(self: &Arc<Self>) {
        let now = Instant::now();
        let index_at = self.index_tail_at(&self.state.lock());
        if let Some(at) = index_at {
            self.scheduler.schedule(Task::IndexTail, self, at);
        }
        self.scheduler.schedule(Task::Split, self, now);
        self.scheduler.schedule(Task::Merge, self, now);
    }
}
