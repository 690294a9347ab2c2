//! Dead letter row. Family `docs`, key: 2 address. Value: when, why, and the bytes, cut at `DEAD_LETTER_BYTES_MAX`,
//! with length and hash.

use bytes::Bytes;
use plan::scan::DeadLetter;
use proto::{Address, limits::DEAD_LETTER_BYTES_MAX};

use super::codec::{Read, Reader, Writer};

const VERSION: u8 = 1;

/// The value of a dead letter's row; `bytes` are all there were.
pub fn encode(ingested_ms: i64, code: &str, detail: &str, bytes: &[u8]) -> Vec<u8> {
    let kept = &bytes[..bytes.len().min(DEAD_LETTER_BYTES_MAX)];
    Writer::new(VERSION)
        .signed(ingested_ms)
        .bytes(code.as_bytes())
        .bytes(detail.as_bytes())
        .number(bytes.len() as u64)
        .rest(&xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes())
        .rest(kept)
        .finish()
}

/// The dead letter of a row, and the hash of all its bytes.
pub fn decode(address: Address, value: &[u8]) -> Read<(DeadLetter, u128)> {
    let mut reader = Reader::new(value, VERSION)?;
    let ingested_ms = reader.signed()?;
    let (code, detail) = (reader.text()?.to_owned(), reader.text()?.to_owned());
    let length = reader.number()?;
    let hash = u128::from_be_bytes(reader.fixed()?);
    Ok((
        DeadLetter {
            address,
            ingested_ms,
            code,
            detail,
            bytes: Bytes::copy_from_slice(reader.rest()),
            length,
        },
        hash,
    ))
}

/// When the dead letter of a row was taken in, and how long it was.
pub fn age_and_length(value: &[u8]) -> Read<(i64, u64)> {
    let mut reader = Reader::new(value, VERSION)?;
    let ingested_ms = reader.signed()?;
    reader.bytes()?;
    reader.bytes()?;
    Ok((ingested_ms, reader.number()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_dead_letter_reads_back(address in addresses(), ingested_ms: i64, code: String, detail: String, bytes: Vec<u8>) {
            let row = encode(ingested_ms, &code, &detail, &bytes);
            prop_assert_eq!(age_and_length(&row)?, (ingested_ms, bytes.len() as u64));
            let (letter, hash) = decode(address.clone(), &row)?;
            prop_assert_eq!(hash, xxhash_rust::xxh3::xxh3_128(&bytes));
            let length = bytes.len() as u64;
            prop_assert_eq!(letter, DeadLetter { address, ingested_ms, code, detail, bytes: bytes.into(), length });
        }
    }

    #[test]
    fn a_long_one_is_cut_and_says_how_long_it_was() {
        let bytes = vec![7; DEAD_LETTER_BYTES_MAX + 10];
        let address = Address {
            source: proto::SourceName::push(),
            partition: 0,
            offset: 1,
            item: None,
        };
        let (letter, hash) = decode(address, &encode(0, "too_big", "", &bytes)).expect("a row");
        assert_eq!(
            (letter.bytes.len(), letter.length),
            (DEAD_LETTER_BYTES_MAX, bytes.len() as u64)
        );
        assert_eq!(hash, xxhash_rust::xxh3::xxh3_128(&bytes));
    }
}
