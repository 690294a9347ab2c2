#![doc = include_str!("../README.md")]

pub mod answer;
pub mod http;
pub mod query;
mod render;
pub mod sql;
mod typing;

use std::{sync::Arc, time::Duration};

use proto::{
    ingest::{Ingest, Pushes},
    node::Nodes,
    tailer::{Changes, Tailing},
};

/// What an aggregator asks of a leaf.
pub trait Leaf: Ingest + plan::scan::Scan {}
impl<L: Ingest + plan::scan::Scan> Leaf for L {}

/// The roles that an aggregator asks, wherever they run.
#[derive(Clone)]
pub struct Roles {
    /// The leaf that holds all shards, or all leaves as one.
    pub leaf: Arc<dyn Leaf>,
    /// Who takes pushes.
    pub pushes: Arc<dyn Pushes>,
    /// The change log.
    pub changes: Arc<dyn Changes>,
    /// What only tailers know.
    pub tailing: Arc<dyn Tailing>,
    /// All nodes.
    pub nodes: Arc<dyn Nodes>,
}

/// Limits of an aggregator. Each has its unit last.
#[derive(Debug, Clone)]
pub struct AggregatorOptions {
    /// Queries that run at once; more wait.
    pub queries_max: usize,
    /// Queries that wait; more are told to come later.
    pub queue_max: usize,
    /// The deadline of a query that names none.
    pub timeout: Duration,
    /// The longest deadline a query may name.
    pub timeout_max: Duration,
    /// Memory of one query.
    pub query_bytes_max: usize,
    /// Memory of all queries together.
    pub queries_bytes_max: usize,
    /// Rows of a result without LIMIT.
    pub rows_max: usize,
    /// Bytes of a statement.
    pub statement_bytes_max: usize,
    /// Where queries spill; wiped at start.
    pub spill_folder: std::path::PathBuf,
    /// Bytes that queries may spill.
    pub spill_bytes_max: u64,
    /// Bytes of pushes that are worked on at once.
    pub push_bytes_inflight_max: usize,
    /// Shards of a collection that a push creates.
    pub push_shards: u32,
}

impl AggregatorOptions {
    /// The defaults, spilling into this folder.
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
        }
    }
}
