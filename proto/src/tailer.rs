//! The tailer's interface to other roles: it orders catalog changes, inspects topics and reports progress. Tailers
//! implement it, aggregators and leaves call it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    catalog::{Catalog, Change, SourceSettings},
    problem::{Code, Problem},
    record::Record,
    status::TailStatus,
};

/// The change log: all catalog changes, in one order.
#[async_trait]
pub trait Changes: Send + Sync {
    /// The catalog, now and as it changes.
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>>;

    /// Appends a change to the log and returns the catalog after it; the change is durable then. With `expected`, the
    /// entry must still be at that version, else `Code::Conflict`. A change that the state machine refuses returns its
    /// problem.
    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem>;

    /// The health of the log, as this node sees it.
    fn health(&self) -> LogHealth;

    /// Waits until this process has caught up with changes that it may have missed. A process that has just started, or
    /// was frozen, asks its peers first. Waits for some seconds only; returns whether it has caught up.
    async fn catch_up(&self) -> bool {
        true
    }

    /// Like [`Self::catch_up`], for what must not be done by an outdated catalog.
    async fn require_caught_up(&self) -> Result<(), Problem> {
        match self.catch_up().await {
            true => Ok(()),
            false => {
                let detail = "this node may have missed changes, and no other node answers";
                let hint = "repeat it once `rachis cluster status` shows that other nodes are up";
                Err(Problem::new(Code::Unavailable, detail).hint(hint))
            }
        }
    }

    /// A peer has a catalog of this version, which this process lacks: [`Self::catch_up`] waits for it from now on.
    fn missed(&self, _version: u64) {}
}

/// A node's view of the change log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHealth {
    /// The last record that the node has read; -1 before the first.
    pub offset: i64,
    /// The hash over all records and their verdicts.
    pub hash: u64,
    /// The cluster, once known.
    pub cluster: Option<uuid::Uuid>,
    /// Why the node accepts no changes, if it accepts none.
    pub fault: Option<String>,
}

/// Queries about sources that only a tailer can answer.
#[async_trait]
pub trait SourceAdmin: Send + Sync {
    /// The status of every partition.
    async fn status(&self) -> Result<Vec<TailStatus>, Problem>;

    /// The same, of the tailers that answer within this time.
    async fn status_within(&self, _wait: Duration) -> Result<Vec<TailStatus>, Problem> {
        self.status().await
    }

    /// The end offset of each partition of the topic, or why the topic cannot be read. Callers check it before they
    /// propose a change.
    async fn ends(&self, settings: &SourceSettings) -> Result<Vec<i64>, Problem>;

    /// The first records that a source would deliver, over all partitions, at most `records`. Stores nothing.
    async fn preview(&self, settings: &SourceSettings, records: usize) -> Result<Vec<(i32, Record)>, Problem>;
}
