//! What a source shows to others while it runs: its partitions and its last error.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use proto::{
    CollectionName, SourceName,
    status::{SourceState, TailStatus},
};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::partition::Partition;

/// A partition, shared by the poll thread (fills it) and its sender (empties it).
pub struct Cell {
    /// Its number.
    pub number: i32,
    /// Held for moments only.
    pub partition: Mutex<Partition>,
    /// Wakes the sender.
    pub wake: Notify,
}

/// What a source shows.
pub struct Board {
    /// Where its documents go.
    pub collection: CollectionName,
    /// Its name.
    pub source: SourceName,
    cells: Mutex<BTreeMap<i32, Arc<Cell>>>,
    error: Mutex<Option<String>>,
    /// The source cannot go on by itself.
    stopped: Mutex<bool>,
}

impl Board {
    /// A board with nothing on it.
    pub fn new(collection: CollectionName, source: SourceName) -> Self {
        Self { collection, source, cells: Mutex::default(), error: Mutex::default(), stopped: Mutex::default() }
    }

    /// Shows an error of the whole source until something succeeds. Logged when it changes.
    pub fn error(&self, error: &str) {
        let mut shown = self.error.lock();
        if shown.as_deref() != Some(error) {
            warn!(source = %self.source, error, "trouble at the source");
            *shown = Some(error.to_owned());
        }
    }

    /// Whether an error is shown.
    pub fn has_error(&self) -> bool {
        self.error.lock().is_some()
    }

    /// Something succeeded.
    pub fn fine(&self) {
        if self.error.lock().take().is_some() {
            info!(source = %self.source, "the source is fine again");
        }
    }

    /// The source cannot go on, or can again.
    pub fn stopped(&self, stopped: bool) {
        *self.stopped.lock() = stopped;
    }

    /// The partitions that are read now.
    pub fn show(&self, cells: BTreeMap<i32, Arc<Cell>>) {
        *self.cells.lock() = cells;
    }

    /// One row a partition, or one for the source while its partitions are not known.
    pub fn rows(&self) -> Vec<TailStatus> {
        let cells = self.cells.lock().clone();
        let error = self.error.lock().clone();
        let row = |partition, state, (end, lag), error| TailStatus {
            collection: self.collection.clone(),
            source: self.source.clone(),
            partition,
            state,
            end,
            lag,
            error,
        };
        if cells.is_empty() {
            let state = if *self.stopped.lock() { SourceState::Stopped } else { SourceState::Starting };
            return vec![row(None, state, (None, None), error)];
        }
        let cell_row = |cell: &Arc<Cell>| {
            let partition = cell.partition.lock();
            let error = partition.error().map(str::to_owned).or_else(|| error.clone());
            row(Some(cell.number), partition.state(), partition.end_and_lag(), error)
        };
        cells.values().map(cell_row).collect()
    }
}
