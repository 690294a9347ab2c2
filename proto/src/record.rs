//! A record of a source partition, and the rules by which it becomes documents. Tailers produce records, leaves store
//! them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where the timestamp of a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeKind {
    /// The record has no timestamp.
    #[default]
    None,
    /// The producer set it.
    Create,
    /// The broker set it when it appended the record.
    Append,
}

/// A record: one offset of a partition. It carries one event, or the several events of one push.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The offset in the partition.
    pub offset: i64,
    /// The record key, if any.
    pub key: Option<Bytes>,
    /// The value.
    pub value: RecordValue,
    /// The timestamp in milliseconds since 1970, if `time_kind` is not `None`.
    pub time_ms: i64,
    /// Where the timestamp comes from.
    pub time_kind: TimeKind,
    /// When the sender of the batch read the record from its log, in milliseconds since 1970. Every leaf that gets the
    /// batch stores this time; a record that is read again gets a new one. None if the sender does not say: then the
    /// leaf takes its own time.
    pub ingested_ms: Option<i64>,
    /// The record headers in order; a value may be null.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The idempotency key, if the record is a push: the same push is applied once.
    pub request: Option<RequestKey>,
}

/// The idempotency key of a push: a repetition has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    /// The `Idempotency-Key`, 1 to 255 bytes.
    pub key: String,
    /// The hash of the body after decompression.
    pub body: u128,
}

/// The value of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RecordValue {
    /// A null value. With a key it is a tombstone: it deletes the document of that key.
    #[default]
    Null,
    /// One event.
    One(Bytes),
    /// The items of one push, in order; at least two.
    Many(Vec<Bytes>),
}

impl RecordValue {
    /// The number of events.
    pub fn events(&self) -> u64 {
        match self {
            Self::Null | Self::One(_) => 1,
            Self::Many(items) => items.len() as u64,
        }
    }
}

impl Record {
    /// Approximate size in memory, in bytes, as counted against the limits of batches and windows.
    pub fn memory_bytes(&self) -> usize {
        const FIXED: usize = 64;
        let value = match &self.value {
            RecordValue::Null => 0,
            RecordValue::One(bytes) => bytes.len(),
            RecordValue::Many(items) => items.iter().map(|item| item.len() + 16).sum(),
        };
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len) + 16)
            .sum();
        FIXED + self.key.as_ref().map_or(0, Bytes::len) + value + headers
    }

    /// The hash of the record, never 0. A resuming tailer sends it to prove that the partition is still the one that
    /// the leaf has read.
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
            RecordValue::Null => part(2, &[]),
            RecordValue::One(bytes) => part(3, bytes),
            RecordValue::Many(items) => items.iter().for_each(|item| part(4, item)),
        }
        if let Some(request) = &self.request {
            part(5, request.key.as_bytes());
            part(6, &request.body.to_le_bytes());
        }
        hasher.digest().max(1)
    }
}

/// How the records of a source become documents. Part of the source's settings in the catalog; every batch carries
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The format of record values.
    #[serde(default)]
    pub format: Format,
    /// Where the key of a document comes from, if documents have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

impl Rules {
    /// The hash of the rules, never 0. A partition is ingested by the same rules from its first record on.
    pub fn hash(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&[match self.format {
            Format::Json => 0,
            Format::Text => 1,
        }]);
        if let Some(key) = &self.key {
            hasher.update(String::from(key.clone()).as_bytes());
        }
        hasher.digest().max(1)
    }
}

/// The format of record values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON value; anything else becomes a dead letter.
    #[default]
    Json,
    /// Any UTF-8 text; it becomes the document's `_doc`.
    Text,
}

/// Where the key of a document, its `_id`, comes from. A document replaces an earlier one with the same key in the same
/// source partition; in another partition the same key belongs to another document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Key {
    /// The record key. For a push: the document's top-level `_id`, if it has one.
    Record,
    /// The value at this path, in SQL spelling (`user.id`). The user declares that the topic is partitioned by it.
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
