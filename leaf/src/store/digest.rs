//! Digest row. Family `meta`, key: 23 partition, number of the block. Value: an order-independent hash over the block's
//! input.
//!
//! The digest is the sum of the hashes of (address, tag, bytes), so replicas that received the same records in
//! different batches have the same digest.

use proto::Address;
use xxhash_rust::xxh3::Xxh3;

use super::key::{RowKey, RowKind};
use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;
const BLOCK_OFFSETS_BITS: u32 = 16;

/// The outcome of an event, as hashed into the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum DigestTag {
    /// A document.
    Accepted = 1,
    /// A null value.
    Tombstone = 2,
    /// A dead letter.
    Dead = 3,
    /// A push whose request was already applied; the hashed bytes are the request key.
    Repeated = 4,
}

/// The block of an offset: 65,536 offsets each.
pub(crate) fn block(offset: i64) -> i64 {
    offset >> BLOCK_OFFSETS_BITS
}

/// The first and the last offset of a block.
pub(crate) fn offsets(block: i64) -> (i64, i64) {
    let from = block << BLOCK_OFFSETS_BITS;
    (from, from + (1 << BLOCK_OFFSETS_BITS) - 1)
}

/// The summand of one event.
pub(crate) fn term(address: &Address, tag: DigestTag, bytes: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    let key = RowKey::new(RowKind::Document).address(address).bytes();
    hasher.update(&[tag as u8, u8::try_from(key.len()).unwrap_or(u8::MAX)]);
    hasher.update(&key);
    hasher.update(bytes);
    hasher.digest128()
}

pub(crate) fn encode(sum: u128) -> Vec<u8> {
    ValueWriter::new(VERSION).rest(&sum.to_be_bytes()).finish()
}

pub(crate) fn decode(value: &[u8]) -> DecodeResult<u128> {
    let mut reader = ValueReader::new(value, "digest", VERSION)?;
    let sum = u128::from_be_bytes(reader.fixed()?);
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_digest_round_trips(sum: u128) {
            prop_assert_eq!(decode(&encode(sum))?, sum);
        }

        #[test]
        fn terms_differ_by_address_and_tag(a in addresses(), b in addresses(), bytes: Vec<u8>) {
            prop_assume!(a != b);
            prop_assert_ne!(term(&a, DigestTag::Accepted, &bytes), term(&b, DigestTag::Accepted, &bytes));
            prop_assert_ne!(term(&a, DigestTag::Accepted, &bytes), term(&a, DigestTag::Dead, &bytes));
        }
    }
}
