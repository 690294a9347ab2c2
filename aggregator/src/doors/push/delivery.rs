//! Delivers the parts of a push to their shards: waits until the shards are ready, sends, and retries busy leaves.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt as _, stream};
use proto::{
    Code, CollectionName, CollectionUid, Problem, SourceName,
    ingest::{INGEST_RULES_LEVEL, Push, PushResult, ShardId},
    record::{RequestKey, Rules},
    routing::shard_of,
};
use tokio::time::Instant;

use super::{PARTITIONS_AT_ONCE_MAX, partition::PartitionBatch};
use crate::query::Engine;

/// Partitions that are tried to find a reachable one.
const PARTITIONS_TRIED_MAX: usize = 8;
/// How long a push waits for an unavailable leaf before it fails with nothing written.
const READY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a push may take before its outcome is unknown. Many clients and proxies wait for a minute.
pub(super) const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(55);
/// The pause before the first retry of a busy leaf. Doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(250);

/// What the parts of one push have in common.
pub(super) struct Delivery<'a> {
    pub engine: &'a Engine,
    pub name: &'a CollectionName,
    pub collection: CollectionUid,
    pub shards: u32,
    pub key: Option<RequestKey>,
    pub time_ms: i64,
    /// Until when busy shards are retried.
    pub deadline: Instant,
    /// Until when the outcome is awaited.
    pub outcome_by: Instant,
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
            partition,
            rules: Rules::default(),
            request: self.key.clone(),
            time_ms: self.time_ms,
            level: INGEST_RULES_LEVEL,
            items: batch.items,
        };
        let result = self.send_unless_dropped(push).await?;
        self.engine.on_push_acknowledged(shard, result.position.clone());
        Ok((result, batch.indexes))
    }

    /// Stops waiting when the collection is dropped.
    async fn send_unless_dropped(&self, push: Push) -> Result<PushResult, Problem> {
        let uid = self.collection;
        let mut catalog = self.engine.roles.changes.catalog();
        tokio::select! {
            biased;
            sent = self.send_with_retries(push) => match sent {
                Err(problem) if problem.code == Code::NotFound => Err(self.dropped()),
                sent => sent,
            },
            Ok(_) = catalog.wait_for(|catalog| catalog.collection(uid).is_none()) => Err(self.dropped()),
        }
    }

    /// Retries while the leaf is busy, until the deadline.
    async fn send_with_retries(&self, push: Push) -> Result<PushResult, Problem> {
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            let pushes = &self.engine.roles.pushes;
            let sent = pushes.push(push.clone(), self.outcome_by.into_std());
            match tokio::time::timeout_at(self.outcome_by, sent).await {
                Ok(Err(problem)) if problem.code == Code::Busy && Instant::now() + pause < self.deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                Ok(result) => return result,
                Err(_) => {
                    let detail = format!(
                        "the shard did not respond within {} seconds",
                        OUTCOME_WAIT_MAX.as_secs()
                    );
                    return Err(Problem::new(Code::UnknownOutcome, detail)
                        .hint("retry the push with the same Idempotency-Key: it is applied only once"));
                }
            }
        }
    }

    fn dropped(&self) -> Problem {
        Problem::new(
            Code::Conflict,
            format!("collection {} was dropped during the push", self.name),
        )
        .hint("the pushed documents were dropped with it; push again to recreate the collection")
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
