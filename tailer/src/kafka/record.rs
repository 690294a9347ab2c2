//! Converts a Kafka message into a record, copying it out of the client's memory.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use proto::{
    record::{Record, RecordValue, TimeKind},
    wire,
};
use rdkafka::{
    Message, Timestamp,
    message::{BorrowedHeaders, BorrowedMessage, Headers as _},
};

/// Copies a message into a record.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let (time_ms, time_kind) = match message.timestamp() {
        Timestamp::NotAvailable => (0, TimeKind::None),
        Timestamp::CreateTime(ms) => (ms, TimeKind::Create),
        Timestamp::LogAppendTime(ms) => (ms, TimeKind::Append),
    };
    let headers = message.headers().map_or_else(Vec::new, headers);
    Record {
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map_or(RecordValue::Null, |bytes| {
            RecordValue::One(Bytes::copy_from_slice(bytes))
        }),
        time_ms,
        time_kind,
        headers,
        request: None,
        ingested_ms: now_ms(),
    }
}

/// Milliseconds since 1970. None if the clock was not set yet.
fn now_ms() -> Option<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Decodes a record from a collection's push or change topic. A record that another program wrote there cannot be decoded,
/// and stays a single value.
pub(super) fn decode_push(record: Record) -> Record {
    let RecordValue::One(payload) = &record.value else {
        return record;
    };
    let Some((request, mut items)) = wire::push::decode(payload) else {
        return record;
    };
    let value = match items.len() {
        1 => RecordValue::One(items.remove(0)),
        _ => RecordValue::Many(items),
    };
    Record {
        value,
        request: Some(request),
        ..record
    }
}

/// Replaces the name of a header that is not UTF-8.
const INVALID_NAME: &str = "\u{fffd}";

fn headers(headers: &BorrowedHeaders) -> Vec<(String, Option<Bytes>)> {
    let header = |i| {
        // rdkafka panics on a name that is not UTF-8, before it returns the value: any producer could stop us with one.
        let copied = catch_unwind(AssertUnwindSafe(|| {
            headers
                .try_get(i)
                .map(|h| (h.key.to_owned(), h.value.map(Bytes::copy_from_slice)))
        }));
        copied.unwrap_or_else(|_| Some((INVALID_NAME.to_owned(), None)))
    };
    (0..headers.count()).filter_map(header).collect()
}
