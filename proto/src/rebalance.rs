//! Plans which replicas are added and retired, so that every shard has as many as it should, in different zones, and the
//! leaves are loaded evenly.
//!
//! Pure: the same input gives the same plan. It counts replicas where they will be once all moves under way have ended, so
//! a plan that is made again while the first one is carried out asks for nothing new.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    catalog::{AddedReplica, Catalog, Collection, ReplicaState, RetiredReplica},
    cluster::{Member, NodeName, Role},
    ingest::ShardId,
    limits::REPLICAS_MAX,
};

/// What a shard weighs beside its bytes: an empty one costs files, memory and calls, too.
const SHARD_BYTES: u64 = 16 << 20;
/// A leaf with this much more than its share gives replicas away, and one with this much less gets some, in percent.
const TOLERATED_PERCENT: u128 = 5;

/// What a plan is made from.
pub struct PlanInput<'a> {
    /// The placement, and the leaves.
    pub catalog: &'a Catalog,
    /// The number of replicas of a collection that names none.
    pub replicas: u32,
    /// Leaves that do not answer: they get nothing.
    pub away: &'a BTreeSet<NodeName>,
    /// Those of them that are given up: their replicas are placed on other leaves.
    pub given_up: &'a BTreeSet<NodeName>,
    /// The bytes of each shard on a disk, as far as they are known.
    pub bytes: &'a BTreeMap<ShardId, u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The replicas to add.
    pub added: Vec<AddedReplica>,
    /// The surplus replicas, and those on their way to a leaf that is to hold none.
    pub retired: Vec<RetiredReplica>,
    /// Shards for which there is no leaf, each with the leaf that its replica should leave, if there is one.
    pub unplaced: Vec<(ShardId, Option<NodeName>)>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.retired.is_empty()
    }
}

/// A leaf that can take replicas, and what it will hold.
struct Target<'a> {
    name: &'a NodeName,
    member: &'a Member,
    weight: u64,
}

/// What a leaf holds for its capacity, to order leaves by.
type RelativeWeight = u128;

impl Target<'_> {
    /// What it holds for its capacity, with so much more.
    fn load(&self, added: u64) -> RelativeWeight {
        // So that capacities up to 1,000 make a difference for few bytes, too.
        (u128::from(self.weight) + u128::from(added)) * 1_000 / u128::from(self.member.capacity)
    }
}

/// A shard, and where its replicas will be.
struct PlannedShard {
    id: ShardId,
    weight: u64,
    wanted: usize,
    /// The leaves with a replica in any state: they get no second one.
    placed: BTreeSet<NodeName>,
    /// The leaves that will have one once all moves have ended.
    stays: Vec<NodeName>,
    /// Those of them that cannot be moved now: they are on their way.
    moving: BTreeSet<NodeName>,
    /// The leaves whose replica serves.
    serving: BTreeSet<NodeName>,
}

struct Planner<'a> {
    input: &'a PlanInput<'a>,
    targets: Vec<Target<'a>>,
    /// The index of each leaf in `targets`.
    index: BTreeMap<&'a NodeName, usize>,
    /// The targets by their load, the emptiest first.
    by_load: BTreeSet<(RelativeWeight, usize)>,
    shards: Vec<PlannedShard>,
    plan: Plan,
}

/// Plans what is to be done.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut planner = Planner::new(input);
    planner.replace();
    planner.separate_zones();
    planner.balance();
    planner.plan
}

/// Plans only that every shard has its replicas. Nothing is moved to even out zones or loads.
pub fn plan_replicas(input: &PlanInput<'_>) -> Plan {
    let mut planner = Planner::new(input);
    planner.replace();
    planner.plan
}

/// Whether a leaf is to hold nothing, or is gone for good.
pub(crate) fn is_gone(catalog: &Catalog, given_up: &BTreeSet<NodeName>, leaf: &NodeName) -> bool {
    catalog.draining.contains(leaf) || given_up.contains(leaf) || !catalog.members.contains_key(leaf)
}

impl<'a> Planner<'a> {
    fn new(input: &'a PlanInput<'a>) -> Self {
        let takes = |name: &NodeName| !input.catalog.draining.contains(name) && !input.away.contains(name);
        let leaves = input.catalog.members_of(Role::Leaf).filter(|(name, _)| takes(name));
        let targets: Vec<Target<'_>> = leaves
            .map(|(name, member)| Target {
                name,
                member,
                weight: 0,
            })
            .collect();
        let index = targets
            .iter()
            .enumerate()
            .map(|(at, target)| (target.name, at))
            .collect();
        let mut planner = Planner {
            input,
            by_load: (0..targets.len()).map(|at| (0, at)).collect(),
            targets,
            index,
            shards: Vec::new(),
            plan: Plan::default(),
        };
        planner.load();
        planner
    }

    fn load(&mut self) {
        for collection in self.input.catalog.collections.values() {
            // One process holds all shards of a collection without placement.
            for number in 0..u32::try_from(collection.placement.len()).unwrap_or(0) {
                let shard = self.planned(collection, number);
                for leaf in &shard.stays {
                    self.weigh(leaf, |weight| weight + shard.weight);
                }
                self.shards.push(shard);
            }
        }
    }

    fn weigh(&mut self, leaf: &NodeName, change: impl Fn(u64) -> u64) {
        let Some(at) = self.index.get(leaf).copied() else {
            return;
        };
        self.by_load.remove(&(self.targets[at].load(0), at));
        self.targets[at].weight = change(self.targets[at].weight);
        self.by_load.insert((self.targets[at].load(0), at));
    }

    fn is_gone(&self, leaf: &NodeName) -> bool {
        is_gone(self.input.catalog, self.input.given_up, leaf)
    }

    fn planned(&mut self, collection: &Collection, number: u32) -> PlannedShard {
        let id = ShardId {
            collection: collection.uid,
            number,
        };
        // A replica on its way to a leaf that is to hold none is given up. One that is away may come back.
        let moves = collection.moves.get(&number).into_iter().flatten();
        let (given_up, moves): (Vec<_>, Vec<_>) = moves.partition(|(leaf, _)| self.is_gone(leaf));
        let given_up: BTreeSet<&NodeName> = given_up.into_iter().map(|(leaf, _)| leaf).collect();
        let is_replaced = |leaf: &NodeName| moves.iter().any(|(_, moved)| moved.instead_of.as_ref() == Some(leaf));
        let state = |leaf: &NodeName| collection.replica_state(number, leaf);
        let stays = |leaf: &&NodeName| {
            let is_leaving = matches!(state(leaf), Some(ReplicaState::Leaving { .. }));
            !is_leaving && !is_replaced(leaf) && !given_up.contains(leaf)
        };
        let placed = collection.replicas_of(number);
        let wanted = collection.settings.replicas.unwrap_or(self.input.replicas);
        let shard = PlannedShard {
            id,
            weight: SHARD_BYTES + self.input.bytes.get(&id).copied().unwrap_or(0),
            wanted: wanted.clamp(1, REPLICAS_MAX) as usize,
            placed: placed.iter().cloned().collect(),
            stays: placed.iter().filter(stays).cloned().collect(),
            moving: moves.iter().map(|(leaf, _)| (*leaf).clone()).collect(),
            serving: collection.serving(number).cloned().collect(),
        };
        let retired = given_up.into_iter().map(|leaf| RetiredReplica {
            shard: id,
            leaf: leaf.clone(),
        });
        self.plan.retired.extend(retired.collect::<Vec<_>>());
        shard
    }

    /// Replaces replicas on leaves that are to hold none, or are gone for good, and makes the number of replicas right.
    fn replace(&mut self) {
        for at in 0..self.shards.len() {
            let gone: Vec<NodeName> = self.shards[at]
                .stays
                .iter()
                .filter(|leaf| self.is_gone(leaf))
                .cloned()
                .collect();
            let wanted = self.shards[at].wanted;
            for leaf in gone {
                if self.shards[at].stays.len() > wanted && self.can_retire(at, &leaf) {
                    self.retire(at, &leaf);
                } else {
                    self.add(at, Some(&leaf));
                }
            }
            while self.shards[at].stays.len() < wanted && self.add(at, None) {}
            while self.shards[at].stays.len() > wanted
                && let Some(leaf) = self.surplus(at)
            {
                self.retire(at, &leaf);
            }
        }
    }

    /// Whether another replica of a shard serves that stays.
    fn can_retire(&self, at: usize, leaf: &NodeName) -> bool {
        let shard = &self.shards[at];
        shard
            .stays
            .iter()
            .any(|other| other != leaf && shard.serving.contains(other))
    }

    /// The replica that a shard needs least: one that does not serve, then one that shares its zone, then the one on the
    /// fullest leaf.
    fn surplus(&self, at: usize) -> Option<NodeName> {
        let shard = &self.shards[at];
        let found = shard.stays.iter().filter(|leaf| self.can_retire(at, leaf));
        let need = |leaf: &&NodeName| {
            let target = self.index.get(*leaf).copied();
            let shares_zone = target.is_some_and(|target| self.shares_zone(at, target, Some(leaf)));
            let load = target.map_or(RelativeWeight::MAX, |target| self.targets[target].load(0));
            (!shard.serving.contains(*leaf), shares_zone, load)
        };
        found.max_by_key(need).cloned()
    }

    /// Moves one of two replicas in the same zone, if there is a zone without one.
    fn separate_zones(&mut self) {
        for at in 0..self.shards.len() {
            let shared = |planner: &Self| {
                let shard = &planner.shards[at];
                let mut movable = shard.stays.iter().filter(|leaf| !shard.moving.contains(*leaf));
                let leaf = movable.find(|leaf| {
                    let target = planner.index.get(leaf);
                    target.is_some_and(|target| planner.shares_zone(at, *target, Some(leaf)))
                })?;
                let best = planner.best_target(at, Some(leaf))?;
                (!planner.shares_zone(at, best, Some(leaf))).then(|| leaf.clone())
            };
            while let Some(leaf) = shared(self) {
                self.add(at, Some(&leaf));
            }
        }
    }

    /// Moves replicas from the leaves that have the most for their capacity to those that have the least.
    fn balance(&mut self) {
        let capacity: u128 = self
            .targets
            .iter()
            .map(|target| u128::from(target.member.capacity))
            .sum();
        let weight: u128 = self.targets.iter().map(|target| u128::from(target.weight)).sum();
        if capacity == 0 {
            return;
        }
        let share: RelativeWeight = weight * 1_000 / capacity;
        // What is moved is not among what its new leaf gives away: one plan moves a replica once.
        let mut held: Vec<Vec<usize>> = vec![Vec::new(); self.targets.len()];
        for (at, shard) in self.shards.iter().enumerate() {
            let movable = shard.stays.iter().filter(|leaf| !shard.moving.contains(*leaf));
            for target in movable.filter_map(|leaf| self.index.get(leaf)) {
                held[*target].push(at);
            }
        }
        self.relieve(share, &mut held);
        self.fill(share, &mut held);
    }

    /// Takes replicas from the leaves that have much more than their share.
    fn relieve(&mut self, share: RelativeWeight, held: &mut [Vec<usize>]) {
        let mut tried: BTreeSet<usize> = BTreeSet::new();
        while let Some((load, from)) = self.by_load.iter().rev().find(|(_, at)| !tried.contains(at)).copied() {
            if load * 100 <= share * (100 + TOLERATED_PERCENT) {
                break;
            }
            let fitting = |at: &usize| {
                let to = self.best_target(*at, Some(self.targets[from].name))?;
                self.fits(*at, from, to).then_some((self.shards[*at].weight, *at, to))
            };
            match held[from].iter().filter_map(fitting).max() {
                Some((_, at, to)) => self.give(at, from, to, held),
                None => drop(tried.insert(from)),
            }
        }
    }

    /// Gives replicas to the leaves that have much less than their share: of many leaves that each have a little more than
    /// theirs, none would give any away otherwise.
    fn fill(&mut self, share: RelativeWeight, held: &mut [Vec<usize>]) {
        let mut tried: BTreeSet<usize> = BTreeSet::new();
        while let Some((load, to)) = self.by_load.iter().find(|(_, at)| !tried.contains(at)).copied() {
            if load * 100 >= share * (100 - TOLERATED_PERCENT) {
                break;
            }
            let fitting = |from: usize| {
                let fitting = held[from].iter().filter(|at| self.fits(**at, from, to));
                let (_, at) = fitting.map(|at| (self.shards[*at].weight, *at)).max()?;
                Some((at, from))
            };
            match self.by_load.iter().rev().find_map(|(_, from)| fitting(*from)) {
                Some((at, from)) => self.give(at, from, to, held),
                None => drop(tried.insert(to)),
            }
        }
    }

    /// Whether a leaf may give its replica of a shard to another one, and the two are then loaded more evenly.
    fn fits(&self, at: usize, from: usize, to: usize) -> bool {
        let (shard, leaf) = (&self.shards[at], self.targets[from].name);
        // Not if the other leaf then has as much as this one has now.
        !shard.placed.contains(self.targets[to].name)
            && self.targets[to].load(shard.weight) < self.targets[from].load(0)
            && (!self.shares_zone(at, to, Some(leaf)) || self.shares_zone(at, from, Some(leaf)))
    }

    fn give(&mut self, at: usize, from: usize, to: usize, held: &mut [Vec<usize>]) {
        let leaf = self.targets[from].name.clone();
        held[from].retain(|other| *other != at);
        self.place(at, to, Some(&leaf));
    }

    /// Adds a replica to a shard, on the best leaf, instead of another one or as one more. Notes if there is no leaf.
    fn add(&mut self, at: usize, instead_of: Option<&NodeName>) -> bool {
        let Some(to) = self.best_target(at, instead_of) else {
            let shard = &self.shards[at];
            self.plan.unplaced.push((shard.id, instead_of.cloned()));
            return false;
        };
        self.place(at, to, instead_of);
        true
    }

    fn place(&mut self, at: usize, to: usize, instead_of: Option<&NodeName>) {
        let (leaf, weight) = (self.targets[to].name.clone(), self.shards[at].weight);
        self.weigh(&leaf, |known| known + weight);
        if let Some(from) = instead_of {
            self.weigh(from, |known| known - weight);
        }
        let shard = &mut self.shards[at];
        shard.stays.retain(|other| Some(other) != instead_of);
        shard.stays.push(leaf.clone());
        shard.placed.insert(leaf.clone());
        shard.moving.insert(leaf.clone());
        self.plan.added.push(AddedReplica {
            shard: shard.id,
            leaf,
            instead_of: instead_of.cloned(),
        });
    }

    fn retire(&mut self, at: usize, leaf: &NodeName) {
        let shard = &mut self.shards[at];
        shard.stays.retain(|other| other != leaf);
        let (shard, weight) = (shard.id, shard.weight);
        self.weigh(leaf, |known| known - weight);
        let leaf = leaf.clone();
        self.plan.retired.push(RetiredReplica { shard, leaf });
    }

    /// The leaf that should take a replica of a shard: in a zone that has none, with the least for its capacity.
    fn best_target(&self, at: usize, instead_of: Option<&NodeName>) -> Option<usize> {
        let free = |target: &usize| !self.shards[at].placed.contains(self.targets[*target].name);
        let mut free = self.by_load.iter().map(|(_, target)| *target).filter(free);
        let first = free.next()?;
        let mut all = std::iter::once(first).chain(free);
        all.find(|target| !self.shares_zone(at, *target, instead_of))
            .or(Some(first))
    }

    /// Whether a leaf is in the zone of a replica of a shard, other than this one. A leaf without a zone is a zone by itself.
    fn shares_zone(&self, at: usize, target: usize, but: Option<&NodeName>) -> bool {
        let Some(zone) = &self.targets[target].member.zone else {
            return false;
        };
        let mut others = self.shards[at].stays.iter().filter(|leaf| Some(*leaf) != but);
        others.any(|leaf| {
            let member = self.input.catalog.members.get(leaf);
            member.is_some_and(|member| member.zone.as_ref() == Some(zone))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
