//! Tests of `rebalance`.

use uuid::Uuid;

use super::*;
use crate::{
    catalog::{CollectionSettings, CollectionUid, Move},
    cluster::{PlacementLeaf, place},
};

pub(crate) fn leaf(number: usize) -> NodeName {
    format!("leaf-{number}").parse().expect("a name")
}

/// A catalog with so many leaves, in so many zones.
pub(crate) fn leaves(count: usize, zones: usize) -> Catalog {
    let mut catalog = Catalog::default();
    for number in 0..count {
        let member = Member {
            zone: (zones > 0).then(|| format!("zone-{}", number % zones)),
            ..Member::new(Role::Leaf, format!("http://10.0.0.1:{}", number + 1), Uuid::nil())
        };
        catalog.members.insert(leaf(number), member);
    }
    catalog
}

pub(crate) fn add_collection(catalog: &mut Catalog, number: u128, shards: u32, replicas: u32) {
    let leaf = |(name, member): (&NodeName, &Member)| PlacementLeaf {
        name: name.clone(),
        capacity: member.capacity,
        zone: member.zone.clone(),
    };
    let leaves: Vec<PlacementLeaf> = catalog.members_of(Role::Leaf).map(leaf).collect();
    let uid = CollectionUid(Uuid::from_u128(number));
    let settings = CollectionSettings {
        shards,
        replicas: Some(replicas),
        ..CollectionSettings::default()
    };
    let mut collection = Collection::new(uid, 1, settings);
    collection.placement = place(uid, shards, replicas, &leaves);
    catalog
        .collections
        .insert(format!("c{number}").parse().expect("a name"), collection);
}

fn planned(catalog: &Catalog, bytes: &BTreeMap<ShardId, u64>) -> Plan {
    plan(&PlanInput {
        catalog,
        replicas: 2,
        away: &BTreeSet::new(),
        given_up: &BTreeSet::new(),
        bytes,
    })
}

/// Begins what a plan adds: the replicas are on their way.
pub(crate) fn begin(catalog: &mut Catalog, plan: &Plan) {
    let mut collections: BTreeMap<_, _> = catalog.collections.values_mut().map(|of| (of.uid, of)).collect();
    for added in &plan.added {
        let number = added.shard.number;
        let collection = collections.get_mut(&added.shard.collection).expect("a collection");
        let placed = &mut collection.placement[number as usize];
        assert!(!placed.contains(&added.leaf), "{added:?} is there already");
        placed.push(added.leaf.clone());
        let state = ReplicaState::Behind { since: 7 };
        let states = collection.not_serving.entry(number).or_default();
        states.insert(added.leaf.clone(), state);
        let moved = Move {
            instead_of: added.instead_of.clone(),
            since: 7,
        };
        let moves = collection.moves.entry(number).or_default();
        moves.insert(added.leaf.clone(), moved);
    }
}

/// The catalog once a plan is carried out.
fn carried_out(catalog: &Catalog, plan: &Plan) -> Catalog {
    let mut done = catalog.clone();
    let mut change = |shard: ShardId, leaf: Option<&NodeName>, without: Option<&NodeName>| {
        let mut collections = done.collections.values_mut();
        let collection = collections.find(|of| of.uid == shard.collection).expect("a collection");
        let placed = &mut collection.placement[shard.number as usize];
        placed.retain(|other| Some(other) != without);
        placed.extend(leaf.cloned());
    };
    for added in &plan.added {
        change(added.shard, Some(&added.leaf), added.instead_of.as_ref());
    }
    for retired in &plan.retired {
        change(retired.shard, None, Some(&retired.leaf));
    }
    done
}

/// How many replicas each leaf holds.
fn held(catalog: &Catalog) -> BTreeMap<NodeName, usize> {
    let leaves = catalog
        .members_of(Role::Leaf)
        .map(|(name, _)| (name.clone(), catalog.shards_on(name)));
    leaves.collect()
}

/// The most and the fewest replicas that a leaf holds.
fn range(catalog: &Catalog) -> (usize, usize) {
    let held = held(catalog);
    let numbers = || held.values().copied();
    (numbers().min().expect("a leaf"), numbers().max().expect("a leaf"))
}

fn shares_a_zone(catalog: &Catalog) -> bool {
    let placements = catalog
        .collections
        .values()
        .flat_map(|collection| &collection.placement);
    let zones = |row: &Vec<NodeName>| {
        row.iter()
            .map(|leaf| catalog.members[leaf].zone.clone())
            .collect::<BTreeSet<_>>()
    };
    placements.into_iter().any(|row| zones(row).len() < row.len())
}

#[test]
fn a_new_leaf_takes_its_share_and_nothing_else_moves() {
    let mut catalog = leaves(4, 0);
    add_collection(&mut catalog, 1, 60, 2);
    assert_eq!(planned(&catalog, &BTreeMap::new()), Plan::default(), "it is even");
    let member = Member::new(Role::Leaf, "http://10.0.0.1:99", Uuid::nil());
    catalog.members.insert(leaf(4), member);
    let plan = planned(&catalog, &BTreeMap::new());
    assert!(plan.added.iter().all(|added| added.leaf == leaf(4)), "{plan:?}");
    // A leaf with up to 5 % more than its share gives nothing away.
    assert!((20..=24).contains(&plan.added.len()), "{}", plan.added.len());
    let done = carried_out(&catalog, &plan);
    let (fewest, most) = range(&done);
    assert!((20..=25).contains(&fewest) && most <= 25, "{:?}", held(&done));
    assert_eq!(
        planned(&done, &BTreeMap::new()),
        Plan::default(),
        "nothing is left to do"
    );
}

#[test]
fn a_plan_asks_for_nothing_while_its_moves_are_under_way() {
    let mut catalog = leaves(3, 0);
    add_collection(&mut catalog, 1, 30, 2);
    catalog.draining.insert(leaf(0));
    let plan = planned(&catalog, &BTreeMap::new());
    assert_eq!(plan.added.len(), 20);
    begin(&mut catalog, &plan);
    assert_eq!(planned(&catalog, &BTreeMap::new()), Plan::default());
    // What is on its way to a leaf that is to hold nothing goes elsewhere.
    catalog.draining = [leaf(1)].into();
    let again = planned(&catalog, &BTreeMap::new());
    let moved = catalog.collections.values().flat_map(|of| of.moves.values()).flatten();
    let given_up = moved.filter(|(to, _)| **to == leaf(1)).count();
    assert!(given_up > 0);
    assert_eq!(
        again.retired.iter().filter(|retired| retired.leaf == leaf(1)).count(),
        given_up
    );
    assert!(again.added.iter().all(|added| added.leaf != leaf(1)), "{again:?}");
}

#[test]
fn a_replica_that_does_not_serve_is_retired_first_and_the_only_serving_one_never() {
    let mut catalog = leaves(3, 0);
    add_collection(&mut catalog, 1, 4, 3);
    let collection = catalog.collections.values_mut().next().expect("a collection");
    collection.settings.replicas = Some(1);
    for number in 0..4_u32 {
        // Of the first two shards two replicas do not serve, of the others one.
        let count = if number < 2 { 2 } else { 1 };
        let behind = collection.placement[number as usize][..count].iter();
        let states = behind.map(|leaf| (leaf.clone(), ReplicaState::Behind { since: 3 }));
        collection.not_serving.insert(number, states.collect());
    }
    let plan = planned(&catalog, &BTreeMap::new());
    let collection = catalog.collections.values().next().expect("a collection");
    for number in 0..4 {
        let retired: BTreeSet<&NodeName> = plan
            .retired
            .iter()
            .filter(|retired| retired.shard.number == number)
            .map(|retired| &retired.leaf)
            .collect();
        assert_eq!(retired.len(), 2);
        let behind = collection.not_serving[&number].keys();
        assert!(behind.into_iter().all(|leaf| retired.contains(leaf)), "{plan:?}");
        assert!(collection.serving(number).any(|leaf| !retired.contains(leaf)));
    }
}

#[test]
fn a_drained_leaf_gives_everything_away_and_what_has_no_place_is_named() {
    let mut catalog = leaves(6, 3);
    add_collection(&mut catalog, 1, 40, 2);
    catalog.draining.insert(leaf(0));
    let plan = planned(&catalog, &BTreeMap::new());
    let done = carried_out(&catalog, &plan);
    assert_eq!((done.shards_on(&leaf(0)), plan.unplaced.len()), (0, 0));
    assert!(!shares_a_zone(&done), "the other zones have room");
    let of_leaf = |added: &&AddedReplica| added.instead_of == Some(leaf(0));
    assert_eq!(plan.added.iter().filter(of_leaf).count(), catalog.shards_on(&leaf(0)));
    for number in 1..5 {
        catalog.draining.insert(leaf(number));
    }
    let plan = planned(&catalog, &BTreeMap::new());
    let done = carried_out(&catalog, &plan);
    assert!(
        !plan.unplaced.is_empty(),
        "one leaf cannot have two replicas of a shard"
    );
    assert_eq!(done.shards_on(&leaf(5)), 40);
}

#[test]
fn replicas_are_added_and_retired_until_there_are_as_many_as_wanted() {
    let mut catalog = leaves(6, 3);
    add_collection(&mut catalog, 1, 12, 1);
    let set = |catalog: &mut Catalog, replicas| {
        let collection = catalog.collections.values_mut().next().expect("a collection");
        collection.settings.replicas = replicas;
    };
    for (wanted, replicas) in [(Some(3), 3), (None, 2), (Some(1), 1)] {
        set(&mut catalog, wanted);
        catalog = carried_out(&catalog, &planned(&catalog, &BTreeMap::new()));
        let placement = &catalog.collections.values().next().expect("a collection").placement;
        assert!(placement.iter().all(|row| row.len() == replicas), "{placement:?}");
        assert!(!shares_a_zone(&catalog));
        assert_eq!(planned(&catalog, &BTreeMap::new()), Plan::default());
    }
    set(&mut catalog, Some(5));
    let away = (0..3).map(leaf).collect();
    let plan = plan(&PlanInput {
        catalog: &catalog,
        replicas: 2,
        away: &away,
        given_up: &BTreeSet::new(),
        bytes: &BTreeMap::new(),
    });
    assert!(
        plan.added.iter().all(|added| !away.contains(&added.leaf)),
        "a leaf that is away gets nothing"
    );
}

#[test]
fn replicas_in_one_zone_are_separated_once_there_is_another_zone() {
    let mut catalog = leaves(4, 1);
    add_collection(&mut catalog, 1, 20, 2);
    assert_eq!(planned(&catalog, &BTreeMap::new()), Plan::default());
    for number in [2, 3] {
        catalog.members.get_mut(&leaf(number)).expect("a leaf").zone = Some("zone-1".to_owned());
    }
    let done = carried_out(&catalog, &planned(&catalog, &BTreeMap::new()));
    assert!(!shares_a_zone(&done));
    let (fewest, most) = range(&done);
    assert!(most <= fewest + 2, "{:?}", held(&done));
}

#[test]
fn large_shards_count_more_and_capacity_is_respected() {
    let mut catalog = leaves(4, 0);
    add_collection(&mut catalog, 1, 256, 1);
    catalog.members.get_mut(&leaf(3)).expect("a leaf").capacity = 3;
    let shards: Vec<ShardId> = catalog.collections.values().flat_map(Collection::shards).collect();
    let bytes: BTreeMap<ShardId, u64> = shards.iter().map(|id| (*id, u64::from(id.number % 8) << 30)).collect();
    let done = carried_out(&catalog, &planned(&catalog, &bytes));
    let collection = done.collections.values().next().expect("a collection");
    let weight = |leaf: &NodeName| {
        let placed = shards
            .iter()
            .filter(|id| collection.replicas_of(id.number).contains(leaf));
        placed.map(|id| SHARD_BYTES + bytes[id]).sum::<u64>()
    };
    let total: u64 = (0..4).map(|number| weight(&leaf(number))).sum();
    for number in 0..4 {
        let share = total / 6 * if number == 3 { 3 } else { 1 };
        let weight = weight(&leaf(number));
        assert!(
            weight.abs_diff(share) * 10 <= share,
            "leaf-{number} has {weight} and should have about {share}"
        );
    }
}
