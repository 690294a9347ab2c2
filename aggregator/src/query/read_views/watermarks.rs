//! Read-your-writes and monotonic reads: no answer is older than what this aggregator has already answered or
//! acknowledged, as long as the leaves can catch up.
//!
//! A leaf that restarts from an older disk holds less than before until it has replayed the log. A query waits a short
//! time for that; then it is answered from what the leaf has, with a warning. Once one query has waited without
//! success, later ones do not wait but carry the same warning. The tailers know of pushes that did not pass through
//! this aggregator: they are asked after each start of a leaf, until they cover every partition of the pushes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use plan::{
    scan::{ANSWER_READ_MAX, ScanRequest},
    views::{OpenOutcomes, OpenRequest, Opened, ShardView, WantedShards},
};
use proto::{
    Catalog, Code, Position, PositionVector, Problem, SourceName,
    catalog::PartitionShare,
    ingest::ShardId,
    limits::REPLICAS_MAX,
    routing::shard_of,
    status::{SourceState, TailStatus},
    tailer::SourceAdmin,
};
use tokio::sync::watch;

use crate::query::context::QueryContext;

/// How long a query waits for a shard to reach its watermark.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// A leaf gives up waiting this long before the query's deadline, so that it can still answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);
/// Starts of leaves that are remembered of each shard: one for each replica, and some for restarts.
const BOOTS_MAX: usize = 2 * REPLICAS_MAX as usize;
/// Shards whose watermarks are remembered.
const SHARDS_MAX: usize = 65_536;
/// The time limit of one status request to the tailers.
const TAILERS_WAIT: Duration = Duration::from_secs(1);
/// The pause before the tailers are asked again, if they did not cover all shards.
const TAILERS_RETRY: Duration = Duration::from_millis(100);

/// The watermark of each shard: the highest positions that any answer or acknowledged push has had.
pub(in crate::query) struct ReadWatermarks {
    source_admin: Arc<dyn SourceAdmin>,
    catalog: watch::Receiver<Arc<Catalog>>,
    shards: Mutex<ShardWatermarks>,
}

#[derive(Default)]
struct ShardWatermarks {
    by_shard: HashMap<ShardId, ShardWatermark>,
}

/// What is known of a shard.
#[derive(Default, Clone)]
pub(in crate::query) struct ShardWatermark {
    positions: PositionVector,
    /// Whether a query has waited without success for the shard to catch up, or for the tailers to cover it.
    catch_up_failed: bool,
    /// The boot ids of its leaves since which the tailers have covered this shard, the last one at the end.
    confirmed_boots: VecDeque<u64>,
}

impl ShardWatermark {
    /// The positions, unless a query has waited for them without success.
    pub(in crate::query) fn awaited(&self) -> PositionVector {
        match self.catch_up_failed {
            true => PositionVector::default(),
            false => self.positions.clone(),
        }
    }

    /// Whether a replica with this boot id, which has the awaited positions, has everything that was acknowledged.
    pub(in crate::query) fn is_complete_at(&self, boot: u64) -> bool {
        !self.catch_up_failed && self.confirmed_boots.contains(&boot)
    }
}

impl ShardWatermarks {
    /// The entry of a shard. At the limit all entries are dropped first.
    fn entry(&mut self, shard: ShardId) -> &mut ShardWatermark {
        if self.by_shard.len() >= SHARDS_MAX && !self.by_shard.contains_key(&shard) {
            self.by_shard.clear();
        }
        self.by_shard.entry(shard).or_default()
    }
}

impl ReadWatermarks {
    /// Starts without any watermark.
    pub(in crate::query) fn new(source_admin: Arc<dyn SourceAdmin>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            source_admin,
            catalog,
            shards: Mutex::default(),
        }
    }

    /// The watermark of a shard.
    pub(in crate::query) fn of(&self, shard: ShardId) -> PositionVector {
        self.shards
            .lock()
            .by_shard
            .get(&shard)
            .map(|watermark| watermark.positions.clone())
            .unwrap_or_default()
    }

    /// What is known of these shards, at one moment.
    pub(in crate::query) fn of_all(&self, shards: &WantedShards) -> Vec<ShardWatermark> {
        let known = self.shards.lock();
        let of = |(shard, _): &(ShardId, _)| known.by_shard.get(shard).cloned().unwrap_or_default();
        shards.iter().map(of).collect()
    }

    /// Raises the watermark of a shard.
    pub(in crate::query) fn advance(&self, shard: ShardId, positions: &PositionVector) {
        self.shards.lock().entry(shard).positions.merge(positions);
    }

    /// Opens shards at the wanted positions or at their watermarks, whichever are higher. A shard that cannot reach its
    /// watermark in time is opened as it is, with a warning. The query will probably ask for the expected scan. Also
    /// returns these warnings, with their shards: what may be missing.
    pub(in crate::query) async fn open(
        &self,
        query: &QueryContext,
        wanted: &WantedShards,
        expected: Option<ScanRequest>,
    ) -> (Opened, Vec<(ShardId, String)>) {
        let deadline = query.deadline();
        let end = deadline - (deadline.saturating_duration_since(Instant::now()) / 10).min(ANSWER_MARGIN);
        let catch_up_until = end.min(Instant::now() + CATCH_UP_WAIT);
        let before = self.of_all(wanted);
        let initial = raised(wanted, &before);
        let failed_before: Vec<bool> = before.iter().map(|known| known.catch_up_failed).collect();
        // Also if another query confirms it meanwhile: the first targets were lower.
        let is_new = |at: usize, outcome: &Result<ShardView, Problem>| {
            let view = outcome.as_ref();
            view.is_ok_and(|view| !before[at].confirmed_boots.contains(&view.boot))
        };
        let requested: Vec<_> = (0..wanted.len())
            .map(|at| {
                if failed_before[at] {
                    wanted[at].clone()
                } else {
                    initial[at].clone()
                }
            })
            .collect();
        let request = OpenRequest {
            shards: &requested,
            deadline: catch_up_until,
            renewed_until: deadline + ANSWER_READ_MAX,
            cancelled: query.cancel.clone(),
            expected,
        };
        let mut opened = query.leaf.open(request).await;

        let new = indexes(&opened.outcomes, is_new);
        // If there is nothing to confirm, the first targets stay, however far other queries have raised the watermarks
        // since.
        let (mut required, mut uncovered) = if new.is_empty() {
            (initial.clone(), Vec::new())
        } else {
            let uncovered = self.confirm(boots(wanted, &opened, &new), catch_up_until).await;
            (raised(wanted, &self.of_all(wanted)), uncovered)
        };

        let behind = indexes(&opened.outcomes, |at, outcome| {
            let is_behind = |view: &ShardView| required[at] != initial[at] && !view.positions.covers(&required[at].1);
            !failed_before[at] && outcome.as_ref().is_ok_and(is_behind)
        });
        reopen(&mut opened, &behind, &required, catch_up_until).await;
        let late = indexes(&opened.outcomes, |_, outcome| {
            outcome.as_ref().is_err_and(|problem| problem.code == Code::Timeout)
        });
        reopen(&mut opened, &late, wanted, end).await;
        // The targets of the others were raised above.
        let mut new_since = late.clone();
        new_since.retain(|at| !new.contains(at) && is_new(*at, &opened.outcomes[*at]));
        if !new_since.is_empty() {
            let until = end.min(Instant::now() + TAILERS_WAIT);
            uncovered.extend(self.confirm(boots(wanted, &opened, &new_since), until).await);
            let raised = raised(wanted, &self.of_all(wanted));
            new_since.iter().for_each(|at| required[*at] = raised[*at].clone());
        }

        let mut warnings = Vec::new();
        for (at, (shard, _)) in wanted.iter().enumerate() {
            let (shard, Ok(view)) = (*shard, &opened.outcomes[at]) else {
                continue;
            };
            let is_uncovered = uncovered.iter().any(|(of, _)| *of == shard);
            let lags = (failed_before[at] || late.contains(&at)) && !view.positions.covers(&required[at].1);
            if is_uncovered || lags || failed_before[at] {
                self.set_catch_up_failed(shard, is_uncovered || lags);
            }
            if lags {
                warnings.push((shard, lagging(shard, &view.positions.describe_missing(&required[at].1))));
            } else if is_uncovered {
                warnings.push((shard, not_covered(shard)));
            }
            self.advance(shard, &view.positions);
        }
        warnings
            .iter()
            .for_each(|(_, warning)| query.report.warn(warning.clone()));
        (opened, warnings)
    }

    fn has_catch_up_failed(&self, shard: ShardId) -> bool {
        self.shards
            .lock()
            .by_shard
            .get(&shard)
            .is_some_and(|watermark| watermark.catch_up_failed)
    }

    fn set_catch_up_failed(&self, shard: ShardId, failed: bool) {
        self.shards.lock().entry(shard).catch_up_failed = failed;
    }

    /// Asks the tailers how far they have written to those of these open shards whose leaf has started since the tailers
    /// last covered them, until they cover all of them or until the time is up: they may lack pushes unknown to this
    /// aggregator. It does not ask again for shards that have failed to catch up before. Returns the shards not covered.
    async fn confirm(&self, mut unconfirmed: Vec<(ShardId, u64)>, until: Instant) -> Vec<(ShardId, u64)> {
        let is_confirmed = |(shard, boot): &(ShardId, u64)| {
            let shards = self.shards.lock();
            let known = shards.by_shard.get(shard);
            known.is_some_and(|known| known.confirmed_boots.contains(boot))
        };
        unconfirmed.retain(|opened| !is_confirmed(opened));
        if unconfirmed.is_empty() {
            return unconfirmed;
        }
        let mut uncovered = self.ask_tailers(unconfirmed).await;
        while !uncovered.iter().all(|(shard, _)| self.has_catch_up_failed(*shard))
            && Instant::now() + TAILERS_RETRY < until
        {
            tokio::time::sleep(TAILERS_RETRY).await;
            uncovered = self.ask_tailers(uncovered).await;
        }
        uncovered
    }

    /// Asks the tailers once. Returns the shards that they do not cover although pushes go there.
    async fn ask_tailers(&self, unconfirmed: Vec<(ShardId, u64)>) -> Vec<(ShardId, u64)> {
        let rows = self.source_admin.status_within(TAILERS_WAIT).await.unwrap_or_default();
        let catalog = self.catalog.borrow().clone();
        let sent: Vec<(ShardId, Position)> = rows.iter().flat_map(|row| sent_positions(&catalog, row)).collect();
        let (covered, uncovered): (Vec<_>, Vec<_>) = unconfirmed
            .into_iter()
            .partition(|(shard, _)| covers(&rows, &catalog, *shard));
        let mut shards = self.shards.lock();
        for (shard, boot) in covered {
            for (_, position) in sent.iter().filter(|(of, _)| *of == shard) {
                shards
                    .entry(shard)
                    .positions
                    .advance(&position.source, position.partition, position.offset);
            }
            let boots = &mut shards.entry(shard).confirmed_boots;
            // Several queries may confirm the same one.
            if boots.contains(&boot) {
                continue;
            }
            if boots.len() >= BOOTS_MAX {
                boots.pop_front();
            }
            boots.push_back(boot);
        }
        uncovered
    }
}

fn lagging(shard: ShardId, lacking: &str) -> String {
    format!(
        "shard {} is behind earlier answers or the pushes in Kafka, and lacks {lacking}",
        shard.number
    )
}

fn not_covered(shard: ShardId) -> String {
    format!(
        "shard {} may lack pushes from before its leaf started: the tailers do not read all its push partitions yet",
        shard.number
    )
}

/// The wanted positions, raised to each shard's watermark.
fn raised(wanted: &WantedShards, known: &[ShardWatermark]) -> Vec<(ShardId, PositionVector)> {
    let raised = wanted.iter().zip(known).map(|((shard, at_least), known)| {
        let mut positions = known.positions.clone();
        positions.merge(at_least);
        (*shard, positions)
    });
    raised.collect()
}

/// Those of the shards at these indexes that are open, with the boot ids of their leaves.
fn boots(wanted: &WantedShards, opened: &Opened, indexes: &[usize]) -> Vec<(ShardId, u64)> {
    let boot = |at: &usize| Some((wanted[*at].0, opened.outcomes[*at].as_ref().ok()?.boot));
    indexes.iter().filter_map(boot).collect()
}

fn indexes(outcomes: &OpenOutcomes, which: impl Fn(usize, &Result<ShardView, Problem>) -> bool) -> Vec<usize> {
    (0..outcomes.len()).filter(|at| which(*at, &outcomes[*at])).collect()
}

/// Opens the shards at these indexes again and replaces their outcomes.
async fn reopen(opened: &mut Opened, indexes: &[usize], wanted: &WantedShards, until: Instant) {
    if indexes.is_empty() {
        return;
    }
    // It reads the views from before.
    opened.prefetched = None;
    let again: Vec<_> = indexes.iter().map(|at| wanted[*at].clone()).collect();
    let outcomes = opened.views.reopen(&again, until).await;
    for (at, outcome) in indexes.iter().zip(outcomes) {
        opened.outcomes[*at] = outcome;
    }
}

/// Whether the tailers report their position in every push partition that is routed to a shard.
fn covers(rows: &[TailStatus], catalog: &Catalog, shard: ShardId) -> bool {
    let Some((name, collection)) = catalog
        .collection(shard.collection)
        .filter(|(_, collection)| collection.push_topic)
    else {
        return true;
    };
    let (push, shards) = (SourceName::push(), collection.settings.shards);
    let is_reported = |partition| {
        let matches = |row: &&TailStatus| {
            row.source == push
                && row.collection == *name
                && row.is_of(shard.collection)
                && row.partition == Some(partition)
        };
        rows.iter()
            .filter(matches)
            .any(|row| row.state != SourceState::Starting)
    };
    (0..shards as i32)
        .filter(|partition| shard_of(&push, *partition, shards) == shard.number)
        .all(is_reported)
}

/// The positions that a tailer has sent to the shards of a partition.
fn sent_positions(catalog: &Catalog, row: &TailStatus) -> Vec<(ShardId, Position)> {
    let (Some(partition), Some(offset), Some(collection)) =
        (row.partition, row.sent, catalog.collections.get(&row.collection))
    else {
        return Vec::new();
    };
    if !row.is_of(collection.uid) {
        return Vec::new();
    }
    let shares = collection.route(&row.source, partition).shares().into_iter();
    let position = |share: PartitionShare| {
        let shard = ShardId {
            collection: collection.uid,
            number: share.shard,
        };
        let position = Position {
            source: row.source.clone(),
            partition,
            offset: share.required(offset)?,
        };
        Some((shard, position))
    };
    shares.filter_map(position).collect()
}
