//! Tests of `members`.

use super::*;
use crate::catalog::{Change, CollectionSettings, change::tests::apply};

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

fn member(role: Role, port: u16, folder: u128) -> Member {
    Member::new(role, format!("http://10.0.0.1:{port}"), Uuid::from_u128(folder))
}

fn announce(name: &str, member: Member, replaces: Option<u128>) -> Change {
    Change::Announce {
        name: node(name),
        member,
        replaces: replaces.map(Uuid::from_u128),
        from_snapshots: false,
    }
}

fn remove(name: &str, folder: u128, lost: bool) -> Change {
    Change::RemoveMember {
        name: node(name),
        instance: Uuid::from_u128(folder),
        lost,
        from_snapshots: false,
    }
}

#[test]
fn a_name_belongs_to_the_data_folder_that_announced_it_first() {
    let catalog = apply(&Catalog::default(), announce("a", member(Role::Aggregator, 1, 1), None)).expect("a member");
    let other = member(Role::Aggregator, 2, 2);
    assert_eq!(apply(&catalog, announce("a", other.clone(), None)), Err(Code::Conflict));
    assert_eq!(
        apply(&catalog, announce("a", other.clone(), Some(3))),
        Err(Code::Conflict)
    );
    let tailer = member(Role::Tailer, 1, 1);
    assert_eq!(apply(&catalog, announce("a", tailer, Some(1))), Err(Code::Conflict));
    let taken_over = apply(&catalog, announce("a", other.clone(), Some(1))).expect("it names the folder that had it");
    assert_eq!(taken_over.members[&node("a")], other);
    let moved = member(Role::Aggregator, 3, 1);
    let catalog = apply(&catalog, announce("a", moved.clone(), None)).expect("the same folder elsewhere");
    assert_eq!(catalog.members[&node("a")], moved);
    let invalid = Member { capacity: 0, ..moved };
    assert_eq!(apply(&catalog, announce("a", invalid, None)), Err(Code::BadRequest));
}

#[test]
fn a_node_is_removed_by_name_and_folder_and_a_leaf_with_shards_only_if_its_disk_is_lost() {
    let mut catalog = Catalog::default();
    for (name, role, folder) in [("l", Role::Leaf, 1), ("t", Role::Tailer, 2)] {
        catalog = apply(&catalog, announce(name, member(role, 1, folder), None)).expect("a member");
    }
    assert_eq!(apply(&catalog, remove("x", 1, true)), Err(Code::NotFound));
    assert_eq!(apply(&catalog, remove("t", 1, true)), Err(Code::Conflict));
    let without = apply(&catalog, remove("t", 2, false)).expect("it is removed");
    assert_eq!(without.members.keys().collect::<Vec<_>>(), [&node("l")]);
    assert!(apply(&catalog, remove("l", 1, false)).is_ok(), "it holds no shard");
    let create = Change::CreateCollection {
        name: "events".parse().expect("a name"),
        settings: CollectionSettings {
            shards: 2,
            ..CollectionSettings::default()
        },
        placement: vec![vec![node("l")]; 2],
    };
    let catalog = apply(&catalog, create).expect("a collection");
    assert_eq!(catalog.shards_on(&node("l")), 2);
    assert_eq!(apply(&catalog, remove("l", 1, false)), Err(Code::InUse));
    let lost = apply(&catalog, remove("l", 1, true)).expect("its disk is lost");
    assert!(
        apply(&lost, announce("l", member(Role::Leaf, 9, 7), None)).is_ok(),
        "a new leaf takes its place"
    );
}

#[test]
fn there_is_a_limit_of_members() {
    let mut catalog = Catalog::default();
    for number in 0..MEMBERS_MAX {
        catalog
            .members
            .insert(node(&format!("n{number}")), member(Role::Leaf, 1, number as u128));
    }
    assert_eq!(
        apply(&catalog, announce("one-more", member(Role::Leaf, 1, 1), None)),
        Err(Code::LimitReached)
    );
    assert!(
        apply(&catalog, announce("n7", member(Role::Leaf, 2, 7), None)).is_ok(),
        "known ones may move"
    );
}
