//! What this aggregator has answered or acknowledged: no later answer is behind it, while the leaves can do better.
//!
//! A leaf that comes back from an older disk holds less than it did, until the log has brought the rest again. A
//! question waits for that, for a moment; then it is answered with what there is, and says so. Once one has waited in
//! vain, others wait no more and say it too. What came in past this aggregator the tailers know: they are asked after
//! each start of a leaf, until they speak of every partition of the pushes.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use plan::scan::Pinned;
use proto::{
    Catalog, Code, Position, PositionVector, Problem, SourceName,
    ingest::ShardId,
    routing::shard_of,
    status::{SourceState, TailStatus},
    tailer::Tailing,
};
use tokio::sync::watch;

use super::context::QueryContext;

/// How long a question waits for what was answered before.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// How long before the end of a question a leaf says that it has waited in vain.
const END_EARLIER: Duration = Duration::from_millis(200);
/// Shards that are remembered.
const SHARDS_MAX: usize = 65_536;
/// How long tailers may take to say what leaves have acknowledged, and after what time they are asked again if they did
/// not.
const TAILERS_WAIT: Duration = Duration::from_secs(1);
const TAILERS_AGAIN: Duration = Duration::from_millis(100);

/// How far the answers of each shard have been.
pub(super) struct Answered {
    tailing: Arc<dyn Tailing>,
    catalog: watch::Receiver<Arc<Catalog>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    shards: HashMap<ShardId, Seen>,
}

/// What was seen of a shard.
#[derive(Default, Clone)]
struct Seen {
    positions: PositionVector,
    /// Whether a question has waited for them, or for tailers to say what they are, in vain.
    in_vain: bool,
    /// The start of its leaf after which the tailers have spoken of it.
    boot: Option<u64>,
}

impl Known {
    /// What was seen of a shard. Where there are too many, all is forgotten.
    fn seen(&mut self, shard: ShardId) -> &mut Seen {
        if self.shards.len() >= SHARDS_MAX && !self.shards.contains_key(&shard) {
            self.shards.clear();
        }
        self.shards.entry(shard).or_default()
    }
}

impl Answered {
    /// Nothing yet.
    pub fn new(tailing: Arc<dyn Tailing>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            tailing,
            catalog,
            known: Mutex::default(),
        }
    }

    /// How far answers of a shard have been.
    pub fn of(&self, shard: ShardId) -> PositionVector {
        self.known
            .lock()
            .shards
            .get(&shard)
            .map(|seen| seen.positions.clone())
            .unwrap_or_default()
    }

    /// A shard was this far.
    pub fn advance(&self, shard: ShardId, positions: &PositionVector) {
        self.known.lock().seen(shard).positions.merge(positions);
    }

    fn is_in_vain(&self, shard: ShardId) -> bool {
        self.known.lock().shards.get(&shard).is_some_and(|seen| seen.in_vain)
    }

    fn set_in_vain(&self, shard: ShardId, in_vain: bool) {
        self.known.lock().seen(shard).in_vain = in_vain;
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

    /// Which of these shards may lack something that this aggregator does not know of: their leaves were started since
    /// the tailers were asked.
    fn not_heard_of(&self, pinned: &[(ShardId, u64)]) -> Vec<(ShardId, u64)> {
        let known = self.known.lock();
        pinned
            .iter()
            .filter(|(shard, boot)| known.shards.get(shard).is_none_or(|seen| seen.boot != Some(*boot)))
            .copied()
            .collect()
    }

    /// Asks the tailers what these shards may have had; which of them nobody speaks of, though pushes go there.
    async fn hear_of(&self, started: Vec<(ShardId, u64)>) -> Vec<(ShardId, u64)> {
        let told = tokio::time::timeout(TAILERS_WAIT, self.tailing.status()).await;
        let rows = told.ok().and_then(Result::ok).unwrap_or_default();
        let catalog = self.catalog.borrow().clone();
        let sent: Vec<(ShardId, Position)> = rows.iter().filter_map(|row| sent(&catalog, row)).collect();
        let (heard, silent): (Vec<_>, Vec<_>) = started
            .into_iter()
            .partition(|(shard, _)| speak_of(&rows, &catalog, *shard));
        let mut known = self.known.lock();
        for (shard, boot) in heard {
            for (_, position) in sent.iter().filter(|(of, _)| *of == shard) {
                known
                    .seen(shard)
                    .positions
                    .advance(&position.source, position.partition, position.offset);
            }
            known.seen(shard).boot = Some(boot);
        }
        silent
    }
}

/// Whether the tailers say of all pushes that go to a shard how far they are.
fn speak_of(rows: &[TailStatus], catalog: &Catalog, shard: ShardId) -> bool {
    let Some((name, collection)) = catalog
        .collection(shard.collection)
        .filter(|(_, collection)| collection.push_topic)
    else {
        return true;
    };
    let (push, shards) = (SourceName::push(), collection.settings.shards);
    let told = |partition| {
        let of_it =
            |row: &&TailStatus| row.source == push && row.collection == *name && row.partition == Some(partition);
        rows.iter()
            .find(of_it)
            .is_some_and(|row| row.state != SourceState::Starting)
    };
    (0..shards as i32)
        .filter(|partition| shard_of(&push, *partition, shards) == shard.number)
        .all(told)
}

/// How far a shard can have been, as a row of a tailer says.
fn sent(catalog: &Catalog, row: &TailStatus) -> Option<(ShardId, Position)> {
    let (partition, offset) = (row.partition?, row.sent?);
    let collection = catalog.collections.get(&row.collection)?;
    let shard = ShardId {
        collection: collection.uid,
        number: shard_of(&row.source, partition, collection.settings.shards),
    };
    Some((
        shard,
        Position {
            source: row.source.clone(),
            partition,
            offset,
        },
    ))
}

/// Pins shards at what is wanted of each, and at what was answered of it before.
pub(super) async fn pin(
    context: &Arc<QueryContext>,
    wanted: Vec<(ShardId, PositionVector)>,
) -> Vec<(ShardId, Result<Pinned, Problem>)> {
    let (leaf, answered) = (&context.leaf, &context.answered);
    // Where a question itself asks for no more, there is no reason to wait longer than for the leaf to catch up.
    // All of it ends a little before the question's own end, so that the leaf can say what it lacks.
    let end = context.deadline() - (context.deadline().saturating_duration_since(Instant::now()) / 10).min(END_EARLIER);
    let soon = end.min(Instant::now() + CATCH_UP_WAIT);
    let known = answered.with(&wanted);
    let in_vain: Vec<bool> = wanted.iter().map(|(shard, _)| answered.is_in_vain(*shard)).collect();
    let asked: Vec<_> = (0..wanted.len())
        .map(|at| {
            if in_vain[at] {
                wanted[at].clone()
            } else {
                known[at].clone()
            }
        })
        .collect();
    let mut outcomes = leaf.pin_all(context.views, &asked, soon).await;
    let pinned: Vec<(ShardId, u64)> = wanted
        .iter()
        .zip(&outcomes)
        .filter_map(|((shard, _), pinned)| Some((*shard, pinned.as_ref().ok()?.boot)))
        .collect();
    let mut silent = answered.not_heard_of(&pinned);
    // Otherwise it stays with what was known when it was asked, however much others have been answered meanwhile.
    let both = if silent.is_empty() {
        known.clone()
    } else {
        silent = answered.hear_of(silent).await;
        while !silent.iter().all(|(shard, _)| answered.is_in_vain(*shard)) && Instant::now() + TAILERS_AGAIN < soon {
            tokio::time::sleep(TAILERS_AGAIN).await;
            silent = answered.hear_of(silent).await;
        }
        answered.with(&wanted)
    };
    let lacks = |at: usize, pinned: &Pinned| both[at] != known[at] && !pinned.positions.covers(&both[at].1);
    let behind = places(&outcomes, |at, outcome| {
        !in_vain[at] && outcome.as_ref().is_ok_and(|pinned| lacks(at, pinned))
    });
    pin_again(context, &behind, &both, soon, &mut outcomes).await;
    let late = places(&outcomes, |_, outcome| {
        outcome.as_ref().is_err_and(|problem| problem.code == Code::Timeout)
    });
    pin_again(context, &late, &wanted, end, &mut outcomes).await;
    for at in 0..wanted.len() {
        let (shard, Ok(pinned)) = (wanted[at].0, &outcomes[at]) else {
            continue;
        };
        let unknown = silent.iter().any(|(of, _)| *of == shard);
        let lacking = (in_vain[at] || late.contains(&at)) && !pinned.positions.covers(&both[at].1);
        if unknown || lacking || in_vain[at] {
            answered.set_in_vain(shard, unknown || lacking);
        }
        if lacking {
            let lacking = pinned.positions.lacking(&both[at].1);
            context.report.warn(format!(
                "shard {} lacks what was answered or pushed before: {lacking}",
                shard.number
            ));
        } else if unknown {
            let why = "its leaf was started, and no tailer reads all of its pushes yet";
            context
                .report
                .warn(format!("shard {} may lack what was pushed before: {why}", shard.number));
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
async fn pin_again(
    context: &Arc<QueryContext>,
    places: &[usize],
    wanted: &[(ShardId, PositionVector)],
    until: Instant,
    outcomes: &mut Outcomes,
) {
    if places.is_empty() {
        return;
    }
    let again: Vec<(ShardId, PositionVector)> = places.iter().map(|at| wanted[*at].clone()).collect();
    for (at, outcome) in places
        .iter()
        .zip(context.leaf.pin_all(context.views, &again, until).await)
    {
        outcomes[*at] = outcome;
    }
}
