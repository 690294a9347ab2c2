//! Summary: what can be said of a shard that is closed. A file beside its rows, written when the shard closes in order
//! and removed when it opens, before anything is written to it: so what it says is what the store holds.
//!
//! It is a convenience. Where it is missing, does not read back, or belongs to another state of the store, the shard is
//! opened instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::Path as FilePath,
    sync::Arc,
};

use plan::{
    Kinds, Path, PathKinds,
    scan::{FieldStatus, ShardStatus, SplitStatus},
};
use proto::{
    PositionVector, SourceName,
    ingest::{Loss, Outcomes, ShardId, Stored},
};

use super::{Shard, state::Indexed};
use crate::{
    error::Error,
    split::Segment,
    store::{
        Partition, PartitionRow,
        codec::{Read, Reader, Unreadable, Writer},
        loss,
    },
};

const VERSION: u8 = 1;
const FILE: &str = "SUMMARY";
/// The file by which RocksDB finds its manifest; another one after each opening.
const CURRENT: &str = "CURRENT";

/// What can be said of a shard without its store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Its partitions.
    pub rows: BTreeMap<Partition, PartitionRow>,
    /// Records that are gone and were not taken in.
    pub losses: Vec<Loss>,
    /// Documents in no split on disk: they are indexed when the shard is opened.
    pub tail: u64,
    /// Bytes of rows and splits.
    pub bytes: u64,
    /// Its splits.
    pub splits: Vec<SplitStatus>,
    /// Its paths.
    pub fields: Vec<FieldStatus>,
    /// When the oldest of its dead letters was taken in.
    pub oldest_dead_letter_ms: Option<i64>,
}

impl Summary {
    /// Of an open shard in which nothing happens any more.
    pub fn of(shard: &Shard) -> Result<Self, Error> {
        let (rows, segments, tail, paths) = shard.look(|state| {
            (
                state.rows.clone(),
                state.segments.clone(),
                state.tail.live(),
                state.paths(),
            )
        });
        let (unindexed, _) = shard.look(|state| state.unsplit());
        let on_disk: Vec<SplitStatus> = segments
            .iter()
            .filter(|indexed| indexed.on_disk)
            .map(split_status)
            .collect();
        let bytes = shard.store().bytes() + on_disk.iter().map(|split| split.bytes).sum::<u64>();
        let mut segments: Vec<Arc<Segment>> = segments.into_iter().map(|indexed| indexed.segment).collect();
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

    /// As `rachis.shards` and `rachis.splits` show it.
    pub fn status(&self, shard: ShardId) -> ShardStatus {
        status(shard, &self.rows, self.splits.clone(), self.tail, self.bytes)
    }

    /// What is stored of a partition.
    pub fn stored(&self, source: &SourceName, partition: i32) -> Stored {
        stored(&self.rows, source, partition)
    }

    /// Writes it into the folder of a store that is closed.
    pub fn write(&self, rows: &FilePath) -> io::Result<()> {
        let body = self.encode(&fs::read(rows.join(CURRENT))?);
        let temporary = rows.join(format!("{FILE}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(&xxhash_rust::xxh3::xxh3_64(&body).to_be_bytes())?;
        file.write_all(&body)?;
        file.sync_data()?;
        fs::rename(temporary, rows.join(FILE))
    }

    /// The summary in the folder of a store that is closed, if it is of this state of the store.
    pub fn read(rows: &FilePath) -> Option<Self> {
        let bytes = fs::read(rows.join(FILE)).ok()?;
        let (sum, body) = bytes.split_first_chunk()?;
        if u64::from_be_bytes(*sum) != xxhash_rust::xxh3::xxh3_64(body) {
            return None;
        }
        let (current, summary) = Self::decode(body).ok()?;
        (fs::read(rows.join(CURRENT)).ok()? == current).then_some(summary)
    }

    /// Removes it, also for a machine that fails right after: the store is about to be written to.
    pub fn remove(rows: &FilePath) -> io::Result<()> {
        match fs::remove_file(rows.join(FILE)) {
            Ok(()) => File::open(rows)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn encode(&self, current: &[u8]) -> Vec<u8> {
        let mut to = Writer::new(VERSION)
            .bytes(current)
            .number(self.tail)
            .number(self.bytes)
            .number(self.rows.len() as u64);
        for (partition, row) in &self.rows {
            to = to
                .bytes(partition.source.as_str().as_bytes())
                .signed(i64::from(partition.number))
                .bytes(&row.encode());
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
                split.gone,
                split.bytes,
                split.paths,
            ];
            to = numbers.into_iter().fold(to, Writer::number);
        }
        to = to.number(self.fields.len() as u64);
        for field in &self.fields {
            to = to
                .bytes(field.path.to_string().as_bytes())
                .number(u64::from(field.kinds.0))
                .number(field.documents);
            to = to
                .bytes(field.indexed.as_bytes())
                .byte(u8::from(field.sample.is_some()));
            to = to.bytes(field.sample.as_deref().unwrap_or_default().as_bytes());
        }
        match self.oldest_dead_letter_ms {
            Some(oldest) => to.byte(1).signed(oldest).finish(),
            None => to.byte(0).finish(),
        }
    }

    fn decode(body: &[u8]) -> Read<(Vec<u8>, Self)> {
        let mut from = Reader::new(body, VERSION)?;
        let current = from.bytes()?.to_vec();
        let mut summary = Self {
            tail: from.number()?,
            bytes: from.number()?,
            ..Self::default()
        };
        for _ in 0..from.number()? {
            let source = from
                .text()?
                .parse()
                .map_err(|e: proto::address::Malformed| Unreadable(e.to_string()))?;
            let number = i32::try_from(from.signed()?).map_err(|e| Unreadable(e.to_string()))?;
            summary
                .rows
                .insert(Partition { source, number }, PartitionRow::decode(from.bytes()?)?);
        }
        for _ in 0..from.number()? {
            let key = from.bytes()?;
            summary.losses.push(loss::decode(key, from.bytes()?)?);
        }
        for _ in 0..from.number()? {
            summary.splits.push(SplitStatus {
                id: from.number()?,
                place: DISK,
                generation: from.small()?,
                documents: from.number()?,
                gone: from.number()?,
                bytes: from.number()?,
                paths: from.number()?,
            });
        }
        for _ in 0..from.number()? {
            let path = Path::try_from(from.text()?.to_owned()).map_err(Unreadable)?;
            let (kinds, documents, indexed) = (Kinds(from.small()?), from.number()?, from.text()?);
            let indexed = INDEXED
                .into_iter()
                .find(|word| *word == indexed)
                .ok_or_else(|| Unreadable(format!("{indexed} is unknown")))?;
            let there = from.byte()? != 0;
            let sample = from.text()?.to_owned();
            summary.fields.push(FieldStatus {
                path,
                kinds,
                documents,
                indexed,
                sample: there.then_some(sample),
            });
        }
        summary.oldest_dead_letter_ms = (from.byte()? != 0).then(|| from.signed()).transpose()?;
        from.end()?;
        Ok((current, summary))
    }
}

const DISK: &str = "disk";
/// How a path is indexed: nowhere for sure, with its words, or as a column.
const INDEXED: [&str; 3] = ["raw", "text", "columns"];

/// What is stored of a partition.
pub fn stored(rows: &BTreeMap<Partition, PartitionRow>, source: &SourceName, partition: i32) -> Stored {
    let row = rows
        .get(&Partition {
            source: source.clone(),
            number: partition,
        })
        .cloned()
        .unwrap_or_default();
    Stored {
        topic: row.topic,
        offset: row.offset,
        hash: row.hash,
        dead: row.dead,
    }
}

/// A shard as `rachis.shards` and `rachis.splits` show it.
pub fn status(
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

/// A segment as `rachis.splits` shows it.
pub fn split_status(indexed: &Indexed) -> SplitStatus {
    SplitStatus {
        id: indexed.id,
        place: if indexed.on_disk { DISK } else { "memory" },
        generation: indexed.generation,
        documents: u64::from(indexed.segment.documents()),
        gone: indexed.gone.len(),
        bytes: indexed.segment.bytes(),
        paths: indexed.segment.paths().iter().filter(|(_, shape)| shape.column).count() as u64,
    }
}

/// Every path ever seen, with what the segments know of it.
pub fn fields(paths: &PathKinds, segments: &[Arc<Segment>]) -> Vec<FieldStatus> {
    let unknown = |path: &Path, kinds| FieldStatus {
        path: path.clone(),
        kinds,
        documents: 0,
        indexed: "raw",
        sample: None,
    };
    let mut fields: BTreeMap<Path, (FieldStatus, bool, bool)> = paths
        .paths
        .iter()
        .map(|(path, kinds)| (path.clone(), (unknown(path, *kinds), true, false)))
        .collect();
    for (path, shape) in segments.iter().flat_map(|segment| segment.paths()) {
        let (field, columns, text) = fields
            .entry(path.clone())
            .or_insert_with(|| (unknown(&path, shape.kinds), true, false));
        field.kinds |= shape.kinds;
        field.documents += shape.documents;
        field.sample = field.sample.take().or(shape.sample);
        *columns &= shape.column;
        *text |= shape.postings;
    }
    for segment in segments.iter().filter(|segment| segment.has_untracked()) {
        let seen: BTreeSet<Path> = segment.paths().into_iter().map(|(path, _)| path).collect();
        fields
            .iter_mut()
            .filter(|(path, _)| !seen.contains(path))
            .for_each(|(_, (_, columns, _))| *columns = false);
    }
    let word = |(mut field, columns, text): (FieldStatus, bool, bool)| {
        field.indexed = match (columns, text) {
            (false, _) => "raw",
            (true, true) => "text",
            (true, false) => "columns",
        };
        field
    };
    fields.into_values().map(word).collect()
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
mod tests {
    use super::*;

    fn summary() -> Summary {
        let partition = Partition {
            source: "clicks".parse().expect("a name"),
            number: 3,
        };
        let loss = Loss {
            source: partition.source.clone(),
            partition: 3,
            from: 1,
            through: 9,
            noticed_ms: 5,
            reason: "gone".into(),
        };
        let split = SplitStatus {
            id: 7,
            place: DISK,
            generation: 1,
            documents: 10,
            gone: 2,
            bytes: 99,
            paths: 4,
        };
        let field = |path: &str, indexed, sample: Option<&str>| FieldStatus {
            path: Path::try_from(path.to_owned()).expect("a path"),
            kinds: Kinds::INT | Kinds::FLOAT,
            documents: 8,
            indexed,
            sample: sample.map(str::to_owned),
        };
        Summary {
            rows: [(
                partition,
                PartitionRow {
                    offset: 41,
                    topic: Some("t".into()),
                    ..PartitionRow::default()
                },
            )]
            .into(),
            losses: vec![loss],
            tail: 12,
            bytes: 1_000,
            splits: vec![split],
            fields: vec![
                field("a.\"b c\"", "columns", Some("1")),
                field("x", "text", None),
                field("y", "raw", Some("")),
            ],
            oldest_dead_letter_ms: Some(1_700_000_000_000),
        }
    }

    #[test]
    fn a_summary_reads_back_for_the_store_that_it_was_written_for() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(CURRENT), "MANIFEST-000005\n").expect("a file");
        summary().write(folder.path()).expect("it is written");
        assert_eq!(Summary::read(folder.path()), Some(summary()));
        fs::write(folder.path().join(CURRENT), "MANIFEST-000009\n").expect("a file");
        assert_eq!(Summary::read(folder.path()), None, "the store was opened since");
        fs::write(folder.path().join(CURRENT), "MANIFEST-000005\n").expect("a file");
        Summary::remove(folder.path()).expect("it is removed");
        assert_eq!(Summary::read(folder.path()), None);
        Summary::remove(folder.path()).expect("it is gone already");
    }

    #[test]
    fn a_summary_of_which_any_byte_is_another_does_not_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(CURRENT), "MANIFEST-000005\n").expect("a file");
        summary().write(folder.path()).expect("it is written");
        let whole = fs::read(folder.path().join(FILE)).expect("the file");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(folder.path().join(FILE), damaged).expect("a file");
            assert_eq!(Summary::read(folder.path()), None, "byte {at}");
        }
        fs::write(folder.path().join(FILE), &whole[..whole.len() - 1]).expect("a file");
        assert_eq!(Summary::read(folder.path()), None);
    }
}
