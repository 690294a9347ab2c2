//! Sweep: removes the files of replaced segments and the rows of deleted documents once no read view needs them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use proto::Address;
use tracing::warn;

use super::{open_shard::Shard, state::LiveSegment};
use crate::{
    error::Error,
    store::{Family, Partition, Ranges, RowKey, RowKind, Store, WriteBatch},
};

/// The interval between two sweeps.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// The maximum number of deletions in one write.
pub(super) const SWEPT_ROWS_MAX: usize = 10_000;

/// Removes what no read view needs: files of replaced segments at once, rows of deleted documents once no replaced
/// segment in their ranges is referenced. Called periodically.
pub(crate) fn sweep(shard: &Shard) -> Result<(), Error> {
    if shard.store.is_read_only() {
        return Ok(());
    }
    let mut obsolete = shard.obsolete.lock();
    for set in obsolete.iter_mut().filter(|set| !set.unreferenced) {
        // Only this list can hand out the segments, so a count of one cannot grow again.
        set.unreferenced = set.segments.iter().all(|segment| Arc::strong_count(segment) == 1);
        if set.unreferenced {
            set.segments.clear();
            set.files.drain(..).for_each(remove_file);
        }
    }
    // A row that an older segment does not reference may still be read through a newer replaced segment that a view
    // holds.
    let referenced: Vec<Ranges> = obsolete
        .iter()
        .filter(|set| !set.unreferenced)
        .map(|set| set.ranges.clone())
        .collect();
    let swept = obsolete.extract_if(.., |set| {
        set.unreferenced && !referenced.iter().any(|ranges| overlap(ranges, &set.ranges))
    });
    let ranges: Vec<Ranges> = swept.map(|set| set.ranges).collect();
    drop(obsolete);
    ranges.iter().try_for_each(|ranges| sweep_rows(shard, ranges))
}

/// Whether two sets of ranges have a record in common.
pub(super) fn overlap(one: &Ranges, other: &Ranges) -> bool {
    let meets = |(partition, (after, through)): (_, &(i64, i64))| {
        other
            .get(partition)
            .is_some_and(|(other_after, other_through)| after < other_through && other_after < through)
    };
    one.iter().any(meets)
}

pub(super) fn remove_file(file: PathBuf) {
    if let Err(error) = std::fs::remove_file(&file) {
        warn!(file = %file.display(), %error, "could not remove a replaced split; the next start will remove it");
    }
}

/// Removes the rows of deleted documents that no segment references.
fn sweep_rows(shard: &Shard, ranges: &Ranges) -> Result<(), Error> {
    let mut batch = WriteBatch::default();
    for (partition, (after, through)) in ranges {
        for address in shard.store.deleted(partition, *after, *through) {
            let address = address?;
            if is_referenced(shard, &address) {
                continue;
            }
            remove_rows(&shard.store, &mut batch, &address);
            if batch.len() >= SWEPT_ROWS_MAX {
                shard.check_written(shard.store.commit(std::mem::take(&mut batch)))?;
            }
        }
    }
    if batch.is_empty() {
        Ok(())
    } else {
        shard.check_written(shard.store.commit(batch))
    }
}

/// Whether a segment may reference a document: a live one, or one that was replaced in the meantime and may be held by
/// a read view.
fn is_referenced(shard: &Shard, address: &Address) -> bool {
    let obsolete = shard.obsolete.lock();
    let one = Ranges::from([(Partition::of(address), (address.offset - 1, address.offset))]);
    let references = |entry: &LiveSegment| entry.covers(address) && entry.segment.find(address).is_some();
    obsolete.iter().any(|set| overlap(&set.ranges, &one))
        || shard.with_state(|state| state.segments.iter().any(references))
}

/// Adds the removal of a deleted document and its delete marker to a batch.
pub(crate) fn remove_rows(store: &Store, batch: &mut WriteBatch, address: &Address) {
    let document = RowKey::new(RowKind::Document).address(address).bytes();
    let marker = RowKey::new(RowKind::DeleteMarker).address(address).bytes();
    store.delete(batch, Family::Docs, &document);
    store.delete(batch, Family::Meta, &marker);
}
