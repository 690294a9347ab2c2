//! Budget: what all shards of a leaf hold in memory together because no split on disk has it yet, which is tails and
//! micro-splits. Above it the leaf answers busy, and the largest holders go to disk first (`leaf/memory.rs`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

/// One part in so many of the budget is for shards that hold little: those that hold much leave it to them …
const RESERVE_PART: usize = 4;
/// … and less than one part in so many is little.
const LITTLE_PART: usize = 64;

/// Bytes in memory, of all shards.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Changes when bytes are given back.
    freed: watch::Sender<()>,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            freed: watch::Sender::new(()),
        })
    }

    /// Wakes who waits for room.
    pub fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that may be in use.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether a shard that holds `own` bytes must not take `more`.
    pub fn is_full(&self, own: usize, more: usize) -> bool {
        let little = own + more <= self.bytes_max / LITTLE_PART;
        let max = if little {
            self.bytes_max
        } else {
            self.bytes_max - self.bytes_max / RESERVE_PART
        };
        self.bytes().saturating_add(more) > max
    }
}

/// What one shard has of the budget; given back with it.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Nothing yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// So many bytes by now.
    pub fn update(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes >= before {
            self.budget.bytes.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.budget.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            self.budget.freed.send_modify(|()| ());
        }
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.update(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_little_is_let_in_when_who_holds_much_is_not() {
        let budget = Budget::new(6_400);
        let mut much = Held::new(budget.clone());
        assert!(!budget.is_full(0, 4_800) && budget.is_full(0, 4_801));
        much.update(4_800);
        assert!(budget.is_full(much.bytes(), 1));
        let mut little: Vec<Held> = Vec::new();
        while !budget.is_full(0, 100) {
            little.push(Held::new(budget.clone()));
            little.last_mut().expect("one").update(100);
        }
        assert_eq!((little.len(), budget.bytes()), (16, 6_400), "all of it, and no more");
        much.update(0);
        drop(little);
        assert_eq!(budget.bytes(), 0);
    }
}
