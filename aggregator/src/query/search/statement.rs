//! Runs a search as a SQL statement: over the rows of a view, and over documents in an order that leaves cannot
//! compute, such as by a field.
//!
//! One query is typed, and up to three plans are built on it, all over the same read views: one counts the matching
//! rows; if there are many, one finds the sort key at which the page ends, so that few rows are read in full; the last
//! one returns the page. Ties are broken by the address of a document. Rows of a view need not have one, so a hash of
//! the row breaks their ties. The cursor counts equal rows, so that each appears on one page.

mod row_order;

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat};
use datafusion::{
    arrow::{
        array::{AsArray as _, RecordBatch},
        compute::concat_batches,
        datatypes::Int64Type,
    },
    error::DataFusionError,
    functions_aggregate::expr_fn::count,
    logical_expr::{Expr, LogicalPlanBuilder, lit},
    physical_plan::execute_stream,
    sql::sqlparser::ast,
};
use futures::TryStreamExt as _;
use plan::{Path, path::Step};
use proto::{Catalog, Code, CollectionName, Problem};

use self::row_order::RowOrder;
use super::{
    HitPage, SearchContext,
    hit::{self, DocumentRows, HIT_COLUMNS},
    page_too_large, sort_path,
};
use crate::{
    answer::Hit,
    failure::{self, NODE_LIMIT_MARKER},
    query::{
        cursor,
        planner::{self, TypedQuery},
        query_plan::ExecutablePlan,
        statement_shape::StatementValues,
    },
    sql::{self, Statement},
};

/// The alias of the collection or view that is searched.
const INPUT: &str = "documents";

/// The collections that a view reads.
pub(super) fn collections_of_view(
    view: &CollectionName,
    catalog: &Catalog,
) -> Result<BTreeSet<CollectionName>, Problem> {
    sql::collections(&select_all(view)?, catalog)
}

pub(super) async fn search_view(search: &SearchContext<'_>, view: &CollectionName) -> Result<HitPage, Problem> {
    let columns = sql::columns(&select_all(view)?, search.read_views)?;
    let has_time = columns.iter().any(|column| column == "_time");
    if !has_time && (search.time_range.from.is_some() || search.time_range.to.is_some()) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("{view} has no column _time, which from and to need"),
        )
        .hint("add _time to the view, or write the condition into the search, such as at:>2026-01-31"));
    }
    let key = match search.sort.name.as_deref().or_else(|| has_time.then_some("_time")) {
        Some(name) => input_path(&sort_path(name)?),
        None => "TRUE".to_owned(),
    };
    page(search, view, "*", &key, HitKind::Row).await
}

pub(super) async fn search_collection(
    search: &SearchContext<'_>,
    collection: &CollectionName,
) -> Result<HitPage, Problem> {
    let columns = HIT_COLUMNS.join(&format!(", {INPUT}."));
    let key = input_path(&sort_path(search.sort.name.as_deref().unwrap_or("_time"))?);
    page(search, collection, &columns, &key, HitKind::Document).await
}

/// What a hit is made from.
#[derive(Clone, Copy, PartialEq)]
enum HitKind {
    Document,
    /// A row of a view.
    Row,
}

fn select_all(view: &CollectionName) -> Result<ast::Query, Problem> {
    parse_query(&format!("SELECT * FROM {}", quoted(view.as_str())))
}

fn parse_query(text: &str) -> Result<ast::Query, Problem> {
    match sql::parse(text, text.len())? {
        Statement::Query(query) => Ok(*query),
        _ => Err(Problem::new(Code::Internal, "the statement of a search is not a query")),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A path of the input in SQL. All keys are quoted, so that none is read as a keyword.
fn input_path(path: &Path) -> String {
    path.steps().iter().fold(INPUT.to_owned(), |start, step| match step {
        Step::Key(key) => format!("{start}.{}", quoted(key)),
        Step::Index(index) => format!("{start}[{index}]"),
    })
}

/// The SQL of a search: the matching rows, with the sort key as the last column.
fn search_sql(search: &SearchContext<'_>, name: &CollectionName, columns: &str, key: &str) -> String {
    let condition = search.request.query.replace('\'', "''");
    let mut text = format!(
        "SELECT {INPUT}.{columns}, {key} AS \"\u{1}\" FROM {} AS {INPUT} WHERE search({INPUT}, '{condition}')",
        quoted(name.as_str())
    );
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
    name: &CollectionName,
    columns: &str,
    key: &str,
    kind: HitKind,
) -> Result<HitPage, Problem> {
    let resolved = sql::resolve(
        &parse_query(&search_sql(search, name, columns, key))?,
        search.read_views,
        &[],
        &[],
    )?;
    let typed = planner::type_query(
        search.engine,
        search.context,
        search.read_views,
        resolved,
        StatementValues::default(),
    )
    .await?;
    let total = count_rows(search, &typed).await?;
    let order = RowOrder::new(&typed.logical, kind, search.sort.descending)?;
    let by = format!("{key} {}", order.type_and_direction());
    let after = search
        .request
        .after
        .as_deref()
        .map(|text| cursor::read_rows(text, &by, &order.types()))
        .transpose()?;
    if total == 0 || search.limit == 0 {
        return Ok(HitPage {
            hits: Vec::new(),
            total,
            after: None,
        });
    }
    let rows = order.page(search, &typed, after.as_ref(), total).await?;
    let hits = hits(&rows, kind, &order, search.read_views.catalog())?;
    let after = (hits.len() == search.limit)
        .then(|| order.page_end(&rows, after.as_ref()))
        .transpose()?;
    Ok(HitPage {
        hits,
        total,
        after: after.map(|after| cursor::write_rows(&by, &after)).transpose()?,
    })
}

async fn count_rows(search: &SearchContext<'_>, typed: &TypedQuery) -> Result<u64, Problem> {
    let counted = LogicalPlanBuilder::from(typed.logical.clone()).aggregate(Vec::<Expr>::new(), [count(lit(1_i64))]);
    let counted = counted.and_then(LogicalPlanBuilder::build).map_err(failure::problem)?;
    let plan = typed.plan(search.engine, search.read_views, counted).await?;
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

fn hits(rows: &RecordBatch, kind: HitKind, order: &RowOrder, catalog: &Catalog) -> Result<Vec<Hit>, Problem> {
    match kind {
        HitKind::Row => Ok((0..rows.num_rows())
            .map(|row| hit::view_row_hit(rows, order.columns, row))
            .collect()),
        HitKind::Document => {
            let documents = DocumentRows::new(rows)?;
            (0..rows.num_rows())
                .map(|row| Ok(documents.hit(row, &documents.address(row)?, catalog)))
                .collect()
        }
    }
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
