//! Takes one partition's records to the leaf: asks where to begin, sends a batch as soon as the last one is answered,
//! does what the verdict says.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use proto::{
    Code, Problem,
    ingest::{Batch, LEVEL, Loss, ShardId, Stored, Verdict},
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    board::{Board, Cell},
    config::explain,
    context::Context,
    partition::{Backoff, Decision, Next, Outgoing, decide},
    source::Job,
};

/// A batch that fails after this long was too large for the way to its leaf.
const TOO_SLOW: Duration = Duration::from_secs(20);
/// How long a stopped partition waits before it looks again whether it can go on.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long the broker has to tell its offsets.
const BROKER_ANSWER: Duration = Duration::from_secs(5);
/// How often the leaf is asked whether too many records are unusable.
const DEAD_CHECK: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MOST: Duration = Duration::from_millis(500);
const RESOLVE_FIRST: Duration = Duration::from_millis(50);
const RESOLVE_MOST: Duration = Duration::from_secs(5);

/// One partition's way to the leaf.
pub struct Sender {
    /// Which source.
    pub job: Arc<Job>,
    /// Which partition.
    pub cell: Arc<Cell>,
    /// Where errors of the source are shown.
    pub board: Arc<Board>,
    /// To ask the broker for offsets.
    pub consumer: Weak<BaseConsumer<Context>>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl Sender {
    /// Runs until it is stopped. A batch on its way is answered first.
    pub async fn run(self) {
        let mut resolving = Backoff::new(RESOLVE_FIRST, RESOLVE_MOST);
        // Whether something went to the leaf since it was asked last: asking again and again must not turn into a race.
        let mut progress = true;
        let mut dead_checked = Instant::now();
        while !self.stop.is_cancelled() {
            let next = self.cell.partition.lock().next();
            match next {
                Next::Send(out) => {
                    self.send(out).await;
                    progress = true;
                    if dead_checked.elapsed() > DEAD_CHECK {
                        dead_checked = Instant::now();
                        self.check_dead().await;
                    }
                }
                Next::Resolve => {
                    match std::mem::take(&mut progress) {
                        true => resolving.reset(),
                        false => self.pause(resolving.next()).await,
                    }
                    self.try_resolve().await;
                }
                Next::LookAgain => {
                    self.pause(LOOK_AGAIN).await;
                    self.try_resolve().await;
                }
                Next::Wait => tokio::select! { () = self.cell.wake.notified() => {}, () = self.stop.cancelled() => {} },
            }
        }
    }

    async fn try_resolve(&self) {
        if self.stop.is_cancelled() {
            return;
        }
        if let Err(error) = self.resolve().await {
            self.board.error(&error);
            self.cell.partition.lock().not_now(error);
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! { () = tokio::time::sleep(wait) => {}, () = self.stop.cancelled() => {} }
    }

    /// Sends until there is a verdict that is not "no room now".
    async fn send(&self, out: Outgoing) {
        let records = out.records.len() as u64;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let batch = self.batch(out.after, out.through, out.records);
        loop {
            let started = Instant::now();
            // A record is a few counted references, so keeping a copy for another attempt costs little.
            let answer = self.job.leaf.write(batch.clone()).await;
            metrics::histogram!("rachis_tail_write_seconds").record(started.elapsed().as_secs_f64());
            let reason = match answer {
                Ok(Verdict::Busy { reason }) => {
                    self.cell.partition.lock().not_taken();
                    reason
                }
                Ok(verdict) => {
                    self.count(&verdict, records, out.bytes as u64);
                    self.cell.partition.lock().settle(&verdict);
                    if matches!(verdict, Verdict::Refused { .. }) {
                        self.check_dead().await;
                    }
                    return;
                }
                Err(problem) if is_final(&problem) => {
                    warn!(source = %self.job.source, partition = self.cell.number, %problem, "the partition is stopped");
                    let mut partition = self.cell.partition.lock();
                    partition.give_up();
                    partition.stop(problem.to_string(), false);
                    return;
                }
                // Not a leaf that is away, which is known sooner, but a way to it that takes no batch of this size in
                // its time.
                Err(problem) if started.elapsed() > TOO_SLOW => {
                    let mut partition = self.cell.partition.lock();
                    partition.give_up();
                    let bytes = partition.halve_batches();
                    warn!(source = %self.job.source, partition = self.cell.number, %problem, bytes, "a batch took too long: smaller ones from here on");
                    partition.resolve();
                    return;
                }
                Err(problem) => problem.to_string(),
            };
            metrics::counter!("rachis_tail_busy_total", &self.job.labels()).increment(1);
            self.cell.partition.lock().busy(reason);
            self.pause(backoff.next()).await;
            if self.stop.is_cancelled() {
                self.cell.partition.lock().give_up();
                return;
            }
        }
    }

    fn batch(&self, after: i64, through: i64, records: Vec<proto::record::Record>) -> Batch {
        Batch {
            shard: self.shard(),
            source: self.job.source.clone(),
            topic: self.job.topic_id(),
            partition: self.cell.number,
            after,
            through,
            level: LEVEL,
            rules: self.job.settings.rules.clone(),
            records,
        }
    }

    fn shard(&self) -> ShardId {
        self.job.shard(self.cell.number)
    }

    fn count(&self, verdict: &Verdict, records: u64, bytes: u64) {
        let source = self.job.source.to_string();
        let word = match verdict {
            Verdict::Applied { .. } => "applied",
            Verdict::Already { .. } => "already",
            Verdict::Gap { stored } => {
                info!(%source, partition = self.cell.number, stored, "the leaf has less than was sent: going back");
                "gap"
            }
            Verdict::Refused { reason } => {
                warn!(%source, partition = self.cell.number, reason, "the leaf refuses the batch: the partition is stopped");
                "refused"
            }
            Verdict::Busy { .. } => "busy",
        };
        let [collection, source] = self.job.labels();
        metrics::counter!(
            "rachis_tail_batches_total",
            &[collection.clone(), source.clone(), ("verdict", word.to_owned())]
        )
        .increment(1);
        if matches!(verdict, Verdict::Applied { .. }) {
            let labels = [collection, source];
            metrics::counter!("rachis_tail_records_total", &labels).increment(records);
            metrics::counter!("rachis_tail_bytes_total", &labels).increment(bytes);
        }
    }

    /// Asks the leaf for its position and the broker for its offsets, and decides where to begin. `Err`: not now.
    async fn resolve(&self) -> Result<(), String> {
        let stored = self.stored().await?;
        if stored.dead {
            self.stop_dead();
            return Ok(());
        }
        let (low, high) = self.watermarks().await?;
        let topic = self.job.topic_id();
        if let Some(other) = stored.topic.as_ref().filter(|other| **other != topic) {
            let why = format!(
                "what is stored was read from {other}, and this is {topic}: another cluster or topic (point the source back, or create a source of another name)"
            );
            self.stop(why, true);
            return Ok(());
        }
        let skips = self.job.skips.of(self.cell.number);
        let at = format!("{}/{}", self.job.source, self.cell.number);
        let acknowledged = {
            let mut partition = self.cell.partition.lock();
            partition.found(stored.offset, high);
            partition.acknowledged()
        };
        // Gone is gone, also where somebody has said to go on further behind.
        let next = stored.offset + 1;
        if (next > 0 || acknowledged >= 0) && next < low {
            self.note_loss(next, low - 1, "gone at the broker before they were taken in")
                .await?;
        }
        // What is skipped on request is no less lost.
        for skip in skips.iter().filter(|skip| skip.to <= high) {
            let from = skip.from.max(next).max(low);
            if from < skip.to {
                self.note_loss(from, skip.to - 1, "skipped on request").await?;
            }
        }
        match decide(stored.offset, acknowledged, low, high, skips, self.job.settings.start_of(self.cell.number)) {
            Decision::From(from) => {
                info!(partition = %at, stored = stored.offset, from, end = high, "reading");
                self.cell.partition.lock().begin(stored.offset, from);
                self.board.fine();
            }
            Decision::Advance { through } => return self.advance(through).await,
            Decision::Lost { from, to } => {
                let command = match self.job.source.is_push() {
                    true => format!("rachis collection skip {}", self.job.collection),
                    false => format!("rachis source skip {}", self.job.source),
                };
                let (why, place) = ("the topic's retention was faster", format!("{}={}", self.cell.number, to + 1));
                self.stop(
                    format!("the records {at}@{from} through {at}@{to} are gone at the broker and were not taken in: {why} (to go on without them: {command} {place})"),
                    true,
                )
            }
            Decision::Shorter { end } => self.stop(
                format!(
                    "the broker has offsets up to {} only, and {at}@{} is stored: the topic was truncated or made anew (create a source of another name for what is there now)",
                    end - 1,
                    stored.offset
                ),
                true,
            ),
            Decision::SkipAhead { to, end } => self.stop(format!("the offset to go on at is {to}, and the broker has offsets up to {} only", end - 1), true),
        }
        Ok(())
    }

    /// Tells the leaf that the partition begins after what is there, so that a restart begins there too.
    async fn advance(&self, through: i64) -> Result<(), String> {
        match self.job.leaf.write(self.batch(-1, through, Vec::new())).await {
            Ok(Verdict::Applied { .. } | Verdict::Already { .. } | Verdict::Gap { .. }) => Ok(()),
            Ok(Verdict::Busy { reason }) => Err(reason),
            Ok(Verdict::Refused { reason }) => {
                self.stop(reason, false);
                Ok(())
            }
            Err(problem) => Err(problem.to_string()),
        }
    }

    /// Has the leaf remember what is gone, before anything goes on or says so.
    async fn note_loss(&self, from: i64, through: i64, reason: &str) -> Result<(), String> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let loss = Loss {
            source: self.job.source.clone(),
            partition: self.cell.number,
            from,
            through,
            noticed_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            reason: reason.to_owned(),
        };
        self.job
            .leaf
            .note_loss(self.shard(), loss)
            .await
            .map_err(|problem| problem.to_string())
    }

    fn stop(&self, why: String, again: bool) {
        let mut partition = self.cell.partition.lock();
        if partition.error() != Some(&why) {
            warn!(source = %self.job.source, partition = self.cell.number, why, "the partition is stopped");
        }
        partition.stop(why, again);
    }

    async fn stored(&self) -> Result<Stored, String> {
        self.job
            .leaf
            .stored(self.shard(), &self.job.source, self.cell.number)
            .await
            .map_err(|problem| problem.to_string())
    }

    async fn check_dead(&self) {
        if self.stored().await.is_ok_and(|stored| stored.dead) {
            self.stop_dead();
        }
    }

    /// Looks again from time to time: somebody may clear the dead letters, or they may become too old to be kept.
    fn stop_dead(&self) {
        let (collection, source) = (&self.job.collection, &self.job.source);
        self.stop(
            format!(
                "so many records cannot become documents that nothing more is read: look at rachis.dead_letters (if they are text, create a source with \
                 \"format\": \"text\"; to go on without them: DELETE /v1/collections/{collection}/dead-letters?source={source})"
            ),
            true,
        );
    }

    /// The first offset that the broker has, and the one after the last. Makes sure that the cluster's identity is
    /// known.
    async fn watermarks(&self) -> Result<(i64, i64), String> {
        let (consumer, job, partition) = (self.consumer.clone(), self.job.clone(), self.cell.number);
        let ask = move || {
            // Held here only: who closes the consumer waits for nobody else's hold.
            let consumer = consumer.upgrade().ok_or("the source stops")?;
            if !job.knows_cluster() {
                match consumer.client().fetch_cluster_id(BROKER_ANSWER) {
                    Some(cluster) => job.set_cluster(cluster),
                    None => {
                        return Err(explain(
                            rdkafka::types::RDKafkaErrorCode::OperationTimedOut,
                            "the cluster does not say its id",
                        ));
                    }
                }
            }
            consumer
                .fetch_watermarks(&job.settings.topic, partition, BROKER_ANSWER)
                .map_err(|error| {
                    let code = error
                        .rdkafka_error_code()
                        .unwrap_or(rdkafka::types::RDKafkaErrorCode::Unknown);
                    explain(code, &format!("the broker does not tell its offsets: {code}"))
                })
        };
        tokio::task::spawn_blocking(ask)
            .await
            .map_err(|error| error.to_string())?
    }
}

/// Whether the leaf will never take it.
fn is_final(problem: &Problem) -> bool {
    !proto::ingest::is_transient(problem) && problem.code != Code::Internal
}
