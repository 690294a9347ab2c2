//! Spreads the records of a hot partition, from some offset on, over several shards.
//!
//! The first offset of a run must lie after everything that leaves have. New records arrive meanwhile, so a leaf may have
//! more by the time it learns of the run, and withdraws it. Then the run is proposed again, with a later first offset.

use std::time::Duration;

use futures::future::join_all;
use proto::{
    Catalog, Code, Problem, SourceName,
    catalog::{Change, Collection, PartitionRuns, PartitionStart, RUN_BLOCK, RUNS_LEVEL, Run, RunRef},
    cluster::NodeName,
    ingest::{Ingest, ShardId},
};

use tokio::time::timeout;

use super::Engine;

/// How far after the end of the partition a run begins, attempt by attempt: its records arrive while the leaves learn of it.
const MARGINS: [i64; 5] = [0, 1_000, 20_000, 400_000, 8_000_000];
/// How long a replica that does not serve may take to say what it has.
const OTHERS_WAIT: Duration = Duration::from_secs(2);
/// How long a request waits for the leaves.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);

impl Engine {
    /// Spreads what a partition of a source gets from now on over these shards, or over all. Returns the run once it is in
    /// force.
    pub(crate) async fn spread(
        &self,
        source: &SourceName,
        partition: i32,
        shards: Option<Vec<u32>>,
    ) -> Result<Run, Problem> {
        self.require_level(RUNS_LEVEL, "spread partitions").await?;
        let until = tokio::time::Instant::now() + CONFIRMED_WITHIN;
        for margin in MARGINS {
            let catalog = self.catalog();
            let (collection, settings) = source_of(&catalog, source)?;
            let wanted = shards
                .clone()
                .unwrap_or_else(|| (0..collection.settings.shards).collect());
            let ends = self.roles.source_admin.ends(settings).await?;
            let Some(end) = usize::try_from(partition)
                .ok()
                .and_then(|number| ends.get(number))
                .copied()
            else {
                let detail = format!("partition {partition} of {source} does not exist");
                let hint = format!("there are {} partitions, numbered from 0", ends.len());
                return Err(Problem::new(Code::BadRequest, detail).hint(hint));
            };
            let known = collection.runs_of(source, partition);
            if let Some(last) = known.and_then(|of| of.runs.last())
                && last.shards == wanted
            {
                return Ok(last.clone());
            }
            if collection.route(source, partition).newest_shards() == wanted {
                let detail = format!("all records of partition {partition} of {source} belong to that shard already");
                return Err(Problem::new(Code::BadRequest, detail)
                    .hint("a collection gets its shards when it is created: `rachis collection put NAME --shards 4`"));
            }
            let next = self.next_offset(collection, source, partition).await?;
            if next == 0 && settings.start_of(partition) == PartitionStart::Latest {
                let detail =
                    format!("partition {partition} of {source} has not been read yet, and begins at its latest record");
                return Err(
                    Problem::new(Code::Conflict, detail).hint("retry once it has a position, see rachis.sources")
                );
            }
            let after_last = known.and_then(|of| of.runs.last()).map_or(0, |last| last.from + 1);
            let from = next.max(end).max(after_last);
            let run = Run {
                from: from + margin,
                shards: wanted,
                block: RUN_BLOCK,
            };
            let change = Change::ProposeRun {
                source: source.clone(),
                partition,
                run: run.clone(),
            };
            let proposed = self.change_catalog(change).await?;
            let (collection, _) = source_of(&proposed, source)?;
            let uid = collection.uid;
            let of_run = |catalog: &Catalog| -> Option<PartitionRuns> {
                let (_, collection) = catalog.collection(uid)?;
                collection.runs_of(source, partition).cloned()
            };
            let is_proposed = |catalog: &Catalog| {
                let of = of_run(catalog).and_then(|of| of.proposed);
                of.is_some_and(|proposed| proposed.run == run)
            };
            let mut catalogs = self.roles.changes.catalog();
            let decided = catalogs.wait_for(|catalog| catalog.version >= proposed.version && !is_proposed(catalog));
            let decided = match tokio::time::timeout_at(until, decided).await {
                Ok(decided) => decided.map_err(|_| stopping())?.clone(),
                Err(_) => return Err(self.not_confirmed(source, partition)),
            };
            if of_run(&decided).is_some_and(|of| of.runs.contains(&run)) {
                return Ok(run);
            }
            let (collection, _) = source_of(&decided, source)?;
            if self.next_offset(collection, source, partition).await? <= run.from {
                let detail =
                    format!("the spread of partition {partition} of {source} was withdrawn by another request");
                return Err(Problem::new(Code::Conflict, detail).hint("the partition goes on as before"));
            }
        }
        let detail =
            format!("partition {partition} of {source} gets new records faster than the leaves learn of a run");
        Err(Problem::new(Code::Busy, detail).hint("retry when it gets fewer"))
    }

    /// Withdraws the run that is proposed for a partition.
    pub(crate) async fn withdraw_spread(&self, source: &SourceName, partition: i32) -> Result<Run, Problem> {
        let catalog = self.catalog();
        let (collection, _) = source_of(&catalog, source)?;
        let of = collection.runs_of(source, partition);
        let Some(proposed) = of.and_then(|of| of.proposed.clone()) else {
            let detail = format!("partition {partition} of {source} has no spread that could be withdrawn");
            return Err(Problem::new(Code::Conflict, detail)
                .hint("one that is in force stays; to end it, spread the partition over other shards, or over one"));
        };
        let run = RunRef {
            collection: collection.uid,
            source: source.clone(),
            partition,
            since: proposed.since,
        };
        self.change_catalog(Change::WithdrawRun { run }).await?;
        Ok(proposed.run)
    }

    /// The first offset that no replica has, of the shards that the newest records of a partition belong to.
    async fn next_offset(&self, collection: &Collection, source: &SourceName, partition: i32) -> Result<i64, Problem> {
        let mut next = 0;
        for number in collection.route(source, partition).newest_shards() {
            let shard = ShardId {
                collection: collection.uid,
                number,
            };
            // One that is away has no more than it had, and says so before the run is in force.
            let newest = self
                .newest_position(collection, shard, (source, partition), |_| false)
                .await;
            let newest = newest.map_err(|problem| problem.hint("retry when all shards of the partition answer"))?;
            next = next.max(newest + 1);
        }
        Ok(next)
    }

    /// The newest position of a partition that any replica of a shard has. Fails if none answers, or one that must.
    pub(crate) async fn newest_position(
        &self,
        collection: &Collection,
        shard: ShardId,
        (source, partition): (&SourceName, i32),
        must_answer: impl Fn(&NodeName) -> bool,
    ) -> Result<i64, Problem> {
        let ingest = &self.roles.ingest;
        let stored = ingest.stored(shard, source, partition).await?;
        let mut newest = stored.unless_awaiting_copy(shard)?.offset;
        let replicas = collection.replicas_of(shard.number).iter();
        let replicas: Vec<_> = replicas
            .filter_map(|leaf| Some((leaf, ingest.replica_on(leaf)?)))
            .collect();
        let ask = async |leaf: &NodeName, replica: &dyn Ingest| {
            let stored = replica.stored(shard, source, partition);
            match must_answer(leaf) {
                true => stored.await.map(Some),
                false => Ok(timeout(OTHERS_WAIT, stored).await.ok().and_then(Result::ok)),
            }
        };
        let answers = replicas.iter().map(|(leaf, replica)| ask(leaf, &**replica));
        for stored in join_all(answers).await {
            newest = newest.max(stored?.map_or(-1, |stored| stored.offset));
        }
        Ok(newest)
    }

    /// Fails if a node runs a release that knows only lower levels of changes. Such a node stops at a change of this level,
    /// and such a tailer forwards the change without the fields that it does not know.
    pub(crate) async fn require_level(&self, level: u16, what: &str) -> Result<(), Problem> {
        for node in self.roles.nodes.status().await {
            if let Ok(report) = &node.report
                && report.rules_level < level
            {
                let detail = format!("{} runs a release that cannot {what}", node.name);
                return Err(Problem::new(Code::Conflict, detail).hint("run the same release on all nodes"));
            }
        }
        Ok(())
    }

    fn not_confirmed(&self, source: &SourceName, partition: i32) -> Problem {
        let catalog = self.catalog();
        let waits = source_of(&catalog, source).ok().and_then(|(collection, _)| {
            let of = collection.runs_of(source, partition)?;
            Some((of.proposed.as_ref()?.run.from, collection.unconfirmed(of).join(", ")))
        });
        let Some((from, leaves)) = waits else {
            let detail = format!("the spread of partition {partition} of {source} took too long");
            return Problem::new(Code::Timeout, detail).hint("see rachis.runs whether it is in force");
        };
        let detail = format!(
            "partition {partition} of {source} is not spread yet: that waits for {leaves}. Until then its records from offset \
             {from} on are not ingested"
        );
        Problem::new(Code::Timeout, detail).hint(format!(
            "it is spread once they know of it, see rachis.runs; `rachis source spread {source} {partition} --withdraw` gives it up"
        ))
    }
}

fn source_of<'a>(
    catalog: &'a Catalog,
    source: &SourceName,
) -> Result<(&'a Collection, &'a proto::catalog::SourceSettings), Problem> {
    let missing = |what: &str| {
        Problem::new(Code::NotFound, format!("{what} does not exist"))
            .hint("select * from rachis.sources lists all sources")
    };
    let found = catalog
        .sources
        .get(source)
        .ok_or_else(|| missing(&format!("source {source}")))?;
    let name = &found.settings.collection;
    let collection = catalog
        .collections
        .get(name)
        .ok_or_else(|| missing(&format!("collection {name}")))?;
    Ok((collection, &found.settings))
}

fn stopping() -> Problem {
    Problem::new(Code::Unavailable, "the node is shutting down")
}
