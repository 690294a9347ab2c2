//! Tests of `controller`.

use super::*;
use crate::{
    catalog::{CONTROLLER_LEVEL, Change, CollectionSettings, ReplicaState, change::tests::apply},
    cluster::Member,
    ingest::ShardId,
};

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

fn take(name: &str, folder: u128, epoch: u64) -> Change {
    Change::TakeControl {
        node: node(name),
        instance: Uuid::from_u128(folder),
        epoch,
    }
}

/// Two aggregators, and three leaves of which two hold the only shard.
fn cluster() -> Catalog {
    let mut catalog = Catalog::default();
    let nodes = [
        ("a", Role::Aggregator, 1),
        ("b", Role::Aggregator, 2),
        ("l1", Role::Leaf, 3),
        ("l2", Role::Leaf, 4),
        ("l3", Role::Leaf, 5),
    ];
    for (name, role, folder) in nodes {
        let announce = Change::Announce {
            name: node(name),
            member: Member::new(role, format!("http://10.0.0.1:{folder}"), Uuid::from_u128(folder)),
            replaces: None,
            from_snapshots: false,
        };
        catalog = apply(&catalog, announce).expect("a member");
    }
    let create = Change::CreateCollection {
        name: "events".parse().expect("a name"),
        settings: CollectionSettings {
            replicas: Some(2),
            ..CollectionSettings::default()
        },
        placement: vec![vec![node("l1"), node("l2")]],
    };
    apply(&catalog, create).expect("a collection")
}

fn shard(catalog: &Catalog) -> ShardId {
    let mut collections = catalog.collections.values();
    ShardId {
        collection: collections.next().expect("a collection").uid,
        number: 0,
    }
}

fn replace(catalog: &Catalog, epoch: u64) -> Change {
    Change::ReplaceReplicas {
        epoch,
        retired: Vec::new(),
        added: vec![AddedReplica {
            shard: shard(catalog),
            leaf: node("l3"),
            instead_of: Some(node("l2")),
        }],
    }
}

#[test]
fn each_epoch_has_one_controller_and_the_next_one_ends_it() {
    let catalog = cluster();
    assert_eq!(
        apply(&catalog, take("a", 1, 2)),
        Err(Code::Conflict),
        "the first epoch is 1"
    );
    assert_eq!(
        apply(&catalog, take("a", 9, 1)),
        Err(Code::Conflict),
        "another data folder"
    );
    assert_eq!(apply(&catalog, take("l1", 3, 1)), Err(Code::BadRequest), "a leaf");
    let of_a = apply(&catalog, take("a", 1, 1)).expect("the controller");
    assert_eq!((of_a.controller.epoch, &of_a.controller.node), (1, &Some(node("a"))));
    assert_eq!(apply(&of_a, take("b", 2, 1)), Err(Code::Conflict), "it was second");
    let of_b = apply(&of_a, take("b", 2, 2)).expect("the controller");
    assert_eq!(
        apply(&of_b, replace(&of_b, 1)),
        Err(Code::Conflict),
        "its epoch is over"
    );
    assert!(apply(&of_b, replace(&of_b, 2)).is_ok());
}

#[test]
fn a_controller_that_is_removed_from_the_cluster_is_none_any_more() {
    let catalog = apply(&cluster(), take("a", 1, 1)).expect("the controller");
    let remove = Change::RemoveMember {
        name: node("a"),
        instance: Uuid::from_u128(1),
        lost: false,
        from_snapshots: false,
    };
    let without = apply(&catalog, remove).expect("it is removed");
    assert_eq!((without.controller.epoch, without.controller.node), (1, None));
}

#[test]
fn a_replacement_adds_a_replica_unless_replacements_are_held() {
    let catalog = apply(&cluster(), take("a", 1, 1)).expect("the controller");
    let held = apply(&catalog, Change::HoldReplacements { held: true }).expect("held");
    assert_eq!(apply(&held, replace(&held, 1)), Err(Code::Conflict));
    let released = apply(&held, Change::HoldReplacements { held: false }).expect("released");
    let replaced = apply(&released, replace(&released, 1)).expect("a replacement");
    let (_, collection) = replaced.collection(shard(&replaced).collection).expect("a collection");
    let state = collection.replica_state(0, &node("l3"));
    assert!(matches!(state, Some(ReplicaState::Behind { .. })), "{state:?}");
    assert_eq!(collection.moves[&0][&node("l3")].instead_of, Some(node("l2")));
    assert_eq!(
        apply(&replaced, replace(&replaced, 1)),
        Err(Code::Conflict),
        "it is under way"
    );
}

#[test]
fn a_node_of_an_older_release_reads_all_but_what_is_about_the_controller() {
    let catalog = cluster();
    let older = [
        Change::DropCollection {
            name: "events".parse().expect("a name"),
        },
        Change::DrainLeaf {
            leaf: node("l1"),
            draining: true,
        },
        Change::All { changes: Vec::new() },
    ];
    for change in older {
        assert_eq!(change.rules_level(), CONTROLLER_LEVEL - 1, "{change:?}");
    }
    let newer = [
        take("a", 1, 1),
        Change::HoldReplacements { held: true },
        replace(&catalog, 1),
    ];
    for change in newer {
        assert_eq!(change.rules_level(), CONTROLLER_LEVEL, "{change:?}");
    }
}

#[test]
fn a_replacement_retires_and_adds_at_once_and_leaves_out_what_does_not_apply() {
    let catalog = apply(&cluster(), take("a", 1, 1)).expect("the controller");
    let replaced = apply(&catalog, replace(&catalog, 1)).expect("a replacement");
    let announce = Change::Announce {
        name: node("l4"),
        member: Member::new(Role::Leaf, "http://10.0.0.1:6".to_owned(), Uuid::from_u128(6)),
        replaces: None,
        from_snapshots: false,
    };
    let replaced = apply(&replaced, announce).expect("a member");
    let shard = shard(&replaced);
    let change = Change::ReplaceReplicas {
        epoch: 1,
        retired: vec![RetiredReplica {
            shard,
            leaf: node("l3"),
        }],
        added: vec![AddedReplica {
            shard,
            leaf: node("l4"),
            instead_of: Some(node("l2")),
        }],
    };
    let again = apply(&replaced, change.clone()).expect("another one");
    let (_, collection) = again.collection(shard.collection).expect("a collection");
    let to: Vec<_> = collection.moves[&0].keys().collect();
    assert_eq!(to, [&node("l4")]);
    assert_eq!(
        apply(&again, change),
        Err(Code::Conflict),
        "nothing of it applies any more"
    );
}
