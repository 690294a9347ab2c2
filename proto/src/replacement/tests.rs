//! Tests of `replacement`: single decisions, and a day of a large cluster.

mod simulation;

use super::*;
use crate::{
    catalog::Move,
    rebalance::tests::{add_collection, begin, leaf, leaves},
};

const REPLICAS: u32 = 2;

/// A catalog with so many leaves in three zones, and collections with so many shards each.
fn cluster(count: usize, collections: u128, shards: u32) -> Catalog {
    let mut catalog = leaves(count, 3);
    for number in 1..=collections {
        add_collection(&mut catalog, number, shards, REPLICAS);
    }
    catalog
}

fn decided(catalog: &Catalog, away: &[(usize, u64)], limits: &ReplacementLimits) -> Decision {
    let minutes = |(number, minutes): &(usize, u64)| (leaf(*number), Duration::from_secs(minutes * 60));
    decide(&ReplacementInput {
        catalog,
        replicas: REPLICAS,
        away: &away.iter().map(minutes).collect(),
        bytes: &BTreeMap::new(),
        limits,
    })
}

fn replaced(decision: Decision) -> Plan {
    match decision {
        Decision::Replace(plan) => plan,
        other => panic!("{other:?}"),
    }
}

/// Carries out what a plan retires, and begins what it adds.
fn start(catalog: &mut Catalog, plan: &Plan) {
    for RetiredReplica { shard, leaf } in &plan.retired {
        let mut collections = catalog.collections.values_mut();
        let collection = collections.find(|of| of.uid == shard.collection).expect("a collection");
        forget(collection, shard.number, leaf);
        collection.placement[shard.number as usize].retain(|other| other != leaf);
    }
    begin(catalog, plan);
}

/// Ends a move: the replica serves, and the one that it replaces is gone.
fn end(collection: &mut Collection, number: u32, to: &NodeName) {
    let instead_of = forget(collection, number, to).and_then(|moved| moved.instead_of);
    collection.placement[number as usize].retain(|other| Some(other) != instead_of.as_ref());
}

/// A replica is not on its way any more.
fn forget(collection: &mut Collection, number: u32, to: &NodeName) -> Option<Move> {
    let moved = collection.moves.get_mut(&number).and_then(|moves| moves.remove(to));
    collection.moves.retain(|_, moves| !moves.is_empty());
    if let Some(states) = collection.not_serving.get_mut(&number) {
        states.remove(to);
    }
    collection.not_serving.retain(|_, states| !states.is_empty());
    moved
}

#[test]
fn a_leaf_is_replaced_once_it_has_been_away_for_long_and_not_before() {
    let limits = ReplacementLimits::default();
    let catalog = cluster(9, 1, 27);
    assert_eq!(decided(&catalog, &[(4, 14)], &limits), Decision::Nothing);
    let plan = replaced(decided(&catalog, &[(4, 15)], &limits));
    let held = catalog.shards_on(&leaf(4));
    assert_eq!(plan.added.len(), held);
    assert!(
        plan.added
            .iter()
            .all(|added| added.instead_of == Some(leaf(4)) && added.leaf != leaf(4))
    );
    assert_eq!(plan.retired, []);
}

#[test]
fn no_more_is_moved_at_once_than_the_limit_and_what_is_under_way_counts() {
    let limits = ReplacementLimits {
        moves_at_once_max: 4,
        ..ReplacementLimits::default()
    };
    let mut catalog = cluster(9, 1, 27);
    let plan = replaced(decided(&catalog, &[(4, 20)], &limits));
    assert_eq!(plan.added.len(), 4);
    start(&mut catalog, &plan);
    assert_eq!(decided(&catalog, &[(4, 21)], &limits), Decision::Nothing);
    let done = &plan.added[0];
    let collection = catalog.collections.values_mut().next().expect("a collection");
    end(collection, done.shard.number, &done.leaf);
    let next = replaced(decided(&catalog, &[(4, 22)], &limits));
    assert_eq!(next.added.len(), 1, "one is done, so one is begun");
}

#[test]
fn nothing_is_replaced_while_many_leaves_are_away() {
    let limits = ReplacementLimits::default();
    let catalog = cluster(9, 1, 27);
    let away = [(1, 20), (4, 1)];
    assert_eq!(
        decided(&catalog, &away, &limits),
        Decision::TooManyAway { away: 2, leaves: 9 }
    );
    let limits = ReplacementLimits {
        away_percent_max: 23,
        ..limits
    };
    let plan = replaced(decided(&catalog, &away, &limits));
    assert!(
        plan.added
            .iter()
            .all(|added| added.instead_of == Some(leaf(1)) && added.leaf != leaf(4))
    );
}

#[test]
fn a_shard_without_another_replica_is_left_to_an_operator() {
    let limits = ReplacementLimits {
        away_percent_max: 100,
        ..ReplacementLimits::default()
    };
    let mut catalog = cluster(9, 1, 27);
    let collection = catalog.collections.values_mut().next().expect("a collection");
    collection.placement[0] = vec![leaf(1), leaf(3)];
    let plan = replaced(decided(&catalog, &[(1, 20), (3, 20)], &limits));
    assert!(plan.added.iter().all(|added| added.shard.number != 0), "{plan:?}");
}

#[test]
fn a_copy_on_its_way_to_a_leaf_that_dies_goes_to_another_one() {
    let limits = ReplacementLimits {
        away_percent_max: 100,
        ..ReplacementLimits::default()
    };
    let mut catalog = cluster(9, 1, 27);
    let plan = replaced(decided(&catalog, &[(4, 20)], &limits));
    start(&mut catalog, &plan);
    let target = plan.added[0].leaf.clone();
    let number: usize = target.as_str().trim_start_matches("leaf-").parse().expect("a number");
    let again = replaced(decided(&catalog, &[(4, 40), (number, 15)], &limits));
    let retired = again
        .retired
        .iter()
        .find(|retired| retired.shard == plan.added[0].shard);
    assert_eq!(retired.map(|retired| &retired.leaf), Some(&target));
    let added = again.added.iter().find(|added| added.shard == plan.added[0].shard);
    assert!(
        added.is_some_and(|added| added.leaf != target && added.instead_of == Some(leaf(4))),
        "{again:?}"
    );
}

/// A cluster whose leaf 4 is being replaced, and the first replica on its way.
fn being_replaced() -> (Catalog, AddedReplica) {
    let mut catalog = cluster(9, 1, 27);
    let plan = replaced(decided(&catalog, &[(4, 20)], &ReplacementLimits::default()));
    start(&mut catalog, &plan);
    (catalog, plan.added[0].clone())
}

#[test]
fn a_copy_on_its_way_to_a_leaf_that_is_removed_or_drained_goes_to_another_one() {
    let (catalog, first) = being_replaced();
    let mut without = catalog.clone();
    without.members.remove(&first.leaf);
    let mut drained = catalog.clone();
    drained.draining.insert(first.leaf.clone());
    for catalog in [without, drained] {
        let again = replaced(decided(&catalog, &[(4, 40)], &ReplacementLimits::default()));
        let of_first = |shard: ShardId| shard == first.shard;
        let retired: Vec<_> = again.retired.iter().filter(|retired| of_first(retired.shard)).collect();
        assert!(
            matches!(retired[..], [retired] if retired.leaf == first.leaf),
            "{again:?}"
        );
        let added = again.added.iter().find(|added| of_first(added.shard));
        assert!(
            added.is_some_and(|added| added.leaf != first.leaf && added.instead_of == Some(leaf(4))),
            "{again:?}"
        );
    }
    assert_eq!(
        decided(&catalog, &[(4, 40)], &ReplacementLimits::default()),
        Decision::Nothing
    );
}

#[test]
fn what_an_operator_moves_delays_no_replacement() {
    let mut catalog = cluster(9, 1, 27);
    let collection = catalog.collections.values_mut().next().expect("a collection");
    for number in 0..27 {
        let stays = collection.placement[number].clone();
        let to = (1..=9)
            .map(leaf)
            .find(|leaf| !stays.contains(leaf) && *leaf != self::leaf(4));
        let moved = Move {
            instead_of: stays.iter().find(|leaf| **leaf != self::leaf(4)).cloned(),
            since: 1,
        };
        let moves = collection.moves.entry(number as u32).or_default();
        moves.insert(to.expect("another leaf"), moved);
    }
    let limits = ReplacementLimits {
        moves_at_once_max: 4,
        ..ReplacementLimits::default()
    };
    assert_eq!(replaced(decided(&catalog, &[(4, 20)], &limits)).added.len(), 4);
}

#[test]
fn leaves_that_hold_nothing_are_not_missed() {
    let mut catalog = cluster(9, 1, 27);
    catalog.members = leaves(12, 3).members;
    let away = [(4, 20), (10, 20), (11, 20), (12, 20)];
    let plan = replaced(decided(&catalog, &away, &ReplacementLimits::default()));
    assert_eq!(plan.added.len(), catalog.shards_on(&leaf(4)));
    assert_eq!(
        decided(&catalog, &away[1..], &ReplacementLimits::default()),
        Decision::Nothing
    );
}
