//! The state machine of one source partition: the window between the broker and the replicas of its shards, and the next
//! step for each of them.
//!
//! ```text
//!           window, as far as it was read
//! broker ─> [ 41 42 43 44 45 46 47 48 49 ]       a record leaves it once every replica has it that is not behind
//!                   ^ leaf-2      ^ leaf-1       the cursor of each replica: its next record
//!
//! Resolving ──begin──> Reading ──gap, offset out of range──> Resolving
//!     │  ^                │  │ it does not keep pace with the other replicas of its shard
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
    time::Instant,
};

use cursor::{Cursor, Phase};
use proto::{catalog::Skip, ingest::BatchOutcome, record::Record};

use super::{Error, slot::Part};

mod cursor;
mod report;

#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    /// The most records of one batch.
    pub batch_records_max: usize,
    /// The most bytes of one batch. A single larger record is sent alone.
    pub batch_bytes_max: usize,
}

/// A replica that lacks more records than this, by offsets, which another one has, is behind from the beginning.
pub(super) const FAR_OFFSETS: i64 = 20_000;
/// A replica that is this far ahead of another one of its shard gets no batch until that one has caught up, so that both can
/// answer questions and the window still has what the slower one lacks. An eighth of the window, if that is less.
const LEAD_BYTES_MAX: usize = 1 << 20;

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
    /// How many bytes a replica may be ahead of another one.
    lead_bytes_max: usize,
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

impl Partition {
    /// A partition whose positions are not known yet.
    pub(super) fn new(limits: BatchLimits, skips: &[Skip], replicas: impl Iterator<Item = Part>) -> Self {
        Self {
            skips: skips.to_vec(),
            cursors: replicas.map(|part| Cursor::new(limits, part)).collect(),
            lead_bytes_max: LEAD_BYTES_MAX,
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
        let cursor = &mut self.cursors[replica];
        cursor.note_apart(stored);
        cursor.error = error;
        if cursor.phase == Phase::Attaching {
            self.skip_while(replica, |offset, stored| offset <= stored);
        }
    }

    /// The highest position that a replica has acknowledged while this partition was read here. It may have less by now.
    pub(super) fn acknowledged(&self, replica: usize) -> i64 {
        self.cursors[replica].acknowledged
    }

    /// The highest position that a replica can have reached while this partition was read here: it may have applied the
    /// last batch without an answer. Of several shards, that of the one that has least.
    pub(super) fn sent_through(&self) -> i64 {
        self.reached_at_most().into_values().min().unwrap_or(-1)
    }

    /// The same for each shard.
    fn reached_at_most(&self) -> BTreeMap<u32, i64> {
        let mut of_shards: BTreeMap<u32, i64> = BTreeMap::new();
        for cursor in &self.cursors {
            let most = of_shards.entry(cursor.part.share.shard).or_insert(-1);
            *most = cursor.reached_at_most().max(*most);
        }
        of_shards
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

    /// From now on, each replica gets only what another replica of its shard may have, so that all of them end with the same
    /// records. None waits for another one any more.
    pub(super) fn level_off(&mut self) {
        let of_shards = self.reached_at_most();
        for cursor in &mut self.cursors {
            cursor.ends_at = cursor.ends_at.min(of_shards[&cursor.part.share.shard]);
        }
    }

    fn is_ending(&self) -> bool {
        self.cursors.iter().any(|cursor| cursor.ends_at < i64::MAX)
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
        if cursor.phase == Phase::Behind && cursor.pace.rest.is_zero() {
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

    /// Whether a replica that has everything through `stored` lacks nothing but what is in the window, and was not left behind
    /// a moment ago; or is the only one of its shard that goes on.
    pub(super) fn can_begin(&self, replica: usize, stored: i64) -> bool {
        let may_begin = self.cursors[replica].pace.rest.is_zero();
        may_begin && stored >= self.trimmed || !self.is_read_for(replica)
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
            wake || cursor.inflight.is_none() && !cursor.waits
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
        self.cursors[replica].waits = self.is_ahead(replica);
        if self.cursors[replica].waits {
            return None;
        }
        let resent_from = self.cursors[replica].resent_from;
        self.skip_while(replica, |offset, stored| offset < stored.min(resent_from));
        let held_from = self.held.as_ref().map(|(from, _)| *from);
        let bytes_max = match self.has_peers(replica) {
            true => self.lead_bytes_max.max(BATCH_BYTES_MIN),
            false => usize::MAX,
        };
        let cursor = &mut self.cursors[replica];
        let bytes_max = cursor.limits.batch_bytes_max.min(bytes_max);
        let sent_through_max = self.sent_through_max.min(cursor.ends_at);
        let (mut records, mut bytes) = (Vec::new(), 0);
        let (mut passed, mut passed_bytes, mut through) = (0, 0, None);
        for record in self.window.range(cursor.first..) {
            let record_bytes = record.memory_bytes();
            let is_too_large = !records.is_empty() && bytes + record_bytes > bytes_max;
            let is_full = is_too_large || records.len() >= cursor.limits.batch_records_max;
            let mut skips = self
                .skips
                .iter()
                .filter(|skip| skip.shard == Some(cursor.part.share.shard));
            let is_its = cursor.part.has(record.offset) && !skips.any(|skip| skip.contains(record.offset));
            if is_its && is_full
                || held_from.is_some_and(|from| record.offset >= from)
                || record.offset > sent_through_max
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
        let cursor = &mut self.cursors[replica];
        cursor.busy = true;
        cursor.pace.has_answered |= matches!(error, Error::LeafBusy(_));
        cursor.error = Some(error);
    }

    /// Applies the outcome of the batch in flight. Returns whether replicas may go on that have waited for this one.
    pub(super) fn settle(&mut self, replica: usize, outcome: &BatchOutcome) -> bool {
        self.apply_outcome(replica, outcome);
        self.let_go_on()
    }

    fn apply_outcome(&mut self, replica: usize, outcome: &BatchOutcome) {
        let cursor = &mut self.cursors[replica];
        let (count, bytes) = cursor.inflight.take().unwrap_or_default();
        cursor.unsettled = -1;
        cursor.busy = false;
        cursor.pace.has_answered = true;
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
            BatchOutcome::Gap { .. } | BatchOutcome::Busy(_) => self.resolve(replica),
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

    /// Leaves replicas behind that do not keep pace with others of their shard. Returns which, and whether others may go on
    /// that have waited.
    pub(super) fn keep_pace(&mut self, window_bytes_max: usize, now: Instant) -> (Vec<usize>, bool) {
        if self.is_ending() {
            return (Vec::new(), false);
        }
        self.lead_bytes_max = LEAD_BYTES_MAX.min(window_bytes_max / 8);
        let lead = self.lead_bytes_max;
        let has_drained =
            |cursor: &Cursor| cursor.phase == Phase::Reading && cursor.pending_bytes < window_bytes_max / 4;
        let (mut drained, mut awaited) = (BTreeSet::new(), BTreeMap::new());
        for cursor in &self.cursors {
            let shard = cursor.part.share.shard;
            if has_drained(cursor) && cursor.sets_pace() {
                drained.insert(shard);
            }
            if cursor.waits && cursor.pending_bytes > 0 && cursor.phase == Phase::Reading {
                let least = awaited.entry(shard).or_insert(usize::MAX);
                *least = cursor.pending_bytes.min(*least);
            }
        }
        let mut behind = Vec::new();
        for (replica, cursor) in self.cursors.iter_mut().enumerate() {
            let (shard, pending) = (cursor.part.share.shard, cursor.pending_bytes);
            let is_filling = cursor.holds() && drained.contains(&shard) && pending > window_bytes_max / 2;
            let is_further = awaited.get(&shard).is_some_and(|least| pending > least + lead);
            let is_awaited = is_further && !cursor.waits && cursor.sets_pace();
            if cursor.is_falling_behind(is_filling, is_awaited, now) {
                cursor.leave_behind();
                behind.push(replica);
            }
        }
        if !behind.is_empty() {
            self.trim();
        }
        (behind, self.let_go_on())
    }

    /// Whether a replica is so far ahead of another one of its shard that it waits for it.
    fn is_ahead(&self, replica: usize) -> bool {
        let own = &self.cursors[replica];
        let mut slower = self.cursors.iter().filter(|other| {
            let is_of_same_shard = other.part.share.shard == own.part.share.shard;
            is_of_same_shard && other.pending_bytes > own.pending_bytes.saturating_add(self.lead_bytes_max)
        });
        !self.is_ending() && slower.any(Cursor::sets_pace)
    }

    /// Whether a shard has other replicas than this one: then batches are small, so that none is far ahead of the others.
    fn has_peers(&self, replica: usize) -> bool {
        let shard = self.cursors[replica].part.share.shard;
        let replicas = self.cursors.iter().filter(|cursor| cursor.part.share.shard == shard);
        replicas.count() > 1
    }

    /// Whether senders are to be woken, because one that has waited for another replica need not wait any more.
    fn let_go_on(&mut self) -> bool {
        let waiting = (0..self.cursors.len()).filter(|replica| self.cursors[*replica].waits);
        let going_on: Vec<usize> = waiting.filter(|replica| !self.is_ahead(*replica)).collect();
        for replica in &going_on {
            self.cursors[*replica].waits = false;
        }
        !going_on.is_empty()
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
}

#[cfg(test)]
mod tests;
