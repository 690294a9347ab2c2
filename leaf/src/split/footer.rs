//! Footer: what a split's file says about itself. It alone tells what the file holds, without the store that made it.
//!
//! Its fields are read in order, and what a newer release appended is left unread. So are the ends of the records of
//! entries, and entries with unknown names.

use std::{io, ops::Range};

use proto::{catalog::CollectionUid, ingest::ShardId};
use uuid::Uuid;

use super::statistics::TimeBounds;
use crate::{
    codec::{DecodeResult, NewerVersion, ValueReader, ValueWriter, decode_error},
    store::{Partition, Ranges},
};

/// The level of the code that builds parts: it is raised when a part that is built anew would become better. Parts of
/// every level are read; what they index is in their path trees.
pub(super) const BUILDER_LEVEL: u32 = 1;
/// The codec of an entry that is stored as it is.
pub(super) const STORED: u32 = 0;
/// The codec of a packed entry (`packed.rs`).
pub(super) const PACKED: u32 = 1;

/// Whose documents a new file gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SplitOrigin {
    /// The id of the file; a file that is built again gets another one.
    pub uuid: Uuid,
    pub shard: ShardId,
    /// The records that the split covers.
    pub ranges: Ranges,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SplitFacts {
    /// Whose documents these are.
    pub origin: SplitOrigin,
    /// How many there are.
    pub documents: u64,
    /// The lowest level of the code that built its parts.
    pub builder_level: u32,
    /// The times of the documents.
    pub times: TimeBounds,
    /// xxh3 over all bytes before the footer.
    pub hash: u128,
}

/// An entry of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    pub offset: u64,
    pub bytes: u64,
    /// How its bytes are encoded.
    pub codec: u32,
    /// None are defined yet.
    flags: u32,
}

impl Entry {
    pub(super) fn new(name: String, codec: u32, offset: u64, bytes: u64) -> Self {
        Self {
            name,
            offset,
            bytes,
            codec,
            flags: 0,
        }
    }

    /// The bytes of the entry in a file whose footer begins at `end`.
    pub(super) fn range(&self, end: usize) -> io::Result<Range<usize>> {
        if self.codec > PACKED {
            return Err(io::Error::other(NewerVersion {
                thing: "codec of an entry of a split",
                found: self.codec,
                supported: PACKED,
            }));
        }
        let start = self.offset as usize;
        let until = start.checked_add(self.bytes as usize).filter(|until| *until <= end);
        until
            .map(|until| start..until)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the range of an entry is out of bounds"))
    }

    fn encode(&self) -> Vec<u8> {
        ValueWriter::unversioned()
            .bytes(self.name.as_bytes())
            .number(self.offset)
            .number(self.bytes)
            .number(self.codec.into())
            .number(self.flags.into())
            .finish()
    }

    fn decode(record: &[u8]) -> DecodeResult<Self> {
        let mut from = ValueReader::unversioned(record);
        Ok(Self {
            name: from.text()?.to_owned(),
            offset: from.number()?,
            bytes: from.number()?,
            codec: from.small()?,
            flags: from.small()?,
        })
    }
}

/// The footer of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Footer {
    pub facts: SplitFacts,
    pub entries: Vec<Entry>,
    /// The checksum of each block before the footer.
    pub checksums: Vec<u64>,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let SplitFacts {
            origin,
            documents,
            builder_level,
            times,
            hash,
        } = &self.facts;
        let to = ValueWriter::unversioned()
            .rest(origin.uuid.as_bytes())
            .rest(origin.shard.collection.0.as_bytes())
            .number(origin.shard.number.into())
            .number(*documents)
            .number((*builder_level).into())
            .bytes(&times.encode())
            .rest(&hash.to_be_bytes());
        let to = encode_ranges(to, &origin.ranges).number(self.entries.len() as u64);
        let to = (self.entries.iter()).fold(to, |to, entry| to.bytes(&entry.encode()));
        let to = to.number(self.checksums.len() as u64);
        self.checksums.iter().fold(to, |to, sum| to.u64(*sum)).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> DecodeResult<Self> {
        let mut from = ValueReader::unversioned(bytes);
        let uuid = Uuid::from_bytes(from.fixed()?);
        let collection = CollectionUid(Uuid::from_bytes(from.fixed()?));
        let number = from.small()?;
        let (documents, builder_level) = (from.number()?, from.small()?);
        let times = TimeBounds::decode(from.bytes()?)?;
        let hash = u128::from_be_bytes(from.fixed()?);
        let ranges = decode_ranges(&mut from)?;
        let entries = (0..from.number()?).map(|_| Entry::decode(from.bytes()?));
        let entries = entries.collect::<DecodeResult<Vec<_>>>()?;
        let count = from.number()?;
        if count > bytes.len() as u64 {
            return decode_error("its footer ends early");
        }
        let checksums = (0..count).map(|_| from.u64()).collect::<DecodeResult<_>>()?;
        Ok(Self {
            facts: SplitFacts {
                origin: SplitOrigin {
                    uuid,
                    shard: ShardId { collection, number },
                    ranges,
                },
                documents,
                builder_level,
                times,
                hash,
            },
            entries,
            checksums,
        })
    }
}

fn encode_ranges(to: ValueWriter, ranges: &Ranges) -> ValueWriter {
    let range = |to, (partition, (after, through)): (&Partition, &(i64, i64))| {
        partition.encode_into(to).signed(*after).signed(*through)
    };
    ranges.iter().fold(to.number(ranges.len() as u64), range)
}

fn decode_ranges(from: &mut ValueReader) -> DecodeResult<Ranges> {
    let mut ranges = Ranges::new();
    for _ in 0..from.number()? {
        let partition = Partition::decode_from(from)?;
        ranges.insert(partition, (from.signed()?, from.signed()?));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn footer(numbers: (u128, u128, u32, u64, u32, u128), bounds: [Option<(i64, i64)>; 2]) -> Footer {
        let (uuid, collection, number, documents, builder_level, hash) = numbers;
        let collection = CollectionUid(Uuid::from_u128(collection));
        Footer {
            facts: SplitFacts {
                origin: SplitOrigin {
                    uuid: Uuid::from_u128(uuid),
                    shard: ShardId { collection, number },
                    ranges: Ranges::new(),
                },
                documents,
                builder_level,
                times: TimeBounds {
                    time_ms: bounds[0],
                    ingested_ms: bounds[1],
                },
                hash,
            },
            entries: Vec::new(),
            checksums: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn a_footer_round_trips_and_what_a_newer_release_appended_is_not_read(
            numbers: (u128, u128, u32, u64, u32, u128),
            bounds: [Option<(i64, i64)>; 2],
            ranges in proptest::collection::vec((crate::store::key::tests::addresses(), any::<(i64, i64)>()), 0..5),
            entries: Vec<(String, u64, u64, u32, u32)>,
            checksums: Vec<u64>,
            tail: Vec<u8>,
        ) {
            let mut footer = footer(numbers, bounds);
            let range = |(address, range)| (Partition::of(&address), range);
            footer.facts.origin.ranges = ranges.into_iter().map(range).collect();
            let entry = |(name, offset, bytes, codec, flags)| Entry { name, offset, bytes, codec, flags };
            footer.entries = entries.into_iter().map(entry).collect();
            footer.checksums = checksums;
            let longer = [footer.encode(), tail].concat();
            prop_assert_eq!(Footer::decode(&longer)?, footer);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage: Vec<u8>) {
            drop(Footer::decode(&garbage));
        }
    }

    #[test]
    fn an_entry_with_an_unknown_codec_is_refused_by_name() {
        let entry = Entry {
            codec: 7,
            ..Entry::new("0/columns".into(), STORED, 8, 8)
        };
        let error = entry.range(100).expect_err("it is unknown");
        assert!(NewerVersion::of(&error).is_some(), "{error}");
        assert!(
            Entry::new("a".into(), STORED, 8, 8).range(15).is_err(),
            "it ends after the entries"
        );
    }
}
