//! Nodes and what they work at, for `rachis.nodes` and `rachis.queries`. Shared by: every node (says it), aggregator
//! (shows it).

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;

use crate::{
    problem::Problem,
    tailer::{Changes, LogHealth},
};

/// Names a query on every node that works for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u128);

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for QueryId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// A query that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningQuery {
    /// Names it.
    pub id: QueryId,
    /// The statement or search, its beginning.
    pub text: String,
    /// When it came, milliseconds since 1970.
    pub started_ms: i64,
    /// How long it has run, milliseconds.
    pub elapsed_ms: u64,
}

/// The queries of one process.
pub trait Queries: Send + Sync {
    /// What runs, oldest first.
    fn running(&self) -> Vec<RunningQuery>;

    /// Stops one; whether it was there.
    fn cancel(&self, id: QueryId) -> bool;
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its release.
    pub version: String,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
    /// How it stands to the change log.
    pub log: LogHealth,
}

/// A node as another one sees it.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its roles.
    pub role: String,
    /// Where it listens.
    pub url: String,
    /// What it says, or why it says nothing.
    pub report: Result<NodeReport, Problem>,
}

/// All nodes, as an aggregator asks them.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// The name of this one.
    fn own(&self) -> &str;

    /// How each is, in the order of roles and names.
    async fn status(&self) -> Vec<NodeStatus>;

    /// What runs on the others, with their names. One that does not answer runs nothing that could be seen.
    async fn queries_of_others(&self) -> Vec<(String, RunningQuery)>;

    /// Stops a query of another node; whether it was there.
    async fn cancel_elsewhere(&self, id: QueryId) -> bool;
}

/// The one node of a process that has all roles.
pub struct OnlyNode {
    /// Where it listens.
    pub url: String,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
    /// The change log.
    pub changes: Arc<dyn Changes>,
}

#[async_trait]
impl Nodes for OnlyNode {
    fn own(&self) -> &str {
        "dev"
    }

    async fn status(&self) -> Vec<NodeStatus> {
        let report = NodeReport {
            version: VERSION.to_owned(),
            started_ms: self.started_ms,
            log: self.changes.health(),
        };
        vec![NodeStatus {
            name: self.own().to_owned(),
            role: "tailer, leaf, aggregator".to_owned(),
            url: self.url.clone(),
            report: Ok(report),
        }]
    }

    async fn queries_of_others(&self) -> Vec<(String, RunningQuery)> {
        Vec::new()
    }

    async fn cancel_elsewhere(&self, _: QueryId) -> bool {
        false
    }
}

/// The release of this process.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
