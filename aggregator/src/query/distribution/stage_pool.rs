//! Bounds the rows that wait at the end of a stage for slower aggregators.
//!
//! DataFusion's repartition reads on for as long as one of its readers has nothing to read, whatever waits for the others.
//! So the stage itself pauses.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    error::Result,
    execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation},
};
use tokio::sync::Notify;

/// The most bytes that wait at the end of a stage …
const WAITING_BYTES_MAX: usize = 64 << 20;
/// … and the part of a query's memory that they may take.
const WAITING_PART: usize = 8;

/// The memory pool of a query as one of its stages sees it: it counts what waits in the repartition at the end of the stage.
#[derive(Debug)]
pub(super) struct StagePool {
    query: Arc<dyn MemoryPool>,
    waiting: Arc<Waiting>,
}

/// What waits at the end of a stage.
#[derive(Debug)]
pub(super) struct Waiting {
    bytes: AtomicUsize,
    bytes_max: usize,
    less: Notify,
}

impl Waiting {
    /// Returns when little enough waits.
    pub(super) async fn has_room(&self) {
        loop {
            // It notices what happens from here on.
            let less = self.less.notified();
            if self.bytes.load(Ordering::Acquire) < self.bytes_max {
                return;
            }
            less.await;
        }
    }
}

impl StagePool {
    pub(super) fn new(query: Arc<dyn MemoryPool>) -> Self {
        let bytes_max = match query.memory_limit() {
            MemoryLimit::Finite(bytes) => WAITING_BYTES_MAX.min(bytes / WAITING_PART),
            _ => WAITING_BYTES_MAX,
        };
        let waiting = Arc::new(Waiting {
            bytes: AtomicUsize::new(0),
            bytes_max,
            less: Notify::new(),
        });
        Self { query, waiting }
    }

    pub(super) fn waiting(&self) -> Arc<Waiting> {
        Arc::clone(&self.waiting)
    }

    fn count(&self, reservation: &MemoryReservation, bytes: usize) {
        if is_of_repartition(reservation) {
            self.waiting.bytes.fetch_add(bytes, Ordering::AcqRel);
        }
    }
}

fn is_of_repartition(reservation: &MemoryReservation) -> bool {
    reservation.consumer().name().starts_with("RepartitionExec")
}

impl fmt::Display for StagePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage of {}", self.query)
    }
}

impl MemoryPool for StagePool {
    fn name(&self) -> &str {
        "stage"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.query.grow(reservation, additional);
        self.count(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.query.shrink(reservation, shrink);
        if is_of_repartition(reservation) {
            self.waiting.bytes.fetch_sub(shrink, Ordering::AcqRel);
            self.waiting.less.notify_waiters();
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.query.try_grow(reservation, additional)?;
        self.count(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.query.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.query.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer};
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_stage_pauses_while_an_eighth_of_the_memory_waits_at_its_end() {
        let stage = StagePool::new(Arc::new(GreedyMemoryPool::new(800)));
        let waiting = stage.waiting();
        let pool: Arc<dyn MemoryPool> = Arc::new(stage);
        let sort = MemoryConsumer::new("ExternalSorter[0]").register(&pool);
        sort.grow(200);
        assert!(
            waiting.has_room().now_or_never().is_some(),
            "only what waits is counted"
        );
        let end = MemoryConsumer::new("RepartitionExec[0]").register(&pool);
        end.try_grow(99).expect("memory");
        assert!(waiting.has_room().now_or_never().is_some());
        end.try_grow(1).expect("memory");
        let mut pausing = Box::pin(waiting.has_room());
        assert!(pausing.as_mut().now_or_never().is_none());
        end.shrink(1);
        assert!(pausing.now_or_never().is_some());
    }
}
