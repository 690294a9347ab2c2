//! Digest row. Family `meta`, key: 23 partition, number of the block. Value: a hash over the block's input in which
//! order does not count.
//!
//! It is a sum of hashes of (address, verdict, bytes), so that replicas which took the same records in other batches
//! have the same.

use proto::Address;
use xxhash_rust::xxh3::Xxh3;

use super::{
    codec::{Read, Reader, Writer},
    key::{Kind, RowKey},
};

const VERSION: u8 = 1;
const BLOCK_OFFSETS_BITS: u32 = 16;

/// What became of an event, as the digest tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// A document.
    Accepted = 1,
    /// A null value.
    Tombstone = 2,
    /// A dead letter.
    Dead = 3,
    /// A push whose request had been applied before; the bytes are its key.
    Repeated = 4,
}

/// The block an offset belongs to: 65,536 offsets each.
pub fn block(offset: i64) -> i64 {
    offset >> BLOCK_OFFSETS_BITS
}

/// What one event adds to the sum.
pub fn term(address: &Address, fate: Fate, bytes: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    let key = RowKey::new(Kind::Document).address(address).bytes();
    hasher.update(&[fate as u8, u8::try_from(key.len()).unwrap_or(u8::MAX)]);
    hasher.update(&key);
    hasher.update(bytes);
    hasher.digest128()
}

/// The value of the row.
pub fn encode(sum: u128) -> Vec<u8> {
    Writer::new(VERSION).rest(&sum.to_be_bytes()).finish()
}

/// The row of a value.
pub fn decode(value: &[u8]) -> Read<u128> {
    let mut reader = Reader::new(value, VERSION)?;
    let sum = u128::from_be_bytes(reader.fixed()?);
    reader.end()?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_digest_reads_back(sum: u128) {
            prop_assert_eq!(decode(&encode(sum))?, sum);
        }

        #[test]
        fn another_address_fate_or_content_is_another_term(a in addresses(), b in addresses(), bytes: Vec<u8>) {
            prop_assume!(a != b);
            prop_assert_ne!(term(&a, Fate::Accepted, &bytes), term(&b, Fate::Accepted, &bytes));
            prop_assert_ne!(term(&a, Fate::Accepted, &bytes), term(&a, Fate::Dead, &bytes));
        }
    }
}
