//! A second sender that runs ahead of the first, like a tailer that was paused, replaced and then resumed. The tests
//! use it to detect a leaf that applies records out of order.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use proto::{
    address::{Position, SourceName},
    catalog::CollectionUid,
    ingest::{
        Batch, BatchOutcome, ClearedDeadLetters, Ingest, Loss, PartitionStatus, PushResult, ShardId, StoredPosition,
    },
    problem::Problem,
    record::RequestKey,
};

/// Sends the second half of every batch to the leaf before the batch itself. A correct leaf answers the half with a gap
/// and stores nothing of it.
pub(crate) struct DuplicateSender(pub(crate) Arc<dyn Ingest>);

#[async_trait]
impl Ingest for DuplicateSender {
    async fn write(&self, batch: Batch) -> Result<BatchOutcome, Problem> {
        if let Some(ahead) = second_half(&batch) {
            let outcome = self.0.write(ahead).await?;
            tracing::debug!(?outcome, "second half sent ahead");
        }
        self.0.write(batch).await
    }

    async fn pushed(
        &self,
        shard: ShardId,
        position: &Position,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<PushResult, Problem> {
        self.0.pushed(shard, position, request, deadline).await
    }

    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<StoredPosition, Problem> {
        self.0.stored(shard, source, partition).await
    }

    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        self.0.partitions(collection).await
    }

    async fn note_loss(&self, shard: ShardId, loss: Loss) -> Result<(), Problem> {
        self.0.note_loss(shard, loss).await
    }

    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem> {
        self.0.losses(collection).await
    }

    async fn clear_dead_letters(
        &self,
        collection: CollectionUid,
        source: Option<&SourceName>,
    ) -> Result<ClearedDeadLetters, Problem> {
        self.0.clear_dead_letters(collection, source).await
    }
}

fn second_half(batch: &Batch) -> Option<Batch> {
    let new: Vec<_> = batch
        .records
        .iter()
        .filter(|record| record.offset > batch.after)
        .cloned()
        .collect();
    let (first, second) = new.split_at(new.len() / 2);
    let last = first.last()?;
    Some(Batch {
        after: last.offset,
        records: second.to_vec(),
        ..batch.clone()
    })
}
