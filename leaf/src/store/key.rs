//! Keys of rows. Their byte order is the order of what they name: addresses sort by source, partition, offset, item.
//!
//! A source name never contains a zero byte, so a zero byte terminates it. Numbers are big-endian with the sign
//! flipped. A document without an item has a shorter key and so sorts before all items of its record.

use std::{collections::BTreeMap, fmt};

use proto::{Address, SourceName};
use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, DecodeResult, ValueReader, ValueWriter, decode_error};

/// A partition of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Partition {
    pub source: SourceName,
    /// Its number, from 0.
    pub number: i32,
}

/// An offset range for each partition: after the first offset (exclusive), through the second (inclusive).
pub(crate) type Ranges = BTreeMap<Partition, (i64, i64)>;

impl Partition {
    /// The partition of an address.
    pub(crate) fn of(address: &Address) -> Self {
        Self {
            source: address.source.clone(),
            number: address.partition,
        }
    }

    /// The address of a record or of one of its items.
    pub(crate) fn address(&self, offset: i64, item: Option<u32>) -> Address {
        Address {
            source: self.source.clone(),
            partition: self.number,
            offset,
            item,
        }
    }

    /// Appends the partition to a value.
    pub(crate) fn encode_into(&self, value: ValueWriter) -> ValueWriter {
        value
            .bytes(self.source.as_str().as_bytes())
            .signed(i64::from(self.number))
    }

    /// Reads a partition from a value.
    pub(crate) fn decode_from(value: &mut ValueReader) -> DecodeResult<Self> {
        let source = source_name(value.text()?)?;
        let number = i32::try_from(value.signed()?).map_err(|e| DecodeError::Malformed(e.to_string()))?;
        Ok(Self { source, number })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.number)
    }
}

/// The kind of a row: the first byte of its key. A byte never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RowKind {
    /// A document, in `docs`.
    Document = 1,
    /// A dead letter, in `dead_letters`.
    DeadLetter = 2,
    /// What the store is, in `meta` like all kinds below.
    Format = 16,
    /// Position and counters of a partition.
    Partition = 17,
    /// A live split.
    Manifest = 18,
    /// Marks a document as replaced or deleted.
    DeleteMarker = 19,
    /// A push that was applied.
    Request = 20,
    /// The same requests, ordered by time.
    RequestAge = 21,
    /// Kinds of the values seen at a path.
    Kinds = 22,
    /// Hash over a block of a partition's input.
    Digest = 23,
    /// Records that were lost before they could be ingested.
    Loss = 24,
    /// Reserved for the position in the change log through which changes of documents were applied.
    #[expect(dead_code, reason = "no other kind may take its byte")]
    ChangePosition = 25,
    /// Ranges of documents that a change deleted.
    GoneRange = 26,
    /// Reserved for materialised columns of definitions.
    #[expect(dead_code, reason = "no other kind may take its byte")]
    Sidecar = 27,
    /// Reserved for what the last snapshot holds.
    #[expect(dead_code, reason = "no other kind may take its byte")]
    SnapshotMark = 28,
    /// A dead letter that was ingested again.
    Redriven = 29,
}

/// Builds the key of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowKey(Vec<u8>);

impl RowKey {
    /// Starts a key with its kind.
    pub(crate) fn new(kind: RowKind) -> Self {
        Self(vec![kind as u8])
    }

    /// Appends a partition.
    pub(crate) fn partition(mut self, partition: &Partition) -> Self {
        self.0.extend_from_slice(partition.source.as_str().as_bytes());
        self.0.push(0);
        self.0.extend_from_slice(&flip32(partition.number));
        self
    }

    /// Appends a signed number.
    pub(crate) fn signed(mut self, number: i64) -> Self {
        self.0.extend_from_slice(&flip64(number));
        self
    }

    /// Appends bytes that end the key.
    pub(crate) fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends an address.
    pub(crate) fn address(self, address: &Address) -> Self {
        let key = self.partition(&Partition::of(address)).signed(address.offset);
        match address.item {
            Some(item) => key.rest(&item.to_be_bytes()),
            None => key,
        }
    }

    /// Returns the key.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }

    /// The upper bound of all keys with this prefix. It always exists, because kinds are far below 255.
    pub(crate) fn after_prefix(self) -> Vec<u8> {
        let mut key = self.0;
        while let Some(last) = key.pop() {
            if last < u8::MAX {
                key.push(last + 1);
                break;
            }
        }
        key
    }
}

/// Decodes what follows the kind byte of a key.
pub(crate) struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Starts decoding a key, which must be of this kind.
    pub(crate) fn new(key: &'a [u8], kind: RowKind) -> DecodeResult<Self> {
        match key.split_first() {
            Some((first, rest)) if *first == kind as u8 => Ok(Self(rest)),
            _ => decode_error(format!("the key is not of kind {kind:?}")),
        }
    }

    pub(crate) fn partition(&mut self) -> DecodeResult<Partition> {
        let end = self
            .0
            .iter()
            .position(|b| *b == 0)
            .ok_or_else(|| DecodeError::Malformed("the source name is not terminated".into()))?;
        let name = std::str::from_utf8(&self.0[..end]).map_err(|e| DecodeError::Malformed(e.to_string()))?;
        let source = source_name(name)?;
        self.0 = &self.0[end + 1..];
        Ok(Partition {
            source,
            number: unflip32(self.fixed()?),
        })
    }

    /// Reads a signed number.
    pub(crate) fn signed(&mut self) -> DecodeResult<i64> {
        Ok(unflip64(self.fixed()?))
    }

    /// Reads an address, which ends the key.
    pub(crate) fn address(mut self) -> DecodeResult<Address> {
        let partition = self.partition()?;
        let offset = self.signed()?;
        let item = match self.0.len() {
            0 => None,
            _ => Some(u32::from_be_bytes(self.fixed()?)),
        };
        if self.0.is_empty() {
            Ok(partition.address(offset, item))
        } else {
            decode_error("the address is too long")
        }
    }

    /// Returns all remaining bytes.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    fn fixed<const N: usize>(&mut self) -> DecodeResult<[u8; N]> {
        let (first, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| DecodeError::Malformed("the key ends early".into()))?;
        self.0 = rest;
        Ok(*first)
    }
}

fn source_name(text: &str) -> DecodeResult<SourceName> {
    text.parse()
        .map_err(|e: proto::address::Malformed| DecodeError::Malformed(e.to_string()))
}

fn flip32(number: i32) -> [u8; 4] {
    (number.cast_unsigned() ^ (1 << 31)).to_be_bytes()
}

fn unflip32(bytes: [u8; 4]) -> i32 {
    (u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed()
}

fn flip64(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn unflip64(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Generates arbitrary addresses.
    pub(crate) fn addresses() -> impl Strategy<Value = Address> {
        (
            "[a-z0-9_][a-z0-9_.-]{0,8}",
            any::<i32>(),
            any::<i64>(),
            any::<Option<u32>>(),
        )
            .prop_map(|(source, partition, offset, item)| Address {
                source: source.parse().expect("a name"),
                partition,
                offset,
                item,
            })
    }

    proptest! {
        #[test]
        fn an_address_round_trips_and_keys_sort_like_addresses(a in addresses(), b in addresses()) {
            let key = |address: &Address| RowKey::new(RowKind::Document).address(address).bytes();
            prop_assert_eq!(KeyReader::new(&key(&a), RowKind::Document)?.address()?, a.clone());
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            let near = Address { item: b.item, offset: a.offset, ..a.clone() };
            prop_assert_eq!(key(&a).cmp(&key(&near)), a.cmp(&near));
        }
    }

    #[test]
    fn a_prefix_ends_before_the_next_partition() {
        let partition = Partition {
            source: SourceName::push(),
            number: -1,
        };
        let prefix = RowKey::new(RowKind::DeleteMarker).partition(&partition);
        let inside = prefix.clone().signed(i64::MAX).rest(&[0xff; 8]).bytes();
        let next = RowKey::new(RowKind::DeleteMarker)
            .partition(&Partition { number: 0, ..partition })
            .bytes();
        assert!(inside < prefix.clone().after_prefix());
        assert!(prefix.after_prefix() <= next);
    }
}
