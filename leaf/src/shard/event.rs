//! Classifies one item of a record: a document with or without a key, a tombstone, or a dead letter with its reason.
//!
//! Pure: the same bytes and rules produce the same event on every replica.

use plan::{Path, value::at};
use proto::{
    Address,
    json::{self, Value},
    limits::{DOCUMENT_BYTES_MAX, KEY_BYTES_MAX},
    record::{Format, Key, Rules},
};

/// Where the key of a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyRule {
    /// Documents have no key: the id is the address.
    Unnamed,
    RecordKey,
    /// The value at a path of the document, if it has one.
    At(Path),
}

impl KeyRule {
    /// The key rule of a source. For a push it is `_id` unless the rules name another path. Fails with a reason if the
    /// rules are invalid.
    pub(crate) fn of(rules: &Rules, push: bool) -> Result<Self, String> {
        match &rules.key {
            Some(Key::Path(path)) => Path::parse(path)
                .map(Self::At)
                .map_err(|reason| format!("the key of the source is invalid: {reason}")),
            _ if push => Ok(Self::At(Path::of_keys(["_id"]))),
            Some(Key::Record) => Ok(Self::RecordKey),
            None => Ok(Self::Unnamed),
        }
    }
}

/// A classified item.
#[derive(Debug, PartialEq)]
pub(crate) enum Event<'a> {
    Document {
        /// Its key, if it has one.
        id: Option<Box<str>>,
        /// Its parsed value, if it is JSON.
        value: Option<Value<'a>>,
    },
    /// A null value.
    Tombstone {
        /// The key of the document to delete, if it has one.
        id: Option<Box<str>>,
    },
    /// An unusable item.
    DeadLetter {
        /// A stable error code.
        code: &'static str,
        /// A human-readable explanation.
        detail: String,
    },
}

/// Classifies an item. `bytes` is `None` for a null value.
pub(crate) fn classify<'a>(
    bytes: Option<&'a [u8]>,
    record_key: Option<&[u8]>,
    format: Format,
    key_rule: &KeyRule,
) -> Event<'a> {
    let record_id = match (key_rule, record_key) {
        (KeyRule::RecordKey, Some(key)) => Some(checked_id(key)),
        _ => None,
    };
    let Some(bytes) = bytes else {
        return Event::Tombstone {
            id: record_id.and_then(Result::ok),
        };
    };
    let value = match format {
        Format::Text => match check_text(bytes) {
            Ok(()) => None,
            Err((code, detail)) => return Event::DeadLetter { code, detail },
        },
        Format::Json => match json::parse(bytes) {
            Ok(value) => Some(value),
            Err(why) => {
                return Event::DeadLetter {
                    code: why.as_str(),
                    detail: why.to_string(),
                };
            }
        },
    };
    let id = match (key_rule, &value) {
        (KeyRule::At(path), Some(value)) => id_at(value, path),
        _ => record_id.transpose(),
    };
    match id {
        Ok(id) => Event::Document { id, value },
        Err(detail) => Event::DeadLetter { code: "bad_id", detail },
    }
}

fn check_text(bytes: &[u8]) -> Result<(), (&'static str, String)> {
    if bytes.is_empty() {
        return Err(("empty", "the value is empty".into()));
    }
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err((
            "too_big",
            format!(
                "the document has {} bytes; the limit is {DOCUMENT_BYTES_MAX}",
                bytes.len()
            ),
        ));
    }
    std::str::from_utf8(bytes)
        .map(drop)
        .map_err(|e| ("not_text", format!("not UTF-8: {e}")))
}

/// The key at a path: a string, or an integer as text. None if the value is missing or null.
fn id_at(value: &Value, path: &Path) -> Result<Option<Box<str>>, String> {
    match at(value, path) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => checked_id(text.as_bytes()).map(Some),
        Some(Value::Int(number)) => Ok(Some(number.to_string().into())),
        Some(other) => Err(format!(
            "the id at {path} is {}; it must be a string or an integer",
            plan::Kinds::of(other)
        )),
    }
}

fn checked_id(bytes: &[u8]) -> Result<Box<str>, String> {
    if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
        return Err(format!(
            "the id has {} bytes; it must have 1 to {KEY_BYTES_MAX}",
            bytes.len()
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| format!("the id is not UTF-8: {e}"))?;
    if text.parse::<Address>().is_ok() {
        return Err(format!(
            "the id {text} looks like an address; ids of that form belong to documents without a key"
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests;
