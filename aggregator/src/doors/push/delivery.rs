//! Delivers the parts of a push to their shards: waits until the shards are ready, sends, and retries busy leaves.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt as _, stream};
use proto::{
    Code, CollectionName, CollectionUid, Problem, SourceName,
    ingest::{INGEST_RULES_LEVEL, Push, PushResult, ShardId},
    record::{RequestKey, Rules},
    routing::shard_of,
};

use super::{PARTITIONS_AT_ONCE_MAX, partition::PartitionBatch};
use crate::query::{AppendUntil, Engine};

/// Partitions that are tried to find a reachable one.
const PARTITIONS_TRIED_MAX: usize = 8;
/// How long a push waits for an unavailable leaf before it fails with nothing written.
const READY_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the parts of one push have in common.
pub(super) struct Delivery<'a> {
    pub engine: &'a Engine,
    pub name: &'a CollectionName,
    pub collection: CollectionUid,
    pub shards: u32,
    pub key: Option<RequestKey>,
    pub time_ms: i64,
    pub until: AppendUntil,
}

impl Delivery<'_> {
    fn shard(&self, partition: i32) -> ShardId {
        push_shard(self.collection, partition, self.shards)
    }

    /// Waits until every shard could store its part. Writes nothing.
    pub(super) async fn wait_until_ready(&self, batches: &[PartitionBatch]) -> Result<(), Problem> {
        let deadline = std::time::Instant::now() + READY_WAIT_MAX;
        let ready = batches.iter().map(|batch| {
            let partition = batch.partition as i32;
            self.engine
                .roles
                .pushes
                .ready(self.shard(partition), partition, deadline)
        });
        stream::iter(ready.collect::<Vec<_>>())
            .buffer_unordered(PARTITIONS_AT_ONCE_MAX)
            .try_collect::<()>()
            .await
    }

    /// Stores the part of one partition. Returns its result and the indexes of the batch.
    pub(super) async fn send(&self, batch: PartitionBatch) -> Result<(PushResult, Option<Vec<u64>>), Problem> {
        let partition = batch.partition as i32;
        let shard = self.shard(partition);
        let push = Push {
            shard,
            source: SourceName::push(),
            partition,
            rules: Rules::default(),
            request: self.key.clone(),
            time_ms: self.time_ms,
            level: INGEST_RULES_LEVEL,
            items: batch.items,
        };
        let result = self.engine.append(self.name, push, self.until).await?;
        Ok((result, batch.indexes))
    }
}

/// The partition whose turn it is, or the next reachable one: a push that may go to any partition does not wait for an
/// unavailable leaf.
pub(super) async fn reachable_partition(engine: &Engine, collection: CollectionUid, turn: u64, shards: u32) -> u64 {
    for next in (turn..turn + u64::from(shards)).take(PARTITIONS_TRIED_MAX) {
        let partition = next % u64::from(shards);
        let shard = push_shard(collection, partition as i32, shards);
        if engine.roles.pushes.reachable(shard, partition as i32).await {
            return partition;
        }
    }
    turn
}

fn push_shard(collection: CollectionUid, partition: i32, shards: u32) -> ShardId {
    ShardId {
        collection,
        number: shard_of(&SourceName::push(), partition, shards),
    }
}

/// The problem of a push of which other parts are stored.
pub(super) fn partly_stored(problem: &Problem) -> Problem {
    Problem::new(
        Code::UnknownOutcome,
        format!("only part of the push is stored: {problem}"),
    )
    .hint("retry the push with the same Idempotency-Key: each part is applied only once")
}

/// Replaces the hint for a push without a key: repeating it could store its documents twice.
pub(super) fn without_key(problem: Problem) -> Problem {
    match problem.code {
        Code::UnknownOutcome => problem.hint(
            "check whether its documents are stored before you retry; a push with an Idempotency-Key is safe to retry",
        ),
        _ => problem,
    }
}
