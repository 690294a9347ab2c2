//! The latest path table of each shard, so that a leaf sends a table only if it has changed.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use proto::{
    Problem,
    ingest::ShardId,
    wire::{ingest::vector, leaf as wire, problem::malformed},
};

use crate::{PathKinds, views::ShardView};

/// Shards whose path tables are cached.
const SHARDS_MAX: usize = 4_096;

/// A path table and its hash.
pub(super) type CachedPaths = (u64, Arc<PathKinds>);

/// The cached path tables.
#[derive(Default)]
pub(super) struct PathTables(Mutex<HashMap<ShardId, CachedPaths>>);

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
            (Some(paths), _) => Arc::new(PathKinds::try_from(paths)?),
            (None, Some((hash, paths))) if hash == view.paths_hash => paths,
            (None, _) => return Err(malformed("the path table is missing")),
        };
        self.put(shard, (view.paths_hash, Arc::clone(&paths)));
        Ok(ShardView {
            positions: vector(view.positions)?,
            boot: view.boot,
            paths,
            documents: view.documents,
            freshness_ms: view.freshness_ms,
        })
    }

    fn put(&self, shard: ShardId, table: CachedPaths) {
        let mut tables = self.0.lock();
        if tables.len() >= SHARDS_MAX {
            tables.clear();
        }
        tables.insert(shard, table);
    }
}
