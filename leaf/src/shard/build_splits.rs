//! Builds splits on disk: from micro-splits, by merging adjacent splits, and anew for a split that is damaged or mostly
//! deleted. Large parts, of micro-splits or of splits, are copied as they are. Every other split is built from the raw
//! rows of the live documents; indexes are never merged.
//!
//! The file is on disk under its final name before the manifest row that names it, and the row is synced before the
//! state changes. Replaced segments are removed when no read view holds them any more (`sweep.rs`).

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use proto::{Address, Code, Problem};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    erase::{Erasure, erase},
    obsolete::ObsoleteSegments,
    open_shard::Shard,
    scheduler::Task,
    state::{LiveSegment, extend},
    sweep::{remove_file, sweep},
};
use crate::{
    document::Document,
    error::Error,
    fault,
    split::{PART_BYTES_MAX, Segment, SplitOrigin},
    store::{Family, ManifestRow, Ranges, RowKey, RowKind, Store, WriteBatch, WriteError, manifest::file_name},
};

/// How often and how long a build waits for a stalled store: a minute in total.
const STALL_RETRIES_MAX: usize = 600;
const STALL_PAUSE: Duration = Duration::from_millis(100);
/// Parts of micro-splits are written as they are if they have this many raw bytes on average. Smaller ones are built
/// again as fewer and larger parts, because every query opens each part.
const MEMORY_PART_BYTES_MIN: u64 = 4 << 20;
/// A merge copies the parts of its splits if they have this many raw bytes on average: a new build could make them at
/// most half as large again.
const DISK_PART_BYTES_MIN: u64 = PART_BYTES_MAX as u64 * 2 / 3;

/// Writes the micro-splits to a split on disk, if there are enough of them or ingest is idle. Returns when to run
/// again.
pub(crate) fn split(shard: &Arc<Shard>) -> Result<Option<Instant>, Error> {
    if shard.store.is_read_only() {
        return Ok(None);
    }
    let options = &shard.options;
    let (segments, idle_from) = shard.with_state(|state| {
        let memory: Vec<LiveSegment> = state.segments.iter().filter(|entry| !entry.on_disk).cloned().collect();
        (memory, state.changed_at)
    });
    if segments.is_empty() {
        return Ok(None);
    }
    let documents: u64 = segments.iter().map(|entry| u64::from(entry.segment.documents())).sum();
    let bytes: u64 = segments.iter().map(|entry| entry.raw_bytes).sum();
    let requested = shard.split_requested.swap(false, Ordering::Relaxed);
    let enough = requested
        || documents >= options.split_documents as u64
        || bytes >= options.split_bytes as u64
        || segments.len() >= options.memory_segments_max;
    if !enough && idle_from.elapsed() < options.split_idle {
        return Ok(Some(idle_from + options.split_idle));
    }
    build_split(shard, &segments, 0)?;
    shard.scheduler.schedule(Task::Merge, shard, Instant::now());
    Ok(None)
}

/// Merges adjacent splits, rebuilds a split that is damaged or mostly deleted, and erases what was deleted. Returns when
/// to run again.
pub(crate) fn merge(shard: &Arc<Shard>) -> Result<Option<Instant>, Error> {
    if shard.store.is_read_only() {
        return Ok(None);
    }
    let erase_at = match erase(shard) {
        Erasure::Nothing => None,
        Erasure::At(at) => Some(at),
        Erasure::Rebuild(split) => {
            build_split(shard, std::slice::from_ref(&*split), split.generation)?;
            Some(Instant::now())
        }
    };
    // After each step of an erasure, so that neither waits for all of the other.
    let merge_at = merge_splits(shard)?;
    Ok(erase_at.into_iter().chain(merge_at).min())
}

/// Merges adjacent splits, or rebuilds a split that is damaged or mostly deleted. Returns when to run again.
fn merge_splits(shard: &Arc<Shard>) -> Result<Option<Instant>, Error> {
    let options = &shard.options;
    let (disk, idle_from) = shard.with_state(|state| {
        let disk: Vec<LiveSegment> = state.segments.iter().filter(|entry| entry.on_disk).cloned().collect();
        (disk, state.changed_at)
    });
    let (enough, documents_max) = (options.merge_splits.max(2), options.merge_documents_max as u64);
    let (chosen, generation) = match choose(&disk, enough, documents_max) {
        Some(chosen) => chosen,
        None => match first_splits(&disk, enough, documents_max) {
            None => return Ok(None),
            Some(_) if idle_from.elapsed() < options.merge_idle => return Ok(Some(idle_from + options.merge_idle)),
            // A full disk stops ingest, and a merge needs space before it frees any.
            Some(_) if shard.services.disk.full().is_some() => return Ok(Some(Instant::now() + options.merge_idle)),
            Some(chosen) => (chosen, 1),
        },
    };
    build_split(shard, chosen, generation)?;
    Ok(Some(Instant::now()))
}

/// Chooses the splits to replace by one, and its generation. A damaged split comes first.
fn choose(disk: &[LiveSegment], count: usize, documents_max: u64) -> Option<(&[LiveSegment], u32)> {
    let documents = |entry: &LiveSegment| u64::from(entry.segment.documents());
    let mergeable = |run: &&[LiveSegment]| {
        let same_generation = run.iter().all(|entry| entry.generation == run[0].generation);
        same_generation && run.iter().map(documents).sum::<u64>() <= documents_max
    };
    if let Some(damaged) = disk.iter().position(|entry| entry.segment.is_damaged()) {
        return Some((&disk[damaged..=damaged], disk[damaged].generation));
    }
    if let Some(run) = disk.windows(count).find(mergeable) {
        return Some((run, run[0].generation + 1));
    }
    let mostly_deleted = disk.iter().position(LiveSegment::is_mostly_deleted)?;
    Some((&disk[mostly_deleted..=mostly_deleted], disk[mostly_deleted].generation))
}

/// The longest run of splits that were never merged, of at least two and fewer than `enough`. Their parts are small, and
/// every question opens each part, so what a burst has left is merged after it.
fn first_splits(disk: &[LiveSegment], enough: usize, documents_max: u64) -> Option<&[LiveSegment]> {
    let mergeable = |run: &&[LiveSegment]| {
        let documents: u64 = run.iter().map(|entry| u64::from(entry.segment.documents())).sum();
        run.iter().all(|entry| entry.generation == 0) && documents <= documents_max
    };
    let counts = 2..enough.min(disk.len() + 1);
    counts.rev().find_map(|count| disk.windows(count).find(mergeable))
}

/// Builds the split that replaces these adjacent segments, and commits it.
fn build_split(shard: &Arc<Shard>, old: &[LiveSegment], generation: u32) -> Result<(), Error> {
    shard.check_here()?;
    let started = Instant::now();
    let mut ranges = Ranges::new();
    old.iter().for_each(|entry| extend(&mut ranges, &entry.ranges));
    let live: u64 = old
        .iter()
        .map(|entry| u64::from(entry.segment.documents()) - entry.deleted.len())
        .sum();
    let id = shard.with_state(|state| state.allocate_id());
    let path = shard.splits.join(file_name(id));
    let mut row = ManifestRow {
        ranges: ranges.clone(),
        order: old[0].order,
        generation,
        documents: live,
        raw_bytes: old.iter().map(|entry| entry.raw_bytes).sum(),
        ..ManifestRow::default()
    };
    if fault::on("manifest-before-files") {
        commit_manifest(shard, Some((id, &row)), old)?;
        fault::crash_point("manifest-before-files");
    }
    let segment = match live {
        0 => None,
        _ => Some(write_file(shard, old, &ranges, &path)?),
    };
    // A split with damaged addresses hides documents, even before the damage is detected.
    if segment.as_ref().map_or(0, |segment| u64::from(segment.documents())) != live {
        return Err(fail_damaged(shard, old, &path));
    }
    if let Some(segment) = &segment {
        row.name_file(segment);
    }
    fault::crash_point("before-manifest");
    let committed = commit_manifest(shard, segment.is_some().then_some((id, &row)), old);
    // If the row was certainly not written, remove the file. After a failed write the row may exist; the next start
    // resolves that.
    if matches!(committed, Err(Error::Problem(_))) {
        drop(std::fs::remove_file(&path));
    }
    committed?;
    fault::crash_point("after-manifest");
    let documents = segment.as_ref().map_or(0, |segment| segment.documents());
    let new = segment.map(|segment| LiveSegment {
        id,
        order: row.order,
        on_disk: true,
        generation,
        ranges: row.ranges,
        raw_bytes: row.raw_bytes,
        segment,
        deleted: Arc::default(),
    });
    replace(shard, old, new, ranges);
    histogram!("rachis_leaf_split_seconds").record(started.elapsed());
    counter!("rachis_leaf_splits_total").increment(1);
    info!(shard = %shard.id, split = id, generation, documents, from = old.len(), "split written");
    Ok(())
}

/// Writes the live documents of these segments to a split file. A file that cannot be written or opened is
/// removed; no manifest row ever names it.
fn write_file(shard: &Shard, old: &[LiveSegment], ranges: &Ranges, path: &Path) -> Result<Arc<Segment>, Error> {
    let segments: Vec<&Segment> = old.iter().map(|entry| &*entry.segment).collect();
    let origin = SplitOrigin {
        uuid: Uuid::now_v7(),
        shard: shard.id,
        ranges: ranges.clone(),
    };
    let segment = match keeps_parts(old) {
        true => Segment::join_to_file(&segments, origin, path),
        false => {
            let documents = live_documents(&shard.store, old, ranges);
            let check = |document| shard.check_here().and(document);
            Segment::to_file(&mut documents.map(check), origin, path)
        }
    };
    Ok(Arc::new(segment.inspect_err(|_| drop(std::fs::remove_file(path)))?))
}

/// Whether the parts of these segments can be written as they are: nothing in them is deleted or damaged, they follow
/// one another in address order, and building them again would not make them much larger.
fn keeps_parts(old: &[LiveSegment]) -> bool {
    let first = |entry: &LiveSegment| entry.segment.address(0);
    let last = |entry: &LiveSegment| entry.segment.address(entry.segment.documents() - 1);
    let (parts, bytes) = old.iter().fold((0, 0), |(parts, bytes), entry| {
        (parts + entry.segment.parts().len() as u64, bytes + entry.raw_bytes)
    });
    let complete =
        |entry: &LiveSegment| entry.deleted.is_empty() && entry.segment.documents() > 0 && !entry.segment.is_damaged();
    let large = match old.iter().any(|entry| entry.on_disk) {
        false => parts == 1 || bytes / parts >= MEMORY_PART_BYTES_MIN,
        true => old.len() > 1 && bytes / parts >= DISK_PART_BYTES_MIN,
    };
    large && old.iter().all(complete) && old.windows(2).all(|pair| last(&pair[0]) < first(&pair[1]))
}

/// Replaces segments in the state, and sweeps.
fn replace(shard: &Shard, old: &[LiveSegment], new: Option<LiveSegment>, ranges: Ranges) {
    {
        // Under the lock, a sweep finds each segment either among the live or among the obsolete ones.
        let mut obsolete = shard.obsolete.lock();
        let replaced = shard.with_state(|state| state.replace(old, new));
        obsolete.push(ObsoleteSegments::of(&shard.splits, replaced, ranges));
    }
    shard.notify_waiters();
    if let Err(error) = sweep(shard) {
        warn!(shard = %shard.id, %error, "could not remove rows of deleted documents; this will be retried");
    }
}

/// Fails the shard because the list of documents of a split is damaged. The shard reopens without the split and
/// rebuilds it from all documents of its ranges.
fn fail_damaged(shard: &Shard, old: &[LiveSegment], new: &Path) -> Error {
    drop(std::fs::remove_file(new));
    let known = old.iter().any(|entry| entry.segment.is_damaged());
    for entry in old
        .iter()
        .filter(|entry| entry.on_disk && (!known || entry.segment.is_damaged()))
    {
        remove_file(shard.splits.join(file_name(entry.id)));
    }
    shard.fail("a split is damaged and its list of documents is incomplete".into());
    Problem::new(
        Code::Unavailable,
        format!(
            "shard {}: a split is damaged and its list of documents is incomplete",
            shard.id
        ),
    )
    .into()
}

/// The live documents of these segments, read from their rows in address order.
fn live_documents<'a>(
    store: &'a Store,
    old: &'a [LiveSegment],
    ranges: &'a Ranges,
) -> impl Iterator<Item = Result<Arc<Document>, Error>> + 'a {
    let is_live = move |address: &Address| {
        let number = old
            .iter()
            .find(|entry| entry.covers(address))
            .and_then(|entry| entry.segment.find(address).map(|n| (entry, n)));
        number.is_some_and(|(entry, number)| !entry.deleted.contains(number))
    };
    let all = ranges
        .iter()
        .flat_map(move |(partition, (after, through))| store.documents(partition, *after, *through));
    all.filter(move |row| row.as_ref().map_or(true, |document| is_live(&document.address)))
        .map(|row| row.map(Arc::new))
}

fn commit_manifest(shard: &Shard, new: Option<(u64, &ManifestRow)>, old: &[LiveSegment]) -> Result<(), Error> {
    let key = |id: u64| RowKey::new(RowKind::Manifest).signed(id.cast_signed()).bytes();
    let commit = || {
        let mut batch = WriteBatch::default();
        for entry in old.iter().filter(|entry| entry.on_disk) {
            shard.store.delete(&mut batch, Family::Meta, &key(entry.id));
        }
        if let Some((id, row)) = new {
            shard.store.put(&mut batch, Family::Meta, &key(id), &row.encode());
        }
        shard.store.commit_synced(batch)
    };
    // The split is already built, so wait for a stalled store.
    let mut committed = commit();
    for _ in 0..STALL_RETRIES_MAX {
        if !matches!(committed, Err(WriteError::Stalled)) || shard.scheduler.is_stopped() || shard.has_left() {
            break;
        }
        std::thread::sleep(STALL_PAUSE);
        committed = commit();
    }
    shard.check_written(committed)
}

#[cfg(test)]
mod tests {
    use proto::ingest::BatchOutcome;

    use super::*;
    use crate::tests::support::{Fixture, record, small};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shard_that_has_left_ends_its_builds_and_closes_with_what_is_in_no_split() {
        let fixture = Fixture::start(|options| {
            small(options);
            options.split_documents = usize::MAX;
            options.split_idle = Duration::from_hours(1);
        });
        let mut micro_splits = 0;
        for offset in (0..100).step_by(10) {
            let records = (offset..offset + 10)
                .map(|offset| record(offset, None, Some("{}")))
                .collect();
            let batch = fixture.batch(0, offset - 1, offset + 9, records);
            assert_eq!(fixture.write(batch).await, BatchOutcome::Applied { stored: offset + 9 });
            // A query has the tail indexed.
            assert_eq!(fixture.documents().await.len() as i64, offset + 10);
            micro_splits = fixture.view().await.segments.len();
            if micro_splits > 1 {
                break;
            }
        }
        assert!(micro_splits > 1);
        let shard = fixture.leaf.shard(fixture.shard).await.expect("a shard");
        let segments = shard.with_state(|state| state.segments.clone());
        shard.end_builds();
        // A build that had begun before.
        let mut ranges = Ranges::new();
        segments.iter().for_each(|entry| extend(&mut ranges, &entry.ranges));
        let path = shard.splits.join(file_name(99));
        assert!(!keeps_parts(&segments));
        let ended = write_file(&shard, &segments, &ranges, &path)
            .err()
            .expect("it has left");
        assert!(ended.to_string().contains("was moved to another leaf"), "{ended}");
        shard.split_requested.store(true, Ordering::Relaxed);
        let ended = split(&shard).expect_err("it has left");
        assert!(ended.to_string().contains("was moved to another leaf"), "{ended}");
        let files = std::fs::read_dir(fixture.splits_folder()).into_iter().flatten();
        assert_eq!(files.count(), 0);
        assert!(matches!(shard.run(Task::Split), Ok(None)), "it is not tried again");
        let can_close = async |_: &Fixture| shard.can_retire();
        fixture.eventually("it can be closed", can_close).await;
        let (documents, _) = shard.with_state(|state| state.unsplit());
        assert!(documents > shard.options.index_tail_documents);
    }
}
