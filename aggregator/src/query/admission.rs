//! Who may run: at most `queries_max` at once; at most `queue_max` wait for them; who comes then is told to come later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use proto::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Queries that wait for a slow reader of their answer without a place among those that run; further ones keep theirs.
const READERS_MAX: usize = 64;

/// The gate in front of the query runtime.
pub(super) struct Admission {
    running: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    waiting: AtomicUsize,
    queries_max: usize,
    queue_max: usize,
}

/// A place among the running queries, given back when dropped.
pub(super) struct Ticket {
    held: OwnedSemaphorePermit,
    running: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

impl Ticket {
    /// Gives the place to another query, for this one waits until its answer is read; whether it did.
    pub fn gives_way(&mut self) -> bool {
        self.change(Arc::clone(&self.readers))
    }

    /// Takes a place again, if there is one; else it goes on without.
    pub fn goes_on(&mut self) {
        let _or_without = self.change(Arc::clone(&self.running));
    }

    fn change(&mut self, to: Arc<Semaphore>) -> bool {
        if Arc::ptr_eq(self.held.semaphore(), &to) {
            return true;
        }
        let permit = to.try_acquire_owned();
        permit.map(|permit| self.held = permit).is_ok()
    }
}

impl Admission {
    /// A gate of this width.
    pub fn new(queries_max: usize, queue_max: usize) -> Self {
        let queries_max = queries_max.max(1);
        Self {
            running: Arc::new(Semaphore::new(queries_max)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            waiting: AtomicUsize::new(0),
            queries_max,
            queue_max,
        }
    }

    /// Waits for a place until the deadline. `Busy` where the queue is full or nothing became free in time.
    pub async fn enter(&self, deadline: Instant) -> Result<Ticket, Problem> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(self.ticket(permit));
        }
        let _place = self.queue()?;
        let permit = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.running).acquire_owned());
        match permit.await {
            Ok(Ok(permit)) => Ok(self.ticket(permit)),
            _ => Err(self.busy("no query ended before the deadline of this one")),
        }
    }

    fn ticket(&self, held: OwnedSemaphorePermit) -> Ticket {
        Ticket {
            held,
            running: Arc::clone(&self.running),
            readers: Arc::clone(&self.readers),
        }
    }

    fn queue(&self) -> Result<Waiting<'_>, Problem> {
        let place = Waiting(&self.waiting);
        match self.waiting.fetch_add(1, Ordering::SeqCst) < self.queue_max {
            true => {
                metrics::counter!("rachis_queries_queued_total").increment(1);
                Ok(place)
            }
            false => Err(self.busy(&format!("{} wait already", self.queue_max))),
        }
    }

    fn busy(&self, why: &str) -> Problem {
        metrics::counter!("rachis_queries_total", "outcome" => Code::Busy.word()).increment(1);
        Problem::new(Code::Busy, format!("{} queries are running; {why}", self.queries_max))
            .hint("try again later, or ask less at once")
    }
}

/// Counted in `waiting` for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_place_is_given_back() {
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
    async fn at_most_64_slow_readers_make_room_for_other_queries() {
        let gate = Admission::new(1, 0);
        let mut readers = Vec::new();
        for _ in 0..READERS_MAX {
            let mut ticket = gate
                .enter(Instant::now())
                .await
                .expect("the reader before gave its place");
            assert!(ticket.gives_way());
            assert!(ticket.gives_way(), "giving way twice is giving way once");
            readers.push(ticket);
        }
        let mut last = gate.enter(Instant::now()).await.expect("the 64th gave its place, too");
        assert!(!last.gives_way(), "the 65th keeps its place");
        assert_eq!(
            gate.enter(Instant::now()).await.map(drop).map_err(|p| p.code),
            Err(Code::Busy)
        );
        // A reader that goes on while no place is free goes on without one, and another may wait in its stead when it
        // has one again.
        readers[0].goes_on();
        assert!(!last.gives_way());
        drop(last);
        readers[0].goes_on();
        assert_eq!(
            gate.enter(Instant::now()).await.map(drop).map_err(|p| p.code),
            Err(Code::Busy),
            "the only place is taken again"
        );
        drop(readers);
        let mut next = gate.enter(Instant::now()).await.expect("all is given back");
        assert!(next.gives_way());
    }

    #[tokio::test]
    async fn who_waits_beyond_the_deadline_is_told_busy() {
        let gate = Admission::new(1, 8);
        let _first = gate.enter(Instant::now()).await.expect("the first enters");
        assert_eq!(
            gate.enter(Instant::now()).await.map(drop).map_err(|p| p.code),
            Err(Code::Busy)
        );
    }
}
