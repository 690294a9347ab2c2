//! Requests to a shard: batches and pushes for its writer, and waiting for positions and read views.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    Code, PositionVector, Problem,
    ingest::{Backpressure, Batch, BatchOutcome, Push, PushResult},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    job::{Job, QUEUE_JOBS_MAX, busy},
    open_shard::Shard,
    scheduler::Task,
    state::FreshView,
};
use crate::store::Partition;

/// How long a push waits for room before it fails as busy.
const PUSH_WAIT: Duration = Duration::from_secs(10);

impl Shard {
    /// Sends a batch to the writer, at once, and returns the outcome to wait for.
    pub(crate) fn submit_batch(
        self: &Arc<Self>,
        batch: Batch,
    ) -> impl Future<Output = Result<BatchOutcome, Problem>> + Send + use<> {
        let (to, outcome) = oneshot::channel();
        let sent = self.queue.try_send(Job::Write(batch, to));
        if sent.is_ok() {
            self.services.writers.enqueue(self);
        }
        let shard = self.clone();
        async move {
            match sent {
                Ok(()) => outcome.await.map_err(|_| shard.closed()),
                Err(mpsc::error::TrySendError::Full(_)) => Ok(BatchOutcome::Busy(Backpressure::passing(queue_full()))),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(shard.closed()),
            }
        }
    }

    /// The position of a partition, once the writer has done all that it was sent before the call. Blocks.
    pub(crate) fn settled_position(self: &Arc<Self>, partition: &Partition) -> Result<i64, Problem> {
        self.run_job(Job::Settle)?;
        Ok(self.state.lock().row(partition).offset)
    }

    /// Sends a push to the writer and waits for the result. While the shard is busy, waits for room and tries again.
    pub(crate) async fn submit_push(self: &Arc<Self>, push: Push) -> Result<PushResult, Problem> {
        let deadline = tokio::time::Instant::now() + PUSH_WAIT;
        let (mut changed, mut freed) = (self.changed.subscribe(), self.services.budget.freed());
        loop {
            changed.borrow_and_update();
            freed.borrow_and_update();
            let (to, result) = oneshot::channel();
            let sent = tokio::time::timeout_at(deadline, self.queue.send(Job::Push(push.clone(), to))).await;
            match sent {
                Ok(Ok(())) => self.services.writers.enqueue(self),
                Ok(Err(_)) => return Err(self.closed()),
                Err(_) => return Err(busy(queue_full())),
            }
            let result = result.await.map_err(|_| self.outcome_unknown())?;
            match result {
                Err(problem) if problem.code == Code::Busy => {
                    let room = async {
                        tokio::select! { changed = changed.changed() => changed, freed = freed.changed() => freed }
                    };
                    if !matches!(tokio::time::timeout_at(deadline, room).await, Ok(Ok(()))) {
                        return Err(problem);
                    }
                }
                result => return result,
            }
        }
    }

    /// Has the writer do a job, and blocks until it is done.
    pub(super) fn run_job(
        self: &Arc<Self>,
        job: impl FnOnce(oneshot::Sender<Result<(), Problem>>) -> Job,
    ) -> Result<(), Problem> {
        let (to, done) = oneshot::channel();
        self.queue.blocking_send(job(to)).map_err(|_| self.closed())?;
        self.services.writers.enqueue(self);
        done.blocking_recv().map_err(|_| self.closed())?
    }

    /// Waits until everything through these positions is ingested. Every query that begins afterwards sees it.
    pub(crate) async fn wait_for_positions(&self, at_least: &PositionVector, deadline: Instant) -> Result<(), Problem> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(reason) = self.failure() {
                return Err(self.reopening(reason));
            }
            if self.state.lock().positions().covers(at_least) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline.into(), changed.changed())
                .await
                .is_err()
            {
                return Err(self.deadline_passed(at_least));
            }
        }
    }

    /// A read view that contains everything acknowledged before the call and everything through `at_least`.
    pub(crate) async fn fresh_view(
        self: &Arc<Self>,
        at_least: &PositionVector,
        deadline: Instant,
    ) -> Result<Arc<FreshView>, Problem> {
        let mut changed = self.changed.subscribe();
        let wanted = self.state.lock().sequence;
        loop {
            changed.borrow_and_update();
            if let Some(reason) = self.failure() {
                return Err(self.reopening(reason));
            }
            if let Some(fresh_view) = self.fresh_view_if_ready(wanted, at_least) {
                return Ok(fresh_view);
            }
            let waited = tokio::time::timeout_at(deadline.into(), changed.changed()).await;
            if waited.is_err() {
                return Err(self.deadline_passed(at_least));
            }
        }
    }

    /// The read view, if its tail is short enough to be scanned, or indexed. Has a longer tail indexed.
    fn fresh_view_if_ready(self: &Arc<Self>, wanted: u64, at_least: &PositionVector) -> Option<Arc<FreshView>> {
        let mut state = self.state.lock();
        if !state.positions().covers(at_least) {
            return None;
        }
        let (documents, bytes) = (state.tail.documents(), state.tail.bytes());
        let is_short = documents <= self.options.scan_tail_documents_max && bytes <= self.options.scan_tail_bytes_max;
        let ready = match is_short || state.unindexable {
            true => Some(state.fresh_view()),
            false => state
                .last_indexed()
                .filter(|fresh| fresh.sequence >= wanted && fresh.view.positions.covers(at_least)),
        };
        // What failed is tried again by itself, after a while.
        if ready.is_none() || (documents > self.options.index_tail_documents && !state.unindexable) {
            let pause = state.built_at.map_or(Duration::ZERO, |at| {
                self.options.publish_pause.saturating_sub(at.elapsed())
            });
            drop(state);
            self.scheduler.schedule(Task::IndexTail, self, Instant::now() + pause);
        }
        ready
    }

    fn reopening(&self, reason: &str) -> Problem {
        Problem::new(
            Code::Unavailable,
            format!("shard {} is being reopened: {reason}", self.id),
        )
        .hint("retry in a moment")
    }

    fn deadline_passed(&self, at_least: &PositionVector) -> Problem {
        let positions = self.state.lock().positions();
        if positions.covers(at_least) {
            return Problem::new(
                Code::Timeout,
                format!(
                    "shard {} could not index the newest documents before the deadline",
                    self.id
                ),
            )
            .hint("raise timeout_ms");
        }
        Problem::new(
            Code::Timeout,
            format!(
                "shard {} has not ingested {}",
                self.id,
                positions.describe_missing(at_least)
            ),
        )
        .hint("check in rachis.sources whether the source is behind or stopped, or raise timeout_ms")
    }

    pub(super) fn closed(&self) -> Problem {
        Problem::new(Code::Unavailable, format!("shard {} is closed", self.id)).hint("retry in a moment")
    }

    fn outcome_unknown(&self) -> Problem {
        Problem::new(
            Code::UnknownOutcome,
            format!("shard {} closed before it responded", self.id),
        )
        .hint("retry with the same Idempotency-Key")
    }
}

fn queue_full() -> String {
    format!("{QUEUE_JOBS_MAX} batches and pushes are waiting for the writer")
}
