//! Read views of this leaf's shards: opens and scans them for a query of this process, or for a client's lease.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};

use async_trait::async_trait;
use futures::{StreamExt as _, future::join_all, stream};
use plan::{
    scan::{ScanRequest, ScanStream},
    views::{OpenOutcomes, ReadViews, ShardView, WantedShards},
};
use proto::{Code, Position, PositionVector, Problem, ingest::ShardId, routing::shard_of};

use super::{Leaf, OPEN_WAIT};
use crate::{
    scan::{self, SharedRequest},
    shard::{Shard, state::FreshView},
    view::ReadView,
};

/// Open views of some shards of this leaf.
pub(crate) struct LeafViews {
    leaf: Weak<Leaf>,
    by_shard: HashMap<ShardId, Arc<FreshView>>,
    /// Counts the views of all queries, see [`Leaf::open_views`].
    _counted: Arc<()>,
}

impl Leaf {
    /// How many queries have read views open here.
    pub fn open_views(&self) -> usize {
        Arc::strong_count(&self.views_counter) - 1
    }

    /// Opens views of shards, and returns what became of each. The views do not keep the leaf alive.
    pub(crate) async fn open_read_views(&self, wanted: &WantedShards, deadline: Instant) -> (LeafViews, OpenOutcomes) {
        let mut views = LeafViews {
            leaf: self.this.clone(),
            by_shard: HashMap::new(),
            _counted: Arc::clone(&self.views_counter),
        };
        let outcomes = views.add(self, wanted, deadline).await;
        (views, outcomes)
    }

    /// The positions of a shard that every answer covers: what was deleted through them must not show, not even while a
    /// shard is filled again.
    fn changed_through(&self, shard: ShardId) -> PositionVector {
        let catalog = self.catalog.borrow().clone();
        // Without a log, there is nowhere to read a change again.
        let found = catalog.collection(shard.collection);
        let Some((_, collection)) = found.filter(|(_, collection)| collection.change_topic) else {
            return PositionVector::default();
        };
        let shards = collection.settings.shards;
        let of_shard = |p: &Position| shard_of(&p.source, p.partition, shards) == shard.number;
        collection.changed_through.iter().filter(of_shard).collect()
    }

    /// Waits until a shard has read the changes that every answer covers. A shard that is filled again may take longer
    /// than a query: then it is unavailable, as if it were away.
    pub(super) async fn wait_for_changes(&self, shard: &Shard, deadline: Instant) -> Result<(), Problem> {
        let required = self.changed_through(shard.id);
        let until = deadline.min(Instant::now() + OPEN_WAIT);
        let waited = shard.wait_for_positions(&required, until).await;
        waited.map_err(|problem| match problem.code {
            Code::Timeout => {
                let detail = format!("{}: it does not know yet what was deleted", problem.detail);
                Problem::new(Code::Unavailable, detail)
                    .hint("it answers once it has read its deletes: see source _changes in rachis.sources")
            }
            _ => problem,
        })
    }

    async fn open_shard(
        &self,
        shard: ShardId,
        at_least: &PositionVector,
        deadline: Instant,
    ) -> Result<Arc<FreshView>, Problem> {
        // A client with a longer deadline tries again.
        let late =
            || Problem::new(Code::Timeout, format!("shard {shard} did not open in time")).hint("raise timeout_ms");
        let opened = tokio::time::timeout_at(deadline.into(), self.shard_until(shard, deadline + OPEN_WAIT)).await;
        let opened = opened.unwrap_or_else(|_| Err(late()))?;
        self.wait_until_it_may_answer(&opened, deadline).await?;
        self.wait_for_changes(&opened, deadline).await?;
        opened.fresh_view(at_least, deadline).await
    }
}

impl LeafViews {
    async fn add(&mut self, leaf: &Leaf, wanted: &WantedShards, deadline: Instant) -> OpenOutcomes {
        let open = |(shard, at_least): &(ShardId, PositionVector)| {
            let (shard, at_least) = (*shard, at_least.clone());
            async move { (shard, leaf.open_shard(shard, &at_least, deadline).await) }
        };
        let opened = join_all(wanted.iter().map(open)).await;
        let outcome = |(shard, opened): (ShardId, Result<Arc<FreshView>, Problem>)| {
            let fresh = opened?;
            let outcome = ShardView {
                positions: fresh.view.positions.clone(),
                boot: leaf.boot_of(shard),
                paths: fresh.view.paths.clone(),
                documents: fresh.view.documents(),
                freshness_ms: fresh.freshness_ms,
            };
            self.by_shard.insert(shard, fresh);
            Ok(outcome)
        };
        opened.into_iter().map(outcome).collect()
    }

    /// Adds these views, in place of those of the same shards, which it returns.
    #[must_use = "dropping a view may take time"]
    pub(super) fn merge(&mut self, newer: Self) -> Vec<Arc<FreshView>> {
        let add = |(shard, view)| self.by_shard.insert(shard, view);
        newer.by_shard.into_iter().filter_map(add).collect()
    }

    /// Whether no view is open.
    pub(super) fn is_empty(&self) -> bool {
        self.by_shard.is_empty()
    }

    /// The view of a shard.
    pub(crate) fn of(&self, shard: ShardId) -> Option<&ReadView> {
        self.by_shard.get(&shard).map(|fresh| &fresh.view)
    }

    /// Scans the views of these shards; returns an answer for each.
    pub(super) fn scan_prepared(&self, shards: &[ShardId], request: SharedRequest) -> Vec<ScanStream> {
        let (leaf, request) = (self.leaf.upgrade(), Arc::new(request));
        let scan = |shard: &ShardId| match (&leaf, self.of(*shard)) {
            (Some(leaf), Some(view)) => scan::run(view.clone(), request.clone(), &leaf.scans),
            _ => stream::iter([Err(not_open(*shard))]).boxed(),
        };
        shards.iter().map(scan).collect()
    }
}

/// The error of a scan that finds no view of a shard.
pub(super) fn not_open(shard: ShardId) -> Problem {
    let detail = format!(
        "no read view of shard {shard} is open for this query: the query has ended, its aggregator could not renew the \
         view, or the leaf has restarted"
    );
    Problem::new(Code::Unavailable, detail).hint("retry the query")
}

#[async_trait]
impl ReadViews for LeafViews {
    async fn reopen(&mut self, shards: &WantedShards, deadline: Instant) -> OpenOutcomes {
        match self.leaf.upgrade() {
            Some(leaf) => self.add(&leaf, shards, deadline).await,
            None => {
                let closed = || Err(Problem::new(Code::Unavailable, "the leaf is shutting down"));
                shards.iter().map(|_| closed()).collect()
            }
        }
    }

    fn scan(&self, request: ScanRequest) -> Vec<ScanStream> {
        let shards = request.shards.clone();
        self.scan_prepared(&shards, SharedRequest::new(request))
    }
}
