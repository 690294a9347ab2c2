//! Memory budget: limits the total size of tails and micro-splits, the data of all shards of a leaf that is in no split
//! on disk yet. Above the limit the leaf responds busy, and the largest shards are written to disk first
//! (`leaf/memory.rs`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

/// One part in this many of the budget is reserved for small shards …
const RESERVE_PART: usize = 4;
/// … which are those that use at most one part in this many.
const SMALL_SHARD_PART: usize = 64;

/// The memory budget of a leaf.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Notified when bytes are released.
    freed: watch::Sender<()>,
}

impl MemoryBudget {
    /// A budget of `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            freed: watch::Sender::new(()),
        })
    }

    /// A receiver that is notified when bytes are released.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The limit.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether a shard that has reserved `own` bytes must not reserve `more`.
    pub(crate) fn is_full(&self, own: usize, more: usize) -> bool {
        let small = own + more <= self.bytes_max / SMALL_SHARD_PART;
        let max = if small {
            self.bytes_max
        } else {
            self.bytes_max - self.bytes_max / RESERVE_PART
        };
        self.bytes().saturating_add(more) > max
    }
}

/// The part of the budget that one shard uses; released on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// An empty reservation.
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Sets the reservation to `bytes`, without checking the limit.
    pub(crate) fn update(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes >= before {
            self.budget.bytes.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.budget.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            self.budget.freed.send_modify(|()| ());
        }
    }

    /// Bytes reserved.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.update(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_shards_may_use_the_reserve_and_large_ones_may_not() {
        let budget = MemoryBudget::new(6_400);
        let mut large = Reservation::new(budget.clone());
        assert!(!budget.is_full(0, 4_800) && budget.is_full(0, 4_801));
        large.update(4_800);
        assert!(budget.is_full(large.bytes(), 1));
        let mut small: Vec<Reservation> = Vec::new();
        while !budget.is_full(0, 100) {
            small.push(Reservation::new(budget.clone()));
            small.last_mut().expect("one").update(100);
        }
        assert_eq!(
            (small.len(), budget.bytes()),
            (16, 6_400),
            "the whole budget, and no more"
        );
        large.update(0);
        drop(small);
        assert_eq!(budget.bytes(), 0);
    }
}
