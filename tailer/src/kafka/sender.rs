//! Sends the records of one partition to one replica of its shard: determines where to start, sends the next batch as
//! soon as the last one is answered, and acts on the outcome.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use proto::{
    Code, Problem,
    catalog::{PartitionStart, Skip},
    ingest::{Batch, BatchOutcome, Ingest, Loss, ShardId, StoredPosition, rules_level},
    record::Record,
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    Error,
    backoff::Backoff,
    context::SourceContext,
    error::ClientError,
    feed_apart::ApartReaders,
    other_times::OtherTimes,
    partition::{FAR_OFFSETS, OutgoingBatch, Partition, SenderStep},
    slot::{PartitionSlot, Replica},
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
/// How long a stopped sender may still send its replica what other replicas have. Shorter than [`ENDED_WITHIN`], for which
/// the senders that follow wait.
const LEVELLED_WITHIN: Duration = Duration::from_secs(2);
/// How long a sender waits for those before it to end, and for the answer to what they have sent.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(5);
pub(super) const RETRY_MAX: Duration = Duration::from_millis(500);
const RESOLVE_FIRST: Duration = Duration::from_millis(50);
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// The reasons in `rachis.losses`.
const DELETED: &str = "deleted at the broker before they were ingested";
const SKIPPED: &str = "skipped on request";

/// The sender of one partition to one replica.
pub(super) struct Sender {
    pub task: Arc<SourceTask>,
    pub slot: Arc<PartitionSlot>,
    /// The index of the replica.
    pub replica: usize,
    /// What is known of the other replicas.
    pub others: Mutex<OtherTimes>,
    /// Feed the replica while it is behind.
    pub apart: ApartReaders,
    /// Shows errors of the source.
    pub status: Arc<SourceStatus>,
    /// Asks the broker for offsets.
    pub consumer: Weak<BaseConsumer<SourceContext>>,
    /// Stops the sender.
    pub stop: CancellationToken,
}

impl Sender {
    /// Runs until it is stopped. A batch in flight is answered first. Begins once the senders before it have ended, so that
    /// it finds what they have sent.
    pub(super) async fn run(self, before: Option<TaskTracker>) {
        if let Some(before) = before {
            before.close();
            // One whose leaf hangs does not keep the others from going on.
            let _ = tokio::time::timeout(ENDED_WITHIN, before.wait()).await;
        }
        let mut resolve_backoff = Backoff::new(RESOLVE_FIRST, RESOLVE_MAX);
        // Whether a batch was sent since the last resolve. Without progress, resolving backs off.
        let mut progress = true;
        let mut dead_checked = Instant::now();
        while !self.stop.is_cancelled() {
            let step = self.partition().next_step(self.replica);
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
                SenderStep::FeedApart => self.feed_apart().await,
                SenderStep::Wait => {
                    let wake = &self.slot.replicas[self.replica].wake;
                    tokio::select! { () = wake.notified() => {}, () = self.stop.cancelled() => {} }
                }
            }
        }
        self.level_off().await;
    }

    /// Before the sender ends, it sends its replica what another replica of the shard already has: if the source was
    /// suspended or dropped, no other sender does so later. It gives up after [`LEVELLED_WITHIN`], or when the leaf fails.
    async fn level_off(&self) {
        // What is read apart is for this replica only.
        if self.slot.is_apart() {
            return;
        }
        self.partition().level_off();
        let levelled = async {
            let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
            loop {
                let stored = self.partition().stored_by(self.replica);
                let step = self.partition().next_step(self.replica);
                let SenderStep::Send(batch) = step else { return };
                self.send(batch).await;
                let error = self.partition().error_of(self.replica).cloned();
                match error {
                    Some(Error::LeafBusy(_)) => tokio::time::sleep(backoff.next()).await,
                    _ if self.partition().stored_by(self.replica) <= stored => return,
                    _ => {}
                }
            }
        };
        let _ = tokio::time::timeout(LEVELLED_WITHIN, levelled).await;
    }

    /// The state of the partition.
    pub(super) fn partition(&self) -> MutexGuard<'_, Partition> {
        self.slot.partition.lock()
    }

    /// The leaf that holds the replica.
    pub(super) fn leaf(&self) -> &dyn Ingest {
        self.slot.replicas[self.replica].leaf.as_ref()
    }

    pub(super) async fn pause(&self, wait: Duration) {
        tokio::select! { () = tokio::time::sleep(wait) => {}, () = self.stop.cancelled() => {} }
    }

    /// Sends a batch, with retries while the leaf is busy or does not answer.
    async fn send(&self, outgoing: OutgoingBatch) {
        let (records, bytes) = (outgoing.records.len() as u64, outgoing.bytes as u64);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let Some(timed) = self.with_times_of_others(outgoing.records).await else {
            return self.partition().abandon_batch(self.replica);
        };
        let batch = self.batch(outgoing.after, outgoing.through, timed);
        loop {
            let started = Instant::now();
            // Cloning is cheap: a record consists of a few reference-counted buffers.
            let answer = self.leaf().write(batch.clone()).await;
            metrics::histogram!("rachis_tail_write_seconds").record(started.elapsed().as_secs_f64());
            let error = match answer {
                Ok(BatchOutcome::Busy(why)) => {
                    self.partition().mark_not_applied(self.replica);
                    Error::LeafBusy(why)
                }
                Ok(outcome) => {
                    self.record_outcome(&outcome, records, bytes);
                    if self.partition().settle(self.replica, &outcome) {
                        self.slot.wake();
                    }
                    if let BatchOutcome::Refused { reason } = outcome {
                        self.slot.wake();
                        self.check_refusal(reason).await;
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
            let has_failed = matches!(error, Error::Leaf(_));
            self.partition().set_busy(self.replica, error);
            let awaits_copy = has_failed && matches!(self.stored().await, Err(Error::AwaitsCopy));
            self.pause(backoff.next()).await;
            // A replica that is behind by now gets its records in another way.
            let mut partition = self.partition();
            if self.stop.is_cancelled() || !partition.is_sending(self.replica) {
                return partition.abandon_batch(self.replica);
            }
            if !has_failed && partition.holds(outgoing.through) {
                // The next one ends before the records that are held back.
                return partition.abandon_batch(self.replica);
            }
            if awaits_copy {
                // The other shards of the partition go on meanwhile.
                partition.abandon_batch(self.replica);
                return partition.set_behind(self.replica);
            }
        }
    }

    fn stop_after_failed_batch(&self, problem: Problem) {
        warn!(source = %self.task.source, partition = self.slot.number, %problem, "the partition is stopped");
        let mut partition = self.partition();
        partition.abandon_batch(self.replica);
        partition.stop(self.replica, Error::Leaf(problem));
        drop(partition);
        self.slot.wake();
    }

    fn shrink_batches(&self, problem: &Problem) {
        let mut partition = self.partition();
        partition.abandon_batch(self.replica);
        let bytes = partition.halve_batches(self.replica);
        self.slot.note_halved(bytes);
        warn!(
            source = %self.task.source,
            partition = self.slot.number,
            %problem,
            bytes,
            "a batch took too long: sending smaller ones from now on"
        );
        partition.resolve(self.replica);
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
            runs: self.slot.replicas[self.replica].part.route.runs(),
            rules: self.task.settings.rules.clone(),
            records,
        }
    }

    fn shard(&self) -> ShardId {
        self.slot.replicas[self.replica].shard
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
            BatchOutcome::Busy(_) => "busy",
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
        // Once the batch in flight to another replica is stored, this one can be sent the same ingest times.
        let began = Instant::now();
        while self.partition().is_other_in_flight(self.replica)
            && began.elapsed() < ENDED_WITHIN
            && !self.stop.is_cancelled()
        {
            self.pause(RETRY_FIRST).await;
        }
        if self.stop.is_cancelled() {
            return;
        }
        match self.resolve().await {
            Ok(()) => {}
            Err(Error::AwaitsCopy) => self.partition().set_behind(self.replica),
            Err(error) => {
                self.status.set_error(error.clone());
                self.partition().resolve_failed(self.replica, error);
            }
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
        if let Some(other) = stored.topic.clone().filter(|topic| *topic != found) {
            self.stop(Error::OtherTopic { stored: other, found });
            return Ok(());
        }
        let share = self.slot.replicas[self.replica].part.share;
        if stored.offset < share.from - 1 {
            // What is before belongs to other shards.
            return self.advance(share.from - 1).await;
        }
        // Of replicas that have nothing, one decides where they begin.
        let _starting = match stored.offset {
            ..0 => Some(self.slot.starting.lock().await),
            _ => None,
        };
        let first = self.first_of_others(&stored).await?;
        let (next, deleted) = (stored.offset + 1, low - 1);
        let route = &self.slot.replicas[self.replica].part.route;
        if stored.offset >= 0 && next <= deleted && route.first_of(share.shard, next, deleted).is_none() {
            // All that the broker has deleted belongs to other shards.
            return self.advance(deleted).await;
        }
        // A shard that no record belongs to any more is not worth reading the log again.
        let is_near = |last: &i64| *last >= low && stored.offset - *last <= FAR_OFFSETS;
        let last_stored = stored.last;
        let last = last_stored.filter(is_near);
        let (stored, serves) = (stored.offset, stored.serving);
        let acknowledged = {
            let mut partition = self.partition();
            partition.note_offsets(self.replica, stored, high);
            partition.acknowledged(self.replica)
        };
        if let Some(first) = first {
            return self.begin_as_others(first, low, high).await;
        }
        // What another replica has is not lost, but this one cannot have it.
        // While another one is away that may have it, a replica that serves goes on without that, and others wait.
        let may_have = |offset: i64| offset >= low - 1 && (offset < i64::MAX || !serves);
        let has_others = self.others.lock().ahead.iter().any(|(_, offset)| may_have(*offset));
        let start = self.task.settings.start_of(self.slot.number);
        // Records that the broker deleted after the source was created are a loss, even if no tailer has read any before.
        // The topic of pushes begins with the collection.
        let (before_source, acknowledged) = match start {
            PartitionStart::At(end) => (end - 1, acknowledged.max(0)),
            _ if self.task.source.is_push() => (-1, acknowledged.max(0)),
            _ => (-1, acknowledged),
        };
        let next = stored.max(before_source) + 1;
        // Deleted records are lost even if a skip continues after them.
        if !has_others && (next > 0 || acknowledged >= 0) && next < low {
            self.note_loss(next, low - 1, DELETED).await?;
        }
        let skips = self.skips();
        // A skip begins after what all replicas had that serve: this one did not answer, and had more.
        let is_skipped = |last: &i64| !serves && skips.iter().any(|skip| skip.contains(*last));
        if let Some(offset) = last_stored.filter(is_skipped) {
            let partition = self.label();
            self.stop(Error::StoredSkipped { partition, offset });
            return Ok(());
        }
        self.note_skips(next.max(low), high).await?;
        // A shard needs every change. If the broker no longer has the first ones, the partition stops, even if no consumer
        // of the group has ever committed an offset.
        let acknowledged = match self.task.source.is_changes() {
            true => acknowledged.max(0),
            false => acknowledged,
        };
        let decision = match share.from {
            // A run may begin after the last record.
            from if from > 0 && stored == from - 1 && high < from => StartDecision::From(high),
            _ => decide_start(stored, acknowledged, low, high, &skips, start),
        };
        match decision {
            StartDecision::From(from) => {
                // At the last record that the leaf has, so that it can compare it.
                let from = last.filter(|last| from == stored && *last < from).unwrap_or(from);
                let leaf = self.slot.replicas[self.replica].name.as_ref().map(ToString::to_string);
                info!(partition = %self.label(), leaf, stored, from, end = high, "reading");
                self.begin(stored, from);
            }
            StartDecision::Advance { through } => return self.advance(through).await,
            StartDecision::Lost { from, through } if has_others => self.stop(self.lacks(from, through)),
            StartDecision::Lost { from, through } => self.stop(self.lost(from, through)),
            StartDecision::Shorter { end } => self.stop(Error::Shorter {
                partition: self.label(),
                stored: stored.max(before_source),
                newest: end - 1,
            }),
            StartDecision::SkipAhead { to, end } => self.stop(Error::SkipAhead { to, newest: end - 1 }),
        }
        Ok(())
    }

    /// Asks the other replicas what they have. Returns the first offset that one of them has, if this one has nothing: it
    /// must hold the same records, wherever the source or the topic begins by now. A replica that does not serve waits
    /// for one that knows.
    async fn first_of_others(&self, own: &StoredPosition) -> Result<Option<i64>, Error> {
        let others: Vec<&Replica> = self.others().collect();
        let stored = others
            .iter()
            .map(|other| other.leaf.stored(self.shard(), &self.task.source, self.slot.number));
        let (mut first, mut away, mut answered) = (None, None, false);
        let mut ahead = Vec::new();
        for (other, stored) in others.iter().zip(join_all(stored).await) {
            match stored {
                Ok(stored) => {
                    // One that does not serve and has nothing does not know, either.
                    answered |= stored.serving || stored.first.is_some();
                    first = first.into_iter().chain(stored.first).min();
                    if stored.offset > own.offset {
                        ahead.push(((*other).clone(), stored.offset));
                    }
                }
                Err(problem) => {
                    ahead.push(((*other).clone(), i64::MAX));
                    away = Some(problem);
                }
            }
        }
        self.others.lock().ahead = ahead;
        match away {
            Some(problem) if !answered && !own.serving && own.offset < 0 => Err(Error::Leaf(problem)),
            _ => Ok(first.filter(|_| own.offset < 0)),
        }
    }

    /// The other replicas of the shard.
    pub(super) fn others(&self) -> impl Iterator<Item = &Replica> {
        let own = &self.slot.replicas[self.replica];
        let all = self.slot.all_replicas.iter();
        all.filter(move |other| other.shard == own.shard && other.name != own.name)
    }

    /// Begins to fill a replica that has nothing with the records that others have.
    async fn begin_as_others(&self, first: i64, low: i64, high: i64) -> Result<(), Error> {
        if first > high {
            self.stop(Error::Shorter {
                partition: self.label(),
                stored: first - 1,
                newest: high - 1,
            });
            return Ok(());
        }
        if first > 0 {
            // So that it has the same position, even if no record follows. Then it is as any other.
            return self.advance(first - 1).await;
        }
        if low > first {
            self.stop(self.lacks(first, low - 1));
            return Ok(());
        }
        info!(partition = %self.label(), first, end = high, "filling a replica that has nothing");
        self.begin(-1, first);
        Ok(())
    }

    fn begin(&self, stored: i64, from: i64) {
        self.partition().begin(self.replica, stored, from);
        // Those of other shards may have to go back.
        self.slot.wake();
        self.status.clear_error();
    }

    /// Why a replica stays behind: others have records that the broker has no more.
    fn lacks(&self, from: i64, through: i64) -> Error {
        Error::ReplicaLacks {
            partition: self.label(),
            from,
            through,
        }
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
        match self.leaf().write(self.batch(-1, through, Vec::new())).await {
            Ok(BatchOutcome::Applied { .. } | BatchOutcome::Already { .. } | BatchOutcome::Gap { .. }) => Ok(()),
            Ok(BatchOutcome::Busy(why)) => Err(Error::LeafBusy(why)),
            Ok(BatchOutcome::Refused { reason }) => {
                let error = Error::BatchRefused { reason };
                self.stop(error.clone());
                self.partition().stop_other_shards(self.replica, &error);
                self.slot.wake();
                Ok(())
            }
            Err(problem) => Err(Error::Leaf(problem)),
        }
    }

    /// Stores at the leaf which records from an offset on are skipped on request: they are lost, too.
    async fn note_skips(&self, next: i64, high: i64) -> Result<(), Error> {
        for skip in self.skips().iter().filter(|skip| skip.to <= high) {
            let from = skip.from.max(next);
            if from < skip.to {
                self.note_loss(from, skip.to - 1, SKIPPED).await?;
            }
        }
        Ok(())
    }

    /// Stores at the leaf that records are lost, before reading continues and before the loss is reported.
    async fn note_loss(&self, from: i64, through: i64, reason: &str) -> Result<(), Error> {
        let route = &self.slot.replicas[self.replica].part.route;
        // If the partition belongs to several shards, each notes only a loss of its own records.
        let Some(from) = route.first_of(self.shard().number, from, through) else {
            return Ok(());
        };
        let loss = Loss {
            source: self.task.source.clone(),
            partition: self.slot.number,
            from,
            through,
            noticed_ms: now_ms(),
            reason: reason.to_owned(),
        };
        self.leaf().note_loss(self.shard(), loss).await.map_err(Error::Leaf)
    }

    /// The ranges in which records of the shard are skipped.
    fn skips(&self) -> Vec<Skip> {
        let (all, shard) = (self.task.skips.of(self.slot.number).iter(), self.shard().number);
        all.filter(|skip| skip.is_of(shard)).copied().collect()
    }

    fn stop(&self, error: Error) {
        let mut partition = self.partition();
        if partition.error_of(self.replica) != Some(&error) {
            warn!(
                source = %self.task.source,
                partition = self.slot.number,
                why = error.to_string(),
                "the partition is stopped"
            );
        }
        partition.stop(self.replica, error);
        drop(partition);
        // The others may be positioned anew.
        self.slot.wake();
    }

    /// What the replica has stored.
    pub(super) async fn stored(&self) -> Result<StoredPosition, Error> {
        let stored = self
            .leaf()
            .stored(self.shard(), &self.task.source, self.slot.number)
            .await;
        match stored {
            Ok(stored) if stored.awaits_copy => Err(Error::AwaitsCopy),
            stored => stored.map_err(Error::Leaf),
        }
    }

    /// Asks the leaf, until it responds, whether it refused a batch because of too many dead letters: then the
    /// partition is rechecked. So it is if they may have been cleared since. After any other refusal the partition
    /// waits for a change of the source, for all its shards.
    async fn check_refusal(&self, reason: String) {
        let mut backoff = Backoff::new(RESOLVE_FIRST, RESOLVE_MAX);
        let mut may_be_cleared = false;
        while !self.stop.is_cancelled() {
            match self.stored().await {
                Ok(stored) if stored.stopped_by_dead_letters || may_be_cleared => return self.stop_dead(),
                Ok(_) => {
                    self.partition()
                        .stop_other_shards(self.replica, &Error::BatchRefused { reason });
                    return self.slot.wake();
                }
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
            let begins = task.begins_at(partition);
            consumer
                .fetch_watermarks(&task.settings.topic, partition, BROKER_ANSWER)
                .map(|(low, high)| (low + begins, high + begins))
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
