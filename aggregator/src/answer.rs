//! Queries and answers: what a front end (HTTP or gRPC) passes to the engine, and what the engine returns.

use std::time::Duration;

use datafusion::arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use futures::stream::BoxStream;
use plan::{
    Kinds,
    scan::{ReadCounts, ScanSource},
};
use proto::{Code, PositionVector, Problem, node::QueryId};

/// A SQL statement to run.
#[derive(Debug, Clone, Default)]
pub struct SqlQuery {
    /// The statement.
    pub sql: String,
    /// The values of `$1`, `$2`, …
    pub parameters: Vec<serde_json::Value>,
    /// Who makes a change, as the client says.
    pub author: Option<String>,
    /// Whether a statement without a LIMIT returns all its rows, and may work as long as any query unless it has a
    /// timeout.
    pub all_rows: bool,
    /// Options that a search has, too.
    pub options: QueryOptions,
}

/// The options of a query, SQL or search.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// The answer covers at least these positions.
    pub at_least: PositionVector,
    /// Whether to answer even if shards are missing.
    pub allow_partial: bool,
    /// The time limit; None for the default.
    pub timeout: Option<Duration>,
    /// Whether to read from index and columns or from raw documents only.
    pub read: ScanSource,
    /// The query id, if the client chose one. With it, the client can cancel the query before the answer starts.
    pub id: Option<QueryId>,
}

impl QueryOptions {
    /// Parses a query id that a client chose: a UUID, with or without hyphens, that is not nil.
    pub fn parse_query_id(text: &str) -> Result<QueryId, Problem> {
        let id = uuid::Uuid::try_parse(text).ok().filter(|id| !id.is_nil());
        id.map(|id| QueryId(id.as_u128())).ok_or_else(|| {
            let excerpt: String = text.chars().take(100).collect();
            Problem::new(Code::BadRequest, format!("the query id {excerpt:?} is not a UUID"))
                .hint("send 32 hexadecimal digits, different for each query, or leave the id out")
        })
    }
}

/// A streamed answer: the columns, the rows as they are computed, and the statistics at the end.
pub struct Answer {
    /// The columns in order. Names are unique; JSON columns carry `plan::column::JSON_METADATA`.
    pub schema: SchemaRef,
    /// Rows, then exactly one [`AnswerChunk::End`]; or an error, which ends the stream. Dropping it cancels the query.
    pub chunks: BoxStream<'static, Result<AnswerChunk, Problem>>,
}

/// Some rows of an answer, or its end.
#[derive(Debug)]
pub enum AnswerChunk {
    /// Some rows.
    Rows(RecordBatch),
    /// The statistics, after the last row.
    End(Box<Stats>),
}

/// The statistics of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// The id of the query.
    pub query_id: Option<QueryId>,
    /// The time from the arrival of the query to the last row.
    pub elapsed_ms: u64,
    /// Milliseconds from the ingest of the newest document until it was visible: the maximum over all shards.
    pub freshness_ms: u64,
    /// The positions that the answer covers.
    pub position: PositionVector,
    /// Shards that the query reads.
    pub shards_total: u32,
    /// Shards that answered.
    pub shards_answered: u32,
    /// Documents that the filter was evaluated for.
    pub documents_scanned: u64,
    /// Rows that the leaves sent.
    pub rows_shipped: u64,
    /// What the scans read.
    pub read: ReadCounts,
    /// The time that threads of leaves spent deciding conditions by indexes, in sum.
    pub index_time: Duration,
    /// Aggregators that have computed the answer.
    pub aggregators: usize,
    /// Whether shards are missing.
    pub partial: bool,
    /// Whether the answer was cut at the row limit for queries without LIMIT.
    pub truncated: bool,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl Stats {
    /// The statistics as HTTP answers contain them.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "query_id": self.query_id.map(|id| id.to_string()),
            "elapsed_ms": self.elapsed_ms,
            "freshness_ms": self.freshness_ms,
            "position": self.position.to_string(),
            "shards": { "total": self.shards_total, "answered": self.shards_answered },
            "documents_scanned": self.documents_scanned,
            "rows_shipped": self.rows_shipped,
            "read": {
                "index": self.read.index,
                "columns": self.read.columns,
                "raw": self.read.raw,
                "cached": self.read.cached,
                "pruned": self.read.pruned,
            },
            "index_us": u64::try_from(self.index_time.as_micros()).unwrap_or(u64::MAX),
            "aggregators": self.aggregators,
            "partial": self.partial,
            "truncated": self.truncated,
            "warnings": self.warnings,
        })
    }
}

/// A search to run.
#[derive(Debug, Clone, Default)]
pub struct SearchQuery {
    /// The name of the collection or view, unchecked.
    pub collection: String,
    /// The search text; an empty one matches everything.
    pub query: String,
    /// Only documents with this time or a later one.
    pub from: Option<String>,
    /// Only documents before this time.
    pub to: Option<String>,
    /// The sort order: `_time` (the default, newest first), a path or a field, each with an optional `:asc` or `:desc`;
    /// for a view, a column or a path inside a column.
    pub sort: Option<String>,
    /// The number of hits on a page: 20 by default, at most 10,000.
    pub limit: Option<usize>,
    /// The cursor of the previous page.
    pub after: Option<String>,
    /// Where to mark in the hits what was found: at or below these paths, `msg,user.name`, or everywhere, `*`.
    pub highlight: Option<String>,
    /// Facets of the matches: `kind,user.country:20,ms(10,100)`.
    pub facets: Option<String>,
    /// A histogram of the matches: `1h`, `auto`, `order.paid_at:1d`.
    pub histogram: Option<String>,
    /// Whether to describe the fields of the matches, and by how many documents; `Some(None)` for the default.
    pub fields: Option<Option<usize>>,
    /// Options that a SQL query has, too.
    pub options: QueryOptions,
}

/// The answer to a search.
#[derive(Debug, Clone)]
pub struct SearchAnswer {
    /// The hits of this page.
    pub hits: Vec<Hit>,
    /// The exact number of documents or rows that match, over all pages.
    pub total: u64,
    /// The cursor of the next page, if there may be one.
    pub after: Option<String>,
    /// The facets, in the order in which they were asked for.
    pub facets: Vec<Facet>,
    /// The histogram, if it was asked for.
    pub histogram: Option<Histogram>,
    /// The fields, if they were asked for.
    pub fields: Option<SearchedFields>,
    /// The statistics.
    pub stats: Stats,
}

/// How often values of a path occur among all matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facet {
    /// The path, field or column.
    pub path: String,
    /// The most frequent values, or the ranges in their order.
    pub values: Vec<FacetValue>,
    /// The sum of the counts of all other values; None for ranges.
    pub others: Option<u64>,
}

/// A value or a range of a facet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FacetValue {
    /// The value as JSON. A range is a text in the syntax of searches, such as `"[10 TO 100}"`.
    pub value: String,
    /// The matches that have it. One that has a value several times, in a list, counts once.
    pub count: u64,
}

/// How many matches fall into each interval of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The length of the intervals, such as `1h`; empty if it was to be chosen and no match has a time.
    pub interval: String,
    /// All intervals from the first to the last, also those without matches.
    pub buckets: Vec<Bucket>,
}

/// An interval of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// When it begins, in microseconds since 1970.
    pub time: i64,
    /// The matches in it.
    pub count: u64,
}

/// The fields of the newest matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchedFields {
    /// The matches that were read.
    pub documents: u64,
    /// The paths in them, the most frequent first.
    pub fields: Vec<SearchedField>,
}

/// What the matches have at a path, a field or a column. Values in lists count under the path of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchedField {
    /// The path.
    pub path: String,
    /// The kinds of its values.
    pub kinds: Kinds,
    /// The matches with a value other than null.
    pub documents: u64,
    /// Some of its short values, as JSON.
    pub samples: Vec<String>,
}

/// A matching document or row of a view.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The document's id, or the row's `_id`; empty if the view has no such column.
    pub id: String,
    /// The document's address, or the one that the row's `_source`, `_partition`, `_offset` and `_item` spell; empty if
    /// the view lacks them.
    pub address: String,
    /// The document as it was ingested, JSON or plain text; for a row, a JSON object of its columns.
    pub document: String,
    /// Whether `document` is JSON.
    pub json: bool,
    /// How well it fits the search, if the hits are sorted by that.
    pub score: Option<f64>,
    /// Where the search found something, if that was asked for.
    pub highlights: Vec<Highlight>,
}

/// What a search found at a path of a hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Highlight {
    /// The path; `_doc` for a document of plain text.
    pub path: String,
    /// Parts of its texts, with `<em>` and `</em>` around what was found.
    pub fragments: Vec<String>,
}

/// The SQL name of a type.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        json if plan::column::is_json(json) => "JSON".into(),
        DataType::Null => "NULL".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SMALLINT".into(),
        DataType::Int32 | DataType::UInt16 => "INTEGER".into(),
        DataType::Int64 | DataType::UInt32 => "BIGINT".into(),
        DataType::UInt64 => "DECIMAL(20,0)".into(),
        DataType::Float16 | DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            format!("DECIMAL({p},{s})")
        }
        DataType::Utf8 | DataType::Utf8View => "TEXT".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "VARBINARY".into()
        }
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".into(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => format!("{}[]", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), type_name(field.data_type())))
                .collect();
            format!("STRUCT({})", fields.join(", "))
        }
        DataType::Map(..) => "MAP".into(),
        DataType::Dictionary(_, values) => type_name(values),
        other => other.to_string().to_ascii_uppercase(),
    }
}
