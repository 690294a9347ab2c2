//! Read views: what a query reads of each shard. Shared by: aggregator (client), leaf (server).
//!
//! A query first opens a view of every shard that it will read. All its scans read that point in time, and planning
//! learns from it which paths exist and of which kinds. Then it scans the views, as often as its plan needs. Dropping
//! them releases them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use proto::{PositionVector, Problem, ingest::ShardId};
use tokio_util::sync::CancellationToken;

use crate::{
    kinds::PathKinds,
    scan::{ScanRequest, ScanStream},
};

/// How long a leaf keeps views for a client on another node after the deadline of their opening or after their last
/// renewal, unless a scan of them is still being read.
pub const VIEW_LEASE: Duration = Duration::from_secs(10);

/// Shards, each with the positions that its view must cover.
pub type WantedShards = [(ShardId, PositionVector)];

/// What became of each wanted shard, in the order of the request.
pub type OpenOutcomes = Vec<Result<ShardView, Problem>>;

/// Which views a query needs.
pub struct OpenRequest<'a> {
    /// The shards, each once.
    pub shards: &'a WantedShards,
    /// Until when to wait for a shard to reach its positions; then its outcome is `Code::Timeout`.
    pub deadline: Instant,
    /// Views on other nodes are not renewed after this time, because a query that is stuck must not keep them.
    pub renewed_until: Instant,
    /// Nor are they renewed once the query is cancelled.
    pub cancelled: CancellationToken,
    /// A scan of all these shards for which the query will probably ask. A leaf on another node may begin it in the
    /// same call.
    pub expected: Option<ScanRequest>,
}

/// The answer to an [`OpenRequest`].
pub struct Opened {
    /// What became of each shard.
    pub outcomes: OpenOutcomes,
    /// The prefetched answers of the expected scan, one for each shard, if every leaf began it. They are of the views in `outcomes`, not
    /// of any that are opened later.
    pub prefetched: Option<Vec<ScanStream>>,
    /// The views of the shards that could be opened.
    pub views: Box<dyn ReadViews>,
}

/// A read view of one shard.
#[derive(Debug, Clone)]
pub struct ShardView {
    /// The view contains every record through these positions and none after.
    pub positions: PositionVector,
    /// Changes with every start of the leaf, and whenever other leaves serve the shard. A leaf that was restarted may have less
    /// than before, and so may one that serves because the only other one was lost.
    pub boot: u64,
    /// The kinds of all paths.
    pub paths: Arc<PathKinds>,
    /// Documents in the view.
    pub documents: u64,
    /// Milliseconds between the newest document's ingest and the acknowledgement of its visibility here; 0 for an empty
    /// shard.
    pub freshness_ms: u64,
}

/// Open read views. Dropping them releases them; a scan of them that has begun can still be read.
#[async_trait]
pub trait ReadViews: Send + Sync {
    /// Opens newer views of some of the shards in place of those that are open. Returns what became of each.
    async fn reopen(&mut self, shards: &WantedShards, deadline: Instant) -> OpenOutcomes;

    /// Scans views; returns an answer for each shard, in the order of the request. The work starts when an answer is
    /// polled, for one shard or for all. An answer that is not read never blocks another one; dropping it stops the
    /// work for its shard, at the latest when all answers of its leaf are dropped.
    fn scan(&self, request: ScanRequest) -> Vec<ScanStream>;
}
