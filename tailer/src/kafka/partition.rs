//! The state machine of one source partition: the window between broker and leaf, and the next step.
//!
//! ```text
//! Resolving ──begin──> Reading ──gap, offset out of range──> Resolving
//!     │                   │
//!     └──stop──> Stopped <┘   (after some errors, the partition is rechecked from time to time)
//! ```
//!
//! Pure: no clock, no broker, no leaf. Every rule here is tested with plain calls.

use std::collections::VecDeque;

use parking_lot::Mutex;
use proto::{catalog::Skip, ingest::BatchOutcome, record::Record, status::SourceState};
use tokio::sync::Notify;

use super::Error;

#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    /// The most records of one batch.
    pub batch_records_max: usize,
    /// The most bytes of one batch. A single larger record is sent alone.
    pub batch_bytes_max: usize,
}

/// The phase of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The sender asks the leaf for its position and the broker for its offsets.
    Resolving,
    /// Records are read and sent.
    Reading,
    /// The partition cannot continue. If `rechecked`, the cause may go away, so the sender checks from time to time.
    Stopped { rechecked: bool },
}

/// The next step of the sender.
#[derive(Debug)]
pub(super) enum SenderStep {
    /// Determine where to start reading.
    Resolve,
    /// Send this batch and settle it.
    Send(OutgoingBatch),
    /// Wait until woken.
    Wait,
    /// Wait a while, then check whether the partition can continue.
    Recheck,
}

/// Records to send, with the range of offsets that they cover.
#[derive(Debug, Clone)]
pub(super) struct OutgoingBatch {
    /// The position before the batch, exclusive.
    pub after: i64,
    /// The position after the batch, inclusive.
    pub through: i64,
    /// The records, ascending. The first one may be at `after`, so that the leaf can compare it.
    pub records: Vec<Record>,
    /// The size of the records.
    pub bytes: usize,
}

/// A change of the flow that the poll thread makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The window is full.
    Pause,
    /// The window has room again.
    Resume,
}

/// Batches are not made smaller than this.
const BATCH_BYTES_MIN: usize = 64 << 10;

/// A partition, shared by the poll thread (fills it) and its sender (empties it).
pub(super) struct PartitionSlot {
    /// The number of the partition.
    pub number: i32,
    /// The state. Locked only for moments.
    pub partition: Mutex<Partition>,
    /// Wakes the sender.
    pub wake: Notify,
}

#[derive(Debug)]
pub(super) struct Partition {
    limits: BatchLimits,
    /// The ranges of offsets to skip.
    skips: Vec<Skip>,
    phase: Phase,
    /// The position of the leaf, as far as known.
    stored: i64,
    /// The highest position that the leaf has acknowledged.
    acknowledged: i64,
    /// The last offset that was read. Records up to it are not read again.
    read: i64,
    window: VecDeque<Record>,
    window_bytes: usize,
    /// The size of the batch in flight. There is at most one.
    inflight_bytes: Option<usize>,
    /// The last offset of a batch that the leaf may have applied without an answer.
    unsettled: i64,
    /// Whether the consumer must seek to `read + 1`.
    needs_seek: bool,
    paused: bool,
    /// Whether the end-of-partition event followed the last record.
    at_end: bool,
    /// Whether the leaf accepts no more for now.
    busy: bool,
    /// The end offset at the broker: one after the last record.
    end: Option<i64>,
    error: Option<Error>,
}

impl Partition {
    /// A partition whose positions are not known yet.
    pub(super) fn new(limits: BatchLimits, skips: &[Skip]) -> Self {
        Self {
            limits,
            skips: skips.to_vec(),
            phase: Phase::Resolving,
            stored: -1,
            acknowledged: -1,
            read: -1,
            window: VecDeque::new(),
            window_bytes: 0,
            inflight_bytes: None,
            unsettled: -1,
            needs_seek: false,
            paused: false,
            at_end: false,
            busy: false,
            end: None,
            error: None,
        }
    }

    /// Records that the leaf has everything through `stored`, and that the broker's end offset is `end`.
    pub(super) fn note_offsets(&mut self, stored: i64, end: i64) {
        self.note_stored(stored);
        self.end = Some(end);
    }

    /// The highest position that the leaf has acknowledged while this partition was read here. The leaf may have less
    /// by now.
    pub(super) fn acknowledged(&self) -> i64 {
        self.acknowledged
    }

    /// The highest position that the leaf can have reached while this partition was read here: it may have applied the
    /// last batch without an answer.
    pub(super) fn sent_through(&self) -> i64 {
        self.acknowledged.max(self.unsettled)
    }

    fn note_stored(&mut self, stored: i64) {
        self.stored = stored;
        self.acknowledged = self.acknowledged.max(stored);
    }

    /// Starts reading at the offset `from`. The leaf has everything through `stored`.
    pub(super) fn begin(&mut self, stored: i64, from: i64) {
        self.drop_window();
        self.phase = Phase::Reading;
        self.note_stored(stored);
        self.read = from - 1;
        self.needs_seek = true;
        self.at_end = false;
        self.error = None;
    }

    /// Discards the window, so that the sender asks the leaf again.
    pub(super) fn resolve(&mut self) {
        if self.phase == Phase::Reading {
            self.drop_window();
            self.phase = Phase::Resolving;
        }
    }

    /// Stops with an error. Whether the partition is rechecked depends on the error.
    pub(super) fn stop(&mut self, error: Error) {
        self.drop_window();
        self.phase = Phase::Stopped {
            rechecked: error.is_rechecked(),
        };
        self.error = Some(error);
    }

    /// Records why the sender could not determine where to start. A stopped partition keeps its own error.
    pub(super) fn resolve_failed(&mut self, error: Error) {
        if self.phase == Phase::Resolving {
            self.error = Some(error);
        }
    }

    fn drop_window(&mut self) {
        self.window.clear();
        self.window_bytes = 0;
        self.busy = false;
    }

    /// Adds a record from the broker. Returns whether to wake the sender.
    pub(super) fn add(&mut self, record: Record) -> bool {
        // A record that arrives before the seek, or twice, was fetched for an earlier position.
        if self.phase != Phase::Reading || self.needs_seek || record.offset <= self.read {
            return false;
        }
        self.at_end = false;
        self.read = record.offset;
        if record.offset < self.stored || self.skips.iter().any(|skip| skip.contains(record.offset)) {
            return false;
        }
        self.window_bytes += record.memory_bytes();
        self.window.push_back(record);
        self.inflight_bytes.is_none()
    }

    pub(super) fn next_step(&mut self) -> SenderStep {
        match self.phase {
            Phase::Resolving => SenderStep::Resolve,
            Phase::Stopped { rechecked: true } => SenderStep::Recheck,
            Phase::Stopped { rechecked: false } => SenderStep::Wait,
            Phase::Reading => self.take_batch().map_or(SenderStep::Wait, SenderStep::Send),
        }
    }

    /// Takes as much from the window as the limits of a batch allow.
    fn take_batch(&mut self) -> Option<OutgoingBatch> {
        if self.inflight_bytes.is_some() {
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for record in self.window.iter().take(self.limits.batch_records_max) {
            if count > 0 && bytes + record.memory_bytes() > self.limits.batch_bytes_max {
                break;
            }
            count += 1;
            bytes += record.memory_bytes();
        }
        let records: Vec<Record> = self.window.drain(..count).collect();
        let through = records.last()?.offset;
        self.window_bytes -= bytes;
        self.inflight_bytes = Some(bytes);
        self.unsettled = through;
        Some(OutgoingBatch {
            after: self.stored,
            through,
            records,
            bytes,
        })
    }

    /// Records that the leaf does not accept the batch now. The sender keeps the batch and retries it.
    pub(super) fn set_busy(&mut self, error: Error) {
        self.busy = true;
        self.error = Some(error);
    }

    /// Applies the outcome of the batch in flight.
    pub(super) fn settle(&mut self, outcome: &BatchOutcome) {
        self.inflight_bytes = None;
        self.mark_not_applied();
        self.busy = false;
        if let BatchOutcome::Applied { stored } | BatchOutcome::Already { stored } = outcome {
            self.acknowledged = self.acknowledged.max(*stored);
        }
        if self.phase != Phase::Reading {
            return;
        }
        match outcome {
            BatchOutcome::Applied { stored } | BatchOutcome::Already { stored } => {
                self.error = None;
                self.note_stored(self.stored.max(*stored));
                // Another sender may have sent records that are still in this window.
                while self.window.front().is_some_and(|record| record.offset <= self.stored) {
                    self.window_bytes -= self.window.pop_front().map_or(0, |record| record.memory_bytes());
                }
            }
            BatchOutcome::Gap { .. } => self.resolve(),
            BatchOutcome::Refused { reason } => self.stop(Error::BatchRefused { reason: reason.clone() }),
            BatchOutcome::Busy { .. } => self.resolve(),
        }
    }

    /// Records that the leaf has answered and did not apply the batch in flight.
    pub(super) fn mark_not_applied(&mut self) {
        self.unsettled = -1;
    }

    /// Gives up the batch in flight without an answer.
    pub(super) fn abandon_batch(&mut self) {
        self.inflight_bytes = None;
        self.busy = false;
    }

    /// Halves the size of batches and returns the new limit in bytes.
    pub(super) fn halve_batches(&mut self) -> usize {
        self.limits.batch_bytes_max = (self.limits.batch_bytes_max / 2).max(BATCH_BYTES_MIN);
        self.limits.batch_bytes_max
    }

    /// Handles the end-of-partition event.
    pub(super) fn reached_end(&mut self) {
        if self.phase == Phase::Reading && !self.needs_seek {
            self.at_end = true;
            if !self.busy {
                self.error = None;
            }
        }
    }

    /// Records the end offset that the client saw with its last fetch. The client learns nothing about a partition that
    /// it does not fetch.
    pub(super) fn note_end(&mut self, end: i64) {
        if self.phase == Phase::Reading {
            self.end = Some(end);
        }
    }

    /// Whether the consumer must seek for this partition.
    pub(super) fn needs_seek(&self) -> bool {
        self.phase == Phase::Reading && self.needs_seek
    }

    /// The next offset to read, if the partition is to be read.
    pub(super) fn next_offset(&self) -> Option<i64> {
        (self.phase == Phase::Reading).then_some(self.read + 1)
    }

    /// Records that the consumer was positioned at [`Partition::next_offset`]. It starts unpaused.
    pub(super) fn seek_done(&mut self) {
        self.needs_seek = false;
        self.paused = false;
    }

    /// Whether more records than this limit wait, and the partition is not paused.
    pub(super) fn is_full(&self, window_bytes_max: usize) -> bool {
        !self.paused && self.buffered_bytes() > window_bytes_max
    }

    /// Whether nothing waits to be sent although the broker has more records.
    pub(super) fn is_starved(&self) -> bool {
        let has_more = self.end.is_some_and(|end| self.read + 1 < end);
        self.phase == Phase::Reading && !self.paused && self.buffered_bytes() == 0 && has_more
    }

    /// The change of the flow, if one is due: above this limit the partition may be paused, below half of it it is
    /// resumed.
    pub(super) fn flow(&mut self, window_bytes_max: usize, may_pause: bool) -> Option<Flow> {
        let bytes = self.buffered_bytes();
        if may_pause && self.is_full(window_bytes_max) {
            self.paused = true;
            return Some(Flow::Pause);
        }
        if self.paused && bytes < window_bytes_max / 2 {
            self.paused = false;
            return Some(Flow::Resume);
        }
        None
    }

    /// The position of the leaf, as far as known.
    pub(super) fn stored(&self) -> i64 {
        self.stored
    }

    /// The size of all records that were read and not acknowledged.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.window_bytes + self.inflight_bytes.unwrap_or(0)
    }

    /// The state, as users see it.
    pub(super) fn state(&self) -> SourceState {
        match self.phase {
            Phase::Resolving => SourceState::Starting,
            Phase::Stopped { .. } => SourceState::Stopped,
            Phase::Reading if self.busy => SourceState::Waiting,
            Phase::Reading if self.at_end && self.window.is_empty() && self.inflight_bytes.is_none() => {
                SourceState::CaughtUp
            }
            Phase::Reading => SourceState::Reading,
        }
    }

    /// The end offset at the broker, and the number of offsets between the position and the end. At the end of the
    /// partition the lag is 0, even if the last offsets have no records.
    pub(super) fn end_and_lag(&self) -> (Option<i64>, Option<i64>) {
        match self.state() {
            SourceState::CaughtUp => (self.end.map(|end| end.max(self.stored + 1)), Some(0)),
            _ => (self.end, self.end.map(|end| (end - 1 - self.stored).max(0))),
        }
    }

    /// The last error, until something succeeds.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

#[cfg(test)]
mod tests;
