//! Maps a source partition to its shard. Tailers and aggregators use it to route writes, leaves to know what they own.

use crate::address::SourceName;

/// The shard that owns a partition: `(hash(source) + partition) mod shards`. Consecutive partitions of a topic spread
/// evenly over the shards.
pub fn shard_of(source: &SourceName, partition: i32, shards: u32) -> u32 {
    let start = xxhash_rust::xxh3::xxh3_64(source.as_str().as_bytes());
    let shards = u64::from(shards.max(1));
    let number = (start % shards + u64::from(partition.unsigned_abs())) % shards;
    u32::try_from(number).unwrap_or_default()
}

/// The partition of a collection's push source that a document with this `_id` belongs to, so that it finds earlier
/// documents with the same `_id`.
pub fn push_partition(id: &str, partitions: u32) -> u32 {
    let partition = xxhash_rust::xxh3::xxh3_64(id.as_bytes()) % u64::from(partitions.max(1));
    u32::try_from(partition).unwrap_or_default()
}

/// The partition of a collection's source of changes that belongs to a shard. There are as many partitions as shards, so
/// each shard has one.
pub fn changes_partition(shard: u32, shards: u32) -> i32 {
    let source = SourceName::changes();
    (0..shards.cast_signed())
        .find(|partition| shard_of(&source, *partition, shards) == shard)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_spread_evenly() {
        let source = SourceName::push();
        let mut seen: Vec<u32> = (0..8).map(|p| shard_of(&source, p, 8)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..8).collect::<Vec<_>>());
        assert!((0..100).all(|p| shard_of(&source, p, 1) == 0));
    }

    #[test]
    fn each_shard_has_a_partition_of_changes() {
        for shard in 0..8 {
            let partition = changes_partition(shard, 8);
            assert_eq!(shard_of(&SourceName::changes(), partition, 8), shard);
        }
    }

    #[test]
    fn the_mapping_never_changes() {
        let clicks: SourceName = "clicks".parse().expect("a name");
        assert_eq!(
            (0..4).map(|p| shard_of(&clicks, p, 4)).collect::<Vec<_>>(),
            [3, 0, 1, 2],
            "stored data depends on the mapping"
        );
    }
}
