//! Document row. Family `docs`, key: 1 address. Value: header with its length, raw bytes. Immutable; removed once the
//! document is deleted and no read view needs it.

use bytes::Bytes;
use proto::{Address, record::TimeKind};

use crate::{
    codec::{DecodeResult, ValueReader, ValueWriter, decode_error},
    document::{Document, Header},
};

const VERSION: u8 = 1;
const JSON: u8 = 1;
const ID: u8 = 1 << 1;
const RECORD_KEY: u8 = 1 << 2;
/// The id equals the record key and is not stored twice.
const ID_IS_RECORD_KEY: u8 = 1 << 3;

pub(crate) fn encode(document: &Document) -> Vec<u8> {
    let head = encode_header(&document.header);
    ValueWriter::new(VERSION).bytes(&head).rest(&document.bytes).finish()
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let same = matches!((&header.id, &header.record_key), (Some(id), Some(key)) if id.as_bytes() == &key[..]);
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = flag(header.json, JSON)
        | flag(header.id.is_some() && !same, ID)
        | flag(header.record_key.is_some(), RECORD_KEY)
        | flag(same, ID_IS_RECORD_KEY);
    let mut value = ValueWriter::unversioned()
        .byte(flags)
        .byte(time_kind(header.time_kind))
        .signed(header.ingested_ms)
        .signed(header.time_ms);
    if let (Some(id), false) = (&header.id, same) {
        value = value.bytes(id.as_bytes());
    }
    if let Some(key) = &header.record_key {
        value = value.bytes(key);
    }
    value = value.number(header.headers.len() as u64);
    for (name, content) in &header.headers {
        value = value.bytes(name.as_bytes()).byte(u8::from(content.is_some()));
        value = value.bytes(content.as_deref().unwrap_or_default());
    }
    value.finish()
}

pub(crate) fn decode(address: Address, value: &[u8]) -> DecodeResult<Document> {
    let mut value = ValueReader::new(value, "document", VERSION)?;
    let header = decode_header(value.bytes()?)?;
    Ok(Document {
        address,
        header,
        bytes: Bytes::copy_from_slice(value.rest()),
    })
}

pub(super) fn decode_header(bytes: &[u8]) -> DecodeResult<Header> {
    let mut reader = ValueReader::unversioned(bytes);
    let flags = reader.byte()?;
    let time_kind = time_kind_of(reader.byte()?)?;
    let (ingested_ms, time_ms) = (reader.signed()?, reader.signed()?);
    let mut id: Option<Box<str>> = if flags & ID != 0 {
        Some(reader.text()?.into())
    } else {
        None
    };
    let record_key = if flags & RECORD_KEY != 0 {
        Some(Bytes::copy_from_slice(reader.bytes()?))
    } else {
        None
    };
    if let (true, Some(key)) = (flags & ID_IS_RECORD_KEY != 0, &record_key) {
        id = Some(String::from_utf8_lossy(key).into());
    }
    let mut headers = Vec::new();
    for _ in 0..reader.number()? {
        let name = reader.text()?.to_owned();
        let present = reader.byte()? != 0;
        let content = reader.bytes()?;
        headers.push((name, present.then(|| Bytes::copy_from_slice(content))));
    }
    Ok(Header {
        ingested_ms,
        time_ms,
        time_kind,
        id,
        record_key,
        headers,
        json: flags & JSON != 0,
    })
}

pub(super) fn time_kind(kind: TimeKind) -> u8 {
    match kind {
        TimeKind::None => 0,
        TimeKind::Create => 1,
        TimeKind::Append => 2,
    }
}

fn time_kind_of(byte: u8) -> DecodeResult<TimeKind> {
    match byte {
        0 => Ok(TimeKind::None),
        1 => Ok(TimeKind::Create),
        2 => Ok(TimeKind::Append),
        other => decode_error(format!("unknown kind of time: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_document_round_trips(
            address in addresses(),
            times in any::<(i64, i64)>(),
            kind in 0u8..3,
            id in any::<Option<String>>(),
            record_key in any::<Option<Vec<u8>>>(),
            same: bool,
            headers in proptest::collection::vec(any::<(String, Option<Vec<u8>>)>(), 0..4),
            json: bool,
            bytes: Vec<u8>,
        ) {
            let record_key = if same { id.clone().map(String::into_bytes) } else { record_key };
            let header = Header {
                ingested_ms: times.0,
                time_ms: times.1,
                time_kind: time_kind_of(kind)?,
                id: id.map(Into::into),
                record_key: record_key.map(Bytes::from),
                headers: headers.into_iter().map(|(name, value)| (name, value.map(Bytes::from))).collect(),
                json,
            };
            let document = Document { address: address.clone(), header, bytes: bytes.into() };
            prop_assert_eq!(decode(address, &encode(&document))?, document);
        }
    }
}
