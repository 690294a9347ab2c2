//! The memory budget of all windows of a node. A window is what a partition has read and the leaf has not acknowledged
//! yet. Each partition has a limit, and all together have one; near that, each partition gets an equal share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The windows of all partitions of a node.
#[derive(Debug)]
pub(super) struct WindowBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    partitions: AtomicUsize,
    /// Permits for the consumers that feed replicas which are behind: each has a window of its own.
    apart: Arc<Semaphore>,
    /// How many replicas wait for one.
    waiting: AtomicUsize,
}

/// Replicas that are fed apart at the same time, over all sources of a node. Others that are behind wait for their turn.
const APART_MAX: usize = 4;

impl WindowBudget {
    /// A budget of `bytes_max` for all partitions together.
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            partitions: AtomicUsize::new(0),
            apart: Arc::new(Semaphore::new(APART_MAX)),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Waits for a permit to feed a replica apart, in the order of the calls.
    pub(super) async fn feed_apart(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        self.apart.clone().acquire_owned().await.ok()
    }

    /// Whether a replica waits for such a permit.
    pub(super) fn is_feeding_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The limit of one partition, at most `own_max`.
    pub(super) fn partition_bytes_max(&self, own_max: usize) -> usize {
        // The first half goes to the first comers, the second half is shared equally, so late comers always get room.
        let half = self.bytes_max / 2;
        match self.bytes.load(Ordering::Relaxed) <= half {
            true => own_max.min(half),
            false => own_max.min(half / self.partitions.load(Ordering::Relaxed).max(1)),
        }
    }
}

/// Counts down when a wait ends, or is given up.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The windows of one source. Dropping it returns its share to the budget.
#[derive(Debug)]
pub(super) struct SourceWindows {
    budget: Arc<WindowBudget>,
    bytes: usize,
    partitions: usize,
}

impl SourceWindows {
    /// A source without partitions.
    pub(super) fn new(budget: Arc<WindowBudget>) -> Self {
        Self {
            budget,
            bytes: 0,
            partitions: 0,
        }
    }

    /// The budget that it has a share of.
    pub(super) fn budget(&self) -> Arc<WindowBudget> {
        self.budget.clone()
    }

    /// Records how many partitions the source has and how many bytes they use; returns the limit of each partition,
    /// at most `own_max`.
    pub(super) fn update(&mut self, partitions: usize, bytes: usize, own_max: usize) -> usize {
        replace(&self.budget.bytes, &mut self.bytes, bytes);
        replace(&self.budget.partitions, &mut self.partitions, partitions);
        self.budget.partition_bytes_max(own_max)
    }
}

impl Drop for SourceWindows {
    fn drop(&mut self) {
        self.update(0, 0, 0);
    }
}

/// Replaces a source's part of a sum.
fn replace(sum: &AtomicUsize, part: &mut usize, new: usize) {
    match new >= *part {
        true => sum.fetch_add(new - *part, Ordering::Relaxed),
        false => sum.fetch_sub(*part - new, Ordering::Relaxed),
    };
    *part = new;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_limit_each_partition_gets_an_equal_share() {
        let budget = WindowBudget::new(1_000);
        let (mut first, mut second) = (SourceWindows::new(budget.clone()), SourceWindows::new(budget.clone()));
        assert_eq!(
            first.update(4, 500, 200),
            200,
            "the first half goes to the first comers"
        );
        assert_eq!(second.update(1, 1, 200), 100, "then the second half is divided by five");
        assert_eq!(first.update(4, 400, 200), 200);
        assert_eq!(
            second.update(1, 1, 9_000),
            500,
            "a single partition leaves room for late comers"
        );
        drop((first, second));
        assert_eq!(
            (
                budget.bytes.load(Ordering::Relaxed),
                budget.partitions.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }
}
