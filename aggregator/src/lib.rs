#![doc = include_str!("../README.md")]

mod answer;
mod deep_stack;
mod definition_file;
pub mod doors;
mod failure;
mod query;
mod render;
mod sql;
mod typing;

use std::{sync::Arc, time::Duration};

use plan::scan::Scan;
use proto::{
    ingest::{Ingest, Pushes},
    node::Nodes,
    replacement::ReplacementLimits,
    tailer::{Changes, SourceAdmin},
};

pub use query::{DistributionOptions, Engine, SnapshotOptions};
pub use sql::{ScriptStatement, statements};

/// The other roles that an aggregator calls, in this process or remote.
#[derive(Clone)]
pub struct Roles {
    /// Answers queries: the leaf with all shards, or all leaves behind one facade.
    pub leaf: Arc<dyn Scan>,
    /// The same shards as their writers see them: what each partition has stored or lost, and its dead letters.
    pub ingest: Arc<dyn Ingest>,
    /// Accepts pushes.
    pub pushes: Arc<dyn Pushes>,
    /// The change log, from which the catalog comes.
    pub changes: Arc<dyn Changes>,
    /// The tailers: the status of sources, and reads from their brokers.
    pub source_admin: Arc<dyn SourceAdmin>,
    /// All nodes of the cluster.
    pub nodes: Arc<dyn Nodes>,
}

/// The limits of an aggregator. The unit comes last in each name.
#[derive(Debug, Clone)]
pub struct AggregatorOptions {
    /// Queries that run at once; further ones wait.
    pub queries_max: usize,
    /// Queries that wait; further ones fail with `Busy`.
    pub queue_max: usize,
    /// The default timeout of a query.
    pub timeout: Duration,
    /// The longest timeout that a query may set.
    pub timeout_max: Duration,
    /// Memory of one query, in bytes.
    pub query_bytes_max: usize,
    /// Memory of all queries together, in bytes.
    pub queries_bytes_max: usize,
    /// Rows of a result whose query has no LIMIT.
    pub rows_max: usize,
    /// Length of a statement, in bytes.
    pub statement_bytes_max: usize,
    /// The folder that queries spill into; emptied at start.
    pub spill_folder: std::path::PathBuf,
    /// Bytes that all queries together may spill.
    pub spill_bytes_max: u64,
    /// Bytes of all pushes in flight.
    pub push_bytes_inflight_max: usize,
    /// The number of shards of a collection that a push creates.
    pub push_shards: u32,
    /// The replicas of each shard of a collection that names no number.
    pub replicas: u32,
    /// When the replicas of a leaf that is away are replaced, and how many at once.
    pub replacement: ReplacementLimits,
    /// Ranges of documents of one delete. Documents that follow one another are one range.
    pub delete_ranges_max: usize,
    /// Where snapshots are, and when they are taken by themselves; none without a store.
    pub snapshots: Option<SnapshotOptions>,
    /// Rows of the smaller input of a join that are collected in one place, as far as they are known before.
    pub collected_join_rows_max: usize,
    /// Several aggregators compute a query together if the collections that it scans have at least so many documents; 0 for
    /// never.
    pub distribute_documents_min: u64,
    /// The other aggregators; none in a single process.
    pub distribution: Option<DistributionOptions>,
}

impl AggregatorOptions {
    /// The defaults, with this spill folder.
    pub fn new(spill_folder: impl Into<std::path::PathBuf>) -> Self {
        Self {
            queries_max: 8,
            queue_max: 256,
            timeout: Duration::from_secs(60),
            timeout_max: Duration::from_secs(3600),
            query_bytes_max: 1 << 30,
            queries_bytes_max: 2 << 30,
            rows_max: 10_000,
            statement_bytes_max: 1 << 20,
            spill_folder: spill_folder.into(),
            spill_bytes_max: 10 << 30,
            push_bytes_inflight_max: 256 << 20,
            push_shards: 1,
            replicas: 1,
            replacement: ReplacementLimits::default(),
            delete_ranges_max: 4_000_000,
            snapshots: None,
            collected_join_rows_max: 128 << 10,
            distribute_documents_min: 5_000_000,
            distribution: None,
        }
    }
}
