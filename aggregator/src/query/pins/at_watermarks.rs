//! Pins shards so that no answer goes back in time: each read view covers the shard's watermark, if its leaf can catch
//! up in time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use plan::scan::PinnedShard;
use proto::{Code, PositionVector, Problem, ingest::ShardId};

use super::super::{context::QueryContext, watermarks::WantedPositions};

/// How long a query waits for a shard to reach its watermark.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// A leaf gives up waiting this long before the query's deadline, so that it can still answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);
type Outcomes = Vec<Result<PinnedShard, Problem>>;

/// Pins shards at the wanted positions or at their watermarks, whichever are higher. A shard that cannot reach its
/// watermark in time is pinned as it is, with a warning.
pub(super) async fn pin_at_watermarks(
    context: &Arc<QueryContext>,
    wanted: WantedPositions,
) -> Vec<(ShardId, Result<PinnedShard, Problem>)> {
    let watermarks = &context.watermarks;
    let deadline = context.deadline();
    let end = deadline - (deadline.saturating_duration_since(Instant::now()) / 10).min(ANSWER_MARGIN);
    let catch_up_until = end.min(Instant::now() + CATCH_UP_WAIT);
    let initial = watermarks.raised(&wanted);
    let failed_before: Vec<bool> = wanted
        .iter()
        .map(|(shard, _)| watermarks.has_catch_up_failed(*shard))
        .collect();
    let requested: WantedPositions = (0..wanted.len())
        .map(|at| {
            if failed_before[at] {
                wanted[at].clone()
            } else {
                initial[at].clone()
            }
        })
        .collect();
    let mut outcomes = context
        .leaf
        .pin_all(context.read_view_id, &requested, catch_up_until)
        .await;

    let unconfirmed = watermarks.unconfirmed(&boots(&wanted, &outcomes));
    // If there is nothing to confirm, the first targets stay, however far other queries have raised the watermarks
    // since.
    let (required, uncovered) = if unconfirmed.is_empty() {
        (initial.clone(), Vec::new())
    } else {
        let uncovered = watermarks.confirm(unconfirmed, catch_up_until).await;
        (watermarks.raised(&wanted), uncovered)
    };

    let behind = indexes(&outcomes, |at, outcome| {
        let is_behind = |pinned: &PinnedShard| required[at] != initial[at] && !pinned.positions.covers(&required[at].1);
        !failed_before[at] && outcome.as_ref().is_ok_and(is_behind)
    });
    pin_again(context, &behind, &required, catch_up_until, &mut outcomes).await;
    let late = indexes(&outcomes, |_, outcome| {
        outcome.as_ref().is_err_and(|problem| problem.code == Code::Timeout)
    });
    pin_again(context, &late, &wanted, end, &mut outcomes).await;

    for at in 0..wanted.len() {
        let (shard, Ok(pinned)) = (wanted[at].0, &outcomes[at]) else {
            continue;
        };
        let is_uncovered = uncovered.iter().any(|(of, _)| *of == shard);
        let lags = (failed_before[at] || late.contains(&at)) && !pinned.positions.covers(&required[at].1);
        if is_uncovered || lags || failed_before[at] {
            watermarks.set_catch_up_failed(shard, is_uncovered || lags);
        }
        if lags {
            warn_lagging(context, shard, &pinned.positions.describe_missing(&required[at].1));
        } else if is_uncovered {
            warn_uncovered(context, shard);
        }
        watermarks.advance(shard, &pinned.positions);
    }
    wanted.into_iter().map(|(shard, _)| shard).zip(outcomes).collect()
}

fn warn_lagging(context: &QueryContext, shard: ShardId, lacking: &str) {
    context.report.warn(format!(
        "shard {} is behind earlier answers or acknowledged pushes and lacks {lacking}",
        shard.number
    ));
}

fn warn_uncovered(context: &QueryContext, shard: ShardId) {
    context.report.warn(format!(
        "shard {} may lack pushes from before its leaf started: the tailers do not read all its push partitions yet",
        shard.number
    ));
}

/// The shards that are pinned, with the boot ids of their leaves.
fn boots(wanted: &[(ShardId, PositionVector)], outcomes: &Outcomes) -> Vec<(ShardId, u64)> {
    wanted
        .iter()
        .zip(outcomes)
        .filter_map(|((shard, _), pinned)| Some((*shard, pinned.as_ref().ok()?.boot)))
        .collect()
}

fn indexes(outcomes: &Outcomes, which: impl Fn(usize, &Result<PinnedShard, Problem>) -> bool) -> Vec<usize> {
    (0..outcomes.len()).filter(|at| which(*at, &outcomes[*at])).collect()
}

/// Pins the shards at these indexes again and replaces their outcomes.
async fn pin_again(
    context: &Arc<QueryContext>,
    indexes: &[usize],
    wanted: &[(ShardId, PositionVector)],
    until: Instant,
    outcomes: &mut Outcomes,
) {
    if indexes.is_empty() {
        return;
    }
    let again: WantedPositions = indexes.iter().map(|at| wanted[*at].clone()).collect();
    for (at, outcome) in indexes
        .iter()
        .zip(context.leaf.pin_all(context.read_view_id, &again, until).await)
    {
        outcomes[*at] = outcome;
    }
}
