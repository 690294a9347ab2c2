//! Makes all leaves of a cluster look like one: pins views and runs scans on the leaf that owns the shard.

mod leaf_scan;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use parking_lot::Mutex;
use proto::{
    PositionVector, Problem,
    client::{ASK_WAIT, Peer, leaves::Leaves},
    cluster::NodeName,
    ingest::ShardId,
    limits::MESSAGE_BYTES_MAX,
    wire::{
        ingest::{self as wire_ingest, query_bytes, require},
        leaf::{self as wire, pin_outcome::Outcome, scan_client::ScanClient},
        problem::malformed,
    },
};
use tonic::transport::Channel;

use self::leaf_scan::scan_leaf;
use crate::{
    PathKinds,
    scan::{DeadLetter, Document, PathStatus, PinnedShard, QueryId, Scan, ScanRequest, ScanStream, ShardStatus},
    wire::encode_request,
};

/// Shards whose path tables are cached.
const CACHED_PATHS_MAX: usize = 4_096;

/// A leaf, and indexes of shards that it holds.
type IndexesOnLeaf<'a> = (&'a Peer, Vec<usize>);

/// A path table and its hash.
type CachedPaths = (u64, Arc<PathKinds>);

/// All leaves of a cluster, as the client of queries. [`Leaves`] is the client of writers.
pub struct RemoteLeaves {
    leaves: Leaves,
    /// The latest path table of each shard.
    paths: Mutex<HashMap<ShardId, CachedPaths>>,
    /// The leaves on which each query has pinned views.
    pinned: Mutex<HashMap<QueryId, HashSet<NodeName>>>,
}

impl RemoteLeaves {
    /// A client of these leaves.
    pub fn new(leaves: Leaves) -> Self {
        Self {
            leaves,
            paths: Mutex::default(),
            pinned: Mutex::default(),
        }
    }

    /// Sends a message to these leaves in the background. Best effort: a leaf that does not receive it releases the views
    /// of the query when their lease has expired.
    fn notify<F: Future<Output = ()> + Send + 'static>(&self, leaves: HashSet<NodeName>, message: impl Fn(Peer) -> F) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for peer in leaves.iter().filter_map(|name| self.leaves.peer(name).ok()) {
            runtime.spawn(message(peer.clone()));
        }
    }

    /// The leaves that hold these shards, each with the indexes of its shards, and why some have none.
    fn by_leaf(&self, shards: impl Iterator<Item = ShardId>) -> (Vec<IndexesOnLeaf<'_>>, Vec<(usize, Problem)>) {
        let mut by_leaf: BTreeMap<&NodeName, (&Peer, Vec<usize>)> = BTreeMap::new();
        let mut without_leaf = Vec::new();
        for (index, shard) in shards.enumerate() {
            match self.leaves.holder(shard) {
                Ok(peer) => by_leaf.entry(&peer.name).or_insert((peer, Vec::new())).1.push(index),
                Err(problem) => without_leaf.push((index, problem)),
            }
        }
        (by_leaf.into_values().collect(), without_leaf)
    }

    fn cached_paths(&self, shard: ShardId) -> Option<CachedPaths> {
        self.paths.lock().get(&shard).cloned()
    }

    /// Pins shards of one leaf, in one call.
    async fn pin_on(
        &self,
        peer: &Peer,
        query: QueryId,
        wanted: &[&(ShardId, PositionVector)],
        deadline: Instant,
    ) -> Result<Vec<Result<PinnedShard, Problem>>, Problem> {
        // Recorded first, so that `unpin` also releases what is pinned if this future is dropped half-way.
        self.pinned.lock().entry(query).or_default().insert(peer.name.clone());
        let wait = deadline.saturating_duration_since(Instant::now());
        let cached: Vec<Option<CachedPaths>> = wanted.iter().map(|(shard, _)| self.cached_paths(*shard)).collect();
        let shards = wanted
            .iter()
            .zip(&cached)
            .map(|((shard, at_least), cached)| wire::Wanted {
                shard: Some((*shard).into()),
                at_least: wire_ingest::positions(at_least),
                paths_known: cached.as_ref().map_or(0, |(hash, _)| *hash),
            });
        let message = wire::PinRequest {
            query: query_bytes(query),
            shards: shards.collect(),
            wait_ms: wait.as_millis() as u64,
        };
        // The leaf waits up to `wait` for the positions; after that it still needs time to build the view.
        let response = control(peer)
            .pin(peer.request(message, wait + ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        let outcomes = response.into_inner().outcomes;
        if outcomes.len() != wanted.len() {
            return Err(malformed("the number of views differs from the number of shards"));
        }
        let pinned = outcomes
            .into_iter()
            .zip(wanted)
            .zip(cached)
            .map(
                |((outcome, (shard, _)), cached)| match require(outcome.outcome, "the view")? {
                    Outcome::Pinned(pinned) => self.decode_pinned(*shard, pinned, cached),
                    Outcome::Problem(problem) => Err(problem.into()),
                },
            );
        Ok(pinned.collect())
    }

    fn decode_pinned(
        &self,
        shard: ShardId,
        pinned: wire::Pinned,
        cached: Option<CachedPaths>,
    ) -> Result<PinnedShard, Problem> {
        let paths = match (pinned.paths, cached) {
            (Some(paths), _) => Arc::new(PathKinds::try_from(paths)?),
            (None, Some((hash, paths))) if hash == pinned.paths_hash => paths,
            (None, _) => return Err(malformed("the path table is missing")),
        };
        self.cache_paths(shard, pinned.paths_hash, &paths);
        Ok(PinnedShard {
            positions: wire_ingest::vector(pinned.positions)?,
            boot: pinned.boot,
            paths,
            documents: pinned.documents,
            freshness_ms: pinned.freshness_ms,
        })
    }

    fn cache_paths(&self, shard: ShardId, hash: u64, paths: &Arc<PathKinds>) {
        let mut cache = self.paths.lock();
        if cache.len() >= CACHED_PATHS_MAX {
            cache.clear();
        }
        cache.insert(shard, (hash, paths.clone()));
    }
}

fn failed(problem: Problem) -> ScanStream {
    stream::iter([Err(problem)]).boxed()
}

fn control(peer: &Peer) -> ScanClient<Channel> {
    ScanClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

fn data(peer: &Peer) -> ScanClient<Channel> {
    ScanClient::new(peer.data.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

#[async_trait]
impl Scan for RemoteLeaves {
    async fn pin(
        &self,
        query: QueryId,
        shard: ShardId,
        at_least: &PositionVector,
        deadline: Instant,
    ) -> Result<PinnedShard, Problem> {
        let outcome = self.pin_all(query, &[(shard, at_least.clone())], deadline).await.pop();
        outcome.unwrap_or_else(|| Err(malformed("the view is missing")))
    }

    async fn pin_all(
        &self,
        query: QueryId,
        wanted: &[(ShardId, PositionVector)],
        deadline: Instant,
    ) -> Vec<Result<PinnedShard, Problem>> {
        let mut outcomes: Vec<Option<Result<PinnedShard, Problem>>> = vec![None; wanted.len()];
        let (by_leaf, without_leaf) = self.by_leaf(wanted.iter().map(|(shard, _)| *shard));
        for (index, problem) in without_leaf {
            outcomes[index] = Some(Err(problem));
        }
        let calls = by_leaf.into_iter().map(|(peer, indices)| async move {
            let shards: Vec<&(ShardId, PositionVector)> = indices.iter().map(|index| &wanted[*index]).collect();
            let pinned = self.pin_on(peer, query, &shards, deadline).await;
            (indices, pinned)
        });
        for (indices, pinned) in join_all(calls).await {
            match pinned {
                Ok(pinned) => indices
                    .into_iter()
                    .zip(pinned)
                    .for_each(|(index, outcome)| outcomes[index] = Some(outcome)),
                Err(problem) => indices
                    .into_iter()
                    .for_each(|index| outcomes[index] = Some(Err(problem.clone()))),
            }
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Err(malformed("a view is missing"))))
            .collect()
    }

    fn renew(&self, query: QueryId) {
        let leaves = self.pinned.lock().get(&query).cloned().unwrap_or_default();
        self.notify(leaves, move |peer| async move {
            let message = wire::RenewRequest {
                query: query_bytes(query),
            };
            drop(control(&peer).renew(peer.request(message, ASK_WAIT)).await);
        });
    }

    fn unpin(&self, query: QueryId) {
        let leaves = self.pinned.lock().remove(&query).unwrap_or_default();
        self.notify(leaves, move |peer| async move {
            let message = wire::UnpinRequest {
                query: query_bytes(query),
            };
            drop(control(&peer).unpin(peer.request(message, ASK_WAIT)).await);
        });
    }

    fn scan(&self, request: ScanRequest) -> Vec<ScanStream> {
        let (by_leaf, without_leaf) = self.by_leaf(request.shards.iter().copied());
        let mut answers: Vec<(usize, ScanStream)> = without_leaf
            .into_iter()
            .map(|(index, problem)| (index, failed(problem)))
            .collect();
        for (peer, indices) in by_leaf {
            let shards: Vec<ShardId> = indices.iter().map(|index| request.shards[*index]).collect();
            let of_leaf = match encode_request(&request, &shards) {
                Ok(message) => scan_leaf(peer.clone(), message, request.deadline),
                Err(problem) => shards.iter().map(|_| failed(problem.clone())).collect(),
            };
            answers.extend(indices.into_iter().zip(of_leaf));
        }
        answers.sort_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn document(&self, shard: ShardId, id: &str) -> Result<Option<Document>, Problem> {
        let peer = self.leaves.holder(shard)?;
        let message = wire::DocumentRequest {
            shard: Some(shard.into()),
            id: id.to_owned(),
        };
        let response = data(peer)
            .document(peer.request(message, ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        response.into_inner().document.map(TryInto::try_into).transpose()
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<PathStatus>, Problem> {
        let peer = self.leaves.holder(shard)?;
        let message = wire::ShardRequest {
            shard: Some(shard.into()),
        };
        let response = data(peer)
            .fields(peer.request(message, ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        collect(peer, response.into_inner()).await
    }

    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem> {
        let peer = self.leaves.holder(shard)?;
        let message = wire::ShardRequest {
            shard: Some(shard.into()),
        };
        let response = control(peer)
            .status(peer.request(message, ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        response.into_inner().try_into()
    }

    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem> {
        let peer = self.leaves.holder(shard)?;
        let message = wire::DeadLettersRequest {
            shard: Some(shard.into()),
            limit: limit as u64,
        };
        let response = data(peer)
            .dead_letters(peer.request(message, ASK_WAIT * 3))
            .await
            .map_err(|status| peer.problem(status))?;
        collect(peer, response.into_inner()).await
    }
}

/// Receives and decodes a whole answer.
async fn collect<M, T: TryFrom<M, Error = Problem>>(
    peer: &Peer,
    messages: tonic::Streaming<M>,
) -> Result<Vec<T>, Problem> {
    let messages: Vec<M> = messages.try_collect().await.map_err(|status| peer.problem(status))?;
    messages.into_iter().map(T::try_from).collect()
}
