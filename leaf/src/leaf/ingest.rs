//! Ingest side of the leaf: routes batches and pushes to shards, and lists and clears what they left behind.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use proto::{
    Code, CollectionUid, Position, Problem, SourceName,
    ingest::{
        Backpressure, Batch, BatchOutcome, BlockDigest, ClearedDeadLetters, CopyStatus, DIGESTS_MAX, Ingest, Loss,
        PartitionStatus, Push, PushResult, Pushes, ShardId, StoredPosition,
    },
    limits::PUSH_ITEMS_MAX,
    record::RequestKey,
    snapshot::{ShardSnapshotRequest, ShardSnapshotStatus},
};

use super::{Leaf, ShardInfo};
use crate::{
    shard::{
        summary::{self, Summary},
        writer::key_reused,
    },
    store::{Partition, PartitionRow},
    threads::blocking,
};

/// How long one request clears dead letters; the next request continues.
const CLEAR_TIME_MAX: Duration = Duration::from_secs(20);
/// Bytes of an idempotency key.
const REQUEST_KEY_BYTES_MAX: usize = 255;

impl Leaf {
    /// The shards of a collection that are placed on this node, but for those that wait for a copy; none if the collection
    /// does not exist.
    fn placed_shards(&self, collection: CollectionUid) -> Vec<ShardId> {
        let catalog = self.catalog.borrow().clone();
        let Some((_, found)) = catalog.collection(collection) else {
            return Vec::new();
        };
        let owned = found.shards().filter(|shard| self.owns(found, shard.number));
        owned.filter(|shard| !self.awaits_copy(&catalog, *shard)).collect()
    }

    /// The outcome of a batch that this shard cannot accept, or not yet.
    fn misrouted(&self, batch: &Batch) -> Option<BatchOutcome> {
        let catalog = self.catalog.borrow().clone();
        let Some((name, collection)) = catalog.collection(batch.shard.collection) else {
            return Some(BatchOutcome::Refused {
                reason: no_collection(batch.shard),
            });
        };
        let (source, partition) = (&batch.source, batch.partition);
        let of = collection.runs_of(source, partition);
        let route = collection.route(source, partition);
        let share = route.share_of(batch.shard.number);
        let label = || format!("{source}/{partition} of {name}");
        if let Some(proposed) = of.and_then(|of| of.proposed.as_ref())
            && batch.through >= proposed.run.from
        {
            let (from, leaves) = (proposed.run.from, collection.unconfirmed(of?).join(", "));
            return Some(BatchOutcome::Busy(Backpressure::lasting(format!(
                "{} is being spread over other shards: its records from offset {from} on wait for {leaves}",
                label()
            ))));
        }
        let is_ours = |offset: i64| route.shard_at(offset) == batch.shard.number;
        let is_by_same_runs = batch.runs == route.runs();
        if share.is_some()
            && is_by_same_runs
            && (!route.is_spread() || batch.records.iter().all(|record| is_ours(record.offset)))
        {
            return None;
        }
        let owners = describe_shards(&route.newest_shards());
        let reason = match is_by_same_runs {
            true => format!("{} belongs to {owners}, not to shard {}", label(), batch.shard.number),
            false => format!(
                "not all nodes know of the last spread of {} yet: it goes on by itself once they do",
                label()
            ),
        };
        Some(match is_by_same_runs && !route.is_spread() {
            true => BatchOutcome::Refused { reason },
            false => BatchOutcome::Busy(Backpressure::lasting(reason)),
        })
    }

    /// Fails if a shard has no share of a partition.
    fn check_share(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<(), Problem> {
        let catalog = self.catalog.borrow().clone();
        let Some((name, collection)) = catalog.collection(shard.collection) else {
            return Err(Problem::new(Code::BadRequest, no_collection(shard)));
        };
        let route = collection.route(source, partition);
        if route.share_of(shard.number).is_some() {
            return Ok(());
        }
        let owners = describe_shards(&route.newest_shards());
        let detail = format!(
            "{source}/{partition} of {name} belongs to {owners}, not to shard {}",
            shard.number
        );
        Err(Problem::new(Code::BadRequest, detail))
    }
}

fn describe_shards(shards: &[u32]) -> String {
    match shards {
        [shard] => format!("shard {shard}"),
        shards => format!("shards {shards:?}"),
    }
}

fn no_collection(shard: ShardId) -> String {
    format!(
        "the collection with uid {} does not exist; it may have been dropped",
        shard.collection
    )
}

/// True if a closed shard may have dead letters of a source, or a partition of it that dead letters stopped.
fn may_have_dead_letters(summary: &Summary, source: Option<&SourceName>) -> bool {
    let has_letters = summary.oldest_dead_letter_ms.is_some();
    let is_of_source =
        |(partition, _): &(&Partition, &PartitionRow)| source.is_none_or(|source| partition.source == *source);
    // A dead letter can have no bytes, so the counters are checked too.
    summary.rows.iter().filter(is_of_source).any(|(_, row)| {
        row.stopped_by_dead_letters || row.dead_bytes > 0 || (has_letters && row.outcomes.dead_letters > 0)
    })
}

#[async_trait]
impl Ingest for Leaf {
    async fn write(&self, batch: Batch) -> Result<BatchOutcome, Problem> {
        if let Some(outcome) = self.misrouted(&batch) {
            return Ok(outcome);
        }
        let shard = self.shard(batch.shard).await?;
        let outcome = {
            // The catalog may have changed meanwhile.
            let _routing = self.routing.read();
            match self.misrouted(&batch) {
                Some(outcome) => return Ok(outcome),
                None => shard.submit_batch(batch),
            }
        };
        outcome.await
    }

    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<StoredPosition, Problem> {
        let catalog = self.catalog.borrow().clone();
        if self.awaits_copy(&catalog, shard) {
            return Ok(StoredPosition {
                serving: false,
                awaits_copy: true,
                ..summary::stored(&BTreeMap::new(), source, partition)
            });
        }
        let stored = match self.info(shard).await? {
            ShardInfo::Closed(summary) => summary.stored(source, partition),
            ShardInfo::Open(shard) => shard.stored(source, partition),
        };
        Ok(StoredPosition {
            serving: self.serves(shard),
            ..stored
        })
    }

    async fn ingest_times(
        &self,
        shard: ShardId,
        source: &SourceName,
        partition: i32,
        after: i64,
        through: i64,
    ) -> Result<BTreeMap<i64, i64>, Problem> {
        let shard = self.shard(shard).await?;
        let partition = Partition {
            source: source.clone(),
            number: partition,
        };
        blocking(move || shard.store().ingest_times(&partition, after, through)).await
    }

    async fn digests(&self, shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
        let shard = self.shard(shard).await?;
        blocking(move || shard.store().digests(DIGESTS_MAX)).await
    }

    async fn copies(&self) -> Result<Vec<CopyStatus>, Problem> {
        Ok(self.copy_status())
    }

    async fn snapshot_shard(&self, request: &ShardSnapshotRequest) -> Result<ShardSnapshotStatus, Problem> {
        self.write_snapshot(request)
    }

    async fn pushed(
        &self,
        shard: ShardId,
        position: &Position,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<PushResult, Problem> {
        let shard = self.shard_until(shard, deadline).await?;
        shard
            .wait_for_positions(&[position.clone()].into_iter().collect(), deadline)
            .await?;
        let (store, key) = (shard.store().clone(), request.key.clone());
        let partition = Partition {
            source: position.source.clone(),
            number: position.partition,
        };
        let found = blocking(move || store.request(&partition, &key)).await?;
        match found {
            Some(row) if row.body == request.body => Ok(row.answer),
            Some(_) => Err(key_reused(&request.key)),
            None => Err(Problem::new(
                Code::UnknownOutcome,
                "the push is too old: its outcome is no longer stored",
            )
            .hint("check whether its documents are stored")),
        }
    }

    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        let mut partitions = Vec::new();
        for id in self.placed_shards(collection) {
            let (rows, unerased, heat) = match self.info(id).await? {
                ShardInfo::Closed(summary) => (summary.rows, summary.unerased, BTreeMap::new()),
                ShardInfo::Open(shard) => {
                    shard.with_state(|state| (state.rows.clone(), state.gone.unerased(), state.heat()))
                }
            };
            let read = rows.into_iter().filter(|(_, row)| row.offset >= 0);
            partitions.extend(read.map(|(partition, row)| PartitionStatus {
                heat: heat.get(&partition).copied().unwrap_or_default(),
                erased_through:
                    (partition.source.is_changes()).then(|| unerased.map_or(row.offset, |(first, _)| first - 1)),
                shard: id,
                position: Position {
                    source: partition.source,
                    partition: partition.number,
                    offset: row.offset,
                },
                outcomes: row.outcomes,
                last_record_ms: row.last_record_ms,
                last_ingested_ms: row.last_ingested_ms,
                keys_elsewhere: row.keys_elsewhere,
            }));
        }
        Ok(partitions)
    }

    async fn note_loss(&self, shard: ShardId, loss: Loss) -> Result<(), Problem> {
        self.check_share(shard, &loss.source, loss.partition)?;
        let shard = self.shard(shard).await?;
        blocking(move || shard.store().note_loss(&loss)).await
    }

    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
        let mut losses = Vec::new();
        for id in self.placed_shards(collection) {
            losses.extend(match self.info(id).await? {
                ShardInfo::Closed(summary) => summary.losses,
                ShardInfo::Open(shard) => blocking(move || shard.store().losses()).await?,
            });
        }
        Ok(losses)
    }

    async fn clear_dead_letters(
        &self,
        collection: CollectionUid,
        source: Option<&SourceName>,
    ) -> Result<ClearedDeadLetters, Problem> {
        let catalog = self.catalog.borrow().clone();
        let shards = catalog
            .collection(collection)
            .into_iter()
            .flat_map(|(_, found)| found.shards());
        let mut cleared = ClearedDeadLetters {
            letters: 0,
            // A copy of a shard may bring some that were there before.
            complete: !shards.into_iter().any(|shard| self.awaits_copy(&catalog, shard)),
        };
        let until = Instant::now() + CLEAR_TIME_MAX;
        for id in self.placed_shards(collection) {
            let shard = match self.info(id).await? {
                ShardInfo::Closed(summary) if !may_have_dead_letters(&summary, source) => continue,
                ShardInfo::Closed(_) => self.shard(id).await?,
                ShardInfo::Open(shard) => shard,
            };
            let source = source.cloned();
            cleared.add(blocking(move || shard.clear_dead_letters(source.as_ref(), until)).await?);
        }
        Ok(cleared)
    }
}

#[async_trait]
impl Pushes for Leaf {
    async fn push(&self, push: Push, deadline: Instant) -> Result<PushResult, Problem> {
        check_limits(&push)?;
        let shard = self.shard_until(push.shard, deadline).await?;
        self.check_share(push.shard, &push.source, push.partition)?;
        shard.submit_push(push).await
    }
}

fn check_limits(push: &Push) -> Result<(), Problem> {
    if push.items.is_empty() && push.request.is_none() {
        return Err(Problem::new(Code::BadRequest, "the push has no documents"));
    }
    if push.items.len() > PUSH_ITEMS_MAX {
        let detail = format!(
            "the push has {} documents; the limit is {PUSH_ITEMS_MAX}",
            push.items.len()
        );
        return Err(Problem::new(Code::TooLarge, detail).hint("split it into several pushes"));
    }
    if push
        .request
        .as_ref()
        .is_some_and(|request| request.key.is_empty() || request.key.len() > REQUEST_KEY_BYTES_MAX)
    {
        return Err(Problem::new(
            Code::BadRequest,
            format!("the Idempotency-Key must have 1 to {REQUEST_KEY_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}
