//! What arrives: one record of a source partition, as the source gave it. Shared by: tailer (makes it), leaf (keeps
//! it).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Who stamped a record's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeKind {
    /// Nobody.
    #[default]
    None,
    /// The producer.
    Create,
    /// The broker, when it appended the record.
    Append,
}

/// A record: one offset of a partition. It holds one event or, where a push carried several, many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The offset in the partition.
    pub offset: i64,
    /// The record key, if there is one.
    pub key: Option<Bytes>,
    /// What it carries.
    pub value: Value,
    /// Milliseconds since 1970, if `time_kind` is not `None`.
    pub time_ms: i64,
    /// Who stamped it.
    pub time_kind: TimeKind,
    /// Record headers in order; a value may be null.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Names the push that it is, where it is one: the same push is applied once.
    pub request: Option<RequestKey>,
}

/// Names a push, so that it can be repeated without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The `Idempotency-Key`, 1 to 255 bytes.
    pub key: String,
    /// The hash of the body after decompression.
    pub body: u128,
}

/// The value of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Value {
    /// A null value: with a key it removes the document of that key (a tombstone).
    #[default]
    Null,
    /// One event.
    One(Bytes),
    /// The items of one push, in order: at least two.
    Many(Vec<Bytes>),
}

impl Value {
    /// How many events it carries.
    pub fn events(&self) -> u64 {
        match self {
            Self::Null | Self::One(_) => 1,
            Self::Many(items) => items.len() as u64,
        }
    }
}

impl Record {
    /// What it weighs against the limits of batches and windows, in bytes.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 64;
        let value = match &self.value {
            Value::Null => 0,
            Value::One(bytes) => bytes.len(),
            Value::Many(items) => items.iter().map(|item| item.len() + 16).sum(),
        };
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len) + 16)
            .sum();
        FIXED + self.key.as_ref().map_or(0, Bytes::len) + value + headers
    }

    /// The hash by which a resuming tailer proves that the partition is still the one the leaf has read (never 0).
    pub fn hash(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let mut part = |tag: u8, bytes: &[u8]| {
            hasher.update(&[tag]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(0, &self.offset.to_le_bytes());
        if let Some(key) = &self.key {
            part(1, key);
        }
        match &self.value {
            Value::Null => part(2, &[]),
            Value::One(bytes) => part(3, bytes),
            Value::Many(items) => items.iter().for_each(|item| part(4, item)),
        }
        if let Some(request) = &self.request {
            part(5, request.key.as_bytes());
            part(6, &request.body.to_le_bytes());
        }
        hasher.digest().max(1)
    }
}

/// How a source's records become documents. Part of the source's agreed settings, carried by every batch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What a record's value is.
    #[serde(default)]
    pub format: Format,
    /// What names a document, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

/// What a record's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON value; anything else is a dead letter.
    #[default]
    Json,
    /// Any UTF-8 text; it is the document's `_doc`.
    Text,
}

/// What names a document within its partition: a later document of the same name replaces the earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Key {
    /// The record's key (for a push: the document's top-level `_id`, where there is one).
    Record,
    /// The value at this path, in the spelling that SQL takes (`user.id`); the topic is declared to be partitioned by
    /// it.
    Path(String),
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        if text == "record" {
            Self::Record
        } else {
            Self::Path(text)
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        match key {
            Key::Record => "record".into(),
            Key::Path(path) => path,
        }
    }
}
