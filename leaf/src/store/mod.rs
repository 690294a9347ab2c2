//! Store: the rows of one shard in RocksDB. The only module that names RocksDB.
//!
//! | family | key | value | file |
//! |---|---|---|---|
//! | `docs` | 1 address | document: header + raw bytes | `document.rs` |
//! | `dead_letters` | 2 address | dead letter: ingest time, reason, bytes | `dead_letter.rs` |
//! | `keys` | id | newest document with this id in each partition | `key_index.rs` |
//! | `meta` | 16 | incarnation, level, cluster, shard | `format.rs` |
//! | `meta` | 17 partition | position, hashes of last record and rules, counters, what was removed | `partition.rs` |
//! | `meta` | 18 split id | live split: the records it covers, its file, its times | `manifest.rs` |
//! | `meta` | 19 address | delete marker: why the document was deleted | `delete_marker.rs` |
//! | `meta` | 20 partition, request key | applied push and its response | `request.rs` |
//! | `meta` | 21 partition, time, request key | the same requests ordered by time | `request.rs` |
//! | `meta` | 22 partition, path | kinds of values seen | `kinds.rs` |
//! | `meta` | 23 partition, block | hash over the input of the block | `digest.rs` |
//! | `meta` | 24 partition, first offset | lost records: last offset, reason | `loss.rs` |
//! | `meta` | 26 partition, offset of the change | ranges of documents that a change deleted | `gone_range.rs` |
//! | `meta` | 25, 27, 28 | reserved, see [`RowKind`] | `key.rs` |
//!
//! An address is source, 0, partition, offset and optional item. Numbers are big-endian with the sign flipped, so rows
//! sort as addresses do. Every value begins with a version byte; `codec.rs` says how values grow. A batch over several
//! families is atomic because the write-ahead log is always on.

pub(crate) mod dead_letter;
pub(crate) mod delete_marker;
pub(crate) mod digest;
pub(crate) mod document;
pub(crate) mod format;
pub(crate) mod gone_range;
pub(crate) mod key;
pub(crate) mod key_index;
pub(crate) mod kinds;
pub(crate) mod loss;
pub(crate) mod manifest;
mod open;
pub(crate) mod partition;
pub(crate) mod redriven;
pub(crate) mod request;
mod rows;
mod shared;
mod wal;

use std::{collections::HashSet, path::Path};

pub(crate) use gone_range::GoneRangeRow;
pub(crate) use key::{Partition, Ranges, RowKey, RowKind};
pub(crate) use key_index::{KeyIndexRow, KeyedDocument};
pub(crate) use manifest::ManifestRow;
pub(crate) use open::Adopted;
pub(crate) use partition::PartitionRow;
use proto::{
    Code, Problem,
    ingest::{Loss, ShardId},
    place_ranges::{PlaceRange, PlaceRanges},
};
pub(crate) use request::RequestRow;
pub(crate) use rocksdb::WriteBatch;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, CompactOptions, DB, ErrorKind, LiveFile, WriteOptions,
    checkpoint::Checkpoint,
};
pub(crate) use shared::SharedStore;

use crate::error::Error;

/// The file that names RocksDB's manifest.
const CURRENT: &str = "CURRENT";
/// The family that every RocksDB has. Nothing is stored in it.
const UNUSED: &str = "default";
/// A key that makes the manifest grow: it names the first and the last key of each file.
static LONG_KEY: [u8; 32 << 10] = [0; 32 << 10];
/// Files that are written at most until RocksDB begins a new manifest.
const MANIFEST_FILES_MAX: usize = 200;
/// More ranges than these are rewritten as one, with all between them.
const REWRITTEN_RANGES_MAX: usize = 64;
/// Levels of a column family's LSM tree.
const LEVELS: usize = 7;

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Documents.
    Docs,
    /// Dead letters. Among the documents, a few of them would make the key range of every flush overlap all others, so
    /// that RocksDB rewrites the documents instead of moving files down.
    DeadLetters,
    /// Ids of documents.
    Keys,
    /// Everything else.
    Meta,
}

impl Family {
    const ALL: [Self; 4] = [Self::Docs, Self::DeadLetters, Self::Keys, Self::Meta];

    fn name(self) -> &'static str {
        match self {
            Self::Docs => "docs",
            Self::DeadLetters => "dead_letters",
            Self::Keys => "keys",
            Self::Meta => "meta",
        }
    }
}

/// Why a write failed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// RocksDB would have had to stall, or the store is read-only; nothing was written.
    Stalled,
    /// The write failed and the state on disk is unknown: the store must be closed and reopened.
    Failed(rocksdb::Error),
}

/// The rows of one shard.
pub(crate) struct Store {
    shard: ShardId,
    db: DB,
    incarnation: u128,
    read_only: bool,
}

impl Store {
    /// The shard whose rows these are.
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    /// A unique id, assigned when this replica was created.
    pub(crate) fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// Whether the store was opened on a full disk and rejects writes.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Writes a batch that survives a crash of the process at once, and a crash of the machine after the next sync.
    pub(crate) fn commit(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.write(batch, false)
    }

    /// Writes a batch and syncs: it survives a crash of the machine when this returns.
    pub(crate) fn commit_synced(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.write(batch, true)
    }

    fn write(&self, mut batch: WriteBatch, sync: bool) -> Result<(), WriteError> {
        if self.read_only {
            return Err(WriteError::Stalled);
        }
        if sync {
            batch.put_log_data(wal::SYNC_MARK);
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        options.set_no_slowdown(true);
        self.db.write_opt(batch, &options).map_err(|error| match error.kind() {
            ErrorKind::Incomplete => WriteError::Stalled,
            _ => WriteError::Failed(error),
        })
    }

    /// Syncs the write-ahead log: all commits so far survive a crash of the machine.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        if self.read_only {
            Ok(())
        } else {
            self.db.flush_wal(true).map_err(|source| self.failed(source))
        }
    }

    /// Makes a copy of all rows as of now in a folder that does not exist yet. Its tables are hard links.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<(), Error> {
        if self.read_only {
            return Err(self.unwritten(WriteError::Stalled));
        }
        let copied = Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(folder));
        copied.map_err(|source| self.failed(source))
    }

    /// Flushes all memtables, before a clean shutdown.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        if self.read_only {
            return Ok(());
        }
        self.db
            .flush_cfs_opt(&self.families(), &rocksdb::FlushOptions::default())
            .map_err(|source| self.failed(source))
    }

    /// Writes the files with documents in these ranges again, without removed rows. Blocks until it is done.
    pub(crate) fn rewrite_documents(&self, partition: &Partition, ranges: &PlaceRanges) -> Result<(), Error> {
        let rewritten: Vec<PlaceRange> = match ranges.len() > REWRITTEN_RANGES_MAX {
            true => ranges.span().into_iter().collect(),
            false => ranges.iter().collect(),
        };
        let key = |place| Some(rows::place_key(partition, place));
        self.rewrite(
            Family::Docs,
            rewritten.into_iter().map(|(from, to)| (key(from), key(to))),
        )
    }

    /// Writes the files with keys of documents again, without removed rows. Blocks until it is done.
    pub(crate) fn rewrite_keys(&self) -> Result<(), Error> {
        self.rewrite(Family::Keys, std::iter::once((None, None)))
    }

    /// Writes the files again that have rows between these keys.
    fn rewrite(
        &self,
        family: Family,
        ranges: impl Iterator<Item = (Option<Vec<u8>>, Option<Vec<u8>>)>,
    ) -> Result<(), Error> {
        self.flush()?;
        let old: HashSet<String> = self.live_files(family)?.map(|file| file.name).collect();
        for (from, to) in ranges {
            // An earlier range may have written them again.
            let left = || -> Result<bool, Error> {
                let mut files = self.live_files(family)?;
                Ok(files.any(|file| old.contains(&file.name) && meets(&file, from.as_deref(), to.as_deref())))
            };
            if left()? {
                self.db
                    .compact_range_cf_opt(self.family(family), from.as_deref(), to.as_deref(), &rewriting());
            }
            // A compaction does not say that it has failed.
            if left()? {
                let detail = format!("shard {}: RocksDB has not written its files again", self.shard);
                return Err(Problem::new(Code::Unavailable, detail).into());
            }
        }
        Ok(())
    }

    fn live_files(&self, family: Family) -> Result<impl Iterator<Item = LiveFile> + use<>, Error> {
        let files = self.db.live_files().map_err(|source| self.failed(source))?;
        Ok(files
            .into_iter()
            .filter(move |file| file.column_family_name == family.name()))
    }

    /// Has RocksDB write its manifest anew: the old one names the first and the last key of files that are gone, and with
    /// them the ids of documents. RocksDB does so once it has grown by much, so it gets files with a long key.
    pub(crate) fn renew_manifest(&self) -> Result<(), Error> {
        let path = self.db.path().join(CURRENT);
        let manifest = || std::fs::read(&path).map_err(Error::file(&path));
        let (before, unused) = (manifest()?, self.db.cf_handle(UNUSED).expect("every store has it"));
        let write = |batch| self.write(batch, false).map_err(|error| self.unwritten(error));
        let flush = || self.db.flush_cf(unused).map_err(|source| self.failed(source));
        for _ in 0..MANIFEST_FILES_MAX {
            let mut batch = WriteBatch::default();
            batch.put_cf(unused, LONG_KEY, []);
            write(batch)?;
            flush()?;
            let mut batch = WriteBatch::default();
            batch.delete_cf(unused, LONG_KEY);
            write(batch)?;
            flush()?;
            let all = None::<&[u8]>;
            self.db.compact_range_cf_opt(unused, all, all, &rewriting());
            if manifest()? != before {
                return Ok(());
            }
        }
        let detail = format!("shard {}: RocksDB has not begun a new manifest", self.shard);
        Err(Problem::new(Code::Unavailable, detail).into())
    }

    /// Starts a flush of all memtables without waiting for it, unless one is already running.
    pub(crate) fn flush_soon(&self) -> Result<(), Error> {
        let immutable = |family| self.property(family, "rocksdb.num-immutable-mem-table");
        // A second flush would wait for the first one.
        if Family::ALL.into_iter().any(|family| immutable(family) != Some(0)) {
            return Ok(());
        }
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(false);
        self.db
            .flush_cfs_opt(&self.families(), &options)
            .map_err(|source| self.failed(source))
    }

    /// Bytes in memtables.
    pub(crate) fn bytes_in_memory(&self) -> u64 {
        self.property_sum("rocksdb.cur-size-all-mem-tables")
    }

    /// Bytes in SST files.
    pub(crate) fn bytes(&self) -> u64 {
        self.property_sum("rocksdb.total-sst-files-size")
    }

    /// The number of SST files.
    pub(crate) fn tables(&self) -> usize {
        let levels = (0..LEVELS).map(|level| format!("rocksdb.num-files-at-level{level}"));
        levels.map(|property| self.property_sum(&property)).sum::<u64>() as usize
    }

    fn property(&self, family: Family, name: &str) -> Option<u64> {
        let family = self.db.cf_handle(family.name())?;
        self.db.property_int_value_cf(family, name).ok().flatten()
    }

    /// A property summed over all families; a family that does not report it counts as 0.
    fn property_sum(&self, name: &str) -> u64 {
        let values = Family::ALL.into_iter().filter_map(|family| self.property(family, name));
        values.sum()
    }

    /// Adds a row to a batch.
    pub(crate) fn put(&self, batch: &mut WriteBatch, family: Family, key: &[u8], value: &[u8]) {
        batch.put_cf(self.family(family), key, value);
    }

    /// Adds the deletion of a row to a batch.
    pub(crate) fn delete(&self, batch: &mut WriteBatch, family: Family, key: &[u8]) {
        batch.delete_cf(self.family(family), key);
    }

    /// Records a loss, unless a loss with the same first offset already reaches as far. Durable when this returns.
    pub(crate) fn note_loss(&self, loss: &Loss) -> Result<(), Error> {
        let key = loss::key(loss);
        let known = self.get(Family::Meta, &key)?;
        let known = known
            .map(|value| self.check("loss", loss::decode(&key, &value)))
            .transpose()?;
        if known.is_some_and(|known| known.through >= loss.through) {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        self.put(&mut batch, Family::Meta, &key, &loss::encode(loss));
        self.commit_synced(batch).map_err(|error| self.unwritten(error))
    }

    fn families(&self) -> [&ColumnFamily; 4] {
        Family::ALL.map(|family| self.family(family))
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("opening a store creates all column families; `dead_letter_families` checks a read-only one")
    }

    fn corrupt(&self, kind: &'static str, reason: String) -> Error {
        Error::Corrupt {
            shard: self.shard,
            kind,
            reason,
        }
    }

    /// The error of a write outside of the writer.
    pub(crate) fn unwritten(&self, error: WriteError) -> Error {
        match error {
            WriteError::Failed(source) => self.failed(source),
            WriteError::Stalled => {
                let detail = format!("shard {}: the store cannot accept writes right now", self.shard);
                Problem::new(Code::Busy, detail).hint("retry in a moment").into()
            }
        }
    }

    fn failed(&self, source: rocksdb::Error) -> Error {
        Error::Storage {
            shard: self.shard,
            source,
        }
    }
}

/// A compaction that rewrites files even on the last level, and lets others run beside it.
fn rewriting() -> CompactOptions {
    let mut options = CompactOptions::default();
    options.set_exclusive_manual_compaction(false);
    options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
    options
}

/// Whether a file has rows between two keys.
fn meets(file: &LiveFile, from: Option<&[u8]>, to: Option<&[u8]>) -> bool {
    let begins = |end: &[u8]| file.start_key.as_deref().is_none_or(|start| start < end);
    let ends = |begin: &[u8]| file.end_key.as_deref().is_none_or(|end| end >= begin);
    to.is_none_or(begins) && from.is_none_or(ends)
}

#[cfg(test)]
mod tests;
