//! The state machine of one source partition: the window between the broker and the replicas of its shards, and the next
//! step for each of them.
//!
//! ```text
//!           window, as far as it was read
//! broker ─> [ 41 42 43 44 45 46 47 48 49 ]       a record leaves it once every replica has it that is not behind
//!                   ^ leaf-2      ^ leaf-1       the cursor of each replica: its next record
//!
//! Resolving ──begin──> Reading ──gap, offset out of range──> Resolving
//!     │  ^                │  │ the window is full of what the others have, for two seconds
//!     │  └── begin ───┐   │  v
//!     │           Attaching <─── Behind   (it is fed by a consumer of its own until it has caught up)
//!     └──stop──> Stopped <┘               (after some errors, the partition is rechecked from time to time)
//! ```
//!
//! Most partitions belong to one shard. If runs spread one over several, each replica is sent the records of its shard only,
//! with ranges of offsets that follow each other. All shards share the window: it is kept for the slowest one.
//!
//! Pure: no clock, no broker, no leaf. Every rule here is tested with plain calls.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use proto::{catalog::Skip, ingest::BatchOutcome, record::Record, status::SourceState};

use super::{Error, slot::Part};

#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    /// The most records of one batch.
    pub batch_records_max: usize,
    /// The most bytes of one batch. A single larger record is sent alone.
    pub batch_bytes_max: usize,
}

/// A replica that lacks more records than this, by offsets, which another one has, is behind from the beginning.
pub(super) const FAR_OFFSETS: i64 = 20_000;
/// A replica that fills the window alone for this long, while another one has nearly everything in it, is behind.
pub(super) const BEHIND_AFTER: Duration = Duration::from_secs(2);

/// The phase of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The sender asks the leaf for its position and the broker for its offsets.
    Resolving,
    /// Records are read and sent.
    Reading,
    /// It lacks records that are no longer in the window, so a consumer of its own feeds it.
    Behind,
    /// The same, but the window is kept for it from now on, until it has caught up.
    Attaching,
    /// The replica cannot continue. If `rechecked`, the cause may go away, so the sender checks from time to time.
    Stopped { rechecked: bool },
}

/// The next step of the sender.
#[derive(Debug)]
pub(super) enum SenderStep {
    /// Determine where to start reading.
    Resolve,
    /// Send this batch and settle it.
    Send(OutgoingBatch),
    /// Feed the replica by a consumer of its own.
    FeedApart,
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

#[derive(Debug)]
pub(super) struct Partition {
    /// The ranges of offsets to skip.
    skips: Vec<Skip>,
    cursors: Vec<Cursor>,
    /// The last offset that was read. Records up to it are not read again.
    read: i64,
    /// The last offset that has left the window.
    trimmed: i64,
    window: VecDeque<Record>,
    window_bytes: usize,
    /// Whether the consumer must seek to `read + 1`.
    needs_seek: bool,
    paused: bool,
    /// Whether the end-of-partition event followed the last record.
    at_end: bool,
    /// The end offset at the broker: one after the last record.
    end: Option<i64>,
    /// The last offset that is sent.
    sent_through_max: i64,
    /// The first offset that no leaf accepts yet, and why.
    held: Option<(i64, Error)>,
}

/// How far a replica is.
#[derive(Debug)]
struct Cursor {
    limits: BatchLimits,
    part: Part,
    phase: Phase,
    /// The position of the leaf, as far as known.
    stored: i64,
    /// The first record that is sent, although the leaf may have it, so that it can compare it.
    resent_from: i64,
    /// The highest position that the leaf has acknowledged.
    acknowledged: i64,
    /// The index in the window of the first record that the leaf has not acknowledged.
    first: usize,
    /// The records from there that are in flight, and their bytes. There is at most one batch.
    inflight: Option<(usize, usize)>,
    /// The bytes of the window from `first` on.
    pending_bytes: usize,
    /// The last offset of a batch that the leaf may have applied without an answer.
    unsettled: i64,
    /// Whether the leaf accepts no more for now.
    busy: bool,
    /// Since when it has been the one that fills the window.
    filling_since: Option<Instant>,
    error: Option<Error>,
}

impl Cursor {
    /// Whether the window is kept for it.
    fn holds(&self) -> bool {
        matches!(self.phase, Phase::Resolving | Phase::Reading | Phase::Attaching)
    }

    fn note_stored(&mut self, stored: i64) {
        self.stored = stored;
        self.acknowledged = self.acknowledged.max(stored);
    }

    fn clear(&mut self) {
        (self.first, self.pending_bytes, self.busy) = (0, 0, false);
        self.filling_since = None;
    }
}

impl Partition {
    /// A partition whose positions are not known yet.
    pub(super) fn new(limits: BatchLimits, skips: &[Skip], replicas: impl Iterator<Item = Part>) -> Self {
        let cursor = |part| Cursor {
            limits,
            part,
            resent_from: 0,
            phase: Phase::Resolving,
            stored: -1,
            acknowledged: -1,
            first: 0,
            inflight: None,
            pending_bytes: 0,
            unsettled: -1,
            busy: false,
            filling_since: None,
            error: None,
        };
        Self {
            skips: skips.to_vec(),
            cursors: replicas.map(cursor).collect(),
            read: -1,
            trimmed: -1,
            window: VecDeque::new(),
            window_bytes: 0,
            needs_seek: false,
            paused: false,
            at_end: false,
            end: None,
            sent_through_max: i64::MAX,
            held: None,
        }
    }

    /// Records that a replica has everything through `stored`, and that the broker's end offset is `end`.
    pub(super) fn note_offsets(&mut self, replica: usize, stored: i64, end: i64) {
        self.cursors[replica].note_stored(stored);
        self.end = Some(end);
    }

    /// Records the position of a replica that a consumer of its own feeds, and its error.
    pub(super) fn note_apart(&mut self, replica: usize, stored: i64, error: Option<Error>) {
        self.cursors[replica].note_stored(stored);
        self.cursors[replica].error = error;
    }

    /// The highest position that a replica has acknowledged while this partition was read here. It may have less by now.
    pub(super) fn acknowledged(&self, replica: usize) -> i64 {
        self.cursors[replica].acknowledged
    }

    /// The highest position that a replica can have reached while this partition was read here: it may have applied the
    /// last batch without an answer. Of several shards, that of the one that has least.
    pub(super) fn sent_through(&self) -> i64 {
        let mut of_shards: BTreeMap<u32, i64> = BTreeMap::new();
        for cursor in &self.cursors {
            let most = of_shards.entry(cursor.part.share.shard).or_insert(-1);
            *most = cursor.acknowledged.max(cursor.unsettled).max(*most);
        }
        of_shards.into_values().min().unwrap_or(-1)
    }

    /// Whether the partition is read, for at least one replica.
    pub(super) fn is_reading(&self) -> bool {
        self.cursors.iter().any(|cursor| cursor.phase == Phase::Reading)
    }

    /// Whether records are read for a replica of the same shard as this one.
    pub(super) fn is_read_for(&self, replica: usize) -> bool {
        let shard = self.cursors[replica].part.share.shard;
        let mut reading = self.cursors.iter().filter(|cursor| cursor.phase == Phase::Reading);
        reading.any(|cursor| cursor.part.share.shard == shard)
    }

    /// Starts to send to a replica from the offset `from` on. It has everything through `stored`. If it lacks records
    /// that have left the window, it is behind: unless no other replica of its shard has them, then all go back.
    pub(super) fn begin(&mut self, replica: usize, stored: i64, from: i64) {
        let cursor = &mut self.cursors[replica];
        cursor.note_stored(stored);
        cursor.error = None;
        cursor.clear();
        cursor.resent_from = from;
        cursor.phase = Phase::Resolving;
        let shard = cursor.part.share.shard;
        // Those that lack far more must not hold this one back: they would read the log for minutes.
        for other in self.cursors.iter_mut().filter(|other| other.part.share.shard == shard) {
            if other.phase == Phase::Reading && from.saturating_sub(other.stored) > FAR_OFFSETS {
                other.clear();
                other.phase = Phase::Behind;
            }
        }
        let is_first = !self.is_read_for(replica);
        if from.saturating_sub(self.read) > FAR_OFFSETS {
            self.resolve_if_far();
        }
        if !self.is_reading() {
            self.read_from(from);
        } else if self.needs_seek && self.window.is_empty() && (is_first || self.read - from < FAR_OFFSETS) {
            self.read = self.read.min(from - 1);
            self.trimmed = self.read;
        }
        if from.max(stored + 1) <= self.trimmed {
            if !is_first {
                self.cursors[replica].phase = Phase::Behind;
                self.trim();
                return;
            }
            self.resolve_all();
            self.read_from(from);
        }
        let first = self.window.partition_point(|record| record.offset < from);
        let pending_bytes = self.window.range(first..).map(Record::memory_bytes).sum();
        let cursor = &mut self.cursors[replica];
        (cursor.first, cursor.pending_bytes) = (first, pending_bytes);
        cursor.phase = Phase::Reading;
        self.trim();
    }

    /// Reads from this offset on. Nothing is in the window.
    fn read_from(&mut self, from: i64) {
        self.drop_window();
        (self.read, self.trimmed) = (from - 1, from - 1);
        self.needs_seek = true;
        self.at_end = false;
    }

    /// Sends nothing after this offset until it is raised.
    pub(super) fn send_through(&mut self, offset: i64) {
        self.sent_through_max = offset;
    }

    /// Sends nothing from an offset on, for this reason, until it may be sent.
    pub(super) fn hold(&mut self, held: Option<(i64, Error)>) {
        self.held = held;
    }

    /// Whether a record is held back, if it was read.
    pub(super) fn holds(&self, offset: i64) -> bool {
        self.held.as_ref().is_some_and(|(from, _)| offset >= *from)
    }

    /// Why records that were read are held back, if some are.
    pub(super) fn held_back(&self) -> Option<&Error> {
        let (from, reason) = self.held.as_ref()?;
        let is_waiting = self.window.back().is_some_and(|last| last.offset >= *from);
        is_waiting.then_some(reason)
    }

    /// Through which offset, at most this one, there is nothing to send any more.
    pub(super) fn reached(&self, through: i64) -> i64 {
        // Without a replica that is read for, the window was dropped with records that no replica has.
        let is_sent = self.is_reading() && self.window.front().is_none_or(|record| record.offset > through);
        let read = if is_sent && !self.needs_seek { self.read } else { -1 };
        self.stored().max(read.min(through))
    }

    /// The last offset that has left the window: every replica has it that is not behind.
    pub(super) fn trimmed(&self) -> i64 {
        self.trimmed
    }

    /// Keeps the window for a replica that is behind from now on.
    pub(super) fn attach(&mut self, replica: usize) {
        let cursor = &mut self.cursors[replica];
        if cursor.phase == Phase::Behind {
            cursor.clear();
            cursor.pending_bytes = self.window_bytes;
            cursor.phase = Phase::Attaching;
        }
    }

    /// Gives the window up that was kept for a replica which does not catch up now.
    pub(super) fn detach(&mut self, replica: usize) {
        if self.cursors[replica].phase == Phase::Attaching {
            self.cursors[replica].clear();
            self.cursors[replica].phase = Phase::Behind;
            self.trim();
        }
    }

    /// Has the sender of a replica that was behind determine where to start, as the others do.
    pub(super) fn resolve_behind(&mut self, replica: usize) {
        let cursor = &mut self.cursors[replica];
        if matches!(cursor.phase, Phase::Behind | Phase::Attaching) {
            cursor.clear();
            cursor.pending_bytes = self.window_bytes;
            cursor.phase = Phase::Resolving;
        }
    }

    /// Keeps nothing for a replica that accepts nothing yet.
    pub(super) fn set_behind(&mut self, replica: usize) {
        self.cursors[replica].clear();
        self.cursors[replica].error = None;
        self.cursors[replica].phase = Phase::Behind;
        self.release();
    }

    /// Whether the replica that is fed apart is stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.cursors
            .iter()
            .all(|cursor| matches!(cursor.phase, Phase::Stopped { .. }))
    }

    /// Whether a replica that has everything through `stored` lacks nothing but what is in the window, or is the only one of
    /// its shard that goes on.
    pub(super) fn can_begin(&self, replica: usize, stored: i64) -> bool {
        stored >= self.trimmed || !self.is_read_for(replica)
    }

    /// Discards what waits for a replica, so that its sender asks the leaf again.
    pub(super) fn resolve(&mut self, replica: usize) {
        let cursor = &mut self.cursors[replica];
        if cursor.phase == Phase::Reading {
            cursor.phase = Phase::Resolving;
            cursor.busy = false;
            self.release();
        }
    }

    /// The same for all replicas. Nothing that was read is sent.
    pub(super) fn resolve_all(&mut self) {
        for cursor in &mut self.cursors {
            if matches!(cursor.phase, Phase::Reading) {
                cursor.phase = Phase::Resolving;
            }
        }
        self.release();
    }

    /// Stops a replica with an error. Whether it is rechecked depends on the error.
    pub(super) fn stop(&mut self, replica: usize, error: Error) {
        let cursor = &mut self.cursors[replica];
        cursor.clear();
        cursor.phase = Phase::Stopped {
            rechecked: error.is_rechecked(),
        };
        cursor.error = Some(error);
        self.release();
        self.resolve_if_far();
    }

    /// If no replica that is read into needs the records that are read next, has them all determine where to start.
    fn resolve_if_far(&mut self) {
        let reading = self.cursors.iter().filter(|cursor| cursor.phase == Phase::Reading);
        let least = reading.map(|cursor| cursor.stored.min(cursor.resent_from)).min();
        if least.is_some_and(|least| least.saturating_sub(self.read) > FAR_OFFSETS) {
            self.resolve_all();
        }
    }

    /// Records why the sender could not determine where to start. A stopped replica keeps its own error.
    pub(super) fn resolve_failed(&mut self, replica: usize, error: Error) {
        let cursor = &mut self.cursors[replica];
        if cursor.phase == Phase::Resolving {
            cursor.error = Some(error);
        }
    }

    /// Drops what no replica needs.
    fn release(&mut self) {
        match self.is_reading() {
            true => self.trim(),
            false => self.drop_window(),
        }
    }

    /// Whether another replica of the same shard is being sent a batch, of records that have left the window.
    pub(super) fn is_other_in_flight(&self, replica: usize) -> bool {
        let shard = self.cursors[replica].part.share.shard;
        let mut others = self.cursors.iter().enumerate();
        others.any(|(other, cursor)| {
            let is_other = other != replica && cursor.part.share.shard == shard;
            is_other && cursor.inflight.is_some() && cursor.phase != Phase::Reading
        })
    }

    /// Stops all replicas of the other shards as well, if no replica of the same shard goes on: their leaves may not be able
    /// to tell that this is not the topic from before.
    pub(super) fn stop_other_shards(&mut self, replica: usize, error: &Error) {
        if self.is_read_for(replica) {
            return;
        }
        let shard = self.cursors[replica].part.share.shard;
        for other in 0..self.cursors.len() {
            if self.cursors[other].part.share.shard != shard {
                self.stop(other, error.clone());
            }
        }
    }

    fn drop_window(&mut self) {
        self.window.clear();
        self.window_bytes = 0;
        self.cursors.iter_mut().for_each(Cursor::clear);
    }

    /// Drops the records that every replica has acknowledged for which the window is kept.
    fn trim(&mut self) {
        let holding = self.cursors.iter().filter(|cursor| cursor.holds());
        let count = holding.map(|cursor| cursor.first).min().unwrap_or(self.window.len());
        for record in self.window.drain(..count) {
            self.window_bytes -= record.memory_bytes();
            self.trimmed = record.offset;
        }
        for cursor in &mut self.cursors {
            cursor.first = cursor.first.saturating_sub(count);
        }
        if self.window.is_empty() {
            self.trimmed = self.read;
        }
    }

    /// Adds a record from the broker. Returns whether to wake the senders.
    pub(super) fn add(&mut self, record: Record) -> bool {
        // A record that arrives before the seek, or twice, was fetched for an earlier position.
        if !self.is_reading() || self.needs_seek || record.offset <= self.read {
            return false;
        }
        self.at_end = false;
        self.read = record.offset;
        let holding = self.cursors.iter().filter(|cursor| cursor.holds());
        let needed_from = |cursor: &Cursor| cursor.stored.min(cursor.resent_from);
        let is_stored = holding.map(needed_from).min() > Some(record.offset);
        let mut skips = self.skips.iter().filter(|skip| skip.shard.is_none());
        let is_skipped = skips.any(|skip| skip.contains(record.offset));
        // What is missing in the window was there before it, or is skipped.
        if is_stored && self.window.is_empty() || is_skipped {
            if self.window.is_empty() {
                self.trimmed = record.offset;
            }
            return false;
        }
        let bytes = record.memory_bytes();
        self.window_bytes += bytes;
        self.window.push_back(record);
        let holding = self.cursors.iter_mut().filter(|cursor| cursor.holds());
        holding.fold(false, |wake, cursor| {
            cursor.pending_bytes += bytes;
            wake || cursor.inflight.is_none()
        })
    }

    pub(super) fn next_step(&mut self, replica: usize) -> SenderStep {
        match self.cursors[replica].phase {
            Phase::Resolving => SenderStep::Resolve,
            Phase::Stopped { rechecked: true } => SenderStep::Recheck,
            Phase::Stopped { rechecked: false } => SenderStep::Wait,
            Phase::Behind | Phase::Attaching => SenderStep::FeedApart,
            Phase::Reading => self.take_batch(replica).map_or(SenderStep::Wait, SenderStep::Send),
        }
    }

    /// Takes as much from the window as the limits of a batch allow.
    fn take_batch(&mut self, replica: usize) -> Option<OutgoingBatch> {
        if self.cursors[replica].inflight.is_some() {
            return None;
        }
        let resent_from = self.cursors[replica].resent_from;
        self.skip_while(replica, |offset, stored| offset < stored.min(resent_from));
        let held_from = self.held.as_ref().map(|(from, _)| *from);
        let cursor = &mut self.cursors[replica];
        let (mut records, mut bytes) = (Vec::new(), 0);
        let (mut passed, mut passed_bytes, mut through) = (0, 0, None);
        for record in self.window.range(cursor.first..) {
            let record_bytes = record.memory_bytes();
            let is_too_large = !records.is_empty() && bytes + record_bytes > cursor.limits.batch_bytes_max;
            let is_full = is_too_large || records.len() >= cursor.limits.batch_records_max;
            let mut skips = self
                .skips
                .iter()
                .filter(|skip| skip.shard == Some(cursor.part.share.shard));
            let is_its = cursor.part.has(record.offset) && !skips.any(|skip| skip.contains(record.offset));
            if is_its && is_full
                || held_from.is_some_and(|from| record.offset >= from)
                || record.offset > self.sent_through_max
            {
                break;
            }
            (passed, passed_bytes, through) = (passed + 1, passed_bytes + record_bytes, Some(record.offset));
            if is_its {
                bytes += record_bytes;
                // Cloning is cheap: a record consists of a few reference-counted buffers.
                records.push(record.clone());
            }
        }
        let through = through?;
        if records.is_empty() && through <= cursor.stored {
            cursor.first += passed;
            cursor.pending_bytes -= passed_bytes;
            self.trim();
            return None;
        }
        cursor.inflight = Some((passed, passed_bytes));
        cursor.unsettled = through;
        Some(OutgoingBatch {
            after: records
                .first()
                .map_or(cursor.stored, |first: &Record| first.offset.min(cursor.stored)),
            through,
            records,
            bytes,
        })
    }

    /// Passes records that a replica has.
    fn skip_while(&mut self, replica: usize, is_skipped: impl Fn(i64, i64) -> bool) {
        let cursor = &mut self.cursors[replica];
        while let Some(record) = self.window.get(cursor.first)
            && is_skipped(record.offset, cursor.stored)
        {
            cursor.first += 1;
            cursor.pending_bytes -= record.memory_bytes();
        }
        self.trim();
    }

    /// Records that the leaf does not accept the batch now. The sender keeps the batch and retries it.
    pub(super) fn set_busy(&mut self, replica: usize, error: Error) {
        self.cursors[replica].busy = true;
        self.cursors[replica].error = Some(error);
    }

    /// Applies the outcome of the batch in flight.
    pub(super) fn settle(&mut self, replica: usize, outcome: &BatchOutcome) {
        let cursor = &mut self.cursors[replica];
        let (count, bytes) = cursor.inflight.take().unwrap_or_default();
        cursor.unsettled = -1;
        cursor.busy = false;
        if let BatchOutcome::Applied { stored } | BatchOutcome::Already { stored } = outcome {
            cursor.acknowledged = cursor.acknowledged.max(*stored);
        }
        if cursor.phase != Phase::Reading {
            return;
        }
        match outcome {
            BatchOutcome::Applied { stored } | BatchOutcome::Already { stored } => {
                cursor.error = None;
                cursor.note_stored(cursor.stored.max(*stored));
                cursor.first += count;
                cursor.pending_bytes -= bytes;
                // Another sender may have sent records that are still in this window.
                self.skip_while(replica, |offset, stored| offset <= stored);
            }
            BatchOutcome::Gap { .. } | BatchOutcome::Busy { .. } => self.resolve(replica),
            BatchOutcome::Refused { reason } => self.stop(replica, Error::BatchRefused { reason: reason.clone() }),
        }
    }

    /// Records that the leaf has answered and did not apply the batch in flight.
    pub(super) fn mark_not_applied(&mut self, replica: usize) {
        self.cursors[replica].unsettled = -1;
    }

    /// Gives up the batch in flight without an answer.
    pub(super) fn abandon_batch(&mut self, replica: usize) {
        self.cursors[replica].inflight = None;
        self.cursors[replica].busy = false;
    }

    /// Halves the size of batches and returns the new limit in bytes.
    pub(super) fn halve_batches(&mut self, replica: usize) -> usize {
        let limits = &mut self.cursors[replica].limits;
        limits.batch_bytes_max = (limits.batch_bytes_max / 2).max(BATCH_BYTES_MIN);
        limits.batch_bytes_max
    }

    /// Leaves replicas behind that have filled the window alone for [`BEHIND_AFTER`]. Returns which.
    pub(super) fn leave_behind(&mut self, window_bytes_max: usize, now: Instant) -> Vec<usize> {
        let reading = self.cursors.iter().filter(|cursor| cursor.phase == Phase::Reading);
        let is_low = |cursor: &&Cursor| cursor.pending_bytes < window_bytes_max / 4;
        let drained: BTreeSet<u32> = reading.filter(is_low).map(|cursor| cursor.part.share.shard).collect();
        let mut behind = Vec::new();
        for (replica, cursor) in self.cursors.iter_mut().enumerate() {
            let is_drained = drained.contains(&cursor.part.share.shard);
            let is_filling = cursor.holds() && is_drained && cursor.pending_bytes > window_bytes_max / 2;
            cursor.filling_since = is_filling.then(|| cursor.filling_since.unwrap_or(now));
            if cursor
                .filling_since
                .is_some_and(|since| now.duration_since(since) >= BEHIND_AFTER)
            {
                cursor.clear();
                cursor.phase = Phase::Behind;
                behind.push(replica);
            }
        }
        if !behind.is_empty() {
            self.trim();
        }
        behind
    }

    /// Whether the batch in flight is still to be sent, although its replica has not answered.
    pub(super) fn is_sending(&self, replica: usize) -> bool {
        matches!(self.cursors[replica].phase, Phase::Reading)
    }

    /// Handles the end-of-partition event.
    pub(super) fn reached_end(&mut self) {
        if self.is_reading() && !self.needs_seek {
            self.at_end = true;
            let reading = self.cursors.iter_mut().filter(|cursor| cursor.phase == Phase::Reading);
            reading
                .filter(|cursor| !cursor.busy)
                .for_each(|cursor| cursor.error = None);
        }
    }

    /// Records the end offset that the client saw with its last fetch. The client learns nothing about a partition that
    /// it does not fetch.
    pub(super) fn note_end(&mut self, end: i64) {
        if self.is_reading() {
            self.end = Some(end);
        }
    }

    /// Whether the consumer must seek for this partition.
    pub(super) fn needs_seek(&self) -> bool {
        self.is_reading() && self.needs_seek
    }

    /// The next offset to read, if the partition is to be read.
    pub(super) fn next_offset(&self) -> Option<i64> {
        self.is_reading().then_some(self.read + 1)
    }

    /// Records that the consumer was positioned at [`Partition::next_offset`]. It starts unpaused.
    pub(super) fn seek_done(&mut self) {
        self.needs_seek = false;
        self.paused = false;
    }

    /// Whether more records than this limit wait, and the partition is not paused.
    pub(super) fn is_full(&self, window_bytes_max: usize) -> bool {
        !self.paused && self.window_bytes > window_bytes_max
    }

    /// Whether nothing waits to be sent although the broker has more records.
    pub(super) fn is_starved(&self) -> bool {
        let has_more = self.end.is_some_and(|end| self.read + 1 < end);
        self.is_reading() && !self.paused && self.window_bytes == 0 && has_more
    }

    /// The change of the flow, if one is due: above this limit the partition may be paused, below half of it it is
    /// resumed.
    pub(super) fn flow(&mut self, window_bytes_max: usize, may_pause: bool) -> Option<Flow> {
        if may_pause && self.is_full(window_bytes_max) {
            self.paused = true;
            return Some(Flow::Pause);
        }
        if self.paused && self.window_bytes < window_bytes_max / 2 {
            self.paused = false;
            return Some(Flow::Resume);
        }
        None
    }

    /// The replica that the partition waits for: takes the furthest one of each shard, and of these one that is stopped, or
    /// the one that is least far.
    fn leading(&self) -> &Cursor {
        let is_stopped = |cursor: &Cursor| matches!(cursor.phase, Phase::Stopped { .. });
        let mut of_shards: BTreeMap<u32, &Cursor> = BTreeMap::new();
        for cursor in &self.cursors {
            let most = of_shards.entry(cursor.part.share.shard).or_insert(cursor);
            if (!is_stopped(cursor), cursor.stored) > (!is_stopped(most), most.stored) {
                *most = cursor;
            }
        }
        let rank = |cursor: &&Cursor| (!is_stopped(cursor), cursor.stored);
        of_shards
            .into_values()
            .min_by_key(rank)
            .expect("a partition has a replica")
    }

    /// The position of the partition, as far as known: of the replica that has most, and of the shard that has least.
    pub(super) fn stored(&self) -> i64 {
        self.leading().stored
    }

    /// The position of one replica, as far as known.
    pub(super) fn stored_by(&self, replica: usize) -> i64 {
        self.cursors[replica].stored
    }

    /// The position of a replica, as far as known, if nothing waits to be sent to it.
    pub(super) fn idle_at(&self, replica: usize) -> Option<i64> {
        let cursor = &self.cursors[replica];
        let is_idle = cursor.phase == Phase::Reading && cursor.pending_bytes == 0;
        is_idle.then_some(cursor.stored)
    }

    /// The size of all records that were read and that a replica has not acknowledged.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.window_bytes
    }

    /// The state of the partition, as users see it.
    pub(super) fn state(&self) -> SourceState {
        let cursor = self.leading();
        match cursor.phase {
            Phase::Resolving => SourceState::Starting,
            Phase::Stopped { .. } => SourceState::Stopped,
            Phase::Reading if cursor.busy || self.held_back().is_some() => SourceState::Waiting,
            Phase::Reading if self.at_end && cursor.pending_bytes == 0 => SourceState::CaughtUp,
            Phase::Reading | Phase::Behind | Phase::Attaching => SourceState::Reading,
        }
    }

    /// The end offset at the broker, and the number of offsets between the position and the end. At the end of the
    /// partition the lag is 0, even if the last offsets have no records.
    pub(super) fn end_and_lag(&self) -> (Option<i64>, Option<i64>) {
        let stored = self.stored();
        match self.state() {
            SourceState::CaughtUp => (self.end.map(|end| end.max(stored + 1)), Some(0)),
            _ => (self.end, self.end.map(|end| (end - 1 - stored).max(0))),
        }
    }

    /// The last error of a replica, until something succeeds, and which it is.
    pub(super) fn error(&self) -> Option<(usize, &Error)> {
        let errors = self.cursors.iter().enumerate();
        let mut errors = errors.filter_map(|(replica, cursor)| Some((replica, cursor.error.as_ref()?)));
        errors.next()
    }

    /// The last error of one replica, until something succeeds.
    pub(super) fn error_of(&self, replica: usize) -> Option<&Error> {
        self.cursors[replica].error.as_ref()
    }
}

#[cfg(test)]
mod tests;
