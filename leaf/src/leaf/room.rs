//! Room for open shards: how many files of the process they may have open together, and how many shards are open at
//! once if that can be helped. What a shard takes is set aside before it opens, and counted anew now and then while it
//! grows.
//!
//! Splits are mapped, and their files closed then; what stays open is RocksDB's.

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::options::LeafOptions;

/// Files that a store has open besides its tables: log, lock, manifest, folder, its own log, and those of a flush and a
/// compaction that run.
const STORE_FILES: usize = 12;
/// Of all files for stores, one store has at most one in so many open.
const STORE_PART: usize = 20;
const TABLES_LEAST: usize = 10;
const TABLES_MOST: usize = 246;

#[derive(Default)]
struct Taken {
    shards: usize,
    files: usize,
}

/// What open shards may take.
pub struct Room {
    shards_max: usize,
    files_max: usize,
    taken: Mutex<Taken>,
    given_back: Condvar,
}

/// What one open shard takes.
pub struct Reserved {
    room: Arc<Room>,
    files: usize,
}

impl Room {
    /// For so many shards and files.
    pub fn new(shards_max: usize, files_max: usize) -> Arc<Self> {
        Arc::new(Self {
            shards_max,
            files_max,
            taken: Mutex::default(),
            given_back: Condvar::new(),
        })
    }

    /// Whether another shard with so many files is within both limits.
    pub fn has(&self, files: usize) -> bool {
        let taken = self.taken.lock();
        taken.shards == 0 || (taken.shards < self.shards_max && taken.files + files <= self.files_max)
    }

    /// Sets aside a shard and its files, if there are so many files. One shard may always be open.
    pub fn reserve(self: &Arc<Self>, files: usize) -> Option<Reserved> {
        let mut taken = self.taken.lock();
        if taken.shards > 0 && taken.files + files > self.files_max {
            return None;
        }
        taken.shards += 1;
        taken.files += files;
        Some(Reserved {
            room: self.clone(),
            files,
        })
    }

    /// Waits until something is given back, or so long.
    pub fn wait(&self, at_most: Duration) {
        self.given_back.wait_for(&mut self.taken.lock(), at_most);
    }

    /// Whether more is taken than should be: shards grow, and one question may need many.
    pub fn is_exceeded(&self) -> bool {
        let taken = self.taken.lock();
        taken.files > self.files_max || taken.shards > self.shards_max
    }

    /// Shards that have room.
    pub fn shards(&self) -> usize {
        self.taken.lock().shards
    }
}

impl Reserved {
    /// It takes so many files by now.
    pub fn update(&mut self, files: usize) {
        let mut taken = self.room.taken.lock();
        taken.files = taken.files - self.files + files;
        self.files = files;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.shards -= 1;
        taken.files -= self.files;
        self.room.given_back.notify_all();
    }
}

/// Files that a store with so many tables has open.
pub fn files_of(tables: usize, options: &LeafOptions) -> usize {
    STORE_FILES + tables.min(tables_open_max(options))
}

/// Tables that a store has open at most.
pub fn tables_open_max(options: &LeafOptions) -> usize {
    (options.open_files_max / STORE_PART).clamp(TABLES_LEAST, TABLES_MOST)
}

/// Tables in the folder of a store that is closed.
pub fn tables_in(rows: &Path) -> usize {
    let is_table = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "sst");
    std::fs::read_dir(rows).map_or(0, |entries| entries.filter_map(Result::ok).filter(is_table).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_within_the_limits_and_comes_back() {
        let room = Room::new(3, 50);
        let first = room.reserve(100).expect("one shard may always be open");
        assert!(room.reserve(10).is_none(), "there are no files");
        drop(first);
        let mut all: Vec<Reserved> = std::iter::from_fn(|| room.has(10).then(|| room.reserve(10)).flatten()).collect();
        assert_eq!((all.len(), room.shards()), (3, 3), "as many shards as should be");
        assert!(!room.is_exceeded());
        all.extend(room.reserve(10));
        assert!(
            room.shards() == 4 && room.is_exceeded(),
            "more where they are needed at once"
        );
        drop(all);
        let all: Vec<Reserved> = std::iter::from_fn(|| room.reserve(20)).collect();
        assert_eq!(all.len(), 2, "as many files as may be");
        let mut grows = all;
        grows[0].update(40);
        assert!(room.is_exceeded());
        drop(grows);
        assert!(!room.is_exceeded() && room.shards() == 0);
    }
}
