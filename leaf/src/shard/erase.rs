//! Erases what changes have deleted: some time after a delete, no file of the shard has its documents any more.
//!
//! 1. Splits with such documents are built again without them, one after another; micro-splits are written to disk.
//! 2. Once no read view holds the old ones, the writer removes the rows and the keys of the documents.
//! 3. The store writes its files around these rows again.
//! 4. The writer removes the gone ranges: nothing is left to hide.
//!
//! All of it runs in turn with the merges of the shard, so that no two builds replace the same split. After a crash it
//! begins again, and finds what is left.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use proto::{
    Address, Code,
    place_ranges::{Place, PlaceRange, PlaceRanges, range_of},
};
use tracing::info;

use super::{
    gone::GoneRanges,
    job::Job,
    open_shard::Shard,
    state::LiveSegment,
    sweep::{SWEEP_EVERY, overlap, sweep},
};
use crate::{
    error::Error,
    options::LeafOptions,
    store::{Partition, Ranges},
};

/// Documents that are erased in one write.
const ERASED_DOCUMENTS_MAX: usize = 5_000;
/// Their total size; about this much is read to find them.
const ERASED_BYTES_MAX: usize = 16 << 20;
/// How soon to look again for records that the shard has not read yet.
const UNREAD_WAIT: Duration = Duration::from_secs(10);
/// How long to wait for a change, whatever the clock of its broker says.
const WAIT_MS_MAX: u64 = 3_600_000;
/// How soon to try again if the store cannot keep up.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What there is to erase.
pub(super) enum Erasure {
    /// Nothing.
    Nothing,
    /// Something, but not before this time.
    At(Instant),
    /// Documents of this split: it must be built again first.
    Rebuild(Box<LiveSegment>),
}

/// Documents whose rows and keys are removed in one write; at least one.
pub(crate) struct ErasedDocuments {
    /// Where they are, with the keys of those that have one.
    pub documents: Vec<(Address, Option<Box<str>>)>,
}

/// Ranges to be forgotten: their documents are erased.
pub(crate) struct ForgottenRanges {
    /// The partition and the change of each row.
    pub rows: Vec<(Partition, i64)>,
}

/// What changed before this time is to be erased, in milliseconds since 1970.
pub(crate) fn erase_before_ms(options: &LeafOptions) -> i64 {
    let kept_ms = i64::try_from(options.deleted_kept.as_millis()).unwrap_or(i64::MAX);
    Utc::now().timestamp_millis().saturating_sub(kept_ms)
}

/// Erases what is due, or says what comes first. Waits for the writer.
pub(super) fn erase(shard: &Arc<Shard>) -> Result<Erasure, Error> {
    let Some((_, oldest_ms)) = shard.with_state(|state| state.gone.unerased()) else {
        return Ok(Erasure::Nothing);
    };
    if let Some(wait) = wait_for(oldest_ms, erase_before_ms(&shard.options)) {
        return Ok(Erasure::At(Instant::now() + wait));
    }
    // It needs space before it frees any.
    if shard.services.disk.full().is_some() {
        return Ok(Erasure::At(Instant::now() + UNREAD_WAIT));
    }
    match erase_due(shard) {
        Err(Error::Problem(problem)) if problem.code == Code::Busy => Ok(Erasure::At(Instant::now() + BUSY_WAIT)),
        erased => erased,
    }
}

fn erase_due(shard: &Arc<Shard>) -> Result<Erasure, Error> {
    let (due, rows, next) = due(shard)?;
    if rows.is_empty() {
        return Ok(next.map_or(Erasure::Nothing, Erasure::At));
    }
    let segments = shard.with_state(|state| state.segments.clone());
    let mut concerned = segments
        .into_iter()
        .filter(|entry| due.iter().any(|(partition, ranges)| entry.has_any(partition, ranges)));
    if let Some(entry) = concerned.next() {
        if entry.on_disk {
            return Ok(Erasure::Rebuild(Box::new(entry)));
        }
        shard.request_split();
        return Ok(Erasure::At(Instant::now() + SWEEP_EVERY));
    }
    sweep(shard)?;
    let records: Ranges = due.iter().filter_map(records_of).collect();
    if shard.obsolete.lock().iter().any(|set| overlap(&set.ranges, &records)) {
        return Ok(Erasure::At(Instant::now() + SWEEP_EVERY));
    }
    let mut documents = 0;
    for (partition, ranges) in due.iter() {
        for range in ranges.iter() {
            documents += erase_documents(shard, partition, range)?;
        }
        shard.store.rewrite(partition, ranges)?;
    }
    shard.store.rewrite_keys()?;
    shard.store.renew_manifest()?;
    shard.run_job(|done| Job::Forget(ForgottenRanges { rows }, done))?;
    info!(shard = %shard.id, documents, "erased deleted documents");
    Ok(next.map_or(Erasure::Nothing, Erasure::At))
}

/// The gone ranges that are due, the partition and the change of each of their rows, and when the next ones are.
fn due(shard: &Shard) -> Result<(GoneRanges, Vec<(Partition, i64)>, Option<Instant>), Error> {
    let before_ms = erase_before_ms(&shard.options);
    let (mut due, mut rows, mut next) = (GoneRanges::default(), Vec::new(), None::<Instant>);
    for row in shard.store.gone_ranges() {
        let (partition, change, row) = row?;
        // A document that is read later must be found in the range.
        let unread = || (!has_read(shard, &partition, &row.ranges)).then_some(UNREAD_WAIT);
        let wait = wait_for(row.time_ms, before_ms).or_else(unread);
        match wait {
            Some(wait) => {
                let at = Instant::now() + wait;
                next = Some(next.map_or(at, |next| next.min(at)));
            }
            None => {
                due.add(change, &partition, &row);
                rows.push((partition, change));
            }
        }
    }
    Ok((due, rows, next))
}

/// How long until a change of this time is due; none if it is.
fn wait_for(time_ms: i64, before_ms: i64) -> Option<Duration> {
    let wait_ms = u64::try_from(time_ms.saturating_sub(before_ms)).unwrap_or_default();
    (wait_ms > 0).then(|| Duration::from_millis(wait_ms.min(WAIT_MS_MAX)))
}

/// Whether the shard has read all records in these ranges.
fn has_read(shard: &Shard, partition: &Partition, ranges: &PlaceRanges) -> bool {
    let offset = shard.with_state(|state| state.row(partition).offset);
    ranges
        .span()
        .is_none_or(|(_, end)| end <= Place::first(offset.saturating_add(1)))
}

/// The records that ranges of a partition span.
fn records_of((partition, ranges): (&Partition, &PlaceRanges)) -> Option<(Partition, (i64, i64))> {
    let (from, to) = ranges.span()?;
    Some((partition.clone(), (from.offset - 1, to.offset)))
}

/// Removes the rows and the keys of the documents in a range. Returns how many there were.
fn erase_documents(shard: &Arc<Shard>, partition: &Partition, range: PlaceRange) -> Result<u64, Error> {
    let (mut from, to) = range;
    let mut erased = 0;
    loop {
        let (mut documents, mut bytes) = (Vec::new(), 0);
        for document in shard.store.documents_in(partition, (from, to)) {
            let document = document?;
            bytes += document.bytes.len();
            from = range_of(document.address.offset, document.address.item).1;
            documents.push((document.address, document.header.id));
            if documents.len() >= ERASED_DOCUMENTS_MAX || bytes >= ERASED_BYTES_MAX {
                break;
            }
        }
        if documents.is_empty() {
            return Ok(erased);
        }
        erased += documents.len() as u64;
        shard.run_job(|done| Job::Erase(ErasedDocuments { documents }, done))?;
    }
}
