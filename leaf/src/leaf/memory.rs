//! Memory: keeps all shards together within a node's limits, since per-shard limits do not bound many shards. Checked
//! at intervals; the largest shards are written to disk first.

use std::sync::{Arc, Weak};

use metrics::gauge;

use crate::shard::{Shard, budget::MemoryBudget};

/// Bytes in RocksDB memtables, over all shards.
const ROWS_BYTES_MAX: u64 = 64 << 20;

/// Flushes memtables above their limit. Writes splits when more than half of the budget for unsplit documents is used,
/// so that ingest can continue meanwhile.
pub(super) fn govern(shards: &[Weak<Shard>], budget: &MemoryBudget) {
    let rows = |shard: &Weak<Shard>| shard.upgrade().map_or(0, |shard| shard.store().bytes_in_memory());
    gauge!("rachis_leaf_rows_in_memory_bytes").set(shards.iter().map(rows).sum::<u64>() as f64);
    for shard in largest(shards, ROWS_BYTES_MAX, rows)
        .into_iter()
        .filter_map(Weak::upgrade)
    {
        if let Err(error) = shard.store().flush_soon() {
            tracing::warn!(shard = %shard.id, %error, "could not flush rows from memory");
        }
    }
    if budget.bytes() > budget.bytes_max() / 2 {
        let unsplit_bytes = |shard: &Arc<Shard>| shard.with_state(|state| state.reserved_bytes() as u64);
        let open = shards.iter().filter_map(Weak::upgrade);
        // One that has left writes no split: its memory is freed when it is closed.
        let (left, shards): (Vec<_>, Vec<_>) = open.partition(|shard| shard.has_left());
        let left_bytes = left.iter().map(unsplit_bytes).sum();
        let bytes_max = (budget.bytes_max() as u64 / 2).saturating_sub(left_bytes);
        for shard in largest(&shards, bytes_max, unsplit_bytes) {
            shard.request_split();
        }
    }
}

/// The largest shards whose removal brings the others within the limit.
fn largest<T>(shards: &[T], bytes_max: u64, bytes: impl Fn(&T) -> u64) -> Vec<&T> {
    let mut sizes: Vec<(u64, &T)> = shards.iter().map(|shard| (bytes(shard), shard)).collect();
    sizes.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let mut total: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
    let mut chosen = Vec::new();
    for (bytes, shard) in sizes {
        if total <= bytes_max {
            break;
        }
        total -= bytes;
        chosen.push(shard);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_shards_are_chosen_first_and_no_more_than_necessary() {
        let sizes = [5, 40, 7, 30, 1];
        assert_eq!(largest(&sizes, 100, |size| *size), Vec::<&u64>::new());
        assert_eq!(largest(&sizes, 50, |size| *size), [&40]);
        assert_eq!(largest(&sizes, 13, |size| *size), [&40, &30]);
        assert_eq!(largest(&sizes, 0, |size| *size), [&40, &30, &7, &5, &1]);
    }
}
