//! The latest path table of each shard, so that a leaf sends a table only if it has changed.
//!
//! A cache: its key is the shard, its limit is [`TABLES_BYTES_MAX`]. A leaf that has another table sends that one, which
//! replaces the cached one.

use std::{num::NonZeroUsize, sync::Arc};

use parking_lot::Mutex;
use proto::{
    Problem,
    ingest::ShardId,
    wire::{ingest::vector, leaf as wire, problem::malformed},
};

use crate::{PathKinds, byte_lru::ByteLru, views::ShardView};

/// Bytes of all cached path tables.
const TABLES_BYTES_MAX: usize = 256 << 20;
/// Shards whose path tables are cached.
const SHARDS_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// A path table and its hash.
pub(super) type CachedPaths = (u64, Arc<PathKinds>);

/// The cached path tables.
pub(super) struct PathTables(Mutex<ByteLru<ShardId, CachedPaths>>);

impl Default for PathTables {
    fn default() -> Self {
        Self(Mutex::new(ByteLru::new(TABLES_BYTES_MAX, SHARDS_MAX)))
    }
}

impl PathTables {
    /// The latest table of a shard.
    pub(super) fn of(&self, shard: ShardId) -> Option<CachedPaths> {
        self.0.lock().get(&shard).cloned()
    }

    /// Decodes a view. If the leaf left out its path table, `cached` has it.
    pub(super) fn decode(
        &self,
        shard: ShardId,
        view: wire::ShardView,
        cached: Option<CachedPaths>,
    ) -> Result<ShardView, Problem> {
        let paths = match (view.paths, cached) {
            (Some(paths), _) => self.put(shard, view.paths_hash, paths.decode()?),
            (None, Some((hash, paths))) if hash == view.paths_hash => paths,
            (None, _) => return Err(malformed("the path table is missing")),
        };
        Ok(ShardView {
            positions: vector(view.positions)?,
            boot: view.boot,
            paths,
            documents: view.documents,
            freshness_ms: view.freshness_ms,
        })
    }

    fn put(&self, shard: ShardId, hash: u64, table: PathKinds) -> Arc<PathKinds> {
        let bytes = table.bytes();
        let table = Arc::new(table);
        // Dropped after the lock is released.
        let _displaced = self.0.lock().put(shard, (hash, Arc::clone(&table)), bytes);
        table
    }
}
