//! How far one replica of a partition is, and whether it keeps pace with the others of its shard.

use std::time::{Duration, Instant};

use super::{super::Error, BatchLimits, Part};

/// A replica that fills the window alone for this long without an answer, while another one has nearly everything in it, is
/// behind.
pub(super) const BEHIND_AFTER: Duration = Duration::from_secs(2);
/// The others wait this long for a leaf that does not answer. A busy leaf takes that long for some batches.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(3);
/// A replica that has kept the others waiting, or the window full, for this long is behind.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(10);
/// A leaf that accepts no more until it has written what it has goes on by itself, and to feed its replicas apart would be
/// more work for it. So they are behind only after this long: all times count for a third.
pub(super) const SLOW_AT_WORK_AFTER: Duration = Duration::from_secs(30);
/// It stays behind for this long unless it gets more: as long as another slow replica keeps the window, it lacks nothing but
/// what is in there, and would begin and be left behind in turn with that one.
pub(super) const RESTS_FOR: Duration = Duration::from_secs(30);
/// Each second in which it did not takes this many seconds off, so a replica is left behind only if it takes at least four
/// times as long as the others.
const PACE_KEPT: u32 = 3;
/// More than this between two notes does not count: the tailer itself stood still.
pub(super) const NOTED_WITHIN: Duration = Duration::from_secs(2);

/// The phase of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
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

/// How far a replica is.
#[derive(Debug)]
pub(super) struct Cursor {
    pub limits: BatchLimits,
    pub part: Part,
    pub phase: Phase,
    /// The position of the leaf, as far as known.
    pub stored: i64,
    /// The first record that is sent, although the leaf may have it, so that it can compare it.
    pub resent_from: i64,
    /// The highest position that the leaf has acknowledged.
    pub acknowledged: i64,
    /// The index in the window of the first record that the leaf has not acknowledged.
    pub first: usize,
    /// The records from there that are in flight, and their bytes. There is at most one batch.
    pub inflight: Option<(usize, usize)>,
    /// The bytes of the window from `first` on.
    pub pending_bytes: usize,
    /// The last offset of a batch that the leaf may have applied without an answer.
    pub unsettled: i64,
    /// The last offset that it is sent; less than the greatest once it gets only what another replica of its shard may have.
    pub ends_at: i64,
    /// Whether the leaf accepts no more for now.
    pub busy: bool,
    /// Whether it is sent nothing until another replica of its shard has got more.
    pub waits: bool,
    pub pace: Pace,
    pub error: Option<Error>,
}

impl Cursor {
    pub(super) fn new(limits: BatchLimits, part: Part) -> Self {
        Self {
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
            ends_at: i64::MAX,
            busy: false,
            waits: false,
            pace: Pace::default(),
            error: None,
        }
    }

    /// Whether the window is kept for it.
    pub(super) fn holds(&self) -> bool {
        matches!(self.phase, Phase::Resolving | Phase::Reading | Phase::Attaching)
    }

    /// Whether other replicas of its shard wait for it when they are further.
    pub(super) fn sets_pace(&self) -> bool {
        let is_failing = matches!(self.error, Some(Error::Leaf(_)));
        matches!(self.phase, Phase::Reading | Phase::Attaching) && !is_failing && !self.pace.is_silent
    }

    /// The highest position that it can have: the leaf may have applied the last batch without an answer.
    pub(super) fn reached_at_most(&self) -> i64 {
        self.acknowledged.max(self.unsettled)
    }

    pub(super) fn note_stored(&mut self, stored: i64) {
        self.pace.has_answered |= stored > self.stored;
        self.stored = stored;
        self.acknowledged = self.acknowledged.max(stored);
    }

    pub(super) fn clear(&mut self) {
        (self.first, self.pending_bytes, self.busy, self.waits) = (0, 0, false, false);
        // One that begins again without having got anything has kept the others waiting before.
        self.pace = Pace {
            awaited: self.pace.awaited,
            rest: self.pace.rest,
            is_at_work: self.pace.is_at_work,
            noted: self.pace.noted,
            ..Pace::default()
        };
    }

    /// It is behind from now on, because it does not keep pace.
    pub(super) fn leave_behind(&mut self) {
        self.clear();
        self.phase = Phase::Behind;
        (self.pace.awaited, self.pace.rest) = (SLOW_AFTER / 2, RESTS_FOR);
    }

    /// Records the position of the replica while it is fed apart. Late answers to batches that it was sent before are no sign
    /// that it is faster now.
    pub(super) fn note_apart(&mut self, stored: i64) {
        if stored > self.reached_at_most() {
            self.pace.rest = Duration::ZERO;
            // A leaf that was at work gets more now and then: the others wait half as long the next time.
            if !self.pace.is_at_work {
                self.pace.awaited = Duration::ZERO;
            }
        }
        self.note_stored(stored);
    }

    /// Whether the replica is behind, because it does not keep pace: as of `now`, if it alone fills the window, or if others
    /// wait for it.
    pub(super) fn is_falling_behind(&mut self, is_filling: bool, is_awaited: bool, now: Instant) -> bool {
        let has_to_send = self.inflight.is_some() || self.pending_bytes > 0 && !self.waits;
        let is_read_for = matches!(self.phase, Phase::Reading | Phase::Attaching);
        let sets_pace = self.sets_pace();
        let is_at_work = matches!(&self.error, Some(Error::LeafBusy(why)) if why.passes);
        let is_busy = self.busy;
        let pace = &mut self.pace;
        let elapsed = pace.noted.map_or(Duration::ZERO, |noted| now.duration_since(noted));
        pace.noted = Some(now);
        let has_answered = std::mem::take(&mut pace.has_answered) || elapsed > NOTED_WITHIN;
        let since = |begun: Option<Instant>| begun.map_or(Duration::ZERO, |begun| now.duration_since(begun));

        pace.unanswered_since = (has_to_send && !has_answered).then(|| pace.unanswered_since.unwrap_or(now));
        pace.is_silent = since(pace.unanswered_since) >= SILENT_AFTER;
        let is_filling_unanswered = is_filling && !sets_pace && elapsed <= NOTED_WITHIN;
        pace.filling_since = is_filling_unanswered.then(|| pace.filling_since.unwrap_or(now));

        let elapsed = elapsed.min(NOTED_WITHIN);
        pace.rest = pace.rest.saturating_sub(elapsed);
        let is_due = is_awaited || is_filling;
        if is_due {
            // Between two batches, too, until it has kept pace for as long as it did not.
            pace.is_at_work = is_at_work || pace.is_at_work && !is_busy;
        }
        let counted = match pace.is_at_work {
            true => elapsed.mul_f64(SLOW_AFTER.div_duration_f64(SLOW_AT_WORK_AFTER)),
            false => elapsed,
        };
        if is_due {
            pace.awaited = SLOW_AFTER.min(pace.awaited + counted);
        } else if is_read_for && !is_busy {
            pace.awaited = pace.awaited.saturating_sub(PACE_KEPT * counted);
            pace.is_at_work &= !pace.awaited.is_zero();
        }
        is_due && pace.awaited >= SLOW_AFTER || since(pace.filling_since) >= BEHIND_AFTER
    }
}

/// Whether a replica keeps pace with the others of its shard.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether the leaf has answered since this was last noted.
    pub has_answered: bool,
    /// Since when it has not answered, although there is something for it.
    unanswered_since: Option<Instant>,
    /// Whether that is too long for the others to wait.
    is_silent: bool,
    /// Since when it has been the one that fills the window, without an answer.
    filling_since: Option<Instant>,
    /// For how long the others have waited for it, less the time in which they did not.
    pub awaited: Duration,
    /// Whether its leaf accepted no more because it was at work, when it was last waited for.
    is_at_work: bool,
    /// For how much longer it stays behind, unless it gets more.
    pub rest: Duration,
    noted: Option<Instant>,
}
