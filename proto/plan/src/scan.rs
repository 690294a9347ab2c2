//! The one request of a query to a leaf, and its answer. Shared by: aggregator (asks), leaf (answers).
//!
//! A query first *pins* a view of every shard it will ask: all its scans read that one moment, and planning learns from
//! it which paths there are and of which kinds. Then it scans, as often as its plan needs, and unpins.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    logical_expr::Expr,
    physical_expr::aggregate::AggregateFunctionExpr,
    physical_plan::aggregates::PhysicalGroupBy,
};
use futures::{future::join_all, stream::BoxStream};
pub use proto::node::QueryId;

/// How long the readers of an answer may take over it, beyond the deadline of its query.
pub const READING_MAX: Duration = Duration::from_secs(3_600);
use proto::{
    Address, PositionVector, Problem,
    ingest::{Outcomes, ShardId},
};

use crate::{column::Column, kinds::PathKinds, path::Path};

/// A view of one shard, held for a query.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// What it holds: every record through it and none after.
    pub positions: PositionVector,
    /// The leaf's, another one after each of its starts: from then on it may hold less than it did.
    pub boot: u64,
    /// The kinds of all paths.
    pub paths: Arc<PathKinds>,
    /// Documents in it.
    pub documents: u64,
    /// Milliseconds between the newest document's ingest and the acknowledgement of its visibility here; 0 for an empty
    /// shard.
    pub freshness_ms: u64,
}

/// From what a scan computes its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Read {
    /// Index and columns where they are exact, raw documents elsewhere.
    #[default]
    Auto,
    /// Raw documents only: the oracle.
    Raw,
}

/// What a leaf does for one scan of one shard: filter, project, then one stage.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The query whose pinned view is read.
    pub query: QueryId,
    /// The shard.
    pub shard: ShardId,
    /// From what.
    pub read: Read,
    /// The collection's time path, for `_time`.
    pub time_path: Option<Path>,
    /// What comes back (or goes into the stage), in this order.
    pub columns: Vec<Column>,
    /// Conditions that must all be true; their columns are flat names ([`Column::name`]) without a qualifier. A
    /// condition may name columns that do not come back.
    pub filter: Vec<Expr>,
    /// What becomes of the rows.
    pub stage: Stage,
    /// When to give up.
    pub deadline: Instant,
}

/// What becomes of the rows that pass the filter.
#[derive(Debug, Clone)]
pub enum Stage {
    /// They come back, in no particular order, at most `limit` of them.
    Rows {
        /// How many at most.
        limit: Option<usize>,
    },
    /// The first `limit` by these keys come back, in order; ties by address, ascending.
    Top {
        /// Sort keys, the first first.
        keys: Vec<SortKey>,
        /// Only rows after this one, by the keys' values in the order of `keys` and then the address.
        after: Option<After>,
        /// How many at most.
        limit: usize,
    },
    /// DataFusion's partial aggregate over the columns, in its own state schema.
    Partial(Arc<PartialAggregate>),
}

/// A sort key of [`Stage::Top`]: a column of the request (which need not come back).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    /// By what.
    pub column: Column,
    /// Largest first.
    pub descending: bool,
    /// Where NULLs stand.
    pub nulls_first: bool,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq)]
pub struct After {
    /// The last row's values of the sort keys.
    pub values: Vec<datafusion::scalar::ScalarValue>,
    /// Its address.
    pub address: Address,
}

/// DataFusion's partial aggregate, as its physical plan has it; expressions are over the request's columns by position.
#[derive(Debug)]
pub struct PartialAggregate {
    /// The groups.
    pub group_by: PhysicalGroupBy,
    /// The aggregates.
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// The aggregates' filters.
    pub filters: Vec<Option<Arc<dyn datafusion::physical_expr::PhysicalExpr>>>,
    /// The schema of the rows that go in: the request's columns.
    pub input: SchemaRef,
    /// The schema of the state that comes out.
    pub output: SchemaRef,
}

/// A piece of an answer.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// Rows.
    Rows(RecordBatch),
    /// The statistics up to here. A reader that has enough rows drops the stream before its end, and takes the
    /// statistics from the last of these.
    SoFar(Trailer),
    /// The end. A stream that stops without it is an error.
    End(Trailer),
}

/// What a scan says when it is through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailer {
    /// Documents that the filter was decided for, by whatever means.
    pub documents: u64,
    /// Rows that passed the filter (before the stage).
    pub matched: u64,
    /// Rows that came back.
    pub shipped: u64,
    /// What was read.
    pub counts: ReadCounts,
    /// Values that did not fit their view, by column; also of columns where all fit, so that the sums over shards are
    /// right.
    pub misfits: Vec<Misfit>,
    /// What else the user should know.
    pub warnings: Vec<String>,
}

/// What a scan read, to show that index and columns are really used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Documents decided by an index: a condition over them was never evaluated.
    pub index: u64,
    /// Values taken from columns.
    pub columns: u64,
    /// Raw documents read.
    pub raw: u64,
}

impl ReadCounts {
    /// Adds another scan's.
    pub fn add(&mut self, other: &Self) {
        self.index += other.index;
        self.columns += other.columns;
        self.raw += other.raw;
    }
}

/// Values that did not fit the view in which a query saw them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The view.
    pub column: Column,
    /// How many did not fit.
    pub values: u64,
    /// Of how many that were there.
    pub of: u64,
}

/// An answer as it comes.
pub type ScanStream = BoxStream<'static, Result<Chunk, Problem>>;

/// A document as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its address.
    pub address: Address,
    /// Its id: the key or the address.
    pub id: String,
    /// Its bytes.
    pub bytes: bytes::Bytes,
    /// Whether it is JSON (else text).
    pub json: bool,
}

/// What a shard knows of a path, for `rachis.fields`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldStatus {
    /// The path.
    pub path: Path,
    /// Kinds ever seen.
    pub kinds: crate::kinds::Kinds,
    /// Documents in splits that have a value here other than null; without those of which a split does not index this
    /// path.
    pub documents: u64,
    /// Whether the index finds it everywhere: `columns`, `text` (columns and postings), `raw` (in some split over the
    /// budget).
    pub indexed: &'static str,
    /// A value, as JSON text, cut at 200 characters.
    pub sample: Option<String>,
}

/// A split, for `rachis.splits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitStatus {
    /// Names it within the shard.
    pub id: u64,
    /// `disk` or `memory`.
    pub place: &'static str,
    /// How many rebuilds made it: 0 from the tail, 1 a merge, 2 a merge of merges.
    pub generation: u32,
    /// Documents in it, those gone included.
    pub documents: u64,
    /// Of these gone.
    pub gone: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Paths with a column.
    pub paths: u64,
}

/// A shard, for `rachis.shards`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// What it holds.
    pub positions: PositionVector,
    /// Sums over its partitions.
    pub outcomes: Outcomes,
    /// Documents that are in no split yet, in memory or on disk.
    pub tail: u64,
    /// Its splits.
    pub splits: Vec<SplitStatus>,
    /// Bytes on disk: RocksDB and splits.
    pub bytes: u64,
}

/// An event that could not become a document, for `rachis.dead_letters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it is.
    pub address: Address,
    /// When it was taken in, milliseconds since 1970.
    pub ingested_ms: i64,
    /// A stable word.
    pub code: String,
    /// For a person.
    pub detail: String,
    /// Its bytes, at most `proto::limits::DEAD_LETTER_BYTES_MAX`.
    pub bytes: bytes::Bytes,
    /// How many there were.
    pub length: u64,
}

/// What a leaf does for those who ask.
#[async_trait]
pub trait Scan: Send + Sync {
    /// Holds a view of a shard for a query, that covers `at_least`; waits for it until the deadline (`Code::Timeout`).
    async fn pin(
        &self,
        query: QueryId,
        shard: ShardId,
        at_least: &PositionVector,
        deadline: Instant,
    ) -> Result<Pinned, Problem>;

    /// The same for several shards at once; an outcome for each, in that order.
    async fn pin_all(
        &self,
        query: QueryId,
        wanted: &[(ShardId, PositionVector)],
        deadline: Instant,
    ) -> Vec<Result<Pinned, Problem>> {
        join_all(
            wanted
                .iter()
                .map(|(shard, at_least)| self.pin(query, *shard, at_least, deadline)),
        )
        .await
    }

    /// Lets go of all views of a query. A leaf does it by itself some time after the deadline.
    fn unpin(&self, query: QueryId);

    /// Scans a pinned view. Dropping the stream stops the work.
    fn scan(&self, request: ScanRequest) -> ScanStream;

    /// A document by its id: the one of that key or, if it is an address, the one there.
    async fn document(&self, shard: ShardId, id: &str) -> Result<Option<Document>, Problem>;

    /// What is known of all paths.
    async fn fields(&self, shard: ShardId) -> Result<Vec<FieldStatus>, Problem>;

    /// The shard and its splits.
    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem>;

    /// The newest dead letters, at most `limit`.
    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem>;
}
