//! Tests of `moves`.

use super::*;
use crate::catalog::{Change, change::replicas::tests as replicas};

use replicas::{apply, behind_of, folder, join, leaf, replicated, serve, states};

fn add(number: u128, shard: ShardId, instead_of: Option<u128>) -> Change {
    let added = AddedReplica {
        shard,
        leaf: leaf(number),
        instead_of: instead_of.map(leaf),
    };
    Change::AddReplicas { replicas: vec![added] }
}

fn retired(number: u128, shard: ShardId) -> RetiredReplica {
    RetiredReplica {
        shard,
        leaf: leaf(number),
    }
}

fn retire(number: u128, shard: ShardId) -> Change {
    Change::RetireReplicas {
        replicas: vec![retired(number, shard)],
    }
}

fn remove(number: u128, by: u128, shard: ShardId, since: u64) -> Change {
    Change::RemoveReplicas {
        by: leaf(by),
        instance: folder(by),
        replicas: vec![(retired(number, shard), since)],
    }
}

fn collection(catalog: &Catalog, shard: ShardId) -> &Collection {
    catalog.collection(shard.collection).expect("the collection").1
}

/// Two replicas on the first two of three leaves.
fn two_of_three() -> (Catalog, ShardId) {
    let (mut catalog, [shard, _]) = replicated(3);
    let events = catalog.collections.values_mut().next().expect("a collection");
    events.placement = vec![vec![leaf(1), leaf(2)]; 2];
    (catalog, shard)
}

#[test]
fn a_moved_replica_serves_before_the_other_one_leaves() {
    let (mut catalog, shard) = two_of_three();
    apply(&mut catalog, add(3, shard, Some(2))).expect("a move");
    let since = behind_of(&catalog, shard, 3);
    assert_eq!(states(&catalog, shard), "leaf-1 serving, leaf-2 serving, leaf-3 behind");
    apply(&mut catalog, join(3, shard)).expect("it joins");
    assert!(since < catalog.version);
    let joining = catalog.version;
    apply(&mut catalog, serve(3, shard, joining)).expect("it serves");
    assert_eq!(
        states(&catalog, shard),
        "leaf-1 serving, leaf-2 leaving, leaf-3 serving"
    );
    assert!(collection(&catalog, shard).moves.is_empty());
    let leaving = catalog.version;
    assert_eq!(
        apply(&mut catalog, join(2, shard)),
        Err(Code::Conflict),
        "it does not come back by itself"
    );
    assert_eq!(
        apply(&mut catalog, remove(2, 1, shard, leaving - 1)),
        Err(Code::Conflict)
    );
    assert_eq!(
        apply(&mut catalog, remove(2, 2, shard, leaving)),
        Err(Code::Conflict),
        "one that serves decides"
    );
    apply(&mut catalog, remove(2, 1, shard, leaving)).expect("it is removed");
    assert_eq!(states(&catalog, shard), "leaf-1 serving, leaf-3 serving");
    let not_asked: Vec<_> = collection(&catalog, shard).not_asked(shard.number).collect();
    assert_eq!(not_asked, [(&leaf(2), leaving)]);
    assert_eq!(apply(&mut catalog, remove(2, 1, shard, leaving)), Err(Code::Conflict));
}

#[test]
fn a_replica_is_added_only_where_there_is_none_and_instead_of_one_that_stays() {
    let (mut catalog, shard) = two_of_three();
    for (number, instead_of) in [(2, None), (7, None), (3, Some(3))] {
        let added = apply(&mut catalog, add(number, shard, instead_of));
        assert_eq!(added, Err(Code::Conflict), "{number} instead of {instead_of:?}");
    }
    apply(&mut catalog, add(3, shard, Some(2))).expect("a move");
    let name = || format!("http://10.0.0.1:{}", 4);
    let announced = Change::Announce {
        name: leaf(4),
        member: crate::cluster::Member::new(Role::Leaf, name(), folder(4)),
        replaces: None,
        from_snapshots: false,
    };
    apply(&mut catalog, announced).expect("a leaf");
    assert_eq!(
        apply(&mut catalog, add(4, shard, Some(2))),
        Err(Code::Conflict),
        "leaf-2 is being replaced already"
    );
    apply(&mut catalog, add(4, shard, Some(1))).expect("leaf-1 is not");
}

#[test]
fn a_move_is_given_up_and_the_last_serving_replica_stays() {
    let (mut catalog, shard) = two_of_three();
    apply(&mut catalog, add(3, shard, Some(2))).expect("a move");
    apply(&mut catalog, retire(3, shard)).expect("given up");
    assert_eq!(
        states(&catalog, shard),
        "leaf-1 serving, leaf-2 serving, leaf-3 leaving"
    );
    assert!(collection(&catalog, shard).moves.is_empty());
    apply(&mut catalog, retire(2, shard)).expect("one serves");
    assert_eq!(apply(&mut catalog, retire(1, shard)), Err(Code::Conflict));
    assert_eq!(
        states(&catalog, shard),
        "leaf-1 serving, leaf-2 leaving, leaf-3 leaving"
    );
}

#[test]
fn a_leaf_that_was_lost_is_served_by_one_that_leaves_rather_than_by_one_that_is_behind() {
    let (mut catalog, shard) = two_of_three();
    apply(&mut catalog, add(3, shard, None)).expect("one more");
    apply(&mut catalog, retire(2, shard)).expect("one less");
    let lost = Change::RemoveMember {
        name: leaf(1),
        instance: folder(1),
        lost: true,
        from_snapshots: false,
    };
    apply(&mut catalog, lost).expect("removed");
    assert_eq!(states(&catalog, shard), "leaf-1 behind, leaf-2 serving, leaf-3 behind");
}

#[test]
fn the_last_leaves_without_a_replica_are_known() {
    let (mut catalog, shard) = two_of_three();
    for number in 10..20 {
        let member = crate::cluster::Member::new(Role::Leaf, format!("http://10.0.0.1:{number}"), folder(number));
        let announced = Change::Announce {
            name: leaf(number),
            member,
            replaces: None,
            from_snapshots: false,
        };
        apply(&mut catalog, announced).expect("a leaf");
        apply(&mut catalog, add(number, shard, None)).expect("added");
        apply(&mut catalog, retire(number, shard)).expect("retired");
        let leaving = catalog.version;
        apply(&mut catalog, remove(number, 1, shard, leaving)).expect("removed");
    }
    let left = &collection(&catalog, shard).left[&shard.number];
    assert_eq!(
        left.keys().cloned().collect::<Vec<_>>(),
        (12..20).map(leaf).collect::<Vec<_>>()
    );
}

#[test]
fn only_a_leaf_is_drained() {
    let (mut catalog, _) = two_of_three();
    let drain = |number, draining| Change::DrainLeaf {
        leaf: leaf(number),
        draining,
    };
    assert_eq!(apply(&mut catalog, drain(9, true)), Err(Code::NotFound));
    apply(&mut catalog, drain(3, true)).expect("a leaf");
    assert!(catalog.draining.contains(&leaf(3)));
    apply(&mut catalog, drain(3, false)).expect("a leaf");
    assert!(catalog.draining.is_empty());
    apply(&mut catalog, drain(3, true)).expect("a leaf");
    let removed = Change::RemoveMember {
        name: leaf(3),
        instance: folder(3),
        lost: true,
        from_snapshots: false,
    };
    apply(&mut catalog, removed).expect("removed");
    assert!(catalog.draining.is_empty(), "a new leaf of this name takes shards");
}
