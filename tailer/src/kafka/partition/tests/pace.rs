//! Tests of whether replicas keep pace with each other.

use super::{
    super::cursor::{BEHIND_AFTER, NOTED_WITHIN, Phase, RESTS_FOR, SILENT_AFTER, SLOW_AFTER, SLOW_AT_WORK_AFTER},
    *,
};

/// How often it is noted whether they do.
const EVERY: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_mins(1);

/// A partition that is read without end, at a clock of its own. The first replica is the faster one.
struct Paced {
    partition: Partition,
    start: Instant,
    at: Duration,
    /// The next record.
    offset: i64,
}

impl Paced {
    fn new(replicas: usize) -> Self {
        let mut paced = Self::unfilled(replicas);
        paced.fill();
        paced
    }

    fn unfilled(replicas: usize) -> Self {
        let mut partition = Partition::new(LIMITS, &[], unspread(replicas));
        (0..replicas).for_each(|replica| partition.begin(replica, -1, 0));
        partition.seek_done();
        Self::of(partition, 0)
    }

    /// Of a partition whose records go to two shards with one replica each, from the record 8 on.
    fn of_two_shards() -> Self {
        let mut partition = spread();
        (0..2).for_each(|replica| partition.begin(replica, 7, 8));
        partition.seek_done();
        let mut paced = Self::of(partition, 8);
        paced.fill();
        paced
    }

    /// The next record of the partition is at this offset.
    fn of(partition: Partition, offset: i64) -> Self {
        let mut paced = Self {
            partition,
            start: Instant::now(),
            at: Duration::ZERO,
            offset,
        };
        paced.after(EVERY);
        paced
    }

    /// Fills the window.
    fn fill(&mut self) {
        while !self.partition.is_full(WINDOW_BYTES_MAX) {
            self.partition.add(record(self.offset, 1_000));
            self.offset += 1;
        }
    }

    /// Sends a replica what it may have. Returns how many batches.
    fn send_all(&mut self, replica: usize) -> usize {
        let mut batches = 0;
        while self.begin_batch(replica).is_some() {
            self.end_batch(replica);
            batches += 1;
        }
        batches
    }

    /// Sends a replica a batch, if it may have one. Returns its end.
    fn begin_batch(&mut self, replica: usize) -> Option<i64> {
        match self.partition.next_step(replica) {
            SenderStep::Send(batch) => Some(batch.through),
            _ => None,
        }
    }

    /// A replica has stored the batch that it was sent.
    fn end_batch(&mut self, replica: usize) -> bool {
        let stored = self.partition.cursors[replica].unsettled;
        self.partition.settle(replica, &BatchOutcome::Applied { stored })
    }

    /// A replica does not take the batch that it was sent.
    fn fail(&mut self, replica: usize, code: proto::Code) {
        let error = match code {
            proto::Code::Busy => Error::LeafBusy(Backpressure::lasting("full".into())),
            _ => Error::Leaf(proto::Problem::new(code, "down")),
        };
        self.partition.set_busy(replica, error);
    }

    /// Which replicas are behind after this time, and whether others may go on.
    fn after(&mut self, elapsed: Duration) -> (Vec<usize>, bool) {
        self.at += elapsed;
        self.partition.keep_pace(WINDOW_BYTES_MAX, self.start + self.at)
    }

    /// Which replicas are left behind next, and after how long, if within this time; each time something is done.
    fn left_within(&mut self, time: Duration, mut each: impl FnMut(&mut Self)) -> Option<(Duration, Vec<usize>)> {
        let began = self.at;
        while self.at - began < time {
            each(self);
            let (behind, _) = self.after(EVERY);
            if !behind.is_empty() {
                return Some((self.at - began, behind));
            }
        }
        None
    }

    /// The senders end: all replicas have everything through this offset then.
    fn ends_at(&mut self, through: i64) {
        self.partition.level_off();
        if self.partition.cursors[0].inflight.is_some() {
            self.end_batch(0);
        }
        self.partition.level_off();
        for replica in [0, 1] {
            self.send_all(replica);
            assert_eq!(self.partition.stored_by(replica), through);
        }
    }

    fn nothing_follows(&mut self, time: Duration) {
        assert_eq!(self.left_within(time, |_| ()), None);
    }
}

#[test]
fn a_replica_that_does_not_answer_is_left_behind_once_it_has_filled_the_window_alone_for_two_seconds() {
    let mut paced = Paced::new(2);
    paced.begin_batch(1);
    paced.nothing_follows(MINUTE);
    let mut paced = Paced::new(2);
    paced.begin_batch(1);
    paced.send_all(0);
    paced.nothing_follows(SILENT_AFTER);
    assert_eq!(paced.send_all(0), 0, "the first one waits");
    assert_eq!(paced.after(EVERY), (vec![], true), "it waits no longer");
    assert!(paced.send_all(0) > 0);
    paced.nothing_follows(BEHIND_AFTER);
    assert_eq!(paced.after(EVERY), (vec![1], false));
    assert_eq!(paced.partition.buffered_bytes(), 0);
    assert!(!paced.partition.is_sending(1), "its sender gives the batch up");
    paced.partition.abandon_batch(1);
    assert!(matches!(paced.partition.next_step(1), SenderStep::FeedApart));
    paced.fill();
    // The last one is never left behind.
    paced.nothing_follows(MINUTE);
    // A replica that begins anew has what is in the window before it.
    paced.partition.resolve_behind(1);
    paced.send_all(0);
    // The first one has just answered.
    assert_eq!(
        paced.left_within(MINUTE, |_| ()),
        Some((BEHIND_AFTER + 2 * EVERY, vec![1]))
    );
}

#[test]
fn a_replica_waits_for_one_that_is_three_times_slower_and_leaves_one_behind_that_is_ten_times_slower() {
    for (times_slower, is_left) in [(3, false), (10, true)] {
        let mut paced = Paced::new(2);
        let (mut tick, mut batches) = (0, [0, 0]);
        let left = paced.left_within(2 * MINUTE, |paced| {
            paced.fill();
            tick += 1;
            for (replica, takes) in [(0, 1), (1, times_slower)] {
                if tick % takes == 0 && paced.partition.cursors[replica].inflight.is_some() {
                    paced.end_batch(replica);
                    batches[replica] += 1;
                }
                paced.begin_batch(replica);
            }
        });
        assert_eq!(left.is_some(), is_left, "{times_slower}: {left:?}");
        let [fast, slow] = batches;
        assert!(fast <= slow + 2, "{times_slower}: {batches:?}");
    }
}

#[test]
fn a_replica_whose_leaf_takes_nothing_is_left_behind_after_ten_seconds_whatever_it_answers() {
    for codes in [[proto::Code::Busy; 2], [proto::Code::Busy, proto::Code::Unavailable]] {
        let mut paced = Paced::new(2);
        paced.begin_batch(1);
        let mut tick = 0;
        let mut fails = |paced: &mut Paced| {
            paced.fill();
            paced.send_all(0);
            tick += 1;
            paced.fail(1, codes[tick / 10 % 2]);
        };
        fails(&mut paced);
        assert_eq!(paced.after(EVERY).0, Vec::<usize>::new());
        paced.after(2 * SLOW_AFTER);
        let (time, behind) = paced.left_within(MINUTE, fails).expect("it does not keep pace");
        assert_eq!(behind, [1]);
        let least = SLOW_AFTER - NOTED_WITHIN - EVERY;
        assert!(
            time >= least,
            "{codes:?}: {time:?}; a tailer that was frozen does not count that"
        );
        assert!(time <= 2 * SLOW_AFTER, "{codes:?}: {time:?}");
    }
}

#[test]
fn a_replica_whose_leaf_takes_more_once_it_has_written_what_it_has_is_waited_for_half_a_minute() {
    // Its leaf is busy for some ticks of each period, and takes all there is in the others.
    let left_if_busy_for = |busy_for: usize, period: usize| {
        let (mut paced, mut tick) = (Paced::new(2), 0);
        let left = paced.left_within(20 * MINUTE, |paced| {
            paced.fill();
            paced.send_all(0);
            if tick % period < busy_for {
                paced.begin_batch(1);
                let why = Backpressure::passing("192 MiB are waiting to be written".into());
                paced.partition.set_busy(1, Error::LeafBusy(why));
            } else {
                if paced.partition.cursors[1].inflight.is_some() {
                    paced.end_batch(1);
                }
                paced.send_all(1);
            }
            tick += 1;
        });
        (left, paced)
    };
    let (left, mut paced) = left_if_busy_for(1, 1);
    let (time, behind) = left.expect("it takes nothing for too long");
    assert_eq!(behind, [1]);
    let soonest = SLOW_AT_WORK_AFTER - EVERY;
    assert!((soonest..=soonest + SLOW_AFTER).contains(&time), "{time:?}");
    // Fed apart, it has got everything.
    paced.partition.abandon_batch(1);
    paced.send_all(0);
    let stored = paced.partition.trimmed();
    paced.partition.note_apart(1, stored, None);
    assert!(paced.partition.can_begin(1, stored), "it need not rest");
    assert!(paced.partition.cursors[1].pace.awaited >= SLOW_AFTER / 2 - EVERY);

    // In each period of 20 s.
    let (left, _) = left_if_busy_for(180, 200);
    let (time, _) = left.expect("it is ten times as slow as the other one");
    assert!(time > SLOW_AT_WORK_AFTER, "{time:?}");
    let (left, _) = left_if_busy_for(130, 200);
    assert_eq!(left, None, "it is less than four times as slow");
}

#[test]
fn a_replica_that_was_left_behind_rests_unless_it_gets_more_and_is_then_left_behind_sooner() {
    let mut paced = Paced::new(2);
    paced.begin_batch(1);
    let busy = |paced: &mut Paced| {
        paced.fill();
        paced.send_all(0);
        paced.fail(1, proto::Code::Busy);
    };
    assert!(paced.left_within(MINUTE, busy).is_some());
    paced.partition.abandon_batch(1);
    let stored = paced.partition.trimmed();
    paced.nothing_follows(RESTS_FOR - EVERY);
    assert!(!paced.partition.can_begin(1, stored));
    paced.nothing_follows(EVERY);
    assert!(paced.partition.can_begin(1, stored));
    paced.partition.begin(1, stored, stored);
    paced.fill();
    paced.begin_batch(1);
    let (time, _) = paced.left_within(MINUTE, busy).expect("it is as before");
    assert!((SLOW_AFTER / 2 - EVERY..SLOW_AFTER).contains(&time), "{time:?}");
    // Fed apart, it has got more than it was sent before.
    paced.partition.abandon_batch(1);
    let sent = paced.partition.cursors[1].reached_at_most();
    paced.partition.note_apart(1, sent, None);
    assert!(!paced.partition.can_begin(1, sent));
    paced.fill();
    paced.send_all(0);
    let stored = paced.partition.trimmed();
    paced.partition.note_apart(1, stored, None);
    assert!(paced.partition.can_begin(1, stored));
    paced.partition.begin(1, stored, stored);
    paced.fill();
    paced.begin_batch(1);
    let (time, _) = paced.left_within(MINUTE, busy).expect("it takes nothing again");
    assert!(time >= SLOW_AFTER, "{time:?}");
}

#[test]
fn two_slow_replicas_do_not_take_turns_in_holding_a_third_one_back() {
    let mut paced = Paced::new(3);
    for tick in 0..600 {
        paced.fill();
        paced.send_all(0);
        for replica in 1..3 {
            // What their senders do. The leaves take no batch.
            if paced.partition.cursors[replica].phase == Phase::Reading {
                paced.begin_batch(replica);
                paced.fail(replica, proto::Code::Busy);
                continue;
            }
            paced.partition.abandon_batch(replica);
            let stored = paced.partition.stored_by(replica);
            if paced.partition.can_begin(replica, stored) {
                paced.partition.begin(replica, stored, stored.max(0));
            }
        }
        if tick == 30 {
            paced.partition.cursors[2].pace.awaited = Duration::ZERO;
        }
        paced.after(EVERY);
    }
    let records = paced.partition.stored_by(0);
    assert!(records > 1_000, "{records} records in a minute");
}

#[test]
fn a_replica_that_is_busy_again_and_again_once_it_has_begun_is_left_behind_like_one_that_stays_busy() {
    let mut paced = Paced::new(2);
    let left = paced.left_within(MINUTE, |paced| {
        paced.fill();
        paced.send_all(0);
        if paced.begin_batch(1).is_some() {
            let why = Backpressure::lasting("full".into());
            paced.partition.settle(1, &BatchOutcome::Busy(why));
            // While its sender asks where to begin, the other one goes on.
            paced.send_all(0);
            paced.partition.begin(1, -1, 0);
        }
    });
    let (time, behind) = left.expect("it takes nothing");
    assert_eq!(behind, [1]);
    assert!((SLOW_AFTER - EVERY..=2 * SLOW_AFTER).contains(&time), "{time:?}");
}

#[test]
fn a_replica_does_not_wait_for_one_whose_leaf_is_down_or_is_asked_something_else() {
    let mut paced = Paced::new(2);
    paced.begin_batch(1);
    paced.send_all(0);
    assert_eq!(paced.send_all(0), 0);
    paced.fail(1, proto::Code::Unavailable);
    assert_eq!(paced.after(EVERY), (vec![], true));
    assert!(paced.send_all(0) > 1);
    assert_eq!(paced.left_within(MINUTE, |_| ()), Some((BEHIND_AFTER + EVERY, vec![1])));
    // Nothing is in flight to this one: its sender waits for the answer to another question.
    let mut paced = Paced::new(2);
    paced.send_all(0);
    paced.nothing_follows(SILENT_AFTER);
    assert_eq!(paced.after(EVERY), (vec![], true));
}

#[test]
fn a_replica_that_is_fed_apart_and_attaches_is_waited_for() {
    let mut paced = Paced::new(2);
    paced.partition.set_behind(1);
    paced.partition.attach(1);
    assert_eq!(paced.send_all(0), 1);
    paced.nothing_follows(SILENT_AFTER - EVERY);
    assert_eq!(paced.send_all(0), 0);
    let first = paced.partition.stored_by(0);
    paced.partition.note_apart(1, first, None);
    assert_eq!(paced.after(EVERY), (vec![], true), "it has what the first one has");
    assert_eq!(paced.send_all(0), 1);
    paced.nothing_follows(SILENT_AFTER);
    assert_eq!(paced.after(EVERY), (vec![], true), "not if it gets nothing");
    assert!(paced.send_all(0) > 1);
}

#[test]
fn a_slow_shard_holds_the_window_and_is_not_left_behind() {
    let mut paced = Paced::of_two_shards();
    paced.send_all(0);
    paced.nothing_follows(MINUTE);
}

#[test]
fn replicas_that_are_fed_no_more_end_with_what_the_furthest_one_has() {
    let mut paced = Paced::new(2);
    assert_eq!(paced.send_all(0), 1);
    let furthest = paced.partition.stored_by(0);
    paced.ends_at(furthest);
    // This one is asked for an answer first.
    let mut paced = Paced::new(2);
    let in_flight = paced.begin_batch(0).expect("a batch");
    paced.ends_at(in_flight);
}

#[test]
fn a_shard_that_is_fed_no_more_gets_nothing_that_only_another_shard_has() {
    let mut paced = Paced::of_two_shards();
    assert!(paced.send_all(0) > 0);
    paced.partition.level_off();
    assert_eq!(paced.send_all(1), 0);
}

#[test]
fn of_three_replicas_that_are_fed_no_more_none_waits_for_another_one() {
    let mut paced = Paced::new(3);
    paced.partition.cursors[0].limits.batch_bytes_max = 8_000;
    assert_eq!(paced.send_all(0), 1);
    assert_eq!(paced.send_all(1), 1, "it waits for the third one");
    assert!(paced.partition.stored_by(1) < paced.partition.stored_by(0));
    let furthest = paced.partition.stored_by(0);
    paced.partition.level_off();
    paced.after(EVERY);
    for replica in [1, 2] {
        paced.send_all(replica);
        assert_eq!(paced.partition.stored_by(replica), furthest);
    }
}

#[test]
fn a_replica_that_has_everything_does_not_wait_for_a_busy_one() {
    let mut paced = Paced::unfilled(2);
    for offset in 0..4 {
        paced.partition.add(record(offset, 1_000));
    }
    paced.partition.cursors[0].limits.batch_bytes_max = 8_000;
    paced.send_all(0);
    assert_eq!(paced.partition.idle_at(0), Some(3));
    paced.begin_batch(1);
    let busy = |paced: &mut Paced| {
        paced.send_all(0);
        paced.fail(1, proto::Code::Busy);
    };
    assert_eq!(paced.left_within(MINUTE, busy), None);
}
