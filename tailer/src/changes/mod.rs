//! The change log of a single process: it accepts or refuses one proposal after the other, and writes accepted ones to
//! a file before they take effect.
//!
//! In a cluster, a topic feeds the same state machine ([`topic`]), and a node without access to Kafka follows its peers
//! ([`follower`]). All three implement [`Changes`].

mod catalog_file;
mod contacts;
mod error;
mod follower;
mod log;
mod replica;
pub(crate) mod topic;

use std::{collections::HashSet, path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Catalog, Code, Problem,
    catalog::{Change, ChangeRecord},
    tailer::{Changes, LogHealth},
};
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use self::log::{AppendOutcome, LogFile};
pub use self::{
    catalog_file::CatalogFile,
    error::{LogFileError, LogLineError},
    follower::Follower,
    replica::CatalogReplica,
};

/// The most bytes of one record of the change log.
pub(crate) const CHANGE_BYTES_MAX: usize = 4 << 20;

/// The change log in a file of the data folder. Cheap to clone.
#[derive(Clone)]
pub struct FileChanges {
    shared: Arc<SharedLog>,
}

struct SharedLog {
    state: Mutex<LogState>,
    catalog: watch::Sender<Arc<Catalog>>,
}

struct LogState {
    file: LogFile,
    /// The requests in the log. Repeating one has no effect.
    seen: HashSet<Uuid>,
    /// Whether the content of the file is unknown after a failed write. Then no change is accepted until the file is
    /// read again.
    unsure: bool,
}

impl FileChanges {
    /// Opens the log of a data folder, or creates it, and reads all of it.
    pub fn open(folder: &Path) -> Result<Self, LogFileError> {
        let mut catalog = Catalog::default();
        let mut seen = HashSet::new();
        let file = LogFile::open(folder, |record| {
            if !seen.insert(record.uid) {
                return Ok(());
            }
            let (next, result) = catalog.apply(&record);
            catalog = next;
            // Only accepted records are written, and the rules of a level never change.
            result.map_err(LogLineError::Refused)
        })?;
        info!(file = %file.path().display(), changes = catalog.version, "read the change log");
        let (catalog, _) = watch::channel(Arc::new(catalog));
        Ok(Self {
            shared: Arc::new(SharedLog {
                state: Mutex::new(LogState {
                    file,
                    seen,
                    unsure: false,
                }),
                catalog,
            }),
        })
    }

    /// Appends a record to the log, if the catalog accepts it. The change is durable and in effect when this returns.
    /// Blocks for an fsync. A record whose uid is already in the log changes nothing and returns the current catalog.
    pub fn submit(&self, record: ChangeRecord) -> Result<Arc<Catalog>, Problem> {
        let mut state = self.shared.state.lock();
        let current = self.shared.catalog.borrow().clone();
        if state.seen.contains(&record.uid) {
            return Ok(current);
        }
        if state.unsure {
            return Err(unavailable(
                "an earlier change may or may not have been written to the change log",
            ));
        }
        let (next, result) = current.apply(&record);
        result?;
        let started = Instant::now();
        match state.file.append(&record)? {
            AppendOutcome::Durable => {}
            AppendOutcome::NotWritten(error) => {
                warn!(%error, "could not write a change; the change log is unchanged");
                return Err(unavailable(&format!("cannot write the change: {error}")));
            }
            AppendOutcome::Unknown(error) => {
                state.unsure = true;
                tracing::error!(
                    %error,
                    "a change may or may not be in the change log; no further change is accepted until a restart"
                );
                return Err(Problem::new(
                    Code::UnknownOutcome,
                    format!("the change may or may not have been written: {error}"),
                )
                .hint("check the disk, restart the node, and check whether the change is in effect"));
            }
        }
        metrics::histogram!("rachis_change_write_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("rachis_changes_total").increment(1);
        state.seen.insert(record.uid);
        let next = Arc::new(next);
        self.shared.catalog.send_replace(next.clone());
        Ok(next)
    }
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(Code::Unavailable, detail).hint("check the disk of the data folder; nothing else is affected")
}

#[async_trait]
impl Changes for FileChanges {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.shared.catalog.subscribe()
    }

    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        let record = ChangeRecord {
            uid: Uuid::now_v7(),
            level: change.rules_level(),
            expected,
            change,
        };
        let changes = self.clone();
        // A change that has started is completed even if its client disconnects.
        tokio::task::spawn_blocking(move || changes.submit(record))
            .await
            .map_err(|error| {
                Problem::new(
                    Code::UnknownOutcome,
                    format!("writing a change was interrupted: {error}"),
                )
            })?
    }

    fn health(&self) -> LogHealth {
        let offset = i64::try_from(self.shared.catalog.borrow().version).unwrap_or(i64::MAX);
        let fault = self
            .shared
            .state
            .lock()
            .unsure
            .then(|| "a change may or may not have been written: restart the node".to_owned());
        LogHealth {
            offset,
            fault,
            ..LogHealth::default()
        }
    }
}

#[cfg(test)]
mod tests;
