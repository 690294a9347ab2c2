//! Tests of `replicas`.

use std::collections::BTreeMap;

use super::*;
use crate::{
    catalog::{Change, CollectionName, CollectionSettings, change::tests},
    cluster::{Member, Role},
};

pub(crate) fn leaf(number: u128) -> NodeName {
    format!("leaf-{number}").parse().expect("a name")
}

pub(crate) fn folder(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) fn apply(catalog: &mut Catalog, change: Change) -> Result<(), Code> {
    *catalog = tests::apply(catalog, change)?;
    Ok(())
}

fn announce(number: u128, instance: u128, replaces: Option<u128>) -> Change {
    Change::Announce {
        name: leaf(number),
        member: Member::new(Role::Leaf, format!("http://10.0.0.1:{number}"), folder(instance)),
        replaces: replaces.map(folder),
        from_snapshots: false,
    }
}

/// A collection with two shards, each with a replica on each of so many leaves.
pub(crate) fn replicated(leaves: u128) -> (Catalog, [ShardId; 2]) {
    let mut catalog = Catalog::default();
    for number in 1..=leaves {
        apply(&mut catalog, announce(number, number, None)).expect("a member");
    }
    let name: CollectionName = "events".parse().expect("a name");
    let create = Change::CreateCollection {
        name: name.clone(),
        settings: CollectionSettings {
            shards: 2,
            ..CollectionSettings::default()
        },
        placement: vec![(1..=leaves).map(leaf).collect(); 2],
    };
    apply(&mut catalog, create).expect("a collection");
    let shards: Vec<ShardId> = catalog.collections[&name].shards().collect();
    (catalog, [shards[0], shards[1]])
}

fn leave_behind(number: u128, by: u128, shards: &[ShardId]) -> Change {
    Change::LeaveBehind {
        leaf: leaf(number),
        by: leaf(by),
        instance: folder(by),
        shards: shards.to_vec(),
    }
}

pub(crate) fn join(number: u128, shard: ShardId) -> Change {
    Change::JoinReplicas {
        leaf: leaf(number),
        instance: folder(number),
        shards: vec![shard],
    }
}

pub(crate) fn serve(number: u128, shard: ShardId, since: u64) -> Change {
    Change::ServeReplicas {
        leaf: leaf(number),
        instance: folder(number),
        shards: vec![(shard, since)],
    }
}

pub(crate) fn states(catalog: &Catalog, shard: ShardId) -> String {
    let (_, collection) = catalog.collection(shard.collection).expect("the collection");
    collection.describe_replicas(shard.number).expect("replicas")
}

/// The version since which a replica has been behind.
pub(crate) fn behind_of(catalog: &Catalog, shard: ShardId, number: u128) -> u64 {
    let (_, collection) = catalog.collection(shard.collection).expect("the collection");
    match collection.replica_state(shard.number, &leaf(number)) {
        Some(ReplicaState::Behind { since }) => since,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replica_is_left_behind_joins_and_serves_again() {
    let (mut catalog, [first, second]) = replicated(2);
    apply(&mut catalog, leave_behind(2, 1, &[first])).expect("leaf-1 serves");
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 behind");
    assert_eq!(states(&catalog, second), "leaf-1 serving, leaf-2 serving");
    let confirming = |catalog: &Catalog| catalog.collections.values().next().expect("one").confirming(0).count();
    assert_eq!(confirming(&catalog), 1);
    assert_eq!(
        tests::apply(&catalog, serve(2, first, catalog.version)).map(drop),
        Err(Code::Conflict),
        "it joins first"
    );
    apply(&mut catalog, join(2, first)).expect("it is behind");
    let since = catalog.version;
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 joining");
    assert_eq!(confirming(&catalog), 2, "no push is acknowledged without it any more");
    apply(&mut catalog, serve(2, first, since)).expect("it joins");
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 serving");
    assert!(
        catalog
            .collections
            .values()
            .all(|collection| collection.not_serving.is_empty())
    );
}

#[test]
fn of_two_replicas_that_leave_each_other_behind_the_log_decides() {
    let (mut catalog, [first, second]) = replicated(2);
    apply(&mut catalog, leave_behind(2, 1, &[first, second])).expect("the first one");
    assert_eq!(
        apply(&mut catalog, leave_behind(1, 2, &[first, second])),
        Err(Code::Conflict)
    );
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 behind");
    assert_eq!(
        apply(&mut catalog, leave_behind(1, 1, &[first])),
        Err(Code::Conflict),
        "it is the last one"
    );
    apply(&mut catalog, join(2, first)).expect("it is behind");
    assert_eq!(
        apply(&mut catalog, leave_behind(1, 2, &[first])),
        Err(Code::Conflict),
        "one that joins cannot judge the others"
    );
    apply(&mut catalog, leave_behind(2, 1, &[first])).expect("it does not keep up");
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 behind");
}

#[test]
fn a_replica_that_was_left_behind_since_it_joined_does_not_serve() {
    let (mut catalog, [first, _]) = replicated(2);
    apply(&mut catalog, leave_behind(2, 1, &[first])).expect("leaf-1 serves");
    apply(&mut catalog, join(2, first)).expect("it is behind");
    let since = catalog.version;
    apply(&mut catalog, leave_behind(2, 1, &[first])).expect("leaf-1 serves");
    apply(&mut catalog, join(2, first)).expect("it is behind again");
    assert_eq!(
        apply(&mut catalog, serve(2, first, since)),
        Err(Code::Conflict),
        "a late request"
    );
    let since = catalog.version;
    apply(&mut catalog, serve(2, first, since)).expect("it has joined since");
}

#[test]
fn a_leaf_with_another_data_folder_has_no_replica_that_serves() {
    let (mut catalog, [first, _]) = replicated(2);
    apply(&mut catalog, announce(2, 22, Some(2))).expect("it takes the name over");
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 behind");
    for late in [join(2, first), leave_behind(1, 2, &[first])] {
        assert_eq!(
            apply(&mut catalog, late),
            Err(Code::Conflict),
            "of the folder that was replaced"
        );
    }
    apply(&mut catalog, announce(2, 22, None)).expect("it announces itself again");
    apply(&mut catalog, remove_lost(1)).expect("its disk is lost");
    assert_eq!(
        states(&catalog, first),
        "leaf-1 behind, leaf-2 serving",
        "the other one has what there is"
    );
}

fn remove_lost(number: u128) -> Change {
    Change::RemoveMember {
        name: leaf(number),
        instance: folder(number),
        lost: true,
        from_snapshots: false,
    }
}

#[test]
fn a_shard_is_served_by_a_leaf_that_exists() {
    let (mut catalog, [first, _]) = replicated(2);
    apply(&mut catalog, remove_lost(2)).expect("its disk is lost");
    apply(&mut catalog, announce(1, 11, Some(1))).expect("its disk is lost, too");
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 behind");
    let (mut catalog, [first, _]) = replicated(2);
    apply(&mut catalog, remove_lost(2)).expect("its disk is lost");
    apply(&mut catalog, remove_lost(1)).expect("its disk is lost, too");
    apply(&mut catalog, announce(2, 22, None)).expect("one of them is replaced");
    assert_eq!(states(&catalog, first), "leaf-1 behind, leaf-2 serving");
}

/// The same with a snapshot store.
fn with_snapshots(mut change: Change) -> Change {
    if let Change::Announce { from_snapshots, .. } | Change::RemoveMember { from_snapshots, .. } = &mut change {
        *from_snapshots = true;
    }
    change
}

/// The shards that are looked for in snapshots.
fn lost(catalog: &Catalog) -> BTreeMap<u32, u64> {
    catalog.collections.values().next().expect("a collection").lost.clone()
}

#[test]
fn a_shard_that_no_leaf_serves_any_more_is_looked_for_in_snapshots() {
    let (mut catalog, [first, second]) = replicated(2);
    apply(&mut catalog, with_snapshots(announce(2, 22, Some(2)))).expect("its disk is lost");
    assert!(lost(&catalog).is_empty(), "the other leaf has all of it");
    apply(&mut catalog, with_snapshots(remove_lost(1))).expect("its disk is lost, too");
    assert_eq!(
        lost(&catalog),
        [(0, 0), (1, 0)].into(),
        "what the other leaf has already, it keeps"
    );
    let placed = |leaf_number, shard| Change::PlaceRestored {
        leaf: Some(leaf(leaf_number)),
        instance: folder(22),
        shards: vec![shard],
    };
    assert_eq!(
        apply(&mut catalog, placed(1, first)),
        Err(Code::Conflict),
        "it does not serve"
    );
    apply(&mut catalog, placed(2, first)).expect("it is there");
    assert_eq!(lost(&catalog), [(1, 0)].into());
    assert_eq!(apply(&mut catalog, placed(2, first)), Err(Code::Conflict), "once");
    apply(&mut catalog, with_snapshots(announce(2, 23, Some(22)))).expect("its disk is lost again");
    assert_eq!(lost(&catalog), [(0, 0), (1, 0)].into());
    assert_eq!(states(&catalog, second), "leaf-1 behind, leaf-2 serving");
}

#[test]
fn a_lost_shard_is_not_looked_for_without_a_snapshot_store_and_by_no_older_rules() {
    let (mut catalog, _) = replicated(1);
    let change = announce(1, 11, Some(1));
    assert!(change.rules_level() < with_snapshots(change.clone()).rules_level());
    apply(&mut catalog, change).expect("its disk is lost");
    assert!(lost(&catalog).is_empty());
}

#[test]
fn a_replica_that_joins_serves_only_if_no_other_does() {
    let (mut catalog, [first, _]) = replicated(3);
    apply(&mut catalog, leave_behind(2, 3, &[first])).expect("leaf-3 serves");
    apply(&mut catalog, leave_behind(1, 3, &[first])).expect("leaf-3 serves");
    apply(&mut catalog, join(1, first)).expect("it is behind");
    apply(&mut catalog, announce(2, 22, Some(2))).expect("its disk is lost");
    assert_eq!(states(&catalog, first), "leaf-1 joining, leaf-2 behind, leaf-3 serving");
    apply(&mut catalog, announce(3, 33, Some(3))).expect("its disk is lost");
    assert_eq!(states(&catalog, first), "leaf-1 serving, leaf-2 behind, leaf-3 behind");
}

#[test]
fn replicas_are_on_different_leaves() {
    let (catalog, _) = replicated(2);
    let create = |replicas: Option<u32>, placement: Vec<Vec<NodeName>>| {
        let create = Change::CreateCollection {
            name: "others".parse().expect("a name"),
            settings: CollectionSettings {
                replicas,
                ..CollectionSettings::default()
            },
            placement,
        };
        tests::apply(&catalog, create).map(drop)
    };
    assert_eq!(create(None, vec![vec![leaf(1), leaf(1)]]), Err(Code::BadRequest));
    assert_eq!(create(Some(2), vec![vec![leaf(1), leaf(2)]]), Ok(()));
    assert_eq!(create(Some(0), vec![vec![leaf(1)]]), Err(Code::BadRequest));
    assert_eq!(
        create(Some(2), Vec::new()),
        Err(Code::BadRequest),
        "one process holds all shards"
    );
}
