//! When the next snapshot is due, and which are not needed any more.

use std::time::Duration;

use proto::snapshot::SnapshotId;
use uuid::Uuid;

use crate::{Known, Running, Summary, Work};

/// How long nothing is begun after something has failed.
const RETRY_AFTER: Duration = Duration::from_mins(5);
/// How far the clocks of two nodes may differ, in milliseconds.
const CLOCKS_DIFFER_MAX_MS: i64 = 10 * 60 * 1_000;

/// The snapshots of one cluster that its schedule has taken. Others may be in the same store.
pub fn of_schedule(known: Vec<Known>, cluster: Option<Uuid>) -> Vec<(SnapshotId, Summary)> {
    let readable = known.into_iter().filter_map(|(id, summary)| Some((id, summary.ok()?)));
    readable
        .filter(|(_, summary)| summary.scheduled && summary.cluster == cluster)
        .collect()
}

/// How old the newest one is; `None` without any. One from far in the future was taken by a clock that was wrong.
pub fn age(scheduled: &[(SnapshotId, Summary)], now_ms: i64) -> Option<Duration> {
    let begun = scheduled.iter().map(|(_, summary)| summary.begun_ms);
    let newest = begun
        .filter(|begun_ms| *begun_ms <= now_ms + CLOCKS_DIFFER_MAX_MS)
        .max()?;
    Some(since(newest, now_ms))
}

/// Whether a snapshot is to be taken now, if one is to be taken that often.
pub fn is_due(scheduled: &[(SnapshotId, Summary)], works: &[Running], every: Duration, now_ms: i64) -> bool {
    let has_failed_lately =
        |work: &Running| work.work == Work::Take && since(work.begun_ms, now_ms) < RETRY_AFTER.min(every);
    let keeps_waiting = |work: &Running| work.error.is_none() || has_failed_lately(work);
    age(scheduled, now_ms).is_none_or(|age| age >= every) && !works.iter().any(keeps_waiting)
}

/// The snapshots of the schedule beyond the newest `kept` ones.
pub fn surplus(scheduled: &[(SnapshotId, Summary)], kept: usize) -> Vec<SnapshotId> {
    let mut newest_first: Vec<(i64, &SnapshotId)> =
        scheduled.iter().map(|(id, summary)| (summary.begun_ms, id)).collect();
    newest_first.sort_by(|a, b| b.cmp(a));
    newest_first
        .into_iter()
        .skip(kept.max(1))
        .map(|(_, id)| id.clone())
        .collect()
}

/// Snapshots by age, the newest first; those from far in the future, which a wrong clock has taken, last.
pub fn newest_first(known: Vec<(SnapshotId, Summary)>, now_ms: i64) -> Vec<SnapshotId> {
    let is_from_future = |summary: &Summary| summary.begun_ms > now_ms + CLOCKS_DIFFER_MAX_MS;
    let mut all: Vec<(bool, i64, SnapshotId)> = known
        .into_iter()
        .map(|(id, summary)| (!is_from_future(&summary), summary.begun_ms, id))
        .collect();
    all.sort_by(|a, b| b.cmp(a));
    all.into_iter().map(|(_, _, id)| id).collect()
}

fn since(then_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis((now_ms - then_ms).max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use proto::{Code, Problem};

    use super::*;

    /// A snapshot of cluster 1.
    fn known(id: &str, begun_ms: i64, scheduled: bool) -> Known {
        let summary = Summary {
            cluster: Some(Uuid::from_u128(1)),
            by: "aggregator-1".to_owned(),
            scheduled,
            begun_ms,
            ended_ms: begun_ms,
            collections: Vec::new(),
            uids: Vec::new(),
            shards: 0,
            bytes: 0,
            written: 0,
        };
        (id.parse().expect("a name"), Ok(summary))
    }

    #[test]
    fn a_snapshot_of_a_wrong_clock_is_not_the_newest() {
        let now_ms = 1_000 * CLOCKS_DIFFER_MAX_MS;
        let snapshots = of_cluster(vec![
            known("a", now_ms - 20, true),
            known("b", now_ms + 2 * CLOCKS_DIFFER_MAX_MS, true),
            known("c", now_ms - 10, true),
        ]);
        let ids: Vec<String> = newest_first(snapshots, now_ms)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(ids, ["c", "a", "b"]);
    }

    fn of_cluster(known: Vec<Known>) -> Vec<(SnapshotId, Summary)> {
        of_schedule(known, Some(Uuid::from_u128(1)))
    }

    fn work(work: Work, begun_ms: i64, error: Option<&str>) -> Running {
        Running {
            id: "w".parse().expect("a name"),
            work,
            by: "aggregator-2".to_owned(),
            begun_ms,
            bytes: 0,
            total: 0,
            written: 0,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_snapshot_is_due_once_the_last_one_of_the_schedule_is_old_and_nothing_is_being_done() {
        let (hour, now) = (Duration::from_hours(1), 10_000_000);
        let recent = of_cluster(vec![known("a", now - 1_000_000, true)]);
        let old = of_cluster(vec![known("a", now - 4_000_000, true), known("b", now - 1_000, false)]);
        assert!(is_due(&[], &[], hour, now) && is_due(&old, &[], hour, now) && !is_due(&recent, &[], hour, now));
        let wrong_clock = of_cluster(vec![
            known("a", now + 900_000_000, true),
            known("b", now - 4_000_000, true),
        ]);
        assert!(is_due(&wrong_clock, &[], hour, now));
        for (kind, begun_ms, error, due) in [
            (Work::Take, now - 9_000_000, None, false),
            (Work::Remove, now, None, false),
            (Work::Take, now - 60_000, Some("no room"), false),
            (Work::Take, now - 600_000, Some("no room"), true),
            (Work::Remove, now, Some("no room"), true),
        ] {
            assert_eq!(
                is_due(&old, &[work(kind, begun_ms, error)], hour, now),
                due,
                "{kind:?} {error:?}"
            );
        }
    }

    #[test]
    fn the_newest_of_the_schedule_stay_and_all_that_others_have_taken() {
        let unreadable = (
            "z".parse().expect("a name"),
            Err(Problem::new(Code::Unavailable, "damaged")),
        );
        let mut of_other = known("e", 5, true);
        of_other.1.as_mut().expect("a summary").cluster = Some(Uuid::from_u128(2));
        let scheduled = of_cluster(vec![
            known("a", 1, true),
            known("b", 2, false),
            known("c", 3, true),
            known("d", 4, true),
            unreadable,
            of_other,
        ]);
        let removed = |kept| {
            let ids = surplus(&scheduled, kept);
            ids.iter().map(SnapshotId::to_string).collect::<Vec<_>>()
        };
        assert_eq!((removed(2), removed(3)), (vec!["a".to_owned()], vec![]));
        assert_eq!(removed(0), ["c", "a"], "one stays always");
    }
}
