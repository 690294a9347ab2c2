//! Confirms proposed runs: states that this leaf knows of them and has no record at or after their first offsets.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use proto::{
    Catalog, Code, Problem,
    catalog::{Change, Collection, PartitionRuns, ProposedRun, RunRef},
    cluster::NodeName,
    ingest::ShardId,
    tailer::Changes,
};
use tracing::{debug, info};
use uuid::Uuid;

use super::Leaf;
use crate::{store::Partition, threads::blocking};

/// How soon a run that could not be confirmed is looked at again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

impl Leaf {
    /// Confirms or withdraws proposed runs until the leaf is dropped. `own` is the leaf's name and its data folder; none if
    /// one process holds all shards.
    pub async fn keep_confirming_runs(leaf: Weak<Self>, own: Option<(NodeName, Uuid)>, changes: Arc<dyn Changes>) {
        let Some(mut catalog) = leaf.upgrade().map(|leaf| leaf.catalog.clone()) else {
            return;
        };
        loop {
            let now = catalog.borrow_and_update().clone();
            let name = own.as_ref().map(|(name, _)| name);
            let mut is_complete = true;
            for (collection, of, proposed) in unconfirmed(&now, own.as_ref()) {
                let Some(open) = leaf.upgrade() else { return };
                let judged = open.judge(&now, (collection, of, proposed)).await;
                drop(open);
                let run = RunRef {
                    collection: collection.uid,
                    source: of.source.clone(),
                    partition: of.partition,
                    since: proposed.since,
                };
                let change = match judged {
                    Ok(true) => Change::ConfirmRun {
                        leaf: name.cloned(),
                        instance: own.as_ref().map_or(Uuid::nil(), |(_, instance)| *instance),
                        run,
                    },
                    Ok(false) => Change::WithdrawRun { run },
                    Err(problem) => {
                        debug!(source = %of.source, partition = of.partition, %problem, "a run cannot be confirmed yet");
                        is_complete = false;
                        continue;
                    }
                };
                let is_confirmed = matches!(change, Change::ConfirmRun { .. });
                info!(source = %of.source, partition = of.partition, from = proposed.run.from, is_confirmed, "a run is proposed");
                if let Err(problem) = changes.propose(change, None).await {
                    debug!(source = %of.source, partition = of.partition, %problem, "a run cannot be confirmed yet");
                    is_complete = false;
                }
            }
            match is_complete {
                true if catalog.changed().await.is_err() => return,
                true => {}
                false => drop(tokio::time::timeout(RETRY_EVERY, catalog.changed()).await),
            }
        }
    }

    /// Whether no shard here has a record at or after the first offset of a run, or will accept one before the run is in
    /// force. Fails while that is not known.
    async fn judge(&self, catalog: &Catalog, (collection, of, run): Unconfirmed<'_>) -> Result<bool, Problem> {
        // Batches that are checked from now on are checked by a catalog that has the run.
        drop(self.routing.write());
        let partition = Partition {
            source: of.source.clone(),
            number: of.partition,
        };
        let shards = collection.shards_of_run(of);
        let here = shards.into_iter().filter(|shard| self.owns(collection, *shard));
        // A copy of another replica has no more than that: it has confirmed first.
        let is_copied = |number: u32| {
            let mut serving = collection.serving(number).peekable();
            let shard = ShardId {
                collection: collection.uid,
                number,
            };
            self.awaits_copy(catalog, shard)
                && serving.peek().is_some()
                && serving.all(|leaf| run.confirmed.contains(leaf))
        };
        let here = here.filter(|number| !is_copied(*number));
        let positions = stream::iter(here).then(|number| {
            let partition = partition.clone();
            async move {
                let shard = ShardId {
                    collection: collection.uid,
                    number,
                };
                // What is open may be of an earlier placement, and the copy may have more.
                if self.awaits_copy(catalog, shard) {
                    let detail = format!("shard {number} is being copied or restored");
                    return Err(Problem::new(Code::Unavailable, detail));
                }
                let shard = self.shard(shard).await?;
                blocking(move || Ok(shard.settled_position(&partition)?)).await
            }
        });
        let positions: Vec<Result<i64, Problem>> = positions.collect().await;
        // One such record decides, even if other shards cannot answer yet.
        if positions.iter().flatten().any(|position| *position >= run.run.from) {
            return Ok(false);
        }
        let all_known: Result<Vec<i64>, Problem> = positions.into_iter().collect();
        all_known.map(|_| true)
    }
}

/// A proposed run that a leaf has not confirmed.
type Unconfirmed<'a> = (&'a Collection, &'a PartitionRuns, &'a ProposedRun);

/// The proposed runs that a leaf has to confirm; all if one process holds all shards. None before the leaf is a member with
/// this data folder: shards that the catalog says are here may be gone, and opening them would create empty ones.
fn unconfirmed<'a>(catalog: &'a Catalog, own: Option<&(NodeName, Uuid)>) -> Vec<Unconfirmed<'a>> {
    let mut found = Vec::new();
    let is_member = |(name, instance): &(NodeName, Uuid)| {
        let member = catalog.members.get(name);
        member.is_some_and(|member| member.instance == *instance)
    };
    if !own.is_none_or(is_member) {
        return found;
    }
    for collection in catalog.collections.values() {
        for of in &collection.runs {
            let Some(proposed) = &of.proposed else { continue };
            let is_due = match own {
                Some((own, _)) => collection.confirming_run(of).contains(own) && !proposed.confirmed.contains(own),
                None => true,
            };
            if is_due {
                found.push((collection, of, proposed));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proto::{
        catalog::{CollectionSettings, Move, RUN_BLOCK, ReplicaState, Run},
        cluster::{Member, Role},
        ingest::{Batch, BatchOutcome},
        record::{Record, Rules},
    };

    use super::*;
    use crate::tests::support::{Fixture, clicks, record, small};

    /// A leaf with a collection of two shards, and the number of the one that partition 0 belongs to.
    fn two_shards() -> (Fixture, u32) {
        let fixture = Fixture::start(small);
        change(&fixture, |collection| {
            collection.settings = CollectionSettings {
                shards: 2,
                ..collection.settings.clone()
            }
        });
        let catalog = fixture.catalog.borrow().clone();
        let (_, collection) = catalog.collection(fixture.shard.collection).expect("it exists");
        let home = collection.route(&clicks(), 0).shard_at(0);
        (fixture, home)
    }

    fn change(fixture: &Fixture, change: impl FnOnce(&mut Collection)) {
        fixture.catalog.send_modify(|catalog| {
            let catalog = Arc::make_mut(catalog);
            catalog.version += 1;
            change(catalog.collections.values_mut().next().expect("a collection"));
        });
    }

    fn run(from: i64) -> Run {
        Run {
            from,
            shards: vec![0, 1],
            block: RUN_BLOCK,
        }
    }

    fn runs(runs: &[Run], proposed: Option<Run>) -> Vec<PartitionRuns> {
        let proposed = proposed.map(|run| ProposedRun {
            run,
            since: 2,
            confirmed: Default::default(),
        });
        vec![PartitionRuns {
            source: clicks(),
            partition: 0,
            runs: runs.to_vec(),
            proposed,
        }]
    }

    fn batch(fixture: &Fixture, number: u32, runs: u32, offsets: std::ops::Range<i64>) -> Batch {
        let records: Vec<Record> = offsets.clone().map(|offset| record(offset, None, Some("{}"))).collect();
        Batch {
            shard: ShardId {
                number,
                ..fixture.shard
            },
            runs,
            rules: Rules::default(),
            ..fixture.batch(0, offsets.start - 1, offsets.end - 1, records)
        }
    }

    async fn is_confirmed(fixture: &Fixture) -> bool {
        let catalog = fixture.catalog.borrow().clone();
        let proposed = unconfirmed(&catalog, None).remove(0);
        let judged = fixture.leaf.judge(&catalog, proposed).await;
        judged.expect("all shards are here")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_that_a_proposed_run_is_about_wait_and_it_is_confirmed_only_if_there_are_none() {
        let (fixture, home) = two_shards();
        change(&fixture, |collection| collection.runs = runs(&[], Some(run(10))));
        let applied = fixture.write(batch(&fixture, home, 0, 0..10)).await;
        assert_eq!(applied, BatchOutcome::Applied { stored: 9 });
        let waits = fixture.write(batch(&fixture, home, 0, 10..12)).await;
        assert!(matches!(waits, BatchOutcome::Busy { .. }), "{waits:?}");
        assert!(is_confirmed(&fixture).await);
        change(&fixture, |collection| collection.runs = runs(&[], Some(run(9))));
        assert!(!is_confirmed(&fixture).await, "record 9 is there");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_open_of_an_earlier_placement_confirms_nothing() {
        let name = |number: u32| -> NodeName { format!("leaf-{number}").parse().expect("a name") };
        let fixture = Fixture::start(|options| {
            small(options);
            options.node = Some("leaf-1".parse().expect("a name"));
        });
        change(&fixture, |collection| collection.placement = vec![vec![name(1)]]);
        let applied = fixture.write(batch(&fixture, 0, 0, 0..5)).await;
        assert_eq!(applied, BatchOutcome::Applied { stored: 4 });
        change(&fixture, |collection| {
            collection.runs = runs(
                &[],
                Some(Run {
                    shards: vec![0],
                    ..run(10)
                }),
            );
        });
        assert!(is_confirmed(&fixture).await);
        // The shard has left, and comes back as a copy of one that may have more.
        let moved = Move {
            instead_of: None,
            since: 7,
        };
        fixture.catalog.send_modify(|catalog| {
            let other = Member::new(Role::Leaf, "http://leaf.test".to_owned(), Uuid::nil());
            Arc::make_mut(catalog).members.insert(name(2), other);
        });
        change(&fixture, |collection| {
            collection.placement = vec![vec![name(2), name(1)]];
            collection.moves = [(0, [(name(1), moved)].into())].into();
            collection.not_serving = [(0, [(name(1), ReplicaState::Behind { since: 7 })].into())].into();
        });
        let catalog = fixture.catalog.borrow().clone();
        let judged = fixture
            .leaf
            .judge(&catalog, unconfirmed(&catalog, None).remove(0))
            .await;
        let problem = judged.expect_err("the copy is not there");
        assert!(problem.detail.contains("is being copied"), "{problem:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_leaf_confirms_nothing_before_it_is_a_member_with_its_data_folder() {
        let (fixture, _) = two_shards();
        let own: (NodeName, Uuid) = ("leaf-1".parse().expect("a name"), Uuid::now_v7());
        change(&fixture, |collection| {
            collection.runs = runs(&[], Some(run(10)));
            collection.placement = vec![vec![own.0.clone()]; 2];
        });
        let mut catalog = (**fixture.catalog.borrow()).clone();
        // Its disk was lost: the catalog knows the one with the former folder.
        let former = Member {
            role: Role::Leaf,
            url: "http://leaf.test".into(),
            instance: Uuid::now_v7(),
            zone: None,
            capacity: 1,
        };
        for (instance, due) in [(former.instance, 0), (own.1, 1)] {
            let member = Member {
                instance,
                ..former.clone()
            };
            catalog.members.insert(own.0.clone(), member);
            assert_eq!(unconfirmed(&catalog, Some(&own)).len(), due);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_batch_by_other_runs_than_the_leaf_knows_waits_even_if_it_has_only_records_of_the_shard() {
        let (fixture, home) = two_shards();
        let other = 1 - home;
        // A tailer that knows a run sooner than this leaf.
        let waits = fixture.write(batch(&fixture, other, 1, 10..10)).await;
        assert!(matches!(waits, BatchOutcome::Busy { .. }), "{waits:?}");
        let refused = fixture.write(batch(&fixture, other, 0, 0..1)).await;
        assert!(matches!(refused, BatchOutcome::Refused { .. }), "{refused:?}");
        change(&fixture, |collection| collection.runs = runs(&[run(0)], None));
        // Later than this leaf: it would pass over records of the shard.
        let waits = fixture.write(batch(&fixture, home, 0, 0..0)).await;
        assert!(matches!(waits, BatchOutcome::Busy { .. }), "{waits:?}");
        let second = fixture.write(batch(&fixture, 1, 1, 0..1)).await;
        assert!(
            matches!(second, BatchOutcome::Busy { .. }),
            "the first block belongs to shard 0: {second:?}"
        );
        let applied = fixture.write(batch(&fixture, 0, 1, 0..1)).await;
        assert_eq!(applied, BatchOutcome::Applied { stored: 0 });
        let passed = Batch {
            through: RUN_BLOCK - 1,
            ..batch(&fixture, 1, 1, 0..0)
        };
        let passed = fixture.write(passed).await;
        assert_eq!(
            passed,
            BatchOutcome::Applied { stored: RUN_BLOCK - 1 },
            "its position follows"
        );
    }
}
