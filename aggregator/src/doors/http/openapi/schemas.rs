//! Shapes of answers, and of requests that are read as plain JSON, for the description of the interface.
#![expect(dead_code, reason = "only the schemas of these types are used")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// Why a request failed.
#[derive(ToSchema)]
pub(in crate::doors::http) struct Problem {
    /// `about:blank`.
    r#type: String,
    /// The kind of the problem, for people.
    title: String,
    /// The HTTP status.
    status: u16,
    /// The kind of the problem, for programs: a stable word.
    code: String,
    /// What happened, and to what.
    detail: String,
    /// What to do next.
    hint: Option<String>,
    /// Where the problem is in the statement or the search, from 1.
    line: Option<u64>,
    /// Where the problem is in the line, in characters from 1.
    column: Option<u64>,
}

/// What was deleted.
#[derive(ToSchema)]
pub(in crate::doors::http) struct DeleteAnswer {
    /// The number of deleted documents; with `dry_run`, `documents` instead.
    deleted: Option<u64>,
    /// With `dry_run`: the number of documents that would be deleted.
    documents: Option<u64>,
    dry_run: Option<bool>,
    /// The id of the delete in `rachis.deletes`; null if it deleted nothing.
    id: Option<String>,
    /// Where the delete is in the collection's source of changes. Every later answer covers it.
    position: Option<String>,
    /// What the condition could not compare.
    warnings: Option<Vec<String>>,
}

/// A dead letter with its record.
#[derive(ToSchema)]
pub(in crate::doors::http) struct DeadLetter {
    address: String,
    /// When it was ingested.
    ingested: String,
    /// Why it became no document: a stable word.
    code: String,
    /// The same, for people.
    detail: String,
    /// The bytes of the value.
    length: u64,
    /// Whether the whole record is stored.
    complete: bool,
    /// `text`, or `base64` if it is not UTF-8; only the beginning if not all of it is stored.
    value: BTreeMap<String, String>,
    /// The time of the record.
    time: Option<String>,
    /// The key of the record, as `text` or `base64`.
    key: Option<BTreeMap<String, String>>,
    /// The headers of the record, each with `name` and `value`.
    headers: Option<Vec<BTreeMap<String, Value>>>,
}

/// What became of dead letters that were ingested again.
#[derive(ToSchema)]
pub(in crate::doors::http) struct RedriveAnswer {
    /// Those that became documents.
    redriven: Option<u64>,
    /// Those that still cannot become documents: they stay.
    rejected: Option<u64>,
    /// Those that another request ingested again meanwhile, or that are no dead letters.
    gone: Option<u64>,
    /// Why the first hundred cannot become documents: `address`, `code` and `detail` of each.
    errors: Option<Vec<BTreeMap<String, String>>>,
    /// Where the documents are, in the collection's source of changes.
    position: Option<String>,
    /// Null if all were tried. If not, the time was over before: send the request again, with this as `from`.
    next: Option<String>,
    /// With `dry_run`: the number of dead letters that would become documents.
    dead_letters: Option<u64>,
    dry_run: Option<bool>,
}

/// The rows of a statement.
#[derive(ToSchema)]
pub(in crate::doors::http) struct StatementAnswer {
    columns: Vec<AnswerColumn>,
    /// An object for each row, by the names of the columns.
    rows: Vec<BTreeMap<String, Value>>,
    stats: AnswerStats,
}

#[derive(ToSchema)]
struct AnswerColumn {
    name: String,
    /// The SQL type.
    r#type: String,
}

/// How an answer was computed.
#[derive(ToSchema)]
struct AnswerStats {
    query_id: Option<String>,
    elapsed_ms: u64,
    /// How old the newest data of the answer may be, in milliseconds.
    freshness_ms: Option<u64>,
    /// What the answer contains: later queries with this `at_least` contain it, too.
    position: String,
    shards: Shards,
    documents_scanned: u64,
    /// Rows that the leaves sent.
    rows_shipped: u64,
    read: Read,
    /// Time of all threads of the leaves in indexes, in microseconds.
    index_us: u64,
    /// Whether shards are missing.
    partial: bool,
    /// Whether there are more rows than the limit of an answer.
    truncated: bool,
    warnings: Vec<String>,
}

#[derive(ToSchema)]
struct Shards {
    total: u64,
    answered: u64,
}

/// How documents and values were found.
#[derive(ToSchema)]
struct Read {
    /// Documents that an index decided.
    index: u64,
    /// Values from columns.
    columns: u64,
    /// Documents read whole.
    raw: u64,
    /// Documents whose aggregates were cached.
    cached: u64,
    /// Parts of splits that were left out by their least and greatest values.
    pruned: u64,
}

/// A page of hits, and what else was asked for.
#[derive(ToSchema)]
pub(in crate::doors::http) struct SearchedPage {
    hits: Vec<FoundDocument>,
    /// The number of matches on all pages.
    total: u64,
    /// The cursor of the next page; null on the last one.
    after: Option<String>,
    /// The most frequent values, or the ranges, by path.
    #[schema(required = false)]
    facets: BTreeMap<String, Vec<CountedValue>>,
    /// The sum of the counts of all other values, by path.
    #[schema(required = false)]
    others: BTreeMap<String, u64>,
    #[schema(required = false)]
    histogram: Vec<CountedTime>,
    /// The interval of the histogram.
    #[schema(required = false)]
    interval: String,
    #[schema(required = false)]
    fields: Vec<FoundField>,
    /// The number of matches that `fields` describes.
    #[schema(required = false)]
    fields_documents: u64,
    stats: AnswerStats,
}

#[derive(ToSchema)]
struct FoundDocument {
    /// The key of the document or, without one, its address; null for a row of a view that has none.
    #[schema(required = true)]
    id: Option<String>,
    /// How well it fits, if hits are sorted by that.
    #[schema(required = true)]
    score: Option<f64>,
    /// The document, byte for byte: JSON, or a text.
    document: Value,
    /// Parts of texts with `<em>` and `</em>` around what was found, by path.
    #[schema(required = false)]
    highlight: BTreeMap<String, Vec<String>>,
}

#[derive(ToSchema)]
struct CountedValue {
    value: Value,
    count: u64,
}

#[derive(ToSchema)]
struct CountedTime {
    /// The beginning of the interval.
    time: String,
    count: u64,
}

#[derive(ToSchema)]
struct FoundField {
    path: String,
    kinds: Vec<String>,
    documents: u64,
    /// Up to three values.
    samples: Vec<Value>,
}

/// What became of a push.
#[derive(ToSchema)]
pub(in crate::doors::http) struct PushAnswer {
    accepted: u64,
    rejected: u64,
    errors: Vec<ItemError>,
    /// Queries with this `at_least` see the documents.
    position: String,
    /// Whether the push was a repetition, by its Idempotency-Key.
    #[schema(required = false)]
    repeated: bool,
}

/// Why one item of a push was rejected.
#[derive(ToSchema)]
struct ItemError {
    /// The number of the item, from 0.
    index: u64,
    code: String,
    detail: String,
}

#[derive(ToSchema)]
pub(in crate::doors::http) struct Collections {
    collections: Vec<Collection>,
}

#[derive(ToSchema)]
pub(in crate::doors::http) struct Collection {
    name: String,
    uid: String,
    version: u64,
    /// `shards`, `time_path` and `retention`.
    settings: BTreeMap<String, Value>,
    /// Names of the sources.
    sources: Vec<String>,
    /// What is stored of each partition; null if leaves are away.
    #[schema(required = true)]
    position: Option<String>,
    /// Counts of events by outcome; null if leaves are away.
    #[schema(required = true)]
    statistics: Option<BTreeMap<String, Value>>,
    /// Why leaves are away.
    away: Option<String>,
}

#[derive(ToSchema)]
pub(in crate::doors::http) struct Fields {
    collection: String,
    fields: Vec<Field>,
    /// The time path of the collection, if it has one.
    #[schema(required = true)]
    time_path: Option<String>,
    /// Paths whose sample looks like a time, those of most documents first: one of them may be the time path.
    time_paths: Vec<String>,
    warnings: Vec<String>,
}

/// A defined field, a parser, a path of one, or a path of documents.
#[derive(ToSchema)]
struct Field {
    path: String,
    kind: String,
    /// Its SQL type, if it has one.
    #[schema(required = true)]
    r#type: Option<String>,
    /// The kinds of values at the path.
    kinds: Vec<String>,
    in_arrays: bool,
    #[schema(required = true)]
    documents: Option<u64>,
    /// How it is indexed: `text`, `columns`, or `raw`, which is not at all.
    #[schema(required = true)]
    indexed: Option<String>,
    #[schema(required = true)]
    sample: Value,
    definition: Option<String>,
    version: Option<u64>,
}

#[derive(ToSchema)]
pub(in crate::doors::http) struct Queries {
    queries: Vec<Query>,
    /// Nodes that do not answer: what runs there is not known.
    away: Vec<AwayNode>,
}

#[derive(ToSchema)]
struct AwayNode {
    node: String,
    error: String,
}

/// A running query.
#[derive(ToSchema)]
struct Query {
    id: String,
    node: String,
    text: String,
    started: Option<String>,
    elapsed_ms: u64,
    /// Documents in the shards that it reads.
    documents: u64,
    documents_scanned: u64,
    memory_bytes: u64,
    memory_bytes_most: u64,
}

#[derive(ToSchema)]
pub(in crate::doors::http) struct Sources {
    sources: Vec<DescribedSource>,
}

#[derive(ToSchema)]
pub(in crate::doors::http) struct DescribedSource {
    name: String,
    collection: String,
    topic: String,
    /// Settings of librdkafka; secrets are `***`.
    config: BTreeMap<String, String>,
    format: String,
    #[schema(required = true)]
    key: Option<String>,
    start: String,
    suspended: bool,
    /// The offsets that are skipped, by partition.
    skips: Value,
    version: u64,
    partitions: Vec<Partition>,
    /// Why tailers are away.
    #[schema(required = true)]
    away: Value,
}

/// The progress of a partition.
#[derive(ToSchema)]
struct Partition {
    #[schema(required = true)]
    partition: Option<i32>,
    state: String,
    #[schema(required = true)]
    end: Option<i64>,
    #[schema(required = true)]
    lag: Option<i64>,
    #[schema(required = true)]
    error: Value,
}

/// The settings of a source.
#[derive(ToSchema)]
pub(in crate::doors::http) struct SourceBody {
    /// The collection that receives the documents; created if it does not exist.
    collection: String,
    /// The Kafka topic.
    topic: String,
    /// `bootstrap.servers` and any other setting of librdkafka, except those that load code.
    config: BTreeMap<String, Value>,
    /// `json`, the default, or `text`.
    format: Option<String>,
    /// Where the key of a document comes from.
    key: Option<String>,
    /// Where to start a partition of which nothing is stored: `earliest`, the default, or `latest`.
    start: Option<String>,
}
