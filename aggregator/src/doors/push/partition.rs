//! Assigns the items of a push to partitions, by their ids.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::{json::Value, routing::push_partition};

/// The items of one partition.
#[derive(Debug, PartialEq)]
pub(super) struct PartitionBatch {
    pub partition: u32,
    pub items: Vec<Bytes>,
    /// The indexes of the items in the request. None if this partition has all items.
    pub indexes: Option<Vec<u64>>,
}

/// Assigns items to partitions. The home partition comes first. If the request has a key, the home partition gets a
/// batch even if it has no items, so that it notices the same key with another body.
pub(super) fn partition_items(items: Vec<Bytes>, partitions: u32, home: u32, keyed: bool) -> Vec<PartitionBatch> {
    if partitions == 1 {
        return vec![PartitionBatch {
            partition: 0,
            items,
            indexes: None,
        }];
    }
    let targets: Vec<u32> = items
        .iter()
        .map(|item| id_of(item).map_or(home, |id| push_partition(&id, partitions)))
        .collect();
    if targets.iter().all(|target| *target == home) {
        return vec![PartitionBatch {
            partition: home,
            items,
            indexes: None,
        }];
    }
    let mut batches: BTreeMap<(bool, u32), PartitionBatch> = BTreeMap::new();
    if keyed {
        batches.insert((false, home), empty_batch(home));
    }
    for (index, (item, partition)) in items.into_iter().zip(targets).enumerate() {
        let batch = batches
            .entry((partition != home, partition))
            .or_insert_with(|| empty_batch(partition));
        batch.items.push(item);
        batch.indexes.get_or_insert_default().push(index as u64);
    }
    batches.into_values().collect()
}

fn empty_batch(partition: u32) -> PartitionBatch {
    PartitionBatch {
        partition,
        items: Vec::new(),
        indexes: Some(Vec::new()),
    }
}

/// The `_id` of a document, if it has a valid one.
pub(super) fn id_of(item: &[u8]) -> Option<String> {
    // Parsing is expensive. A document can have an id only if the key occurs literally or is written with an escape.
    let has = |needle: &[u8]| item.windows(needle.len()).any(|window| window == needle);
    if !has(b"\"_id\"") && !has(b"\\u") {
        return None;
    }
    match proto::json::parse(item).ok()?.get("_id")? {
        Value::Text(text) => Some(text.to_string()),
        Value::Int(int) => Some(int.to_string()),
        _ => None,
    }
}
