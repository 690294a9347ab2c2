//! All leaves as one, for those who ask: a view is pinned and a scan runs on the leaf that holds the shard.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use parking_lot::Mutex;
use proto::{
    CollectionUid, PositionVector, Problem, SourceName,
    client::{ASK_WAIT, Peer, leaves::Leaves},
    cluster::NodeName,
    ingest::{Batch, Cleared, Ingest, Loss, PartitionStatus, Pushed, ShardId, Stored, Verdict},
    limits::MESSAGE_BYTES_MAX,
    record::RequestKey,
    wire::{
        ingest::{self as wire_ingest, query_bytes, there},
        leaf::{self as wire, pin_outcome::Outcome, scan_client::ScanClient, scan_part::Part},
        problem::malformed,
    },
};
use tonic::transport::Channel;

use crate::{
    PathKinds,
    scan::{Chunk, DeadLetter, Document, FieldStatus, Pinned, QueryId, Scan, ScanRequest, ScanStream, ShardStatus},
    wire::{Rows, end_of, request},
};

/// Tables of paths that are kept, one for a shard.
const PATHS_KNOWN_MAX: usize = 4_096;
/// How long the transport waits longer than the leaf: a leaf that is alive says itself that the time is over.
const GRACE: Duration = Duration::from_secs(1);

/// A table of paths and its hash.
type KnownPaths = (u64, Arc<PathKinds>);

/// All leaves of a cluster, as an aggregator asks them.
pub struct RemoteLeaves {
    leaves: Leaves,
    /// The last table of paths of each shard, by its hash.
    paths: Mutex<HashMap<ShardId, KnownPaths>>,
    /// Where views are held.
    pinned: Mutex<HashMap<QueryId, HashSet<NodeName>>>,
}

impl RemoteLeaves {
    /// These leaves.
    pub fn new(leaves: Leaves) -> Self {
        Self {
            leaves,
            paths: Mutex::default(),
            pinned: Mutex::default(),
        }
    }

    fn known_paths(&self, shard: ShardId) -> Option<KnownPaths> {
        self.paths.lock().get(&shard).cloned()
    }

    /// Pins shards that one leaf holds, in one call.
    async fn pin_on(
        &self,
        peer: &Peer,
        query: QueryId,
        wanted: &[&(ShardId, PositionVector)],
        deadline: Instant,
    ) -> Result<Vec<Result<Pinned, Problem>>, Problem> {
        // Noted first: what is pinned when this future is dropped half-way is let go of, too.
        self.pinned.lock().entry(query).or_default().insert(peer.name.clone());
        let wait = deadline.saturating_duration_since(Instant::now());
        let known: Vec<Option<KnownPaths>> = wanted.iter().map(|(shard, _)| self.known_paths(*shard)).collect();
        let shards = wanted
            .iter()
            .zip(&known)
            .map(|((shard, at_least), known)| wire::Wanted {
                shard: Some((*shard).into()),
                at_least: wire_ingest::positions(at_least),
                paths_known: known.as_ref().map_or(0, |(hash, _)| *hash),
            });
        let shards = shards.collect();
        let question = wire::PinRequest {
            query: query_bytes(query),
            shards,
            wait_ms: wait.as_millis() as u64,
        };
        // The wait is for what is wanted; a leaf that has it may still take its time to build the view.
        let answer = control(peer)
            .pin(peer.request(question, wait + ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        let outcomes = answer.into_inner().outcomes;
        if outcomes.len() != wanted.len() {
            return Err(malformed("there is not one view for each shard"));
        }
        let read = outcomes
            .into_iter()
            .zip(wanted)
            .zip(known)
            .map(
                |((outcome, (shard, _)), known)| match there(outcome.outcome, "the view")? {
                    Outcome::Pinned(pinned) => self.read_pinned(*shard, pinned, known),
                    Outcome::Problem(problem) => Err(problem.into()),
                },
            );
        Ok(read.collect())
    }

    fn read_pinned(&self, shard: ShardId, told: wire::Pinned, known: Option<KnownPaths>) -> Result<Pinned, Problem> {
        let paths = match (told.paths, known) {
            (Some(paths), _) => Arc::new(PathKinds::try_from(paths)?),
            (None, Some((hash, paths))) if hash == told.paths_hash => paths,
            (None, _) => return Err(malformed("the table of paths is missing")),
        };
        self.learn_paths(shard, told.paths_hash, &paths);
        Ok(Pinned {
            positions: wire_ingest::vector(told.positions)?,
            boot: told.boot,
            paths,
            documents: told.documents,
            freshness_ms: told.freshness_ms,
        })
    }

    fn learn_paths(&self, shard: ShardId, hash: u64, paths: &Arc<PathKinds>) {
        let mut known = self.paths.lock();
        if known.len() >= PATHS_KNOWN_MAX {
            known.clear();
        }
        known.insert(shard, (hash, paths.clone()));
    }
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
    ) -> Result<Pinned, Problem> {
        let outcome = self.pin_all(query, &[(shard, at_least.clone())], deadline).await.pop();
        outcome.unwrap_or_else(|| Err(malformed("the view is missing")))
    }

    async fn pin_all(
        &self,
        query: QueryId,
        wanted: &[(ShardId, PositionVector)],
        deadline: Instant,
    ) -> Vec<Result<Pinned, Problem>> {
        let mut outcomes: Vec<Option<Result<Pinned, Problem>>> = vec![None; wanted.len()];
        let mut by_leaf: BTreeMap<&NodeName, (&Peer, Vec<usize>)> = BTreeMap::new();
        for (at, (shard, _)) in wanted.iter().enumerate() {
            match self.leaves.holder(*shard) {
                Ok(peer) => by_leaf.entry(&peer.name).or_insert((peer, Vec::new())).1.push(at),
                Err(problem) => outcomes[at] = Some(Err(problem)),
            }
        }
        let asked = by_leaf.into_values().map(|(peer, places)| async move {
            let of_it: Vec<&(ShardId, PositionVector)> = places.iter().map(|at| &wanted[*at]).collect();
            let told = self.pin_on(peer, query, &of_it, deadline).await;
            (places, told)
        });
        for (places, told) in join_all(asked).await {
            match told {
                Ok(told) => places
                    .into_iter()
                    .zip(told)
                    .for_each(|(at, outcome)| outcomes[at] = Some(outcome)),
                Err(problem) => places
                    .into_iter()
                    .for_each(|at| outcomes[at] = Some(Err(problem.clone()))),
            }
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Err(malformed("a view is missing"))))
            .collect()
    }

    fn unpin(&self, query: QueryId) {
        let Some(leaves) = self.pinned.lock().remove(&query) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for peer in leaves.iter().filter_map(|name| self.leaves.peer(name).ok()) {
            let peer = peer.clone();
            // A leaf that does not hear of it lets go by itself, some time after the deadline.
            runtime.spawn(async move {
                let question = wire::UnpinRequest {
                    query: query_bytes(query),
                };
                drop(control(&peer).unpin(peer.request(question, ASK_WAIT)).await);
            });
        }
    }

    fn scan(&self, asked: ScanRequest) -> ScanStream {
        let opened = self
            .leaves
            .holder(asked.shard)
            .cloned()
            .and_then(|peer| Ok((peer, request(&asked)?, asked.deadline)));
        stream::once(async move {
            let (peer, question, deadline) = opened?;
            let wait = deadline.saturating_duration_since(Instant::now()) + GRACE;
            let parts = data(&peer)
                .scan(peer.request(question, wait))
                .await
                .map_err(|status| peer.problem(status))?
                .into_inner();
            Ok::<_, Problem>(chunks(parts, peer, deadline + GRACE))
        })
        .try_flatten()
        .boxed()
    }

    async fn document(&self, shard: ShardId, id: &str) -> Result<Option<Document>, Problem> {
        let peer = self.leaves.holder(shard)?;
        let question = wire::DocumentRequest {
            shard: Some(shard.into()),
            id: id.to_owned(),
        };
        let answer = data(peer)
            .document(peer.request(question, ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        answer.into_inner().document.map(TryInto::try_into).transpose()
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<FieldStatus>, Problem> {
        let peer = self.leaves.holder(shard)?;
        let question = wire::ShardRequest {
            shard: Some(shard.into()),
        };
        let answer = data(peer)
            .fields(peer.request(question, ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        let fields: Vec<wire::Field> = answer
            .into_inner()
            .try_collect()
            .await
            .map_err(|status| peer.problem(status))?;
        fields.into_iter().map(TryInto::try_into).collect()
    }

    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem> {
        let peer = self.leaves.holder(shard)?;
        let question = wire::ShardRequest {
            shard: Some(shard.into()),
        };
        let answer = control(peer)
            .status(peer.request(question, ASK_WAIT))
            .await
            .map_err(|status| peer.problem(status))?;
        answer.into_inner().try_into()
    }

    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem> {
        let peer = self.leaves.holder(shard)?;
        let question = wire::DeadLettersRequest {
            shard: Some(shard.into()),
            limit: limit as u64,
        };
        let answer = data(peer)
            .dead_letters(peer.request(question, ASK_WAIT * 3))
            .await
            .map_err(|status| peer.problem(status))?;
        let letters: Vec<wire::DeadLetter> = answer
            .into_inner()
            .try_collect()
            .await
            .map_err(|status| peer.problem(status))?;
        letters.into_iter().map(TryInto::try_into).collect()
    }
}

/// The pieces of an answer as its parts come. The transport's deadline ends with the first part: each part has one of
/// its own.
fn chunks(
    parts: tonic::Streaming<wire::ScanPart>,
    peer: Peer,
    deadline: Instant,
) -> impl futures::Stream<Item = Result<Chunk, Problem>> + Send + 'static {
    let pieces = stream::try_unfold(
        (parts, Rows::default(), peer),
        move |(mut parts, mut rows, peer)| async move {
            let part = match tokio::time::timeout_at(deadline.into(), parts.message()).await {
                Ok(part) => part.map_err(|status| peer.problem(status))?,
                Err(_) => {
                    return Err(Problem::new(
                        proto::Code::Timeout,
                        format!("{} did not go on with its answer before the deadline", peer.name),
                    ));
                }
            };
            let Some(part) = part else { return Ok(None) };
            let pieces: Vec<Result<Chunk, Problem>> = match there(part.part, "the part")? {
                Part::Arrow(bytes) => rows
                    .read(bytes)?
                    .into_iter()
                    .map(|batch| Ok(Chunk::Rows(batch)))
                    .collect(),
                Part::SoFar(trailer) => vec![Ok(Chunk::SoFar(end_of(trailer)?))],
                Part::End(trailer) => vec![Ok(Chunk::End(end_of(trailer)?))],
            };
            Ok(Some((stream::iter(pieces), (parts, rows, peer))))
        },
    );
    pieces.try_flatten()
}

#[async_trait]
impl Ingest for RemoteLeaves {
    async fn write(&self, batch: Batch) -> Result<Verdict, Problem> {
        self.leaves.write(batch).await
    }

    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<Stored, Problem> {
        self.leaves.stored(shard, source, partition).await
    }

    async fn pushed(
        &self,
        shard: ShardId,
        partition: i32,
        offset: i64,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<Pushed, Problem> {
        self.leaves.pushed(shard, partition, offset, request, deadline).await
    }

    async fn partitions_there(&self, collection: CollectionUid, shards: u32) -> proto::ingest::Partitions {
        self.leaves.partitions_there(collection, shards).await
    }

    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        self.leaves.partitions(collection).await
    }

    async fn note_loss(&self, shard: ShardId, loss: Loss) -> Result<(), Problem> {
        self.leaves.note_loss(shard, loss).await
    }

    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
        self.leaves.losses(collection).await
    }

    async fn clear_dead_letters(
        &self,
        collection: CollectionUid,
        source: Option<&SourceName>,
    ) -> Result<Cleared, Problem> {
        self.leaves.clear_dead_letters(collection, source).await
    }
}
