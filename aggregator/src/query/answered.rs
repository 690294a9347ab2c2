//! What this aggregator has answered or acknowledged: no later answer is behind it, while the leaves can do better.
//!
//! A leaf that comes back from an older disk holds less than it did, until the log has brought the rest again. A question waits for that, for
//! a moment; then it is answered with what there is, and says so. Once one has waited in vain, others wait no more and say it too. What came
//! in past this aggregator the tailers know: they are asked once after each start of a leaf.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use plan::scan::Pinned;
use proto::{
    Catalog, Code, Position, PositionVector, Problem,
    ingest::ShardId,
    routing::shard_of,
    status::{SourceState, TailStatus},
    tailer::Tailing,
};
use tokio::sync::watch;
use tracing::debug;

use super::context::QueryContext;

/// How long a question waits for what was answered before.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// How long before the end of a question a leaf says that it has waited in vain.
const END_EARLIER: Duration = Duration::from_millis(200);
/// Shards that are remembered.
const SHARDS_MAX: usize = 65_536;
/// How long tailers may take to say what leaves have acknowledged, and after what time they are asked again if they did not.
const TAILERS_WAIT: Duration = Duration::from_secs(1);
const TAILERS_AGAIN: Duration = Duration::from_secs(2);

/// How far the answers of each shard have been.
pub(super) struct Answered {
    tailing: Arc<dyn Tailing>,
    catalog: watch::Receiver<Arc<Catalog>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    shards: HashMap<ShardId, Seen>,
    /// The starts of leaves after which the tailers have been asked.
    boots: HashSet<u64>,
    asked_in_vain: Option<Instant>,
}

/// What was seen of a shard.
#[derive(Default, Clone)]
struct Seen {
    positions: PositionVector,
    /// Whether a question has waited for them, and they did not come.
    in_vain: bool,
}

impl Known {
    fn advance(&mut self, shard: ShardId, positions: &PositionVector) {
        if self.shards.len() >= SHARDS_MAX && !self.shards.contains_key(&shard) {
            *self = Self::default();
        }
        self.shards.entry(shard).or_default().positions.merge(positions);
    }
}

impl Answered {
    /// Nothing yet.
    pub fn new(tailing: Arc<dyn Tailing>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self { tailing, catalog, known: Mutex::default() }
    }

    /// How far answers of a shard have been.
    pub fn of(&self, shard: ShardId) -> PositionVector {
        self.known.lock().shards.get(&shard).map(|seen| seen.positions.clone()).unwrap_or_default()
    }

    /// A shard was this far.
    pub fn advance(&self, shard: ShardId, positions: &PositionVector) {
        self.known.lock().advance(shard, positions);
    }

    fn is_in_vain(&self, shard: ShardId) -> bool {
        self.known.lock().shards.get(&shard).is_some_and(|seen| seen.in_vain)
    }

    fn set_in_vain(&self, shard: ShardId, in_vain: bool) {
        if let Some(seen) = self.known.lock().shards.get_mut(&shard) {
            seen.in_vain = in_vain;
        }
    }

    /// What is wanted of each, and what was answered before.
    fn with(&self, wanted: &[(ShardId, PositionVector)]) -> Vec<(ShardId, PositionVector)> {
        let both = wanted.iter().map(|(shard, at_least)| {
            let mut both = self.of(*shard);
            both.merge(at_least);
            (*shard, both)
        });
        both.collect()
    }

    /// Asks the tailers what leaves have acknowledged, if one of these starts of a leaf is new; whether they said it. Where no tailer answers,
    /// nobody knows better.
    async fn hear_of(&self, boots: HashSet<u64>) -> bool {
        {
            let known = self.known.lock();
            if boots.is_subset(&known.boots) || known.asked_in_vain.is_some_and(|at| at.elapsed() < TAILERS_AGAIN) {
                return false;
            }
        }
        let told = tokio::time::timeout(TAILERS_WAIT, self.tailing.status()).await;
        let catalog = self.catalog.borrow().clone();
        let mut known = self.known.lock();
        match told {
            Ok(Ok(rows)) => {
                for (shard, position) in rows.iter().filter_map(|row| sent(&catalog, row)) {
                    known.advance(shard, &PositionVector::from_iter([position]));
                }
                if known.boots.len() >= SHARDS_MAX {
                    known.boots.clear();
                }
                // A tailer that has just started does not know yet.
                if !rows.iter().any(|row| row.source.is_push() && row.state == SourceState::Starting) {
                    known.boots.extend(boots);
                }
                known.asked_in_vain = None;
                true
            }
            other => {
                debug!(?other, "no tailer says what a leaf that was started has acknowledged before");
                known.asked_in_vain = Some(Instant::now());
                false
            }
        }
    }
}

/// How far a shard can have been, as a row of a tailer says.
fn sent(catalog: &Catalog, row: &TailStatus) -> Option<(ShardId, Position)> {
    let (partition, offset) = (row.partition?, row.sent?);
    let collection = catalog.collections.get(&row.collection)?;
    let shard = ShardId { collection: collection.uid, number: shard_of(&row.source, partition, collection.settings.shards) };
    Some((shard, Position { source: row.source.clone(), partition, offset }))
}

/// Pins shards at what is wanted of each, and at what was answered of it before.
pub(super) async fn pin(context: &Arc<QueryContext>, wanted: Vec<(ShardId, PositionVector)>) -> Vec<(ShardId, Result<Pinned, Problem>)> {
    let (leaf, answered) = (&context.leaf, &context.answered);
    // Where a question itself asks for no more, there is no reason to wait longer than for the leaf to catch up.
    // All of it ends a little before the question's own end, so that the leaf can say what it lacks.
    let end = context.deadline - (context.deadline.saturating_duration_since(Instant::now()) / 10).min(END_EARLIER);
    let soon = end.min(Instant::now() + CATCH_UP_WAIT);
    let known = answered.with(&wanted);
    let in_vain: Vec<bool> = wanted.iter().map(|(shard, _)| answered.is_in_vain(*shard)).collect();
    let asked: Vec<_> = (0..wanted.len()).map(|at| if in_vain[at] { wanted[at].clone() } else { known[at].clone() }).collect();
    let mut outcomes = leaf.pin_all(context.id, &asked, soon).await;
    // Otherwise it stays with what was known when it was asked, however much others have been answered meanwhile.
    let heard = answered.hear_of(outcomes.iter().flatten().map(|pinned| pinned.boot).collect()).await;
    let both = if heard { answered.with(&wanted) } else { known.clone() };
    let lacks = |at: usize, pinned: &Pinned| both[at] != known[at] && !pinned.positions.covers(&both[at].1);
    let behind = places(&outcomes, |at, outcome| !in_vain[at] && outcome.as_ref().is_ok_and(|pinned| lacks(at, pinned)));
    pin_again(context, &behind, &both, soon, &mut outcomes).await;
    let late = places(&outcomes, |_, outcome| outcome.as_ref().is_err_and(|problem| problem.code == Code::Timeout));
    pin_again(context, &late, &wanted, end, &mut outcomes).await;
    for at in (0..wanted.len()).filter(|at| in_vain[*at] || late.contains(at)) {
        let Ok(pinned) = &outcomes[at] else { continue };
        let (shard, complete) = (wanted[at].0, pinned.positions.covers(&both[at].1));
        answered.set_in_vain(shard, !complete);
        if !complete {
            let lacking = pinned.positions.lacking(&both[at].1);
            context.report.warn(format!("shard {} lacks what was answered or pushed before: {lacking}", shard.number));
        }
    }
    let told = wanted.into_iter().map(|(shard, _)| shard).zip(outcomes);
    told.inspect(|(shard, outcome)| {
        if let Ok(pinned) = outcome {
            answered.advance(*shard, &pinned.positions);
        }
    })
    .collect()
}

type Outcomes = Vec<Result<Pinned, Problem>>;

fn places(outcomes: &Outcomes, which: impl Fn(usize, &Result<Pinned, Problem>) -> bool) -> Vec<usize> {
    (0..outcomes.len()).filter(|at| which(*at, &outcomes[*at])).collect()
}

/// Pins some of the shards once more.
async fn pin_again(context: &Arc<QueryContext>, places: &[usize], wanted: &[(ShardId, PositionVector)], until: Instant, outcomes: &mut Outcomes) {
    if places.is_empty() {
        return;
    }
    let again: Vec<(ShardId, PositionVector)> = places.iter().map(|at| wanted[*at].clone()).collect();
    for (at, outcome) in places.iter().zip(context.leaf.pin_all(context.id, &again, until).await) {
        outcomes[*at] = outcome;
    }
}
