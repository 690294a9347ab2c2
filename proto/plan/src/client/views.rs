//! Views that are open on the leaves of a cluster: one call to each leaf opens them and, if the scan is known
//! beforehand, begins to scan them.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use proto::{
    Problem,
    client::{ASK_WAIT, Peer},
    ingest::ShardId,
    wire::{
        ingest::{positions, require},
        leaf::{self as wire, open_outcome::Outcome, scan_part::Part},
        problem::malformed,
    },
};
use tonic::Status;

use super::{
    RemoteScan, control, data, failed,
    leaf_scan::{LeafParts, scan_leaf},
    lease::{Lease, id_bytes},
    path_tables::CachedPaths,
};
use crate::{
    scan::{ScanRequest, ScanStream},
    views::{OpenOutcomes, OpenRequest, Opened, ReadViews, WantedShards},
    wire::{encode_request, is_scanned},
};

/// The parts of the answers of a leaf.
type PartStream = Box<tonic::Streaming<wire::ScanPart>>;

/// Views that are open on leaves.
pub(super) struct RemoteViews {
    client: RemoteScan,
    lease: Lease,
}

/// What a leaf answered to the call that opens views: an outcome for each, and the scan that it has begun.
type LeafAnswer = Result<(OpenOutcomes, Option<PartStream>), Problem>;

impl RemoteViews {
    /// Opens views, and begins the expected scan if every leaf can.
    pub(super) async fn open(client: RemoteScan, request: OpenRequest<'_>) -> Opened {
        let lease = Lease::new(client.releases.clone(), request.renewed_until, request.cancelled);
        let views = Self { client, lease };
        let OpenRequest {
            shards,
            deadline,
            expected,
            ..
        } = request;
        let (outcomes, prefetched) = views.open_shards(shards, deadline, expected.as_ref()).await;
        Opened {
            outcomes,
            prefetched,
            views: Box::new(views),
        }
    }

    async fn open_shards(
        &self,
        shards: &WantedShards,
        deadline: Instant,
        expected: Option<&ScanRequest>,
    ) -> (OpenOutcomes, Option<Vec<ScanStream>>) {
        let (by_leaf, without_leaf) = self.client.by_leaf(shards.iter().map(|(shard, _)| *shard));
        let expected = expected.filter(|_| without_leaf.is_empty());
        let scan = expected.and_then(|request| Some((encode_request(request).ok()?, request.deadline)));
        let message = scan.as_ref().map(|(message, _)| message);
        let calls = by_leaf.into_iter().map(|(leaf, indexes)| async move {
            let wanted = LeafShards::new(self, &leaf, shards, &indexes);
            let answer = match message {
                Some(scan) => wanted.open_and_scan(deadline, scan.clone()).await,
                None => wanted.open(deadline).await.map(|outcomes| (outcomes, None)),
            };
            (leaf, indexes, answer)
        });
        let answers = join_all(calls).await;
        let mut outcomes: OpenOutcomes = shards.iter().map(|_| Err(malformed("a view is missing"))).collect();
        for (index, problem) in without_leaf {
            outcomes[index] = Err(problem);
        }
        let mut started = scan.map(|(_, deadline)| (Vec::new(), deadline));
        for (leaf, indexes, answer) in answers {
            let parts = place_outcomes(&mut outcomes, &indexes, answer);
            started = started.zip(parts).map(|((mut started, deadline), parts)| {
                started.push((leaf, indexes, LeafParts::Started(parts)));
                (started, deadline)
            });
        }
        let prefetched = started.map(|(started, deadline)| streams(Vec::new(), started, deadline));
        (outcomes, prefetched)
    }
}

/// Puts the outcomes of one leaf in their places; returns the scan that it has begun.
fn place_outcomes(outcomes: &mut OpenOutcomes, indexes: &[usize], answer: LeafAnswer) -> Option<PartStream> {
    match answer {
        Ok((opened, parts)) => {
            indexes
                .iter()
                .zip(opened)
                .for_each(|(index, outcome)| outcomes[*index] = outcome);
            parts
        }
        Err(problem) => {
            indexes.iter().for_each(|index| outcomes[*index] = Err(problem.clone()));
            None
        }
    }
}

#[async_trait]
impl ReadViews for RemoteViews {
    async fn reopen(&mut self, shards: &WantedShards, deadline: Instant) -> OpenOutcomes {
        self.open_shards(shards, deadline, None).await.0
    }

    fn scan(&self, request: ScanRequest) -> Vec<ScanStream> {
        let message = match encode_request(&request) {
            Ok(message) => message,
            Err(problem) => return request.shards.iter().map(|_| failed(problem.clone())).collect(),
        };
        let (by_leaf, without_leaf) = self.client.by_leaf(request.shards.iter().copied());
        let unrequested = |(leaf, indexes): (Peer, Vec<usize>)| {
            let message = wire::ScanRequest {
                views: id_bytes(self.lease.id),
                shards: indexes.iter().map(|index| request.shards[*index].into()).collect(),
                ..message.clone()
            };
            (leaf, indexes, LeafParts::Unrequested(Box::new(message)))
        };
        streams(
            without_leaf,
            by_leaf.into_iter().map(unrequested).collect(),
            request.deadline,
        )
    }
}

/// The answers of all shards, in the order of their indexes.
fn streams(
    without_leaf: Vec<(usize, Problem)>,
    by_leaf: Vec<(Peer, Vec<usize>, LeafParts)>,
    deadline: Instant,
) -> Vec<ScanStream> {
    let mut answers: Vec<(usize, ScanStream)> = without_leaf
        .into_iter()
        .map(|(index, problem)| (index, failed(problem)))
        .collect();
    for (leaf, indexes, parts) in by_leaf {
        let of_leaf = scan_leaf(leaf, indexes.len(), parts, deadline);
        answers.extend(indexes.into_iter().zip(of_leaf));
    }
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The shards of one call to a leaf, each with the positions that it must cover and the path table that is known of it.
struct LeafShards<'a> {
    views: &'a RemoteViews,
    leaf: &'a Peer,
    shards: Vec<(&'a (ShardId, proto::PositionVector), Option<CachedPaths>)>,
}

impl<'a> LeafShards<'a> {
    fn new(views: &'a RemoteViews, leaf: &'a Peer, shards: &'a WantedShards, indexes: &[usize]) -> Self {
        views.lease.add(leaf);
        let with_paths = |index: &usize| {
            let wanted = &shards[*index];
            (wanted, views.client.paths.of(wanted.0))
        };
        Self {
            views,
            leaf,
            shards: indexes.iter().map(with_paths).collect(),
        }
    }

    fn message(&self, wait: Duration) -> wire::OpenRequest {
        let wanted = self.shards.iter().map(|((shard, at_least), cached)| wire::Wanted {
            shard: Some((*shard).into()),
            at_least: positions(at_least),
            paths_known: cached.as_ref().map_or(0, |(hash, _)| *hash),
        });
        wire::OpenRequest {
            views: id_bytes(self.views.lease.id),
            shards: wanted.collect(),
            wait_ms: wait.as_millis() as u64,
        }
    }

    /// Opens the views. The leaf waits until the deadline for the positions; after that it still needs time to build
    /// the views.
    async fn open(self, deadline: Instant) -> Result<OpenOutcomes, Problem> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let message = self.leaf.request(self.message(wait), wait + ASK_WAIT);
        let answer = control(self.leaf).open(message).await;
        let answer = answer.map_err(|status| self.leaf.problem(status))?;
        self.decode(answer.into_inner())
    }

    /// Opens the views, and begins to scan them. There is no scan if the leaf could not open all of them, or their path
    /// tables are not those that were known.
    async fn open_and_scan(self, deadline: Instant, scan: wire::ScanRequest) -> LeafAnswer {
        let wait = deadline.saturating_duration_since(Instant::now());
        let message = wire::OpenAndScanRequest {
            open: Some(self.message(wait)),
            scan: Some(wire::ScanRequest {
                views: id_bytes(self.views.lease.id),
                shards: self.shards.iter().map(|((shard, _), _)| (*shard).into()).collect(),
                ..scan
            }),
        };
        let first = async {
            let message = self.leaf.request(message, wait + ASK_WAIT);
            let mut parts = Box::new(data(self.leaf).open_and_scan(message).await?.into_inner());
            let first = parts.message().await?;
            Ok((first, parts))
        };
        let answered = tokio::time::timeout(wait + ASK_WAIT, first).await;
        let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not open the read views")));
        let (first, parts) = answered.map_err(|status| self.leaf.problem(status))?;
        let Some(Part::Opened(opened)) = first.and_then(|first| first.part) else {
            return Err(malformed("the read views are missing"));
        };
        let is_scanned = is_scanned(&opened);
        Ok((self.decode(opened)?, is_scanned.then_some(parts)))
    }

    fn decode(self, answer: wire::OpenAnswer) -> Result<OpenOutcomes, Problem> {
        if answer.outcomes.len() != self.shards.len() {
            return Err(malformed("the number of views differs from the number of shards"));
        }
        let tables = &self.views.client.paths;
        let decode =
            |(outcome, ((shard, _), cached)): (wire::OpenOutcome, (&(ShardId, _), Option<CachedPaths>))| match require(
                outcome.outcome,
                "the view",
            )? {
                Outcome::View(view) => tables.decode(*shard, view, cached),
                Outcome::Problem(problem) => Err(problem.into()),
            };
        Ok(answer.outcomes.into_iter().zip(self.shards).map(decode).collect())
    }
}
