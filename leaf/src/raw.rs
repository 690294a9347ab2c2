//! Raw: what a column means for one document, read from its bytes. An index or a stored column is right where it says
//! the same.
//!
//! What a view shows of a value, and what a search clause matches, is agreed in `plan`; here is what a document is for
//! them.

pub mod rows;

use std::borrow::Cow;

use plan::Path;
use proto::{json::Value, record::TimeKind};

use crate::document::Document;

pub use plan::{clause, value::*};
pub use rows::Rows;

/// The document as a value: its JSON, or all of it as one text. Bytes that do not read (they were checked when they
/// came in) are null.
pub fn root(document: &Document) -> Value<'_> {
    match document.header.json {
        true => proto::json::parse(&document.bytes).unwrap_or(Value::Null),
        false => Value::Text(Cow::Borrowed(document.text())),
    }
}

/// The event time of a document in microseconds: by the time path, else the record's time, else when it was taken in.
pub fn time_of_document(document: &Document, root: Option<&Value<'_>>, time_path: Option<&Path>) -> i64 {
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
