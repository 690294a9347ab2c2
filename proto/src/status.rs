//! State and progress of sources, for `rachis.sources`, `/readyz` and metrics. Tailers report it, aggregators show it.

use serde::{Deserialize, Serialize};

use crate::{
    address::SourceName,
    catalog::{CollectionName, CollectionUid},
};

/// The state of a source partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Not started yet.
    Starting,
    /// Reading, with lag.
    Reading,
    /// Reading, without lag.
    CaughtUp,
    /// Backpressure: the leaf accepts no more for now, and records stay in Kafka.
    Waiting,
    /// Suspended by request.
    Suspended,
    /// Stopped, and `error` says why. Some causes are rechecked from time to time; the others wait for a change.
    Stopped,
}

impl SourceState {
    /// The name of the state in system tables.
    pub fn as_str(self) -> &'static str {
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

/// One partition of a source, as its tailer sees it. While the partitions of a source are unknown, it has one row with
/// `partition: None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailStatus {
    /// The collection.
    pub collection: CollectionName,
    /// Which one it is, if several have had this name one after the other. `None` from an older tailer.
    #[serde(default)]
    pub uid: Option<CollectionUid>,
    /// The source.
    pub source: SourceName,
    /// The partition, once known.
    pub partition: Option<i32>,
    /// The state.
    pub state: SourceState,
    /// The end offset of the partition at the source (one after its last record), once known.
    pub end: Option<i64>,
    /// Records between the position and the end, once known.
    pub lag: Option<i64>,
    /// An upper bound of the leaf's position: the highest offset that this tailer sent and the leaf did not refuse.
    pub sent: Option<i64>,
    /// The last error with its hint; cleared by the next success.
    pub error: Option<String>,
}

impl TailStatus {
    /// Whether it is of this collection, and not of an earlier one with the same name.
    pub fn is_of(&self, uid: CollectionUid) -> bool {
        self.uid.is_none_or(|of| of == uid)
    }
}
