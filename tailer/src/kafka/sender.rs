//! Sends the records of one partition to its leaf: determines where to start, sends the next batch as soon as the last
//! one is answered, and acts on the outcome.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use proto::{
    Code, Problem,
    ingest::{Batch, BatchOutcome, Loss, ShardId, StoredPosition, rules_level},
    record::Record,
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Error,
    backoff::Backoff,
    context::SourceContext,
    error::ClientError,
    partition::{OutgoingBatch, PartitionSlot, SenderStep},
    start::{StartDecision, decide_start},
    status::SourceStatus,
    task::SourceTask,
};
use crate::changes::topic::now_ms;

/// A batch that fails after this time was too large for the network path to its leaf.
const TOO_SLOW: Duration = Duration::from_secs(20);
/// How often a stopped partition checks whether it can continue.
const RECHECK_EVERY: Duration = Duration::from_secs(10);
/// How long the broker may take to return offsets.
const BROKER_ANSWER: Duration = Duration::from_secs(5);
/// How often to ask the leaf whether too many records became dead letters.
const DEAD_CHECK_EVERY: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(500);
const RESOLVE_FIRST: Duration = Duration::from_millis(50);
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// The reasons in `rachis.losses`.
const DELETED: &str = "deleted at the broker before they were ingested";
const SKIPPED: &str = "skipped on request";

/// The sender of one partition.
pub(super) struct Sender {
    pub task: Arc<SourceTask>,
    pub slot: Arc<PartitionSlot>,
    /// Shows errors of the source.
    pub status: Arc<SourceStatus>,
    /// Asks the broker for offsets.
    pub consumer: Weak<BaseConsumer<SourceContext>>,
    /// Stops the sender.
    pub stop: CancellationToken,
}

impl Sender {
    /// Runs until it is stopped. A batch in flight is answered first.
    pub(super) async fn run(self) {
        let mut resolve_backoff = Backoff::new(RESOLVE_FIRST, RESOLVE_MAX);
        // Whether a batch was sent since the last resolve. Without progress, resolving backs off.
        let mut progress = true;
        let mut dead_checked = Instant::now();
        while !self.stop.is_cancelled() {
            let step = self.slot.partition.lock().next_step();
            match step {
                SenderStep::Send(batch) => {
                    self.send(batch).await;
                    progress = true;
                    if dead_checked.elapsed() > DEAD_CHECK_EVERY {
                        dead_checked = Instant::now();
                        self.check_dead().await;
                    }
                }
                SenderStep::Resolve => {
                    match std::mem::take(&mut progress) {
                        true => resolve_backoff.reset(),
                        false => self.pause(resolve_backoff.next()).await,
                    }
                    self.try_resolve().await;
                }
                SenderStep::Recheck => {
                    self.pause(RECHECK_EVERY).await;
                    self.try_resolve().await;
                }
                SenderStep::Wait => {
                    tokio::select! { () = self.slot.wake.notified() => {}, () = self.stop.cancelled() => {} }
                }
            }
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! { () = tokio::time::sleep(wait) => {}, () = self.stop.cancelled() => {} }
    }

    /// Sends a batch, with retries while the leaf is busy or does not answer.
    async fn send(&self, outgoing: OutgoingBatch) {
        let (records, bytes) = (outgoing.records.len() as u64, outgoing.bytes as u64);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let batch = self.batch(outgoing.after, outgoing.through, outgoing.records);
        loop {
            let started = Instant::now();
            // Cloning is cheap: a record consists of a few reference-counted buffers.
            let answer = self.task.leaf.write(batch.clone()).await;
            metrics::histogram!("rachis_tail_write_seconds").record(started.elapsed().as_secs_f64());
            let error = match answer {
                Ok(BatchOutcome::Busy { reason }) => {
                    self.slot.partition.lock().mark_not_applied();
                    Error::LeafBusy { reason }
                }
                Ok(outcome) => {
                    self.record_outcome(&outcome, records, bytes);
                    self.slot.partition.lock().settle(&outcome);
                    if matches!(outcome, BatchOutcome::Refused { .. }) {
                        self.check_refusal().await;
                    }
                    return;
                }
                Err(problem) if is_final(&problem) => return self.stop_after_failed_batch(problem),
                // A leaf that is down fails sooner: this is a network path that cannot carry a batch of this size in
                // time.
                Err(problem) if started.elapsed() > TOO_SLOW => return self.shrink_batches(&problem),
                Err(problem) => Error::Leaf(problem),
            };
            metrics::counter!("rachis_tail_busy_total", &self.task.labels()).increment(1);
            self.slot.partition.lock().set_busy(error);
            self.pause(backoff.next()).await;
            if self.stop.is_cancelled() {
                self.slot.partition.lock().abandon_batch();
                return;
            }
        }
    }

    fn stop_after_failed_batch(&self, problem: Problem) {
        warn!(source = %self.task.source, partition = self.slot.number, %problem, "the partition is stopped");
        let mut partition = self.slot.partition.lock();
        partition.abandon_batch();
        partition.stop(Error::Leaf(problem));
    }

    fn shrink_batches(&self, problem: &Problem) {
        let mut partition = self.slot.partition.lock();
        partition.abandon_batch();
        let bytes = partition.halve_batches();
        warn!(
            source = %self.task.source,
            partition = self.slot.number,
            %problem,
            bytes,
            "a batch took too long: sending smaller ones from now on"
        );
        partition.resolve();
    }

    fn batch(&self, after: i64, through: i64, records: Vec<Record>) -> Batch {
        Batch {
            shard: self.shard(),
            source: self.task.source.clone(),
            topic: self.task.topic_id(),
            partition: self.slot.number,
            after,
            through,
            level: rules_level(&self.task.source),
            rules: self.task.settings.rules.clone(),
            records,
        }
    }

    fn shard(&self) -> ShardId {
        self.task.shard(self.slot.number)
    }

    /// Logs an outcome and counts it in the metrics.
    fn record_outcome(&self, outcome: &BatchOutcome, records: u64, bytes: u64) {
        let (source, partition) = (self.task.source.to_string(), self.slot.number);
        let label = match outcome {
            BatchOutcome::Applied { .. } => "applied",
            BatchOutcome::Already { .. } => "already",
            BatchOutcome::Gap { stored } => {
                info!(%source, partition, stored, "the leaf lacks records before the batch: rewinding");
                "gap"
            }
            BatchOutcome::Refused { reason } => {
                warn!(%source, partition, reason, "the leaf refused the batch: the partition is stopped");
                "refused"
            }
            BatchOutcome::Busy { .. } => "busy",
        };
        let [collection, source] = self.task.labels();
        metrics::counter!(
            "rachis_tail_batches_total",
            &[collection.clone(), source.clone(), ("verdict", label.to_owned())]
        )
        .increment(1);
        if matches!(outcome, BatchOutcome::Applied { .. }) {
            let labels = [collection, source];
            metrics::counter!("rachis_tail_records_total", &labels).increment(records);
            metrics::counter!("rachis_tail_bytes_total", &labels).increment(bytes);
        }
    }

    async fn try_resolve(&self) {
        if self.stop.is_cancelled() {
            return;
        }
        if let Err(error) = self.resolve().await {
            self.status.set_error(error.clone());
            self.slot.partition.lock().resolve_failed(error);
        }
    }

    /// Determines where to start reading, from the position of the leaf and the offsets of the broker. Fails if it must
    /// be tried again.
    async fn resolve(&self) -> Result<(), Error> {
        let stored = self.stored().await?;
        if stored.stopped_by_dead_letters {
            self.stop_dead();
            return Ok(());
        }
        let (low, high) = self.broker_offsets().await?;
        let found = self.task.topic_id();
        if let Some(other) = stored.topic.filter(|topic| *topic != found) {
            self.stop(Error::OtherTopic { stored: other, found });
            return Ok(());
        }
        let stored = stored.offset;
        let acknowledged = {
            let mut partition = self.slot.partition.lock();
            partition.note_offsets(stored, high);
            partition.acknowledged()
        };
        self.note_losses(stored, acknowledged, low, high).await?;
        let skips = self.task.skips.of(self.slot.number);
        let start = self.task.settings.start_of(self.slot.number);
        // A shard needs every change. If the broker no longer has the first ones, the partition stops, even if no consumer
        // of the group has ever committed an offset.
        let acknowledged = match self.task.source.is_changes() {
            true => acknowledged.max(0),
            false => acknowledged,
        };
        match decide_start(stored, acknowledged, low, high, skips, start) {
            StartDecision::From(from) => {
                info!(partition = %self.label(), stored, from, end = high, "reading");
                self.slot.partition.lock().begin(stored, from);
                self.status.clear_error();
            }
            StartDecision::Advance { through } => return self.advance(through).await,
            StartDecision::Lost { from, through } => self.stop(self.lost(from, through)),
            StartDecision::Shorter { end } => self.stop(Error::Shorter {
                partition: self.label(),
                stored,
                newest: end - 1,
            }),
            StartDecision::SkipAhead { to, end } => self.stop(Error::SkipAhead { to, newest: end - 1 }),
        }
        Ok(())
    }

    /// The partition in messages: `source/number`.
    fn label(&self) -> String {
        format!("{}/{}", self.task.source, self.slot.number)
    }

    fn lost(&self, from: i64, through: i64) -> Error {
        if self.task.source.is_changes() {
            return Error::ChangesLost {
                partition: self.label(),
                from,
                through,
                topic: self.task.settings.topic.clone(),
            };
        }
        let command = match self.task.source.is_push() {
            true => format!("rachis collection skip {}", self.task.collection),
            false => format!("rachis source skip {}", self.task.source),
        };
        Error::Lost {
            partition: self.label(),
            from,
            through,
            command: format!("{command} {}={}", self.slot.number, through + 1),
        }
    }

    /// Stores the position before the first record to read, so that a restart begins there too.
    async fn advance(&self, through: i64) -> Result<(), Error> {
        match self.task.leaf.write(self.batch(-1, through, Vec::new())).await {
            Ok(BatchOutcome::Applied { .. } | BatchOutcome::Already { .. } | BatchOutcome::Gap { .. }) => Ok(()),
            Ok(BatchOutcome::Busy { reason }) => Err(Error::LeafBusy { reason }),
            Ok(BatchOutcome::Refused { reason }) => {
                self.stop(Error::BatchRefused { reason });
                Ok(())
            }
            Err(problem) => Err(Error::Leaf(problem)),
        }
    }

    /// Stores at the leaf which records are lost, before reading continues and before the loss is reported.
    async fn note_losses(&self, stored: i64, acknowledged: i64, low: i64, high: i64) -> Result<(), Error> {
        let next = stored + 1;
        // Deleted records are lost even if a skip continues after them.
        if (next > 0 || acknowledged >= 0) && next < low {
            self.note_loss(next, low - 1, DELETED).await?;
        }
        // Records that are skipped on request are lost, too.
        let skips = self.task.skips.of(self.slot.number);
        for skip in skips.iter().filter(|skip| skip.to <= high) {
            let from = skip.from.max(next).max(low);
            if from < skip.to {
                self.note_loss(from, skip.to - 1, SKIPPED).await?;
            }
        }
        Ok(())
    }

    async fn note_loss(&self, from: i64, through: i64, reason: &str) -> Result<(), Error> {
        let loss = Loss {
            source: self.task.source.clone(),
            partition: self.slot.number,
            from,
            through,
            noticed_ms: now_ms(),
            reason: reason.to_owned(),
        };
        self.task.leaf.note_loss(self.shard(), loss).await.map_err(Error::Leaf)
    }

    fn stop(&self, error: Error) {
        let mut partition = self.slot.partition.lock();
        if partition.error() != Some(&error) {
            warn!(
                source = %self.task.source,
                partition = self.slot.number,
                why = error.to_string(),
                "the partition is stopped"
            );
        }
        partition.stop(error);
    }

    async fn stored(&self) -> Result<StoredPosition, Error> {
        self.task
            .leaf
            .stored(self.shard(), &self.task.source, self.slot.number)
            .await
            .map_err(Error::Leaf)
    }

    /// Asks the leaf, until it responds, whether it refused a batch because of too many dead letters: then the
    /// partition is rechecked. So it is if they may have been cleared since. After any other refusal the partition
    /// waits for a change of the source.
    async fn check_refusal(&self) {
        let mut backoff = Backoff::new(RESOLVE_FIRST, RESOLVE_MAX);
        let mut may_be_cleared = false;
        while !self.stop.is_cancelled() {
            match self.stored().await {
                Ok(stored) if stored.stopped_by_dead_letters || may_be_cleared => return self.stop_dead(),
                Ok(_) => return,
                Err(Error::Leaf(problem)) if is_final(&problem) => return,
                Err(_) => {
                    may_be_cleared = true;
                    self.pause(backoff.next()).await;
                }
            }
        }
    }

    async fn check_dead(&self) {
        if self.stored().await.is_ok_and(|stored| stored.stopped_by_dead_letters) {
            self.stop_dead();
        }
    }

    /// Stops because of too many dead letters. The partition is rechecked, because a user may clear them, and they
    /// expire.
    fn stop_dead(&self) {
        self.stop(Error::TooManyDead {
            collection: self.task.collection.to_string(),
            source_name: self.task.source.to_string(),
        });
    }

    /// The first offset that the broker has, and its end offset. Also learns the id of the Kafka cluster.
    async fn broker_offsets(&self) -> Result<(i64, i64), Error> {
        let (consumer, task, partition) = (self.consumer.clone(), self.task.clone(), self.slot.number);
        let request = move || {
            // The consumer is closed once its last strong reference is dropped, so this one lives only for the request.
            let consumer = consumer.upgrade().ok_or(Error::Stopping)?;
            if !task.knows_cluster() {
                let cluster = consumer.client().fetch_cluster_id(BROKER_ANSWER).ok_or_else(|| {
                    let reason = "the brokers did not return the id of the cluster";
                    Error::Client(ClientError::new(RDKafkaErrorCode::OperationTimedOut, reason))
                })?;
                task.set_cluster(cluster);
            }
            consumer
                .fetch_watermarks(&task.settings.topic, partition, BROKER_ANSWER)
                .map_err(|error| {
                    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                    Error::Client(ClientError::new(
                        code,
                        format!("the broker did not return the offsets: {code}"),
                    ))
                })
        };
        tokio::task::spawn_blocking(request)
            .await
            .map_err(|error| Error::Interrupted {
                reason: error.to_string(),
            })?
    }
}

/// Whether a retry is pointless: the leaf will never accept the batch.
fn is_final(problem: &Problem) -> bool {
    !proto::ingest::is_transient(problem) && problem.code != Code::Internal
}
