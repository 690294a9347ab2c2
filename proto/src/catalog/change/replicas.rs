//! Changes of replicas: which of them answer questions.
//!
//! No change takes out the last serving replica of a shard. Of two replicas that take each other out, the log decides.

use uuid::Uuid;

use super::super::{Catalog, Collection, ReplicaState};
use crate::{
    cluster::NodeName,
    ingest::ShardId,
    problem::{Code, Problem},
};

impl Catalog {
    pub(super) fn leave_behind(
        &mut self,
        leaf: &NodeName,
        by: &NodeName,
        instance: Uuid,
        shards: &[ShardId],
    ) -> Result<(), Problem> {
        self.check_instance(by, instance)?;
        let version = self.version;
        self.change_replicas(shards.iter().copied(), |collection, shard| {
            let is_judge = collection.replica_state(shard, by) == Some(ReplicaState::Serving);
            is_judge && collection.leave_replica_behind(shard, leaf, version)
        })
    }

    pub(super) fn join_replicas(&mut self, leaf: &NodeName, instance: Uuid, shards: &[ShardId]) -> Result<(), Problem> {
        self.check_instance(leaf, instance)?;
        let since = self.version;
        self.change_replicas(shards.iter().copied(), |collection, shard| {
            let is_behind = matches!(collection.replica_state(shard, leaf), Some(ReplicaState::Behind { .. }));
            is_behind && collection.set_replica(shard, leaf, ReplicaState::Joining { since })
        })
    }

    pub(super) fn serve_replicas(
        &mut self,
        leaf: &NodeName,
        instance: Uuid,
        shards: &[(ShardId, u64)],
    ) -> Result<(), Problem> {
        self.check_instance(leaf, instance)?;
        let version = self.version;
        let since = |shard: ShardId| shards.iter().find(|(id, _)| *id == shard).map(|(_, since)| *since);
        let ids = shards.iter().map(|(shard, _)| *shard);
        self.change_replicas(ids, |collection, shard| {
            let id = ShardId {
                collection: collection.uid,
                number: shard,
            };
            // It may have been left behind since, and have joined again.
            let has_joined = since(id).map(|since| ReplicaState::Joining { since });
            collection.replica_state(shard, leaf) == has_joined && collection.serve_replica(shard, leaf, version)
        })
    }

    /// A leaf has nothing of its replicas any more: they are behind. If no other member serves a shard, one that holds a
    /// replica serves what it has, and reads the rest again: one that joins rather than one that is behind, and the leaf
    /// itself only if there is no other. If that one has nothing of the shard either, it begins with what a snapshot has.
    pub(super) fn lose_replicas(&mut self, leaf: &NodeName, from_snapshots: bool) {
        let (version, members) = (self.version, &self.members);
        for collection in self.collections.values_mut() {
            for shard in 0..collection.settings.shards {
                if collection.replica_state(shard, leaf).is_none() {
                    continue;
                }
                collection.leave_replica_behind(shard, leaf, version);
                collection.forget_confirmation(shard, leaf);
                let is_served = |other: &NodeName| other != leaf && members.contains_key(other);
                if collection.serving(shard).any(is_served) {
                    continue;
                }
                let rank = |other: &&NodeName| {
                    let state = collection.replica_state(shard, other);
                    (*other == leaf, matches!(state, Some(ReplicaState::Behind { .. })))
                };
                let replicas = collection.replicas_of(shard).iter();
                let present = replicas.filter(|other| members.contains_key(*other));
                let Some(chosen) = present.min_by_key(rank).cloned() else {
                    continue;
                };
                // What it has since it was placed there, it keeps: its disk may be there after all.
                let moves = collection.moves.get(&shard);
                let since = moves
                    .and_then(|moves| moves.get(&chosen))
                    .map_or(0, |placed| placed.since);
                collection.serve_replica(shard, &chosen, version);
                if from_snapshots && !collection.is_restored(shard) {
                    collection.lost.insert(shard, since);
                    collection.forget_confirmation(shard, &chosen);
                }
                let serving: Vec<NodeName> = collection.serving(shard).cloned().collect();
                for other in serving.iter().filter(|other| **other != chosen) {
                    collection.leave_replica_behind(shard, other, version);
                }
            }
        }
    }

    /// Makes a change of each shard; refused if none of them changes.
    fn change_replicas(
        &mut self,
        shards: impl Iterator<Item = ShardId>,
        change: impl Fn(&mut Collection, u32) -> bool,
    ) -> Result<(), Problem> {
        let shards: Vec<ShardId> = shards.collect();
        self.change_each(
            &shards,
            |shard| *shard,
            |collection, shard| change(collection, shard.number),
        )
    }

    pub(super) fn check_instance(&self, leaf: &NodeName, instance: Uuid) -> Result<(), Problem> {
        match self.members.get(leaf) {
            Some(member) if member.instance == instance => Ok(()),
            _ => Err(Problem::new(
                Code::Conflict,
                format!("a node with this data folder is not the member {leaf}"),
            )),
        }
    }
}

impl Collection {
    /// Whether a replica is left behind now that was not before. The last serving one is not.
    pub(super) fn leave_replica_behind(&mut self, shard: u32, leaf: &NodeName, since: u64) -> bool {
        let state = self.replica_state(shard, leaf);
        let is_last = state == Some(ReplicaState::Serving) && self.serving(shard).count() == 1;
        let may_be_asked = state.is_some_and(|state| state.not_asked_since().is_none());
        !is_last && may_be_asked && self.set_replica(shard, leaf, ReplicaState::Behind { since })
    }

    /// Has a replica serve. If it is there instead of another one, that one leaves.
    fn serve_replica(&mut self, shard: u32, leaf: &NodeName, version: u64) -> bool {
        self.set_replica(shard, leaf, ReplicaState::Serving);
        let mut ended = self.end_move(shard, leaf);
        while let Some(other) = ended.and_then(|ended| ended.instead_of) {
            // It may be there instead of a third one, and not serve yet.
            ended = self.end_move(shard, &other);
            self.retire_replica(shard, &other, version);
        }
        true
    }

    pub(super) fn set_replica(&mut self, shard: u32, leaf: &NodeName, state: ReplicaState) -> bool {
        let replicas = self.not_serving.entry(shard).or_default();
        match state {
            ReplicaState::Serving => drop(replicas.remove(leaf)),
            other => drop(replicas.insert(leaf.clone(), other)),
        }
        self.not_serving.retain(|_, replicas| !replicas.is_empty());
        true
    }
}

#[cfg(test)]
pub(super) mod tests;
