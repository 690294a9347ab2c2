//! The status of a running source: its partitions and its last error.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use proto::{
    CollectionName, SourceName,
    catalog::CollectionUid,
    status::{SourceState, TailStatus},
};
use tracing::{info, warn};

use super::{Error, slot::PartitionSlot, task::SourceTask};

pub(super) struct SourceStatus {
    /// The collection that receives the documents.
    pub collection: CollectionName,
    uid: Option<CollectionUid>,
    pub source: SourceName,
    slots: Mutex<BTreeMap<i32, Arc<PartitionSlot>>>,
    error: Mutex<Option<Error>>,
    /// Whether the source waits for a new consumer after an error.
    stopped: Mutex<bool>,
    /// Whether it is left out of the metrics.
    is_unreported: bool,
}

impl SourceStatus {
    /// The status of a source that is read.
    pub(super) fn of(task: &SourceTask) -> Self {
        Self::new(task.collection.clone(), Some(task.uid), task.source.clone())
    }

    /// A status without partitions and errors.
    pub(super) fn new(collection: CollectionName, uid: Option<CollectionUid>, source: SourceName) -> Self {
        Self {
            collection,
            uid,
            source,
            slots: Mutex::default(),
            error: Mutex::default(),
            stopped: Mutex::default(),
            is_unreported: false,
        }
    }

    /// The status of a consumer that feeds a replica apart: the source has a status of its own.
    pub(super) fn unreported(task: &SourceTask) -> Self {
        Self {
            is_unreported: true,
            ..Self::of(task)
        }
    }

    /// Shows an error of the whole source until something succeeds. Logs the error if it is another one than before.
    pub(super) fn set_error(&self, error: Error) {
        let mut current = self.error.lock();
        if current.as_ref() != Some(&error) {
            warn!(source = %self.source, error = error.to_string(), "the source has an error");
            *current = Some(error);
        }
        drop(current);
        self.record_metrics();
    }

    /// The error of the whole source, if it has one.
    pub(super) fn error(&self) -> Option<Error> {
        self.error.lock().clone()
    }

    /// Clears the error of the whole source after a success.
    pub(super) fn clear_error(&self) {
        if self.error.lock().take().is_some() {
            info!(source = %self.source, "the source has recovered");
        }
    }

    /// Sets whether the source is stopped.
    pub(super) fn set_stopped(&self, stopped: bool) {
        *self.stopped.lock() = stopped;
    }

    /// Replaces the partitions that are read here. A partition that is no longer read here gets a lag of 0, because
    /// another tailer now reports its lag.
    pub(super) fn set_slots(&self, slots: BTreeMap<i32, Arc<PartitionSlot>>) {
        let now: Vec<i32> = slots.keys().copied().collect();
        let before = std::mem::replace(&mut *self.slots.lock(), slots);
        for number in before.into_keys().filter(|number| !now.contains(number)) {
            self.record_partition(number, Some(0), 0);
        }
        self.record_metrics();
    }

    /// Records the metrics of the source and its partitions.
    pub(super) fn record_metrics(&self) {
        if self.is_unreported {
            return;
        }
        for slot in self.slots.lock().values() {
            let (bytes, lag) = {
                let partition = slot.partition.lock();
                (partition.buffered_bytes(), partition.end_and_lag().1)
            };
            self.record_partition(slot.number, lag, bytes);
        }
        let has_error = self
            .rows()
            .iter()
            .any(|row| row.error.is_some() || row.state == SourceState::Stopped);
        metrics::gauge!("rachis_tail_trouble", &self.labels()).set(f64::from(u8::from(has_error)));
    }

    /// Resets the metrics of a source that is no longer read here.
    pub(super) fn close(&self) {
        self.set_slots(BTreeMap::new());
        metrics::gauge!("rachis_tail_trouble", &self.labels()).set(0.0);
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        [
            ("collection", self.collection.to_string()),
            ("source", self.source.to_string()),
        ]
    }

    fn record_partition(&self, number: i32, lag: Option<i64>, buffered_bytes: usize) {
        let [collection, source] = self.labels();
        let labels = [collection, source, ("partition", number.to_string())];
        if let Some(lag) = lag {
            metrics::gauge!("rachis_tail_lag_records", &labels).set(lag as f64);
        }
        metrics::gauge!("rachis_tail_window_bytes", &labels).set(buffered_bytes as f64);
    }

    /// One row for each partition, or one row for the source while its partitions are unknown.
    pub(super) fn rows(&self) -> Vec<TailStatus> {
        let slots = self.slots.lock().clone();
        let error = self.error.lock().clone();
        if slots.is_empty() {
            return vec![self.source_row(error)];
        }
        slots
            .values()
            .map(|slot| self.partition_row(slot, error.as_ref()))
            .collect()
    }

    fn source_row(&self, error: Option<Error>) -> TailStatus {
        let state = match *self.stopped.lock() {
            true => SourceState::Stopped,
            false => SourceState::Starting,
        };
        TailStatus {
            collection: self.collection.clone(),
            uid: self.uid,
            source: self.source.clone(),
            partition: None,
            state,
            end: None,
            lag: None,
            sent: None,
            error: error.map(|error| error.to_string()),
        }
    }

    fn partition_row(&self, slot: &PartitionSlot, source_error: Option<&Error>) -> TailStatus {
        let error = slot.error().or_else(|| source_error.map(ToString::to_string));
        let partition = slot.partition.lock();
        let (state, (end, lag)) = (partition.state(), partition.end_and_lag());
        // The own sources have several senders, so the leaf may have ingested everything that the log contains. One that
        // is stopped may lack pushes that were acknowledged before it came back from an older disk.
        let is_read = matches!(
            state,
            SourceState::Reading | SourceState::Waiting | SourceState::Stopped
        );
        let others_send = self.source.is_own() && is_read;
        let sent = partition
            .sent_through()
            .max(end.filter(|_| others_send).map_or(-1, |end| end - 1));
        TailStatus {
            collection: self.collection.clone(),
            uid: self.uid,
            source: self.source.clone(),
            partition: Some(slot.number),
            state,
            end,
            lag,
            sent: (sent >= 0).then_some(sent),
            error,
        }
    }
}
