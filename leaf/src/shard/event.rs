//! One item of a record -> what becomes of it: a document with or without a key, a tombstone, or a dead letter with its
//! reason.
//!
//! Pure: the same bytes and rules give the same fate on every replica.

use plan::{Path, path::Step};
use proto::{
    Address,
    json::{self, Value},
    limits::{DOCUMENT_BYTES_MAX, KEY_BYTES_MAX},
    record::{Format, Key, Rules},
};

/// Where a document's own key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// Nowhere: its id is its address.
    Unnamed,
    /// It is the record's key.
    RecordKey,
    /// It is the value at a path, where there is one.
    At(Path),
}

impl Naming {
    /// By a source's rules; a push names documents by `_id` unless they say otherwise. The reason, where the rules do
    /// not read.
    pub fn of(rules: &Rules, push: bool) -> Result<Self, String> {
        match &rules.key {
            Some(Key::Path(path)) => Path::parse(path)
                .map(Self::At)
                .map_err(|reason| format!("the key of the source does not read: {reason}")),
            _ if push => Ok(Self::At(Path::of_keys(["_id"]))),
            Some(Key::Record) => Ok(Self::RecordKey),
            None => Ok(Self::Unnamed),
        }
    }
}

/// What becomes of an item.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// A document.
    Document {
        /// Its own key, if it has one.
        id: Option<Box<str>>,
        /// Its value, if it is JSON.
        value: Option<Value<'a>>,
    },
    /// A null value.
    Tombstone {
        /// The key whose document it removes, if it has one.
        id: Option<Box<str>>,
    },
    /// Unusable.
    Dead {
        /// A stable word.
        code: &'static str,
        /// For a person.
        detail: String,
    },
}

/// Judges an item. `bytes` is `None` for a null value.
pub fn read<'a>(bytes: Option<&'a [u8]>, record_key: Option<&[u8]>, format: Format, naming: &Naming) -> Event<'a> {
    let by_record = match (naming, record_key) {
        (Naming::RecordKey, Some(key)) => Some(checked_id(key)),
        _ => None,
    };
    let Some(bytes) = bytes else {
        return Event::Tombstone {
            id: by_record.and_then(Result::ok),
        };
    };
    let value = match format {
        Format::Text => match check_text(bytes) {
            Ok(()) => None,
            Err((code, detail)) => return Event::Dead { code, detail },
        },
        Format::Json => match json::parse(bytes) {
            Ok(value) => Some(value),
            Err(why) => {
                return Event::Dead {
                    code: why.word(),
                    detail: why.to_string(),
                };
            }
        },
    };
    let id = match (naming, &value) {
        (Naming::At(path), Some(value)) => id_at(value, path),
        _ => by_record.transpose(),
    };
    match id {
        Ok(id) => Event::Document { id, value },
        Err(detail) => Event::Dead { code: "bad_id", detail },
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
                "{} bytes are over the limit of {DOCUMENT_BYTES_MAX} bytes for a document",
                bytes.len()
            ),
        ));
    }
    std::str::from_utf8(bytes)
        .map(drop)
        .map_err(|e| ("not_text", format!("not UTF-8: {e}")))
}

/// The key at a path: a string, or an integer by its text. None where there is nothing, or null.
fn id_at(value: &Value, path: &Path) -> Result<Option<Box<str>>, String> {
    match value_at(value, path) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => checked_id(text.as_bytes()).map(Some),
        Some(Value::Int(number)) => Ok(Some(number.to_string().into())),
        Some(other) => Err(format!(
            "the id at {path} is {}; it must be a string or an integer",
            plan::Kinds::of(other)
        )),
    }
}

fn value_at<'v, 'a>(value: &'v Value<'a>, path: &Path) -> Option<&'v Value<'a>> {
    path.steps().iter().try_fold(value, |at, step| match (step, at) {
        (Step::Key(key), at) => at.get(key),
        (Step::Index(index), Value::Array(items)) => items.get(*index as usize),
        _ => None,
    })
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
mod tests {
    use super::*;

    fn push(item: &str) -> Event<'_> {
        let naming = Naming::of(&Rules::default(), true).expect("rules");
        read(Some(item.as_bytes()), None, Format::Json, &naming)
    }

    fn id_of(event: Event) -> Result<Option<String>, &'static str> {
        match event {
            Event::Document { id, .. } => Ok(id.map(|id| id.to_string())),
            Event::Tombstone { .. } => Err("tombstone"),
            Event::Dead { code, .. } => Err(code),
        }
    }

    #[test]
    fn a_push_is_named_by_its_top_level_id() {
        assert_eq!(id_of(push(r#"{"_id":"a"}"#)), Ok(Some("a".into())));
        assert_eq!(id_of(push(r#"{"_id":-7}"#)), Ok(Some("-7".into())));
        for unnamed in [
            r#"{"a":1}"#,
            r#"{"_id":null}"#,
            "[1]",
            "3",
            "null",
            r#"{"x":{"_id":"a"}}"#,
        ] {
            assert_eq!(id_of(push(unnamed)), Ok(None), "{unnamed}");
        }
        let long = format!(r#"{{"_id":"{}"}}"#, "x".repeat(513));
        for bad in [
            r#"{"_id":""}"#,
            r#"{"_id":1.5}"#,
            r#"{"_id":true}"#,
            r#"{"_id":["a"]}"#,
            r#"{"_id":"clicks/0@1"}"#,
            r#"{"_id":"push/3@4.5"}"#,
            &long,
        ] {
            assert_eq!(id_of(push(bad)), Err("bad_id"), "{bad}");
        }
    }

    #[test]
    fn what_is_unusable_says_why() {
        for (item, code) in [
            ("", "empty"),
            (" \n", "empty"),
            ("{", "not_json"),
            ("\u{feff}1", "not_json"),
        ] {
            assert_eq!(id_of(push(item)), Err(code), "{item:?}");
        }
        assert_eq!(id_of(push(&"[".repeat(101))), Err("too_deep"));
        assert_eq!(
            id_of(push(&format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX)))),
            Err("too_big")
        );
        let text = |bytes| id_of(read(Some(bytes), None, Format::Text, &Naming::Unnamed));
        assert_eq!(
            (text(b""), text(b" "), text(b"\xff")),
            (Err("empty"), Ok(None), Err("not_text"))
        );
    }

    #[test]
    fn a_source_is_named_by_its_rules() {
        let naming = |key: &str| {
            Naming::of(
                &Rules {
                    key: Some(key.to_owned().into()),
                    ..Rules::default()
                },
                false,
            )
            .expect("rules")
        };
        let read = |value: Option<&'static str>, key: Option<&'static str>, naming: &Naming| {
            read(value.map(str::as_bytes), key.map(str::as_bytes), Format::Json, naming)
        };
        assert_eq!(
            id_of(read(Some("{}"), Some("k"), &naming("record"))),
            Ok(Some("k".into()))
        );
        assert_eq!(id_of(read(Some("{}"), None, &naming("record"))), Ok(None));
        assert_eq!(id_of(read(Some("{}"), Some(""), &naming("record"))), Err("bad_id"));
        assert_eq!(
            read(None, Some("k"), &naming("record")),
            Event::Tombstone { id: Some("k".into()) }
        );
        assert_eq!(read(None, Some("k"), &Naming::Unnamed), Event::Tombstone { id: None });
        assert_eq!(
            id_of(read(
                Some(r#"{"u":[{"id":7}],"_id":"x"}"#),
                Some("k"),
                &naming("u[0].id")
            )),
            Ok(Some("7".into()))
        );
        assert_eq!(
            id_of(read(Some(r#"{"_id":"x"}"#), Some("k"), &Naming::Unnamed)),
            Ok(None),
            "only a push has _id"
        );
        assert!(
            Naming::of(
                &Rules {
                    key: Some("a..b".to_owned().into()),
                    ..Rules::default()
                },
                false
            )
            .is_err()
        );
    }
}
