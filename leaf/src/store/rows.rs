//! Reads of a store: point lookups, range scans and whole kinds of rows, decoded.

use std::collections::BTreeMap;

use bytes::Bytes;
use plan::{
    Kinds, Path,
    scan::{DeadLetter, DeadRecord},
};
use proto::{
    Address,
    ingest::{BlockDigest, Loss},
    place_ranges::{Place, PlaceRange},
};
use rocksdb::{DBPinnableSlice, Direction, IteratorMode, ReadOptions};

use super::{
    Family, GoneRangeRow, KeyIndexRow, ManifestRow, Partition, PartitionRow, RequestRow, RowKey, RowKind, Store,
    WriteBatch, dead_letter, delete_marker::DeleteMarker, digest, document, gone_range, key::KeyReader, kinds, loss,
    redriven,
};
use crate::{
    codec::{DecodeError, DecodeResult},
    document::Document,
    error::Error,
};

/// Key and value.
type Row = (Box<[u8]>, Box<[u8]>);

impl Store {
    /// The documents with an id, at most one for each partition.
    pub(crate) fn key_index(&self, id: &[u8]) -> Result<KeyIndexRow, Error> {
        let row = self.get(Family::Keys, id)?;
        row.map_or(Ok(KeyIndexRow::default()), |value| {
            self.check("key", KeyIndexRow::decode(&value))
        })
    }

    /// The document at an address, even if it has a delete marker.
    pub(crate) fn document(&self, address: &Address) -> Result<Option<Document>, Error> {
        let row = self.get(Family::Docs, &RowKey::new(RowKind::Document).address(address).bytes())?;
        row.map(|value| self.check("document", document::decode(address.clone(), &value)))
            .transpose()
    }

    /// Whether the document at an address has a delete marker.
    pub(crate) fn is_deleted(&self, address: &Address) -> Result<bool, Error> {
        Ok(self
            .get(
                Family::Meta,
                &RowKey::new(RowKind::DeleteMarker).address(address).bytes(),
            )?
            .is_some())
    }

    /// The request of a push that was applied.
    pub(crate) fn request(&self, partition: &Partition, key: &str) -> Result<Option<RequestRow>, Error> {
        let row = self.get(
            Family::Meta,
            &RowKey::new(RowKind::Request)
                .partition(partition)
                .rest(key.as_bytes())
                .bytes(),
        )?;
        row.map(|value| self.check("request", RequestRow::decode(&value)))
            .transpose()
    }

    /// Time and key of requests of a partition before `time_ms`, oldest first, at most `limit`.
    pub(crate) fn requests_before(
        &self,
        partition: &Partition,
        time_ms: i64,
        limit: usize,
    ) -> Result<Vec<(i64, String)>, Error> {
        let prefix = RowKey::new(RowKind::RequestAge).partition(partition);
        let end = prefix.clone().signed(time_ms).bytes();
        let rows = self.rows(Family::Meta, prefix.bytes(), end).take(limit);
        rows.map(|row| {
            let (key, _) = row?;
            self.check("request", time_and_request_key(&key))
        })
        .collect()
    }

    pub(crate) fn partitions(&self) -> Result<BTreeMap<Partition, PartitionRow>, Error> {
        self.all(Family::Meta, RowKind::Partition, "partition", |mut key, value| {
            Ok((key.partition()?, PartitionRow::decode(value)?))
        })
    }

    /// The manifest rows of all live splits, by split id.
    pub(crate) fn manifest(&self) -> Result<BTreeMap<u64, ManifestRow>, Error> {
        self.all(Family::Meta, RowKind::Manifest, "manifest row", |mut key, value| {
            Ok((key.signed()?.cast_unsigned(), ManifestRow::decode(value)?))
        })
    }

    /// The kinds seen at each path of a partition, and whether the number of paths exceeded the limit.
    pub(crate) fn kinds(&self, partition: &Partition) -> Result<(BTreeMap<Path, Kinds>, bool), Error> {
        let prefix = RowKey::new(RowKind::Kinds).partition(partition);
        let mut overflow = false;
        let mut paths = BTreeMap::new();
        let length = prefix.clone().bytes().len();
        for row in self.rows(Family::Meta, prefix.clone().bytes(), prefix.after_prefix()) {
            let (key, value) = row?;
            let kinds = self.check("kinds row", kinds::decode(&value))?;
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

    /// The digest of a block; 0 if the block has none.
    pub(crate) fn digest(&self, partition: &Partition, block: i64) -> Result<u128, Error> {
        let row = self.get(
            Family::Meta,
            &RowKey::new(RowKind::Digest).partition(partition).signed(block).bytes(),
        )?;
        row.map_or(Ok(0), |value| self.check("digest", digest::decode(&value)))
    }

    /// The digests of all blocks, by partition and block, at most `limit`, all as of one moment: that of the iterator. When a
    /// snapshot is released, RocksDB writes all files of the last level again, to remove the numbers of their rows.
    pub(crate) fn digests(&self, limit: usize) -> Result<Vec<BlockDigest>, Error> {
        let of_kind = |kind| RowKey::new(kind).bytes();
        let (partitions, digests) = (of_kind(RowKind::Partition), of_kind(RowKind::Digest));
        let from = IteratorMode::From(&partitions, Direction::Forward);
        let mut rows = self.db.iterator_cf(self.family(Family::Meta), from);
        let mut positions = BTreeMap::new();
        for row in rows.by_ref() {
            let (key, value) = row.map_err(|source| self.failed(source))?;
            if !key.starts_with(&partitions) {
                break;
            }
            let partition = KeyReader::new(&key, RowKind::Partition).and_then(|mut key| key.partition());
            let row = PartitionRow::decode(&value);
            positions.insert(
                self.check("partition", partition)?,
                self.check("partition", row)?.offset,
            );
        }
        rows.set_mode(IteratorMode::From(&digests, Direction::Forward));
        let mut found = Vec::new();
        for row in rows.take(limit) {
            let (key, value) = row.map_err(|source| self.failed(source))?;
            if !key.starts_with(&digests) {
                break;
            }
            let key = KeyReader::new(&key, RowKind::Digest).and_then(|mut key| Ok((key.partition()?, key.signed()?)));
            let (partition, block) = self.check("digest", key)?;
            let (from, last) = digest::offsets(block);
            found.push(BlockDigest {
                from,
                through: positions.get(&partition).map_or(last, |position| last.min(*position)),
                digest: format!("{:032x}", self.check("digest", digest::decode(&value))?),
                source: partition.source,
                partition: partition.number,
            });
        }
        Ok(found)
    }

    /// Documents of a partition with `after` < offset <= `through`, in address order, deleted ones included.
    pub(crate) fn documents(
        &self,
        partition: &Partition,
        after: i64,
        through: i64,
    ) -> impl Iterator<Item = Result<Document, Error>> + use<'_> {
        let (from, to) = key_range(RowKind::Document, partition, after, through);
        self.rows(Family::Docs, from, to).map(|row| self.document_of(row?))
    }

    /// When the records of a partition with `after` < offset <= `through` were ingested, as far as documents and dead
    /// letters of them are stored: offsets and milliseconds since 1970.
    pub(crate) fn ingest_times(
        &self,
        partition: &Partition,
        after: i64,
        through: i64,
    ) -> Result<BTreeMap<i64, i64>, Error> {
        let mut times = BTreeMap::new();
        for document in self.documents(partition, after, through) {
            let document = document?;
            times.insert(document.address.offset, document.header.ingested_ms);
        }
        let (from, to) = key_range(RowKind::DeadLetter, partition, after, through);
        for family in self.dead_letter_families() {
            for row in self.rows(family, from.clone(), to.clone()) {
                let (key, value) = row?;
                let (ingested_ms, _) = self.check("dead letter", dead_letter::age_and_bytes(&value))?;
                times.insert(self.dead_letter_offset(&key)?, ingested_ms);
            }
        }
        Ok(times)
    }

    /// Addresses of deleted documents of a partition with `after` < offset <= `through`, in order.
    pub(crate) fn deleted(
        &self,
        partition: &Partition,
        after: i64,
        through: i64,
    ) -> impl Iterator<Item = Result<Address, Error>> + use<'_> {
        let (from, to) = key_range(RowKind::DeleteMarker, partition, after, through);
        self.rows(Family::Meta, from, to).map(|row| {
            let (key, value) = row?;
            let address = KeyReader::new(&key, RowKind::DeleteMarker).and_then(KeyReader::address);
            self.check("delete marker", DeleteMarker::decode(&value).and(address))
        })
    }

    /// The address of the change that ingested a dead letter again.
    pub(crate) fn redriven(&self, letter: &Address) -> Result<Option<String>, Error> {
        let row = self.get(Family::Meta, &redriven::key(letter))?;
        row.map(|value| self.check("redriven row", redriven::decode(&value)))
            .transpose()
    }

    /// The newest dead letters of a partition by descending address: at most `limit`, with at most so many bytes of each,
    /// and of all.
    pub(crate) fn dead_letters(
        &self,
        partition: &Partition,
        limit: usize,
        (bytes_max, all_bytes_max): (usize, usize),
    ) -> Result<Vec<DeadLetter>, Error> {
        let prefix = RowKey::new(RowKind::DeadLetter).partition(partition);
        let rows = self.dead_letter_families().rev().flat_map(|family| {
            let mut options = ReadOptions::default();
            options.set_iterate_lower_bound(prefix.clone().bytes());
            options.set_iterate_upper_bound(prefix.clone().after_prefix());
            self.db.iterator_cf_opt(self.family(family), options, IteratorMode::End)
        });
        let mut letters = Vec::new();
        let mut bytes = 0;
        for row in rows.take(limit) {
            let (key, value) = row.map_err(|source| self.failed(source))?;
            let letter = KeyReader::new(&key, RowKind::DeadLetter)
                .and_then(KeyReader::address)
                .and_then(|address| dead_letter::decode(address, &value));
            let (DeadRecord { mut letter, .. }, _) = self.check("dead letter", letter)?;
            // A copy: a slice would keep all of them in memory.
            letter.bytes = Bytes::copy_from_slice(&letter.bytes[..letter.bytes.len().min(bytes_max)]);
            bytes += letter.bytes.len();
            if bytes > all_bytes_max {
                break;
            }
            letters.push(letter);
        }
        Ok(letters)
    }

    /// The dead letters of a partition with their records, in address order, from an address on.
    pub(crate) fn dead_records(
        &self,
        partition: &Partition,
        from: Option<&Address>,
    ) -> impl Iterator<Item = Result<DeadRecord, Error>> + use<'_> {
        let prefix = RowKey::new(RowKind::DeadLetter).partition(partition);
        let from = match from {
            Some(from) => RowKey::new(RowKind::DeadLetter).address(from).bytes(),
            None => prefix.clone().bytes(),
        };
        let rows = self
            .dead_letter_families()
            .flat_map(move |family| self.rows(family, from.clone(), prefix.clone().after_prefix()));
        rows.map(|row| {
            let (key, value) = row?;
            let letter = KeyReader::new(&key, RowKind::DeadLetter)
                .and_then(KeyReader::address)
                .and_then(|address| dead_letter::decode(address, &value));
            Ok(self.check("dead letter", letter)?.0)
        })
    }

    /// Key, ingest time and original length of the dead letters of a partition, in address order, starting at a row
    /// key.
    pub(crate) fn dead_letter_rows(
        &self,
        partition: &Partition,
        from: Option<Vec<u8>>,
    ) -> impl Iterator<Item = Result<(Box<[u8]>, i64, u64), Error>> + use<'_> {
        let prefix = RowKey::new(RowKind::DeadLetter).partition(partition);
        let from = from.unwrap_or_else(|| prefix.clone().bytes());
        let rows = self
            .dead_letter_families()
            .flat_map(move |family| self.rows(family, from.clone(), prefix.clone().after_prefix()));
        rows.map(|row| {
            let (key, value) = row?;
            let (ingested_ms, length) = self.check("dead letter", dead_letter::age_and_bytes(&value))?;
            Ok((key, ingested_ms, length))
        })
    }

    /// Deletes a dead letter, of whichever family it is in. Returns the bytes that it counted; none if it is not stored.
    pub(crate) fn delete_dead_letter(&self, batch: &mut WriteBatch, key: &[u8]) -> Result<Option<u64>, Error> {
        for family in self.dead_letter_families() {
            if let Some(value) = self.get(family, key)? {
                self.delete(batch, family, key);
                let (_, bytes) = self.check("dead letter", dead_letter::age_and_bytes(&value))?;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The families with dead letters. Release 0.1 wrote them among the documents, and they stay there until they are
    /// cleared or expire; later ones have greater addresses.
    fn dead_letter_families(&self) -> impl DoubleEndedIterator<Item = Family> + use<'_> {
        let families = [Family::Docs, Family::DeadLetters].into_iter();
        families.filter(|family| self.db.cf_handle(family.name()).is_some())
    }

    /// The offset of a dead letter, from the key of its row.
    pub(crate) fn dead_letter_offset(&self, key: &[u8]) -> Result<i64, Error> {
        let address = KeyReader::new(key, RowKind::DeadLetter).and_then(KeyReader::address);
        Ok(self.check("dead letter", address)?.offset)
    }

    /// Documents of a partition in a range of places, in address order, deleted ones included.
    pub(crate) fn documents_in(
        &self,
        partition: &Partition,
        (from, to): PlaceRange,
    ) -> impl Iterator<Item = Result<Document, Error>> + use<'_> {
        let rows = self.rows(Family::Docs, place_key(partition, from), place_key(partition, to));
        rows.map(|row| self.document_of(row?))
    }

    fn document_of(&self, (key, value): Row) -> Result<Document, Error> {
        let address = KeyReader::new(&key, RowKind::Document).and_then(KeyReader::address);
        self.check(
            "document",
            address.and_then(|address| document::decode(address, &value)),
        )
    }

    /// The ranges that changes deleted, each with its partition and the offset of its change.
    pub(crate) fn gone_ranges(&self) -> impl Iterator<Item = Result<(Partition, i64, GoneRangeRow), Error>> + use<'_> {
        let all = RowKey::new(RowKind::GoneRange);
        let rows = self.rows(Family::Meta, all.clone().bytes(), all.after_prefix());
        rows.map(|row| {
            let (key, value) = row?;
            self.check("gone range", gone_range::decode(&key, &value))
        })
    }

    /// All recorded losses.
    pub(crate) fn losses(&self) -> Result<Vec<Loss>, Error> {
        let all = RowKey::new(RowKind::Loss);
        let rows = self.rows(Family::Meta, all.clone().bytes(), all.after_prefix());
        rows.map(|row| row.and_then(|(key, value)| self.check("loss", loss::decode(&key, &value))))
            .collect()
    }

    /// The documents at these addresses, in this order.
    pub(super) fn read_documents(&self, addresses: &[Address]) -> Result<Vec<Document>, Error> {
        let family = self.family(Family::Docs);
        let keys: Vec<Vec<u8>> = addresses
            .iter()
            .map(|address| RowKey::new(RowKind::Document).address(address).bytes())
            .collect();
        let rows = self.db.batched_multi_get_cf(family, &keys, keys.is_sorted());
        let document = |(address, row): (&Address, Result<Option<DBPinnableSlice>, rocksdb::Error>)| {
            let value = row.map_err(|source| self.failed(source))?;
            let value = value.ok_or_else(|| {
                self.corrupt(
                    "document",
                    format!("a read view refers to {address}, but the row is missing"),
                )
            })?;
            self.check("document", document::decode(address.clone(), &value))
        };
        addresses.iter().zip(rows).map(document).collect()
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, Error> {
        self.db
            .get_pinned_cf(self.family(family), key)
            .map_err(|source| self.failed(source))
    }

    /// Rows with `from` <= key < `to`, in key order.
    fn rows(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> impl Iterator<Item = Result<Row, Error>> + use<'_> {
        let mut options = ReadOptions::default();
        let empty = from >= to;
        options.set_iterate_upper_bound(to);
        // A scan must not evict the blocks that point lookups use.
        options.fill_cache(false);
        let rows = self.db.iterator_cf_opt(
            self.family(family),
            options,
            IteratorMode::From(&from, Direction::Forward),
        );
        rows.take_while(move |_| !empty)
            .map(|row| row.map_err(|source| self.failed(source)))
    }

    /// All rows of a kind, decoded by `read`.
    fn all<K: Ord, V>(
        &self,
        family: Family,
        kind: RowKind,
        name: &'static str,
        read: impl Fn(KeyReader, &[u8]) -> DecodeResult<(K, V)>,
    ) -> Result<BTreeMap<K, V>, Error> {
        let prefix = RowKey::new(kind);
        let rows = self.rows(family, prefix.clone().bytes(), prefix.after_prefix());
        rows.map(|row| {
            let (key, value) = row?;
            self.check(name, KeyReader::new(&key, kind).and_then(|key| read(key, &value)))
        })
        .collect()
    }

    /// Turns a decode error into an error that names the shard and the kind of row.
    pub(super) fn check<T>(&self, kind: &'static str, decoded: DecodeResult<T>) -> Result<T, Error> {
        decoded.map_err(|error| match error {
            DecodeError::Newer(newer) => Error::Newer {
                shard: self.shard,
                newer,
            },
            DecodeError::Malformed(reason) => self.corrupt(kind, reason),
        })
    }
}

/// The key after those of the documents before a place, and not after that of the one there.
pub(super) fn place_key(partition: &Partition, place: Place) -> Vec<u8> {
    let key = RowKey::new(RowKind::Document).partition(partition).signed(place.offset);
    match place.item {
        0 => key.bytes(),
        item => key.rest(&item.to_be_bytes()).bytes(),
    }
}

/// The range of the keys of a kind with `after` < offset <= `through`: from a key up to another one, exclusive.
fn key_range(kind: RowKind, partition: &Partition, after: i64, through: i64) -> (Vec<u8>, Vec<u8>) {
    let prefix = RowKey::new(kind).partition(partition);
    let key_after = |offset: i64| prefix.clone().signed(offset.saturating_add(1)).bytes();
    (key_after(after), key_after(through))
}

/// The time and the request key from the key of a `RequestAge` row.
fn time_and_request_key(key: &[u8]) -> DecodeResult<(i64, String)> {
    let mut key = KeyReader::new(key, RowKind::RequestAge)?;
    key.partition()?;
    Ok((key.signed()?, String::from_utf8_lossy(key.rest()).into_owned()))
}
