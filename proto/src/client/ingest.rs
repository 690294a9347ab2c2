//! Client for all leaves of a cluster: a call about a shard goes to a leaf that holds a replica of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};

use super::{ASK_WAIT, Peer, leaf_loads::LeafLoads, peers::Peers};
use crate::{
    address::{Position, SourceName},
    catalog::CollectionUid,
    cluster::NodeName,
    ingest::{
        Batch, BatchOutcome, BlockDigest, ClearedDeadLetters, CopyStatus, Ingest, Loss, PartitionStatus, PushAnswer,
        PushResult, ShardAnswers, ShardId, StoredPosition,
    },
    limits::{MESSAGE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX},
    problem::{Code, Problem},
    record::RequestKey,
    snapshot::{ShardSnapshotRequest, ShardSnapshotStatus},
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
    loads: LeafLoads,
    /// The only leaf to call, if what is written is for one replica.
    only: Option<NodeName>,
}

impl RemoteIngest {
    /// The leaves among the members.
    pub fn new(peers: Peers) -> Self {
        Self {
            peers,
            loads: LeafLoads::default(),
            only: None,
        }
    }

    /// How busy the leaves are with the calls of this process.
    pub fn loads(&self) -> &LeafLoads {
        &self.loads
    }

    /// The leaf to ask about a shard.
    fn holder(&self, shard: ShardId) -> Result<Peer, Problem> {
        match &self.only {
            Some(leaf) => self.peers.named(leaf),
            None => Ok(self.holders(shard)?.swap_remove(0)),
        }
    }

    /// The leaves whose replica of a shard answers questions, the one to ask first in front. There is at least one.
    pub fn holders(&self, shard: ShardId) -> Result<Vec<Peer>, Problem> {
        let catalog = self.peers.catalog().borrow().clone();
        let (name, collection) = catalog
            .collection(shard.collection)
            .ok_or_else(|| no_collection(shard.collection))?;
        let mut serving: Vec<&NodeName> = collection.serving(shard.number).collect();
        // So that shards with the same replicas are asked of different leaves, as long as these are equally busy.
        let first = shard.number as usize % serving.len().max(1);
        serving.rotate_left(first);
        let mut last = Problem::new(
            Code::Unavailable,
            format!("shard {} of {name} is not placed on a leaf", shard.number),
        )
        .hint("the catalog has no placement for it");
        let mut peers = Vec::with_capacity(serving.len());
        for leaf in serving {
            match self.peers.named(leaf) {
                Ok(peer) => peers.push(peer),
                Err(problem) => last = problem,
            }
        }
        self.loads.sort(&mut peers);
        if peers.is_empty() { Err(last) } else { Ok(peers) }
    }

    /// Whether a replica of a shard is on its way to another leaf, or leaves.
    pub fn is_moving(&self, shard: ShardId) -> bool {
        let catalog = self.peers.catalog().borrow().clone();
        let found = catalog.collection(shard.collection);
        found.is_some_and(|(_, collection)| collection.is_moving(shard.number))
    }

    /// Asks one replica of a shard, and another one if that is away, does not serve or is slow: the first answer counts.
    pub async fn ask<T, F: Future<Output = Result<T, Problem>>>(
        &self,
        shard: ShardId,
        ask: impl Fn(Peer) -> F,
    ) -> Result<T, Problem> {
        let mut holders: VecDeque<Peer> = match &self.only {
            Some(leaf) => [self.peers.named(leaf)?].into(),
            None => self.holders(shard)?.into(),
        };
        let mut calls = FuturesUnordered::new();
        let is_of_one_replica = |problem: &Problem| problem.code.is_of_one_replica();
        let (mut next_at, mut last) = (tokio::time::Instant::now(), None);
        loop {
            tokio::select! {
                Some(answer) = calls.next(), if !calls.is_empty() => match answer {
                    Err(problem) if is_of_one_replica(&problem) => {
                        (next_at, last) = (tokio::time::Instant::now(), Some(problem));
                    }
                    answer => return answer,
                },
                () = tokio::time::sleep_until(next_at), if !holders.is_empty() => {
                    let Some(peer) = holders.pop_front() else { continue };
                    next_at = tokio::time::Instant::now() + self.loads.slow_after(&peer.name);
                    let call = self.loads.begin(&peer.name);
                    let answer = ask(peer);
                    calls.push(async move {
                        let answer = answer.await;
                        call.end(&answer);
                        answer
                    });
                }
                else => return Err(last.expect("a shard has at least one holder")),
            }
        }
    }

    /// Asks one replica of each of the first `shards` shards, and others in place of those that are away. `number_of`
    /// returns the shard that a part of an answer is about: a leaf answers for all its shards.
    async fn ask_each<T, F: Future<Output = Result<Vec<T>, Problem>>>(
        &self,
        collection: CollectionUid,
        shards: u32,
        ask: impl Fn(Peer) -> F,
        number_of: impl Fn(&T) -> u32,
    ) -> ShardAnswers<T> {
        let mut answers = ShardAnswers::of_all(Ok(Vec::new()), shards);
        let mut waiting: BTreeMap<u32, VecDeque<Peer>> = BTreeMap::new();
        for number in 0..shards {
            match self.holders(ShardId { collection, number }) {
                Ok(peers) => drop(waiting.insert(number, peers.into())),
                Err(problem) => drop(answers.unavailable.insert(number, problem)),
            }
        }
        while !waiting.is_empty() {
            let mut by_leaf: BTreeMap<NodeName, (Peer, Vec<u32>)> = BTreeMap::new();
            for (number, peers) in &mut waiting {
                let peer = peers.pop_front().expect("a shard that waits has a replica left");
                let of_leaf = by_leaf.entry(peer.name.clone()).or_insert_with(|| (peer, Vec::new()));
                of_leaf.1.push(*number);
            }
            let asked = by_leaf.into_values().map(|(peer, numbers)| {
                let call = self.loads.begin(&peer.name);
                let answer = ask(peer);
                async move {
                    let answer = answer.await;
                    call.end(&answer);
                    (numbers, answer)
                }
            });
            for (numbers, answer) in join_all(asked).await {
                match answer {
                    Ok(available) => {
                        let is_asked = |part: &T| numbers.contains(&number_of(part));
                        answers.available.extend(available.into_iter().filter(is_asked));
                        numbers.iter().for_each(|number| drop(waiting.remove(number)));
                    }
                    Err(problem) => {
                        for number in numbers {
                            if waiting.get(&number).is_some_and(VecDeque::is_empty) {
                                waiting.remove(&number);
                                answers.unavailable.insert(number, problem.clone());
                            }
                        }
                    }
                }
            }
        }
        answers
    }

    /// The number of shards of a collection.
    fn shards_of(&self, collection: CollectionUid) -> Result<u32, Problem> {
        let catalog = self.peers.catalog().borrow().clone();
        let found = catalog.collection(collection);
        found
            .map(|(_, collection)| collection.settings.shards)
            .ok_or_else(|| no_collection(collection))
    }

    /// Waits until every replica that may be asked has the push at this position, and returns its result.
    ///
    /// Each replica answers when it has the push, and says which others must have it, too: those that serve or join as
    /// of its catalog, and those that may still serve by a grant of its own. So one answer that names no other suffices. A
    /// replica that knows that it is not asked need not have it.
    async fn pushed_to_all<F: Future<Output = Result<PushAnswer, Problem>>>(
        &self,
        shard: ShardId,
        ask: impl Fn(Peer) -> F,
    ) -> Result<PushResult, Problem> {
        let catalog = self.peers.catalog().borrow().clone();
        let (_, collection) = catalog
            .collection(shard.collection)
            .ok_or_else(|| no_collection(shard.collection))?;
        let mut asked: BTreeSet<NodeName> = collection.confirming(shard.number).cloned().collect();
        let ask = |leaf: NodeName| {
            let asked = self.peers.named(&leaf).map(&ask);
            async move {
                let answer = match asked {
                    Ok(answer) => answer.await,
                    Err(problem) => Err(problem),
                };
                (leaf, answer)
            }
        };
        let mut answers: FuturesUnordered<_> = asked.iter().cloned().map(&ask).collect();
        let (mut confirmed, mut required) = (BTreeSet::new(), BTreeSet::new());
        let (mut result, mut last) = (None, None);
        // That a replica is not asked counts only if it says so after another one that has the push has named it: one that
        // joins from then on gets the push from there. Those asked before are asked again.
        let mut asked_since_named = BTreeSet::new();
        while let Some((leaf, answer)) = answers.next().await {
            match answer {
                Ok(answer) => {
                    if answer.result.is_some() || answer.not_asked && asked_since_named.contains(&leaf) {
                        confirmed.insert(leaf);
                    } else {
                        asked.remove(&leaf);
                    }
                    required.extend(answer.also);
                    result = result.or(answer.result);
                }
                Err(problem) if problem.code == Code::Conflict => return Err(problem),
                Err(problem) => last = Some(problem),
            }
            if let Some(result) = result.as_ref().filter(|_| required.is_subset(&confirmed)) {
                return Ok(result.clone());
            }
            for leaf in required.difference(&asked).cloned().collect::<Vec<NodeName>>() {
                asked.insert(leaf.clone());
                if result.is_some() {
                    asked_since_named.insert(leaf.clone());
                }
                answers.push(ask(leaf));
            }
        }
        Err(last.unwrap_or_else(|| {
            let detail = format!("shard {} of {} is not placed on a leaf", shard.number, shard.collection);
            Problem::new(Code::Unavailable, detail)
        }))
    }
}

fn no_collection(uid: CollectionUid) -> Problem {
    Problem::new(Code::NotFound, format!("the collection with uid {uid} does not exist"))
        .hint("it may have been dropped")
}

fn client(peer: &Peer) -> IngestClient<tonic::transport::Channel> {
    IngestClient::new(peer.data.clone()).max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX)
}

pub(super) fn control(peer: &Peer) -> IngestClient<tonic::transport::Channel> {
    IngestClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

#[async_trait]
impl Ingest for RemoteIngest {
    fn replica_on(&self, leaf: &NodeName) -> Option<Arc<dyn Ingest>> {
        Some(Arc::new(Self {
            only: Some(leaf.clone()),
            ..self.clone()
        }))
    }

    async fn write(&self, batch: Batch) -> Result<BatchOutcome, Problem> {
        let peer = self.holder(batch.shard)?;
        peer.value(client(&peer).write(peer.request(batch.into(), WRITE_WAIT)).await)
    }

    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<StoredPosition, Problem> {
        let ask = |peer: Peer| async move {
            let request = peer.json(&(shard, source, partition), ASK_WAIT)?;
            peer.value(control(&peer).stored(request).await)
        };
        self.ask(shard, ask).await
    }

    async fn ingest_times(
        &self,
        shard: ShardId,
        source: &SourceName,
        partition: i32,
        after: i64,
        through: i64,
    ) -> Result<BTreeMap<i64, i64>, Problem> {
        let ask = |peer: Peer| async move {
            let request = peer.json(&(shard, source, partition, after, through), ASK_WAIT)?;
            let times: Vec<(i64, i64)> = peer.value(control(&peer).ingest_times(request).await)?;
            Ok(times.into_iter().collect())
        };
        self.ask(shard, ask).await
    }

    async fn digests(&self, shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
        self.ask(shard, |peer| async move { digests_at(&peer, shard).await })
            .await
    }

    async fn copies(&self) -> Result<Vec<CopyStatus>, Problem> {
        let Some(leaf) = &self.only else { return Ok(Vec::new()) };
        let peer = self.peers.named(leaf)?;
        peer.value(control(&peer).copies(peer.json(&(), ASK_WAIT)?).await)
    }

    async fn snapshot_shard(&self, request: &ShardSnapshotRequest) -> Result<ShardSnapshotStatus, Problem> {
        let peer = self.holder(request.shard)?;
        peer.value(control(&peer).snapshot_shard(peer.json(request, ASK_WAIT)?).await)
    }

    async fn pushed(
        &self,
        shard: ShardId,
        position: &Position,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<PushResult, Problem> {
        let ask = |peer: Peer| async move {
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
        };
        self.pushed_to_all(shard, ask).await
    }

    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        let shards = self.shards_of(collection)?;
        self.available_partitions(collection, shards).await.all()
    }

    async fn available_partitions(&self, collection: CollectionUid, shards: u32) -> ShardAnswers<PartitionStatus> {
        let ask = |peer: Peer| async move { partitions_at(&peer, collection).await };
        let number_of = |status: &PartitionStatus| status.shard.number;
        self.ask_each(collection, shards, ask, number_of).await
    }

    async fn note_loss(&self, shard: ShardId, loss: Loss) -> Result<(), Problem> {
        let peer = self.holder(shard)?;
        let request = peer.json(&(shard, loss), ASK_WAIT)?;
        peer.value(control(&peer).note_loss(request).await)
    }

    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
        let shards = self.shards_of(collection)?;
        self.available_losses(collection, shards).await.all()
    }

    async fn available_losses(&self, collection: CollectionUid, shards: u32) -> ShardAnswers<Loss> {
        let ask = |peer: Peer| async move { losses_at(&peer, collection).await };
        let catalog = self.peers.catalog().borrow().clone();
        let found = catalog.collection(collection).map(|(_, found)| found);
        let number_of = |loss: &Loss| {
            let shard = found.map(|found| found.shard_at(&loss.source, loss.partition, loss.from));
            shard.map_or(u32::MAX, |shard| shard.number)
        };
        self.ask_each(collection, shards, ask, number_of).await
    }

    async fn clear_dead_letters(
        &self,
        collection: CollectionUid,
        source: Option<&SourceName>,
    ) -> Result<ClearedDeadLetters, Problem> {
        let catalog = self.peers.catalog().borrow().clone();
        let (_, found) = catalog
            .collection(collection)
            .ok_or_else(|| no_collection(collection))?;
        // Every replica has its own, and a letter counts once. One that is behind may be away.
        let shards = 0..found.settings.shards;
        let required: BTreeSet<&NodeName> = shards.flat_map(|shard| found.confirming(shard)).collect();
        let is_member = |leaf: &&NodeName| catalog.members.contains_key(*leaf);
        let leaves: BTreeSet<&NodeName> = found.placement.iter().flatten().filter(is_member).collect();
        let replicas = found.placement.first().map_or(1, Vec::len).max(1) as u64;
        let ask = |leaf| async move {
            let clear = async {
                let peer = self.peers.named(leaf)?;
                let request = peer.json(&(collection, source), CLEAR_WAIT)?;
                peer.value(control(&peer).clear_dead_letters(request).await)
            };
            (leaf, clear.await)
        };
        let mut total = ClearedDeadLetters {
            letters: 0,
            complete: true,
        };
        for (leaf, cleared) in join_all(leaves.into_iter().map(ask)).await {
            match cleared {
                Ok(cleared) => total.add(cleared),
                Err(problem) if required.contains(leaf) => return Err(problem),
                Err(_) => total.complete = false,
            }
        }
        total.letters = total.letters.div_ceil(replicas);
        Ok(total)
    }
}

/// The digests of the replica on a leaf.
pub(super) async fn digests_at(peer: &Peer, shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
    let request = peer.json(&shard, ASK_WAIT)?;
    peer.value(control(peer).digests(request).await)
}

async fn losses_at(peer: &Peer, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
    let request = peer.json(&collection, ASK_WAIT)?;
    peer.value(control(peer).losses(request).await)
}

async fn partitions_at(peer: &Peer, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
    let request = peer.json(&collection, ASK_WAIT)?;
    peer.value(control(peer).partitions(request).await)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::sync::watch;
    use uuid::Uuid;

    use super::*;
    use crate::{
        catalog::{Catalog, Collection, CollectionSettings},
        cluster::{Member, Role},
    };

    fn answer(has_it: bool, also: &[&str]) -> PushAnswer {
        PushAnswer {
            result: has_it.then(|| PushResult {
                accepted: 1,
                rejected: 0,
                errors: Vec::new(),
                position: "push/0@0".parse().expect("a position"),
                repeated: false,
            }),
            not_asked: !has_it,
            also: also.iter().map(|leaf| leaf.parse().expect("a name")).collect(),
        }
    }

    /// Which leaves are asked until a push is confirmed, if each gives these answers, one after another.
    async fn asked(placed: &[&str], answers: &[(&str, PushAnswer)]) -> (Result<(), Code>, Vec<String>) {
        let mut catalog = Catalog::default();
        for (leaf, _) in answers {
            let member = Member::new(Role::Leaf, "http://10.0.0.1:7700", Uuid::nil());
            catalog.members.insert(leaf.parse().expect("a name"), member);
        }
        let mut collection = Collection::new(CollectionUid(Uuid::nil()), 1, CollectionSettings::default());
        collection.placement = vec![placed.iter().map(|leaf| leaf.parse().expect("a name")).collect()];
        catalog
            .collections
            .insert("events".parse().expect("a name"), collection);
        let ingest = RemoteIngest::new(Peers::new(watch::channel(Arc::new(catalog)).1));
        let (left, asked) = (Mutex::new(answers.to_vec()), Mutex::new(Vec::new()));
        let ask = |peer: Peer| {
            asked.lock().push(peer.name.to_string());
            let mut left = left.lock();
            let at = left
                .iter()
                .position(|(leaf, _)| *leaf == peer.name.as_str())
                .expect("an answer");
            let (_, answer) = left.remove(at);
            async move { Ok(answer) }
        };
        let shard = ShardId {
            collection: CollectionUid(Uuid::nil()),
            number: 0,
        };
        let confirmed = ingest
            .pushed_to_all(shard, ask)
            .await
            .map(drop)
            .map_err(|problem| problem.code);
        let asked = asked.lock().clone();
        (confirmed, asked)
    }

    #[tokio::test]
    async fn a_replica_that_is_not_asked_confirms_only_what_it_is_asked_after_another_one_has_it() {
        // Before leaf-1 has the push, leaf-2 is behind. By then, it has joined: it must have the push, too.
        let joined = [
            ("leaf-2", answer(false, &[])),
            ("leaf-1", answer(true, &["leaf-2"])),
            ("leaf-2", answer(true, &["leaf-1"])),
        ];
        let (confirmed, leaves) = asked(&["leaf-2", "leaf-1"], &joined).await;
        assert_eq!((confirmed, leaves.len()), (Ok(()), 3), "{leaves:?}");
        // It has not joined.
        let behind = [
            ("leaf-1", answer(true, &["leaf-2"])),
            ("leaf-2", answer(false, &["leaf-1"])),
        ];
        let (confirmed, leaves) = asked(&["leaf-1"], &behind).await;
        assert_eq!((confirmed, leaves.join(" ").as_str()), (Ok(()), "leaf-1 leaf-2"));
    }

    #[tokio::test]
    async fn a_leaf_that_a_shard_has_left_names_the_one_that_has_it_now() {
        let moved = [("leaf-1", answer(false, &["leaf-2"])), ("leaf-2", answer(true, &[]))];
        let (confirmed, leaves) = asked(&["leaf-1"], &moved).await;
        assert_eq!((confirmed, leaves.join(" ").as_str()), (Ok(()), "leaf-1 leaf-2"));
        let (confirmed, _) = asked(&["leaf-1"], &[("leaf-1", answer(false, &[]))]).await;
        assert_eq!(confirmed, Err(Code::Unavailable));
    }
}
