//! Changes of placement: replicas are added, leave and are removed, and leaves are drained.
//!
//! ```text
//! AddReplicas ──> behind ── copied, fed, compared ──> joining ──> serving: the one that it replaces is leaving
//!                                                                    ──> RemoveReplicas
//! ```
//!
//! Each change says what it expects to find, and may be repeated.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    super::{Catalog, Collection, Move, ReplicaState},
    AddedReplica, RetiredReplica,
};
use crate::{
    cluster::{NodeName, Role},
    ingest::ShardId,
    limits::{LEFT_MAX, REPLICAS_MAX},
    problem::{Code, Problem},
};

impl Catalog {
    pub(super) fn add_replicas(&mut self, replicas: &[AddedReplica]) -> Result<(), Problem> {
        let (version, members) = (self.version, self.members.clone());
        let is_leaf = |leaf: &NodeName| members.get(leaf).is_some_and(|member| member.role == Role::Leaf);
        self.change_each(
            replicas,
            |added| added.shard,
            |collection, added| is_leaf(&added.leaf) && collection.add_replica(added, version),
        )
    }

    pub(super) fn retire_replicas(&mut self, replicas: &[RetiredReplica]) -> Result<(), Problem> {
        let version = self.version;
        self.change_each(
            replicas,
            |retired| retired.shard,
            |collection, retired| collection.retire_replica(retired.shard.number, &retired.leaf, version),
        )
    }

    pub(super) fn remove_replicas(
        &mut self,
        by: &NodeName,
        instance: Uuid,
        replicas: &[(RetiredReplica, u64)],
    ) -> Result<(), Problem> {
        self.check_instance(by, instance)?;
        self.change_each(
            replicas,
            |(retired, _)| retired.shard,
            |collection, (retired, since)| {
                let number = retired.shard.number;
                let is_judge = collection.replica_state(number, by) == Some(ReplicaState::Serving);
                let is_leaving =
                    collection.replica_state(number, &retired.leaf) == Some(ReplicaState::Leaving { since: *since });
                is_judge && is_leaving && collection.remove_replica(number, &retired.leaf, *since)
            },
        )
    }

    pub(super) fn drain_leaf(&mut self, leaf: &NodeName, draining: bool) -> Result<(), Problem> {
        if self.members.get(leaf).is_none_or(|member| member.role != Role::Leaf) {
            return Err(Problem::new(Code::NotFound, format!("the cluster has no leaf {leaf}"))
                .hint("`rachis cluster status` lists its nodes"));
        }
        match draining {
            true => self.draining.insert(leaf.clone()),
            false => self.draining.remove(leaf),
        };
        Ok(())
    }

    /// Makes a change for each of these; refused if none of them changes anything.
    pub(super) fn change_each<T>(
        &mut self,
        changes: &[T],
        shard: impl Fn(&T) -> ShardId,
        change: impl Fn(&mut Collection, &T) -> bool,
    ) -> Result<(), Problem> {
        let mut changed = 0;
        for one in changes {
            let uid = shard(one).collection;
            let found = self.collections.values_mut().find(|known| known.uid == uid);
            changed += usize::from(found.is_some_and(|collection| change(collection, one)));
        }
        match changed {
            0 => Err(Problem::new(
                Code::Conflict,
                "no replica can be changed so: the placement, or the states of replicas, were changed in the meantime",
            )
            .hint("`select * from rachis.replicas` shows them; `rachis rebalance` plans moves again")),
            _ => Ok(()),
        }
    }
}

impl Collection {
    fn add_replica(&mut self, added: &AddedReplica, since: u64) -> bool {
        let number = added.shard.number;
        let is_replaced = |leaf: &NodeName| {
            let mut moves = self.moves.get(&number).into_iter().flat_map(BTreeMap::values);
            moves.any(|known| known.instead_of.as_ref() == Some(leaf))
        };
        let is_leaving = |leaf: &NodeName| {
            matches!(
                self.replica_state(number, leaf),
                None | Some(ReplicaState::Leaving { .. })
            )
        };
        let may_leave = |leaf: &NodeName| !is_leaving(leaf) && !is_replaced(leaf);
        let Some(replicas) = self.placement.get(number as usize) else {
            return false;
        };
        let has_room = replicas.len() < 2 * REPLICAS_MAX as usize && !replicas.contains(&added.leaf);
        if !has_room || !added.instead_of.as_ref().is_none_or(may_leave) {
            return false;
        }
        self.placement[number as usize].push(added.leaf.clone());
        self.forget_left(number, &added.leaf);
        let moved = Move {
            instead_of: added.instead_of.clone(),
            since,
        };
        self.moves.entry(number).or_default().insert(added.leaf.clone(), moved);
        self.forget_confirmation(number, &added.leaf);
        self.set_replica(number, &added.leaf, ReplicaState::Behind { since })
    }

    /// Has a replica leave, unless no other one serves.
    pub(super) fn retire_replica(&mut self, shard: u32, leaf: &NodeName, since: u64) -> bool {
        let state = self.replica_state(shard, leaf);
        let stays = matches!(state, None | Some(ReplicaState::Leaving { .. }));
        if stays || !self.serving(shard).any(|other| other != leaf) {
            return false;
        }
        self.end_move(shard, leaf);
        self.set_replica(shard, leaf, ReplicaState::Leaving { since })
    }

    /// Removes a replica that has been asked nothing since this version.
    fn remove_replica(&mut self, shard: u32, leaf: &NodeName, since: u64) -> bool {
        self.set_replica(shard, leaf, ReplicaState::Serving);
        self.placement[shard as usize].retain(|other| other != leaf);
        let left = self.left.entry(shard).or_default();
        left.insert(leaf.clone(), since);
        if left.len() > LEFT_MAX
            && let Some(first) = left
                .iter()
                .min_by_key(|(_, since)| **since)
                .map(|(leaf, _)| leaf.clone())
        {
            left.remove(&first);
        }
        true
    }

    /// That a leaf has left a shard does not matter any more.
    pub(super) fn forget_left(&mut self, shard: u32, leaf: &NodeName) {
        if let Some(left) = self.left.get_mut(&shard) {
            left.remove(leaf);
        }
        self.left.retain(|_, left| !left.is_empty());
    }

    /// A replica is not on its way any more.
    pub(super) fn end_move(&mut self, shard: u32, leaf: &NodeName) -> Option<Move> {
        let ended = self.moves.get_mut(&shard)?.remove(leaf);
        self.moves.retain(|_, moves| !moves.is_empty());
        ended
    }
}

#[cfg(test)]
mod tests;
