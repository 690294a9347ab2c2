//! What this aggregator has answered: no later answer is behind it, while the leaves can do better.
//!
//! A leaf that comes back from an older disk holds less than it did, until the log has brought the rest again. A question waits for that, for
//! a moment; then it is answered with what there is, and says so.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use plan::scan::Pinned;
use proto::{Code, PositionVector, Problem, ingest::ShardId};

use super::context::QueryContext;

/// How long a question waits for what was answered before.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// How long before the end of a question a leaf says that it has waited in vain.
const END_EARLIER: Duration = Duration::from_millis(200);
/// Shards that are remembered.
const SHARDS_MAX: usize = 65_536;

/// How far the answers of each shard have been.
#[derive(Debug, Default)]
pub(super) struct Answered(Mutex<HashMap<ShardId, PositionVector>>);

impl Answered {
    fn of(&self, shard: ShardId) -> PositionVector {
        self.0.lock().get(&shard).cloned().unwrap_or_default()
    }

    fn advance(&self, shard: ShardId, positions: &PositionVector) {
        let mut answered = self.0.lock();
        if answered.len() >= SHARDS_MAX && !answered.contains_key(&shard) {
            answered.clear();
        }
        answered.entry(shard).or_default().merge(positions);
    }

    fn set_back(&self, shard: ShardId, positions: &PositionVector) {
        self.0.lock().insert(shard, positions.clone());
    }
}

/// Pins shards at what is wanted of each, and at what was answered of it before.
pub(super) async fn pin(context: &Arc<QueryContext>, wanted: Vec<(ShardId, PositionVector)>) -> Vec<(ShardId, Result<Pinned, Problem>)> {
    let both = wanted.iter().map(|(shard, at_least)| {
        let mut both = context.answered.of(*shard);
        both.merge(at_least);
        (*shard, both)
    });
    let both: Vec<(ShardId, PositionVector)> = both.collect();
    // Where a question itself asks for no more, there is no reason to wait longer than for the leaf to catch up.
    // All of it ends a little before the question's own end, so that the leaf can say what it lacks.
    let end = context.deadline - (context.deadline.saturating_duration_since(Instant::now()) / 10).min(END_EARLIER);
    let soon = end.min(Instant::now() + CATCH_UP_WAIT);
    let mut outcomes = context.leaf.pin_all(context.id, &both, soon).await;
    let late: Vec<usize> = (0..wanted.len()).filter(|at| outcomes[*at].as_ref().is_err_and(|problem| problem.code == Code::Timeout)).collect();
    if !late.is_empty() {
        let again: Vec<(ShardId, PositionVector)> = late.iter().map(|at| wanted[*at].clone()).collect();
        let told = context.leaf.pin_all(context.id, &again, end).await;
        for (at, outcome) in late.into_iter().zip(told) {
            if let Ok(pinned) = &outcome
                && !pinned.positions.covers(&both[at].1)
            {
                context.report.warn(format!(
                    "shard {} holds less than an earlier answer of this aggregator had: it is at {}, that one was at {}",
                    wanted[at].0.number, pinned.positions, both[at].1
                ));
                context.answered.set_back(wanted[at].0, &pinned.positions);
            }
            outcomes[at] = outcome;
        }
    }
    let told = wanted.into_iter().map(|(shard, _)| shard).zip(outcomes);
    told.inspect(|(shard, outcome)| {
        if let Ok(pinned) = outcome {
            context.answered.advance(*shard, &pinned.positions);
        }
    })
    .collect()
}
