//! Limits for open shards: a hard limit on the files they have open together, a soft limit on how many are open at
//! once. A shard reserves its files before it opens. The reservation is updated at intervals, because shards grow.
//!
//! Split files are memory-mapped and then closed, so only RocksDB's files stay open.

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::options::LeafOptions;

/// Files that a store has open besides its tables: write-ahead log, lock, manifest, folder, info log, and those of a
/// running flush and compaction.
const STORE_FILES: usize = 12;
/// One store may have at most 1/20 of all files open as tables.
const STORE_DIVISOR: usize = 20;
const TABLES_OPEN_LOWEST: usize = 10;
const TABLES_OPEN_HIGHEST: usize = 246;

#[derive(Default)]
struct OpenShardCounts {
    shards: usize,
    files: usize,
}

/// The limits for open shards, and what is reserved of them.
pub(super) struct OpenShardLimits {
    shards_max: usize,
    files_max: usize,
    reserved: Mutex<OpenShardCounts>,
    released: Condvar,
}

/// The reservation of one open shard, released on drop.
pub(super) struct OpenReservation {
    limits: Arc<OpenShardLimits>,
    files: usize,
}

impl OpenShardLimits {
    /// At most this many files, and preferably at most this many shards.
    pub(super) fn new(shards_max: usize, files_max: usize) -> Arc<Self> {
        Arc::new(Self {
            shards_max,
            files_max,
            reserved: Mutex::default(),
            released: Condvar::new(),
        })
    }

    /// True if another shard with this many files is within both limits.
    pub(super) fn has_room(&self, files: usize) -> bool {
        let reserved = self.reserved.lock();
        reserved.shards == 0 || (reserved.shards < self.shards_max && reserved.files + files <= self.files_max)
    }

    /// Reserves one shard and its files, if the limit on files allows it. The first shard is always allowed.
    pub(super) fn reserve(self: &Arc<Self>, files: usize) -> Option<OpenReservation> {
        let mut reserved = self.reserved.lock();
        if reserved.shards > 0 && reserved.files + files > self.files_max {
            return None;
        }
        reserved.shards += 1;
        reserved.files += files;
        Some(OpenReservation {
            limits: self.clone(),
            files,
        })
    }

    /// Waits until a reservation is released, or the timeout passes.
    pub(super) fn wait(&self, timeout: Duration) {
        self.released.wait_for(&mut self.reserved.lock(), timeout);
    }

    /// True if a limit is exceeded. That happens because shards grow, and because one query may need many shards.
    pub(super) fn is_exceeded(&self) -> bool {
        let reserved = self.reserved.lock();
        reserved.files > self.files_max || reserved.shards > self.shards_max
    }

    /// Number of shards with a reservation.
    pub(super) fn shards(&self) -> usize {
        self.reserved.lock().shards
    }
}

impl OpenReservation {
    /// Changes the number of reserved files.
    pub(super) fn update(&mut self, files: usize) {
        let mut reserved = self.limits.reserved.lock();
        reserved.files = reserved.files - self.files + files;
        self.files = files;
    }
}

impl Drop for OpenReservation {
    fn drop(&mut self) {
        let mut reserved = self.limits.reserved.lock();
        reserved.shards -= 1;
        reserved.files -= self.files;
        self.limits.released.notify_all();
    }
}

/// Number of files that a store with this many tables has open.
pub(super) fn files_of(tables: usize, options: &LeafOptions) -> usize {
    STORE_FILES + tables.min(tables_open_max(options))
}

/// Maximum number of tables that one store has open.
pub(super) fn tables_open_max(options: &LeafOptions) -> usize {
    (options.open_files_max / STORE_DIVISOR).clamp(TABLES_OPEN_LOWEST, TABLES_OPEN_HIGHEST)
}

/// Number of tables in the folder of a closed store.
pub(super) fn tables_in(rows: &Path) -> usize {
    let is_table = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "sst");
    std::fs::read_dir(rows).map_or(0, |entries| entries.filter_map(Result::ok).filter(is_table).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_stay_within_the_limits_and_are_released() {
        let limits = OpenShardLimits::new(3, 50);
        let first = limits.reserve(100).expect("one shard may always be open");
        assert!(limits.reserve(10).is_none(), "no files are left");
        drop(first);
        let mut all: Vec<OpenReservation> =
            std::iter::from_fn(|| limits.has_room(10).then(|| limits.reserve(10)).flatten()).collect();
        assert_eq!(
            (all.len(), limits.shards()),
            (3, 3),
            "the soft limit on shards is reached"
        );
        assert!(!limits.is_exceeded());
        all.extend(limits.reserve(10));
        assert!(
            limits.shards() == 4 && limits.is_exceeded(),
            "the soft limit can be exceeded"
        );
        drop(all);
        let all: Vec<OpenReservation> = std::iter::from_fn(|| limits.reserve(20)).collect();
        assert_eq!(all.len(), 2, "the hard limit on files is reached");
        let mut grows = all;
        grows[0].update(40);
        assert!(limits.is_exceeded());
        drop(grows);
        assert!(!limits.is_exceeded() && limits.shards() == 0);
    }
}
