//! Raw: the reference meaning of a column, computed from a document's bytes. An index or a stored column is correct if
//! it agrees with this.
//!
//! How values are cast and what a search clause matches is defined in `plan`; this module defines a document's value
//! and its event time.

pub(crate) mod parts;
pub(crate) mod rows;

use std::borrow::Cow;

use plan::Path;
use proto::{json::Value, record::TimeKind};

use crate::document::Document;

pub(crate) use plan::{matcher, value::*};
pub(crate) use rows::RawRows;

/// The document as a value: its parsed JSON, or its whole text as one string. Bytes that cannot be parsed are null;
/// ingest rules that out.
pub(crate) fn root(document: &Document) -> Value<'_> {
    match document.header.json {
        true => proto::json::parse(&document.bytes).unwrap_or(Value::Null),
        false => Value::Text(Cow::Borrowed(document.text())),
    }
}

/// A document's event time in microseconds: the value at the time path, else the record's timestamp, else the ingest
/// time.
pub(crate) fn time_of_document(document: &Document, root: Option<&Value<'_>>, time_path: Option<&Path>) -> i64 {
    let by_path = time_path
        .zip(root)
        .and_then(|(path, root)| at(root, path))
        .and_then(|value| time_of(value, true));
    let header = &document.header;
    let by_header = if header.time_kind == TimeKind::None {
        header.ingested_ms
    } else {
        header.time_ms
    };
    by_path.unwrap_or_else(|| by_header.saturating_mul(1_000))
}
