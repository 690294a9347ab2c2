//! Closes a shard that is no longer used.
//!
//! - Only the owner of the last handle closes the shard, and handles are counted. So no job is waiting or being
//!   written, no build is running, and no caller is waiting for a position. A request for the shard in the meantime
//!   waits until it is closed (`leaf/shards.rs`) and reopens it.
//! - An idle shard stays open while a query holds a read view. A failed shard does not: `close_store` closes its store
//!   under the views.
//! - Data in no split yet is stored as rows and becomes the tail when the shard opens. If there is more of it than a
//!   query would scan without an index, it is first written to a split.
//! - A split known to be damaged is rebuilt first, because the knowledge of the damage is lost on closing.
//! - The memtables are flushed first, so that a cleanly closed shard opens without replaying a log. If the flush fails,
//!   no summary is written, and the next opening replays the log.
//! - A read-only shard, opened on a full disk, writes nothing: it closes as it is, and only when another shard needs
//!   its slot.
//! - A shard that was moved to another leaf builds nothing before it closes: its files are removed.

use std::sync::Arc;

use tracing::{debug, warn};

use super::{STORE_FOLDER, open_shard::Shard, summary::Summary, sweep::sweep};

/// A shard with more bytes in no split must write a split before it closes.
const UNSPLIT_BYTES_MAX: usize = 1 << 20;

impl Shard {
    /// Whether the shard can be closed: only its slot and the caller have a handle, no job waits, and no view is held.
    /// Otherwise starts what has to be written to disk first.
    pub(crate) fn can_retire(self: &Arc<Self>) -> bool {
        if Arc::strong_count(self) > 2 || self.is_used() {
            return false;
        }
        if self.store.is_read_only() || self.failure().is_some() || self.has_left() {
            return true;
        }
        let (documents, bytes) = self.with_state(|state| state.unsplit());
        let small = documents <= self.options.index_tail_documents && bytes <= UNSPLIT_BYTES_MAX;
        if !small {
            self.request_split();
        }
        small && !self.rebuild_damaged_splits()
    }

    /// Whether a job waits, a view is held, or replaced segments are still referenced.
    fn is_used(&self) -> bool {
        // First, because cached views keep replaced segments alive.
        self.with_state(|state| state.drop_cached_views());
        if let Err(error) = sweep(self) {
            warn!(shard = %self.id, %error, "could not remove obsolete segments; this will be retried");
        }
        self.has_jobs()
            || self.with_state(|state| state.has_views())
            || self.has_readers()
            || !self.obsolete.lock().is_empty()
    }

    /// Whether the store has readers: one handle belongs to the shard, and one to its state.
    fn has_readers(&self) -> bool {
        Arc::strong_count(&self.store) > 2
    }

    /// Closes the store of a failed shard if this is the last handle and the store has no readers; otherwise returns
    /// the handle. Running operations end soon; read views lose their store here.
    pub(crate) fn close_store(self: Arc<Self>) -> Result<(), Arc<Self>> {
        self.with_state(|state| state.close());
        let shard = Arc::try_unwrap(self)?;
        match Arc::strong_count(&shard.store) {
            1 => Ok(()),
            _ => Err(Arc::new(shard)),
        }
    }

    /// Closes the shard if this is the last handle and no view of it is held; otherwise returns the handle. Only the
    /// last handle can decide this reliably.
    pub(crate) fn retire(self: Arc<Self>) -> Result<(), Arc<Self>> {
        let shard = Arc::try_unwrap(self)?;
        if shard.is_used() {
            let shard = Arc::new(shard);
            // Tasks were scheduled with weak references to the handle that was just unwrapped.
            shard.schedule_all();
            return Err(shard);
        }
        shard.close_idle();
        Ok(())
    }

    /// Closes the store and writes a summary. A failed shard is left as it is, because its content is unknown until it
    /// is reopened. So is one that has left, whose files are removed, and a read-only shard, with the summary that existed
    /// when it opened.
    fn close_idle(self) {
        if self.failed.get().is_some() || self.store.is_read_only() {
            return;
        }
        if self.has_left() {
            self.sync();
            return;
        }
        if let Err(failure) = self.store.flush() {
            warn!(shard = %self.id, error = %failure, "could not flush memtables; the rows are in the write-ahead log");
            self.sync();
            return;
        }
        let summary = Summary::of(&self);
        let (id, rows) = (self.id, self.splits.with_file_name(STORE_FOLDER));
        drop(self);
        let written = summary
            .map_err(|failure| failure.to_string())
            .and_then(|summary| summary.write(&rows).map_err(|failure| failure.to_string()));
        match written {
            Ok(()) => debug!(shard = %id, "idle shard closed"),
            Err(error) => {
                warn!(shard = %id, error, "could not write the summary of a shard; status requests will open it")
            }
        }
    }
}
