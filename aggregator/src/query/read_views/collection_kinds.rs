//! The kinds of each collection's paths, merged over its shards: a collection may have thousands of paths in each of many
//! shards. What is equal is one value, which all cached plans share.
//!
//! A cache: its key is the collection, its limit is [`KINDS_BYTES_MAX`]. Kinds are merged again when those of a shard have
//! changed.

use std::{num::NonZeroUsize, sync::Arc};

use parking_lot::Mutex;
use plan::{PathKinds, byte_lru::ByteLru, views::ShardView};
use proto::{CollectionUid, ingest::ShardId};

/// The bytes of all cached kinds.
const KINDS_BYTES_MAX: usize = 64 << 20;
/// The number of collections whose merged kinds are cached.
const COLLECTIONS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The merged kinds of the most recently used collections.
pub(in crate::query) struct CollectionKinds {
    merged: Mutex<ByteLru<CollectionUid, MergedKinds>>,
}

struct MergedKinds {
    shards: Vec<Arc<PathKinds>>,
    all: Arc<PathKinds>,
}

impl CollectionKinds {
    pub(in crate::query) fn new() -> Self {
        Self {
            merged: Mutex::new(ByteLru::new(KINDS_BYTES_MAX, COLLECTIONS_MAX)),
        }
    }

    /// The kinds of a collection's paths in these shards.
    pub(in crate::query) fn of(&self, collection: CollectionUid, shards: &[(ShardId, ShardView)]) -> Arc<PathKinds> {
        let is_same = |merged: &&MergedKinds| {
            merged.shards.len() == shards.len()
                && (merged.shards.iter().zip(shards)).all(|(paths, (_, shard))| Arc::ptr_eq(paths, &shard.paths))
        };
        let mut before = None;
        if let Some(merged) = self.merged.lock().get(&collection) {
            if is_same(&merged) {
                return Arc::clone(&merged.all);
            }
            before = Some(Arc::clone(&merged.all));
        }
        let all = match shards {
            [(_, only)] => Arc::clone(&only.paths),
            shards => {
                let mut all = PathKinds::default();
                shards.iter().for_each(|(_, shard)| all.merge(&shard.paths));
                Arc::new(all)
            }
        };
        let all = before.filter(|before| *before == all).unwrap_or(all);
        let merged = MergedKinds {
            shards: shards.iter().map(|(_, shard)| Arc::clone(&shard.paths)).collect(),
            all: Arc::clone(&all),
        };
        let bytes = all.bytes() + size_of_val(&*merged.shards);
        // Dropped after the lock is released.
        let _displaced = self.merged.lock().put(collection, merged, bytes);
        all
    }
}
