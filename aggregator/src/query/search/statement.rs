//! Runs a search as a SQL statement.
//!
//! ```text
//!   documents, if leaves can sort them ─── top_page ── one scan: the first documents, and how many match
//!   by a field, or of a view ───────────── row_order ─ up to three plans
//! ```
//!
//! In the second case one query is typed, and its plans are built on it, all over the same read views: one counts the
//! matching rows; if there are many, one finds the sort key at which the page ends, so that few rows are read in full;
//! the last one returns the page. Ties are broken by the address of a document. Rows of a view need not have one, so a
//! hash of the row breaks their ties. The cursor counts equal rows, so that each appears on one page.

mod row_order;
mod top_page;

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat};
use datafusion::{
    arrow::{
        array::{AsArray as _, RecordBatch},
        compute::concat_batches,
        datatypes::{Float64Type, Int64Type},
    },
    error::DataFusionError,
    functions_aggregate::expr_fn::count,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit},
    physical_plan::execute_stream,
    sql::sqlparser::ast,
};
use futures::TryStreamExt as _;
use plan::{Path, matcher::ScoreStatistics, path::Step};
use proto::{Code, CollectionName, Problem};
use xxhash_rust::xxh3::xxh3_64;

use self::row_order::RowOrder;
use super::{
    HitPage, SearchContext, Searched,
    hit::{self, DocumentRows, HIT_COLUMNS},
    page_too_large,
    score::{self, ScoreKey},
};
use crate::{
    answer::{Hit, SearchQuery},
    failure::{self, NODE_LIMIT_MARKER},
    query::{
        cursor::RowsPageStart,
        planner::{self, TypedQuery},
        query_plan::ExecutablePlan,
        read_views::QueryViews,
        statement::plan_over,
        statement_shape::StatementValues,
    },
    sql::{self, Statement},
};

/// The key of a plan that belongs to a search ends with this, which no parameters of a statement are.
const OF_SEARCH: &str = "of a search";
/// The plan of a longer statement is not kept.
pub(super) const KEPT_STATEMENT_BYTES_MAX: usize = 2 << 10;

/// The alias of the collection or view that is searched.
pub(super) const INPUT: &str = "documents";

/// Searches a view or, as `slow@1`, a version of it. Also returns the read views that its page was read from.
pub(super) async fn search_view(
    search: &SearchContext<'_>,
    searched: &Searched,
) -> Result<(QueryViews, HitPage), Problem> {
    let view = searched.name();
    let all = parse_query(&format!("SELECT * FROM {}", quoted(view)))?;
    let read_views = search.open(&sql::collections(&all, search.catalog)?).await?;
    let columns = sql::columns(&all, &read_views)?;
    let has_time = columns.iter().any(|column| column == "_time");
    if !has_time && (search.time_range.from.is_some() || search.time_range.to.is_some()) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("{view} has no column _time, which from and to need"),
        )
        .hint("add _time to the view, or write the condition into the search, such as at:>2026-01-31"));
    }
    if search.sort.is_by_score() {
        let key = score::key(search, searched, &read_views).await?;
        let sql = format!("{} {}", selected("*", &key.sql), from_matches(search, searched));
        let page = page(search, &read_views, &sql, SortKeyOf::score(&key), HitKind::Row).await?;
        return Ok((read_views, page));
    }
    let key = match search.sort.key()? {
        Some(key) => key,
        None if has_time => time_key(),
        None => "TRUE".to_owned(),
    };
    let sql = format!("{} {}", selected("*", &key), from_matches(search, searched));
    let page = page(search, &read_views, &sql, SortKeyOf::value(&key), HitKind::Row).await?;
    Ok((read_views, page))
}

/// Searches a collection. Also returns the read views that its page was read from.
pub(super) async fn search_collection(
    search: &SearchContext<'_>,
    searched: &Searched,
    collection: &CollectionName,
) -> Result<(QueryViews, HitPage), Problem> {
    let columns = HIT_COLUMNS.join(&format!(", {INPUT}."));
    let template = from_matches_at_any_time(collection.as_str(), &search.template.text);
    if search.sort.is_by_score() {
        let read_views = search.open(&BTreeSet::from([collection.clone()])).await?;
        let key = score::key(search, searched, &read_views).await?;
        let selected = selected(&columns, &key.sql);
        let (sql, sorted_by) = (format!("{selected} {template}"), SortKeyOf::score(&key));
        let found = top_page::read_by_score(search, &read_views, &sql, &template, &key).await?;
        let found = match found {
            Some(found) => found,
            None => {
                let sql = format!("{selected} {}", from_matches(search, searched));
                page(search, &read_views, &sql, sorted_by, HitKind::Document).await?
            }
        };
        return Ok((read_views, found));
    }
    let key = search.sort.key()?.unwrap_or_else(time_key);
    let (selected, sorted_by) = (selected(&columns, &key), SortKeyOf::value(&key));
    let sql = format!("{selected} {template}");
    let (read_views, found) = top_page::read(search, collection, &sql, sorted_by).await?;
    let found = match found {
        Some(found) => found,
        None => {
            let sql = format!("{selected} {}", from_matches(search, searched));
            page(search, &read_views, &sql, sorted_by, HitKind::Document).await?
        }
    };
    Ok((read_views, found))
}

/// `_time` of the input in SQL.
fn time_key() -> String {
    format!("{INPUT}.\"_time\"")
}

/// The value or the score that hits are sorted by.
#[derive(Clone, Copy)]
struct SortKeyOf<'a> {
    /// In SQL, or the name of the score.
    name: &'a str,
    /// What the scores are computed from.
    statistics: Option<&'a ScoreStatistics>,
}

impl<'a> SortKeyOf<'a> {
    fn value(name: &'a str) -> Self {
        Self { name, statistics: None }
    }

    fn score(key: &'a ScoreKey) -> Self {
        Self {
            name: score::SORTED_BY_SCORE,
            statistics: Some(&key.statistics),
        }
    }
}

/// What the hits of a search are sorted by.
struct SortedBy<'a> {
    /// See [`SearchContext::identity`].
    search: u64,
    key: SortKeyOf<'a>,
    descending: bool,
    /// See [`ResolvedQuery::definitions_hash`](sql::ResolvedQuery).
    definitions_hash: u64,
}

impl SearchContext<'_> {
    /// What a cursor knows this search by.
    pub(super) fn identity(&self) -> u64 {
        let SearchQuery { collection, query, .. } = self.request;
        xxh3_64(format!("{} {query}", quoted(collection)).as_bytes())
    }

    fn sorted_by<'a>(&self, key: SortKeyOf<'a>, definitions_hash: u64) -> SortedBy<'a> {
        SortedBy {
            search: self.identity(),
            key,
            descending: self.sort.descending,
            definitions_hash,
        }
    }
}

/// What a hit is made from.
#[derive(Clone, Copy, PartialEq)]
enum HitKind {
    Document,
    /// A row of a view.
    Row,
}

pub(super) fn parse_query(text: &str) -> Result<ast::Query, Problem> {
    match sql::parse(text, text.len())? {
        Statement::Query(query) => Ok(*query),
        _ => Err(Problem::new(Code::Internal, "the statement of a search is not a query")),
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A path of the input in SQL. All keys are quoted, so that none is read as a keyword.
pub(super) fn input_path(path: &Path) -> String {
    path.steps().iter().fold(INPUT.to_owned(), |start, step| match step {
        Step::Key(key) => format!("{start}.{}", quoted(key)),
        Step::Index(index) => format!("{start}[{index}]"),
    })
}

/// Selects columns of a search's rows, with the sort key as the last one.
fn selected(columns: &str, key: &str) -> String {
    format!("SELECT {INPUT}.{columns}, {key} AS \"\u{1}\"")
}

/// The plan of a statement that belongs to a search. It is kept under this key for searches that come again.
pub(super) async fn kept_plan(
    search: &SearchContext<'_>,
    read_views: &QueryViews,
    sql: &str,
    key: Option<String>,
) -> Result<ExecutablePlan, Problem> {
    let (engine, context) = (search.engine, search.context);
    let key = key.map(|key| (key, OF_SEARCH.to_owned()));
    if let Some(key) = &key
        && let Some(cached) = (engine.plans.get(key, search.catalog)).filter(|plan| plan.fits(read_views))
    {
        return plan_over(engine, context, &cached, read_views).await;
    }
    let resolved = sql::resolve(&parse_query(sql)?, read_views, &[], &[])?;
    let values = StatementValues::default();
    let planned = planner::plan(engine, context, read_views, resolved, values, None).await?;
    let settings = engine.sessions.settings();
    (engine.plans).put(key, context, read_views, &planned, None, settings);
    Ok(planned.executable)
}

/// The FROM and WHERE of a search at any time.
fn from_matches_at_any_time(name: &str, query: &str) -> String {
    let query = query.replace('\'', "''");
    format!("FROM {} AS {INPUT} WHERE search({INPUT}, '{query}')", quoted(name))
}

/// The FROM and WHERE of a search.
pub(super) fn from_matches(search: &SearchContext<'_>, searched: &Searched) -> String {
    let mut text = from_matches_at_any_time(searched.name(), &search.request.query);
    for (op, bound) in [(">=", search.time_range.from), ("<", search.time_range.to)] {
        if let Some(time) = bound.and_then(DateTime::from_timestamp_micros) {
            text += &format!(
                " AND {INPUT}.\"_time\"::timestamp {op} '{}'",
                time.to_rfc3339_opts(SecondsFormat::Micros, true)
            );
        }
    }
    text
}

async fn page(
    search: &SearchContext<'_>,
    read_views: &QueryViews,
    sql: &str,
    key: SortKeyOf<'_>,
    kind: HitKind,
) -> Result<HitPage, Problem> {
    let (typed, rows, order) = typed_rows(search, read_views, sql, key, kind).await?;
    let after = order.page_start(search.request)?;
    let total = count_rows(search, read_views, &typed).await?;
    if total == 0 || search.limit == 0 {
        return Ok(HitPage {
            hits: Vec::new(),
            total,
            after: None,
        });
    }
    let rows = order
        .page(search, read_views, &typed, rows, after.as_ref(), total)
        .await?;
    hit_page(search, &order, &rows, after.as_ref(), total)
}

/// Types a query. Also returns it with the keys of its rows, and their order.
async fn typed_rows(
    search: &SearchContext<'_>,
    read_views: &QueryViews,
    sql: &str,
    key: SortKeyOf<'_>,
    kind: HitKind,
) -> Result<(TypedQuery, LogicalPlan, RowOrder), Problem> {
    let resolved = sql::resolve(&parse_query(sql)?, read_views, &[], &[])?;
    let values = StatementValues::default();
    let typed = planner::type_query(search.engine, search.context, read_views, resolved, values).await?;
    let rows = row_order::with_keys(&typed.logical, kind)?;
    let sorted_by = search.sorted_by(key, typed.definitions_hash);
    let order = RowOrder::of(rows.schema().as_arrow(), kind, &sorted_by);
    Ok((typed, rows, order))
}

/// The page of these rows, which begins after a position.
fn hit_page(
    search: &SearchContext<'_>,
    order: &RowOrder,
    rows: &RecordBatch,
    after: Option<&RowsPageStart>,
    total: u64,
) -> Result<HitPage, Problem> {
    let is_full = rows.num_rows() == search.limit && search.limit > 0;
    Ok(HitPage {
        hits: hits(search, rows, order)?,
        total,
        after: is_full.then(|| order.cursor_after(rows, after)).transpose()?,
    })
}

async fn count_rows(search: &SearchContext<'_>, read_views: &QueryViews, typed: &TypedQuery) -> Result<u64, Problem> {
    let counted = LogicalPlanBuilder::from(typed.logical.clone()).aggregate(Vec::<Expr>::new(), [count(lit(1_i64))]);
    let counted = counted.and_then(LogicalPlanBuilder::build).map_err(failure::problem)?;
    let plan = typed.plan(search.engine, read_views, counted).await?;
    let rows = collect_rows(search, plan.executable).await?;
    let total = rows
        .column(0)
        .as_primitive_opt::<Int64Type>()
        .filter(|counts| counts.len() == 1)
        .map(|counts| counts.value(0));
    total
        .and_then(|total| total.try_into().ok())
        .ok_or_else(|| Problem::new(Code::Internal, "the matches of a search were not counted"))
}

fn hits(search: &SearchContext<'_>, rows: &RecordBatch, order: &RowOrder) -> Result<Vec<Hit>, Problem> {
    let mut hits: Vec<Hit> = match order.kind {
        HitKind::Row => (0..rows.num_rows())
            .map(|row| hit::view_row_hit(rows, order.columns, row))
            .collect(),
        HitKind::Document => {
            let documents = DocumentRows::new(rows)?;
            (0..rows.num_rows())
                .map(|row| Ok(documents.hit(row, &documents.address(row)?, search.catalog)))
                .collect::<Result<_, Problem>>()?
        }
    };
    // The sort key follows the columns that hits are made from.
    let key = rows.columns().get(order.columns);
    let scores = key.and_then(|key| key.as_primitive_opt::<Float64Type>());
    if let Some(scores) = scores.filter(|_| search.sort.is_by_score()) {
        for (hit, score) in hits.iter_mut().zip(scores) {
            hit.score = score;
        }
    }
    Ok(hits)
}

/// Runs a plan that returns few rows.
pub(super) async fn collect_rows(search: &SearchContext<'_>, plan: ExecutablePlan) -> Result<RecordBatch, Problem> {
    let mut stream = execute_stream(plan.physical, plan.task).map_err(failure::problem)?;
    let (schema, mut batches, mut bytes) = (stream.schema(), Vec::new(), 0_usize);
    while let Some(batch) = stream.try_next().await.map_err(page_problem)? {
        bytes = bytes.saturating_add(batch.get_array_memory_size());
        if bytes > search.engine.options.query_bytes_max {
            return Err(page_too_large());
        }
        batches.push(batch);
    }
    concat_batches(&schema, &batches).map_err(|e| failure::problem(DataFusionError::from(e)))
}

fn page_problem(error: DataFusionError) -> Problem {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) if !message.contains(NODE_LIMIT_MARKER) => page_too_large(),
        _ => failure::problem(error),
    }
}
