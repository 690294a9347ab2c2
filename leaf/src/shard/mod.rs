//! Shard: a slice of a collection. It ingests batches and pushes, and provides read views.
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

pub(crate) mod batch_check;
pub(crate) mod budget;
pub(crate) mod build_splits;
pub(crate) mod dead_letters;
pub(crate) mod erase;
pub(crate) mod event;
pub(crate) mod gone;
pub(crate) mod group;
mod heat;
pub(crate) mod index_tail;
mod job;
mod obsolete;
mod open_shard;
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
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Instant,
};

use job::QUEUE_JOBS_MAX;
use metrics::counter;
pub(crate) use open_shard::{Shard, ShardServices};
use parking_lot::Mutex;
use proto::{
    SourceName,
    ingest::{ShardId, StoredPosition},
    problem::panic_text,
};
use scheduler::Task;
use summary::Summary;
use tokio::sync::{mpsc, watch};
use tracing::error;
use writer::ShardWriter;

use crate::{error::Error, store::Store};

/// The subfolder with the store of a shard.
pub(crate) const STORE_FOLDER: &str = "rows";
/// The subfolder with the splits of a shard.
pub(crate) const SPLITS_FOLDER: &str = "splits";

impl Shard {
    /// Opens the shard in a folder, or creates it.
    pub(crate) fn open(id: ShardId, folder: &Path, services: Arc<ShardServices>) -> Result<Arc<Self>, Error> {
        let rows = folder.join(STORE_FOLDER);
        let store = Arc::new(open_store(id, &rows, &services)?);
        // Before the first write makes the summary stale. The summary of a read-only shard stays valid.
        if !store.is_read_only() {
            Summary::remove(&rows).map_err(Error::file(&rows))?;
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
            erase_pass: Mutex::new(None),
            split_requested: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
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

    /// Runs a background task. Returns when it must run again, if that is already known.
    fn run(self: &Arc<Self>, task: Task) -> Result<Option<Instant>, Error> {
        let done = match task {
            // Queries wait for it.
            Task::IndexTail => return index_tail::index_tail(self),
            _ if self.has_left() => return Ok(None),
            Task::Split => build_splits::split(self),
            Task::Merge => build_splits::merge(self),
        };
        match done {
            Err(_) if self.has_left() => Ok(None),
            done => done,
        }
    }

    /// What is stored of a partition.
    pub(crate) fn stored(&self, source: &SourceName, partition: i32) -> StoredPosition {
        summary::stored(&self.state.lock().rows, source, partition)
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
