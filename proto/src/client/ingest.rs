//! Client for all leaves of a cluster: a call about a shard goes to the leaf that holds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;

use super::{ASK_WAIT, Peer, peers::Peers};
use crate::{
    address::{Position, SourceName},
    catalog::CollectionUid,
    cluster::NodeName,
    ingest::{
        Batch, BatchOutcome, ClearedDeadLetters, Ingest, Loss, PartitionStatus, PushResult, ShardAnswers, ShardId,
        StoredPosition,
    },
    limits::{MESSAGE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX},
    problem::{Code, Problem},
    record::RequestKey,
    wire::leaf::ingest_client::IngestClient,
};

/// How long a leaf may take to apply a batch.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How long a leaf may take to clear dead letters; its own time limit is shorter.
const CLEAR_WAIT: Duration = Duration::from_secs(60);

/// All leaves of a cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RemoteIngest {
    peers: Peers,
}

impl RemoteIngest {
    /// The leaves among the members.
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }

    /// The leaf that holds a shard.
    pub fn holder(&self, shard: ShardId) -> Result<Peer, Problem> {
        let catalog = self.peers.catalog().borrow().clone();
        let (name, collection) = catalog
            .collection(shard.collection)
            .ok_or_else(|| no_collection(shard.collection))?;
        let leaf = collection.leaf_of(shard.number).ok_or_else(|| {
            Problem::new(
                Code::Unavailable,
                format!("shard {} of {name} is not placed on a leaf", shard.number),
            )
            .hint("the catalog has no placement for it")
        })?;
        self.peer(leaf)
    }

    /// A leaf by its name.
    pub fn peer(&self, leaf: &NodeName) -> Result<Peer, Problem> {
        self.peers.named(leaf)
    }

    /// The leaves that hold shards of a collection.
    pub fn holders(&self, collection: CollectionUid) -> Result<Vec<Peer>, Problem> {
        let catalog = self.peers.catalog().borrow().clone();
        let (_, found) = catalog
            .collection(collection)
            .ok_or_else(|| no_collection(collection))?;
        let names: BTreeSet<&NodeName> = found.placement.iter().filter_map(|replicas| replicas.first()).collect();
        names.into_iter().map(|name| self.peer(name)).collect()
    }

    /// Calls every leaf that holds shards of a collection, and joins their answers.
    async fn ask_all<T, F: Future<Output = Result<Vec<T>, Problem>>>(
        &self,
        collection: CollectionUid,
        ask: impl Fn(Peer) -> F,
    ) -> Result<Vec<T>, Problem> {
        let peers = self.holders(collection)?;
        let answers = join_all(peers.into_iter().map(ask))
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Asks each leaf of the first `shards` shards. One that does not answer hides only its own shards.
    async fn ask_available<T, F: Future<Output = Result<Vec<T>, Problem>>>(
        &self,
        collection: CollectionUid,
        shards: u32,
        ask: impl Fn(Peer) -> F,
    ) -> ShardAnswers<T> {
        let mut by_leaf: BTreeMap<NodeName, (Peer, Vec<u32>)> = BTreeMap::new();
        let mut answers = ShardAnswers::of_all(Ok(Vec::new()), shards);
        for number in 0..shards {
            match self.holder(ShardId { collection, number }) {
                Ok(peer) => by_leaf
                    .entry(peer.name.clone())
                    .or_insert_with(|| (peer.clone(), Vec::new()))
                    .1
                    .push(number),
                Err(problem) => drop(answers.unavailable.insert(number, problem)),
            }
        }
        let asked = by_leaf.into_values().map(|(peer, shards)| {
            let answer = ask(peer);
            async move { (shards, answer.await) }
        });
        for (shards, answer) in join_all(asked).await {
            match answer {
                Ok(available) => answers.available.extend(available),
                Err(problem) => answers
                    .unavailable
                    .extend(shards.into_iter().map(|shard| (shard, problem.clone()))),
            }
        }
        answers
    }
}

fn no_collection(uid: CollectionUid) -> Problem {
    Problem::new(Code::NotFound, format!("the collection with uid {uid} does not exist"))
        .hint("it may have been dropped")
}

fn client(peer: &Peer) -> IngestClient<tonic::transport::Channel> {
    IngestClient::new(peer.data.clone()).max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX)
}

fn control(peer: &Peer) -> IngestClient<tonic::transport::Channel> {
    IngestClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

#[async_trait]
impl Ingest for RemoteIngest {
    async fn write(&self, batch: Batch) -> Result<BatchOutcome, Problem> {
        let peer = self.holder(batch.shard)?;
        peer.value(client(&peer).write(peer.request(batch.into(), WRITE_WAIT)).await)
    }

    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<StoredPosition, Problem> {
        let peer = self.holder(shard)?;
        let request = peer.json(&(shard, source, partition), ASK_WAIT)?;
        peer.value(control(&peer).stored(request).await)
    }

    async fn pushed(
        &self,
        shard: ShardId,
        position: &Position,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<PushResult, Problem> {
        let peer = self.holder(shard)?;
        let wait = deadline.saturating_duration_since(Instant::now());
        let value = (
            shard,
            position.partition,
            position.offset,
            request,
            wait.as_millis() as u64,
        );
        // The leaf itself answers at the deadline. The later deadline of the transport is for a leaf that hangs.
        let request = peer.json(&value, wait + Duration::from_secs(1))?;
        peer.value(match position.source.is_changes() {
            true => control(&peer).changed(request).await,
            false => control(&peer).pushed(request).await,
        })
    }

    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        self.ask_all(collection, |peer: Peer| async move {
            partitions_at(&peer, collection).await
        })
        .await
    }

    async fn available_partitions(&self, collection: CollectionUid, shards: u32) -> ShardAnswers<PartitionStatus> {
        let ask = |peer: Peer| async move { partitions_at(&peer, collection).await };
        self.ask_available(collection, shards, ask).await
    }

    async fn note_loss(&self, shard: ShardId, loss: Loss) -> Result<(), Problem> {
        let peer = self.holder(shard)?;
        let request = peer.json(&(shard, loss), ASK_WAIT)?;
        peer.value(control(&peer).note_loss(request).await)
    }

    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
        self.ask_all(
            collection,
            |peer: Peer| async move { losses_at(&peer, collection).await },
        )
        .await
    }

    async fn available_losses(&self, collection: CollectionUid, shards: u32) -> ShardAnswers<Loss> {
        let ask = |peer: Peer| async move { losses_at(&peer, collection).await };
        self.ask_available(collection, shards, ask).await
    }

    async fn clear_dead_letters(
        &self,
        collection: CollectionUid,
        source: Option<&SourceName>,
    ) -> Result<ClearedDeadLetters, Problem> {
        let ask = |peer: Peer| async move {
            let request = peer.json(&(collection, source), CLEAR_WAIT)?;
            let cleared: ClearedDeadLetters = peer.value(control(&peer).clear_dead_letters(request).await)?;
            Ok(vec![cleared])
        };
        let mut total = ClearedDeadLetters {
            letters: 0,
            complete: true,
        };
        self.ask_all(collection, ask)
            .await?
            .into_iter()
            .for_each(|cleared| total.add(cleared));
        Ok(total)
    }
}

async fn losses_at(peer: &Peer, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
    let request = peer.json(&collection, ASK_WAIT)?;
    peer.value(control(peer).losses(request).await)
}

async fn partitions_at(peer: &Peer, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
    let request = peer.json(&collection, ASK_WAIT)?;
    peer.value(control(peer).partitions(request).await)
}
