//! Memory of all shards together: each has limits of its own, and a node has many. Looked at now and then; the biggest
//! go to disk first.

use std::sync::Weak;

use metrics::gauge;

use crate::shard::{Shard, budget::Budget};

/// Rows that RocksDB holds in memory, over all shards.
const ROWS_BYTES_MAX: u64 = 64 << 20;

/// Writes out what is too much, of rows and of the budget for what is in no split yet: half of it, so that what comes
/// in has room meanwhile.
pub fn govern(shards: &[Weak<Shard>], budget: &Budget) {
    let rows = |shard: &Weak<Shard>| shard.upgrade().map_or(0, |shard| shard.store().bytes_in_memory());
    gauge!("rachis_leaf_rows_in_memory_bytes").set(shards.iter().map(rows).sum::<u64>() as f64);
    for shard in too_much(shards, ROWS_BYTES_MAX, rows)
        .into_iter()
        .filter_map(Weak::upgrade)
    {
        if let Err(error) = shard.store().flush_soon() {
            tracing::warn!(shard = %shard.id, %error, "rows in memory could not be flushed");
        }
    }
    if budget.bytes() > budget.bytes_max() / 2 {
        let held = |shard: &Weak<Shard>| {
            shard
                .upgrade()
                .map_or(0, |shard| shard.look(|state| state.held_bytes() as u64))
        };
        for shard in too_much(shards, budget.bytes_max() as u64 / 2, held)
            .into_iter()
            .filter_map(Weak::upgrade)
        {
            shard.split_now();
        }
    }
}

/// The biggest shards, without which the rest is within the limit.
fn too_much<T>(shards: &[T], bytes_max: u64, bytes: impl Fn(&T) -> u64) -> Vec<&T> {
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
    fn the_biggest_go_first_and_no_more_than_need_be() {
        let sizes = [5, 40, 7, 30, 1];
        assert_eq!(too_much(&sizes, 100, |size| *size), Vec::<&u64>::new());
        assert_eq!(too_much(&sizes, 50, |size| *size), [&40]);
        assert_eq!(too_much(&sizes, 13, |size| *size), [&40, &30]);
        assert_eq!(too_much(&sizes, 0, |size| *size), [&40, &30, &7, &5, &1]);
    }
}
