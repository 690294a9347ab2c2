//! The door for those who send events.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use proto::{
    Code, CollectionUid, Position, Problem, SourceName,
    ingest::{Batch, Cleared, Ingest, Loss, PartitionStatus, Push, Pushed, Pushes, ShardId, Stored, Verdict},
    limits::PUSH_ITEMS_MAX,
    record::RequestKey,
    routing::shard_of,
};

use super::{Leaf, ShardInfo, blocking};
use crate::{
    shard::{summary::Summary, writer::other_body},
    store::{Partition, PartitionRow},
};

/// One request clears dead letters for so long; another goes on.
const CLEAR_TIME: Duration = Duration::from_secs(20);

impl Leaf {
    /// Why a partition does not belong to a shard, if it does not.
    fn misrouted(&self, shard: ShardId, source: &SourceName, partition: i32) -> Option<String> {
        let catalog = self.catalog.borrow().clone();
        let Some((name, collection)) = catalog.collection(shard.collection) else {
            return Some(format!(
                "there is no collection of uid {}; it may have been dropped",
                shard.collection
            ));
        };
        let owner = shard_of(source, partition, collection.settings.shards);
        (owner != shard.number).then(|| {
            format!(
                "{source}/{partition} of {name} belongs to shard {owner}, not to {}",
                shard.number
            )
        })
    }
}

/// Whether a closed shard may have dead letters of a source, or a partition of it that they stopped.
fn has_to_clear(summary: &Summary, source: Option<&SourceName>) -> bool {
    let letters = summary.oldest_dead_letter_ms.is_some();
    let of_it = |(partition, _): &(&Partition, &PartitionRow)| source.is_none_or(|source| partition.source == *source);
    // A dead letter may weigh nothing.
    summary
        .rows
        .iter()
        .filter(of_it)
        .any(|(_, row)| row.dead || row.dead_bytes > 0 || (letters && row.outcomes.dead_letters > 0))
}

#[async_trait]
impl Ingest for Leaf {
    async fn write(&self, batch: Batch) -> Result<Verdict, Problem> {
        if let Some(reason) = self.misrouted(batch.shard, &batch.source, batch.partition) {
            return Ok(Verdict::Refused { reason });
        }
        self.shard(batch.shard).await?.write(batch).await
    }

    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<Stored, Problem> {
        Ok(match self.info(shard).await? {
            ShardInfo::Closed(summary) => summary.stored(source, partition),
            ShardInfo::Open(shard) => shard.stored(source, partition),
        })
    }

    async fn pushed(
        &self,
        shard: ShardId,
        partition: i32,
        offset: i64,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<Pushed, Problem> {
        let shard = self.shard_until(shard, deadline).await?;
        let position = Position {
            source: SourceName::push(),
            partition,
            offset,
        };
        shard.covered(&[position].into_iter().collect(), deadline).await?;
        let (store, key) = (shard.store().clone(), request.key.clone());
        let found = blocking(move || {
            store.request(
                &Partition {
                    source: SourceName::push(),
                    number: partition,
                },
                &key,
            )
        })
        .await?;
        match found {
            Some(row) if row.body == request.body => Ok(row.answer),
            Some(_) => Err(other_body(&request.key)),
            None => Err(
                Problem::new(Code::UnknownOutcome, "the push is too old for its outcome to be known")
                    .hint("ask for its documents"),
            ),
        }
    }

    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        let catalog = self.catalog.borrow().clone();
        let Some((_, found)) = catalog.collection(collection) else {
            return Ok(Vec::new());
        };
        let mut partitions = Vec::new();
        for id in found.shards().filter(|shard| self.holds(found, shard.number)) {
            let rows = match self.info(id).await? {
                ShardInfo::Closed(summary) => summary.rows,
                ShardInfo::Open(shard) => shard.look(|state| state.rows.clone()),
            };
            partitions.extend(rows.into_iter().map(|(partition, row)| PartitionStatus {
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
        if let Some(reason) = self.misrouted(shard, &loss.source, loss.partition) {
            return Err(Problem::new(Code::BadRequest, reason));
        }
        let shard = self.shard(shard).await?;
        blocking(move || shard.store().note_loss(&loss)).await
    }

    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
        let catalog = self.catalog.borrow().clone();
        let Some((_, found)) = catalog.collection(collection) else {
            return Ok(Vec::new());
        };
        let mut losses = Vec::new();
        for id in found.shards().filter(|shard| self.holds(found, shard.number)) {
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
    ) -> Result<Cleared, Problem> {
        let catalog = self.catalog.borrow().clone();
        let mut cleared = Cleared {
            letters: 0,
            complete: true,
        };
        let Some((_, found)) = catalog.collection(collection) else {
            return Ok(cleared);
        };
        let until = Instant::now() + CLEAR_TIME;
        for id in found.shards().filter(|shard| self.holds(found, shard.number)) {
            let shard = match self.info(id).await? {
                ShardInfo::Closed(summary) if !has_to_clear(&summary, source) => continue,
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
    async fn push(&self, push: Push, deadline: Instant) -> Result<Pushed, Problem> {
        if push.items.is_empty() && push.request.is_none() {
            return Err(Problem::new(Code::BadRequest, "the push holds no documents"));
        }
        if push.items.len() > PUSH_ITEMS_MAX {
            let detail = format!(
                "{} items are over the limit of {PUSH_ITEMS_MAX} for one push",
                push.items.len()
            );
            return Err(Problem::new(Code::TooLarge, detail).hint("send several pushes"));
        }
        if push
            .request
            .as_ref()
            .is_some_and(|request| request.key.is_empty() || request.key.len() > 255)
        {
            return Err(Problem::new(
                Code::BadRequest,
                "an Idempotency-Key must have 1 to 255 bytes",
            ));
        }
        let shard = self.shard_until(push.shard, deadline).await?;
        if let Some(reason) = self.misrouted(push.shard, &SourceName::push(), push.partition) {
            return Err(Problem::new(Code::BadRequest, reason));
        }
        shard.push(push).await
    }
}
