//! One source partition between the broker and the leaf: what is in hand, and what to do next.
//!
//! ```text
//! Resolving ──begin──> Reading ──gap, offset out of range──> Resolving
//!     │                   │
//!     └──stop──> Stopped <┘   (some stops are looked at again by themselves)
//! ```
//!
//! Pure: no clock, no broker, no leaf; every rule here is tested with plain calls.

use std::{collections::VecDeque, time::Duration};

use proto::{
    catalog::{Skip, Start},
    ingest::Verdict,
    record::Record,
    status::SourceState,
};

/// How much a partition may hold and send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records of one batch.
    pub batch_records_max: usize,
    /// Bytes of one batch; a single larger record travels alone.
    pub batch_bytes_max: usize,
}

/// What the partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// The leaf is asked for its position, the broker for its offsets.
    Resolving,
    /// Records come in and go out.
    Reading,
    /// Cannot go on; `again`: what stands in the way may go away, so it is looked at from time to time.
    Stopped { again: bool },
}

/// What the sender does next.
#[derive(Debug)]
pub enum Next {
    /// Ask the leaf for its position and decide where to begin.
    Resolve,
    /// Send this and settle it.
    Send(Outgoing),
    /// Nothing to do until something comes.
    Wait,
    /// Nothing to do until something comes, or until it is time to look again whether the partition can go on.
    LookAgain,
}

/// Records on their way to the leaf, with the range that they stand for.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The position before, exclusive.
    pub after: i64,
    /// The position after, inclusive.
    pub through: i64,
    /// Ascending; the first may be the one at `after`, so that the leaf can compare it.
    pub records: Vec<Record>,
    /// What they weigh.
    pub bytes: usize,
}

/// What the poll thread has to do about flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The window is full.
    Pause,
    /// There is room again.
    Resume,
}

/// Bytes below which batches are not made smaller.
const BATCH_BYTES_LEAST: usize = 64 << 10;

/// One partition.
#[derive(Debug)]
pub struct Partition {
    limits: Limits,
    /// What is left out.
    skips: Vec<Skip>,
    phase: Phase,
    /// The position at the leaf, as far as is known.
    stored: i64,
    /// The highest it has been.
    acknowledged: i64,
    /// The last offset that was taken into the window; records up to it are not taken again.
    read: i64,
    window: VecDeque<Record>,
    window_bytes: usize,
    /// Bytes of the batch on its way; only one is.
    flying_bytes: Option<usize>,
    /// The last offset of a batch of which nobody knows whether the leaf has it.
    unsettled: i64,
    /// The consumer must be placed at `read + 1`.
    place: bool,
    paused: bool,
    /// The end-of-partition event came after the last record.
    at_end: bool,
    /// Why the leaf has no room.
    busy: bool,
    /// The offset after the last one at the broker.
    end: Option<i64>,
    error: Option<String>,
}

impl Partition {
    /// A partition of which nothing is known yet.
    pub fn new(limits: Limits, skips: &[Skip]) -> Self {
        Self {
            limits,
            skips: skips.to_vec(),
            phase: Phase::Resolving,
            stored: -1,
            acknowledged: -1,
            read: -1,
            window: VecDeque::new(),
            window_bytes: 0,
            flying_bytes: None,
            unsettled: -1,
            place: false,
            paused: false,
            at_end: false,
            busy: false,
            end: None,
            error: None,
        }
    }

    /// What was found: the leaf holds everything through `stored`, and `end` is the offset after the last one at the
    /// broker.
    pub fn found(&mut self, stored: i64, end: i64) {
        self.note_stored(stored);
        self.end = Some(end);
    }

    /// What the leaf has acknowledged while this partition was read here, even where it holds less by now.
    pub fn acknowledged(&self) -> i64 {
        self.acknowledged
    }

    /// The farthest that the leaf can have been while this partition was read here: it may have taken in what it was
    /// last sent without a word.
    pub fn sent(&self) -> i64 {
        self.acknowledged.max(self.unsettled)
    }

    fn note_stored(&mut self, stored: i64) {
        self.stored = stored;
        self.acknowledged = self.acknowledged.max(stored);
    }

    /// The leaf holds everything through `stored`; reading begins at the offset `from`.
    pub fn begin(&mut self, stored: i64, from: i64) {
        self.drop_window();
        self.phase = Phase::Reading;
        self.note_stored(stored);
        self.read = from - 1;
        self.place = true;
        self.at_end = false;
        self.error = None;
    }

    /// Throws away what is in hand and asks the leaf again.
    pub fn resolve(&mut self) {
        if self.phase == Phase::Reading {
            self.drop_window();
            self.phase = Phase::Resolving;
        }
    }

    /// Stops, and says why. With `again` it is looked at from time to time whether it can go on.
    pub fn stop(&mut self, why: String, again: bool) {
        self.drop_window();
        self.phase = Phase::Stopped { again };
        self.error = Some(why);
    }

    /// Where to begin cannot be told now. A partition that is stopped keeps its own reason.
    pub fn not_now(&mut self, error: String) {
        if self.phase == Phase::Resolving {
            self.error = Some(error);
        }
    }

    fn drop_window(&mut self) {
        self.window.clear();
        self.window_bytes = 0;
        self.busy = false;
    }

    /// Takes a record from the broker. Answers whether the sender should be woken.
    pub fn push(&mut self, record: Record) -> bool {
        // What arrives before the consumer was placed, or twice, is what was asked for earlier.
        if self.phase != Phase::Reading || self.place || record.offset <= self.read {
            return false;
        }
        self.at_end = false;
        self.read = record.offset;
        if record.offset < self.stored || self.skips.iter().any(|skip| skip.leaves_out(record.offset)) {
            return false;
        }
        self.window_bytes += record.weight();
        self.window.push_back(record);
        self.flying_bytes.is_none()
    }

    /// What the sender does next.
    pub fn next(&mut self) -> Next {
        match self.phase {
            Phase::Resolving => Next::Resolve,
            Phase::Stopped { again: true } => Next::LookAgain,
            Phase::Stopped { again: false } => Next::Wait,
            Phase::Reading => self.take_batch().map_or(Next::Wait, Next::Send),
        }
    }

    /// Everything in the window, as far as the limits of a batch go.
    fn take_batch(&mut self) -> Option<Outgoing> {
        if self.flying_bytes.is_some() {
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for record in self.window.iter().take(self.limits.batch_records_max) {
            if count > 0 && bytes + record.weight() > self.limits.batch_bytes_max {
                break;
            }
            count += 1;
            bytes += record.weight();
        }
        let records: Vec<Record> = self.window.drain(..count).collect();
        let through = records.last()?.offset;
        self.window_bytes -= bytes;
        self.flying_bytes = Some(bytes);
        self.unsettled = through;
        Some(Outgoing {
            after: self.stored,
            through,
            records,
            bytes,
        })
    }

    /// The leaf has no room: the batch is kept by its sender and tried again.
    pub fn busy(&mut self, reason: String) {
        self.busy = true;
        self.error = Some(reason);
    }

    /// The batch on its way is no more: what became of it decides how to go on.
    pub fn settle(&mut self, verdict: &Verdict) {
        self.flying_bytes = None;
        self.not_taken();
        self.busy = false;
        if let Verdict::Applied { stored } | Verdict::Already { stored } = verdict {
            self.acknowledged = self.acknowledged.max(*stored);
        }
        if self.phase != Phase::Reading {
            return;
        }
        match verdict {
            Verdict::Applied { stored } | Verdict::Already { stored } => {
                self.error = None;
                self.note_stored(self.stored.max(*stored));
                // Another sender may be ahead.
                while self.window.front().is_some_and(|record| record.offset <= self.stored) {
                    self.window_bytes -= self.window.pop_front().map_or(0, |record| record.weight());
                }
            }
            Verdict::Gap { .. } => self.resolve(),
            Verdict::Refused { reason } => self.stop(reason.clone(), false),
            Verdict::Busy { .. } => self.resolve(),
        }
    }

    /// The leaf has said of the batch on its way that it does not have it.
    pub fn not_taken(&mut self) {
        self.unsettled = -1;
    }

    /// The batch on its way was given up without an answer.
    pub fn give_up(&mut self) {
        self.flying_bytes = None;
        self.busy = false;
    }

    /// Batches have half the bytes from here on; how many at most.
    pub fn halve_batches(&mut self) -> usize {
        self.limits.batch_bytes_max = (self.limits.batch_bytes_max / 2).max(BATCH_BYTES_LEAST);
        self.limits.batch_bytes_max
    }

    /// The end-of-partition event.
    pub fn reached_end(&mut self) {
        if self.phase == Phase::Reading && !self.place {
            self.at_end = true;
            if !self.busy {
                self.error = None;
            }
        }
    }

    /// Notes the offset after the last one at the broker, as the client heard it when it read last. It hears nothing of
    /// a partition that it does not read.
    pub fn note_end(&mut self, end: i64) {
        if self.phase == Phase::Reading {
            self.end = Some(end);
        }
    }

    /// Whether the consumer must be placed anew for this partition.
    pub fn wants_place(&self) -> bool {
        self.phase == Phase::Reading && self.place
    }

    /// Where the consumer is to read on, if it is to read at all. The consumer is placed there when the caller says so.
    pub fn place(&self) -> Option<i64> {
        (self.phase == Phase::Reading).then_some(self.read + 1)
    }

    /// The consumer was placed; it begins unpaused.
    pub fn placed(&mut self) {
        self.place = false;
        self.paused = false;
    }

    /// What to do about flow: above this limit the partition is paused, and below half of it resumed.
    pub fn flow(&mut self, window_bytes_max: usize) -> Option<Flow> {
        let held = self.held_bytes();
        if !self.paused && held > window_bytes_max {
            self.paused = true;
            return Some(Flow::Pause);
        }
        if self.paused && held < window_bytes_max / 2 {
            self.paused = false;
            return Some(Flow::Resume);
        }
        None
    }

    /// The position at the leaf, as far as is known.
    pub fn stored(&self) -> i64 {
        self.stored
    }

    /// Bytes in hand.
    pub fn held_bytes(&self) -> usize {
        self.window_bytes + self.flying_bytes.unwrap_or(0)
    }

    /// What it does, for others to see.
    pub fn state(&self) -> SourceState {
        match self.phase {
            Phase::Resolving => SourceState::Starting,
            Phase::Stopped { .. } => SourceState::Stopped,
            Phase::Reading if self.busy => SourceState::Waiting,
            Phase::Reading if self.at_end && self.window.is_empty() && self.flying_bytes.is_none() => {
                SourceState::CaughtUp
            }
            Phase::Reading => SourceState::Reading,
        }
    }

    /// The offset after the last one at the broker, and how many offsets are between the position and it. At the end of
    /// the partition the lag is 0, even if the last offsets hold no record.
    pub fn end_and_lag(&self) -> (Option<i64>, Option<i64>) {
        match self.state() {
            SourceState::CaughtUp => (self.end.map(|end| end.max(self.stored + 1)), Some(0)),
            _ => (self.end, self.end.map(|end| (end - 1 - self.stored).max(0))),
        }
    }

    /// The last error, until something succeeds.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// Where to begin, from what the leaf has stored and what the broker has.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Read from this offset on.
    From(i64),
    /// Nothing is stored and what is there is not wanted: tell the leaf so first, then read on after `through`.
    Advance {
        /// The last offset that is there.
        through: i64,
    },
    /// Records that were not taken in are gone.
    Lost {
        /// The first offset that is gone.
        from: i64,
        /// The last offset that is gone.
        to: i64,
    },
    /// The broker has less than was taken in: the topic was truncated or made anew.
    Shorter {
        /// The offset after the last one that the broker has.
        end: i64,
    },
    /// The offset to go on at is not there yet.
    SkipAhead {
        /// Where to go on.
        to: i64,
        /// The offset after the last one that the broker has.
        end: i64,
    },
}

/// Decides where to begin a partition: `stored` at the leaf, `acknowledged` by it earlier, `low..high` at the broker,
/// `skips` as agreed on.
pub fn decide(stored: i64, acknowledged: i64, low: i64, high: i64, skips: &[Skip], start: Start) -> Decision {
    if let Some(to) = skips.iter().filter_map(|skip| skip.over(stored + 1)).max() {
        return match to {
            to if to > high => Decision::SkipAhead { to, end: high },
            to if to < low => Decision::Lost { from: to, to: low - 1 },
            to => Decision::From(to),
        };
    }
    match (stored, start) {
        // The leaf has lost all that it had: what the broker has of it is read again, and what it has not is told.
        (..0, _) if acknowledged >= 0 && low > 0 => Decision::Lost { from: 0, to: low - 1 },
        (..0, _) if acknowledged >= 0 => Decision::From(0),
        (..0, Start::Latest) if high > 0 => Decision::Advance { through: high - 1 },
        (..0, _) => Decision::From(low),
        _ if stored + 1 > high => Decision::Shorter { end: high },
        _ if stored + 1 < low => Decision::Lost {
            from: stored + 1,
            to: low - 1,
        },
        // At the last record that the leaf holds, so that it can compare it.
        _ => Decision::From(stored.max(low)),
    }
}

/// How long to wait before the next attempt; doubles from `first` to `most`.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// From `first`, doubling, to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            next: first,
            first,
            most,
        }
    }

    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.most);
        wait
    }

    /// Something succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::record::Value;

    use super::*;

    const WINDOW_BYTES_MAX: usize = 10_000;
    const LIMITS: Limits = Limits {
        batch_records_max: 10,
        batch_bytes_max: 3_000,
    };

    #[test]
    fn a_partition_sends_all_it_has_as_soon_as_the_last_batch_is_acknowledged() {
        let mut partition = reading(-1, 0);
        assert!(partition.push(record(0, 10)), "an idle sender is woken");
        assert_eq!(sent(&mut partition), (-1, 0, vec![0]));
        for offset in 1..25 {
            assert!(!partition.push(record(offset, 10)), "a busy sender is not");
        }
        assert!(matches!(partition.next(), Next::Wait), "one batch is on its way");
        partition.settle(&Verdict::Applied { stored: 0 });
        assert_eq!(sent(&mut partition), (0, 10, (1..11).collect()));
        partition.settle(&Verdict::Applied { stored: 10 });
        assert_eq!(sent(&mut partition), (10, 20, (11..21).collect()));
        partition.settle(&Verdict::Applied { stored: 20 });
        assert_eq!(sent(&mut partition), (20, 24, (21..25).collect()));
    }

    #[test]
    fn a_batch_keeps_its_bytes_and_a_larger_record_travels_alone() {
        let mut partition = reading(-1, 0);
        for (offset, bytes) in [(0, 5_000), (1, 1_000), (2, 1_000), (3, 1_000)] {
            partition.push(record(offset, bytes));
        }
        for (through, offsets) in [(0, vec![0]), (2, vec![1, 2]), (3, vec![3])] {
            assert_eq!(sent(&mut partition).2, offsets);
            partition.settle(&Verdict::Applied { stored: through });
        }
    }

    #[test]
    fn holes_are_within_the_range_of_a_batch() {
        let mut partition = reading(-1, 0);
        push_all(&mut partition, [3, 7, 100]);
        assert_eq!(sent(&mut partition), (-1, 100, vec![3, 7, 100]));
    }

    #[test]
    fn a_resumed_partition_sends_the_last_stored_record_along() {
        let mut partition = reading(41, 41);
        push_all(&mut partition, [41, 42]);
        assert_eq!(sent(&mut partition), (41, 42, vec![41, 42]));
    }

    #[test]
    fn what_comes_twice_or_before_the_consumer_was_placed_is_not_taken() {
        let mut partition = Partition::new(LIMITS, &[]);
        assert!(!partition.push(record(5, 1)));
        partition.begin(9, 9);
        assert!(!partition.push(record(90, 1)), "asked for before");
        partition.placed();
        push_all(&mut partition, [9, 10, 10, 9, 11]);
        assert_eq!(sent(&mut partition), (9, 11, vec![9, 10, 11]));
    }

    #[test]
    fn a_gap_throws_away_what_is_in_hand_and_asks_the_leaf() {
        let mut partition = reading(-1, 0);
        push_all(&mut partition, 0..30);
        sent(&mut partition);
        partition.settle(&Verdict::Gap { stored: -1 });
        assert!(matches!(partition.next(), Next::Resolve));
        assert_eq!(partition.held_bytes(), 0);
        partition.begin(-1, 0);
        assert!(partition.wants_place());
        assert_eq!(partition.place(), Some(0));
    }

    #[test]
    fn another_sender_that_is_ahead_is_caught_up_with() {
        let mut partition = reading(-1, 0);
        push_all(&mut partition, 0..15);
        sent(&mut partition);
        partition.settle(&Verdict::Already { stored: 12 });
        assert_eq!(sent(&mut partition), (12, 14, vec![13, 14]));
    }

    #[test]
    fn a_refusal_stops_and_says_why() {
        let mut partition = reading(-1, 0);
        partition.push(record(0, 1));
        sent(&mut partition);
        partition.settle(&Verdict::Refused {
            reason: "the topic was made anew".into(),
        });
        assert_eq!(
            (partition.state(), partition.error()),
            (SourceState::Stopped, Some("the topic was made anew"))
        );
        assert!(!partition.push(record(1, 1)));
        assert!(matches!(partition.next(), Next::Wait));
        assert_eq!(partition.place(), None, "the consumer leaves it out");
    }

    #[test]
    fn the_window_pauses_above_its_limit_and_resumes_below_half() {
        let mut partition = reading(-1, 0);
        let mut offset = 0;
        while partition.flow(WINDOW_BYTES_MAX).is_none() {
            partition.push(record(offset, 1_000));
            offset += 1;
        }
        assert!(partition.held_bytes() > WINDOW_BYTES_MAX);
        assert_eq!(partition.flow(WINDOW_BYTES_MAX), None, "said once");
        let mut resumed = None;
        while resumed.is_none() {
            let (_, through, _) = sent(&mut partition);
            partition.settle(&Verdict::Applied { stored: through });
            assert!(partition.held_bytes() > 0 || partition.flow(WINDOW_BYTES_MAX).is_some());
            resumed = partition.flow(WINDOW_BYTES_MAX);
        }
        assert_eq!(resumed, Some(Flow::Resume));
        assert!(partition.held_bytes() < WINDOW_BYTES_MAX / 2);
    }

    #[test]
    fn caught_up_is_the_end_event_after_the_last_record_not_an_offset() {
        let mut partition = reading(-1, 0);
        partition.note_end(3);
        partition.push(record(0, 1));
        partition.reached_end();
        assert_eq!(partition.state(), SourceState::Reading, "it is not acknowledged");
        sent(&mut partition);
        partition.settle(&Verdict::Applied { stored: 0 });
        assert_eq!(
            (partition.state(), partition.end_and_lag()),
            (SourceState::CaughtUp, (Some(3), Some(0)))
        );
        partition.push(record(5, 1));
        partition.note_end(6);
        assert_eq!(
            (partition.state(), partition.end_and_lag()),
            (SourceState::Reading, (Some(6), Some(5)))
        );
    }

    #[test]
    fn a_stopped_partition_shows_what_was_found_and_not_what_the_client_heard_before() {
        let mut partition = Partition::new(LIMITS, &[]);
        partition.found(99, 50);
        partition.stop("the broker has less".into(), true);
        partition.note_end(100);
        assert_eq!(
            (partition.state(), partition.end_and_lag()),
            (SourceState::Stopped, (Some(50), Some(0)))
        );
        partition.found(99, 120);
        assert_eq!(partition.end_and_lag(), (Some(120), Some(20)));
    }

    #[test]
    fn a_way_that_takes_no_large_batch_gets_smaller_ones() {
        let mut partition = Partition::new(
            Limits {
                batch_records_max: 1_000,
                batch_bytes_max: 512 << 10,
            },
            &[],
        );
        partition.begin(-1, 0);
        partition.placed();
        for offset in 0..10 {
            partition.push(record(offset, 60 << 10));
        }
        let first = sent(&mut partition);
        partition.give_up();
        assert_eq!(
            [
                partition.halve_batches(),
                partition.halve_batches(),
                partition.halve_batches(),
                partition.halve_batches()
            ],
            [256 << 10, 128 << 10, 64 << 10, 64 << 10]
        );
        partition.resolve();
        partition.begin(-1, 0);
        partition.placed();
        for offset in 0..10 {
            partition.push(record(offset, 60 << 10));
        }
        let second = sent(&mut partition);
        assert_eq!(
            (first.2.len(), second.2.len()),
            (8, 1),
            "records of a batch, before and after"
        );
    }

    #[test]
    fn where_to_begin() {
        use Decision::*;
        let early = |stored, low, high, skips: &[Skip]| decide(stored, -1, low, high, skips, Start::Earliest);
        assert_eq!(early(-1, 0, 0, &[]), From(0));
        assert_eq!(
            early(-1, 7, 9, &[]),
            From(7),
            "what was gone before the start was never asked for"
        );
        assert_eq!(early(41, 0, 42, &[]), From(41), "at the last record, to compare it");
        assert_eq!(
            early(41, 42, 50, &[]),
            From(42),
            "the last record is gone, nothing is lost"
        );
        assert_eq!(early(41, 45, 50, &[]), Lost { from: 42, to: 44 });
        assert_eq!(early(41, 0, 41, &[]), Shorter { end: 41 });
        let skip = |from, to| Skip { from, to };
        assert_eq!(early(41, 45, 50, &[skip(42, 45)]), From(45));
        assert_eq!(early(43, 45, 50, &[skip(42, 45)]), From(45), "it was read on meanwhile");
        assert_eq!(
            early(41, 45, 50, &[skip(20, 30)]),
            Lost { from: 42, to: 44 },
            "an old skip has had its turn"
        );
        assert_eq!(early(41, 0, 50, &[skip(42, 45), skip(42, 48), skip(20, 30)]), From(48));
        assert_eq!(
            early(41, 0, 50, &[skip(42, 42)]),
            From(42),
            "whatever stands at 41 by now"
        );
        assert_eq!(early(41, 45, 50, &[skip(42, 43)]), Lost { from: 43, to: 44 });
        assert_eq!(early(41, 0, 50, &[skip(42, 60)]), SkipAhead { to: 60, end: 50 });
        assert_eq!(early(-1, 0, 50, &[skip(0, 20)]), From(20));
        assert_eq!(
            early(30, 0, 50, &[skip(42, 45)]),
            From(30),
            "a leaf that is behind gets what it lacks"
        );
        assert_eq!(
            decide(-1, 49, 0, 50, &[skip(42, 45)], Start::Earliest),
            From(0),
            "and so does one that lost all"
        );
        assert_eq!(decide(-1, -1, 3, 50, &[], Start::Latest), Advance { through: 49 });
        assert_eq!(decide(-1, -1, 0, 0, &[], Start::Latest), From(0));
        assert_eq!(
            decide(10, 10, 0, 50, &[], Start::Latest),
            From(10),
            "the start counts once"
        );
        assert_eq!(
            decide(-1, 30, 0, 50, &[], Start::Latest),
            From(0),
            "a leaf that lost its disk gets all again"
        );
        assert_eq!(
            decide(-1, 30, 5, 50, &[], Start::Earliest),
            Lost { from: 0, to: 4 },
            "and what is gone is told"
        );
        assert_eq!(decide(-1, 30, 5, 50, &[skip(0, 5)], Start::Earliest), From(5));
    }

    #[test]
    fn what_is_skipped_is_left_out_also_where_a_leaf_is_filled_again() {
        let mut partition = Partition::new(
            LIMITS,
            &[
                Skip { from: 2, to: 4 },
                Skip { from: 6, to: 6 },
                Skip { from: 8, to: 10 },
            ],
        );
        partition.begin(-1, 0);
        partition.placed();
        push_all(&mut partition, 0..10);
        assert_eq!(sent(&mut partition), (-1, 7, vec![0, 1, 4, 5, 6, 7]));
        partition.settle(&Verdict::Applied { stored: 7 });
        partition.reached_end();
        assert_eq!(
            (partition.state(), partition.place()),
            (SourceState::CaughtUp, Some(10))
        );
    }

    #[test]
    fn what_was_sent_counts_until_the_leaf_says_that_it_has_it_not() {
        let mut partition = reading(4, 5);
        push_all(&mut partition, 5..8);
        assert_eq!(partition.sent(), 4);
        assert_eq!(sent(&mut partition).1, 7);
        partition.give_up();
        assert_eq!((partition.sent(), partition.acknowledged()), (7, 4), "nobody knows");
        partition.begin(6, 7);
        assert_eq!(partition.sent(), 7, "and the disk that held it may be another by now");
        partition.placed();
        push_all(&mut partition, 7..9);
        sent(&mut partition);
        partition.settle(&Verdict::Gap { stored: 2 });
        assert_eq!(partition.sent(), 6);
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(15));
        assert_eq!(
            [backoff.next(), backoff.next(), backoff.next()].map(|d| d.as_millis()),
            [5, 10, 15]
        );
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 5);
    }

    fn reading(stored: i64, from: i64) -> Partition {
        let mut partition = Partition::new(LIMITS, &[]);
        partition.begin(stored, from);
        partition.placed();
        partition
    }

    fn push_all(partition: &mut Partition, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            partition.push(record(offset, 1));
        }
    }

    fn record(offset: i64, bytes: usize) -> Record {
        Record {
            offset,
            value: Value::One(Bytes::from(vec![b'x'; bytes])),
            ..Record::default()
        }
    }

    fn sent(partition: &mut Partition) -> (i64, i64, Vec<i64>) {
        match partition.next() {
            Next::Send(out) => (out.after, out.through, out.records.iter().map(|r| r.offset).collect()),
            other => panic!("nothing to send: {other:?}"),
        }
    }
}
