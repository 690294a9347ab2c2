//! Dead letter row. Family `dead_letters`, key: 2 address. Value: a head with its length: ingest time, error code and detail,
//! length and hash of all bytes, and the rest of its record as a header with its length, empty if that is too large; then
//! the bytes, truncated to `DEAD_LETTER_BYTES_MAX`. Rows of release 0.1 have no header.

use bytes::Bytes;
use plan::scan::{DeadLetter, DeadRecord};
use proto::{
    Address,
    limits::{DEAD_LETTER_BYTES_MAX, DEAD_LETTER_HEADER_BYTES_MAX},
    record::{Record, RecordValue},
};

use super::document::{decode_header, encode_header};
use crate::{
    codec::{DecodeResult, ValueReader, ValueWriter},
    document::Header,
};

const VERSION: u8 = 1;

/// Encodes a dead letter; `bytes` are the untruncated bytes of its value. Also returns how many bytes count against its
/// partition: the value, and what is kept of its record.
pub(crate) fn encode(ingested_ms: i64, code: &str, detail: &str, record: &Record, bytes: &[u8]) -> (Vec<u8>, u64) {
    let truncated = &bytes[..bytes.len().min(DEAD_LETTER_BYTES_MAX)];
    let header = encode_header(&Header {
        ingested_ms,
        time_ms: record.time_ms,
        time_kind: record.time_kind,
        record_key: record.key.clone(),
        headers: record.headers.clone(),
        ..Header::default()
    });
    let header = if header.len() <= DEAD_LETTER_HEADER_BYTES_MAX {
        &header[..]
    } else {
        &[]
    };
    let head = ValueWriter::unversioned()
        .signed(ingested_ms)
        .bytes(code.as_bytes())
        .bytes(detail.as_bytes())
        .number(bytes.len() as u64)
        .rest(&xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes())
        .bytes(header)
        .finish();
    let row = ValueWriter::new(VERSION).bytes(&head).rest(truncated).finish();
    (row, (bytes.len() + header.len()) as u64)
}

/// Decodes a dead letter and the hash of its untruncated bytes.
pub(crate) fn decode(address: Address, value: &[u8]) -> DecodeResult<(DeadRecord, u128)> {
    let mut value = ValueReader::new(value, "dead letter", VERSION)?;
    let mut reader = ValueReader::unversioned(value.bytes()?);
    let ingested_ms = reader.signed()?;
    let (code, detail) = (reader.text()?.to_owned(), reader.text()?.to_owned());
    let length = reader.number()?;
    let hash = u128::from_be_bytes(reader.fixed()?);
    let header = if reader.is_at_end() { &[] } else { reader.bytes()? };
    let bytes = Bytes::copy_from_slice(value.rest());
    let record = match header {
        [] => None,
        header => {
            let header = decode_header(header)?;
            Some(Record {
                key: header.record_key,
                value: RecordValue::One(bytes.clone()),
                time_ms: header.time_ms,
                time_kind: header.time_kind,
                headers: header.headers,
                ..Record::default()
            })
        }
    };
    let letter = DeadLetter {
        address,
        ingested_ms,
        code,
        detail,
        bytes,
        length,
    };
    Ok((DeadRecord { letter, record }, hash))
}

/// Decodes only the ingest time of a dead letter, and how many bytes count against its partition.
pub(crate) fn age_and_bytes(value: &[u8]) -> DecodeResult<(i64, u64)> {
    let mut value = ValueReader::new(value, "dead letter", VERSION)?;
    let mut reader = ValueReader::unversioned(value.bytes()?);
    let ingested_ms = reader.signed()?;
    reader.bytes()?;
    reader.bytes()?;
    let length = reader.number()?;
    let _hash: [u8; 16] = reader.fixed()?;
    let header = if reader.is_at_end() { &[] } else { reader.bytes()? };
    Ok((ingested_ms, length + header.len() as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::record::TimeKind;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_dead_letter_round_trips(
            address in addresses(),
            (ingested_ms, time_ms) in any::<(i64, i64)>(),
            code in any::<String>(),
            detail in any::<String>(),
            key in any::<Option<Vec<u8>>>(),
            headers in any::<Vec<(String, Option<Vec<u8>>)>>(),
            bytes in any::<Vec<u8>>(),
        ) {
            let headers = headers.into_iter().map(|(name, value)| (name, value.map(Bytes::from)));
            let record = Record {
                key: key.map(Bytes::from),
                value: RecordValue::One(bytes.clone().into()),
                time_ms,
                time_kind: TimeKind::Create,
                headers: headers.collect(),
                ..Record::default()
            };
            let (row, counted) = encode(ingested_ms, &code, &detail, &record, &bytes);
            prop_assert_eq!(age_and_bytes(&row)?, (ingested_ms, counted));
            prop_assert!(counted > bytes.len() as u64 && counted <= row.len() as u64);
            let (dead, hash) = decode(address.clone(), &row)?;
            prop_assert_eq!(hash, xxhash_rust::xxh3::xxh3_128(&bytes));
            prop_assert_eq!(dead.record, Some(record));
            let length = bytes.len() as u64;
            let letter = DeadLetter { address, ingested_ms, code, detail, bytes: bytes.into(), length };
            prop_assert_eq!(dead.letter, letter);
        }
    }

    #[test]
    fn a_long_dead_letter_is_truncated_but_keeps_its_length() {
        let bytes = vec![7; DEAD_LETTER_BYTES_MAX + 10];
        let (row, _) = encode(0, "too_big", "", &Record::default(), &bytes);
        let (dead, hash) = decode(address(), &row).expect("a row");
        assert_eq!(
            (dead.letter.bytes.len(), dead.letter.length, dead.is_whole()),
            (DEAD_LETTER_BYTES_MAX, bytes.len() as u64, false)
        );
        assert!(dead.record.is_some(), "its key and its time are kept");
        assert_eq!(hash, xxhash_rust::xxh3::xxh3_128(&bytes));
    }

    #[test]
    fn the_record_of_a_dead_letter_with_long_headers_is_not_kept() {
        let record = Record {
            headers: vec![("h".into(), Some(vec![7; DEAD_LETTER_HEADER_BYTES_MAX].into()))],
            ..Record::default()
        };
        let (row, counted) = encode(0, "not_json", "", &record, b"{");
        assert_eq!(counted, 1);
        let (dead, _) = decode(address(), &row).expect("a row");
        assert_eq!((&dead.letter.bytes[..], dead.record), (&b"{"[..], None));
        assert!(row.len() < 100, "{}", row.len());
    }

    fn address() -> Address {
        Address {
            source: proto::SourceName::push(),
            partition: 0,
            offset: 1,
            item: None,
        }
    }
}
