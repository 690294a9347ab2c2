//! Makes all leaves of a cluster look like one: pins views and runs scans on the leaf that owns the shard.
//!
//! A query whose scan is known beforehand makes one call to each leaf, which pins and scans. Views are released a
//! little later, those of many queries in one call.

mod leaf_scan;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
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
        leaf::{self as wire, pin_outcome::Outcome, scan_client::ScanClient, scan_part::Part},
        problem::malformed,
    },
};
use tonic::{Status, transport::Channel};

use self::leaf_scan::{LeafParts, scan_leaf};
use crate::{
    PathKinds,
    scan::{
        DeadLetter, Document, ExpectedScan, PathStatus, PinOutcomes, PinnedShard, QueryId, Scan, ScanRequest,
        ScanStream, ShardStatus,
    },
    wire::{encode_request, is_scanned},
};

/// Shards whose path tables are cached.
const CACHED_PATHS_MAX: usize = 4_096;

/// The client collects ended queries for this long and then sends each leaf one `Unpin`.
const RELEASE_AFTER: Duration = Duration::from_millis(20);

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
    /// Scans that leaves began when they pinned the views of a query. The query has not asked for them yet.
    begun: Mutex<HashMap<QueryId, BegunScan>>,
    /// Ended queries that the next `Unpin` to each leaf will list.
    released: Arc<Mutex<HashMap<NodeName, Vec<QueryId>>>>,
}

/// A scan of all shards of a query, which was begun before the query asked for it.
struct BegunScan {
    /// What was asked for, of no shards.
    message: wire::ScanRequest,
    shards: Vec<ShardId>,
    leaves: Vec<BegunOnLeaf>,
}

/// The answers of one leaf, and the indexes of their shards.
type BegunOnLeaf = (Peer, Vec<usize>, PartStream);

/// The parts of the answers of a leaf.
type PartStream = Box<tonic::Streaming<wire::ScanPart>>;

impl BegunScan {
    /// The answers, if this request asks for just that.
    fn of(self, request: &ScanRequest, message: &wire::ScanRequest) -> Option<Vec<BegunOnLeaf>> {
        let wait_ms = message.wait_ms;
        let is_asked_for = self.shards == request.shards
            && wire::ScanRequest {
                wait_ms,
                ..self.message
            } == *message;
        is_asked_for.then_some(self.leaves)
    }
}

impl RemoteLeaves {
    /// A client of these leaves.
    pub fn new(leaves: Leaves) -> Self {
        Self {
            leaves,
            paths: Mutex::default(),
            pinned: Mutex::default(),
            begun: Mutex::default(),
            released: Arc::default(),
        }
    }

    /// Tells a leaf to release the views of this query and of all others that end within [`RELEASE_AFTER`]. Best
    /// effort: a leaf that is not told releases the views of a query when their lease has expired.
    fn release(&self, leaf: &NodeName, query: QueryId) {
        let (Ok(runtime), Ok(peer)) = (tokio::runtime::Handle::try_current(), self.leaves.peer(leaf)) else {
            return;
        };
        let mut released = self.released.lock();
        let queries = released.entry(leaf.clone()).or_default();
        queries.push(query);
        if queries.len() > 1 {
            return;
        }
        let (peer, released) = (peer.clone(), Arc::clone(&self.released));
        runtime.spawn(async move {
            tokio::time::sleep(RELEASE_AFTER).await;
            let queries = released.lock().remove(&peer.name).unwrap_or_default();
            let queries = queries.into_iter().map(query_bytes).collect();
            let message = peer.request(wire::UnpinRequest { queries }, ASK_WAIT);
            drop(control(&peer).unpin(message).await);
        });
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

    /// The message that pins shards of one leaf, and the path tables that are known of them.
    fn pin_request(
        &self,
        peer: &Peer,
        query: QueryId,
        wanted: &[&(ShardId, PositionVector)],
        wait: Duration,
    ) -> (wire::PinRequest, Vec<Option<CachedPaths>>) {
        // Recorded first, so that `unpin` also releases what is pinned if the call is dropped half-way.
        self.pinned.lock().entry(query).or_default().insert(peer.name.clone());
        let cached: Vec<Option<CachedPaths>> = wanted.iter().map(|(shard, _)| self.cached_paths(*shard)).collect();
        let shards = wanted
            .iter()
            .zip(&cached)
            .map(|((shard, at_least), cached)| wire::Wanted {
                shard: Some((*shard).into()),
                at_least: wire_ingest::positions(at_least),
                paths_known: cached.as_ref().map_or(0, |(hash, _)| *hash),
            });
        let request = wire::PinRequest {
            query: query_bytes(query),
            shards: shards.collect(),
            wait_ms: wait.as_millis() as u64,
        };
        (request, cached)
    }

    /// Pins shards of one leaf, in one call.
    async fn pin_on(
        &self,
        peer: &Peer,
        query: QueryId,
        wanted: &[&(ShardId, PositionVector)],
        deadline: Instant,
    ) -> Result<PinOutcomes, Problem> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let (message, cached) = self.pin_request(peer, query, wanted, wait);
        // The leaf waits up to `wait` for the positions; after that it still needs time to build the view.
        let response = control(peer)
            .pin(peer.request(message, wait + ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        self.decode_outcomes(wanted, response.into_inner(), cached)
    }

    /// Pins shards of one leaf, and begins to scan them, in one call. There are no parts of a scan if the leaf could
    /// not pin all of them, or their path tables are not those that were known.
    async fn pin_and_scan_on(
        &self,
        peer: &Peer,
        query: QueryId,
        wanted: &[&(ShardId, PositionVector)],
        deadline: Instant,
        scan: wire::ScanRequest,
    ) -> Result<(PinOutcomes, Option<PartStream>), Problem> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let (pin, cached) = self.pin_request(peer, query, wanted, wait);
        let message = wire::PinAndScanRequest {
            pin: Some(pin),
            scan: Some(wire::ScanRequest {
                shards: wanted.iter().map(|(shard, _)| (*shard).into()).collect(),
                ..scan
            }),
        };
        let first = async {
            let response = data(peer).pin_and_scan(peer.request(message, wait + ASK_WAIT)).await?;
            let mut parts = Box::new(response.into_inner());
            let first = parts.message().await?;
            Ok((first, parts))
        };
        let answered = tokio::time::timeout(wait + ASK_WAIT, first).await;
        let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not pin the read views")));
        let (first, parts) = answered.map_err(|status| peer.problem(status))?;
        let Some(Part::Pinned(pinned)) = first.and_then(|first| first.part) else {
            return Err(malformed("the read views are missing"));
        };
        let is_scanned = is_scanned(&pinned);
        Ok((
            self.decode_outcomes(wanted, pinned, cached)?,
            is_scanned.then_some(parts),
        ))
    }

    fn decode_outcomes(
        &self,
        wanted: &[&(ShardId, PositionVector)],
        answer: wire::PinAnswer,
        cached: Vec<Option<CachedPaths>>,
    ) -> Result<PinOutcomes, Problem> {
        if answer.outcomes.len() != wanted.len() {
            return Err(malformed("the number of views differs from the number of shards"));
        }
        let pinned = answer
            .outcomes
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

/// The outcomes of the pins on each leaf, by the indexes of their shards.
fn in_order(
    shards: usize,
    by_leaf: Vec<(Vec<usize>, Result<PinOutcomes, Problem>)>,
    without_leaf: Vec<(usize, Problem)>,
) -> PinOutcomes {
    let mut outcomes: Vec<_> = (0..shards).map(|_| Err(malformed("a view is missing"))).collect();
    for (index, problem) in without_leaf {
        outcomes[index] = Err(problem);
    }
    for (indices, pinned) in by_leaf {
        match pinned {
            Ok(pinned) => (indices.into_iter().zip(pinned)).for_each(|(index, outcome)| outcomes[index] = outcome),
            Err(problem) => (indices.into_iter()).for_each(|index| outcomes[index] = Err(problem.clone())),
        }
    }
    outcomes
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

    async fn pin_all(&self, query: QueryId, wanted: &[(ShardId, PositionVector)], deadline: Instant) -> PinOutcomes {
        // That scan reads the views from before this pin.
        drop(self.begun.lock().remove(&query));
        let (by_leaf, without_leaf) = self.by_leaf(wanted.iter().map(|(shard, _)| *shard));
        let calls = by_leaf.into_iter().map(|(peer, indices)| async move {
            let shards: Vec<&(ShardId, PositionVector)> = indices.iter().map(|index| &wanted[*index]).collect();
            let pinned = self.pin_on(peer, query, &shards, deadline).await;
            (indices, pinned)
        });
        in_order(wanted.len(), join_all(calls).await, without_leaf)
    }

    async fn pin_and_scan(
        &self,
        query: QueryId,
        wanted: &[(ShardId, PositionVector)],
        deadline: Instant,
        expected: ExpectedScan<'_>,
    ) -> PinOutcomes {
        let (by_leaf, without_leaf) = self.by_leaf(wanted.iter().map(|(shard, _)| *shard));
        let message = match without_leaf.is_empty() {
            true => expected().and_then(|request| encode_request(&request, &[]).ok()),
            false => None,
        };
        let Some(message) = message else {
            return self.pin_all(query, wanted, deadline).await;
        };
        let calls = by_leaf.into_iter().map(|(peer, indices)| {
            let message = message.clone();
            async move {
                let shards: Vec<&(ShardId, PositionVector)> = indices.iter().map(|index| &wanted[*index]).collect();
                let answer = self.pin_and_scan_on(peer, query, &shards, deadline, message).await;
                (peer, indices, answer)
            }
        });
        let (mut pinned, mut begun) = (Vec::new(), Some(Vec::new()));
        for (peer, indices, answer) in join_all(calls).await {
            let (outcomes, parts) = match answer {
                Ok((outcomes, parts)) => (Ok(outcomes), parts),
                Err(problem) => (Err(problem), None),
            };
            begun = begun.zip(parts).map(|(mut begun, parts)| {
                begun.push((peer.clone(), indices.clone(), parts));
                begun
            });
            pinned.push((indices, outcomes));
        }
        if let Some(leaves) = begun {
            let shards = wanted.iter().map(|(shard, _)| *shard).collect();
            let begun = BegunScan {
                message,
                shards,
                leaves,
            };
            self.begun.lock().insert(query, begun);
        }
        in_order(wanted.len(), pinned, Vec::new())
    }

    fn renew(&self, query: QueryId) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let leaves = self.pinned.lock().get(&query).cloned().unwrap_or_default();
        for peer in leaves.iter().filter_map(|name| self.leaves.peer(name).ok().cloned()) {
            let query = query_bytes(query);
            runtime.spawn(async move {
                let message = peer.request(wire::RenewRequest { query }, ASK_WAIT);
                drop(control(&peer).renew(message).await);
            });
        }
    }

    fn unpin(&self, query: QueryId) {
        drop(self.begun.lock().remove(&query));
        let leaves = self.pinned.lock().remove(&query).unwrap_or_default();
        leaves.iter().for_each(|leaf| self.release(leaf, query));
    }

    fn scan(&self, request: ScanRequest) -> Vec<ScanStream> {
        let message = match encode_request(&request, &[]) {
            Ok(message) => message,
            Err(problem) => return request.shards.iter().map(|_| failed(problem.clone())).collect(),
        };
        let begun = self.begun.lock().remove(&request.query);
        let begun = begun.and_then(|begun| begun.of(&request, &message));
        let (by_leaf, without_leaf) = match begun {
            Some(leaves) => {
                let begun = |(peer, indices, parts)| (peer, indices, LeafParts::Begun(parts));
                (leaves.into_iter().map(begun).collect(), Vec::new())
            }
            None => {
                let (by_leaf, without_leaf) = self.by_leaf(request.shards.iter().copied());
                let unasked = |(peer, indices): (&Peer, Vec<usize>)| {
                    let message = wire::ScanRequest {
                        shards: indices.iter().map(|index| request.shards[*index].into()).collect(),
                        ..message.clone()
                    };
                    (peer.clone(), indices, LeafParts::Unasked(Box::new(message)))
                };
                (by_leaf.into_iter().map(unasked).collect::<Vec<_>>(), without_leaf)
            }
        };
        let mut answers: Vec<(usize, ScanStream)> = without_leaf
            .into_iter()
            .map(|(index, problem)| (index, failed(problem)))
            .collect();
        for (peer, indices, parts) in by_leaf {
            let of_leaf = scan_leaf(peer, indices.len(), parts, request.deadline);
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
