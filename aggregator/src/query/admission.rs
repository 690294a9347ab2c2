//! Admission control: at most `queries_max` queries run at once and at most `queue_max` more wait. Any further query is
//! refused as busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use proto::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Queries that may wait for a slow reader of their answer without occupying a slot. Beyond that, a query keeps its
/// slot while it waits.
const SLOW_READERS_MAX: usize = 64;

/// The gate in front of the query runtime.
pub(super) struct Admission {
    running: Arc<Semaphore>,
    slow_readers: Arc<Semaphore>,
    waiting: AtomicUsize,
    queries_max: usize,
    queue_max: usize,
}

/// A slot among the running queries, released on drop.
pub(super) struct QuerySlot {
    permit: OwnedSemaphorePermit,
    running: Arc<Semaphore>,
    slow_readers: Arc<Semaphore>,
}

impl QuerySlot {
    /// Frees the slot for another query while this one waits for its reader. Returns whether it did.
    pub(super) fn release_while_reading(&mut self) -> bool {
        self.switch_to(Arc::clone(&self.slow_readers))
    }

    /// Takes a slot again if one is free; otherwise the query continues without one.
    pub(super) fn reacquire(&mut self) {
        let _or_without = self.switch_to(Arc::clone(&self.running));
    }

    fn switch_to(&mut self, semaphore: Arc<Semaphore>) -> bool {
        if Arc::ptr_eq(self.permit.semaphore(), &semaphore) {
            return true;
        }
        let permit = semaphore.try_acquire_owned();
        permit.map(|permit| self.permit = permit).is_ok()
    }
}

impl Admission {
    /// A gate for `queries_max` running queries, at least one, and `queue_max` waiting ones.
    pub(super) fn new(queries_max: usize, queue_max: usize) -> Self {
        let queries_max = queries_max.max(1);
        Self {
            running: Arc::new(Semaphore::new(queries_max)),
            slow_readers: Arc::new(Semaphore::new(SLOW_READERS_MAX)),
            waiting: AtomicUsize::new(0),
            queries_max,
            queue_max,
        }
    }

    /// Waits for a slot until the deadline. Fails with `Busy` if the queue is full or no slot became free in time.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<QuerySlot, Problem> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(self.slot(permit));
        }
        let _queued = self.enqueue()?;
        let permit = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.running).acquire_owned());
        match permit.await {
            Ok(Ok(permit)) => Ok(self.slot(permit)),
            _ => Err(self.busy("none of them finished before this query's deadline")),
        }
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> QuerySlot {
        QuerySlot {
            permit,
            running: Arc::clone(&self.running),
            slow_readers: Arc::clone(&self.slow_readers),
        }
    }

    fn enqueue(&self) -> Result<QueueGuard<'_>, Problem> {
        let guard = QueueGuard(&self.waiting);
        match self.waiting.fetch_add(1, Ordering::SeqCst) < self.queue_max {
            true => {
                metrics::counter!("rachis_queries_queued_total").increment(1);
                Ok(guard)
            }
            false => Err(self.busy(&format!("the queue is full ({})", self.queue_max))),
        }
    }

    fn busy(&self, why: &str) -> Problem {
        metrics::counter!("rachis_queries_total", "outcome" => Code::Busy.as_str()).increment(1);
        Problem::new(Code::Busy, format!("{} queries are running; {why}", self.queries_max))
            .hint("retry later, or run fewer queries at once")
    }
}

/// Counts a query in `waiting` for as long as it lives.
struct QueueGuard<'a>(&'a AtomicUsize);

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_dropped_slot_is_free_again() {
        let gate = Arc::new(Admission::new(1, 1));
        let soon = || Instant::now() + Duration::from_secs(30);
        let first = gate.enter(soon()).await.expect("the first enters");
        let waiter = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(soon()).await.map(drop) }
        });
        while gate.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            gate.enter(soon()).await.map(drop).map_err(|p| p.code),
            Err(Code::Busy),
            "the queue holds one"
        );
        drop(first);
        assert_eq!(waiter.await.expect("no panic"), Ok(()));
        assert!(gate.enter(soon()).await.is_ok());
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn at_most_64_slow_readers_release_their_slots() {
        let gate = Admission::new(1, 0);
        let mut readers = Vec::new();
        for _ in 0..SLOW_READERS_MAX {
            let mut slot = gate
                .enter(Instant::now())
                .await
                .expect("the reader before released its slot");
            assert!(slot.release_while_reading());
            assert!(slot.release_while_reading(), "releasing is idempotent");
            readers.push(slot);
        }
        let mut last = gate
            .enter(Instant::now())
            .await
            .expect("the 64th released its slot, too");
        assert!(!last.release_while_reading(), "the 65th keeps its slot");
        assert_eq!(
            gate.enter(Instant::now()).await.map(drop).map_err(|p| p.code),
            Err(Code::Busy)
        );
        // A reader that resumes while no slot is free continues without one. Another may take its place among the slow
        // readers only once it has a slot again.
        readers[0].reacquire();
        assert!(!last.release_while_reading());
        drop(last);
        readers[0].reacquire();
        assert_eq!(
            gate.enter(Instant::now()).await.map(drop).map_err(|p| p.code),
            Err(Code::Busy),
            "the only slot is taken again"
        );
        drop(readers);
        let mut next = gate.enter(Instant::now()).await.expect("everything is released");
        assert!(next.release_while_reading());
    }

    #[tokio::test]
    async fn a_query_that_waits_past_its_deadline_is_refused_as_busy() {
        let gate = Admission::new(1, 8);
        let _first = gate.enter(Instant::now()).await.expect("the first enters");
        assert_eq!(
            gate.enter(Instant::now()).await.map(drop).map_err(|p| p.code),
            Err(Code::Busy)
        );
    }
}
