//! Runs: from an offset on, the records of one partition belong to several shards.
//!
//! A partition belongs to one shard, its home. If it gets more records than one shard can ingest, a run spreads those that
//! are still to come over several shards, block by block. What was ingested before stays where it is.
//!
//! ```text
//! home ├──────────────────────┤ from: │ block 0 │ block 1 │ block 2 │ block 0 │ …
//!                                       shard 3   shard 0   shard 1   shard 3
//!
//! ProposeRun ──> proposed ── each leaf with a replica of these shards: ConfirmRun ──> run
//!                    └────── one of them has more than that already: WithdrawRun ──> (nothing)
//! ```
//!
//! Nodes learn of a change at different times, and a record must not get into two shards. So no leaf that knows of a
//! proposed run accepts records of the partition at or after its first offset, and the run is in force once all leaves have
//! confirmed that they know of it and have no such record.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Collection, CollectionUid};
use crate::{
    address::{Position, PositionVector, SourceName},
    cluster::NodeName,
    ingest::ShardId,
    routing::shard_of,
};

/// The offsets of a block, for new runs: a few batches of a busy partition.
pub const RUN_BLOCK: i64 = 1_024;

/// From an offset on, the records of a partition belong to these shards by turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first offset.
    pub from: i64,
    /// The shards. The first block belongs to the first one.
    pub shards: Vec<u32>,
    /// The offsets of a block.
    pub block: i64,
}

impl Run {
    /// The shard of an offset at or after `from`.
    fn shard_at(&self, offset: i64) -> u32 {
        let block = (offset - self.from) / self.block.max(1);
        let turn = usize::try_from(block).unwrap_or_default() % self.shards.len().max(1);
        self.shards.get(turn).copied().unwrap_or_default()
    }
}

/// A run that is not in force yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedRun {
    /// The run.
    pub run: Run,
    /// The catalog version since which it is proposed.
    pub since: u64,
    /// The leaves that know of it and have no record at or after its first offset.
    pub confirmed: BTreeSet<NodeName>,
}

/// Names a proposed run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunRef {
    /// The collection.
    pub collection: CollectionUid,
    /// The source.
    pub source: SourceName,
    /// The partition.
    pub partition: i32,
    /// The catalog version since which it is proposed.
    pub since: u64,
}

/// The runs of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRuns {
    /// The source.
    pub source: SourceName,
    /// The partition.
    pub partition: i32,
    /// By their first offsets, ascending. The last one has no end.
    pub runs: Vec<Run>,
    /// The next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed: Option<ProposedRun>,
}

/// What one shard has of a partition: records from an offset on, not necessarily all of them. Its position follows that of
/// the partition, also once no record belongs to it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionShare {
    /// The shard.
    pub shard: u32,
    /// No record before this offset belongs to the shard.
    pub from: i64,
}

impl PartitionShare {
    /// Through which offset the shard has all that belongs to it, if its position is `stored`.
    fn complete_through(&self, stored: Option<i64>) -> i64 {
        stored.unwrap_or(-1).max(self.from - 1)
    }

    /// The position that the shard must reach for the partition to be at `offset`; `None` if it has nothing up to there.
    pub fn required(&self, offset: i64) -> Option<i64> {
        (offset >= self.from).then_some(offset)
    }
}

/// Which shards the records of a partition belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRoute {
    home: u32,
    runs: Vec<Run>,
}

impl PartitionRoute {
    /// The route of a partition of a source, in a collection of so many shards, with the runs that some of its partitions
    /// have.
    pub fn new(source: &SourceName, partition: i32, shards: u32, runs: &[PartitionRuns]) -> Self {
        let of = find_runs(runs, source, partition);
        Self {
            home: shard_of(source, partition, shards),
            runs: of.map_or_else(Vec::new, |of| of.runs.clone()),
        }
    }

    /// The shard of the record at an offset.
    pub fn shard_at(&self, offset: i64) -> u32 {
        let after = self.runs.partition_point(|run| run.from <= offset);
        let run = after.checked_sub(1).and_then(|last| self.runs.get(last));
        run.map_or(self.home, |run| run.shard_at(offset))
    }

    /// What each shard has of the partition, the home first.
    pub fn shares(&self) -> Vec<PartitionShare> {
        let mut shares = vec![PartitionShare {
            shard: self.home,
            from: 0,
        }];
        let mut known = BTreeSet::from([self.home]);
        for run in &self.runs {
            let new = run.shards.iter().filter(|shard| known.insert(**shard));
            shares.extend(new.map(|shard| PartitionShare {
                shard: *shard,
                from: run.from,
            }));
        }
        shares
    }

    /// What one shard has of the partition, if it has anything.
    pub fn share_of(&self, shard: u32) -> Option<PartitionShare> {
        if shard == self.home {
            return Some(PartitionShare { shard, from: 0 });
        }
        let first = self.runs.iter().find(|run| run.shards.contains(&shard))?;
        Some(PartitionShare {
            shard,
            from: first.from,
        })
    }

    /// How many runs there are.
    pub fn runs(&self) -> u32 {
        u32::try_from(self.runs.len()).unwrap_or(u32::MAX)
    }

    /// Whether its records belong to more than one shard.
    pub fn is_spread(&self) -> bool {
        !self.runs.is_empty()
    }

    /// The shards that the newest records belong to.
    pub fn newest_shards(&self) -> Vec<u32> {
        self.runs
            .last()
            .map_or_else(|| vec![self.home], |run| run.shards.clone())
    }

    /// The first offset, from `from` through `through`, that belongs to a shard.
    pub fn first_of(&self, shard: u32, from: i64, through: i64) -> Option<i64> {
        let mut offset = from;
        while offset <= through {
            if self.shard_at(offset) == shard {
                return Some(offset);
            }
            let next = self.runs.partition_point(|run| run.from <= offset);
            let next_run = self.runs.get(next).map_or(i64::MAX, |run| run.from);
            let run = next.checked_sub(1).and_then(|last| self.runs.get(last));
            let next_block = run.filter(|run| run.shards.contains(&shard)).map(|run| {
                let block = run.block.max(1);
                offset + block - (offset - run.from) % block
            });
            offset = next_block.unwrap_or(i64::MAX).min(next_run);
            if offset == i64::MAX {
                break;
            }
        }
        None
    }

    /// The position of the partition, given that of each of its shards: through it, all its records are there. `stored`
    /// returns `Some(None)` if a shard has nothing, and `None` if that is not known; then the position is not, either.
    pub fn position(&self, stored: impl Fn(u32) -> Option<Option<i64>>) -> Option<i64> {
        let mut through = i64::MAX;
        for share in self.shares() {
            through = through.min(share.complete_through(stored(share.shard)?));
        }
        Some(through)
    }
}

fn find_runs<'a>(runs: &'a [PartitionRuns], source: &SourceName, partition: i32) -> Option<&'a PartitionRuns> {
    let is_it = |of: &&PartitionRuns| of.partition == partition && of.source == *source;
    runs.iter().find(is_it)
}

impl Collection {
    /// The runs of a partition, if it has any or one is proposed.
    pub fn runs_of(&self, source: &SourceName, partition: i32) -> Option<&PartitionRuns> {
        find_runs(&self.runs, source, partition)
    }

    /// Which shards the records of a partition belong to.
    pub fn route(&self, source: &SourceName, partition: i32) -> PartitionRoute {
        PartitionRoute::new(source, partition, self.settings.shards, &self.runs)
    }

    /// The shard of the record at an offset of a partition.
    pub fn shard_at(&self, source: &SourceName, partition: i32, offset: i64) -> ShardId {
        ShardId {
            collection: self.uid,
            number: match self.runs.is_empty() {
                true => shard_of(source, partition, self.settings.shards),
                false => self.route(source, partition).shard_at(offset),
            },
        }
    }

    /// The position of each partition, given those of shards: of a partition whose records belong to several shards, through
    /// where all of these have theirs. Left out if one of them is missing.
    pub fn merged_positions<'a>(&self, shards: impl Iterator<Item = (u32, &'a PositionVector)>) -> PositionVector {
        let shards: BTreeMap<u32, &PositionVector> = shards.collect();
        let is_spread = |of: &&PartitionRuns| !of.runs.is_empty();
        let spread: Vec<&PartitionRuns> = self.runs.iter().filter(is_spread).collect();
        let is_of = |p: &Position, of: &&PartitionRuns| of.partition == p.partition && of.source == p.source;
        let all = shards.values().flat_map(|positions| positions.iter());
        let mut merged: PositionVector = all.filter(|p| !spread.iter().any(|of| is_of(p, of))).collect();
        for of in spread {
            let stored = |shard: u32| Some(shards.get(&shard)?.get(&of.source, of.partition));
            if let Some(offset) = self.route(&of.source, of.partition).position(stored)
                && offset >= 0
            {
                merged.advance(&of.source, of.partition, offset);
            }
        }
        merged
    }

    /// The shards that have the newest records of a partition, or get them by a proposed run.
    pub fn shards_of_run(&self, of: &PartitionRuns) -> BTreeSet<u32> {
        let proposed = of
            .proposed
            .iter()
            .flat_map(|proposed| proposed.run.shards.iter().copied());
        let newest = self.route(&of.source, of.partition).newest_shards();
        newest.into_iter().chain(proposed).collect()
    }

    /// The leaves that must confirm a proposed run: all with a replica of one of its shards.
    pub fn confirming_run(&self, of: &PartitionRuns) -> BTreeSet<&NodeName> {
        let shards = self.shards_of_run(of).into_iter();
        shards.flat_map(|shard| self.replicas_of(shard)).collect()
    }

    /// The leaves that must confirm a proposed run and have not.
    pub fn unconfirmed(&self, of: &PartitionRuns) -> Vec<String> {
        let is_missing = |leaf: &&NodeName| {
            let confirmed = of.proposed.as_ref().map(|proposed| &proposed.confirmed);
            confirmed.is_some_and(|confirmed| !confirmed.contains(*leaf))
        };
        let leaves = self.confirming_run(of).into_iter();
        leaves.filter(is_missing).map(NodeName::to_string).collect()
    }

    /// Withdraws the runs that are proposed for a source.
    pub(super) fn withdraw_runs_of(&mut self, source: &SourceName) {
        let of_source = self.runs.iter_mut().filter(|of| of.source == *source);
        of_source.for_each(|of| of.proposed = None);
        self.runs.retain(|of| !of.runs.is_empty() || of.proposed.is_some());
    }

    /// Puts proposed runs in force that every leaf has confirmed that still has a replica of their shards.
    pub(super) fn adopt_confirmed_runs(&mut self) {
        let is_confirmed = |of: &PartitionRuns| {
            let proposed = of.proposed.as_ref()?;
            let required = self.confirming_run(of);
            Some(!required.is_empty() && required.into_iter().all(|leaf| proposed.confirmed.contains(leaf)))
        };
        let confirmed: Vec<bool> = self.runs.iter().map(|of| is_confirmed(of).unwrap_or(false)).collect();
        for (of, _) in self.runs.iter_mut().zip(confirmed).filter(|(_, confirmed)| *confirmed) {
            of.adopt();
        }
    }
}

impl PartitionRuns {
    /// The same, without the run that is not in force yet.
    pub fn without_proposal(&self) -> Self {
        Self {
            proposed: None,
            ..self.clone()
        }
    }

    pub(super) fn adopt(&mut self) {
        self.runs.extend(self.proposed.take().map(|proposed| proposed.run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(runs: &[(i64, &[u32])]) -> PartitionRoute {
        let run = |(from, shards): &(i64, &[u32])| Run {
            from: *from,
            shards: shards.to_vec(),
            block: 10,
        };
        PartitionRoute {
            home: 1,
            runs: runs.iter().map(run).collect(),
        }
    }

    #[test]
    fn records_belong_to_the_home_until_a_run_spreads_them_in_blocks() {
        let route = route(&[(100, &[3, 1, 0]), (1_000, &[1])]);
        let shards = |offsets: [i64; 4]| offsets.map(|offset| route.shard_at(offset));
        assert_eq!(shards([0, 99, 100, 109]), [1, 1, 3, 3]);
        assert_eq!(shards([110, 119, 120, 130]), [1, 1, 0, 3]);
        assert_eq!(shards([999, 1_000, 1_010, i64::MAX]), [0, 1, 1, 1]);
    }

    #[test]
    fn the_share_of_a_shard_begins_with_its_first_run() {
        let route = route(&[(100, &[3, 0]), (1_000, &[0, 2])]);
        let share = |shard, from| PartitionShare { shard, from };
        assert_eq!(
            route.shares(),
            [share(1, 0), share(3, 100), share(0, 100), share(2, 1_000)]
        );
        assert!(
            route
                .shares()
                .iter()
                .all(|share| route.share_of(share.shard) == Some(*share))
        );
        assert!((0..2_000).all(|offset| {
            route
                .share_of(route.shard_at(offset))
                .is_some_and(|share| share.from <= offset)
        }));
        assert_eq!(route.share_of(7), None);
    }

    #[test]
    fn a_partition_is_as_far_as_the_shard_that_lacks_most() {
        let route = route(&[(100, &[3, 0])]);
        let at = |home, third, zeroth| {
            route.position(|shard| {
                Some(match shard {
                    1 => home,
                    3 => third,
                    _ => zeroth,
                })
            })
        };
        assert_eq!(at(None, None, None), Some(-1));
        assert_eq!(at(Some(50), None, None), Some(50), "the others have nothing before 100");
        assert_eq!(at(Some(150), None, Some(140)), Some(99), "shard 3 lacks what follows");
        assert_eq!(at(Some(150), Some(120), Some(140)), Some(120));
        assert_eq!(route.position(|shard| (shard != 3).then_some(Some(200))), None);
    }

    #[test]
    fn the_positions_of_shards_are_merged_to_what_all_of_them_have() {
        let mut collection = Collection::new(
            CollectionUid(uuid::Uuid::from_u128(1)),
            1,
            super::super::CollectionSettings {
                shards: 4,
                ..Default::default()
            },
        );
        let source: SourceName = "clicks".parse().expect("a name");
        let home = shard_of(&source, 0, 4);
        let other = (home + 1) % 4;
        collection.runs = vec![PartitionRuns {
            source,
            partition: 0,
            runs: vec![Run {
                from: 100,
                shards: vec![home, other],
                block: 10,
            }],
            proposed: None,
        }];
        let vector = |text: &str| text.parse::<PositionVector>().expect("a vector");
        let (of_home, of_other) = (vector("clicks/0@180,clicks/4@7"), vector("clicks/0@150,push/1@3"));
        let merged =
            |shards: &[(u32, &PositionVector)]| collection.merged_positions(shards.iter().copied()).to_string();
        assert_eq!(
            merged(&[(home, &of_home), (other, &of_other)]),
            "clicks/0@150,clicks/4@7,push/1@3"
        );
        assert_eq!(
            merged(&[(home, &of_home), (other, &vector(""))]),
            "clicks/0@99,clicks/4@7"
        );
        assert_eq!(merged(&[(home, &of_home)]), "clicks/4@7", "the other shard is missing");
    }

    #[test]
    fn the_first_record_of_a_shard_is_found_in_any_run() {
        let route = route(&[(100, &[3, 0]), (200, &[2]), (1_000, &[0, 3])]);
        for shard in 0..5 {
            for from in [0, 50, 95, 100, 105, 110, 199, 200, 500, 999, 1_000, 1_013] {
                let through = 1_100;
                let first = (from..=through).find(|offset| route.shard_at(*offset) == shard);
                assert_eq!(route.first_of(shard, from, through), first, "shard {shard} from {from}");
            }
        }
        assert_eq!(route.first_of(2, 1_000, i64::MAX), None);
    }
}
