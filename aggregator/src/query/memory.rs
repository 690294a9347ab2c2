//! The memory budget of one query.
//!
//! Operators that can spill do so when a reservation is refused. Repartitioning is never refused: under a memory limit it hangs for ever
//! when two of its inputs spill (apache/datafusion#24883, in 55.2). What it takes is counted all the same, and the others give way.

use std::fmt;

use datafusion::{
    error::Result,
    execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation},
};

/// A pool for one query.
#[derive(Debug)]
pub(super) struct QueryPool {
    bytes_max: usize,
    pool: GreedyMemoryPool,
}

impl QueryPool {
    /// A pool of this size.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, pool: GreedyMemoryPool::new(bytes_max) }
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query({} of {} bytes)", self.pool.reserved(), self.bytes_max)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if reservation.consumer().name().starts_with("RepartitionExec") {
            self.pool.grow(reservation, additional);
            return Ok(());
        }
        self.pool.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn repartitioning_is_never_refused_but_counted() {
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(100));
        let repartition = MemoryConsumer::new("RepartitionExec[0]").register(&pool);
        let sort = MemoryConsumer::new("ExternalSorter[0]").register(&pool);
        assert!(sort.try_grow(60).is_ok());
        assert!(repartition.try_grow(60).is_ok());
        assert_eq!(pool.reserved(), 120);
        assert!(sort.try_grow(1).is_err(), "others give way");
        drop(repartition);
        assert!(sort.try_grow(40).is_ok());
    }
}
