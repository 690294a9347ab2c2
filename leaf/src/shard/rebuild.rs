//! Segments -> one split on disk, built again from the raw rows of their run; what is gone is left out.
//!
//! The file is on disk under its name before the manifest row that names it, and the row is synced before the state
//! changes. What was replaced goes when no view holds it any more.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use proto::{Address, Code, Problem};
use tracing::{info, warn};

use super::{
    Shard,
    state::{Indexed, extend},
    work::Task,
};
use crate::{
    document::Document,
    error::Error,
    fault,
    split::Segment,
    store::{Family, Kind, ManifestRow, Partition, Ranges, RowKey, Store, Unwritten, WriteBatch, manifest::file_name},
};

/// Rows of gone documents that are removed in one write.
pub(super) const SWEPT_ROWS_MAX: usize = 10_000;

/// How often and how long a build waits for a store that stalls: a minute in all.
const STALLED_TRIES_MAX: usize = 600;
const STALLED_PAUSE: Duration = Duration::from_millis(100);

/// Segments that were replaced, kept until no view holds them.
pub struct Grave {
    segments: Vec<Arc<Segment>>,
    files: Vec<PathBuf>,
    ranges: Ranges,
    unheld: bool,
}

impl Grave {
    fn of(shard: &Shard, replaced: Vec<Indexed>, ranges: Ranges) -> Self {
        let files = replaced
            .iter()
            .filter(|indexed| indexed.on_disk)
            .map(|indexed| shard.splits.join(file_name(indexed.id)))
            .collect();
        Self {
            segments: replaced.into_iter().map(|indexed| indexed.segment).collect(),
            files,
            ranges,
            unheld: false,
        }
    }
}

/// Makes a split of the segments in memory, if there is enough of them or nothing comes in. Answers when to look again.
pub fn split(shard: &Arc<Shard>) -> Result<Option<Instant>, Error> {
    if shard.store.is_read_only() {
        return Ok(None);
    }
    let options = &shard.options;
    let (segments, idle_from) = shard.look(|state| {
        let memory: Vec<Indexed> = state
            .segments
            .iter()
            .filter(|indexed| !indexed.on_disk)
            .cloned()
            .collect();
        (memory, state.changed_at)
    });
    if segments.is_empty() {
        return Ok(None);
    }
    let documents: u64 = segments
        .iter()
        .map(|indexed| u64::from(indexed.segment.documents()))
        .sum();
    let bytes: u64 = segments.iter().map(|indexed| indexed.raw_bytes).sum();
    let hurries = shard.hurries.swap(false, Ordering::Relaxed);
    let enough = hurries
        || documents >= options.split_documents as u64
        || bytes >= options.split_bytes as u64
        || segments.len() >= options.memory_segments_max;
    if !enough && idle_from.elapsed() < options.split_idle {
        return Ok(Some(idle_from + options.split_idle));
    }
    rebuild(shard, &segments, 0)?;
    shard.work.schedule(Task::Compact, shard, Instant::now());
    Ok(None)
}

/// Joins neighbours, or rebuilds a split that is damaged or of which more than half is gone. Answers when to look
/// again.
pub fn compact(shard: &Arc<Shard>) -> Result<Option<Instant>, Error> {
    if shard.store.is_read_only() {
        return Ok(None);
    }
    let options = &shard.options;
    let disk: Vec<Indexed> = shard.look(|state| {
        state
            .segments
            .iter()
            .filter(|indexed| indexed.on_disk)
            .cloned()
            .collect()
    });
    let Some((chosen, generation)) = choose(&disk, options.merge_splits.max(2), options.merge_documents_max as u64)
    else {
        return Ok(None);
    };
    rebuild(shard, chosen, generation)?;
    Ok(Some(Instant::now()))
}

/// The splits to rebuild into one, and its generation: a damaged one first.
fn choose(disk: &[Indexed], count: usize, documents_max: u64) -> Option<(&[Indexed], u32)> {
    let documents = |indexed: &Indexed| u64::from(indexed.segment.documents());
    let joins = |run: &&[Indexed]| {
        let alike = run.iter().all(|indexed| indexed.generation == run[0].generation);
        alike && run.iter().map(documents).sum::<u64>() <= documents_max
    };
    if let Some(damaged) = disk.iter().position(|indexed| indexed.segment.is_damaged()) {
        return Some((&disk[damaged..=damaged], disk[damaged].generation));
    }
    if let Some(run) = disk.windows(count).find(joins) {
        return Some((run, run[0].generation + 1));
    }
    let hollow = disk.iter().position(Indexed::is_hollow)?;
    Some((&disk[hollow..=hollow], disk[hollow].generation))
}

/// Builds the split that replaces these neighbours.
fn rebuild(shard: &Arc<Shard>, old: &[Indexed], generation: u32) -> Result<(), Error> {
    let started = Instant::now();
    let mut ranges = Ranges::new();
    old.iter().for_each(|indexed| extend(&mut ranges, &indexed.ranges));
    let live: u64 = old
        .iter()
        .map(|indexed| u64::from(indexed.segment.documents()) - indexed.gone.len())
        .sum();
    let id = shard.look(|state| state.draw_id());
    let path = shard.splits.join(file_name(id));
    let row = ManifestRow {
        ranges: ranges.clone(),
        place: old[0].place,
        generation,
        documents: live,
        raw_bytes: old.iter().map(|i| i.raw_bytes).sum(),
    };
    if fault::on("manifest-before-files") {
        commit_manifest(shard, Some((id, &row)), old)?;
        fault::crash_point("manifest-before-files");
    }
    let segment = match live {
        0 => None,
        // A split that does not read back is in no manifest.
        _ => Some(Arc::new(
            Segment::to_file(&mut rows(&shard.store, old, &ranges), &path)
                .inspect_err(|_| drop(std::fs::remove_file(&path)))?,
        )),
    };
    // A split whose addresses are damaged hides documents, also before anybody has noticed.
    if segment.as_ref().map_or(0, |segment| u64::from(segment.documents())) != live {
        return Err(distrust(shard, old, &path));
    }
    fault::crash_point("before-manifest");
    let committed = commit_manifest(shard, segment.is_some().then_some((id, &row)), old);
    // What was surely not written leaves no file; after a failure the row may be there, and the next start knows.
    if matches!(committed, Err(Error::Problem(_))) {
        drop(std::fs::remove_file(&path));
    }
    committed?;
    fault::crash_point("after-manifest");
    let documents = segment.as_ref().map_or(0, |segment| segment.documents());
    let new = segment.map(|segment| Indexed {
        id,
        place: row.place,
        on_disk: true,
        generation,
        ranges: row.ranges,
        raw_bytes: row.raw_bytes,
        segment,
        gone: Arc::default(),
    });
    {
        // Whoever sweeps finds a segment among the live ones or here, and never in neither.
        let mut graves = shard.graves.lock();
        let replaced = shard.look(|state| state.replace(old, new));
        graves.push(Grave::of(shard, replaced, ranges));
    }
    shard.changed.send_modify(|count| *count += 1);
    if let Err(error) = sweep(shard) {
        warn!(shard = %shard.id, %error, "rows of gone documents stay for now");
    }
    histogram!("rachis_leaf_split_seconds").record(started.elapsed());
    counter!("rachis_leaf_splits_total").increment(1);
    info!(shard = %shard.id, split = id, generation, documents, from = old.len(), "split written");
    Ok(())
}

/// A damaged split does not even say which documents it has: the shard opens again without it, and builds it from all
/// documents of its range.
fn distrust(shard: &Shard, old: &[Indexed], new: &std::path::Path) -> Error {
    drop(std::fs::remove_file(new));
    let known = old.iter().any(|indexed| indexed.segment.is_damaged());
    for indexed in old
        .iter()
        .filter(|indexed| indexed.on_disk && (!known || indexed.segment.is_damaged()))
    {
        remove_file(shard.splits.join(file_name(indexed.id)));
    }
    shard.fail("a split is damaged and does not name its documents".into());
    Problem::new(
        Code::Unavailable,
        format!("shard {}: a split is damaged and does not name its documents", shard.id),
    )
    .into()
}

/// The documents that live in these segments, from their rows, in address order.
fn rows<'a>(
    store: &'a Store,
    old: &'a [Indexed],
    ranges: &'a Ranges,
) -> impl Iterator<Item = Result<Arc<Document>, Error>> + 'a {
    let lives = move |address: &Address| {
        let number = old
            .iter()
            .find(|indexed| indexed.covers(address))
            .and_then(|indexed| indexed.segment.find(address).map(|n| (indexed, n)));
        number.is_some_and(|(indexed, number)| !indexed.gone.contains(number))
    };
    let all = ranges
        .iter()
        .flat_map(move |(partition, (after, through))| store.documents(partition, *after, *through));
    all.filter(move |row| row.as_ref().map_or(true, |document| lives(&document.address)))
        .map(|row| row.map(Arc::new))
}

fn commit_manifest(shard: &Shard, new: Option<(u64, &ManifestRow)>, old: &[Indexed]) -> Result<(), Error> {
    let key = |id: u64| RowKey::new(Kind::Manifest).signed(id.cast_signed()).bytes();
    let commit = || {
        let mut batch = WriteBatch::default();
        for indexed in old.iter().filter(|indexed| indexed.on_disk) {
            shard.store.delete(&mut batch, Family::Meta, &key(indexed.id));
        }
        if let Some((id, row)) = new {
            shard.store.put(&mut batch, Family::Meta, &key(id), &row.encode());
        }
        shard.store.commit_synced(batch)
    };
    // The split is built already: a store that stalls is waited for.
    let mut committed = commit();
    for _ in 0..STALLED_TRIES_MAX {
        if !matches!(committed, Err(Unwritten::Stalled)) || shard.work.is_stopped() {
            break;
        }
        std::thread::sleep(STALLED_PAUSE);
        committed = commit();
    }
    written(shard, committed)
}

fn written(shard: &Shard, written: Result<(), Unwritten>) -> Result<(), Error> {
    match written {
        Ok(()) => Ok(()),
        Err(Unwritten::Stalled) => Err(super::writer::busy("the store cannot keep up".into()).into()),
        Err(Unwritten::Failed(source)) => {
            shard.fail(source.to_string());
            Err(Error::Storage {
                shard: shard.id,
                source,
            })
        }
    }
}

/// Removes what no view holds any more: files at once, rows of gone documents when nothing that was replaced in their
/// range is held. Called now and then.
pub fn sweep(shard: &Shard) -> Result<(), Error> {
    if shard.store.is_read_only() {
        return Ok(());
    }
    let mut graves = shard.graves.lock();
    for grave in graves.iter_mut().filter(|grave| !grave.unheld) {
        // Only this list has them, so a count of one cannot grow again.
        grave.unheld = grave.segments.iter().all(|segment| Arc::strong_count(segment) == 1);
        if grave.unheld {
            grave.segments.clear();
            grave.files.drain(..).for_each(remove_file);
        }
    }
    // A row that an older segment lacks may still be read through a younger one that was replaced and is held.
    let held: Vec<Ranges> = graves
        .iter()
        .filter(|grave| !grave.unheld)
        .map(|grave| grave.ranges.clone())
        .collect();
    let swept = graves.extract_if(.., |grave| {
        grave.unheld && !held.iter().any(|held| overlap(held, &grave.ranges))
    });
    let ranges: Vec<Ranges> = swept.map(|grave| grave.ranges).collect();
    drop(graves);
    ranges.iter().try_for_each(|ranges| sweep_rows(shard, ranges))
}

/// Whether a record may be in both.
fn overlap(one: &Ranges, other: &Ranges) -> bool {
    let meets = |(partition, (after, through)): (_, &(i64, i64))| {
        other
            .get(partition)
            .is_some_and(|(other_after, other_through)| after < other_through && other_after < through)
    };
    one.iter().any(meets)
}

fn remove_file(file: PathBuf) {
    if let Err(error) = std::fs::remove_file(&file) {
        warn!(file = %file.display(), %error, "a replaced split could not be removed; it is removed at the next start");
    }
}

/// Removes the rows of documents that are gone and in no segment.
fn sweep_rows(shard: &Shard, ranges: &Ranges) -> Result<(), Error> {
    let mut batch = WriteBatch::default();
    for (partition, (after, through)) in ranges {
        for address in shard.store.gone(partition, *after, *through) {
            let address = address?;
            if is_named(shard, &address) {
                continue;
            }
            remove_rows(&shard.store, &mut batch, &address);
            if batch.len() >= SWEPT_ROWS_MAX {
                written(shard, shard.store.commit(std::mem::take(&mut batch)))?;
            }
        }
    }
    if batch.is_empty() {
        Ok(())
    } else {
        written(shard, shard.store.commit(batch))
    }
}

/// Whether a segment may name a document: a live one, or one that was replaced meanwhile and is held by a view.
fn is_named(shard: &Shard, address: &Address) -> bool {
    let graves = shard.graves.lock();
    let one = Ranges::from([(Partition::of(address), (address.offset - 1, address.offset))]);
    let names = |indexed: &Indexed| indexed.covers(address) && indexed.segment.find(address).is_some();
    graves.iter().any(|grave| overlap(&grave.ranges, &one)) || shard.look(|state| state.segments.iter().any(names))
}

/// Puts the removal of a gone document into a batch.
pub fn remove_rows(store: &Store, batch: &mut WriteBatch, address: &Address) {
    store.delete(
        batch,
        Family::Docs,
        &RowKey::new(Kind::Document).address(address).bytes(),
    );
    store.delete(batch, Family::Meta, &RowKey::new(Kind::Gone).address(address).bytes());
}

/// How long to wait between two sweeps.
pub const SWEEP_EVERY: Duration = Duration::from_millis(500);
