//! Recovery: builds the state in memory from what is on disk, no matter how the last process ended.
//!
//! - Removes files that the manifest does not name.
//! - Opens the splits that the manifest names; rebuilds a missing or damaged one from the rows.
//! - Applies delete markers; removes a marker together with its document if the document is in no split.
//! - Adds documents above the last split to the tail, to be indexed again.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use plan::PathKinds;
use proto::{Address, Code, Problem, ingest::ShardId};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    gone::GoneRanges,
    state::{LiveSegment, ShardState, merge_kinds, note_overflow},
    sweep::{SWEPT_ROWS_MAX, remove_rows},
};
use crate::{
    codec::NewerVersion,
    error::Error,
    split::{Segment, SplitOrigin},
    store::{Family, ManifestRow, Partition, PartitionRow, RowKey, RowKind, Store, WriteBatch, manifest::file_name},
};

/// Recovers the state of a shard whose store has just been opened.
pub(crate) fn recover(store: &Arc<Store>, splits: &Path) -> Result<ShardState, Error> {
    let file_error = Error::file(splits);
    std::fs::create_dir_all(splits).map_err(file_error)?;
    let manifest = store.manifest()?;
    remove_unnamed(splits, &manifest).map_err(file_error)?;
    let rows = store.partitions()?;
    let gone = GoneRanges::load(store)?;
    let mut state = ShardState::new(store.clone(), rows.clone(), load_paths(store, &rows)?);
    state.next_id = manifest.keys().max().map_or(1, |id| id + 1);
    let mut cleanup = WriteBatch::default();
    let mut named: Vec<(u64, ManifestRow)> = manifest.into_iter().collect();
    named.sort_by_key(|(_, row)| row.order);
    for (id, mut row) in named {
        for (partition, (_, through)) in &row.ranges {
            let covered = state.covered.entry(partition.clone()).or_insert(*through);
            *covered = (*covered).max(*through);
        }
        match open_split(store, splits, id, &mut row, &gone)? {
            Some(segment) => {
                let mut entry = mark_deleted(store, live_segment(id, row, segment), &mut cleanup)?;
                gone.iter()
                    .for_each(|(partition, ranges)| entry.mark_gone(partition, ranges));
                state.segments.push(entry);
            }
            None if crate::fault::on("manifest-before-files") => (),
            None => store.delete(&mut cleanup, Family::Meta, &manifest_key(id)),
        }
    }
    state.gone = Arc::new(gone);
    load_tail(store, &mut state, &rows)?;
    commit(store, cleanup)?;
    let incarnation = uuid::Uuid::from_u128(store.incarnation());
    let (splits, tail) = (state.segments.len(), state.tail.documents());
    info!(shard = %store.shard(), %incarnation, positions = %state.positions(), splits, tail, "shard opened");
    Ok(state)
}

/// Removes files that no manifest row names: unfinished builds and replaced splits.
fn remove_unnamed(splits: &Path, manifest: &BTreeMap<u64, ManifestRow>) -> std::io::Result<()> {
    let named: HashSet<String> = manifest.keys().map(|id| file_name(*id)).collect();
    for entry in std::fs::read_dir(splits)? {
        let entry = entry?;
        if named.contains(entry.file_name().to_string_lossy().as_ref()) {
            continue;
        }
        info!(file = %entry.path().display(), "removing a file that the manifest does not list");
        let removed = if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        removed?;
    }
    Ok(())
}

fn load_paths(store: &Store, rows: &BTreeMap<Partition, PartitionRow>) -> Result<PathKinds, Error> {
    let mut paths = PathKinds::default();
    for partition in rows.keys() {
        let (kinds, overflow) = store.kinds(partition)?;
        let known: HashSet<_> = kinds.keys().cloned().collect();
        merge_kinds(&mut paths, kinds);
        if overflow {
            note_overflow(&mut paths, &known);
        }
    }
    Ok(paths)
}

fn live_segment(id: u64, row: ManifestRow, segment: Segment) -> LiveSegment {
    let ManifestRow {
        ranges,
        order,
        generation,
        raw_bytes,
        ..
    } = row;
    LiveSegment {
        id,
        order,
        on_disk: true,
        generation,
        ranges,
        raw_bytes,
        segment: Arc::new(segment),
        deleted: Arc::default(),
    }
}

fn manifest_key(id: u64) -> Vec<u8> {
    RowKey::new(RowKind::Manifest).signed(id.cast_signed()).bytes()
}

/// Opens a split, or rebuilds it and names the new file in its row; none if it has no live document left.
fn open_split(
    store: &Store,
    splits: &Path,
    id: u64,
    row: &mut ManifestRow,
    gone: &GoneRanges,
) -> Result<Option<Segment>, Error> {
    let path = splits.join(file_name(id));
    if crate::fault::on("manifest-before-files") && !path.exists() {
        return Ok(None);
    }
    let opened = match path.exists() {
        true => Segment::open(&path),
        false => Err(Problem::new(Code::Internal, format!("{} is missing", path.display())).into()),
    };
    let reason = match opened {
        Ok(segment) if row.names_file(&segment) => return Ok(Some(segment)),
        // It was rebuilt, but a full disk kept the manifest from naming it. There may be no room to build it again.
        Ok(segment) if store.is_read_only() && is_rebuilt(&segment, store.shard(), row) => return Ok(Some(segment)),
        Ok(_) => {
            let reason = format!("{} is not the file that the manifest names", path.display());
            Problem::new(Code::Internal, reason).into()
        }
        // A newer release may have reasons to keep this file as it is.
        Err(Error::File { path, source }) if NewerVersion::of(&source).is_some() => {
            return Err(Error::File { path, source });
        }
        Err(reason) => reason,
    };
    warn!(shard = %store.shard(), split = id, error = %reason, "could not open a split; rebuilding it");
    if path.exists() {
        std::fs::remove_file(&path).map_err(Error::file(&path))?;
    }
    let mut deleted = HashSet::new();
    for (partition, (after, through)) in &row.ranges {
        for address in store.deleted(partition, *after, *through) {
            deleted.insert(address?);
        }
    }
    let rows = row
        .ranges
        .iter()
        .flat_map(|(partition, (after, through))| store.documents(partition, *after, *through));
    let is_live = |row: &Result<_, Error>| {
        row.as_ref().map_or(true, |document: &crate::document::Document| {
            !deleted.contains(&document.address) && !gone.contains(&document.address)
        })
    };
    let mut live = rows.filter(is_live).map(|row| row.map(Arc::new)).peekable();
    if live.peek().is_none() {
        return Ok(None);
    }
    let origin = SplitOrigin {
        uuid: Uuid::now_v7(),
        shard: store.shard(),
        ranges: row.ranges.clone(),
    };
    let segment = Segment::to_file(&mut live, origin, &path)?;
    row.name_file(&segment);
    // At once: if a later step fails, the next opening would take the new file for a wrong one.
    let mut named = WriteBatch::default();
    store.put(&mut named, Family::Meta, &manifest_key(id), &row.encode());
    commit(store, named)?;
    Ok(Some(segment))
}

/// Whether a file was built for the records of this row, but is not the one that the row names.
fn is_rebuilt(segment: &Segment, shard: ShardId, row: &ManifestRow) -> bool {
    segment
        .facts()
        .is_some_and(|facts| facts.origin.shard == shard && facts.origin.ranges == row.ranges)
}

/// Applies the delete markers in the ranges of a segment. Markers of documents that are not in the segment are added to
/// the cleanup.
fn mark_deleted(store: &Store, mut entry: LiveSegment, cleanup: &mut WriteBatch) -> Result<LiveSegment, Error> {
    for (partition, (after, through)) in entry.ranges.clone() {
        for address in store.deleted(&partition, after, through) {
            let address: Address = address?;
            if !entry.mark_deleted(&address) {
                remove_rows(store, cleanup, &address);
                if cleanup.len() >= SWEPT_ROWS_MAX {
                    commit(store, std::mem::take(cleanup))?;
                }
            }
        }
    }
    Ok(entry)
}

fn load_tail(store: &Store, state: &mut ShardState, rows: &BTreeMap<Partition, PartitionRow>) -> Result<(), Error> {
    for (partition, row) in rows {
        let after = state.covered.get(partition).copied().unwrap_or(-1);
        let deleted: HashSet<Address> = store.deleted(partition, after, row.offset).collect::<Result<_, _>>()?;
        for document in store.documents(partition, after, row.offset) {
            let document = document?;
            if !deleted.contains(&document.address) && !state.gone.contains(&document.address) {
                state.tail.push(Arc::new(document));
            }
        }
    }
    state.waiting_since = (state.tail.documents() > 0).then(std::time::Instant::now);
    Ok(())
}

fn commit(store: &Store, batch: WriteBatch) -> Result<(), Error> {
    // A read-only store can skip this: the next opening repeats the cleanup.
    if batch.is_empty() || store.is_read_only() {
        return Ok(());
    }
    store.commit_synced(batch).map_err(|error| store.unwritten(error))
}

#[cfg(test)]
mod tests;
