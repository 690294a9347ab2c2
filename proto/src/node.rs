//! Nodes and their running queries, for `rachis.nodes` and `rachis.queries`. Every node reports, aggregators show it.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    catalog::CATALOG_RULES_LEVEL,
    cluster::NodeName,
    problem::Problem,
    tailer::{Changes, LogHealth},
};

/// Identifies a query on every node that takes part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
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

/// A running query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningQuery {
    /// The id.
    pub id: QueryId,
    /// The beginning of the statement or search.
    pub text: String,
    /// When the query arrived, milliseconds since 1970.
    pub started_ms: i64,
    /// How long the query has run, in milliseconds.
    pub elapsed_ms: u64,
    /// Documents of its scans so far: those of a collection count once for each scan.
    #[serde(default)]
    pub documents: u64,
    /// Documents of these that it has scanned so far. A scan under a LIMIT may leave some out.
    #[serde(default)]
    pub documents_scanned: u64,
    /// The bytes that sorts, joins and aggregates above its scans have reserved.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The most bytes that they had reserved at once.
    #[serde(default)]
    pub memory_bytes_most: u64,
}

/// The queries of one process.
pub trait Queries: Send + Sync {
    /// The running queries, oldest first.
    fn running(&self) -> Vec<RunningQuery>;

    /// Cancels a query; returns whether it was running here.
    fn cancel(&self, id: QueryId) -> bool;
}

/// What the stream of a node's states has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// Whole states.
    #[default]
    States,
    /// How far each has read. What is newer is then fetched from one node, not from all.
    Positions,
}

/// What a node reports about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The release that the node runs.
    pub version: String,
    /// The id of its data folder; none in a single process.
    #[serde(default)]
    pub instance: Option<Uuid>,
    /// When the node started, milliseconds since 1970.
    pub started_ms: i64,
    /// The change log, as the node sees it.
    pub log: LogHealth,
    /// For how many milliseconds each member that does not answer this node has not answered; none in a single process,
    /// or if it does not tell.
    #[serde(default)]
    pub silent: Option<BTreeMap<String, u64>>,
    /// The highest level of the change log's rules that its release knows, see [`CATALOG_RULES_LEVEL`]; 0 if it does not
    /// tell.
    #[serde(default)]
    pub rules_level: u16,
}

/// Whether a node answers after all, or answers any other node.
pub fn is_heard(reports: &[(NodeName, NodeReport)], name: &NodeName) -> bool {
    let hears = |report: &NodeReport| {
        let silent = report.silent.as_ref();
        silent.is_some_and(|silent| !silent.contains_key(name.as_str()))
    };
    reports.iter().any(|(by, report)| by == name || hears(report))
}

/// What the nodes report that answer.
pub fn reports(nodes: Vec<NodeStatus>) -> Vec<(NodeName, NodeReport)> {
    let report = |node: NodeStatus| Some((node.name.parse().ok()?, node.report.ok()?));
    nodes.into_iter().filter_map(report).collect()
}

/// The members that no reporting node hears, and for how long at least two of those have not.
pub fn absences(reports: &[(NodeName, NodeReport)]) -> BTreeMap<NodeName, Duration> {
    let mut silent: BTreeMap<NodeName, Vec<u64>> = BTreeMap::new();
    for (name, milliseconds) in reports
        .iter()
        .filter_map(|(_, report)| report.silent.as_ref())
        .flatten()
    {
        if let Ok(name) = name.parse() {
            silent.entry(name).or_default().push(*milliseconds);
        }
    }
    let absence = |(name, mut times): (NodeName, Vec<u64>)| {
        times.sort_unstable_by(|a, b| b.cmp(a));
        let of_two = times.get(1).copied().map(Duration::from_millis)?;
        (!is_heard(reports, &name)).then_some((name, of_two))
    };
    silent.into_iter().filter_map(absence).collect()
}

/// A node as another node sees it.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// The name.
    pub name: String,
    /// The roles.
    pub role: String,
    /// The URL that the node listens on.
    pub url: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// The capacity of a leaf.
    pub capacity: Option<u32>,
    /// The node's report, or why there is none.
    pub report: Result<NodeReport, Problem>,
}

/// The queries of a node.
#[derive(Debug, Clone)]
pub struct NodeQueries {
    /// The name of the node.
    pub node: String,
    /// Its running queries, oldest first, or why they are not known.
    pub queries: Result<Vec<RunningQuery>, Problem>,
}

/// All nodes of the cluster, as an aggregator sees them.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// The name of this node.
    fn own(&self) -> &str;

    /// The status of each node, ordered by role and name.
    async fn status(&self) -> Vec<NodeStatus>;

    /// The queries that run on each other node.
    async fn remote_queries(&self) -> Vec<NodeQueries>;

    /// Cancels a query on other nodes; returns whether it was running there.
    async fn cancel_remote(&self, id: QueryId) -> bool;
}

/// The only node of a cluster: one process with all roles.
pub struct SingleNode {
    /// The URL that the node listens on.
    pub url: String,
    /// When the node started, milliseconds since 1970.
    pub started_ms: i64,
    /// The change log.
    pub changes: Arc<dyn Changes>,
}

#[async_trait]
impl Nodes for SingleNode {
    fn own(&self) -> &str {
        "dev"
    }

    async fn status(&self) -> Vec<NodeStatus> {
        let report = NodeReport {
            version: VERSION.to_owned(),
            instance: None,
            started_ms: self.started_ms,
            log: self.changes.health(),
            silent: None,
            rules_level: CATALOG_RULES_LEVEL,
        };
        vec![NodeStatus {
            name: self.own().to_owned(),
            role: "tailer, leaf, aggregator".to_owned(),
            url: self.url.clone(),
            zone: None,
            capacity: None,
            report: Ok(report),
        }]
    }

    async fn remote_queries(&self) -> Vec<NodeQueries> {
        Vec::new()
    }

    async fn cancel_remote(&self, _: QueryId) -> bool {
        false
    }
}

/// The release of this process.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests;
