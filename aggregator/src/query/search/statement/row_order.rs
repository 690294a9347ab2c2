//! A total order of the rows that a search matches: pages in this order, and the positions where they end.

use datafusion::{
    arrow::{
        array::{Array as _, RecordBatch},
        datatypes::{DataType, FieldRef, Schema},
    },
    common::Column,
    functions::{
        core::expr_fn::{coalesce, r#struct},
        crypto::expr_fn::md5,
    },
    logical_expr::{Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, lit},
    scalar::ScalarValue,
};
use plan::{
    column::is_json,
    functions::{json, rachis_function},
    matcher::ScoreStatistics,
};
use proto::{Code, Problem};

use super::{super::SearchContext, HitKind, SortedBy, collect_rows};
use crate::{
    answer::{SearchQuery, type_name},
    failure,
    query::{
        cursor::{self, OrderIdentity, RowsPageStart},
        planner::TypedQuery,
        read_views::QueryViews,
    },
};

/// Up to this many matching rows, all are read in full to choose a page from them.
const FULL_ROWS_MAX: u64 = 10_000;

/// The names of the keys begin with this.
const KEY: &str = "\u{1}key ";

/// A total order of rows: by the sort key, then by tie-breakers.
pub(super) struct RowOrder {
    pub(super) kind: HitKind,
    /// A cursor is valid only for the identity that it was written for.
    identity: OrderIdentity,
    /// The number of columns that hits are made from.
    pub(super) columns: usize,
    keys: Vec<OrderKey>,
    statistics: Option<ScoreStatistics>,
}

struct OrderKey {
    column: Expr,
    data_type: DataType,
    descending: bool,
}

/// Adds the keys behind the columns of the hits. The last column of the rows is the sort key.
pub(super) fn with_keys(rows: &LogicalPlan, kind: HitKind) -> Result<LogicalPlan, Problem> {
    let mut columns: Vec<Expr> = rows
        .schema()
        .iter()
        .map(|field| Expr::Column(Column::from(field)))
        .collect();
    let key = columns
        .pop()
        .ok_or_else(|| Problem::new(Code::Internal, "the rows of a search have no sort key"))?;
    let ties: Vec<Expr> = match kind {
        // The address, which follows `_id` and `_doc`.
        HitKind::Document => columns.iter().skip(2).cloned().collect(),
        HitKind::Row => vec![row_hash(columns.clone())],
    };
    let keys = std::iter::once(sortable(key, rows)?).chain(ties).enumerate();
    let keys = keys.map(|(number, key)| key.alias(format!("{KEY}{number}")));
    LogicalPlanBuilder::from(rows.clone())
        .project(columns.into_iter().chain(keys).collect::<Vec<_>>())
        .and_then(LogicalPlanBuilder::build)
        .map_err(failure::problem)
}

impl RowOrder {
    /// The order of rows with this schema by the keys at its end.
    pub(super) fn of(schema: &Schema, kind: HitKind, sorted_by: &SortedBy<'_>) -> Self {
        let SortedBy {
            search,
            key,
            descending,
            definitions_hash,
        } = *sorted_by;
        let fields = schema.fields().iter().filter(|field| field.name().starts_with(KEY));
        // Tie-breakers are ascending.
        let directions = std::iter::once(descending).chain(std::iter::repeat(false));
        let order_key = |(field, descending): (&FieldRef, bool)| OrderKey {
            column: Expr::Column(Column::new_unqualified(field.name())),
            data_type: field.data_type().clone(),
            descending,
        };
        let keys: Vec<OrderKey> = fields.zip(directions).map(order_key).collect();
        let data_type = keys.first().map_or(&DataType::Null, |key| &key.data_type);
        Self {
            kind,
            identity: OrderIdentity {
                search: Some(search),
                by: format!("{} {}", key.name, if descending { "desc" } else { "asc" }),
                data_type: data_type.to_string(),
                definitions_hash,
            },
            columns: schema.fields().len() - keys.len(),
            keys,
            statistics: key.statistics.cloned(),
        }
    }

    /// Reads the position after which the requested page starts.
    pub(super) fn page_start(&self, request: &SearchQuery) -> Result<Option<RowsPageStart>, Problem> {
        let types: Vec<DataType> = self.keys.iter().map(|key| key.data_type.clone()).collect();
        let after = request.after.as_deref();
        after.map(|text| cursor::read(text, &self.identity, &types)).transpose()
    }

    /// The first of these rows.
    pub(super) fn first(&self, rows: LogicalPlan, limit: usize) -> Result<LogicalPlan, Problem> {
        self.first_by(self.keys.len(), LogicalPlanBuilder::from(rows), limit)
    }

    /// The first rows by the first `keys` keys, NULLs last.
    fn first_by(&self, keys: usize, rows: LogicalPlanBuilder, limit: usize) -> Result<LogicalPlan, Problem> {
        let keys = self.keys.iter().take(keys);
        rows.sort(keys.map(|key| key.column.clone().sort(!key.descending, false)))
            .and_then(|sorted| sorted.limit(0, Some(limit)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(failure::problem)
    }

    /// Reads the first page, or the one after a position.
    pub(super) async fn page(
        &self,
        search: &SearchContext<'_>,
        read_views: &QueryViews,
        typed: &TypedQuery,
        rows: LogicalPlan,
        after: Option<&RowsPageStart>,
        total: u64,
    ) -> Result<RecordBatch, Problem> {
        let skipped_max = after.map_or(0, |after| after.rows);
        let limit = search.limit.saturating_add(skipped_max);
        let mut rest = LogicalPlanBuilder::from(rows);
        if let Some(after) = after {
            rest = rest.filter(self.at_or_after(&after.values)).map_err(failure::problem)?;
        }
        if total > FULL_ROWS_MAX
            && let Some(bound) = self.key_bound(search, read_views, typed, rest.clone(), limit).await?
        {
            rest = rest.filter(bound).map_err(failure::problem)?;
        }
        let page = self.first_by(self.keys.len(), rest, limit)?;
        let plan = typed.plan(search.engine, read_views, page).await?;
        let rows = collect_rows(search, plan.executable).await?;
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
        read_views: &QueryViews,
        typed: &TypedQuery,
        rest: LogicalPlanBuilder,
        limit: usize,
    ) -> Result<Option<Expr>, Problem> {
        let Some(key) = self.keys.first() else { return Ok(None) };
        let keys = rest.project([key.column.clone()]).map_err(failure::problem)?;
        let plan = typed
            .plan(search.engine, read_views, self.first_by(1, keys, limit)?)
            .await?;
        let rows = collect_rows(search, plan.executable).await?;
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

    /// The cursor of the page after these rows, which follow a position.
    pub(super) fn cursor_after(&self, rows: &RecordBatch, after: Option<&RowsPageStart>) -> Result<String, Problem> {
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
        let end = RowsPageStart {
            values,
            rows: equal_rows + earlier,
            statistics: self.statistics.clone(),
        };
        cursor::write(&self.identity, &end)
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
