//! The scan request that a query sends to a leaf, and its answer. Shared by: aggregator (client), leaf (server).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::RecordBatch,
        compute::SortOptions,
        datatypes::{DECIMAL128_MAX_PRECISION, DataType, SchemaRef},
        row::SortField,
    },
    common::tree_node::TransformedResult as _,
    error::DataFusionError,
    logical_expr::Expr,
    physical_expr::{
        PhysicalExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
    },
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
    },
};
use futures::stream::BoxStream;
use proto::{
    Address, PositionVector, Problem, SourceName,
    ingest::{Heat, Outcomes, ShardId},
    record::{Record, RecordValue, Rules},
    wire::leaf as wire,
};
use serde::{Deserialize, Serialize};

use crate::{
    column::Column,
    functions::{self, FunctionContext},
    path::Path,
    views::{OpenRequest, Opened},
    walk::Walk as _,
};

/// How long after the deadline of a query its client may still read the answer.
pub const ANSWER_READ_MAX: Duration = Duration::from_secs(3_600);

/// Integers become this type before they are summed, so that a sum cannot overflow. DataFusion adds ten digits for the
/// result, which then has the maximum precision of a decimal.
pub const SUMMED_INTEGER: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION - 10, 0);

/// The data from which a scan computes its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScanSource {
    /// Index and columns if they are exact, otherwise raw documents.
    #[default]
    Auto,
    /// Raw documents only, as the oracle.
    Raw,
}

/// One scan of some shards, each on its own: filter, project, then one stage.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The shards to scan, whose views are open.
    pub shards: Vec<ShardId>,
    /// Which data to read.
    pub read: ScanSource,
    /// The collection's time path, for `_time`.
    pub time_path: Option<Path>,
    /// The columns of the result or, for an aggregate, of its input, in this order.
    pub columns: Vec<Column>,
    /// Conditions that must all be true. They name columns by flat names ([`Column::name`]) without a qualifier, and
    /// may name columns that are not in `columns`.
    pub filter: Vec<Expr>,
    /// What to do with the rows.
    pub stage: Stage,
    /// The time at which the leaf gives up.
    pub deadline: Instant,
}

/// The last step of a scan: what to do with the rows that pass the filter.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Returns the rows, in no particular order.
    Rows {
        /// The maximum number of rows.
        limit: Option<usize>,
    },
    /// Returns the first `limit` rows in the order of these keys, with ties ordered by ascending address.
    Top {
        /// Sort keys, the most significant first.
        keys: Vec<SortKey>,
        /// Skips all rows up to and including this one, by the keys' values in the order of `keys` and then the
        /// address.
        after: Option<PageStart>,
        /// The maximum number of rows.
        limit: usize,
        /// Whether the trailer must count every row that passes the filter. If not, documents that come after the
        /// first `limit` rows need not be looked at.
        counts_all: bool,
    },
    /// DataFusion's partial aggregate over the columns, in its own state schema.
    Partial(Arc<PartialAggregate>),
}

/// A sort key of [`Stage::Top`]. Its column need not be in the request's `columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    /// The column to sort by.
    pub column: Column,
    /// Whether the largest value comes first.
    pub descending: bool,
    /// Whether NULLs come first.
    pub nulls_first: bool,
}

impl SortKey {
    /// How Arrow compares the rows of this key.
    pub fn sort_field(&self) -> SortField {
        let options = SortOptions {
            descending: self.descending,
            nulls_first: self.nulls_first,
        };
        SortField::new_with_options(self.column.read_as.to.arrow(), options)
    }
}

/// The row after which a page begins: the last row of the previous page.
#[derive(Debug, Clone, PartialEq)]
pub struct PageStart {
    /// That row's values of the sort keys.
    pub values: Vec<datafusion::scalar::ScalarValue>,
    /// That row's address.
    pub address: Address,
}

/// DataFusion's partial aggregate, as in its physical plan. Expressions refer to the request's columns by position.
#[derive(Debug)]
pub struct PartialAggregate {
    /// The grouping expressions.
    pub group_by: PhysicalGroupBy,
    /// The aggregate functions.
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// The filter of each aggregate function.
    pub filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// The schema of the input: the request's columns.
    pub input: SchemaRef,
    /// The schema of the output: the aggregates' state.
    pub output: SchemaRef,
}

impl PartialAggregate {
    /// The partial aggregate of a plan, without its input.
    pub fn of(aggregate: &AggregateExec) -> Self {
        Self {
            group_by: aggregate.group_expr().clone(),
            aggregates: aggregate.aggr_expr().to_vec(),
            filters: aggregate.filter_expr().to_vec(),
            input: aggregate.input().schema(),
            output: aggregate.schema(),
        }
    }

    /// The same aggregate with each call of a function in this context: its counts, and when it ends.
    pub fn in_context(&self, context: &FunctionContext) -> Result<Self, DataFusionError> {
        let within = |expression: Arc<dyn PhysicalExpr>| {
            expression
                .transform_up(|part| functions::call_in_context(part, context))
                .data()
        };
        let groups = self.group_by.expr().iter();
        let groups = groups
            .map(|(group, name)| Ok((within(Arc::clone(group))?, name.clone())))
            .collect::<Result<Vec<_>, DataFusionError>>()?;
        let call = |call: &Arc<AggregateFunctionExpr>| {
            let arguments = call.expressions().into_iter().map(within);
            let built = AggregateExprBuilder::new(Arc::new(call.fun().clone()), arguments.collect::<Result<_, _>>()?)
                .schema(Arc::clone(&self.input))
                .alias(call.name())
                .with_ignore_nulls(call.ignore_nulls());
            built.build().map(Arc::new)
        };
        let filter = |filter: &Option<Arc<dyn PhysicalExpr>>| filter.clone().map(within).transpose();
        Ok(Self {
            group_by: PhysicalGroupBy::new(
                groups,
                self.group_by.null_expr().to_vec(),
                self.group_by.groups().to_vec(),
                self.group_by.has_grouping_set(),
            ),
            aggregates: self.aggregates.iter().map(call).collect::<Result<_, _>>()?,
            filters: self.filters.iter().map(filter).collect::<Result<_, _>>()?,
            input: Arc::clone(&self.input),
            output: Arc::clone(&self.output),
        })
    }

    /// The operator that computes it over an input.
    pub fn over(&self, input: Arc<dyn ExecutionPlan>) -> Result<AggregateExec, DataFusionError> {
        AggregateExec::try_new(
            AggregateMode::Partial,
            self.group_by.clone(),
            self.aggregates.clone(),
            self.filters.clone(),
            input,
            self.input.clone(),
        )
    }
}

/// A part of a scan's answer.
#[derive(Debug, Clone)]
pub enum ScanChunk {
    /// A batch of rows.
    Rows(RecordBatch),
    /// The statistics so far. A reader that has enough rows drops the stream before its end and uses the last of these.
    Progress(ScanTrailer),
    /// The end of the answer. A stream that ends without it has failed.
    End(ScanTrailer),
}

/// The statistics of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanTrailer {
    /// Documents for which the filter was decided, by whatever means.
    pub documents: u64,
    /// Rows that passed the filter (before the stage).
    pub matched: u64,
    /// Rows that were returned.
    pub shipped: u64,
    /// What the scan read.
    pub counts: ReadCounts,
    /// The time that threads spent deciding conditions by indexes, in sum.
    pub index_time: Duration,
    /// Values that did not fit the type of their column, by column. Includes columns whose values all fit, so that sums
    /// over shards are correct.
    pub cast_failures: Vec<CastFailure>,
    /// Expressions without a result: the operation, how many values had none, and how many there were.
    pub warnings: Vec<(String, u64, u64)>,
    /// How each condition was decided: the request's filters, each split at its ANDs. Without documents whose aggregate
    /// states were cached.
    pub conditions: Vec<ConditionCounts>,
    /// From where values were read, of each column that was read.
    pub column_reads: Vec<(Column, ColumnReads)>,
}

/// How one condition of a filter was decided. A condition is no longer looked at for documents that another excludes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConditionCounts {
    /// Index parts that it alone excludes by their statistics.
    pub pruned: u64,
    /// Documents decided by dictionaries and postings.
    pub index: u64,
    /// Documents decided by the distinct values of its column.
    pub distinct: u64,
    /// Documents that are not indexed yet and that it excludes because their bytes lack a text.
    pub bytes: u64,
    /// Documents on whose values it was evaluated.
    pub evaluated: u64,
}

impl ConditionCounts {
    /// Adds the counts of another scan.
    pub fn add(&mut self, other: &Self) {
        self.pruned += other.pruned;
        self.index += other.index;
        self.distinct += other.distinct;
        self.bytes += other.bytes;
        self.evaluated += other.evaluated;
    }
}

/// From where the values of a column were read, in documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ColumnReads {
    /// From the column of a split.
    pub stored: u64,
    /// From raw documents, as the query asks.
    pub asked: u64,
    /// From raw documents that are in no split yet.
    pub tail: u64,
    /// From raw documents, because the split stores no such column.
    pub unstored: u64,
    /// From raw documents, because the column does not hold the value of each: some are long texts, big numbers, arrays
    /// or objects.
    pub outside: u64,
}

impl ColumnReads {
    /// Adds the reads of another scan.
    pub fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.asked += other.asked;
        self.tail += other.tail;
        self.unstored += other.unstored;
        self.outside += other.outside;
    }
}

/// What a scan read; shows whether index and columns were used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Documents decided by an index, without evaluating a condition on them.
    pub index: u64,
    /// Values read from columns.
    pub columns: u64,
    /// Raw documents read.
    pub raw: u64,
    /// Documents whose aggregate states were cached, so that nothing was read of them.
    pub cached: u64,
    /// Index parts that were left out, because their statistics exclude the filter.
    pub pruned: u64,
}

impl ReadCounts {
    /// Adds the counts of another scan.
    pub fn add(&mut self, other: &Self) {
        self.index += other.index;
        self.columns += other.columns;
        self.raw += other.raw;
        self.cached += other.cached;
        self.pruned += other.pruned;
    }
}

/// Counts the values of a column that did not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CastFailure {
    /// The column.
    pub column: Column,
    /// Values that did not fit.
    pub values: u64,
    /// Values that were present.
    pub total: u64,
}

/// The answer of a scan, as a stream of parts.
pub type ScanStream = BoxStream<'static, Result<ScanChunk, Problem>>;

/// A document as it was ingested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its address.
    pub address: Address,
    /// Its id: the key or the address.
    pub id: String,
    /// Its bytes.
    #[serde(skip)]
    pub bytes: bytes::Bytes,
    /// Whether it is JSON (else text).
    pub json: bool,
}

/// What a replica answers to the lookup of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// The document, if the shard has it.
    pub document: Option<Document>,
    /// The boot id, as in [`crate::views::ShardView`].
    pub boot: u64,
}

/// What a shard knows about a path, for `rachis.fields`. (A *field* is a definition in the catalog.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The path.
    pub path: Path,
    /// All kinds its values have ever had.
    pub kinds: crate::kinds::Kinds,
    /// Documents in splits that have a value other than null at this path. Splits that do not index the path are not
    /// counted.
    pub documents: u64,
    /// How splits index the path.
    pub indexed: PathIndex,
    /// A sample value, as JSON text truncated to 200 characters.
    pub sample: Option<String>,
}

/// How the splits of a shard index a path. Of several shards, the last variant counts: it indexes the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathIndex {
    /// As columns.
    Columns,
    /// As columns and postings.
    Text,
    /// Not in some split, where it exceeded the budget.
    Raw,
}

impl PathIndex {
    /// Its name in system tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Text => "text",
            Self::Raw => "raw",
        }
    }
}

/// A split, for `rachis.splits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// Identifies it within the shard.
    pub id: u64,
    /// Whether it is on disk, or else a micro-split in memory.
    pub on_disk: bool,
    /// Merge level: 0 if built from micro-splits (or a micro-split), one more than its inputs after a merge. A rebuild
    /// keeps it.
    pub generation: u32,
    /// Documents in it, including deleted ones.
    pub documents: u64,
    /// Deleted documents among them.
    pub deleted: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Paths with a column.
    pub paths: u64,
}

/// A shard, for `rachis.shards`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Identifies the shard.
    pub shard: ShardId,
    /// The positions through which it contains every record.
    pub positions: PositionVector,
    /// Outcomes of its records, summed over its partitions.
    pub outcomes: Outcomes,
    /// Documents that are not in a split yet, in memory or on disk.
    pub tail: u64,
    /// Its splits.
    pub splits: Vec<SplitStatus>,
    /// Bytes on disk: RocksDB and splits.
    pub bytes: u64,
    /// How fast it grows.
    #[serde(default)]
    pub heat: Heat,
}

/// An event that could not become a document, for `rachis.dead_letters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its address.
    pub address: Address,
    /// When it was ingested, in milliseconds since 1970.
    pub ingested_ms: i64,
    /// A stable error code.
    pub code: String,
    /// An explanation for people.
    pub detail: String,
    /// Its first bytes.
    #[serde(skip)]
    pub bytes: bytes::Bytes,
    /// The event's full length in bytes.
    pub length: u64,
}

/// A dead letter with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRecord {
    /// The dead letter, with as many bytes as are stored.
    pub letter: DeadLetter,
    /// Its record, without an offset, and with these bytes as its value; none if an earlier release wrote it, or if its
    /// headers were too long to be kept.
    pub record: Option<Record>,
}

impl DeadRecord {
    /// Whether all of the record is stored.
    pub fn is_whole(&self) -> bool {
        self.record.is_some() && self.letter.bytes.len() as u64 == self.letter.length
    }

    /// The answer of a leaf.
    pub fn to_wire(&self) -> Result<wire::DeadRecordAnswer, Problem> {
        let without_value = |record: &Record| Record {
            value: RecordValue::Null,
            ..record.clone()
        };
        Ok(wire::DeadRecordAnswer {
            letter: Some(wire::Json::of(&self.letter)?),
            bytes: self.letter.bytes.clone(),
            record: self.record.as_ref().map(|record| without_value(record).into()),
        })
    }

    /// Reads the answer of a leaf; none if there is no such dead letter.
    pub fn from_wire(answer: wire::DeadRecordAnswer) -> Result<Option<Self>, Problem> {
        let Some(letter) = answer.letter else {
            return Ok(None);
        };
        let bytes = answer.bytes;
        let with_value = |record: Record| Record {
            value: RecordValue::One(bytes.clone()),
            ..record
        };
        let record = answer.record.map(Record::try_from).transpose()?.map(with_value);
        let letter = DeadLetter {
            bytes,
            ..letter.decode()?
        };
        Ok(Some(Self { letter, record }))
    }
}

/// Which dead letters of a shard to ingest again, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveQuery {
    /// Only those of this source.
    pub source: Option<SourceName>,
    /// Only those with this code.
    pub code: Option<String>,
    /// Only those from this address on.
    pub from: Option<Address>,
    /// Only the one at `from`.
    pub only: bool,
    /// At most so many; fewer if they are large.
    pub limit: usize,
    /// The rules of each source; by default those of pushes.
    pub rules: BTreeMap<SourceName, Rules>,
    /// The value of the record, instead of its own.
    #[serde(skip)]
    pub value: Option<bytes::Bytes>,
}

/// A dead letter, and what would become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedRedrive {
    /// Where it is.
    pub address: Address,
    /// The change that makes it a document, or why it cannot become one: code and detail.
    pub change: Result<bytes::Bytes, (String, String)>,
}

/// Some dead letters of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedrivePage {
    /// In the order of their addresses.
    pub offered: Vec<OfferedRedrive>,
    /// Where the next request goes on; none at the end.
    pub next: Option<Address>,
}

impl RedrivePage {
    /// The answer of a leaf.
    pub fn to_wire(&self) -> Result<wire::RedrivePage, Problem> {
        let offered = |offered: &OfferedRedrive| {
            Ok(wire::OfferedRedrive {
                offered: Some(wire::Json::of(&(&offered.address, offered.change.as_ref().err()))?),
                change: offered.change.as_ref().ok().cloned().unwrap_or_default(),
            })
        };
        Ok(wire::RedrivePage {
            offered: self.offered.iter().map(offered).collect::<Result<_, Problem>>()?,
            next: self.next.as_ref().map(Address::to_string),
        })
    }

    /// Reads the answer of a leaf.
    pub fn from_wire(page: wire::RedrivePage) -> Result<Self, Problem> {
        let offered = |message: wire::OfferedRedrive| {
            let (address, stays): (Address, Option<(String, String)>) = message.offered.unwrap_or_default().decode()?;
            let change = stays.map_or(Ok(message.change), Err);
            Ok(OfferedRedrive { address, change })
        };
        Ok(Self {
            offered: page.offered.into_iter().map(offered).collect::<Result<_, Problem>>()?,
            next: page.next.map(|next| next.parse()).transpose()?,
        })
    }
}

/// The read interface of a leaf, or of all leaves of a cluster.
#[async_trait]
pub trait Scan: Send + Sync {
    /// Opens read views of shards for a query.
    async fn open(&self, request: OpenRequest<'_>) -> Opened;

    /// A document by its id: its key or, without a key, its address. Of a shard that has these positions.
    async fn document(&self, shard: ShardId, id: &str, at_least: &PositionVector) -> Result<Lookup, Problem>;

    /// The status of all paths.
    async fn fields(&self, shard: ShardId) -> Result<Vec<PathStatus>, Problem>;

    /// The status of the shard and its splits.
    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem>;

    /// The newest dead letters, at most `limit`.
    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem>;

    /// A dead letter with its record.
    async fn dead_record(&self, shard: ShardId, address: &Address) -> Result<Option<DeadRecord>, Problem>;

    /// Dead letters, and what would become of them if they were ingested again.
    async fn redrives(&self, shard: ShardId, query: &RedriveQuery) -> Result<RedrivePage, Problem>;
}
