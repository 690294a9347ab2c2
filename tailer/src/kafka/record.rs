//! A Kafka message as our record: the door between the client's memory and ours.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proto::{
    record::{Record, TimeKind, Value},
    wire,
};
use rdkafka::{
    Message, Timestamp,
    message::{BorrowedHeaders, BorrowedMessage, Headers as _},
};

/// Copies a message out of the client's memory.
pub fn record(message: &BorrowedMessage<'_>) -> Record {
    let (time_ms, time_kind) = match message.timestamp() {
        Timestamp::NotAvailable => (0, TimeKind::None),
        Timestamp::CreateTime(ms) => (ms, TimeKind::Create),
        Timestamp::LogAppendTime(ms) => (ms, TimeKind::Append),
    };
    let headers = message.headers().map_or_else(Vec::new, headers);
    Record {
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message
            .payload()
            .map_or(Value::Null, |bytes| Value::One(Bytes::copy_from_slice(bytes))),
        time_ms,
        time_kind,
        headers,
        request: None,
    }
}

/// A record of the topic of a collection's pushes. What is no push (somebody else wrote it) stays what it is: one
/// value.
pub fn push(record: Record) -> Record {
    let Value::One(payload) = &record.value else {
        return record;
    };
    let Some((request, mut items)) = wire::push::decode(payload) else {
        return record;
    };
    let value = match items.len() {
        1 => Value::One(items.remove(0)),
        _ => Value::Many(items),
    };
    Record {
        value,
        request: Some(request),
        ..record
    }
}

/// The name under which a header is kept whose own name is not UTF-8.
const NAMELESS: &str = "\u{fffd}";

fn headers(headers: &BorrowedHeaders) -> Vec<(String, Option<Bytes>)> {
    let header = |i| {
        // The client's wrapper panics on a name that is not UTF-8, before it gives the value: any producer could stop
        // us with one.
        let given = catch_unwind(AssertUnwindSafe(|| {
            headers
                .try_get(i)
                .map(|h| (h.key.to_owned(), h.value.map(Bytes::copy_from_slice)))
        }));
        given.unwrap_or_else(|_| Some((NAMELESS.to_owned(), None)))
    };
    (0..headers.count()).filter_map(header).collect()
}
