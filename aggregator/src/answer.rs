//! Question and answer: what a door hands to the engine, and what it gets back.

use std::time::Duration;

use datafusion::arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use futures::stream::BoxStream;
use plan::scan::{QueryId, Read, ReadCounts};
use proto::{Code, PositionVector, Problem};

/// A SQL question.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The statement.
    pub sql: String,
    /// Values for `$1`, `$2`, …
    pub parameters: Vec<serde_json::Value>,
    /// How it is answered.
    pub how: How,
}

/// How a question is answered.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// The answer holds at least this.
    pub at_least: PositionVector,
    /// Whether an answer without some of the shards will do.
    pub allow_partial: bool,
    /// The deadline, if another than the default.
    pub timeout: Option<Duration>,
    /// From what to compute.
    pub read: Read,
    /// The query's id, if the asker chose one: with it a query can be cancelled before anything of its answer came.
    pub id: Option<QueryId>,
}

impl How {
    /// An id that an asker chose: a UUID, with or without hyphens.
    pub fn chosen_id(text: &str) -> Result<QueryId, Problem> {
        let id = uuid::Uuid::try_parse(text).ok().filter(|id| !id.is_nil());
        id.map(|id| QueryId(id.as_u128())).ok_or_else(|| {
            Problem::new(
                Code::BadRequest,
                format!(
                    "the query id {:?} is no UUID",
                    text.chars().take(100).collect::<String>()
                ),
            )
            .hint("give 32 hexadecimal digits, a new one for each question, or leave it out")
        })
    }
}

/// An answer: its columns, its rows as they come, and at their end what is to be said about it.
pub struct Answer {
    /// Arrow fields in order; names are unique; JSON columns carry `plan::column::JSON_METADATA`.
    pub schema: SchemaRef,
    /// Rows, then exactly one `Part::End`, unless a problem ends it. Dropping it cancels the query.
    pub parts: BoxStream<'static, Result<Part, Problem>>,
}

/// A piece of an answer.
#[derive(Debug)]
pub enum Part {
    /// Rows.
    Rows(RecordBatch),
    /// The end.
    End(Box<Stats>),
}

/// What is said about an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Names the query.
    pub query_id: Option<QueryId>,
    /// From the question's arrival to the last row.
    pub elapsed_ms: u64,
    /// How old the newest document was when the view was taken: the largest over all shards.
    pub freshness_ms: u64,
    /// What the answer holds.
    pub position: PositionVector,
    /// Shards asked.
    pub shards_total: u32,
    /// Shards that answered.
    pub shards_answered: u32,
    /// Documents that conditions were decided for.
    pub documents_scanned: u64,
    /// Rows that crossed from the leaves.
    pub rows_shipped: u64,
    /// What was read.
    pub read: ReadCounts,
    /// Whether shards are missing.
    pub partial: bool,
    /// Whether rows were cut at the limit for results without LIMIT.
    pub truncated: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Stats {
    /// As the HTTP door tells it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "query_id": self.query_id.map(|id| id.to_string()),
            "elapsed_ms": self.elapsed_ms,
            "freshness_ms": self.freshness_ms,
            "position": self.position.to_string(),
            "shards": { "total": self.shards_total, "answered": self.shards_answered },
            "documents_scanned": self.documents_scanned,
            "rows_shipped": self.rows_shipped,
            "read": { "index": self.read.index, "columns": self.read.columns, "raw": self.read.raw },
            "partial": self.partial,
            "truncated": self.truncated,
            "warnings": self.warnings,
        })
    }
}

/// A search.
#[derive(Debug, Clone, Default)]
pub struct SearchQuestion {
    /// The name of the collection, or of the view, as given.
    pub collection: String,
    /// The query text; everything, if empty.
    pub query: String,
    /// Only documents of this time and later.
    pub from: Option<String>,
    /// Only documents before this time.
    pub to: Option<String>,
    /// `_time` (default, newest first), a path or a field, or any of them with `:asc` or `:desc`; of a view, a column
    /// or a path inside of one.
    pub sort: Option<String>,
    /// Hits at most: 20 unless said, at most 10,000.
    pub limit: Option<usize>,
    /// The cursor of the page before.
    pub after: Option<String>,
    /// How it is answered.
    pub how: How,
}

/// The answer to a search.
#[derive(Debug, Clone)]
pub struct SearchAnswer {
    /// The hits of this page.
    pub hits: Vec<Hit>,
    /// Documents, or rows of the view, that match, in all pages; exact.
    pub total: u64,
    /// The cursor of the next page, if there may be one.
    pub after: Option<String>,
    /// What is said about it.
    pub stats: Stats,
}

/// A document, or a row of a view, that matches.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its id. Of a row its `_id`; empty where the view shows none.
    pub id: String,
    /// Its address. Of a row that of its `_source`, `_partition`, `_offset` and `_item`; empty where the view does not
    /// show them.
    pub address: String,
    /// The document as it was given: JSON text, or text. Of a row an object of its columns.
    pub document: String,
    /// Whether it is JSON.
    pub json: bool,
}

/// The name of a type in SQL.
pub fn type_name(of: &DataType) -> String {
    match of {
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
