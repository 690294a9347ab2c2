//! Windows: records that were read and are not acknowledged yet, of all partitions that a node reads. Each partition
//! has a limit of its own; together they have one too, and while they are near it, each has its even share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What all partitions hold.
#[derive(Debug)]
pub struct Windows {
    bytes_max: usize,
    bytes: AtomicUsize,
    partitions: AtomicUsize,
}

impl Windows {
    /// Together so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            partitions: AtomicUsize::new(0),
        })
    }

    /// What a partition may hold, that may hold `alone` if it is alone.
    pub fn of_one(&self, alone: usize) -> usize {
        // Half is for those that come first, half is divided: so there is always room for those that come late.
        let half = self.bytes_max / 2;
        match self.bytes.load(Ordering::Relaxed) <= half {
            true => alone.min(half),
            false => alone.min(half / self.partitions.load(Ordering::Relaxed).max(1)),
        }
    }
}

/// What the partitions of one source hold; given back with it.
#[derive(Debug)]
pub struct Held {
    windows: Arc<Windows>,
    bytes: usize,
    partitions: usize,
}

impl Held {
    /// Nothing yet.
    pub fn new(windows: Arc<Windows>) -> Self {
        Self {
            windows,
            bytes: 0,
            partitions: 0,
        }
    }

    /// So many partitions hold so many bytes by now; answers what each may hold.
    pub fn update(&mut self, partitions: usize, bytes: usize, alone: usize) -> usize {
        change(&self.windows.bytes, &mut self.bytes, bytes);
        change(&self.windows.partitions, &mut self.partitions, partitions);
        self.windows.of_one(alone)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.update(0, 0, 0);
    }
}

fn change(sum: &AtomicUsize, own: &mut usize, now: usize) {
    match now >= *own {
        true => sum.fetch_add(now - *own, Ordering::Relaxed),
        false => sum.fetch_sub(*own - now, Ordering::Relaxed),
    };
    *own = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_limit_of_all_each_partition_has_its_even_share() {
        let windows = Windows::new(1_000);
        let (mut first, mut second) = (Held::new(windows.clone()), Held::new(windows.clone()));
        assert_eq!(
            first.update(4, 500, 200),
            200,
            "half of it is for those that come first"
        );
        assert_eq!(
            second.update(1, 1, 200),
            100,
            "and then the other half is divided by five"
        );
        assert_eq!(first.update(4, 400, 200), 200);
        assert_eq!(
            second.update(1, 1, 9_000),
            500,
            "one alone does not take the room of those that come late"
        );
        drop((first, second));
        assert_eq!(
            (
                windows.bytes.load(Ordering::Relaxed),
                windows.partitions.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }
}
