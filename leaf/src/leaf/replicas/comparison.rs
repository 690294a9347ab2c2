//! Compares what replicas of a shard have ingested, before one of them joins the others.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Weak},
};

use proto::{
    Problem, SourceName,
    cluster::NodeName,
    ingest::{BlockDigest, Ingest as _, ShardId},
    replica::ReplicaPeers,
};
use tracing::{debug, error};

use super::super::Leaf;

/// How the replica of a shard on this leaf compares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// As far as all of them have ingested the same blocks, the digests are the same.
    Same,
    /// Some digests differ.
    Different,
    /// A replica could not say what it has.
    Unknown,
}

/// Compares the replica of a shard on this leaf with those on others. Reports a difference in the log.
pub(super) async fn compare(
    leaf: &Weak<Leaf>,
    peers: &Arc<dyn ReplicaPeers>,
    shard: ShardId,
    others: &[NodeName],
) -> Comparison {
    for other in others {
        match difference(leaf, peers, shard, other).await {
            Ok(None) => {}
            Ok(Some(block)) => {
                let (source, partition) = (&block.source, block.partition);
                let (from, through) = (block.from, block.through);
                error!(
                    collection = %shard.collection, shard = shard.number, %other, %source, partition, from, through,
                    "this leaf's replica of the shard has ingested something else than the other leaf's: it stays behind"
                );
                return Comparison::Different;
            }
            Err(problem) => {
                debug!(shard = shard.number, %other, %problem, "replicas could not be compared");
                return Comparison::Unknown;
            }
        }
    }
    Comparison::Same
}

async fn difference(
    leaf: &Weak<Leaf>,
    peers: &Arc<dyn ReplicaPeers>,
    shard: ShardId,
    other: &NodeName,
) -> Result<Option<BlockDigest>, Problem> {
    // This task does not keep a leaf open that closes.
    let Some(leaf) = leaf.upgrade() else { return Ok(None) };
    let own = leaf.digests(shard).await?;
    drop(leaf);
    let others = peers.digests(other, shard).await?;
    Ok(first_difference(&own, &others).cloned())
}

/// The blocks of a replica, by source, partition and first offset.
type DigestsByBlock<'a> = BTreeMap<(&'a SourceName, i32, i64), &'a BlockDigest>;

/// The first block of two replicas that shows that they have not ingested the same: both have ingested the same offsets of
/// it and the digests differ, or one of them lacks it although it has a later one of the same partition.
fn first_difference<'a>(one: &'a [BlockDigest], other: &'a [BlockDigest]) -> Option<&'a BlockDigest> {
    let by_name = |digests: &'a [BlockDigest]| -> DigestsByBlock<'a> {
        let named = digests
            .iter()
            .map(|block| ((&block.source, block.partition, block.from), block));
        named.collect()
    };
    let (one, other) = (by_name(one), by_name(other));
    let differs = |block: &BlockDigest, from: &DigestsByBlock<'a>| {
        let name = (&block.source, block.partition, block.from);
        let later = (Bound::Excluded(name), Bound::Included((name.0, name.1, i64::MAX)));
        match from.get(&name) {
            Some(same) => same.through == block.through && same.digest != block.digest,
            None => from.range(later).next().is_some(),
        }
    };
    let first =
        |of: &DigestsByBlock<'a>, from: &DigestsByBlock<'a>| of.values().copied().find(|block| differs(block, from));
    first(&one, &other).or_else(|| first(&other, &one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> BlockDigest {
        let words: Vec<&str> = text.split(' ').collect();
        let [source, partition, from, through, digest] = words[..] else {
            panic!("{text}")
        };
        BlockDigest {
            source: source.parse().expect("a source"),
            partition: partition.parse().expect("a number"),
            from: from.parse().expect("an offset"),
            through: through.parse().expect("an offset"),
            digest: digest.to_owned(),
        }
    }

    /// Compares two replicas, each with its blocks in lines: source, partition, first and last offset, digest.
    fn differ(one: &str, other: &str) -> Option<String> {
        let [one, other] = [one, other].map(|text| text.split(", ").map(block).collect::<Vec<_>>());
        let names = |one: &[BlockDigest], other: &[BlockDigest]| {
            let block = first_difference(one, other)?;
            Some(format!("{}/{} {}", block.source, block.partition, block.from))
        };
        assert_eq!(names(&one, &other), names(&other, &one));
        names(&one, &other)
    }

    #[test]
    fn blocks_with_the_same_offsets_and_other_digests_differ() {
        let has = "a 0 0 65535 x, a 0 65536 70000 y, b 0 0 5 z";
        assert_eq!(differ(has, has), None);
        let other = "a 0 0 65535 x, a 0 65536 70000 w, b 0 0 5 z";
        assert_eq!(differ(has, other).as_deref(), Some("a/0 65536"));
        let other = "a 0 0 65535 w, a 0 65536 80000 w, b 0 0 5 z";
        assert_eq!(differ(has, other).as_deref(), Some("a/0 0"));
    }

    #[test]
    fn what_only_one_of_them_has_ingested_so_far_is_no_difference() {
        let has = "a 0 0 65535 x, a 0 65536 70000 y";
        for other in [
            "a 0 0 65535 x, a 0 65536 80000 w",
            "a 0 0 65535 x",
            "a 0 0 60000 v",
            "a 0 0 65535 x, a 0 65536 131071 w, a 0 131072 140000 q, a 1 0 9 r, b 0 0 7 s",
        ] {
            assert_eq!(differ(has, other), None, "{other}");
        }
    }

    #[test]
    fn a_block_that_is_missing_before_a_later_one_is_a_difference() {
        let has = "a 0 0 65535 x, a 0 65536 70000 y";
        assert_eq!(differ(has, "a 0 65536 70000 y").as_deref(), Some("a/0 0"));
        assert_eq!(differ(has, "a 0 65536 90000 w").as_deref(), Some("a/0 0"));
    }
}
