//! Restores a collection from a snapshot, and shards that were lost.
//!
//! The catalog has the collection at once, and its replicas serve from the beginning; but a leaf answers nothing about a
//! shard, and accepts nothing for it, until it has copied it. The first one that has says so: then the other replicas are
//! behind, and are copied from there like any that has nothing. A shard that was lost is served and copied in the same way.

use uuid::Uuid;

use super::{
    super::{Catalog, Collection, CollectionName, CollectionUid, PartitionRuns, ReplicaState, Restored},
    RestoredCollection,
};
use crate::{
    address::PositionVector,
    cluster::NodeName,
    ingest::ShardId,
    problem::{Code, Problem},
};

impl Catalog {
    /// `uid` is the uid of a copy.
    pub(super) fn restore_collection(
        &mut self,
        uid: Uuid,
        name: &CollectionName,
        restored: &RestoredCollection,
        placement: &[Vec<NodeName>],
    ) -> Result<(), Problem> {
        if self.collections.contains_key(name) {
            let detail = format!("collection {name} exists already");
            return Err(
                Problem::new(Code::Conflict, detail).hint("restore it under another name, or drop that one first")
            );
        }
        let was = &restored.collection;
        if restored.continued {
            self.check_continued(name, was.uid)?;
        }
        self.create_collection(uid, name, &was.settings, placement)?;
        let version = self.version;
        let Some(collection) = self.collections.get_mut(name) else {
            return Ok(());
        };
        collection.retired_sources.clone_from(&was.retired_sources);
        // One that was only proposed has decided where no record went.
        let runs = was.runs.iter().filter(|of| !of.runs.is_empty());
        collection.runs = runs.map(PartitionRuns::without_proposal).collect();
        collection.restored = Some(Restored {
            snapshot: restored.snapshot.clone(),
            collection: was.uid,
            since: version,
            awaited: (0..was.settings.shards).collect(),
        });
        if restored.continued {
            collection.uid = was.uid;
            (collection.push_topic, collection.change_topic) = (was.push_topic, was.change_topic);
            collection.push_skips.clone_from(&was.push_skips);
            collection.deletions.clone_from(&was.deletions);
            // The rest of the topic brings what was deleted after a shard was written.
            collection.changed_through.clone_from(&was.changed_through);
            collection.own_topics_after.clone_from(&was.own_topics_after);
        } else {
            let own = restored
                .own_positions
                .iter()
                .filter(|position| position.source.is_own());
            collection.own_topics_after = own.collect::<PositionVector>();
        }
        Ok(())
    }

    pub(super) fn place_restored(
        &mut self,
        leaf: Option<&NodeName>,
        instance: Uuid,
        shards: &[ShardId],
    ) -> Result<(), Problem> {
        if let Some(leaf) = leaf {
            self.check_instance(leaf, instance)?;
        }
        let version = self.version;
        self.change_each(
            shards,
            |shard| *shard,
            |collection, shard| collection.place_restored(shard.number, leaf, version),
        )
    }

    fn check_continued(&self, name: &CollectionName, uid: CollectionUid) -> Result<(), Problem> {
        let why = match (self.collection(uid), self.dropped.contains_key(&uid)) {
            (Some((other, _)), _) => format!("it is still there, as {other}"),
            (None, true) => "it was dropped, and its topics with it".to_owned(),
            (None, false) => return Ok(()),
        };
        let detail = format!("collection {name} cannot go on with its topics: {why}");
        Err(Problem::new(Code::Conflict, detail).hint("restore it as a copy, which gets topics of its own"))
    }
}

impl Collection {
    fn place_restored(&mut self, shard: u32, leaf: Option<&NodeName>, version: u64) -> bool {
        let is_holder = match leaf {
            Some(leaf) => self.replica_state(shard, leaf) == Some(ReplicaState::Serving),
            None => self.placement.is_empty(),
        };
        if !is_holder || !self.awaits_snapshot(shard) {
            return false;
        }
        self.lost.remove(&shard);
        if let Some(restored) = &mut self.restored {
            restored.awaited.remove(&shard);
        }
        self.restored.take_if(|restored| restored.awaited.is_empty());
        let others: Vec<NodeName> = self
            .confirming(shard)
            .filter(|other| Some(*other) != leaf)
            .cloned()
            .collect();
        for other in others {
            self.leave_replica_behind(shard, &other, version);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        catalog::{CATALOG_RULES_LEVEL, Change, ChangeRecord, CollectionSettings},
        cluster::{Member, Role},
    };

    fn collection(uid: u128) -> Collection {
        let mut collection = Collection::new(CollectionUid(Uuid::from_u128(uid)), 7, CollectionSettings::default());
        (collection.push_topic, collection.change_topic) = (true, true);
        collection.changed_through = "_changes/0@9".parse().expect("a vector");
        collection
    }

    fn restore(catalog: &Catalog, uid: u128, continued: bool) -> (Catalog, Result<(), Problem>) {
        let restored = RestoredCollection {
            snapshot: "20261130-021500-3f9a1c07".parse().expect("a name"),
            collection: collection(1),
            continued,
            own_positions: "push/0@41,_changes/0@4,clicks/0@7".parse().expect("a vector"),
        };
        let change = Change::RestoreCollection {
            name: "events".parse().expect("a name"),
            restored: Box::new(restored),
            placement: Vec::new(),
        };
        catalog.apply(&ChangeRecord {
            uid: Uuid::from_u128(uid),
            level: CATALOG_RULES_LEVEL,
            expected: None,
            change,
        })
    }

    #[test]
    fn a_copy_has_its_own_uid_and_topics_that_begin_after_what_it_has() {
        let (catalog, restored) = restore(&Catalog::default(), 5, false);
        restored.expect("a copy");
        let copy = catalog.collections.values().next().expect("it");
        assert_eq!(
            (copy.uid.0.as_u128(), copy.push_topic, copy.change_topic),
            (5, false, false)
        );
        let begins = |source: &str| copy.own_topic_begins(&source.parse().expect("a source"), 0);
        assert_eq!((begins("push"), begins("_changes"), begins("clicks")), (42, 5, 0));
        assert!(copy.changed_through.is_empty(), "nothing brings later deletes");
        let origin = copy
            .restored
            .as_ref()
            .map(|restored| (restored.collection.0.as_u128(), restored.since));
        assert_eq!(origin, Some((1, catalog.version)));
        let (_, again) = restore(&catalog, 6, false);
        assert_eq!(again.map_err(|problem| problem.code), Err(Code::Conflict));
    }

    #[test]
    fn a_collection_that_goes_on_covers_the_deletes_after_the_snapshot() {
        let (catalog, restored) = restore(&Catalog::default(), 5, true);
        restored.expect("it goes on");
        let collection = catalog.collections.values().next().expect("it");
        assert_eq!(
            (
                collection.uid.0.as_u128(),
                collection.push_topic,
                collection.change_topic
            ),
            (1, true, true)
        );
        assert_eq!(collection.changed_through, "_changes/0@9".parse().expect("a vector"));
        assert_eq!(collection.own_topic_begins(&crate::SourceName::push(), 0), 0);
    }

    #[test]
    fn only_one_collection_goes_on_with_a_uid() {
        let mut catalog = Catalog::default();
        catalog
            .collections
            .insert("other".parse().expect("a name"), collection(1));
        let (_, restored) = restore(&catalog, 5, true);
        assert!(restored.expect_err("it is there").detail.contains("as other"));
        let dropped = Catalog {
            dropped: BTreeMap::from([(CollectionUid(Uuid::from_u128(1)), 0)]),
            ..Catalog::default()
        };
        let (_, restored) = restore(&dropped, 5, true);
        assert!(
            restored
                .expect_err("its topics are gone")
                .detail
                .contains("was dropped")
        );
        restore(&dropped, 5, false).1.expect("a copy");
    }

    #[test]
    fn the_first_leaf_that_has_a_shard_is_the_one_that_others_copy_it_from() {
        let leaf = |number: u32| -> NodeName { format!("leaf-{number}").parse().expect("a name") };
        let mut catalog = Catalog::default();
        for number in [1, 2] {
            let member = Member::new(Role::Leaf, "http://10.0.0.1:7700", Uuid::from_u128(number.into()));
            catalog.members.insert(leaf(number), member);
        }
        let mut was = collection(1);
        was.settings.shards = 2;
        let restored = RestoredCollection {
            snapshot: "20261130-021500-3f9a1c07".parse().expect("a name"),
            collection: was,
            continued: false,
            own_positions: PositionVector::default(),
        };
        let apply = |catalog: &Catalog, change: Change| {
            catalog.apply(&ChangeRecord {
                uid: Uuid::from_u128(5),
                level: CATALOG_RULES_LEVEL,
                expected: None,
                change,
            })
        };
        let restore = Change::RestoreCollection {
            name: "events".parse().expect("a name"),
            restored: Box::new(restored),
            placement: vec![vec![leaf(1), leaf(2)]; 2],
        };
        let (catalog, restored) = apply(&catalog, restore);
        restored.expect("a copy");
        let place = |number: u32, instance: u128, shard: u32| Change::PlaceRestored {
            leaf: Some(leaf(number)),
            instance: Uuid::from_u128(instance),
            shards: vec![ShardId {
                collection: CollectionUid(Uuid::from_u128(5)),
                number: shard,
            }],
        };
        assert!(apply(&catalog, place(1, 9, 0)).1.is_err(), "another data folder");
        let (catalog, placed) = apply(&catalog, place(1, 1, 0));
        placed.expect("it is there");
        let states = |catalog: &Catalog, shard: u32| {
            let collection = catalog.collections.values().next().expect("it");
            [1, 2].map(|number| {
                collection
                    .replica_state(shard, &leaf(number))
                    .expect("a replica")
                    .as_str()
            })
        };
        assert_eq!(
            (states(&catalog, 0), states(&catalog, 1)),
            (["serving", "behind"], ["serving", "serving"])
        );
        assert!(apply(&catalog, place(2, 2, 0)).1.is_err(), "the other one was faster");
        let (catalog, placed) = apply(&catalog, place(2, 2, 1));
        placed.expect("it is there");
        assert_eq!(states(&catalog, 1), ["behind", "serving"]);
        let collection = catalog.collections.values().next().expect("it");
        assert_eq!(collection.restored, None, "the snapshot is not needed any more");
    }
}
