//! Changes of runs: proposed, confirmed by the leaves, or withdrawn. See [`super::super::runs`].

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{
    super::{Catalog, Collection, PartitionRuns, ProposedRun, Run, RunRef},
    no_source,
};
use crate::{
    address::SourceName,
    cluster::NodeName,
    limits::{RUNS_MAX, SPREAD_PARTITIONS_MAX},
    problem::{Code, Problem},
};

impl Catalog {
    pub(super) fn propose_run(&mut self, source: &SourceName, partition: i32, run: &Run) -> Result<(), Problem> {
        let since = self.version;
        let settings = &self.sources.get(source).ok_or_else(|| no_source(source))?.settings;
        if settings.rules.key.is_some() {
            let detail =
                format!("partition {partition} of {source} cannot be spread over shards: the source has a key");
            return Err(Problem::new(Code::NotSupported, detail)
                .hint("a later document replaces one with the same key, so both must be in one shard"));
        }
        let Some(collection) = self.collections.get_mut(&settings.collection) else {
            return Ok(());
        };
        collection.check_run(partition, run)?;
        let spread = collection.runs.len();
        let of = collection.runs.iter_mut();
        let of = of
            .into_iter()
            .find(|of| of.partition == partition && of.source == *source);
        let proposed = ProposedRun {
            run: run.clone(),
            since,
            confirmed: BTreeSet::new(),
        };
        let Some(of) = of else {
            if spread >= SPREAD_PARTITIONS_MAX {
                let detail = format!(
                    "{SPREAD_PARTITIONS_MAX} partitions of collection {} are spread already",
                    settings.collection
                );
                return Err(Problem::new(Code::LimitReached, detail));
            }
            collection.runs.push(PartitionRuns {
                source: source.clone(),
                partition,
                runs: Vec::new(),
                proposed: Some(proposed),
            });
            return Ok(());
        };
        if of.proposed.is_some() {
            let detail = format!("a spread of partition {partition} of {source} waits for its leaves already");
            return Err(Problem::new(Code::Conflict, detail).hint(format!(
                "rachis.runs shows for which; `rachis source spread {source} {partition} --withdraw` gives it up"
            )));
        }
        if of.runs.len() >= RUNS_MAX {
            let detail = format!("partition {partition} of {source} was spread {RUNS_MAX} times, which is the limit");
            return Err(Problem::new(Code::LimitReached, detail).hint("the newest run in rachis.runs stays in force"));
        }
        if of.runs.last().is_some_and(|last| run.from <= last.from) {
            let detail = format!("another spread of partition {partition} of {source} was made meanwhile");
            return Err(
                Problem::new(Code::Conflict, detail).hint("see rachis.runs, and repeat yours if you still want it")
            );
        }
        of.proposed = Some(proposed);
        Ok(())
    }

    /// A leaf, or the process that holds all shards, knows of a proposed run and has no record that it is about.
    pub(super) fn confirm_run(&mut self, leaf: Option<&NodeName>, instance: Uuid, run: &RunRef) -> Result<(), Problem> {
        if let Some(leaf) = leaf {
            self.check_instance(leaf, instance)?;
        }
        let (collection, at) = self.proposed_run(run)?;
        let is_one_process = collection.placement.is_empty();
        let of = &mut collection.runs[at];
        match (leaf, &mut of.proposed) {
            (Some(leaf), Some(proposed)) if !is_one_process => drop(proposed.confirmed.insert(leaf.clone())),
            (None, _) if is_one_process => of.adopt(),
            _ => return Err(no_run(run)),
        }
        Ok(())
    }

    pub(super) fn withdraw_run(&mut self, run: &RunRef) -> Result<(), Problem> {
        let (collection, at) = self.proposed_run(run)?;
        collection.runs[at].proposed = None;
        if collection.runs[at].runs.is_empty() {
            collection.runs.remove(at);
        }
        Ok(())
    }

    fn proposed_run(&mut self, run: &RunRef) -> Result<(&mut Collection, usize), Problem> {
        let collection = self.collection_mut(run.collection)?;
        let is_it = |of: &PartitionRuns| {
            let is_proposed = of.proposed.as_ref().is_some_and(|proposed| proposed.since == run.since);
            is_proposed && of.partition == run.partition && of.source == run.source
        };
        let at = collection.runs.iter().position(is_it).ok_or_else(|| no_run(run))?;
        Ok((collection, at))
    }
}

impl Collection {
    /// Drops a leaf's confirmations of the runs over a shard of which it gets a new copy: they do not cover its records.
    pub(super) fn forget_confirmation(&mut self, shard: u32, leaf: &NodeName) {
        let shards: Vec<BTreeSet<u32>> = self.runs.iter().map(|of| self.shards_of_run(of)).collect();
        for (of, shards) in self.runs.iter_mut().zip(shards) {
            if let Some(proposed) = of.proposed.as_mut().filter(|_| shards.contains(&shard)) {
                proposed.confirmed.remove(leaf);
            }
        }
    }

    fn check_run(&self, partition: i32, run: &Run) -> Result<(), Problem> {
        let mut shards = BTreeSet::new();
        if let Some(twice) = run.shards.iter().find(|shard| !shards.insert(**shard)) {
            return Err(Problem::new(Code::BadRequest, format!("shard {twice} is named twice")));
        }
        if run.shards.is_empty() {
            return Err(Problem::new(Code::BadRequest, "no shard is named").hint("leave `shards` out for all shards"));
        }
        if partition < 0 || run.from < 0 || run.block < 1 {
            return Err(Problem::new(
                Code::BadRequest,
                "a run has a partition, a first offset and blocks",
            ));
        }
        if let Some(shard) = shards.iter().find(|shard| **shard >= self.settings.shards) {
            let detail = format!("the collection has no shard {shard}");
            return Err(Problem::new(Code::BadRequest, detail)
                .hint(format!("it has {} shards, numbered from 0", self.settings.shards)));
        }
        Ok(())
    }
}

fn no_run(run: &RunRef) -> Problem {
    let detail = format!(
        "no such run of partition {} of {} is proposed",
        run.partition, run.source
    );
    Problem::new(Code::Conflict, detail).hint("`select * from rachis.runs` shows the runs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{
            CATALOG_RULES_LEVEL, Change, ChangeRecord, CollectionSettings, CollectionUid, RUN_BLOCK, ReplicaState,
            SourceSettings, Start,
        },
        cluster::{Member, Role},
        record::{Key, Rules},
    };

    fn apply(catalog: &Catalog, uid: u128, change: Change) -> (Catalog, Result<(), Problem>) {
        catalog.apply(&ChangeRecord {
            uid: Uuid::from_u128(uid),
            level: CATALOG_RULES_LEVEL,
            expected: None,
            change,
        })
    }

    fn accepted(catalog: &Catalog, change: Change) -> Catalog {
        let (catalog, result) = apply(catalog, 1, change);
        result.expect("it is accepted");
        catalog
    }

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    fn instance(leaf: &str) -> Uuid {
        Uuid::from_u128(u128::from(leaf.as_bytes()[leaf.len() - 1]))
    }

    /// A collection of four shards on these leaves, by the shard, with a source.
    fn catalog(placement: [&[&str]; 4], key: Option<&str>) -> Catalog {
        let mut catalog = Catalog::default();
        for leaf in placement.iter().flat_map(|leaves| leaves.iter()) {
            let member = Member {
                role: Role::Leaf,
                url: format!("http://{leaf}"),
                instance: instance(leaf),
                zone: None,
                capacity: 1,
            };
            catalog.members.insert(name(leaf), member);
        }
        let placement = placement.map(|leaves| leaves.iter().map(|leaf| name(leaf)).collect::<Vec<_>>());
        let change = Change::CreateCollection {
            name: "events".parse().expect("a name"),
            settings: CollectionSettings {
                shards: 4,
                ..CollectionSettings::default()
            },
            placement: if placement[0].is_empty() {
                Vec::new()
            } else {
                placement.to_vec()
            },
        };
        let catalog = accepted(&catalog, change);
        let settings = SourceSettings {
            collection: "events".parse().expect("a name"),
            topic: "clicks".into(),
            config: Default::default(),
            rules: Rules {
                key: key.map(|path| Key::Path(path.to_owned())),
                ..Rules::default()
            },
            start: Start::Earliest,
            partitions: None,
            ends: Vec::new(),
        };
        accepted(
            &catalog,
            Change::PutSource {
                name: source(),
                settings,
            },
        )
    }

    fn source() -> SourceName {
        "clicks".parse().expect("a name")
    }

    fn propose(from: i64, shards: &[u32]) -> Change {
        Change::ProposeRun {
            source: source(),
            partition: 0,
            run: Run {
                from,
                shards: shards.to_vec(),
                block: RUN_BLOCK,
            },
        }
    }

    fn of(catalog: &Catalog) -> Option<PartitionRuns> {
        let (_, collection) = catalog.collection(CollectionUid(Uuid::from_u128(1)))?;
        collection.runs_of(&source(), 0).cloned()
    }

    fn proposed(catalog: &Catalog) -> RunRef {
        let of = of(catalog).and_then(|of| of.proposed).expect("one is proposed");
        RunRef {
            collection: CollectionUid(Uuid::from_u128(1)),
            source: source(),
            partition: 0,
            since: of.since,
        }
    }

    fn confirm(catalog: &Catalog, leaf: &str) -> Change {
        Change::ConfirmRun {
            leaf: Some(name(leaf)),
            instance: instance(leaf),
            run: proposed(catalog),
        }
    }

    const ON_THREE: [&[&str]; 4] = [&["leaf-1", "leaf-2"], &["leaf-1"], &["leaf-3"], &["leaf-2"]];

    #[test]
    fn a_run_is_in_force_once_every_leaf_with_a_replica_of_its_shards_has_confirmed_it() {
        // Partition 0 of the source belongs to shard 3.
        let catalog = catalog(ON_THREE, None);
        let mut catalog = accepted(&catalog, propose(100, &[0, 3]));
        catalog = accepted(&catalog, confirm(&catalog, "leaf-1"));
        let unconfirmed = {
            let (_, collection) = catalog
                .collection(CollectionUid(Uuid::from_u128(1)))
                .expect("it exists");
            collection.unconfirmed(&of(&catalog).expect("it has one"))
        };
        assert_eq!(unconfirmed, ["leaf-2"], "leaf-3 has none of these shards");
        assert_eq!(of(&catalog).expect("it has one").runs, []);
        catalog = accepted(&catalog, confirm(&catalog, "leaf-2"));
        let of = of(&catalog).expect("it has one");
        assert_eq!((of.runs.len(), of.proposed), (1, None));
    }

    #[test]
    fn a_leaf_that_has_no_replica_any_more_is_not_waited_for() {
        let catalog = catalog([&["leaf-1", "leaf-2"], &["leaf-1"], &["leaf-1"], &["leaf-1"]], None);
        let mut catalog = accepted(&catalog, propose(100, &[0, 1]));
        catalog = accepted(&catalog, confirm(&catalog, "leaf-1"));
        assert!(of(&catalog).is_some_and(|of| of.proposed.is_some()));
        let shard = crate::ingest::ShardId {
            collection: CollectionUid(Uuid::from_u128(1)),
            number: 0,
        };
        let retired = super::super::RetiredReplica {
            shard,
            leaf: name("leaf-2"),
        };
        let retire = Change::RetireReplicas {
            replicas: vec![retired.clone()],
        };
        catalog = accepted(&catalog, retire);
        let state = catalog
            .collections
            .values()
            .next()
            .and_then(|c| c.replica_state(0, &name("leaf-2")));
        let Some(ReplicaState::Leaving { since }) = state else {
            panic!("{state:?}")
        };
        let remove = Change::RemoveReplicas {
            by: name("leaf-1"),
            instance: instance("leaf-1"),
            replicas: vec![(retired, since)],
        };
        catalog = accepted(&catalog, remove);
        assert!(of(&catalog).is_some_and(|of| of.runs.len() == 1 && of.proposed.is_none()));
    }

    #[test]
    fn a_leaf_that_gets_another_copy_of_a_shard_confirms_again() {
        let mut catalog = catalog(ON_THREE, None);
        catalog = accepted(&catalog, propose(100, &[0, 3]));
        catalog = accepted(&catalog, confirm(&catalog, "leaf-1"));
        let added = |number, leaf| Change::AddReplicas {
            replicas: vec![super::super::AddedReplica {
                shard: crate::ingest::ShardId {
                    collection: CollectionUid(Uuid::from_u128(1)),
                    number,
                },
                leaf: name(leaf),
                instead_of: None,
            }],
        };
        catalog = accepted(&catalog, added(2, "leaf-1"));
        let confirmed = |catalog: &Catalog| of(catalog).and_then(|of| of.proposed).map(|run| run.confirmed.len());
        assert_eq!(confirmed(&catalog), Some(1), "no shard of the run");
        // leaf-1 has not checked the records of the new copy.
        catalog = accepted(&catalog, added(3, "leaf-1"));
        assert_eq!(confirmed(&catalog), Some(0));
        // leaf-2, which alone serves shard 3, loses its disk. Then leaf-1 serves the shard.
        let emptied = |from_snapshots| Change::Announce {
            name: name("leaf-2"),
            member: Member {
                role: Role::Leaf,
                url: "http://10.0.0.7:7700".to_owned(),
                instance: Uuid::from_u128(100),
                zone: None,
                capacity: 1,
            },
            replaces: Some(instance("leaf-2")),
            from_snapshots,
        };
        let by_second = accepted(&catalog, confirm(&catalog, "leaf-2"));
        assert_eq!(confirmed(&by_second), Some(1), "it waits for leaf-1");
        assert_eq!(confirmed(&accepted(&by_second, emptied(false))), Some(0));
        let by_first = accepted(&catalog, confirm(&catalog, "leaf-1"));
        assert_eq!(confirmed(&accepted(&by_first, emptied(false))), Some(1));
        let fetched = accepted(&by_first, emptied(true));
        assert_eq!(confirmed(&fetched), Some(0), "it begins with what a snapshot has");
    }

    #[test]
    fn a_withdrawn_run_leaves_nothing_and_a_late_confirmation_is_refused() {
        let catalog = catalog(ON_THREE, None);
        let before = accepted(&catalog, propose(100, &[0, 3]));
        let late = confirm(&before, "leaf-1");
        let catalog = accepted(&before, Change::WithdrawRun { run: proposed(&before) });
        assert_eq!(of(&catalog), None);
        assert!(apply(&catalog, 2, late.clone()).1.is_err());
        let catalog = accepted(&catalog, propose(200, &[0, 3]));
        assert!(apply(&catalog, 2, late).1.is_err(), "it was about another run");
    }

    #[test]
    fn a_process_that_holds_all_shards_confirms_alone() {
        let catalog = catalog([&[], &[], &[], &[]], None);
        let catalog = accepted(&catalog, propose(100, &[0, 3]));
        let confirm = Change::ConfirmRun {
            leaf: None,
            instance: Uuid::nil(),
            run: proposed(&catalog),
        };
        assert_eq!(of(&accepted(&catalog, confirm)).map(|of| of.runs.len()), Some(1));
    }

    #[test]
    fn what_cannot_be_spread_is_refused_with_the_reason() {
        let plain = catalog(ON_THREE, None);
        let refused = |catalog: &Catalog, change: Change| apply(catalog, 2, change).1.expect_err("refused").detail;
        assert!(refused(&plain, propose(100, &[0, 4])).contains("no shard 4"));
        assert!(refused(&plain, propose(100, &[])).contains("no shard is named"));
        assert!(refused(&plain, propose(100, &[1, 1])).contains("named twice"));
        let keyed = catalog(ON_THREE, Some("id"));
        assert!(refused(&keyed, propose(100, &[0, 1])).contains("has a key"));
        let catalog = accepted(&plain, propose(100, &[0, 3]));
        assert!(refused(&catalog, propose(200, &[0, 1])).contains("waits for its leaves already"));
        let catalog = ["leaf-1", "leaf-2"]
            .iter()
            .fold(catalog, |catalog, leaf| accepted(&catalog, confirm(&catalog, leaf)));
        assert!(refused(&catalog, propose(100, &[0, 1])).contains("was made meanwhile"));
    }

    #[test]
    fn a_catalog_with_runs_is_read_as_it_was_written_within_any_change() {
        let catalog = accepted(&catalog(ON_THREE, None), propose(100, &[0, 3]));
        let text = serde_json::to_string(&catalog).expect("JSON");
        assert_eq!(serde_json::from_str::<Catalog>(&text).expect("it reads"), catalog);
        let confirm = confirm(&catalog, "leaf-1");
        let text = serde_json::to_string(&confirm).expect("JSON");
        assert_eq!(serde_json::from_str::<Change>(&text).expect("it reads"), confirm);
    }
}
