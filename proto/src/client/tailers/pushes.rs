//! Pushes and changes of documents through their logs: a tailer appends them, and the answer follows when the leaf has
//! ingested them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{super::was_not_sent, Tailers, no_tailer};
use crate::{
    address::{Position, SourceName},
    catalog::{Catalog, CollectionUid},
    ingest::{Ingest, Push, PushResult, Pushes, ShardId},
    limits::WRITE_MESSAGE_BYTES_MAX,
    problem::{Code, Problem},
    record::RequestKey,
    status::SourceState,
    tailer::SourceAdmin as _,
    wire::tailer::{self as wire, pushes_client::PushesClient},
};

/// How long one tailer may take to append a push to the log.
const APPEND_WAIT: Duration = Duration::from_secs(10);
/// How long a push is retried while it is certain that nothing of it is in the log.
const NOT_APPENDED_WAIT: Duration = Duration::from_secs(5);
/// How long a push that is in the log waits for a leaf that does not answer.
const LEAF_UNAVAILABLE_WAIT: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often a waiting push checks whether its partition has stopped.
const STOPPED_CHECK_EVERY: Duration = Duration::from_secs(2);
/// How soon a shard must answer to be chosen for a push.
const REACHABLE_WITHIN: Duration = Duration::from_millis(500);
/// How long the last answer about a shard or a stopped partition is reused.
const REACHABLE_FOR: Duration = Duration::from_secs(1);
/// Shards whose last answer is remembered.
const SHARDS_MAX: usize = 65_536;

/// Pushes through the log: a tailer appends, and the answer follows when the leaf has ingested the record.
pub struct LoggedPushes {
    tailers: Tailers,
    leaf: Arc<dyn Ingest>,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// Whether each shard answered the last request, and when that was.
    reachable: Mutex<HashMap<ShardId, (Instant, bool)>>,
    /// The stopped partitions, and when the tailers reported them.
    stopped: Mutex<Option<(Instant, Arc<StoppedPartitions>)>>,
    /// Held by the task that asks the tailers; the others use the last report.
    refreshing: tokio::sync::Mutex<()>,
}

/// The partitions of pushes and of changes that no tailer reads, and why.
type StoppedPartitions = BTreeMap<(CollectionUid, SourceName, i32), String>;

impl LoggedPushes {
    /// Pushes through these tailers to these leaves.
    pub fn new(tailers: Tailers, leaf: Arc<dyn Ingest>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            tailers,
            leaf,
            catalog,
            reachable: Mutex::default(),
            stopped: Mutex::default(),
            refreshing: Default::default(),
        }
    }

    /// The stopped partitions, by a recent report of the tailers.
    async fn stopped(&self) -> Arc<StoppedPartitions> {
        let last = self.stopped.lock().clone();
        if let Some((_, stopped)) = last.as_ref().filter(|(asked, _)| asked.elapsed() < REACHABLE_FOR) {
            return stopped.clone();
        }
        let last = last.map(|(_, stopped)| stopped).unwrap_or_default();
        let Ok(_refreshing) = self.refreshing.try_lock() else {
            return last;
        };
        let stopped = match self.tailers.status_within(REACHABLE_WITHIN).await {
            Ok(rows) => {
                let stopped = rows
                    .into_iter()
                    .filter(|row| row.source.is_own() && row.state == SourceState::Stopped);
                let catalog = self.catalog.borrow().clone();
                let with_reason = stopped.filter_map(|row| {
                    let uid = catalog.collections.get(&row.collection)?.uid;
                    let is_current = row.is_of(uid);
                    let partition = (uid, row.source, row.partition.filter(|_| is_current)?);
                    Some((partition, row.error.unwrap_or_default()))
                });
                Arc::new(with_reason.collect())
            }
            Err(_) => last,
        };
        *self.stopped.lock() = Some((Instant::now(), stopped.clone()));
        stopped
    }

    /// Why what is written to this partition does not become visible, if it is stopped: "the pushes of …".
    async fn why_stopped(&self, shard: ShardId, source: &SourceName, partition: i32) -> Option<String> {
        let stopped = self.stopped().await;
        let name = self.catalog.borrow().collection(shard.collection)?.0.clone();
        let what = match source.is_changes() {
            true => "changes",
            false => "pushes",
        };
        stopped
            .get(&(shard.collection, source.clone(), partition))
            .map(|why| format!("the {what} of {name}, partition {partition}, are stopped: {why}"))
    }

    /// Waits until the leaf has ingested the record of a push, and returns its result.
    async fn outcome(
        &self,
        push: &Push,
        offset: i64,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<PushResult, Problem> {
        let what = match push.source.is_changes() {
            true => "change",
            false => "push",
        };
        let not_visible = |why: &str| {
            Problem::new(
                Code::UnknownOutcome,
                format!("the {what} is in the log but not visible yet: {why}"),
            )
            .hint("it will become visible; retry with the same Idempotency-Key to get its result")
        };
        let position = Position {
            source: push.source.clone(),
            partition: push.partition,
            offset,
        };
        let mut unavailable_since = None;
        loop {
            let soon = deadline.min(Instant::now() + STOPPED_CHECK_EVERY);
            match self.leaf.pushed(push.shard, &position, request, soon).await {
                // A leaf answers busy while it opens the shard. The push is already in the log, so the caller must not
                // see this as a refusal.
                Err(problem) if matches!(problem.code, Code::Unavailable | Code::Timeout | Code::Busy) => {
                    unavailable_since =
                        (problem.code == Code::Unavailable).then(|| unavailable_since.unwrap_or_else(Instant::now));
                    let given_up =
                        unavailable_since.is_some_and(|since: Instant| since.elapsed() >= LEAF_UNAVAILABLE_WAIT);
                    if given_up || Instant::now() + RETRY_PAUSE >= deadline {
                        return Err(not_visible(&problem.detail));
                    }
                    if let Some(why) = self.why_stopped(push.shard, &push.source, push.partition).await {
                        return Err(not_visible(&why));
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                // The push is stored before any other failure too, so the error must not suggest that it is not.
                Err(problem) if !matches!(problem.code, Code::UnknownOutcome | Code::Conflict | Code::NotFound) => {
                    return Err(not_visible(&problem.detail));
                }
                result => return result,
            }
        }
    }

    /// Appends a push to the log. Returns its offset, and whether it is certain that the log has it only once.
    ///
    /// After a failure the next tailer is tried; a push that is in the log twice is applied once. While it is certain
    /// that nothing is in the log, the push is given up soon. Once that is uncertain, it is retried until the deadline.
    async fn append(&self, push: &Push, request: &RequestKey, deadline: Instant) -> Result<(i64, bool), Problem> {
        let message = wire::AppendRequest {
            collection: bytes::Bytes::copy_from_slice(push.shard.collection.0.as_bytes()),
            partition: push.partition,
            request: Some(request.clone().into()),
            time_ms: push.time_ms,
            items: push.items.clone(),
        };
        let mut maybe_appended = false;
        let not_appended_until = deadline.min(Instant::now() + NOT_APPENDED_WAIT);
        loop {
            let mut last = None;
            for peer in self.tailers.round_robin() {
                let wait = APPEND_WAIT.min(deadline.saturating_duration_since(Instant::now()));
                let mut client =
                    PushesClient::new(peer.data.clone()).max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX);
                let request = peer.request(message.clone(), wait);
                let appended = match push.source.is_changes() {
                    true => client.append_changes(request).await,
                    false => client.append(request).await,
                };
                match appended {
                    Ok(appended) => return Ok((appended.into_inner().offset, !maybe_appended)),
                    Err(status) => {
                        let (answered, unconnected) = (!status.details().is_empty(), was_not_sent(&status));
                        // A tailer of a release without changes.
                        let unknown_call = push.source.is_changes() && status.code() == tonic::Code::Unimplemented;
                        let problem = peer.problem(status);
                        let is_retried = unknown_call
                            || matches!(
                                problem.code,
                                Code::Unavailable | Code::UnknownOutcome | Code::Timeout | Code::Busy
                            );
                        if !is_retried {
                            return Err(problem);
                        }
                        // A tailer that reports the failure itself has appended nothing, and neither has one that was
                        // never reached. After any other failure the push may be in the log.
                        let refused = answered && matches!(problem.code, Code::Busy | Code::Unavailable);
                        maybe_appended |= !(unconnected || unknown_call || refused);
                        last = Some(problem);
                    }
                }
            }
            let problem = last.unwrap_or_else(no_tailer);
            let (until, error) = match maybe_appended {
                true => (deadline, unknown_outcome(&problem)),
                false => (not_appended_until, not_appended(problem)),
            };
            if Instant::now() + RETRY_PAUSE >= until {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Whether a shard answered its last request, if that was recent.
    fn recently_reachable(&self, shard: ShardId) -> Option<bool> {
        let last = self.reachable.lock().get(&shard).copied();
        last.filter(|(asked, _)| asked.elapsed() < REACHABLE_FOR)
            .map(|(_, reachable)| reachable)
    }

    fn set_reachable(&self, shard: ShardId, reachable: bool) {
        let mut by_shard = self.reachable.lock();
        if by_shard.len() >= SHARDS_MAX {
            by_shard.clear();
        }
        by_shard.insert(shard, (Instant::now(), reachable));
    }
}

fn not_appended(problem: Problem) -> Problem {
    match problem.code {
        Code::Unavailable => problem.hint("nothing of this request was stored: retry later"),
        _ => problem,
    }
}

fn partition_stopped(source: &SourceName, why: String) -> Problem {
    Problem::new(Code::Unavailable, why).hint(match source.is_changes() {
        true => "nothing of this request was stored: mend the cause, see rachis.sources",
        false => "other partitions still work: a push without a key and without ids goes to one of them",
    })
}

fn unknown_outcome(problem: &Problem) -> Problem {
    Problem::new(
        Code::UnknownOutcome,
        format!("it is unknown whether the push was stored: {}", problem.detail),
    )
    .hint("retry with the same Idempotency-Key: the push is applied only once")
}

#[async_trait]
impl Pushes for LoggedPushes {
    async fn push(&self, push: Push, deadline: Instant) -> Result<PushResult, Problem> {
        // Every push has a key, so that it can be appended again after a failure, and looked up.
        let request = push.request.clone().unwrap_or_else(|| RequestKey {
            key: uuid::Uuid::now_v7().simple().to_string(),
            body: 0,
        });
        if let Some(why) = self.why_stopped(push.shard, &push.source, push.partition).await {
            return Err(partition_stopped(&push.source, why));
        }
        let (offset, appended_once) = self.append(&push, &request, deadline).await?;
        let pushed = self.outcome(&push, offset, &request, deadline).await?;
        // A duplicate that this very call may have appended does not count as a repetition of an earlier request. Neither
        // does one by the tailer's Kafka client, which sends a record again if the broker dies before it answers: only
        // for a push without a key that is certain.
        let has_key = push.request.is_some();
        Ok(PushResult {
            repeated: has_key && appended_once && pushed.position.offset != offset,
            ..pushed
        })
    }

    async fn ready(&self, shard: ShardId, partition: i32, deadline: Instant) -> Result<(), Problem> {
        if let Some(why) = self.why_stopped(shard, &SourceName::push(), partition).await {
            return Err(partition_stopped(&SourceName::push(), why));
        }
        if self.recently_reachable(shard) == Some(true) {
            return Ok(());
        }
        let source = SourceName::push();
        let holder = self
            .catalog
            .borrow()
            .collection(shard.collection)
            .and_then(|(_, collection)| collection.serving(shard.number).next().cloned());
        let holder = holder.map_or_else(
            || format!("the leaf of shard {}", shard.number),
            |leaf| leaf.to_string(),
        );
        let mut last = Problem::new(Code::Unavailable, format!("{holder} does not respond"));
        loop {
            let stored = self.leaf.stored(shard, &source, partition);
            let stored = tokio::time::timeout_at(deadline.into(), stored).await;
            match stored.map(|stored| stored.and_then(|stored| stored.unless_awaiting_copy(shard))) {
                Ok(Err(problem)) if problem.code == Code::Unavailable => last = problem,
                // The push itself reports any other error.
                Ok(_) => {
                    self.set_reachable(shard, true);
                    return Ok(());
                }
                Err(_) => {}
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                self.set_reachable(shard, false);
                return Err(not_appended(last));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn reachable(&self, shard: ShardId, partition: i32) -> bool {
        if self.why_stopped(shard, &SourceName::push(), partition).await.is_some() {
            return false;
        }
        if let Some(reachable) = self.recently_reachable(shard) {
            return reachable;
        }
        let source = SourceName::push();
        let answer = tokio::time::timeout(REACHABLE_WITHIN, self.leaf.stored(shard, &source, 0)).await;
        let reachable = matches!(answer, Ok(Ok(stored)) if !stored.awaits_copy);
        self.set_reachable(shard, reachable);
        reachable
    }
}

#[cfg(test)]
mod tests;
