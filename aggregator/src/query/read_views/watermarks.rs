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

#[derive(Default, Clone)]
struct ShardWatermark {
    positions: PositionVector,
    /// Whether a query has waited without success for the shard to catch up, or for the tailers to cover it.
    catch_up_failed: bool,
    /// The boot ids of its leaves since which the tailers have covered this shard, the last one at the end.
    confirmed_boots: VecDeque<u64>,
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

    /// The watermark of a shard, unless a query has waited for it without success.
    pub(in crate::query) fn awaited(&self, shard: ShardId) -> PositionVector {
        match self.has_catch_up_failed(shard) {
            true => PositionVector::default(),
            false => self.of(shard),
        }
    }

    /// Raises the watermark of a shard.
    pub(in crate::query) fn advance(&self, shard: ShardId, positions: &PositionVector) {
        self.shards.lock().entry(shard).positions.merge(positions);
    }

    /// Opens shards at the wanted positions or at their watermarks, whichever are higher. A shard that cannot reach its
    /// watermark in time is opened as it is, with a warning. The query will probably ask for the expected scan. Also
    /// returns these warnings: what may be missing.
    pub(in crate::query) async fn open(
        &self,
        query: &QueryContext,
        wanted: &WantedShards,
        expected: Option<ScanRequest>,
    ) -> (Opened, Vec<String>) {
        let deadline = query.deadline();
        let end = deadline - (deadline.saturating_duration_since(Instant::now()) / 10).min(ANSWER_MARGIN);
        let catch_up_until = end.min(Instant::now() + CATCH_UP_WAIT);
        let initial = self.raised(wanted);
        let failed_before: Vec<bool> = wanted
            .iter()
            .map(|(shard, _)| self.has_catch_up_failed(*shard))
            .collect();
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

        let unconfirmed = self.unconfirmed(boots(wanted, &opened.outcomes));
        // If there is nothing to confirm, the first targets stay, however far other queries have raised the watermarks
        // since.
        let (mut required, mut uncovered) = if unconfirmed.is_empty() {
            (initial.clone(), Vec::new())
        } else {
            let uncovered = self.confirm(unconfirmed, catch_up_until).await;
            (self.raised(wanted), uncovered)
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
        let of_late = late.iter().map(|at| (&wanted[*at], &opened.outcomes[*at]));
        let unconfirmed = self.unconfirmed(of_late.filter_map(boot));
        if !unconfirmed.is_empty() {
            uncovered.extend(self.confirm(unconfirmed, catch_up_until).await);
            let raised = self.raised(wanted);
            late.iter().for_each(|at| required[*at] = raised[*at].clone());
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
                warnings.push(lagging(shard, &view.positions.describe_missing(&required[at].1)));
            } else if is_uncovered {
                warnings.push(not_covered(shard));
            }
            self.advance(shard, &view.positions);
        }
        warnings.iter().for_each(|warning| query.report.warn(warning.clone()));
        (opened, warnings)
    }

    /// Whether the tailers have covered a shard since its leaf started with this boot id.
    pub(in crate::query) fn is_confirmed(&self, shard: ShardId, boot: u64) -> bool {
        self.unconfirmed([(shard, boot)]).is_empty()
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

    /// The wanted positions, raised to each shard's watermark.
    fn raised(&self, wanted: &WantedShards) -> Vec<(ShardId, PositionVector)> {
        let raised = wanted.iter().map(|(shard, at_least)| {
            let mut positions = self.of(*shard);
            positions.merge(at_least);
            (*shard, positions)
        });
        raised.collect()
    }

    /// Of these open shards and the boots of their leaves, those that may lack pushes unknown to this aggregator:
    /// their leaf has started since the tailers last covered them.
    fn unconfirmed(&self, opened: impl IntoIterator<Item = (ShardId, u64)>) -> Vec<(ShardId, u64)> {
        let shards = self.shards.lock();
        let is_confirmed = |shard: &ShardId, boot: u64| {
            let watermark = shards.by_shard.get(shard);
            watermark.is_some_and(|watermark| watermark.confirmed_boots.contains(&boot))
        };
        opened
            .into_iter()
            .filter(|(shard, boot)| !is_confirmed(shard, *boot))
            .collect()
    }

    /// Asks the tailers how far they have written to these shards, until they cover all of them or until the time is
    /// up. It does not ask again for shards that have failed to catch up before. Returns the shards not covered.
    async fn confirm(&self, unconfirmed: Vec<(ShardId, u64)>, until: Instant) -> Vec<(ShardId, u64)> {
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
        let response = tokio::time::timeout(TAILERS_WAIT, self.source_admin.status()).await;
        let rows = response.ok().and_then(Result::ok).unwrap_or_default();
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

/// The shards that are open, with the boot ids of their leaves.
fn boots(wanted: &WantedShards, outcomes: &OpenOutcomes) -> impl Iterator<Item = (ShardId, u64)> {
    wanted.iter().zip(outcomes).filter_map(boot)
}

fn boot(((shard, _), view): (&(ShardId, PositionVector), &Result<ShardView, Problem>)) -> Option<(ShardId, u64)> {
    Some((*shard, view.as_ref().ok()?.boot))
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
            row.source == push && row.is_of(name, shard.collection) && row.partition == Some(partition)
        };
        rows.iter()
            .find(matches)
            .is_some_and(|row| row.state != SourceState::Starting)
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
    if !row.is_of(&row.collection, collection.uid) {
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
