//! What every system has: a name, a way to load documents, and answers that are timed.

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use clap::ValueEnum;
use reqwest::RequestBuilder;
use serde::Serialize;
use serde_json::Value;

use crate::{
    documents::{DocumentFile, DocumentSet},
    question::Question,
};

/// A system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemName {
    /// The server of this repository, as one process.
    Rachis,
    /// The same, keeping aggregate states between questions, as it does by default.
    RachisWithCache,
    /// VictoriaLogs.
    VictoriaLogs,
    /// OpenSearch.
    OpenSearch,
    /// DuckDB.
    Duckdb,
    /// ClickHouse within a process.
    Chdb,
    /// One tantivy index: the limit for searches.
    Tantivy,
}

impl SystemName {
    /// All systems, without caches of results. Answers are compared with those of the first.
    pub(crate) const ALL: [Self; 6] = [
        Self::Rachis,
        Self::VictoriaLogs,
        Self::OpenSearch,
        Self::Duckdb,
        Self::Chdb,
        Self::Tantivy,
    ];

    /// The name on the command line and in tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rachis => "rachis",
            Self::RachisWithCache => "rachis-with-cache",
            Self::VictoriaLogs => "victoria-logs",
            Self::OpenSearch => "open-search",
            Self::Duckdb => "duckdb",
            Self::Chdb => "chdb",
            Self::Tantivy => "tantivy",
        }
    }

    /// What makes its figures for a set of documents worse than those of its defaults.
    pub(crate) fn handicap(self, set: DocumentSet) -> Option<&'static str> {
        match (self, set) {
            (Self::Chdb, DocumentSet::Gh) => Some("compact parts: slower than its default where few paths are read"),
            _ => None,
        }
    }
}

impl fmt::Display for SystemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a system took the documents.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Until all documents were acknowledged, durable as the system promises it, and visible.
    pub(crate) time: Duration,
    /// Documents that it did not take, although it may have acknowledged them.
    pub(crate) refused: u64,
    /// Why it refused one of them, if it says.
    pub(crate) reason: Option<String>,
}

impl Loaded {
    /// What a system took that has this many documents afterwards.
    pub(super) fn new(time: Duration, documents: &DocumentFile, count: u64) -> Result<Self> {
        let refused = documents.documents.checked_sub(count);
        Ok(Self {
            time,
            refused: refused.with_context(|| format!("it has {count} documents of {}", documents.documents))?,
            reason: None,
        })
    }
}

/// Rows, and how long they took.
#[derive(Debug)]
pub(crate) struct TimedRows {
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) time: Duration,
    /// The time that threads spent looking up the conditions in indexes, if the system says.
    pub(crate) index_time: Option<Duration>,
}

/// A running system.
#[async_trait(?Send)]
pub(crate) trait System {
    /// The id of its process.
    fn process_id(&self) -> u32;

    /// The folder of its data.
    fn folder(&self) -> PathBuf;

    /// Loads all documents.
    async fn load(&mut self, documents: &DocumentFile) -> Result<Loaded>;

    /// What must be defined between loading and asking.
    async fn define(&mut self, _: DocumentSet) -> Result<()> {
        Ok(())
    }

    /// Asks a question for which there is a text. Servers are timed by their client, from the request to the last byte
    /// of the answer; other systems time themselves, so that the pipe does not count.
    async fn ask(&self, question: &Question) -> Result<TimedRows>;
}

/// A server that takes documents in requests, as they come.
#[async_trait(?Send)]
pub(crate) trait PushServer: System {
    /// Creates the collection or index of a set of documents, where a server does not do that by itself.
    async fn create(&mut self, set: DocumentSet) -> Result<()>;

    /// Pushes lines and waits until they are acknowledged. Returns how many documents were refused.
    async fn push(&self, set: DocumentSet, lines: Vec<u8>) -> Result<u64>;

    /// The visible values of `marker` that are at least `from`.
    async fn marks_from(&self, set: DocumentSet, from: u64) -> Result<Vec<u64>>;

    /// How many documents are visible.
    async fn count(&self, set: DocumentSet) -> Result<u64>;

    /// Asks something that a server can answer that has no documents.
    async fn ask_something(&self) -> Result<()>;

    /// A request for the document that has this value at a path.
    fn lookup(&self, set: DocumentSet, path: &str, value: &str) -> RequestBuilder;

    /// Kills it with `kill -9`.
    fn kill(&mut self);

    /// Starts it again on its folder and waits until it says that it is ready.
    async fn restart(&mut self) -> Result<()>;
}
