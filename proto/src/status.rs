//! What runs and how far it is, for `rachis.sources`, `/readyz` and metrics. Shared by: tailer (says it), aggregator
//! (shows it).

use serde::{Deserialize, Serialize};

use crate::{address::SourceName, catalog::CollectionName};

/// What a source partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Not started yet.
    Starting,
    /// Reading, behind the end.
    Reading,
    /// Reading, at the end.
    CaughtUp,
    /// The leaf has no room; Kafka holds the rest.
    Waiting,
    /// By request.
    Suspended,
    /// Cannot go on by itself: `error` says why.
    Stopped,
}

impl SourceState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Reading,
        Self::CaughtUp,
        Self::Waiting,
        Self::Suspended,
        Self::Stopped,
    ];

    /// As tables show it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Reading => "reading",
            Self::CaughtUp => "caught_up",
            Self::Waiting => "waiting",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
        }
    }
}

/// One partition of a source, as its tailer sees it. A source whose partitions are not known has one row with
/// `partition: None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailStatus {
    /// The collection.
    pub collection: CollectionName,
    /// The source.
    pub source: SourceName,
    /// The partition, once known.
    pub partition: Option<i32>,
    /// What it does.
    pub state: SourceState,
    /// The offset after the last one at the source, once known.
    pub end: Option<i64>,
    /// Records between the position and the end, once known.
    pub lag: Option<i64>,
    /// The farthest that the leaf can have been, as far as is known here: the highest offset that it was sent and has
    /// not refused.
    pub sent: Option<i64>,
    /// The last error with its hint, until something succeeds.
    pub error: Option<String>,
}
