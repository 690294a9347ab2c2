//! Summary: the status of a closed shard. A file beside its rows, written when the shard closes cleanly and removed
//! when it opens, before the first write. So its content always matches the store. It is a hash of the rest and, as
//! JSON, a version, the content of [`CURRENT`] and the summary.
//!
//! It is an optimization. If it is missing, invalid, of another version, or belongs to another state of the store, the
//! shard is opened instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::Path as FilePath,
    sync::Arc,
};

use plan::{
    Path, PathKinds,
    scan::{PathIndex, PathStatus, ShardStatus, SplitStatus},
};
use proto::{
    SourceName,
    catalog::as_list,
    ingest::{Heat, Loss, ShardId, StoredPosition},
};
use serde::{Deserialize, Serialize};

use super::{
    open_shard::Shard,
    state::{LiveSegment, positions},
};
use crate::{
    error::Error,
    split::Segment,
    store::{Partition, PartitionRow},
};

const VERSION: u8 = 4;
const FILE_NAME: &str = "SUMMARY";
/// The file that names RocksDB's manifest. Its content changes with each opening.
const CURRENT: &str = "CURRENT";

/// The status of a shard, available without its store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    #[serde(with = "as_list")]
    pub rows: BTreeMap<Partition, PartitionRow>,
    /// Records that were lost before they could be ingested.
    pub losses: Vec<Loss>,
    /// The number of documents in no split on disk. They are indexed when the shard opens.
    pub tail: u64,
    /// Bytes of rows and splits.
    pub bytes: u64,
    /// Its splits on disk.
    pub splits: Vec<SplitStatus>,
    /// Its paths, with kinds and how they are indexed.
    pub fields: Vec<PathStatus>,
    /// A lower bound of the ingest time of its oldest dead letter; none if it has none.
    pub oldest_dead_letter_ms: Option<i64>,
    /// The offset of the first change whose documents are not erased, and when the first was requested.
    pub unerased: Option<(i64, i64)>,
}

impl Summary {
    /// The summary of an open shard that is no longer used.
    pub(crate) fn of(shard: &Shard) -> Result<Self, Error> {
        let (rows, segments, tail, paths) = shard.with_state(|state| {
            (
                state.rows.clone(),
                state.segments.clone(),
                state.tail.live(),
                state.paths(),
            )
        });
        let (unindexed, _) = shard.with_state(|state| state.unsplit());
        let on_disk: Vec<SplitStatus> = segments
            .iter()
            .filter(|entry| entry.on_disk)
            .map(split_status)
            .collect();
        let bytes = shard.store().bytes() + on_disk.iter().map(|split| split.bytes).sum::<u64>();
        let mut segments: Vec<Arc<Segment>> = segments.into_iter().map(|entry| entry.segment).collect();
        if !tail.is_empty() {
            segments.push(Arc::new(Segment::in_memory(&tail)?));
        }
        Ok(Self {
            oldest_dead_letter_ms: shard.oldest_dead_letter_ms()?,
            unerased: shard.with_state(|state| state.gone.unerased()),
            losses: shard.store().losses()?,
            rows,
            tail: unindexed as u64,
            bytes,
            splits: on_disk,
            fields: fields(&paths, &segments),
        })
    }

    /// The status for `rachis.shards` and `rachis.splits`.
    pub(crate) fn status(&self, shard: ShardId) -> ShardStatus {
        status(shard, &self.rows, self.splits.clone(), self.tail, self.bytes)
    }

    /// What is stored of a partition.
    pub(crate) fn stored(&self, source: &SourceName, partition: i32) -> StoredPosition {
        stored(&self.rows, source, partition)
    }

    /// Writes the summary to the folder of a closed store.
    pub(crate) fn write(&self, rows: &FilePath) -> io::Result<()> {
        let body = serde_json::to_vec(&(VERSION, fs::read(rows.join(CURRENT))?, self))?;
        let temporary = rows.join(format!("{FILE_NAME}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(&xxhash_rust::xxh3::xxh3_64(&body).to_be_bytes())?;
        file.write_all(&body)?;
        file.sync_data()?;
        fs::rename(temporary, rows.join(FILE_NAME))
    }

    /// Reads the summary from the folder of a closed store, if it matches the state of the store.
    pub(crate) fn read(rows: &FilePath) -> Option<Self> {
        let bytes = fs::read(rows.join(FILE_NAME)).ok()?;
        let (sum, body) = bytes.split_first_chunk()?;
        if u64::from_be_bytes(*sum) != xxhash_rust::xxh3::xxh3_64(body) {
            return None;
        }
        let (version, current, summary): (u8, Vec<u8>, Self) = serde_json::from_slice(body).ok()?;
        (version == VERSION && fs::read(rows.join(CURRENT)).ok()? == current).then_some(summary)
    }

    /// Removes the summary durably, before the first write to the store.
    pub(crate) fn remove(rows: &FilePath) -> io::Result<()> {
        match fs::remove_file(rows.join(FILE_NAME)) {
            Ok(()) => File::open(rows)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What is stored of a partition.
pub(crate) fn stored(rows: &BTreeMap<Partition, PartitionRow>, source: &SourceName, partition: i32) -> StoredPosition {
    let row = rows
        .get(&Partition {
            source: source.clone(),
            number: partition,
        })
        .cloned()
        .unwrap_or_default();
    StoredPosition {
        serving: true,
        first: row.topic.is_some().then_some(row.run_from),
        topic: row.topic,
        offset: row.offset,
        last: (row.last_offset >= 0).then_some(row.last_offset),
        hash: row.hash,
        stopped_by_dead_letters: row.stopped_by_dead_letters,
        awaits_copy: false,
    }
}

/// The status of a shard for `rachis.shards` and `rachis.splits`.
pub(crate) fn status(
    shard: ShardId,
    rows: &BTreeMap<Partition, PartitionRow>,
    splits: Vec<SplitStatus>,
    tail: u64,
    bytes: u64,
) -> ShardStatus {
    ShardStatus {
        shard,
        positions: positions(rows),
        outcomes: rows.values().map(|row| row.outcomes).sum(),
        tail,
        splits,
        bytes,
        heat: Heat::default(),
    }
}

/// The status of a segment for `rachis.splits`.
pub(crate) fn split_status(entry: &LiveSegment) -> SplitStatus {
    SplitStatus {
        id: entry.id,
        on_disk: entry.on_disk,
        generation: entry.generation,
        documents: u64::from(entry.segment.documents()),
        deleted: entry.deleted.len(),
        bytes: entry.segment.bytes(),
        paths: entry.segment.paths().iter().filter(|(_, path)| path.column).count() as u64,
    }
}

/// All paths ever seen, with statistics from the segments.
pub(crate) fn fields(paths: &PathKinds, segments: &[Arc<Segment>]) -> Vec<PathStatus> {
    let unknown = |path: &Path, kinds| PathStatus {
        path: path.clone(),
        kinds,
        documents: 0,
        indexed: PathIndex::Raw,
        sample: None,
    };
    let mut fields: BTreeMap<Path, (PathStatus, bool, bool)> = paths
        .paths
        .iter()
        .map(|(path, kinds)| (path.clone(), (unknown(path, *kinds), true, false)))
        .collect();
    for (path, stats) in segments.iter().flat_map(|segment| segment.paths()) {
        let (field, columns, text) = fields
            .entry(path.clone())
            .or_insert_with(|| (unknown(&path, stats.kinds), true, false));
        field.kinds |= stats.kinds;
        field.documents += stats.documents;
        field.sample = field.sample.take().or(stats.sample);
        *columns &= stats.column;
        *text |= stats.postings;
    }
    for segment in segments.iter().filter(|segment| segment.has_untracked()) {
        let seen: BTreeSet<Path> = segment.paths().into_iter().map(|(path, _)| path).collect();
        fields
            .iter_mut()
            .filter(|(path, _)| !seen.contains(path))
            .for_each(|(_, (_, columns, _))| *columns = false);
    }
    let with_indexed = |(mut field, columns, text): (PathStatus, bool, bool)| {
        field.indexed = match (columns, text) {
            (false, _) => PathIndex::Raw,
            (true, true) => PathIndex::Text,
            (true, false) => PathIndex::Columns,
        };
        field
    };
    fields.into_values().map(with_indexed).collect()
}

#[cfg(test)]
mod tests;
