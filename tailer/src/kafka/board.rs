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
        Self {
            collection,
            source,
            cells: Mutex::default(),
            error: Mutex::default(),
            stopped: Mutex::default(),
        }
    }

    /// Shows an error of the whole source until something succeeds. Logged when it changes.
    pub fn error(&self, error: &str) {
        let mut shown = self.error.lock();
        if shown.as_deref() != Some(error) {
            warn!(source = %self.source, error, "trouble at the source");
            *shown = Some(error.to_owned());
        }
        drop(shown);
        self.tell();
    }

    /// The error that is shown.
    pub fn shown(&self) -> Option<String> {
        self.error.lock().clone()
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

    /// The partitions that are read now. What is read here no more lags nothing behind: another tailer says how it is.
    pub fn show(&self, cells: BTreeMap<i32, Arc<Cell>>) {
        let now: Vec<i32> = cells.keys().copied().collect();
        let before = std::mem::replace(&mut *self.cells.lock(), cells);
        for number in before.into_keys().filter(|number| !now.contains(number)) {
            self.tell_partition(number, Some(0), 0);
        }
        self.tell();
    }

    /// Tells the metrics how the source and its partitions are.
    pub fn tell(&self) {
        for cell in self.cells.lock().values() {
            let (held, lag) = {
                let partition = cell.partition.lock();
                (partition.held_bytes(), partition.end_and_lag().1)
            };
            self.tell_partition(cell.number, lag, held);
        }
        let trouble = self
            .rows()
            .iter()
            .any(|row| row.error.is_some() || row.state == SourceState::Stopped);
        metrics::gauge!("rachis_tail_trouble", &self.labels()).set(f64::from(u8::from(trouble)));
    }

    /// The source is not read here any more.
    pub fn close(&self) {
        self.show(BTreeMap::new());
        metrics::gauge!("rachis_tail_trouble", &self.labels()).set(0.0);
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        [
            ("collection", self.collection.to_string()),
            ("source", self.source.to_string()),
        ]
    }

    fn tell_partition(&self, number: i32, lag: Option<i64>, held_bytes: usize) {
        let [collection, source] = self.labels();
        let of = [collection, source, ("partition", number.to_string())];
        if let Some(lag) = lag {
            metrics::gauge!("rachis_tail_lag_records", &of).set(lag as f64);
        }
        metrics::gauge!("rachis_tail_window_bytes", &of).set(held_bytes as f64);
    }

    /// One row a partition, or one for the source while its partitions are not known.
    pub fn rows(&self) -> Vec<TailStatus> {
        let cells = self.cells.lock().clone();
        let error = self.error.lock().clone();
        let row = |partition, state, (end, lag), sent: i64, error| TailStatus {
            collection: self.collection.clone(),
            source: self.source.clone(),
            partition,
            state,
            end,
            lag,
            sent: (sent >= 0).then_some(sent),
            error,
        };
        if cells.is_empty() {
            let state = if *self.stopped.lock() {
                SourceState::Stopped
            } else {
                SourceState::Starting
            };
            return vec![row(None, state, (None, None), -1, error)];
        }
        let cell_row = |cell: &Arc<Cell>| {
            let partition = cell.partition.lock();
            let error = partition.error().map(str::to_owned).or_else(|| error.clone());
            let (state, (end, lag)) = (partition.state(), partition.end_and_lag());
            // Of pushes all that is in the log may have been taken in, whoever sent it.
            let behind = self.source.is_push() && matches!(state, SourceState::Reading | SourceState::Waiting);
            let sent = partition.sent().max(end.filter(|_| behind).map_or(-1, |end| end - 1));
            row(Some(cell.number), state, (end, lag), sent, error)
        };
        cells.values().map(cell_row).collect()
    }
}
