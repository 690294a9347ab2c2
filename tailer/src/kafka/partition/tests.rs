//! Tests of `partition`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::{
    catalog::{PartitionRoute, PartitionRuns, PartitionStart, Run},
    ingest::Backpressure,
    record::RecordValue,
    status::SourceState,
};

use super::*;
use crate::kafka::{
    backoff::Backoff,
    start::{StartDecision, decide_start},
};

mod pace;

const WINDOW_BYTES_MAX: usize = 10_000;
const LIMITS: BatchLimits = BatchLimits {
    batch_records_max: 10,
    batch_bytes_max: 3_000,
};

#[test]
fn a_partition_sends_its_whole_window_as_soon_as_the_last_batch_is_acknowledged() {
    let mut partition = reading(-1, 0);
    assert!(partition.add(record(0, 10)), "an idle sender is woken");
    assert_eq!(sent(&mut partition), (-1, 0, vec![0]));
    for offset in 1..25 {
        assert!(!partition.add(record(offset, 10)), "a busy sender is not");
    }
    assert!(
        matches!(partition.next_step(0), SenderStep::Wait),
        "one batch is in flight"
    );
    partition.settle(0, &BatchOutcome::Applied { stored: 0 });
    assert_eq!(sent(&mut partition), (0, 10, (1..11).collect()));
    partition.settle(0, &BatchOutcome::Applied { stored: 10 });
    assert_eq!(sent(&mut partition), (10, 20, (11..21).collect()));
    partition.settle(0, &BatchOutcome::Applied { stored: 20 });
    assert_eq!(sent(&mut partition), (20, 24, (21..25).collect()));
}

#[test]
fn a_batch_stays_below_its_size_limit_and_a_larger_record_is_sent_alone() {
    let mut partition = reading(-1, 0);
    for (offset, bytes) in [(0, 5_000), (1, 1_000), (2, 1_000), (3, 1_000)] {
        partition.add(record(offset, bytes));
    }
    for (through, offsets) in [(0, vec![0]), (2, vec![1, 2]), (3, vec![3])] {
        assert_eq!(sent(&mut partition).2, offsets);
        partition.settle(0, &BatchOutcome::Applied { stored: through });
    }
}

#[test]
fn the_range_of_a_batch_covers_gaps_between_offsets() {
    let mut partition = reading(-1, 0);
    push_all(&mut partition, [3, 7, 100]);
    assert_eq!(sent(&mut partition), (-1, 100, vec![3, 7, 100]));
}

#[test]
fn a_resumed_partition_sends_the_last_stored_record_again() {
    let mut partition = reading(41, 41);
    push_all(&mut partition, [41, 42]);
    assert_eq!(sent(&mut partition), (41, 42, vec![41, 42]));
}

#[test]
fn records_that_arrive_twice_or_before_the_seek_are_ignored() {
    let mut partition = Partition::new(LIMITS, &[], unspread(1));
    assert!(!partition.add(record(5, 1)));
    partition.begin(0, 9, 9);
    assert!(!partition.add(record(90, 1)), "fetched before the seek");
    partition.seek_done();
    push_all(&mut partition, [9, 10, 10, 9, 11]);
    assert_eq!(sent(&mut partition), (9, 11, vec![9, 10, 11]));
}

#[test]
fn a_gap_discards_the_window_and_asks_the_leaf() {
    let mut partition = reading(-1, 0);
    push_all(&mut partition, 0..30);
    sent(&mut partition);
    partition.settle(0, &BatchOutcome::Gap { stored: -1 });
    assert!(matches!(partition.next_step(0), SenderStep::Resolve));
    assert_eq!(partition.buffered_bytes(), 0);
    partition.begin(0, -1, 0);
    assert!(partition.needs_seek());
    assert_eq!(partition.next_offset(), Some(0));
}

#[test]
fn records_that_another_sender_has_sent_are_dropped_from_the_window() {
    let mut partition = reading(-1, 0);
    push_all(&mut partition, 0..15);
    sent(&mut partition);
    partition.settle(0, &BatchOutcome::Already { stored: 12 });
    assert_eq!(sent(&mut partition), (12, 14, vec![13, 14]));
}

#[test]
fn a_refused_batch_stops_the_partition_with_the_reason() {
    let mut partition = reading(-1, 0);
    partition.add(record(0, 1));
    sent(&mut partition);
    partition.settle(
        0,
        &BatchOutcome::Refused {
            reason: "the topic was recreated".into(),
        },
    );
    assert_eq!(
        (partition.state(), partition.error().map(|(_, error)| error.to_string())),
        (SourceState::Stopped, Some("the topic was recreated".to_owned()))
    );
    assert!(!partition.add(record(1, 1)));
    assert!(matches!(partition.next_step(0), SenderStep::Wait));
    assert_eq!(partition.next_offset(), None, "the consumer does not read it");
}

#[test]
fn reading_pauses_above_the_limit_of_the_window_and_resumes_below_half() {
    let mut partition = reading(-1, 0);
    let mut offset = 0;
    while !partition.is_full(WINDOW_BYTES_MAX) {
        assert_eq!(partition.flow(WINDOW_BYTES_MAX, true), None);
        partition.add(record(offset, 1_000));
        offset += 1;
    }
    assert!(partition.buffered_bytes() > WINDOW_BYTES_MAX);
    assert_eq!(
        partition.flow(WINDOW_BYTES_MAX, false),
        None,
        "the thread is held back first"
    );
    assert_eq!(partition.flow(WINDOW_BYTES_MAX, true), Some(Flow::Pause));
    assert!(
        !partition.is_full(WINDOW_BYTES_MAX),
        "a paused partition holds back nothing"
    );
    assert_eq!(partition.flow(WINDOW_BYTES_MAX, true), None, "reported once");
    let mut resumed = None;
    while resumed.is_none() {
        let (_, through, _) = sent(&mut partition);
        partition.settle(0, &BatchOutcome::Applied { stored: through });
        assert!(partition.buffered_bytes() > 0 || partition.flow(WINDOW_BYTES_MAX, true).is_some());
        resumed = partition.flow(WINDOW_BYTES_MAX, true);
    }
    assert_eq!(resumed, Some(Flow::Resume));
    assert!(partition.buffered_bytes() < WINDOW_BYTES_MAX / 2);
}

#[test]
fn records_that_were_read_and_dropped_before_they_were_sent_are_not_reached() {
    let mut partition = reading(-1, 0);
    for offset in 0..10 {
        partition.add(record(offset, 10));
    }
    sent(&mut partition);
    assert_eq!(partition.reached(9), -1, "a batch is in flight");
    // The leaf does not answer: what it has must be asked for, and nothing is kept until then.
    partition.abandon_batch(0);
    partition.resolve(0);
    assert_eq!(partition.buffered_bytes(), 0);
    assert_eq!(partition.reached(9), -1);
    partition.begin(0, -1, 0);
    partition.seek_done();
    for offset in 0..10 {
        partition.add(record(offset, 10));
    }
    let (_, through, _) = sent(&mut partition);
    partition.settle(0, &BatchOutcome::Applied { stored: through });
    assert_eq!(partition.reached(through), through);
}

#[test]
fn caught_up_depends_on_the_end_event_and_not_on_an_offset() {
    let mut partition = reading(-1, 0);
    partition.note_end(3);
    partition.add(record(0, 1));
    partition.reached_end();
    assert_eq!(partition.state(), SourceState::Reading, "it is not acknowledged");
    sent(&mut partition);
    partition.settle(0, &BatchOutcome::Applied { stored: 0 });
    assert_eq!(
        (partition.state(), partition.end_and_lag()),
        (SourceState::CaughtUp, (Some(3), Some(0)))
    );
    partition.add(record(5, 1));
    partition.note_end(6);
    assert_eq!(
        (partition.state(), partition.end_and_lag()),
        (SourceState::Reading, (Some(6), Some(5)))
    );
}

#[test]
fn a_stopped_partition_ignores_end_offsets_that_the_client_saw_earlier() {
    let mut partition = Partition::new(LIMITS, &[], unspread(1));
    partition.note_offsets(0, 99, 50);
    partition.stop(
        0,
        Error::Shorter {
            partition: "s/0".into(),
            stored: 99,
            newest: 49,
        },
    );
    partition.note_end(100);
    assert_eq!(
        (partition.state(), partition.end_and_lag()),
        (SourceState::Stopped, (Some(50), Some(0)))
    );
    partition.note_offsets(0, 99, 120);
    assert_eq!(partition.end_and_lag(), (Some(120), Some(20)));
}

#[test]
fn batches_get_smaller_if_large_ones_do_not_get_through() {
    let mut partition = Partition::new(
        BatchLimits {
            batch_records_max: 1_000,
            batch_bytes_max: 512 << 10,
        },
        &[],
        unspread(1),
    );
    partition.begin(0, -1, 0);
    partition.seek_done();
    for offset in 0..10 {
        partition.add(record(offset, 60 << 10));
    }
    let first = sent(&mut partition);
    partition.abandon_batch(0);
    assert_eq!(
        [
            partition.halve_batches(0),
            partition.halve_batches(0),
            partition.halve_batches(0),
            partition.halve_batches(0)
        ],
        [256 << 10, 128 << 10, 64 << 10, 64 << 10]
    );
    partition.resolve(0);
    partition.begin(0, -1, 0);
    partition.seek_done();
    for offset in 0..10 {
        partition.add(record(offset, 60 << 10));
    }
    let second = sent(&mut partition);
    assert_eq!(
        (first.2.len(), second.2.len()),
        (8, 1),
        "records of a batch, before and after"
    );
}

#[test]
fn reading_starts_where_leaf_broker_and_skips_require() {
    use StartDecision::*;
    let early =
        |stored, low, high, skips: &[Skip]| decide_start(stored, -1, low, high, skips, PartitionStart::Earliest);
    assert_eq!(early(-1, 0, 0, &[]), From(0));
    assert_eq!(
        early(-1, 7, 9, &[]),
        From(7),
        "records that were deleted before the start are not lost"
    );
    assert_eq!(early(41, 0, 42, &[]), From(41), "at the last record, to compare it");
    assert_eq!(
        early(41, 42, 50, &[]),
        From(42),
        "the last stored record is deleted, nothing is lost"
    );
    assert_eq!(early(41, 45, 50, &[]), Lost { from: 42, through: 44 });
    assert_eq!(early(41, 0, 41, &[]), Shorter { end: 41 });
    let skip = |from, to| Skip::new(from, to);
    assert_eq!(early(41, 45, 50, &[skip(42, 45)]), From(45));
    assert_eq!(
        early(43, 45, 50, &[skip(42, 45)]),
        From(45),
        "the position has advanced since the request"
    );
    assert_eq!(
        early(41, 45, 50, &[skip(20, 30)]),
        Lost { from: 42, through: 44 },
        "an old skip is done"
    );
    assert_eq!(early(41, 0, 50, &[skip(42, 45), skip(42, 48), skip(20, 30)]), From(48));
    assert_eq!(
        early(41, 0, 50, &[skip(42, 42)]),
        From(42),
        "an empty skip suppresses the comparison of record 41"
    );
    assert_eq!(early(41, 45, 50, &[skip(42, 43)]), Lost { from: 43, through: 44 });
    assert_eq!(early(41, 0, 50, &[skip(42, 60)]), SkipAhead { to: 60, end: 50 });
    assert_eq!(early(-1, 0, 50, &[skip(0, 20)]), From(20));
    assert_eq!(
        early(30, 0, 50, &[skip(42, 45)]),
        From(30),
        "a leaf that is behind gets the missing records"
    );
    assert_eq!(
        decide_start(-1, 49, 0, 50, &[skip(42, 45)], PartitionStart::Earliest),
        From(0),
        "and so does a leaf that lost everything"
    );
    assert_eq!(
        decide_start(-1, -1, 3, 50, &[], PartitionStart::Latest),
        Advance { through: 49 }
    );
    assert_eq!(decide_start(-1, -1, 0, 0, &[], PartitionStart::Latest), From(0));
    assert_eq!(
        decide_start(10, 10, 0, 50, &[], PartitionStart::Latest),
        From(10),
        "the start of the source applies once"
    );
    assert_eq!(
        decide_start(-1, 30, 0, 50, &[], PartitionStart::Latest),
        From(0),
        "a leaf that lost its disk gets everything again"
    );
    let since =
        |stored, acknowledged, low, end| decide_start(stored, acknowledged, low, 50, &[], PartitionStart::At(end));
    assert_eq!(since(-1, -1, 3, 20), Advance { through: 19 }, "not at today's end");
    assert_eq!(
        since(-1, 30, 3, 20),
        Advance { through: 19 },
        "nor with what was before the source"
    );
    assert_eq!(since(-1, -1, 0, 0), From(0), "the partition was empty");
    assert_eq!(
        since(-1, -1, 3, 0),
        Lost { from: 0, through: 2 },
        "what came since is deleted"
    );
    assert_eq!(since(-1, -1, 3, 60), Shorter { end: 50 }, "it is another topic");
    assert_eq!(since(30, 30, 3, 20), From(30));
    assert_eq!(
        decide_start(-1, 30, 5, 50, &[], PartitionStart::Earliest),
        Lost { from: 0, through: 4 },
        "and deleted records are reported as lost"
    );
    assert_eq!(
        decide_start(-1, 30, 5, 50, &[skip(0, 5)], PartitionStart::Earliest),
        From(5)
    );
}

#[test]
fn skipped_records_are_left_out_even_if_a_leaf_is_filled_again() {
    let mut partition = Partition::new(
        LIMITS,
        &[Skip::new(2, 4), Skip::new(6, 6), Skip::new(8, 10)],
        unspread(1),
    );
    partition.begin(0, -1, 0);
    partition.seek_done();
    push_all(&mut partition, 0..10);
    assert_eq!(sent(&mut partition), (-1, 7, vec![0, 1, 4, 5, 6, 7]));
    partition.settle(0, &BatchOutcome::Applied { stored: 7 });
    partition.reached_end();
    assert_eq!(
        (partition.state(), partition.next_offset()),
        (SourceState::CaughtUp, Some(10))
    );
}

#[test]
fn a_sent_batch_counts_until_the_leaf_reports_that_it_was_not_applied() {
    let mut partition = reading(4, 5);
    push_all(&mut partition, 5..8);
    assert_eq!(partition.sent_through(), 4);
    assert_eq!(sent(&mut partition).1, 7);
    partition.abandon_batch(0);
    assert_eq!(
        (partition.sent_through(), partition.acknowledged(0)),
        (7, 4),
        "the batch may have been applied"
    );
    partition.begin(0, 6, 7);
    assert_eq!(partition.sent_through(), 7, "even if the leaf has another disk by now");
    partition.seek_done();
    push_all(&mut partition, 7..9);
    sent(&mut partition);
    partition.settle(0, &BatchOutcome::Gap { stored: 2 });
    assert_eq!(partition.sent_through(), 6);
}

/// A partition with two replicas, which have everything through these positions.
fn two(stored: [i64; 2]) -> Partition {
    let mut partition = Partition::new(LIMITS, &[], unspread(2));
    for (replica, stored) in stored.into_iter().enumerate() {
        partition.begin(replica, stored, stored.max(0));
    }
    partition.seek_done();
    partition
}

#[test]
fn each_replica_gets_every_record_and_the_window_keeps_what_one_of_them_lacks() {
    let mut partition = two([-1, -1]);
    push_all(&mut partition, 0..15);
    assert_eq!(sent_to(0, &mut partition), (-1, 9, (0..10).collect()));
    partition.settle(0, &BatchOutcome::Applied { stored: 9 });
    assert_eq!(sent_to(0, &mut partition), (9, 14, (10..15).collect()));
    partition.settle(0, &BatchOutcome::Applied { stored: 14 });
    assert!(partition.buffered_bytes() > 0, "the other replica has nothing yet");
    assert_eq!(sent_to(1, &mut partition), (-1, 9, (0..10).collect()));
    partition.settle(1, &BatchOutcome::Applied { stored: 9 });
    assert_eq!(sent_to(1, &mut partition), (9, 14, (10..15).collect()));
    partition.settle(1, &BatchOutcome::Applied { stored: 14 });
    assert_eq!(partition.buffered_bytes(), 0);
}

#[test]
fn reading_starts_at_the_replica_that_has_least_and_the_other_skips_what_it_has() {
    let mut partition = two([20, 10]);
    assert_eq!(partition.next_offset(), Some(10));
    push_all(&mut partition, 10..25);
    assert_eq!(sent_to(0, &mut partition), (20, 24, (20..25).collect()));
    assert_eq!(sent_to(1, &mut partition).2, (10..20).collect::<Vec<_>>());
}

#[test]
fn a_replica_that_lacks_records_which_have_left_the_window_is_behind_until_it_has_them() {
    let mut partition = Partition::new(LIMITS, &[], unspread(2));
    partition.begin(0, 99, 99);
    partition.seek_done();
    push_all(&mut partition, 99..105);
    partition.begin(1, 40, 40);
    assert!(matches!(partition.next_step(1), SenderStep::FeedApart));
    assert_eq!(partition.next_offset(), Some(105), "the others are not read again");
    sent_to(0, &mut partition);
    partition.settle(0, &BatchOutcome::Applied { stored: 104 });
    assert_eq!(partition.buffered_bytes(), 0, "no record waits for it");
    // It reaches the end of the log: from now on, the window is kept.
    partition.attach(1);
    push_all(&mut partition, 105..108);
    sent_to(0, &mut partition);
    partition.settle(0, &BatchOutcome::Applied { stored: 107 });
    assert!(!partition.can_begin(1, 103) && partition.can_begin(1, 104));
    partition.begin(1, 104, 104);
    assert_eq!(sent_to(1, &mut partition), (104, 107, (105..108).collect()));
}

#[test]
fn a_replica_whose_leaf_asks_for_earlier_records_does_not_stop_the_others() {
    let mut partition = two([-1, -1]);
    push_all(&mut partition, 0..5);
    sent_to(0, &mut partition);
    sent_to(1, &mut partition);
    partition.settle(1, &BatchOutcome::Gap { stored: -1 });
    assert!(matches!(partition.next_step(1), SenderStep::Resolve));
    partition.settle(0, &BatchOutcome::Applied { stored: 4 });
    assert_eq!(partition.state(), SourceState::Reading);
    partition.begin(1, -1, 0);
    assert_eq!(
        sent_to(1, &mut partition),
        (-1, 4, (0..5).collect()),
        "the window was kept for it"
    );
    partition.settle(
        1,
        &BatchOutcome::Refused {
            reason: "another topic".into(),
        },
    );
    assert_eq!(
        (
            partition.state(),
            partition.error().map(|(replica, error)| (replica, error.to_string()))
        ),
        (SourceState::Reading, Some((1, "another topic".to_owned())))
    );
    assert_eq!(partition.buffered_bytes(), 0);
}

/// A partition whose home is shard 0 until offset 8, and which belongs to shards 0 and 1 from there on.
fn spread() -> Partition {
    let (home, shards) = (parts(2, Vec::new())[0].share.shard, [0, 1]);
    let shards = shards.map(|shard| (home + shard) % 2);
    Partition::new(LIMITS, &[], parts(2, vec![run(8, &shards)]).into_iter())
}

#[test]
fn each_shard_gets_its_records_with_ranges_that_follow_each_other() {
    let mut partition = spread();
    partition.begin(0, -1, 0);
    partition.begin(1, 7, 8);
    partition.seek_done();
    assert_eq!(partition.next_offset(), Some(0), "both are read together");
    push_all(&mut partition, 0..8);
    assert!(
        matches!(partition.next_step(1), SenderStep::Wait),
        "nothing before the run belongs to it"
    );
    push_all(&mut partition, 8..21);
    assert_eq!(sent_to(0, &mut partition), (-1, 9, (0..10).collect()));
    assert_eq!(sent_to(1, &mut partition), (7, 20, vec![12, 13, 14, 15, 20]));
    partition.settle(1, &BatchOutcome::Applied { stored: 20 });
    assert_eq!(partition.stored(), -1, "the other shard has nothing yet");
    partition.settle(0, &BatchOutcome::Applied { stored: 9 });
    assert_eq!(sent_to(0, &mut partition), (9, 20, vec![10, 11, 16, 17, 18, 19]));
    partition.settle(0, &BatchOutcome::Applied { stored: 20 });
    assert_eq!((partition.stored(), partition.buffered_bytes()), (20, 0));
    push_all(&mut partition, 21..23);
    assert_eq!(
        sent_to(0, &mut partition),
        (20, 22, vec![]),
        "its position advances without records"
    );
}

#[test]
fn the_position_of_a_shard_follows_the_partition_after_its_last_run() {
    let home = parts(2, Vec::new())[0].share.shard;
    let other = (home + 1) % 2;
    let mut partition = Partition::new(LIMITS, &[], parts(2, vec![run(5, &[other])]).into_iter());
    partition.begin(0, -1, 0);
    partition.begin(1, 4, 5);
    partition.seek_done();
    push_all(&mut partition, 0..9);
    assert_eq!(sent_to(0, &mut partition), (-1, 8, (0..5).collect()));
    partition.settle(0, &BatchOutcome::Applied { stored: 8 });
    assert_eq!(sent_to(1, &mut partition), (4, 8, (5..9).collect()));
    partition.settle(1, &BatchOutcome::Applied { stored: 8 });
    push_all(&mut partition, 9..11);
    assert_eq!(sent_to(0, &mut partition), (8, 10, vec![]));
}

#[test]
fn records_that_no_leaf_accepts_yet_are_held_back_with_the_reason() {
    let mut partition = reading(-1, 0);
    partition.hold(Some((5, Error::Stopping)));
    push_all(&mut partition, 0..5);
    assert_eq!(partition.held_back(), None, "none was read");
    push_all(&mut partition, 5..8);
    assert_eq!(sent(&mut partition), (-1, 4, (0..5).collect()));
    partition.settle(0, &BatchOutcome::Applied { stored: 4 });
    assert!(matches!(partition.next_step(0), SenderStep::Wait));
    assert_eq!(
        (partition.state(), partition.held_back()),
        (SourceState::Waiting, Some(&Error::Stopping))
    );
    partition.hold(None);
    assert_eq!(sent(&mut partition), (4, 7, (5..8).collect()));
}

#[test]
fn a_batch_that_reaches_into_records_that_are_held_back_by_now_is_sent_without_them() {
    let mut partition = reading(-1, 0);
    push_all(&mut partition, 0..8);
    assert_eq!(sent(&mut partition), (-1, 7, (0..8).collect()));
    partition.mark_not_applied(0);
    partition.hold(Some((5, Error::Stopping)));
    assert!(partition.holds(7) && !partition.holds(4));
    partition.abandon_batch(0);
    assert_eq!(sent(&mut partition), (-1, 4, (0..5).collect()));
    partition.settle(0, &BatchOutcome::Applied { stored: 4 });
    partition.hold(None);
    assert_eq!(sent(&mut partition), (4, 7, (5..8).collect()));
}

#[test]
fn the_log_is_not_read_on_for_a_replica_that_is_left_behind() {
    let shards = parts(2, vec![run(8, &[0, 1])]);
    let [one, other] = [0, 1].map(|at: usize| shards[at].clone());
    let mut partition = Partition::new(LIMITS, &[], [one.clone(), one, other].into_iter());
    let far = 10 * FAR_OFFSETS;
    partition.begin(1, 9, 9);
    partition.begin(2, far, far);
    partition.seek_done();
    partition.begin(0, far, far);
    assert!(matches!(partition.next_step(1), SenderStep::FeedApart));
    assert!(
        matches!(partition.next_step(2), SenderStep::Resolve),
        "it is positioned anew"
    );
    partition.begin(2, far, far);
    assert_eq!(partition.next_offset(), Some(far));
}

#[test]
fn a_refusal_stops_the_other_shards_once_no_replica_of_its_own_goes_on() {
    let shards = parts(2, vec![run(8, &[0, 1])]);
    let [one, other] = [0, 1].map(|at: usize| shards[at].clone());
    let mut partition = Partition::new(LIMITS, &[], [one.clone(), one, other].into_iter());
    (0..3).for_each(|replica| partition.begin(replica, 20, 20));
    let refusal = Error::BatchRefused { reason: "why".into() };
    for replica in [0, 1] {
        assert!(partition.is_sending(2));
        partition.stop(replica, refusal.clone());
        partition.stop_other_shards(replica, &refusal);
    }
    assert!(partition.is_stopped());
}

#[test]
fn a_skip_of_one_shard_leaves_the_records_of_the_others() {
    let skip = Skip {
        shard: Some(1),
        ..Skip::new(8, 14)
    };
    let mut partition = Partition::new(LIMITS, &[skip], parts(2, vec![run(8, &[0, 1])]).into_iter());
    for (replica, part) in parts(2, vec![run(8, &[0, 1])]).into_iter().enumerate() {
        let from = part.share.from;
        partition.begin(replica, from - 1, from);
    }
    partition.seek_done();
    push_all(&mut partition, 8..17);
    let of_shard = |shard| {
        parts(2, vec![run(8, &[0, 1])])
            .iter()
            .position(|part| part.share.shard == shard)
    };
    let [zeroth, first] = [0, 1].map(|shard| of_shard(shard).expect("it has a share"));
    assert_eq!(sent_to(zeroth, &mut partition).2, [8, 9, 10, 11, 16]);
    assert_eq!(sent_to(first, &mut partition).2, [14, 15]);
}

#[test]
fn the_other_shards_skip_what_only_a_stopped_one_needed() {
    let mut partition = spread();
    let far = 10 * FAR_OFFSETS;
    partition.begin(0, 9, 9);
    partition.begin(1, far, far);
    partition.seek_done();
    partition.stop(0, Error::Stopping);
    assert!(matches!(partition.next_step(1), SenderStep::Resolve));
    partition.begin(1, far, far);
    assert_eq!(partition.next_offset(), Some(far));
}

#[test]
fn all_shards_go_back_for_one_whose_records_have_left_the_window() {
    let mut partition = spread();
    partition.begin(1, 15, 15);
    partition.seek_done();
    push_all(&mut partition, 15..21);
    sent_to(1, &mut partition);
    partition.begin(0, 9, 9);
    assert_eq!(partition.next_offset(), Some(9));
    partition.settle(1, &BatchOutcome::Applied { stored: 20 });
    assert!(matches!(partition.next_step(1), SenderStep::Resolve));
    partition.begin(1, 20, 20);
    partition.seek_done();
    push_all(&mut partition, 9..25);
    assert_eq!(sent_to(0, &mut partition), (9, 24, vec![9, 10, 11, 16, 17, 18, 19, 24]));
    assert_eq!(sent_to(1, &mut partition), (20, 24, vec![20, 21, 22, 23]));
}

#[test]
fn the_last_record_of_a_shard_is_sent_again_however_far_the_others_are() {
    let mut partition = spread();
    // Shard 1 has everything through 18, but its last record is 15.
    partition.begin(1, 18, 15);
    partition.begin(0, 18, 18);
    partition.seek_done();
    push_all(&mut partition, 15..21);
    assert_eq!(sent_to(1, &mut partition), (15, 20, vec![15, 20]));
}

#[test]
fn the_backoff_doubles_up_to_its_limit() {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(15));
    assert_eq!(
        [backoff.next(), backoff.next(), backoff.next()].map(|d| d.as_millis()),
        [5, 10, 15]
    );
    backoff.reset();
    assert_eq!(backoff.next().as_millis(), 5);
}

/// The parts of so many replicas of one shard.
fn unspread(replicas: usize) -> impl Iterator<Item = Part> {
    parts(1, Vec::new()).into_iter().cycle().take(replicas)
}

/// The parts of all shards of a partition, the home first.
fn parts(shards: u32, runs: Vec<Run>) -> Vec<Part> {
    let source: proto::SourceName = "clicks".parse().expect("a name");
    let of = PartitionRuns {
        source: source.clone(),
        partition: 0,
        runs,
        proposed: None,
    };
    let route = Arc::new(PartitionRoute::new(&source, 0, shards, &[of]));
    let part = |share| Part {
        share,
        route: route.clone(),
    };
    route.shares().into_iter().map(part).collect()
}

fn run(from: i64, shards: &[u32]) -> Run {
    Run {
        from,
        shards: shards.to_vec(),
        block: 4,
    }
}

fn reading(stored: i64, from: i64) -> Partition {
    let mut partition = Partition::new(LIMITS, &[], unspread(1));
    partition.begin(0, stored, from);
    partition.seek_done();
    partition
}

fn push_all(partition: &mut Partition, offsets: impl IntoIterator<Item = i64>) {
    for offset in offsets {
        partition.add(record(offset, 1));
    }
}

fn record(offset: i64, bytes: usize) -> Record {
    Record {
        offset,
        value: RecordValue::One(Bytes::from(vec![b'x'; bytes])),
        ..Record::default()
    }
}

fn sent(partition: &mut Partition) -> (i64, i64, Vec<i64>) {
    sent_to(0, partition)
}

fn sent_to(replica: usize, partition: &mut Partition) -> (i64, i64, Vec<i64>) {
    match partition.next_step(replica) {
        SenderStep::Send(out) => (out.after, out.through, out.records.iter().map(|r| r.offset).collect()),
        other => panic!("nothing to send: {other:?}"),
    }
}
