//! Closing a shard that nobody uses.
//!
//! - Only who has the last handle of the shard closes it, and handles are counted: so no job waits or is written, no
//!   build runs, and nobody waits for a position. Whoever asks for the shard meanwhile waits until it is closed
//!   (`leaf/shards.rs`), and opens it anew.
//! - While a query holds a view, an idle shard stays open. Views do not keep a failed shard open: `let_go` closes its
//!   store under them.
//! - What is in no split yet is in rows, and goes into the tail when the shard opens. Where that is more than a
//!   question would read without an index, it goes to disk as a split first.
//! - A split that was found to be damaged is built again first: once it is closed nobody knows of it.
//! - The rows are flushed first: a shard that closed in order opens without a log to read. Where they could not be,
//!   there is no summary, and the next opening reads the log.
//! - One that was opened without room on the disk writes nothing: it is closed as it is, and only where another shard
//!   needs its place.

use std::sync::Arc;

use tracing::{debug, warn};

use super::{STORE_FOLDER, Shard, rebuild, summary::Summary};

/// So many bytes in no split do not keep a shard open.
const UNSPLIT_BYTES_MAX: usize = 1 << 20;

impl Shard {
    /// Whether it could be closed: nobody has it but its place and who asks, nothing waits, no view is held. What has
    /// to go to disk first is sent there.
    pub fn can_retire(self: &Arc<Self>) -> bool {
        if Arc::strong_count(self) > 2 || self.is_used() {
            return false;
        }
        let (documents, bytes) = self.look(|state| state.unsplit());
        let little = documents <= self.options.scan_tail_documents_max && bytes <= UNSPLIT_BYTES_MAX;
        if self.store.is_read_only() || self.failure().is_some() {
            return true;
        }
        if !little {
            self.split_now();
        }
        little && !self.mend()
    }

    /// Whether a job waits, a view is held, or a segment that was replaced.
    fn is_used(&self) -> bool {
        // First, for they hold what is to be swept.
        self.look(|state| state.forget_moments());
        if let Err(error) = rebuild::sweep(self) {
            warn!(shard = %self.id, %error, "what is not needed any more stays for now");
        }
        self.has_jobs() || self.look(|state| state.has_views()) || self.has_readers() || !self.graves.lock().is_empty()
    }

    /// Whether somebody reads in its store: one handle is the shard's, and one its state's.
    fn has_readers(&self) -> bool {
        Arc::strong_count(&self.store) > 2
    }

    /// Closes the store of a shard that failed, if this is its last handle and nobody reads in its store; else gives it
    /// back. What is under way ends soon; views that are held end here.
    pub fn let_go(self: Arc<Self>) -> Result<(), Arc<Self>> {
        self.look(|state| state.close());
        let shard = Arc::try_unwrap(self)?;
        match Arc::strong_count(&shard.store) {
            1 => Ok(()),
            _ => Err(Arc::new(shard)),
        }
    }

    /// Closes the shard, if this is its last handle and no view of it is held; else gives it back. Only the last handle
    /// can tell for sure.
    pub fn retire(self: Arc<Self>) -> Result<(), Arc<Self>> {
        let shard = Arc::try_unwrap(self)?;
        if shard.is_used() {
            let shard = Arc::new(shard);
            // What was asked for was asked for by the handle that is no more.
            shard.schedule_all();
            return Err(shard);
        }
        shard.end();
        Ok(())
    }

    /// Closes the store, and leaves a summary. One that has failed is left as it is: nobody knows what it holds until
    /// it is opened again. So is one that takes nothing, with the summary that was there when it opened.
    fn end(self) {
        if self.failed.get().is_some() || self.store.is_read_only() {
            return;
        }
        if let Err(failure) = self.store.flush() {
            warn!(shard = %self.id, error = %failure, "rows in memory could not be flushed; the log has them");
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
            Ok(()) => debug!(shard = %id, "shard closed, for nobody uses it"),
            Err(error) => {
                warn!(shard = %id, error, "there is no summary of a closed shard: it is opened when something is asked about it")
            }
        }
    }
}
