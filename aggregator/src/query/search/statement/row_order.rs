//! A total order of the rows that a search matches: pages in this order, and the positions where they end.

use datafusion::{
    arrow::{
        array::{Array as _, RecordBatch},
        datatypes::DataType,
    },
    common::Column,
    functions::{
        core::expr_fn::{coalesce, r#struct},
        crypto::expr_fn::md5,
    },
    logical_expr::{Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, SortExpr, lit},
    scalar::ScalarValue,
};
use plan::{
    column::is_json,
    functions::{json, rachis_function},
};
use proto::{Code, Problem};

use super::{super::SearchContext, HitKind, collect_rows};
use crate::{
    answer::type_name,
    failure,
    query::{cursor::RowsPageStart, planner::TypedQuery},
};

/// Up to this many matching rows, all are read in full to choose a page from them.
const FULL_ROWS_MAX: u64 = 10_000;

/// A total order of rows: by the sort key, then by tie-breakers.
pub(super) struct RowOrder {
    /// The rows, with the keys behind the columns of the hits.
    rows: LogicalPlan,
    /// The number of columns that hits are made from.
    pub(super) columns: usize,
    keys: Vec<OrderKey>,
}

struct OrderKey {
    column: Expr,
    data_type: DataType,
    descending: bool,
}

impl RowOrder {
    /// Orders rows whose last column is the sort key.
    pub(super) fn new(rows: &LogicalPlan, kind: HitKind, descending: bool) -> Result<Self, Problem> {
        let mut columns: Vec<Expr> = rows
            .schema()
            .iter()
            .map(|field| Expr::Column(Column::from(field)))
            .collect();
        let key = columns
            .pop()
            .ok_or_else(|| Problem::new(Code::Internal, "the rows of a search have no sort key"))?;
        let ties = match kind {
            // The address, which follows `_id` and `_doc`.
            HitKind::Document => columns.iter().skip(2).cloned().collect(),
            HitKind::Row => vec![row_hash(columns.clone())],
        };
        let key = (sortable(key, rows)?, descending);
        let exprs: Vec<(Expr, bool)> = std::iter::once(key)
            .chain(ties.into_iter().map(|tie| (tie, false)))
            .collect();
        let name = |index: usize| format!("\u{1}{index}");
        let mut keys = Vec::with_capacity(exprs.len());
        for (index, (expr, descending)) in exprs.iter().enumerate() {
            keys.push(OrderKey {
                column: Expr::Column(Column::new_unqualified(name(index))),
                data_type: expr.get_type(rows.schema()).map_err(failure::problem)?,
                descending: *descending,
            });
        }
        let named_keys = exprs
            .into_iter()
            .enumerate()
            .map(|(index, (expr, _))| expr.alias(name(index)));
        let projection = columns.iter().cloned().chain(named_keys).collect::<Vec<_>>();
        let rows = LogicalPlanBuilder::from(rows.clone())
            .project(projection)
            .and_then(LogicalPlanBuilder::build)
            .map_err(failure::problem)?;
        Ok(Self {
            rows,
            columns: columns.len(),
            keys,
        })
    }

    /// The type and the direction of the sort key. A cursor is valid only for the ones that it was written for.
    pub(super) fn type_and_direction(&self) -> String {
        self.keys
            .first()
            .map(|key| format!("{} {}", key.data_type, if key.descending { "desc" } else { "asc" }))
            .unwrap_or_default()
    }

    /// The types of the keys.
    pub(super) fn types(&self) -> Vec<DataType> {
        self.keys.iter().map(|key| key.data_type.clone()).collect()
    }

    /// Reads the first page, or the one after a position.
    pub(super) async fn page(
        &self,
        search: &SearchContext<'_>,
        typed: &TypedQuery,
        after: Option<&RowsPageStart>,
        total: u64,
    ) -> Result<RecordBatch, Problem> {
        let skipped_max = after.map_or(0, |after| after.rows);
        let limit = search.limit.saturating_add(skipped_max);
        let mut rest = LogicalPlanBuilder::from(self.rows.clone());
        if let Some(after) = after {
            rest = rest.filter(self.at_or_after(&after.values)).map_err(failure::problem)?;
        }
        if total > FULL_ROWS_MAX
            && let Some(bound) = self.key_bound(search, typed, rest.clone(), limit).await?
        {
            rest = rest.filter(bound).map_err(failure::problem)?;
        }
        let page = rest
            .sort(self.sort_exprs(self.keys.len()))
            .and_then(|page| page.limit(0, Some(limit)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(failure::problem)?;
        let rows = collect_rows(
            search,
            typed.plan(search.engine, search.read_views, page).await?.executable,
        )
        .await?;
        // Earlier pages have shown this many of the rows that are equal to their last one.
        let last_keys = after.map(|after| &after.values);
        let mut skipped = 0;
        while skipped < skipped_max.min(rows.num_rows()) && Some(&self.row_keys(&rows, skipped)?) == last_keys {
            skipped += 1;
        }
        Ok(rows.slice(skipped, search.limit.min(rows.num_rows() - skipped)))
    }

    /// The condition that a row's sort key is at most that of the page's last row; None if the page may have all rows.
    async fn key_bound(
        &self,
        search: &SearchContext<'_>,
        typed: &TypedQuery,
        rest: LogicalPlanBuilder,
        limit: usize,
    ) -> Result<Option<Expr>, Problem> {
        let Some(key) = self.keys.first() else { return Ok(None) };
        let keys = rest
            .project([key.column.clone()])
            .and_then(|keys| keys.sort(self.sort_exprs(1)))
            .and_then(|keys| keys.limit(0, Some(limit)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(failure::problem)?;
        let rows = collect_rows(
            search,
            typed.plan(search.engine, search.read_views, keys).await?.executable,
        )
        .await?;
        if rows.num_rows() < limit || rows.column(0).is_null(limit - 1) {
            return Ok(None);
        }
        let last = lit(ScalarValue::try_from_array(rows.column(0), limit - 1).map_err(failure::problem)?);
        let column = key.column.clone();
        Ok(Some(if key.descending {
            column.gt_eq(last)
        } else {
            column.lt_eq(last)
        }))
    }

    /// Sorts by the first `keys` keys, NULLs last.
    fn sort_exprs(&self, keys: usize) -> Vec<SortExpr> {
        self.keys
            .iter()
            .take(keys)
            .map(|key| key.column.clone().sort(!key.descending, false))
            .collect()
    }

    /// The condition that a row has these keys or comes after them.
    fn at_or_after(&self, values: &[ScalarValue]) -> Expr {
        self.keys
            .iter()
            .zip(values)
            .rev()
            .fold(lit(true), |rest_at_or_after, (key, value)| {
                let column = || key.column.clone();
                if value.is_null() {
                    // NULLs come last.
                    return column().is_null().and(rest_at_or_after);
                }
                let is_after = if key.descending {
                    column().lt(lit(value.clone()))
                } else {
                    column().gt(lit(value.clone()))
                };
                is_after
                    .or(column().is_null())
                    .or(column().eq(lit(value.clone())).and(rest_at_or_after))
            })
    }

    fn row_keys(&self, rows: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>, Problem> {
        let keys = rows.columns().iter().skip(self.columns);
        keys.map(|key| ScalarValue::try_from_array(key, row))
            .collect::<Result<_, _>>()
            .map_err(failure::problem)
    }

    /// The position where a page ends.
    pub(super) fn page_end(&self, rows: &RecordBatch, after: Option<&RowsPageStart>) -> Result<RowsPageStart, Problem> {
        let mut row = rows.num_rows().saturating_sub(1);
        let values = self.row_keys(rows, row)?;
        let mut equal_rows = 1;
        while row > 0 && self.row_keys(rows, row - 1)? == values {
            (row, equal_rows) = (row - 1, equal_rows + 1);
        }
        // If all rows of the page are equal, equal rows of earlier pages count, too.
        let earlier = after
            .filter(|after| row == 0 && after.values == values)
            .map_or(0, |after| after.rows);
        Ok(RowsPageStart {
            values,
            rows: equal_rows + earlier,
        })
    }
}

/// A sort key whose values compare in their sort order. JSON of several kinds is replaced by its rank.
fn sortable(key: Expr, rows: &LogicalPlan) -> Result<Expr, Problem> {
    let data_type = key.get_type(rows.schema()).map_err(failure::problem)?;
    match &data_type {
        json_type if is_json(json_type) => Ok(rachis_function(json::GET).call(vec![key, lit(""), lit("rank")])),
        DataType::Boolean
        | DataType::Null
        | DataType::Utf8
        | DataType::Utf8View
        | DataType::Timestamp(..)
        | DataType::Date32
        | DataType::Date64 => Ok(key),
        number if number.is_numeric() => Ok(key),
        other => Err(Problem::new(
            Code::NotSupported,
            format!("a search cannot sort by values of type {}", type_name(other)),
        )
        .hint("use SQL: SELECT … WHERE search('…') ORDER BY …")),
    }
}

/// A hash of a row, to break ties: only equal rows share one.
fn row_hash(columns: Vec<Expr>) -> Expr {
    let row = rachis_function(json::TO_JSON).call(vec![r#struct(columns)]);
    md5(coalesce(vec![row, lit(ScalarValue::LargeUtf8(Some(String::new())))]))
}
