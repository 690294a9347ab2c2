//! Summary: the status of a closed shard. A file beside its rows, written when the shard closes cleanly and removed
//! when it opens, before the first write. So its content always matches the store.
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
    Kinds, Path, PathKinds,
    scan::{PathIndex, PathStatus, ShardStatus, SplitStatus},
};
use proto::{
    PositionVector, SourceName,
    ingest::{Loss, Outcomes, ShardId, StoredRange},
};

use super::{replica::Shard, state::LiveSegment};
use crate::{
    codec::{DecodeError, DecodeResult, ValueReader, ValueWriter, decode_error},
    error::Error,
    split::Segment,
    store::{Partition, PartitionRow, loss},
};

const VERSION: u8 = 2;
const FILE_NAME: &str = "SUMMARY";
/// The file that names RocksDB's manifest. Its content changes with each opening.
const CURRENT: &str = "CURRENT";

/// The status of a shard, available without its store.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Summary {
    /// The rows of its partitions.
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
    pub(crate) fn stored(&self, source: &SourceName, partition: i32) -> StoredRange {
        stored(&self.rows, source, partition)
    }

    /// Writes the summary to the folder of a closed store.
    pub(crate) fn write(&self, rows: &FilePath) -> io::Result<()> {
        let body = self.encode(&fs::read(rows.join(CURRENT))?);
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
        let (current, summary) = Self::decode(body).ok()?;
        (fs::read(rows.join(CURRENT)).ok()? == current).then_some(summary)
    }

    /// Removes the summary durably, before the first write to the store.
    pub(crate) fn remove(rows: &FilePath) -> io::Result<()> {
        match fs::remove_file(rows.join(FILE_NAME)) {
            Ok(()) => File::open(rows)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn encode(&self, current: &[u8]) -> Vec<u8> {
        let mut to = ValueWriter::new(VERSION)
            .bytes(current)
            .number(self.tail)
            .number(self.bytes)
            .number(self.rows.len() as u64);
        for (partition, row) in &self.rows {
            to = partition.encode_into(to).bytes(&row.encode());
        }
        to = to.number(self.losses.len() as u64);
        for one in &self.losses {
            to = to.bytes(&loss::key(one)).bytes(&loss::encode(one));
        }
        to = to.number(self.splits.len() as u64);
        for split in &self.splits {
            let numbers = [
                split.id,
                u64::from(split.generation),
                split.documents,
                split.deleted,
                split.bytes,
                split.paths,
            ];
            to = numbers.into_iter().fold(to, ValueWriter::number);
        }
        to = to.number(self.fields.len() as u64);
        for field in &self.fields {
            to = to
                .bytes(field.path.to_string().as_bytes())
                .number(u64::from(field.kinds.0))
                .number(field.documents);
            to = to
                .bytes(field.indexed.as_str().as_bytes())
                .byte(u8::from(field.sample.is_some()));
            to = to.bytes(field.sample.as_deref().unwrap_or_default().as_bytes());
        }
        match self.oldest_dead_letter_ms {
            Some(oldest) => to.byte(1).signed(oldest).finish(),
            None => to.byte(0).finish(),
        }
    }

    fn decode(body: &[u8]) -> DecodeResult<(Vec<u8>, Self)> {
        if body.first() != Some(&VERSION) {
            return decode_error("it has another version");
        }
        let mut from = ValueReader::new(body, "summary of the shard", VERSION)?;
        let current = from.bytes()?.to_vec();
        let mut summary = Self {
            tail: from.number()?,
            bytes: from.number()?,
            ..Self::default()
        };
        for _ in 0..from.number()? {
            let partition = Partition::decode_from(&mut from)?;
            let row = PartitionRow::decode(from.bytes()?)?;
            summary.rows.insert(partition, row);
        }
        for _ in 0..from.number()? {
            let key = from.bytes()?;
            summary.losses.push(loss::decode(key, from.bytes()?)?);
        }
        for _ in 0..from.number()? {
            summary.splits.push(SplitStatus {
                id: from.number()?,
                on_disk: true,
                generation: from.small()?,
                documents: from.number()?,
                deleted: from.number()?,
                bytes: from.number()?,
                paths: from.number()?,
            });
        }
        for _ in 0..from.number()? {
            summary.fields.push(decode_field(&mut from)?);
        }
        summary.oldest_dead_letter_ms = (from.byte()? != 0).then(|| from.signed()).transpose()?;
        Ok((current, summary))
    }
}

fn decode_field(from: &mut ValueReader) -> DecodeResult<PathStatus> {
    let path = Path::try_from(from.text()?.to_owned()).map_err(DecodeError::Malformed)?;
    let (kinds, documents, indexed) = (Kinds(from.small()?), from.number()?, from.text()?);
    let indexed = PathIndex::ALL
        .into_iter()
        .find(|index| index.as_str() == indexed)
        .ok_or_else(|| DecodeError::Malformed(format!("unknown kind of index: {indexed}")))?;
    let has_sample = from.byte()? != 0;
    let sample = from.text()?.to_owned();
    Ok(PathStatus {
        path,
        kinds,
        documents,
        indexed,
        sample: has_sample.then_some(sample),
    })
}

/// What is stored of a partition.
pub(crate) fn stored(rows: &BTreeMap<Partition, PartitionRow>, source: &SourceName, partition: i32) -> StoredRange {
    let row = rows
        .get(&Partition {
            source: source.clone(),
            number: partition,
        })
        .cloned()
        .unwrap_or_default();
    StoredRange {
        topic: row.topic,
        offset: row.offset,
        hash: row.hash,
        stopped_by_dead_letters: row.stopped_by_dead_letters,
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
    let mut positions = PositionVector::default();
    rows.iter()
        .for_each(|(partition, row)| positions.advance(&partition.source, partition.number, row.offset));
    let outcomes = rows
        .values()
        .fold(Outcomes::default(), |sum, row| add(sum, &row.outcomes));
    ShardStatus {
        shard,
        positions,
        outcomes,
        tail,
        splits,
        bytes,
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

fn add(a: Outcomes, b: &Outcomes) -> Outcomes {
    Outcomes {
        events: a.events + b.events,
        accepted: a.accepted + b.accepted,
        tombstones: a.tombstones + b.tombstones,
        duplicates: a.duplicates + b.duplicates,
        dead_letters: a.dead_letters + b.dead_letters,
        superseded: a.superseded + b.superseded,
        deleted: a.deleted + b.deleted,
        expired: a.expired + b.expired,
        documents: a.documents + b.documents,
        bytes: a.bytes + b.bytes,
    }
}

#[cfg(test)]
mod tests;
