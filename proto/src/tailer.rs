//! What the tailer does for the others: agree on changes, look into topics, say how far it is. Shared by: tailer (does
//! it), aggregator and leaf (ask).

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    catalog::{Catalog, Change, SourceSettings},
    problem::Problem,
    record::Record,
    status::TailStatus,
};

/// Everything that is agreed on, in one order.
#[async_trait]
pub trait Changes: Send + Sync {
    /// The catalog, now and as it changes.
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>>;

    /// Puts a change into the log and answers the catalog after it. With `expected`, only if the entry it changes is
    /// still at that version (`Code::Conflict`). What the state machine refuses comes back as its problem. Durable when
    /// this returns.
    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem>;

    /// How the log is.
    fn health(&self) -> LogHealth;

    /// Waits until what this process knows is not behind what it slept through: a process that has just started, or was
    /// frozen, asks first.
    async fn current(&self) {}
}

/// How a node stands to the change log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogHealth {
    /// The last record that it has read; -1 before the first.
    pub offset: i64,
    /// Over all records and verdicts.
    pub hash: u64,
    /// The cluster, once known.
    pub cluster: Option<uuid::Uuid>,
    /// Why nothing can be decided, where nothing can.
    pub trouble: Option<String>,
}

/// What only a tailer can say of sources.
#[async_trait]
pub trait Tailing: Send + Sync {
    /// How far every partition is.
    async fn status(&self) -> Result<Vec<TailStatus>, Problem>;

    /// The offset after the last record of each of the topic's partitions, or why it cannot be read. Used before
    /// something is agreed on.
    async fn ends(&self, settings: &SourceSettings) -> Result<Vec<i64>, Problem>;

    /// The first records that a source would give, at most `records` of them, over all partitions; nothing is stored.
    async fn preview(&self, settings: &SourceSettings, records: usize) -> Result<Vec<(i32, Record)>, Problem>;
}
