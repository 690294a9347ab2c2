//! A search as a statement: of the rows of a view, and of documents in an order that a leaf does not know, such as that
//! of a field.
//!
//! One query gets its types, and up to three plans are built upon it, over the same pinned views: how many rows match;
//! where many do, the key that the page ends with, so that whole rows are read of few; and the page. What breaks ties
//! is the address of a document and, as the rows of a view need not have one, a hash of the row. Equal rows are
//! counted, so a cursor passes each of them once.

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat};
use datafusion::{
    arrow::{
        array::{Array as _, AsArray as _, RecordBatch},
        compute::concat_batches,
        datatypes::{DataType, Int64Type},
    },
    common::Column,
    error::DataFusionError,
    functions::{
        core::expr_fn::{coalesce, r#struct},
        crypto::expr_fn::md5,
    },
    functions_aggregate::expr_fn::count,
    logical_expr::{Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, lit},
    physical_plan::execute_stream,
    scalar::ScalarValue,
    sql::sqlparser::ast,
};
use futures::TryStreamExt as _;
use plan::{
    Path,
    column::is_json,
    functions::{json, own_named},
    path::Step,
};
use proto::{Catalog, Code, CollectionName, Problem};

use super::{
    Asked, Found,
    hit::{self, Rows, SHOWN},
    page_too_large, sort_path,
};
use crate::{
    answer::Hit,
    query::{
        cursor::{self, RowsAfter},
        failure,
        planner::{self, Planned, Typed},
    },
    sql::{self, Statement, World as _},
};

/// Matching rows up to which a page is chosen from whole rows.
const WHOLE_ROWS_MAX: u64 = 10_000;
/// What the statement calls what it searches.
const INPUT: &str = "documents";

/// The collections that a view reads.
pub fn reads(view: &CollectionName, catalog: &Catalog) -> Result<BTreeSet<CollectionName>, Problem> {
    sql::collections(&all_of(view)?, catalog)
}

/// Searches a view.
pub async fn of_view(asked: &Asked<'_>, view: &CollectionName) -> Result<Found, Problem> {
    let columns = sql::columns(&all_of(view)?, asked.world)?;
    let has_time = columns.iter().any(|column| column == "_time");
    if !has_time && (asked.bounds.from.is_some() || asked.bounds.to.is_some()) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("{view} has no column _time, so from and to say nothing of its rows"),
        )
        .hint("let the view select _time, or put the condition into the search: at:>2026-01-31"));
    }
    let key = match asked.sort.name.as_deref().or_else(|| has_time.then_some("_time")) {
        Some(name) => spelled(&sort_path(name)?),
        None => "TRUE".to_owned(),
    };
    page(asked, view, "*", &key, Shown::Rows).await
}

/// Searches a collection.
pub async fn of_collection(asked: &Asked<'_>, collection: &CollectionName) -> Result<Found, Problem> {
    let shown = SHOWN.join(&format!(", {INPUT}."));
    let key = spelled(&sort_path(asked.sort.name.as_deref().unwrap_or("_time"))?);
    page(asked, collection, &shown, &key, Shown::Documents).await
}

/// What hits are.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Documents,
    Rows,
}

fn all_of(view: &CollectionName) -> Result<ast::Query, Problem> {
    query(&format!("SELECT * FROM {}", quoted(view.as_str())))
}

fn query(text: &str) -> Result<ast::Query, Problem> {
    match sql::parse(text, text.len())? {
        Statement::Query(query) => Ok(*query),
        _ => Err(Problem::new(Code::Internal, "not a query")),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A path of the input, in which no key is read as a word of SQL.
fn spelled(path: &Path) -> String {
    path.steps().iter().fold(INPUT.to_owned(), |start, step| match step {
        Step::Key(key) => format!("{start}.{}", quoted(key)),
        Step::Index(index) => format!("{start}[{index}]"),
    })
}

/// What matches, with the sort key as the last column.
fn statement(asked: &Asked<'_>, name: &CollectionName, shown: &str, key: &str) -> String {
    let search = asked.question.query.replace('\'', "''");
    let mut text = format!(
        "SELECT {INPUT}.{shown}, {key} AS \"\u{1}\" FROM {} AS {INPUT} WHERE search({INPUT}, '{search}')",
        quoted(name.as_str())
    );
    for (op, bound) in [(">=", asked.bounds.from), ("<", asked.bounds.to)] {
        if let Some(time) = bound.and_then(DateTime::from_timestamp_micros) {
            text += &format!(
                " AND {INPUT}.\"_time\"::timestamp {op} '{}'",
                time.to_rfc3339_opts(SecondsFormat::Micros, true)
            );
        }
    }
    text
}

async fn page(asked: &Asked<'_>, name: &CollectionName, shown: &str, key: &str, of: Shown) -> Result<Found, Problem> {
    let resolved = sql::resolve(&query(&statement(asked, name, shown, key))?, asked.world, &[])?;
    let typed = planner::typed(asked.engine, asked.context, asked.pins, resolved, &[]).await?;
    let total = total(asked, &typed).await?;
    let order = Order::of(&typed.logical, of, asked.sort.descending)?;
    let by = format!("{key} {}", order.kind());
    let after = asked
        .question
        .after
        .as_deref()
        .map(|text| cursor::read_rows(text, &by, &order.types()))
        .transpose()?;
    if total == 0 || asked.limit == 0 {
        return Ok(Found {
            hits: Vec::new(),
            total,
            after: None,
        });
    }
    let found = order.first(asked, &typed, after.as_ref(), total).await?;
    let hits = hits(&found, of, &order, asked.world.catalog())?;
    let after = (hits.len() == asked.limit)
        .then(|| order.end(&found, after.as_ref()))
        .transpose()?;
    Ok(Found {
        hits,
        total,
        after: after.map(|after| cursor::write_rows(&by, &after)).transpose()?,
    })
}

async fn total(asked: &Asked<'_>, typed: &Typed) -> Result<u64, Problem> {
    let counted = LogicalPlanBuilder::from(typed.logical.clone()).aggregate(Vec::<Expr>::new(), [count(lit(1_i64))]);
    let counted = counted.and_then(LogicalPlanBuilder::build).map_err(failure::problem)?;
    let found = rows(asked, typed.planned(asked.engine, asked.pins, counted).await?).await?;
    let total = found
        .column(0)
        .as_primitive_opt::<Int64Type>()
        .filter(|counts| counts.len() == 1)
        .map(|counts| counts.value(0));
    total
        .and_then(|total| total.try_into().ok())
        .ok_or_else(|| Problem::new(Code::Internal, "rows were not counted"))
}

fn hits(found: &RecordBatch, of: Shown, order: &Order, catalog: &Catalog) -> Result<Vec<Hit>, Problem> {
    match of {
        Shown::Rows => Ok((0..found.num_rows())
            .map(|row| hit::of_row(found, order.shown, row))
            .collect()),
        Shown::Documents => {
            let documents = Rows::of(found)?;
            (0..found.num_rows())
                .map(|row| Ok(documents.hit(row, &documents.address(row)?, catalog)))
                .collect()
        }
    }
}

/// Runs a plan of few rows.
async fn rows(asked: &Asked<'_>, planned: Planned) -> Result<RecordBatch, Problem> {
    let mut stream = execute_stream(planned.physical, planned.task).map_err(failure::problem)?;
    let (schema, mut batches, mut bytes) = (stream.schema(), Vec::new(), 0_usize);
    while let Some(batch) = stream.try_next().await.map_err(failure::problem)? {
        bytes = bytes.saturating_add(batch.get_array_memory_size());
        if bytes > asked.engine.options.query_bytes_max {
            return Err(page_too_large());
        }
        batches.push(batch);
    }
    concat_batches(&schema, &batches).map_err(|e| failure::problem(DataFusionError::from(e)))
}

/// An order of all rows: by the sort key, then by what breaks ties.
struct Order {
    /// The rows, with the keys behind the columns that are shown.
    rows: LogicalPlan,
    /// How many columns are shown.
    shown: usize,
    keys: Vec<Key>,
}

struct Key {
    column: Expr,
    of: DataType,
    descending: bool,
}

impl Order {
    /// The order of rows of which the last column is the sort key.
    fn of(rows: &LogicalPlan, of: Shown, descending: bool) -> Result<Self, Problem> {
        let mut shown: Vec<Expr> = rows
            .schema()
            .iter()
            .map(|field| Expr::Column(Column::from(field)))
            .collect();
        let key = shown
            .pop()
            .ok_or_else(|| Problem::new(Code::Internal, "rows without a sort key"))?;
        let ties = match of {
            Shown::Documents => shown.iter().skip(2).cloned().collect(),
            Shown::Rows => vec![hash(shown.clone())],
        };
        let key = (ordered(key, rows)?, descending);
        let all: Vec<(Expr, bool)> = std::iter::once(key)
            .chain(ties.into_iter().map(|tie| (tie, false)))
            .collect();
        let name = |place: usize| format!("\u{1}{place}");
        let mut keys = Vec::with_capacity(all.len());
        for (place, (expr, descending)) in all.iter().enumerate() {
            let of = expr.get_type(rows.schema()).map_err(failure::problem)?;
            keys.push(Key {
                column: Expr::Column(Column::new_unqualified(name(place))),
                of,
                descending: *descending,
            });
        }
        let named = all
            .into_iter()
            .enumerate()
            .map(|(place, (expr, _))| expr.alias(name(place)));
        let columns = shown.iter().cloned().chain(named).collect::<Vec<_>>();
        let rows = LogicalPlanBuilder::from(rows.clone())
            .project(columns)
            .and_then(LogicalPlanBuilder::build)
            .map_err(failure::problem)?;
        Ok(Self {
            rows,
            shown: shown.len(),
            keys,
        })
    }

    /// The type of the sort key and its direction: a cursor is of one of them.
    fn kind(&self) -> String {
        self.keys
            .first()
            .map(|key| format!("{} {}", key.of, if key.descending { "desc" } else { "asc" }))
            .unwrap_or_default()
    }

    fn types(&self) -> Vec<DataType> {
        self.keys.iter().map(|key| key.of.clone()).collect()
    }

    /// The first rows, or the first after a place.
    async fn first(
        &self,
        asked: &Asked<'_>,
        typed: &Typed,
        after: Option<&RowsAfter>,
        total: u64,
    ) -> Result<RecordBatch, Problem> {
        let passed = after.map_or(0, |after| after.rows);
        let limit = asked.limit.saturating_add(passed);
        let mut rest = LogicalPlanBuilder::from(self.rows.clone());
        if let Some(after) = after {
            rest = rest.filter(self.not_before(&after.values)).map_err(failure::problem)?;
        }
        if total > WHOLE_ROWS_MAX
            && let Some(last) = self.last_key(asked, typed, rest.clone(), limit).await?
        {
            rest = rest.filter(last).map_err(failure::problem)?;
        }
        let page = rest
            .sort(self.sorts(self.keys.len()))
            .and_then(|page| page.limit(0, Some(limit)))
            .and_then(LogicalPlanBuilder::build);
        let found = rows(
            asked,
            typed
                .planned(asked.engine, asked.pins, page.map_err(failure::problem)?)
                .await?,
        )
        .await?;
        // Of rows that are equal to the last one of the page before, those were on it.
        let place = after.map(|after| &after.values);
        let mut equal = 0;
        while equal < passed.min(found.num_rows()) && Some(&self.place(&found, equal)?) == place {
            equal += 1;
        }
        Ok(found.slice(equal, asked.limit.min(found.num_rows() - equal)))
    }

    /// The condition that a row's key is not beyond that of the last row of a page; None where all may be on it.
    async fn last_key(
        &self,
        asked: &Asked<'_>,
        typed: &Typed,
        rest: LogicalPlanBuilder,
        limit: usize,
    ) -> Result<Option<Expr>, Problem> {
        let Some(key) = self.keys.first() else { return Ok(None) };
        let keys = rest
            .project([key.column.clone()])
            .and_then(|keys| keys.sort(self.sorts(1)))
            .and_then(|keys| keys.limit(0, Some(limit)));
        let keys = keys.and_then(LogicalPlanBuilder::build).map_err(failure::problem)?;
        let found = rows(asked, typed.planned(asked.engine, asked.pins, keys).await?).await?;
        if found.num_rows() < limit || found.column(0).is_null(limit - 1) {
            return Ok(None);
        }
        let last = lit(ScalarValue::try_from_array(found.column(0), limit - 1).map_err(failure::problem)?);
        let column = key.column.clone();
        Ok(Some(if key.descending {
            column.gt_eq(last)
        } else {
            column.lt_eq(last)
        }))
    }

    fn sorts(&self, keys: usize) -> Vec<datafusion::logical_expr::SortExpr> {
        self.keys
            .iter()
            .take(keys)
            .map(|key| key.column.clone().sort(!key.descending, false))
            .collect()
    }

    /// The condition that a row is at a place of the order or after it.
    fn not_before(&self, place: &[ScalarValue]) -> Expr {
        self.keys
            .iter()
            .zip(place)
            .rev()
            .fold(lit(true), |same_so_far, (key, value)| {
                let column = || key.column.clone();
                if value.is_null() {
                    // NULL comes last.
                    return column().is_null().and(same_so_far);
                }
                let beyond = if key.descending {
                    column().lt(lit(value.clone()))
                } else {
                    column().gt(lit(value.clone()))
                };
                beyond
                    .or(column().is_null())
                    .or(column().eq(lit(value.clone())).and(same_so_far))
            })
    }

    /// The place of a row.
    fn place(&self, found: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>, Problem> {
        let keys = found.columns().iter().skip(self.shown);
        keys.map(|key| ScalarValue::try_from_array(key, row))
            .collect::<Result<_, _>>()
            .map_err(failure::problem)
    }

    /// Where a page ends.
    fn end(&self, found: &RecordBatch, after: Option<&RowsAfter>) -> Result<RowsAfter, Problem> {
        let mut row = found.num_rows().saturating_sub(1);
        let values = self.place(found, row)?;
        let mut rows = 1;
        while row > 0 && self.place(found, row - 1)? == values {
            (row, rows) = (row - 1, rows + 1);
        }
        // Pages of nothing but equal rows.
        let before = after
            .filter(|after| row == 0 && after.values == values)
            .map_or(0, |after| after.rows);
        Ok(RowsAfter {
            values,
            rows: rows + before,
        })
    }
}

/// A sort key whose values compare as they sort: JSON of several kinds by its rank.
fn ordered(key: Expr, rows: &LogicalPlan) -> Result<Expr, Problem> {
    let of = key.get_type(rows.schema()).map_err(failure::problem)?;
    match &of {
        of if is_json(of) => Ok(own_named(json::GET).call(vec![key, lit(""), lit("rank")])),
        DataType::Boolean
        | DataType::Null
        | DataType::Utf8
        | DataType::Utf8View
        | DataType::Timestamp(..)
        | DataType::Date32
        | DataType::Date64 => Ok(key),
        of if of.is_numeric() => Ok(key),
        other => Err(Problem::new(
            Code::NotSupported,
            format!(
                "a search cannot sort by a value of type {}",
                crate::answer::type_name(other)
            ),
        )
        .hint("ask by SQL: SELECT … WHERE search('…') ORDER BY …")),
    }
}

/// A hash of a row: equal rows have one, others have another.
fn hash(columns: Vec<Expr>) -> Expr {
    let row = own_named(json::TO_JSON).call(vec![r#struct(columns)]);
    md5(coalesce(vec![row, lit(ScalarValue::LargeUtf8(Some(String::new())))]))
}
