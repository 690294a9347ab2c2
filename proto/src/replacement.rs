//! Decides which replicas are placed anew because their leaf has been away for long.
//!
//! Pure, as [`crate::rebalance`] is. Only as much is moved at once as the limits allow, the shards with the fewest replicas
//! first; the rest is decided the next time. A leaf that comes back meanwhile keeps what was not begun.
//!
//! The controller, one of the aggregators, asks this again and again. A limit of zero for the absence means never.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    catalog::{AddedReplica, Catalog, Collection, RetiredReplica},
    cluster::{NodeName, Role},
    ingest::ShardId,
    rebalance::{Plan, PlanInput, is_gone, plan_replicas},
};

/// What may be done without an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacementLimits {
    /// The replicas of a leaf are replaced once it has been away for this long; zero means never.
    pub absent_after: Duration,
    /// Lost replicas that are being replaced at once. What an operator moves is not counted.
    pub moves_at_once_max: usize,
    /// If more of the leaves that hold replicas are away, in percent, and more than one: nothing is replaced. Then it is more likely that the
    /// network failed than that so many machines did.
    pub away_percent_max: u32,
}

impl Default for ReplacementLimits {
    fn default() -> Self {
        Self {
            absent_after: Duration::from_secs(15 * 60),
            moves_at_once_max: 16,
            away_percent_max: 20,
        }
    }
}

/// Replicas of one change, so that it fits into a record of the change log.
const CHANGED_MAX: usize = 500;

/// What is decided from.
pub struct ReplacementInput<'a> {
    /// The placement, and the leaves.
    pub catalog: &'a Catalog,
    /// The number of replicas of a collection that names none.
    pub replicas: u32,
    /// The leaves that are away, and for how long: see [`crate::node::absences`].
    pub away: &'a BTreeMap<NodeName, Duration>,
    /// The bytes of each shard on a disk, as far as they are known.
    pub bytes: &'a BTreeMap<ShardId, u64>,
    /// The limits.
    pub limits: &'a ReplacementLimits,
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// No leaf has been away for long, or as much is on its way as may be, or nothing can be replaced.
    Nothing,
    /// So many leaves are away that nothing is replaced.
    TooManyAway {
        /// The leaves that are away and hold replicas.
        away: usize,
        /// All that hold replicas.
        leaves: usize,
    },
    /// These replicas are placed anew.
    Replace(Plan),
}

/// Decides what is replaced now.
pub fn decide(input: &ReplacementInput<'_>) -> Decision {
    let ReplacementInput { catalog, limits, .. } = input;
    let away: BTreeSet<NodeName> = input.away.keys().cloned().collect();
    let lost = Lost::new(catalog, input.away, limits.absent_after);
    if lost.given_up.is_empty() {
        return Decision::Nothing;
    }
    // A leaf that holds nothing is not missed.
    let holders = holders(catalog);
    let (missed, leaves) = (
        holders.iter().filter(|name| away.contains(**name)).count(),
        holders.len(),
    );
    if missed > 1 && missed * 100 > leaves * limits.away_percent_max as usize {
        return Decision::TooManyAway { away: missed, leaves };
    }
    if lost.count() == 0 {
        return Decision::Nothing;
    }
    let planned = plan_replicas(&PlanInput {
        catalog,
        replicas: input.replicas,
        away: &away,
        given_up: &lost.given_up,
        bytes: input.bytes,
    });
    let plan = limited(planned, input, &away, &lost);
    match plan.is_empty() {
        true => Decision::Nothing,
        false => Decision::Replace(plan),
    }
}

/// The number of replicas on leaves that have been away for this long, without those that are being replaced.
pub fn lost_replicas(catalog: &Catalog, away: &BTreeMap<NodeName, Duration>, absent_after: Duration) -> usize {
    Lost::new(catalog, away, absent_after).count()
}

/// The leaves that hold replicas, or get one.
fn holders(catalog: &Catalog) -> BTreeSet<&NodeName> {
    let placed = catalog.collections.values().flat_map(|of| &of.placement).flatten();
    placed.filter(|name| catalog.members.contains_key(*name)).collect()
}

/// The leaves that are not waited for any more.
struct Lost<'a> {
    catalog: &'a Catalog,
    given_up: BTreeSet<NodeName>,
}

impl<'a> Lost<'a> {
    fn new(catalog: &'a Catalog, away: &BTreeMap<NodeName, Duration>, absent_after: Duration) -> Self {
        let is_leaf = |name: &NodeName| {
            catalog
                .members
                .get(name)
                .is_some_and(|member| member.role == Role::Leaf)
        };
        let for_long = away
            .iter()
            .filter(|(name, time)| **time >= absent_after && is_leaf(name));
        Self {
            catalog,
            given_up: for_long.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Whether a replica on its way to a leaf will not arrive, or is not wanted there any more.
    fn never_gets(&self, leaf: &NodeName) -> bool {
        is_gone(self.catalog, &self.given_up, leaf)
    }

    /// The replicas on their way instead of one on a leaf that is given up.
    fn replacements<'b>(&self, collection: &'b Collection, number: u32) -> impl Iterator<Item = &'b NodeName> {
        let moves = collection.moves.get(&number).into_iter().flatten();
        moves.filter_map(|(to, moved)| {
            let replaces = moved
                .instead_of
                .as_ref()
                .is_some_and(|leaf| self.given_up.contains(leaf));
            (replaces && !self.never_gets(to)).then_some(to)
        })
    }

    /// The replicas of a shard that are lost.
    fn held_by<'b>(&self, collection: &'b Collection, number: u32) -> impl Iterator<Item = &'b NodeName> {
        collection
            .replicas_of(number)
            .iter()
            .filter(|leaf| self.given_up.contains(*leaf))
    }

    /// The replicas that are lost and that nothing is on its way instead of.
    fn count(&self) -> usize {
        if self.given_up.is_empty() {
            return 0;
        }
        let collections = self.catalog.collections.values();
        let of = |collection: &Collection| -> usize {
            let numbers = 0..u32::try_from(collection.placement.len()).unwrap_or(0);
            let lost = numbers.map(|number| {
                let replacements = self.replacements(collection, number).count();
                self.held_by(collection, number).count().saturating_sub(replacements)
            });
            lost.sum()
        };
        collections.map(of).sum()
    }

    /// Replicas on their way instead of lost ones.
    fn under_way(&self) -> usize {
        let collections = self.catalog.collections.values();
        let of = |collection: &Collection| -> usize {
            let numbers = collection.moves.keys();
            numbers
                .map(|number| self.replacements(collection, *number).count())
                .sum()
        };
        collections.map(of).sum()
    }
}

/// Of a plan, what is about leaves that are given up, within the limits. What an operator has not asked for is left out.
fn limited(mut plan: Plan, input: &ReplacementInput<'_>, away: &BTreeSet<NodeName>, lost: &Lost<'_>) -> Plan {
    let collections: BTreeMap<_, &Collection> = input.catalog.collections.values().map(|of| (of.uid, of)).collect();
    let moves = |shard: ShardId| collections[&shard.collection].moves.get(&shard.number);
    let was_held = |shard: ShardId| {
        lost.held_by(collections[&shard.collection], shard.number)
            .next()
            .is_some()
    };
    // Whom it is copied from. Without one, its records may be lost: that is for an operator to decide.
    let sources = |shard: ShardId| {
        let serving = collections[&shard.collection].serving(shard.number);
        serving.filter(|leaf| !away.contains(*leaf)).count()
    };
    plan.unplaced.clear();
    // Replicas that were on their way to a leaf where they will not arrive.
    plan.retired.retain(|RetiredReplica { shard, leaf }| {
        lost.never_gets(leaf) && was_held(*shard) && moves(*shard).is_some_and(|moves| moves.contains_key(leaf))
    });
    plan.retired.truncate(CHANGED_MAX);
    plan.added
        .retain(|AddedReplica { shard, .. }| was_held(*shard) && sources(*shard) > 0);
    plan.added.sort_by_key(|added| sources(added.shard));
    let room = input.limits.moves_at_once_max.saturating_sub(lost.under_way());
    plan.added.truncate(room.min(CHANGED_MAX));
    plan
}

#[cfg(test)]
mod tests;
