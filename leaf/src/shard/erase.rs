//! Erases what changes have deleted: some time after a delete, no file of the shard has its documents any more.
//!
//! When the oldest change is due, a pass begins for all changes until then:
//! 1. Splits with such documents are built again without them, one after another; micro-splits are written to disk.
//! 2. Once no read view holds the old ones, the writer removes the rows and the keys of the documents.
//! 3. The store writes its files around these rows again.
//! 4. The writer removes the gone ranges: nothing is left to hide.
//!
//! All of it runs in turn with the merges of the shard, so that no two builds replace the same split. After a crash or a
//! failure another pass begins, and finds what is left.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use proto::{
    Address, Code, Problem,
    place_ranges::{Place, PlaceRanges},
};
use tracing::{info, warn};

use super::{
    gone::GoneRanges,
    job::Job,
    open_shard::Shard,
    state::LiveSegment,
    sweep::{overlap, sweep},
};
use crate::{
    error::Error,
    options::LeafOptions,
    store::{GoneRangeRow, Partition, Ranges},
};

/// Documents that are erased in one write.
const ERASED_DOCUMENTS_MAX: usize = 5_000;
/// Their total size; about this much is read to find them.
const ERASED_BYTES_MAX: usize = 16 << 20;
/// How soon to look again whether read views still hold replaced splits, or whether the store keeps up again.
const HELD_WAIT: Duration = Duration::from_secs(1);
/// How soon to try again after a failure, or if the shard has not read the records of a change yet.
const RETRY_WAIT: Duration = Duration::from_secs(60);

/// What there is to erase.
pub(super) enum Erasure {
    /// Nothing.
    Nothing,
    /// Something, but not before this time.
    At(Instant),
    /// Documents of this split: it must be built again first.
    Rebuild(Box<LiveSegment>),
}

/// A pass: what it erases stays the same until it ends, whatever is deleted meanwhile.
pub(crate) struct ErasePass {
    gone: GoneRanges,
    /// The partition and the change of each row.
    rows: Arc<BTreeSet<(Partition, i64)>>,
}

/// Documents whose rows and keys are removed in one write; at least one.
pub(crate) struct ErasedDocuments {
    /// Where they are, with the keys of those that have one.
    pub documents: Vec<(Address, Option<Box<str>>)>,
}

/// Ranges to be forgotten: their documents are erased.
pub(crate) struct ForgottenRanges {
    /// The partition and the change of each row.
    pub rows: Arc<BTreeSet<(Partition, i64)>>,
}

/// What changed before this time is to be erased, in milliseconds since 1970.
pub(crate) fn erase_before_ms(options: &LeafOptions) -> i64 {
    let kept_ms = i64::try_from(options.deleted_kept.as_millis()).unwrap_or(i64::MAX);
    Utc::now().timestamp_millis().saturating_sub(kept_ms)
}

/// Erases what is due, or says what comes first. Waits for the writer. A failure is reported, and ends the pass.
pub(super) fn erase(shard: &Arc<Shard>) -> Erasure {
    let step = match shard.services.disk.full().is_some() {
        // It needs space before it frees any.
        true => Ok(Erasure::At(Instant::now() + RETRY_WAIT)),
        false => step(shard),
    };
    step.unwrap_or_else(|error| match error {
        Error::Problem(problem) if problem.code == Code::Busy => Erasure::At(Instant::now() + HELD_WAIT),
        error => {
            warn!(shard = %shard.id, %error, "could not erase deleted documents; this will be retried");
            *shard.erase_pass.lock() = None;
            Erasure::At(Instant::now() + RETRY_WAIT)
        }
    })
}

fn step(shard: &Arc<Shard>) -> Result<Erasure, Error> {
    let running = shard.erase_pass.lock().clone();
    let pass = match running {
        Some(pass) => pass,
        None => {
            let Some((_, oldest_ms)) = shard.with_state(|state| state.gone.unerased()) else {
                return Ok(Erasure::Nothing);
            };
            if let Some(wait) = wait_for(oldest_ms, erase_before_ms(&shard.options)) {
                return Ok(Erasure::At(Instant::now() + wait));
            }
            let (pass, oldest_ms) = ErasePass::new(shard)?;
            // A change whose records the shard never reads is not to begin a pass again and again.
            let wait = oldest_ms.map_or(Some(RETRY_WAIT), |oldest_ms| {
                wait_for(oldest_ms, erase_before_ms(&shard.options)).map(|wait| wait.max(RETRY_WAIT))
            });
            if let Some(wait) = wait {
                return Ok(Erasure::At(Instant::now() + wait));
            }
            let pass = Arc::new(pass);
            *shard.erase_pass.lock() = Some(pass.clone());
            pass
        }
    };
    // A tail that is being indexed may have such documents, and a view of that moment may read them.
    let (segments, is_indexing) = shard.with_state(|state| (state.segments.clone(), state.is_indexing));
    let is_concerned = |entry: &LiveSegment| {
        pass.gone
            .iter()
            .any(|(partition, ranges)| entry.has_any(partition, ranges))
    };
    match segments.into_iter().find(is_concerned) {
        Some(entry) if entry.on_disk => return Ok(Erasure::Rebuild(Box::new(entry))),
        Some(_) => {
            shard.request_split();
            return Ok(Erasure::At(Instant::now() + HELD_WAIT));
        }
        None if is_indexing => return Ok(Erasure::At(Instant::now() + HELD_WAIT)),
        None => {}
    }
    sweep(shard)?;
    let records: Ranges = pass.gone.iter().filter_map(records_of).collect();
    if shard.obsolete.lock().iter().any(|set| overlap(&set.ranges, &records)) {
        return Ok(Erasure::At(Instant::now() + HELD_WAIT));
    }
    let documents = remove_documents(shard, &pass.gone)?;
    for (partition, ranges) in pass.gone.iter() {
        check_open(shard)?;
        shard.store.rewrite_documents(partition, ranges)?;
    }
    check_open(shard)?;
    shard.store.rewrite_keys()?;
    shard.store.renew_manifest()?;
    let rows = pass.rows.clone();
    shard.run_job(|done| Job::Forget(ForgottenRanges { rows }, done))?;
    *shard.erase_pass.lock() = None;
    info!(shard = %shard.id, documents, "erased deleted documents");
    Ok(Erasure::At(Instant::now()))
}

impl ErasePass {
    /// A pass over all changes whose records the shard has read: a document that is read later must be found in its range.
    /// Also returns when the oldest of them was requested, in milliseconds since 1970.
    fn new(shard: &Shard) -> Result<(Self, Option<i64>), Error> {
        let positions = shard.with_state(|state| state.rows.clone());
        let has_read = |partition: &Partition, row: &GoneRangeRow| {
            let offset = positions.get(partition).map_or(-1, |row| row.offset);
            let end = |ranges: &PlaceRanges| ranges.span().map_or(Place::default(), |(_, end)| end);
            end(&row.deleted).max(end(&row.expired)) <= Place::first(offset.saturating_add(1))
        };
        let mut rows = BTreeSet::new();
        let read = shard.store.gone_ranges().filter(|row| {
            row.as_ref().map_or(true, |(partition, change, row)| {
                has_read(partition, row) && rows.insert((partition.clone(), *change))
            })
        });
        let gone = GoneRanges::of_rows(read)?;
        let oldest_ms = gone.unerased().map(|(_, oldest_ms)| oldest_ms);
        let rows = Arc::new(rows);
        Ok((Self { gone, rows }, oldest_ms))
    }
}

/// Fails if the shard closes: another process, or this one, goes on later. Or if it has left this leaf.
fn check_open(shard: &Shard) -> Result<(), Error> {
    match shard.scheduler.is_stopped() || shard.failure().is_some() || shard.has_left() {
        true => Err(Problem::new(Code::Unavailable, "the shard is closing").into()),
        false => Ok(()),
    }
}

/// How long until a change of this time is due; none if it is.
fn wait_for(time_ms: i64, before_ms: i64) -> Option<Duration> {
    let wait_ms = u64::try_from(time_ms.saturating_sub(before_ms)).unwrap_or_default();
    (wait_ms > 0).then(|| Duration::from_millis(wait_ms))
}

/// The records that ranges of a partition span.
fn records_of((partition, ranges): (&Partition, &PlaceRanges)) -> Option<(Partition, (i64, i64))> {
    let (from, to) = ranges.span()?;
    Some((partition.clone(), (from.offset - 1, to.offset)))
}

/// Removes the rows and the keys of documents. Returns how many there were.
fn remove_documents(shard: &Arc<Shard>, gone: &GoneRanges) -> Result<u64, Error> {
    let (mut documents, mut bytes, mut removed) = (Vec::new(), 0, 0);
    let ranges = gone
        .iter()
        .flat_map(|(partition, ranges)| ranges.iter().map(move |range| (partition, range)));
    for (partition, range) in ranges {
        for document in shard.store.documents_in(partition, range) {
            let document = document?;
            bytes += document.bytes.len();
            documents.push((document.address, document.header.id));
            if documents.len() >= ERASED_DOCUMENTS_MAX || bytes >= ERASED_BYTES_MAX {
                removed += documents.len() as u64;
                remove(shard, std::mem::take(&mut documents))?;
                bytes = 0;
            }
        }
    }
    removed += documents.len() as u64;
    remove(shard, documents)?;
    Ok(removed)
}

fn remove(shard: &Arc<Shard>, documents: Vec<(Address, Option<Box<str>>)>) -> Result<(), Error> {
    check_open(shard)?;
    if documents.is_empty() {
        return Ok(());
    }
    Ok(shard.run_job(|done| Job::Erase(ErasedDocuments { documents }, done))?)
}
