//! Document: one stored event, as everything above the store sees it.

use bytes::Bytes;
use proto::{Address, record::TimeKind};

/// A document: its header and its original bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// Source, partition and offset it came from.
    pub address: Address,
    /// Metadata stored beside the bytes.
    pub header: Header,
    /// The event's bytes, unchanged.
    pub bytes: Bytes,
}

/// Metadata stored beside a document's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// When it was ingested, milliseconds since 1970.
    pub ingested_ms: i64,
    /// The record's timestamp, milliseconds since 1970; meaningless if `time_kind` is `None`.
    pub time_ms: i64,
    /// Whether the producer or the log set the timestamp, if any.
    pub time_kind: TimeKind,
    /// The document's key, if its source defines one. Without a key, the id is the address.
    pub id: Option<Box<str>>,
    /// The Kafka record's key.
    pub record_key: Option<Bytes>,
    /// The Kafka record's headers.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// True if the bytes are JSON, false if they are plain text.
    pub json: bool,
}

impl Document {
    /// The id: the key or, if there is none, the address.
    pub(crate) fn id(&self) -> String {
        self.header
            .id
            .as_ref()
            .map_or_else(|| self.address.to_string(), |id| id.to_string())
    }

    /// The bytes as text. Ingest checked that they are UTF-8.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// Approximate size in memory, in bytes, as counted against limits.
    pub(crate) fn memory_bytes(&self) -> usize {
        const FIXED: usize = 200;
        FIXED + self.bytes.len() + self.header.record_key.as_ref().map_or(0, Bytes::len)
    }
}
