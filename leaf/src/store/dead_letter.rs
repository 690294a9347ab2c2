//! Dead letter row. Family `dead_letters`, key: 2 address. Value: a head with its length: ingest time, error code and detail,
//! length and hash of all bytes; then the bytes, truncated to `DEAD_LETTER_BYTES_MAX`.

use bytes::Bytes;
use plan::scan::DeadLetter;
use proto::{Address, limits::DEAD_LETTER_BYTES_MAX};

use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// Encodes a dead letter; `bytes` are the untruncated bytes.
pub(crate) fn encode(ingested_ms: i64, code: &str, detail: &str, bytes: &[u8]) -> Vec<u8> {
    let truncated = &bytes[..bytes.len().min(DEAD_LETTER_BYTES_MAX)];
    let head = ValueWriter::unversioned()
        .signed(ingested_ms)
        .bytes(code.as_bytes())
        .bytes(detail.as_bytes())
        .number(bytes.len() as u64)
        .rest(&xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes())
        .finish();
    ValueWriter::new(VERSION).bytes(&head).rest(truncated).finish()
}

/// Decodes a dead letter and the hash of its untruncated bytes.
pub(crate) fn decode(address: Address, value: &[u8]) -> DecodeResult<(DeadLetter, u128)> {
    let mut value = ValueReader::new(value, "dead letter", VERSION)?;
    let mut reader = ValueReader::unversioned(value.bytes()?);
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
            bytes: Bytes::copy_from_slice(value.rest()),
            length,
        },
        hash,
    ))
}

/// Decodes only the ingest time and the untruncated length of a dead letter.
pub(crate) fn age_and_length(value: &[u8]) -> DecodeResult<(i64, u64)> {
    let mut value = ValueReader::new(value, "dead letter", VERSION)?;
    let mut reader = ValueReader::unversioned(value.bytes()?);
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
        fn a_dead_letter_round_trips(
            address in addresses(),
            ingested_ms: i64,
            code: String,
            detail: String,
            bytes: Vec<u8>,
        ) {
            let row = encode(ingested_ms, &code, &detail, &bytes);
            prop_assert_eq!(age_and_length(&row)?, (ingested_ms, bytes.len() as u64));
            let (letter, hash) = decode(address.clone(), &row)?;
            prop_assert_eq!(hash, xxhash_rust::xxh3::xxh3_128(&bytes));
            let length = bytes.len() as u64;
            prop_assert_eq!(letter, DeadLetter { address, ingested_ms, code, detail, bytes: bytes.into(), length });
        }
    }

    #[test]
    fn a_long_dead_letter_is_truncated_but_keeps_its_length() {
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
