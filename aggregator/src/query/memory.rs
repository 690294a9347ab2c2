//! The memory limits of each query and of all queries of a node together.
//!
//! Operators that can spill do so when a reservation is refused. Repartitioning is never refused: under a memory limit
//! it hangs forever if two of its inputs spill (apache/datafusion#24883, in 55.2). Its memory is counted all the same,
//! so other operators spill earlier. The query fails at twice its limit, or above its limit when the node is at its own.
//!
//! One query can thus take all memory of the node for a moment. A small query runs even then: the node never refuses
//! the first [`SMALL_QUERY_BYTES`] of a query.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use datafusion::{
    error::{DataFusionError, Result},
    execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation},
};
use proto::{Code, Problem};

use super::context::QueryContext;
use crate::failure::NODE_LIMIT_MARKER;

/// What every query gets, however much the others have taken. Times the queries that run at once, it is little.
const SMALL_QUERY_BYTES: usize = 1 << 20;

/// The pool that all queries of a node share.
pub(super) type NodeMemoryPool = Arc<GreedyMemoryPool>;

/// The memory pool of one query.
#[derive(Debug)]
pub(super) struct QueryPool {
    bytes_max: usize,
    pool: GreedyMemoryPool,
    node: NodeMemoryPool,
    context: Weak<QueryContext>,
    node_bytes: metrics::Gauge,
}

impl QueryPool {
    /// Creates a pool of this size within the pool of the node.
    pub(super) fn new(bytes_max: usize, node: NodeMemoryPool, context: Weak<QueryContext>) -> Self {
        Self {
            bytes_max,
            pool: GreedyMemoryPool::new(bytes_max),
            node,
            context,
            node_bytes: metrics::gauge!("rachis_queries_memory_bytes"),
        }
    }

    /// Whether the query has reserved more than twice its limit, or more than its limit on a node that is full.
    fn is_far_above_limit(&self) -> bool {
        let reserved = self.pool.reserved();
        let is_node_full =
            matches!(self.node.memory_limit(), MemoryLimit::Finite(bytes_max) if self.node.reserved() >= bytes_max);
        reserved > self.bytes_max.saturating_mul(2) || is_node_full && reserved > self.bytes_max
    }

    /// Tells the query what it has reserved.
    fn record(&self) {
        if let Some(context) = self.context.upgrade() {
            context.memory.record(self.pool.reserved());
        }
    }

    fn end_far_above_limit(&self) {
        if self.is_far_above_limit()
            && let Some(context) = self.context.upgrade()
        {
            let detail = format!(
                "the query needs more memory to repartition its rows than its limit of {} bytes",
                self.bytes_max
            );
            context.end(
                Problem::new(Code::LimitReached, detail).hint("add a condition or a LIMIT, or group by fewer values"),
            );
        }
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
        self.node.grow(reservation, additional);
        self.node_bytes.increment(additional as f64);
        self.record();
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
        self.node.shrink(reservation, shrink);
        self.node_bytes.decrement(shrink as f64);
        self.record();
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if reservation.consumer().name().starts_with("RepartitionExec") {
            self.grow(reservation, additional);
            self.end_far_above_limit();
            return Ok(());
        }
        self.pool.try_grow(reservation, additional)?;
        if self.pool.reserved() <= SMALL_QUERY_BYTES {
            self.node.grow(reservation, additional);
        } else if self.node.try_grow(reservation, additional).is_err() {
            self.pool.shrink(reservation, additional);
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{NODE_LIMIT_MARKER}: {additional} bytes more for {}",
                reservation.consumer().name()
            )));
        }
        self.node_bytes.increment(additional as f64);
        self.record();
        Ok(())
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
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn repartitioning_is_counted_but_never_refused() {
        let pool: Arc<dyn MemoryPool> =
            Arc::new(QueryPool::new(100, Arc::new(GreedyMemoryPool::new(1_000)), Weak::new()));
        let repartition = MemoryConsumer::new("RepartitionExec[0]").register(&pool);
        let sort = MemoryConsumer::new("ExternalSorter[0]").register(&pool);
        assert!(sort.try_grow(60).is_ok());
        assert!(repartition.try_grow(60).is_ok());
        assert_eq!(pool.reserved(), 120);
        assert!(sort.try_grow(1).is_err(), "other operators are refused");
        drop(repartition);
        assert!(sort.try_grow(40).is_ok());
    }

    #[test]
    fn repartitioning_far_above_the_limit_ends_the_query_earlier_on_a_full_node() {
        let node = Arc::new(GreedyMemoryPool::new(250));
        let query = || Arc::new(QueryPool::new(100, Arc::clone(&node), Weak::new()));
        let (large, other) = (query(), query());
        let pool = |query: &Arc<QueryPool>| -> Arc<dyn MemoryPool> { Arc::clone(query) as _ };
        let repartition = MemoryConsumer::new("RepartitionExec[0]").register(&pool(&large));
        let sort = MemoryConsumer::new("ExternalSorter[0]").register(&pool(&other));
        assert!(repartition.try_grow(160).is_ok());
        assert!(!large.is_far_above_limit(), "above its limit, and the node has room");
        assert!(sort.try_grow(90).is_ok());
        assert!(large.is_far_above_limit(), "the node is full");
        assert!(!other.is_far_above_limit(), "a query within its limit continues");
        drop(sort);
        assert!(repartition.try_grow(41).is_ok());
        assert!(large.is_far_above_limit(), "more than twice its limit");
    }

    #[test]
    fn queries_share_the_memory_of_their_node() {
        const MIB: usize = 1 << 20;
        let node = Arc::new(GreedyMemoryPool::new(150 * MIB));
        let pool = || -> Arc<dyn MemoryPool> { Arc::new(QueryPool::new(100 * MIB, Arc::clone(&node), Weak::new())) };
        let (one, other) = (pool(), pool());
        let (first, second) = (
            MemoryConsumer::new("a").register(&one),
            MemoryConsumer::new("b").register(&other),
        );
        assert!(first.try_grow(100 * MIB).is_ok());
        assert!(second.try_grow(60 * MIB).is_err(), "the node has 50 left");
        assert_eq!(other.reserved(), 0, "a refused reservation is not counted");
        assert!(second.try_grow(50 * MIB).is_ok());
        let small = pool();
        let third = MemoryConsumer::new("c").register(&small);
        assert!(
            third.try_grow(SMALL_QUERY_BYTES).is_ok(),
            "a small query runs on a full node"
        );
        assert!(third.try_grow(1).is_err(), "a larger one does not");
        assert_eq!(small.reserved(), SMALL_QUERY_BYTES);
        drop(first);
        assert!(second.try_grow(50 * MIB).is_ok());
    }
}
