//! Document: what the shard keeps of one event, and what everything above the store sees of it.

use bytes::Bytes;
use proto::{Address, record::TimeKind};

/// A document: its header and its bytes as they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it is.
    pub address: Address,
    /// What stands beside the bytes.
    pub header: Header,
    /// The bytes, as they were given.
    pub bytes: Bytes,
}

/// What is kept beside a document's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// When it was taken in, milliseconds since 1970.
    pub ingested_ms: i64,
    /// The record's time, milliseconds since 1970, where `time_kind` says so.
    pub time_ms: i64,
    /// Who stamped it.
    pub time_kind: TimeKind,
    /// The document's own key, where its source has one; its id is the address otherwise.
    pub id: Option<Box<str>>,
    /// The record's key.
    pub record_key: Option<Bytes>,
    /// The record's headers.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Whether the bytes are JSON (else they are text).
    pub json: bool,
}

impl Document {
    /// The id: the key or, without one, the address.
    pub fn id(&self) -> String {
        self.header
            .id
            .as_ref()
            .map_or_else(|| self.address.to_string(), |id| id.to_string())
    }

    /// The bytes as text. They were checked to be UTF-8 when they came in.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// What it weighs against limits, in bytes.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 200;
        FIXED + self.bytes.len() + self.header.record_key.as_ref().map_or(0, Bytes::len)
    }
}
