//! Store: the rows of one shard in RocksDB. The only module that names it.
//!
//! | family | key | value | file |
//! |---|---|---|---|
//! | `docs` | 1 address | header + raw bytes | `document.rs` |
//! | `docs` | 2 address | when, why, bytes of a dead letter | `dead_letter.rs` |
//! | `keys` | id | the newest document of it in each partition | `holders.rs` |
//! | `meta` | 16 | incarnation | `format.rs` |
//! | `meta` | 17 partition | position, last record's hash, counters | `partition.rs` |
//! | `meta` | 18 split id | a live split: what it covers | `manifest.rs` |
//! | `meta` | 19 address | the document there is gone, and why | `gone.rs` |
//! | `meta` | 20 partition, request key | a push that was applied, and its answer | `request.rs` |
//! | `meta` | 21 partition, time, request key | the same by age | `request.rs` |
//! | `meta` | 22 partition, path | kinds of values seen | `kinds.rs` |
//! | `meta` | 23 partition, block | hash over the block's input | `digest.rs` |
//! | `meta` | 24 partition, first offset | records that are gone, through where, and why | `loss.rs` |
//!
//! An address is source, 0, partition, offset and, where there is one, item: big-endian, sign flipped, so rows sort as
//! addresses do. Every value begins with a version byte. A batch over several families is atomic because the log ahead
//! of the writes is always on.

pub mod codec;
pub mod dead_letter;
pub mod digest;
pub mod document;
pub mod format;
pub mod gone;
pub mod holders;
pub mod key;
pub mod kinds;
mod log;
pub mod loss;
pub mod manifest;
mod open;
pub mod partition;
pub mod request;
mod shared;

use std::collections::BTreeMap;

use codec::Read;
pub use holders::Holders;
use key::KeyReader;
pub use key::{Kind, Partition, RowKey};
pub use manifest::{ManifestRow, Ranges};
pub use partition::PartitionRow;
use plan::{Kinds, Path, scan::DeadLetter};
use proto::{
    Address, Code, Problem,
    ingest::{Loss, ShardId},
};
pub use request::RequestRow;
pub use rocksdb::WriteBatch;
use rocksdb::{ColumnFamily, DB, Direction, ErrorKind, IteratorMode, ReadOptions, WriteOptions};
pub use shared::Shared;

use crate::{document::Document, error::Error};

/// Key and value.
type Row = (Box<[u8]>, Box<[u8]>);

/// Levels of a family.
const LEVELS: usize = 7;

/// A family of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Documents and dead letters.
    Docs,
    /// Ids.
    Keys,
    /// Everything else.
    Meta,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Docs => "docs",
            Self::Keys => "keys",
            Self::Meta => "meta",
        }
    }
}

/// Why a write did not happen.
#[derive(Debug)]
pub enum Unwritten {
    /// RocksDB would have to wait, or the store is read-only; nothing was written.
    Stalled,
    /// It failed, and what is on disk is not known: the store must be closed and opened again.
    Failed(rocksdb::Error),
}

/// The rows of one shard.
pub struct Store {
    shard: ShardId,
    db: DB,
    incarnation: u128,
    read_only: bool,
}

impl Store {
    /// Whose rows.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Drawn when this replica was made.
    pub fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// Whether it was opened on a full disk, and takes nothing.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Writes a batch; it survives the process, and the machine soon.
    pub fn commit(&self, batch: WriteBatch) -> Result<(), Unwritten> {
        self.write(batch, false)
    }

    /// Writes a batch; it survives the machine when this returns.
    pub fn commit_synced(&self, batch: WriteBatch) -> Result<(), Unwritten> {
        self.write(batch, true)
    }

    fn write(&self, mut batch: WriteBatch, sync: bool) -> Result<(), Unwritten> {
        if self.read_only {
            return Err(Unwritten::Stalled);
        }
        if sync {
            batch.put_log_data(log::MARK);
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        options.set_no_slowdown(true);
        self.db.write_opt(batch, &options).map_err(|error| match error.kind() {
            ErrorKind::Incomplete => Unwritten::Stalled,
            _ => Unwritten::Failed(error),
        })
    }

    /// Makes all commits survive the machine.
    pub fn sync(&self) -> Result<(), Error> {
        if self.read_only {
            Ok(())
        } else {
            self.db.flush_wal(true).map_err(|source| self.failed(source))
        }
    }

    /// Writes everything out of memory, before an orderly end.
    pub fn flush(&self) -> Result<(), Error> {
        if self.read_only {
            return Ok(());
        }
        let families = [Family::Docs, Family::Keys, Family::Meta].map(|family| self.family(family));
        self.db
            .flush_cfs_opt(&families, &rocksdb::FlushOptions::default())
            .map_err(|source| self.failed(source))
    }

    /// Has everything written out of memory, unless that is under way. Does not wait for it.
    pub fn flush_soon(&self) -> Result<(), Error> {
        let waiting = |family| {
            self.db
                .property_int_value_cf(self.family(family), "rocksdb.num-immutable-mem-table")
                .ok()
                .flatten()
        };
        let families = [Family::Docs, Family::Keys, Family::Meta];
        // Another flush would wait for the one before.
        if families.into_iter().any(|family| waiting(family) != Some(0)) {
            return Ok(());
        }
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(false);
        self.db
            .flush_cfs_opt(&families.map(|family| self.family(family)), &options)
            .map_err(|source| self.failed(source))
    }

    /// Bytes of rows that are not in files yet.
    pub fn bytes_in_memory(&self) -> u64 {
        let bytes = |family| {
            self.db
                .property_int_value_cf(self.family(family), "rocksdb.cur-size-all-mem-tables")
                .ok()
                .flatten()
                .unwrap_or_default()
        };
        bytes(Family::Docs) + bytes(Family::Keys) + bytes(Family::Meta)
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        let bytes = |family| {
            self.db
                .property_int_value_cf(self.family(family), "rocksdb.total-sst-files-size")
                .ok()
                .flatten()
                .unwrap_or_default()
        };
        bytes(Family::Docs) + bytes(Family::Keys) + bytes(Family::Meta)
    }

    /// Its files of rows.
    pub fn tables(&self) -> usize {
        let at = |family, level| {
            self.db
                .property_int_value_cf(self.family(family), &format!("rocksdb.num-files-at-level{level}"))
                .ok()
                .flatten()
        };
        let of = |family| (0..LEVELS).filter_map(|level| at(family, level)).sum::<u64>() as usize;
        of(Family::Docs) + of(Family::Keys) + of(Family::Meta)
    }

    /// Puts a row into a batch.
    pub fn put(&self, batch: &mut WriteBatch, family: Family, key: &[u8], value: &[u8]) {
        batch.put_cf(self.family(family), key, value);
    }

    /// Puts the removal of a row into a batch.
    pub fn delete(&self, batch: &mut WriteBatch, family: Family, key: &[u8]) {
        batch.delete_cf(self.family(family), key);
    }

    /// The documents of an id.
    pub fn holders(&self, id: &[u8]) -> Result<Holders, Error> {
        let row = self.get(Family::Keys, id)?;
        row.map_or(Ok(Holders::default()), |value| {
            self.read("key", Holders::decode(&value))
        })
    }

    /// The document at an address, gone or not.
    pub fn document(&self, address: &Address) -> Result<Option<Document>, Error> {
        let row = self.get(Family::Docs, &RowKey::new(Kind::Document).address(address).bytes())?;
        row.map(|value| self.read("document", document::decode(address.clone(), &value)))
            .transpose()
    }

    /// Whether the document at an address is gone.
    pub fn is_gone(&self, address: &Address) -> Result<bool, Error> {
        Ok(self
            .get(Family::Meta, &RowKey::new(Kind::Gone).address(address).bytes())?
            .is_some())
    }

    /// A push that was applied.
    pub fn request(&self, partition: &Partition, key: &str) -> Result<Option<RequestRow>, Error> {
        let row = self.get(
            Family::Meta,
            &RowKey::new(Kind::Request)
                .partition(partition)
                .rest(key.as_bytes())
                .bytes(),
        )?;
        row.map(|value| self.read("request", RequestRow::decode(&value)))
            .transpose()
    }

    /// Pushes of a partition that are older than this, the oldest first, at most `limit`: time and key.
    pub fn requests_before(
        &self,
        partition: &Partition,
        time_ms: i64,
        limit: usize,
    ) -> Result<Vec<(i64, String)>, Error> {
        let prefix = RowKey::new(Kind::RequestAge).partition(partition);
        let end = prefix.clone().signed(time_ms).bytes();
        let rows = self.rows(Family::Meta, prefix.bytes(), end).take(limit);
        rows.map(|row| {
            let (key, _) = row?;
            self.read("request", age_of(&key))
        })
        .collect()
    }

    /// All partitions.
    pub fn partitions(&self) -> Result<BTreeMap<Partition, PartitionRow>, Error> {
        self.all(Family::Meta, Kind::Partition, "partition", |mut key, value| {
            Ok((key.partition()?, PartitionRow::decode(value)?))
        })
    }

    /// All live splits by id.
    pub fn manifest(&self) -> Result<BTreeMap<u64, ManifestRow>, Error> {
        self.all(Family::Meta, Kind::Manifest, "manifest row", |mut key, value| {
            Ok((key.signed()?.cast_unsigned(), ManifestRow::decode(value)?))
        })
    }

    /// The kinds of a partition's paths, and whether there were too many.
    pub fn kinds(&self, partition: &Partition) -> Result<(BTreeMap<Path, Kinds>, bool), Error> {
        let prefix = RowKey::new(Kind::Kinds).partition(partition);
        let mut overflow = false;
        let mut paths = BTreeMap::new();
        let length = prefix.clone().bytes().len();
        for row in self.rows(Family::Meta, prefix.clone().bytes(), prefix.after_prefix()) {
            let (key, value) = row?;
            let kinds = self.read("kinds row", kinds::decode(&value))?;
            let spelling = String::from_utf8_lossy(&key[length..]).into_owned();
            match spelling.is_empty() {
                true => overflow = true,
                false => {
                    let path = Path::try_from(spelling).map_err(|reason| self.corrupt("kinds row", reason))?;
                    paths.insert(path, kinds);
                }
            }
        }
        Ok((paths, overflow))
    }

    /// The digest of a block.
    pub fn digest(&self, partition: &Partition, block: i64) -> Result<u128, Error> {
        let row = self.get(
            Family::Meta,
            &RowKey::new(Kind::Digest).partition(partition).signed(block).bytes(),
        )?;
        row.map_or(Ok(0), |value| self.read("digest", digest::decode(&value)))
    }

    /// Documents of a partition after one offset and through another, gone or not, in order.
    pub fn documents(
        &self,
        partition: &Partition,
        after: i64,
        through: i64,
    ) -> impl Iterator<Item = Result<Document, Error>> + use<'_> {
        let from = RowKey::new(Kind::Document)
            .partition(partition)
            .signed(after.saturating_add(1))
            .bytes();
        let to = RowKey::new(Kind::Document)
            .partition(partition)
            .signed(through.saturating_add(1))
            .bytes();
        self.rows(Family::Docs, from, to).map(|row| {
            let (key, value) = row?;
            self.read(
                "document",
                KeyReader::new(&key, Kind::Document)
                    .and_then(KeyReader::address)
                    .and_then(|address| document::decode(address, &value)),
            )
        })
    }

    /// Addresses of a partition that are gone, after one offset and through another, in order.
    pub fn gone(
        &self,
        partition: &Partition,
        after: i64,
        through: i64,
    ) -> impl Iterator<Item = Result<Address, Error>> + use<'_> {
        let from = RowKey::new(Kind::Gone)
            .partition(partition)
            .signed(after.saturating_add(1))
            .bytes();
        let to = RowKey::new(Kind::Gone)
            .partition(partition)
            .signed(through.saturating_add(1))
            .bytes();
        self.rows(Family::Meta, from, to).map(|row| {
            let (key, value) = row?;
            let address = KeyReader::new(&key, Kind::Gone).and_then(KeyReader::address);
            self.read("gone row", gone::Gone::decode(&value).and(address))
        })
    }

    /// The newest dead letters of a partition, the newest first, at most `limit`.
    pub fn dead_letters(&self, partition: &Partition, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let prefix = RowKey::new(Kind::DeadLetter).partition(partition);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(prefix.clone().bytes());
        options.set_iterate_upper_bound(prefix.after_prefix());
        let rows = self
            .db
            .iterator_cf_opt(self.family(Family::Docs), options, IteratorMode::End)
            .take(limit);
        rows.map(|row| {
            let (key, value) = row.map_err(|source| self.failed(source))?;
            let letter = KeyReader::new(&key, Kind::DeadLetter)
                .and_then(KeyReader::address)
                .and_then(|address| dead_letter::decode(address, &value));
            self.read("dead letter", letter).map(|(letter, _)| letter)
        })
        .collect()
    }

    /// Dead letters of a partition from a key on, in address order: the key, when it was taken in, how long it was.
    pub fn dead_letter_rows(
        &self,
        partition: &Partition,
        from: Option<Vec<u8>>,
    ) -> impl Iterator<Item = Result<(Box<[u8]>, i64, u64), Error>> + use<'_> {
        let prefix = RowKey::new(Kind::DeadLetter).partition(partition);
        let rows = self.rows(
            Family::Docs,
            from.unwrap_or_else(|| prefix.clone().bytes()),
            prefix.after_prefix(),
        );
        rows.map(|row| {
            let (key, value) = row?;
            let (ingested_ms, length) = self.read("dead letter", dead_letter::age_and_length(&value))?;
            Ok((key, ingested_ms, length))
        })
    }

    /// Notes a loss, unless one that begins there reaches as far. Durable when this returns.
    pub fn note_loss(&self, loss: &Loss) -> Result<(), Error> {
        let key = loss::key(loss);
        let known = self.get(Family::Meta, &key)?;
        let known = known
            .map(|value| self.read("loss", loss::decode(&key, &value)))
            .transpose()?;
        if known.is_some_and(|known| known.through >= loss.through) {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        self.put(&mut batch, Family::Meta, &key, &loss::encode(loss));
        self.commit_synced(batch).map_err(|unwritten| match unwritten {
            Unwritten::Stalled => Problem::new(Code::Busy, "the store has no room just now")
                .hint("try again a little later")
                .into(),
            Unwritten::Failed(source) => self.failed(source),
        })
    }

    /// All losses.
    pub fn losses(&self) -> Result<Vec<Loss>, Error> {
        let all = RowKey::new(Kind::Loss);
        let rows = self.rows(Family::Meta, all.clone().bytes(), all.after_prefix());
        rows.map(|row| row.and_then(|(key, value)| self.read("loss", loss::decode(&key, &value))))
            .collect()
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("the families are made when the store is opened")
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<rocksdb::DBPinnableSlice<'_>>, Error> {
        self.db
            .get_pinned_cf(self.family(family), key)
            .map_err(|source| self.failed(source))
    }

    /// Rows from one key on and before another, in order.
    fn rows(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> impl Iterator<Item = Result<Row, Error>> + use<'_> {
        let mut options = ReadOptions::default();
        let empty = from >= to;
        options.set_iterate_upper_bound(to);
        // A pass over many rows must not push out what points are read from.
        options.fill_cache(false);
        let rows = self.db.iterator_cf_opt(
            self.family(family),
            options,
            IteratorMode::From(&from, Direction::Forward),
        );
        rows.take_while(move |_| !empty)
            .map(|row| row.map_err(|source| self.failed(source)))
    }

    fn all<K: Ord, V>(
        &self,
        family: Family,
        kind: Kind,
        name: &'static str,
        read: impl Fn(KeyReader, &[u8]) -> Read<(K, V)>,
    ) -> Result<BTreeMap<K, V>, Error> {
        let prefix = RowKey::new(kind);
        let rows = self.rows(family, prefix.clone().bytes(), prefix.after_prefix());
        rows.map(|row| {
            let (key, value) = row?;
            self.read(name, KeyReader::new(&key, kind).and_then(|key| read(key, &value)))
        })
        .collect()
    }

    fn read<T>(&self, kind: &'static str, read: Read<T>) -> Result<T, Error> {
        read.map_err(|reason| self.corrupt(kind, reason.to_string()))
    }

    fn corrupt(&self, kind: &'static str, reason: String) -> Error {
        Error::Corrupt {
            shard: self.shard,
            kind,
            reason,
        }
    }

    fn failed(&self, source: rocksdb::Error) -> Error {
        Error::Storage {
            shard: self.shard,
            source,
        }
    }
}

fn age_of(key: &[u8]) -> Read<(i64, String)> {
    let mut key = KeyReader::new(key, Kind::RequestAge)?;
    key.partition()?;
    Ok((key.signed()?, String::from_utf8_lossy(key.rest()).into_owned()))
}

impl Store {
    /// The documents at these addresses, in this order.
    fn read_documents(&self, addresses: &[Address]) -> Result<Vec<Document>, Error> {
        let family = self.family(Family::Docs);
        let keys: Vec<Vec<u8>> = addresses
            .iter()
            .map(|address| RowKey::new(Kind::Document).address(address).bytes())
            .collect();
        let rows = self.db.batched_multi_get_cf(family, &keys, keys.is_sorted());
        let document = |(address, row): (&Address, Result<Option<rocksdb::DBPinnableSlice>, rocksdb::Error>)| {
            let value = row.map_err(|source| self.failed(source))?;
            let value = value
                .ok_or_else(|| self.corrupt("document", format!("{address} is named by a view and is not there")))?;
            self.read("document", document::decode(address.clone(), &value))
        };
        addresses.iter().zip(rows).map(document).collect()
    }
}
