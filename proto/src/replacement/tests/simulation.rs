//! A day of a cluster of a thousand leaves in three zones, with twenty thousand shards: leaves die, come back, and join.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IteratorRandom as _};

use super::*;
use crate::rebalance::plan;

const LEAVES: usize = 1_000;
const COLLECTIONS: u128 = 20;
const SHARDS: u32 = 1_000;
const ZONES: usize = 3;
const MINUTES: u64 = 24 * 60;
/// A leaf dies and another one joins, each once in so many minutes.
const DEATH_EVERY: u64 = 20;
const JOIN_EVERY: u64 = 60;
/// An operator removes a leaf that does not come back, once nothing is on it any more.
const NEVER: u64 = u64::MAX;

/// A copy that will have ended.
struct Copy {
    shard: ShardId,
    to: NodeName,
    at: u64,
}

struct Simulation {
    catalog: Catalog,
    rng: StdRng,
    minute: u64,
    limits: ReplacementLimits,
    /// The leaves that are away: since when, and until when.
    away: BTreeMap<NodeName, (u64, u64)>,
    copies: Vec<Copy>,
    leaves_ever: usize,
    /// Moves that were begun because a leaf was away, and how many replicas were lost for long.
    replaced: usize,
    lost: usize,
    /// Moves that were begun because a leaf joined, and the fewest with which no leaf has more or less than its share.
    evened: usize,
    uneven: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            catalog: cluster(LEAVES, COLLECTIONS, SHARDS),
            rng: StdRng::seed_from_u64(seed),
            minute: 0,
            limits: ReplacementLimits::default(),
            away: BTreeMap::new(),
            copies: Vec::new(),
            leaves_ever: LEAVES,
            replaced: 0,
            lost: 0,
            evened: 0,
            uneven: 0,
        }
    }

    fn minute(&mut self, disturbed: bool) {
        self.minute += 1;
        self.come_back();
        self.end_copies();
        if disturbed && self.minute.is_multiple_of(DEATH_EVERY) {
            self.die();
        }
        if disturbed && self.minute.is_multiple_of(JOIN_EVERY) {
            self.leaves_ever += 1;
            let name = leaf(self.leaves_ever - 1);
            let member = leaves(self.leaves_ever, ZONES).members.remove(&name).expect("a leaf");
            self.catalog.members.insert(name, member);
            self.rebalance();
        }
        self.replace();
    }

    /// Half of the leaves that die are restarted soon, and one of five never comes back.
    fn die(&mut self) {
        let alive = self
            .catalog
            .members
            .keys()
            .filter(|leaf| !self.away.contains_key(*leaf));
        let dead = alive.cloned().choose(&mut self.rng).expect("a leaf");
        let minutes = match self.rng.random_range(0..10) {
            0..5 => self.rng.random_range(1..15),
            5..8 => self.rng.random_range(16..120),
            _ => NEVER,
        };
        self.away
            .insert(dead, (self.minute, self.minute.saturating_add(minutes)));
    }

    fn come_back(&mut self) {
        let now = self.minute;
        self.away.retain(|_, (_, until)| *until > now);
        let is_gone = |leaf: &&NodeName| self.away.get(*leaf).is_some_and(|(_, until)| *until == NEVER);
        let gone = self.catalog.members.keys().filter(is_gone);
        let empty: Vec<NodeName> = gone.filter(|leaf| self.catalog.shards_on(leaf) == 0).cloned().collect();
        for leaf in empty {
            self.catalog.members.remove(&leaf);
            self.away.remove(&leaf);
        }
    }

    fn end_copies(&mut self) {
        let mut collections: BTreeMap<_, _> = self.catalog.collections.values_mut().map(|of| (of.uid, of)).collect();
        let (now, away) = (self.minute, &self.away);
        self.copies.retain(|copy| {
            let number = copy.shard.number;
            let collection = collections.get_mut(&copy.shard.collection).expect("a collection");
            let is_given_up = !collection
                .moves
                .get(&number)
                .is_some_and(|moves| moves.contains_key(&copy.to));
            let is_done = copy.at <= now && !away.contains_key(&copy.to);
            if is_done && !is_given_up {
                end(collection, number, &copy.to);
            }
            !is_given_up && !is_done
        });
    }

    fn begin(&mut self, plan: &Plan) {
        start(&mut self.catalog, plan);
        for added in &plan.added {
            let at = self.minute + self.rng.random_range(1..10);
            let (shard, to) = (added.shard, added.leaf.clone());
            self.copies.push(Copy { shard, to, at });
        }
    }

    fn replace(&mut self) {
        let minutes = |since: u64| Duration::from_secs((self.minute - since) * 60);
        let away: BTreeMap<NodeName, Duration> = self
            .away
            .iter()
            .map(|(leaf, (since, _))| (leaf.clone(), minutes(*since)))
            .collect();
        let just_given_up = away.iter().filter(|(_, time)| **time == self.limits.absent_after);
        self.lost += just_given_up
            .map(|(leaf, _)| self.catalog.shards_on(leaf))
            .sum::<usize>();
        let given_up = |leaf: &NodeName| away.get(leaf).is_some_and(|time| *time >= self.limits.absent_after);
        let before = self.under_way(given_up);
        let decision = decide(&ReplacementInput {
            catalog: &self.catalog,
            replicas: REPLICAS,
            away: &away,
            bytes: &BTreeMap::new(),
            limits: &self.limits,
        });
        match decision {
            Decision::Nothing => {}
            Decision::Replace(plan) => {
                let is_needed = |added: &AddedReplica| added.instead_of.as_ref().is_none_or(given_up);
                assert!(plan.added.iter().all(is_needed), "only what is lost is replaced");
                self.replaced += plan.added.len();
                self.begin(&plan);
            }
            other => panic!("{other:?}: {} leaves are away", away.len()),
        }
        let given_up = |leaf: &NodeName| away.get(leaf).is_some_and(|time| *time >= self.limits.absent_after);
        let (under_way, limit) = (self.under_way(given_up), self.limits.moves_at_once_max);
        assert!(
            under_way <= limit.max(before),
            "{before} were under way, now {under_way} are"
        );
    }

    /// Replicas on their way instead of those on leaves that are given up.
    fn under_way(&self, given_up: impl Fn(&NodeName) -> bool) -> usize {
        let moves = self.catalog.collections.values().flat_map(|of| of.moves.values());
        let instead_of = moves
            .flat_map(BTreeMap::values)
            .filter_map(|moved| moved.instead_of.as_ref());
        instead_of.filter(|leaf| given_up(leaf)).count()
    }

    /// Checks that all replicas of a shard are in different zones, but for those that are there instead of another.
    fn check_zones(&self) {
        for collection in self.catalog.collections.values() {
            for (number, leaves) in (0..).zip(&collection.placement) {
                let moves = collection.moves.get(&number);
                let is_replaced = |leaf: &&NodeName| {
                    let mut moves = moves.into_iter().flat_map(BTreeMap::values);
                    moves.any(|moved| moved.instead_of.as_ref() == Some(leaf))
                };
                let stay: Vec<_> = leaves.iter().filter(|leaf| !is_replaced(leaf)).collect();
                let zones: BTreeSet<_> = stay.iter().map(|leaf| &self.catalog.members[*leaf].zone).collect();
                assert_eq!(zones.len(), stay.len(), "minute {}: {stay:?}", self.minute);
            }
        }
    }

    /// What an operator does when a leaf has joined.
    fn rebalance(&mut self) {
        let away: BTreeSet<NodeName> = self.away.keys().cloned().collect();
        let (mean, held) = self.held();
        self.uneven += held.iter().map(|held| mean.saturating_sub(*held)).sum::<usize>();
        let plan = plan(&PlanInput {
            catalog: &self.catalog,
            replicas: REPLICAS,
            away: &away,
            given_up: &BTreeSet::new(),
            bytes: &BTreeMap::new(),
        });
        self.evened += plan.added.len();
        self.begin(&plan);
    }

    /// The mean number of replicas of the leaves that are there, and that of each.
    fn held(&self) -> (usize, Vec<usize>) {
        let mut held: BTreeMap<&NodeName, usize> = self.catalog.members.keys().map(|leaf| (leaf, 0)).collect();
        for collection in self.catalog.collections.values() {
            for (number, leaves) in (0..).zip(&collection.placement) {
                let moves = collection.moves.get(&number).into_iter().flat_map(BTreeMap::values);
                let replaced: Vec<_> = moves.filter_map(|moved| moved.instead_of.as_ref()).collect();
                for leaf in leaves.iter().filter(|leaf| !replaced.contains(leaf)) {
                    *held.get_mut(leaf).expect("a member") += 1;
                }
            }
        }
        let there: Vec<usize> = held
            .into_iter()
            .filter(|(leaf, _)| !self.away.contains_key(*leaf))
            .map(|(_, held)| held)
            .collect();
        (there.iter().sum::<usize>() / there.len(), there)
    }
}

#[test]
fn a_day_of_deaths_and_joins_leaves_every_shard_with_its_replicas_always_in_two_zones_and_the_leaves_even() {
    let seed = std::env::var("RACHIS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}: RACHIS_SEED={seed} repeats this run");
    let mut simulation = Simulation::new(seed);
    for _ in 0..MINUTES {
        simulation.minute(true);
        simulation.check_zones();
    }
    // Everything comes back or is replaced, and the operator evens the leaves out once more.
    for _ in 0..180 {
        simulation.minute(false);
    }
    simulation.rebalance();
    for _ in 0..20 {
        simulation.minute(false);
    }
    let Simulation {
        ref catalog,
        replaced,
        lost,
        evened,
        uneven,
        ..
    } = simulation;
    let (mean, held) = simulation.held();
    let (fewest, most) = (held.iter().min().expect("a leaf"), held.iter().max().expect("a leaf"));
    eprintln!(
        "{} leaves with {fewest} to {most} replicas, {mean} on average; {replaced} of {lost} lost replicas were replaced; \
         {evened} moves for joins, {uneven} at least",
        held.len()
    );
    // If two leaves die for good before one of a shard's replicas is replaced, it has none, and an operator decides.
    let is_lost = |leaves: &[NodeName]| leaves.iter().all(|leaf| simulation.away.contains_key(leaf));
    let placements = || catalog.collections.values().flat_map(|of| &of.placement);
    for leaf in simulation.away.keys() {
        let of_leaf = placements().filter(|leaves| leaves.contains(leaf));
        assert!(of_leaf.clone().count() <= 2, "{leaf} died with another leaf");
        of_leaf.for_each(|leaves| {
            assert!(
                is_lost(leaves),
                "{leaf} holds a replica that can be replaced: {leaves:?}"
            )
        });
    }
    assert!(simulation.copies.is_empty());
    assert!(
        fewest * 10 >= mean * 9 && most * 10 <= mean * 11,
        "{fewest} to {most}, {mean} on average"
    );
    for leaves in placements() {
        let zones: BTreeSet<_> = leaves.iter().map(|leaf| &catalog.members[leaf].zone).collect();
        assert_eq!(
            (leaves.len(), zones.len()),
            (REPLICAS as usize, REPLICAS as usize),
            "{leaves:?}"
        );
    }
    assert!(
        lost > 0 && replaced * 10 <= lost * 11,
        "{replaced} moves for {lost} lost replicas"
    );
    assert!(evened * 10 <= uneven * 11, "{evened} moves where {uneven} make it even");
}
