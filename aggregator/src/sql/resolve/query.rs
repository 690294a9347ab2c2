//! Resolves queries: WITH, ORDER BY and LIMIT around a SELECT or a set operation.

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Fetch, LimitClause, Offset, OrderBy, OrderByExpr, OrderByKind, Query, SelectItem, SetExpr,
    Value as Literal, ValueWithSpan,
};
use proto::{Code, Problem};

use super::{
    build::{empty_query, select_columns},
    grouping::output_index,
    problem::{bad, not_offered},
    resolver::Resolver,
    scope::OutputColumn,
    value::number,
};

/// Expressions in ORDER BY. Planning compares each with all others.
const SORT_KEYS_MAX: usize = 200;

impl Resolver<'_> {
    /// Resolves a query. Also returns the columns of its result.
    pub(crate) fn query(&mut self, query: &Query) -> Result<(Query, Vec<OutputColumn>), Problem> {
        self.count_expression()?;
        refuse_query_extras(query)?;
        let outer = self.ctes.len();
        let result = self.query_with_ctes(query);
        self.ctes.truncate(outer);
        result
    }

    fn query_with_ctes(&mut self, query: &Query) -> Result<(Query, Vec<OutputColumn>), Problem> {
        let with = query.with.as_ref().map(|with| self.with_clause(with)).transpose()?;
        let order = order_expressions(query)?;
        if order.len() > SORT_KEYS_MAX {
            let detail = format!("ORDER BY has {} keys: the limit is {SORT_KEYS_MAX}", order.len());
            return Err(Problem::new(Code::TooComplex, detail).hint("order by fewer expressions"));
        }
        let (body, order_by, columns) = match &*query.body {
            SetExpr::Select(select) => {
                let (select, order, columns) = self.select(select, order)?;
                let orders_distinct = !order.is_empty() && matches!(select.distinct, Some(Distinct::Distinct));
                let body = SetExpr::Select(Box::new(select));
                match orders_distinct {
                    false => (body, order, columns),
                    // The distinct rows are ordered by their own columns.
                    true => (select_columns(body, &columns), order, columns),
                }
            }
            other => {
                let (body, columns) = self.set_expression(other)?;
                let order = order
                    .iter()
                    .map(|o| order_by_name(o, &columns))
                    .collect::<Result<Vec<_>, _>>()?;
                (body, order, columns)
            }
        };
        let order_by = (!order_by.is_empty()).then_some(OrderBy {
            kind: OrderByKind::Expressions(order_by),
            interpolate: None,
        });
        let limit_clause = match limit_clause(query)? {
            Some(limit) => self.limit(&limit)?,
            None => None,
        };
        Ok((
            Query {
                with,
                body: Box::new(body),
                order_by,
                limit_clause,
                ..empty_query()
            },
            columns,
        ))
    }

    fn limit(&mut self, limit: &LimitClause) -> Result<Option<LimitClause>, Problem> {
        let (limit, offset, by) = match limit {
            LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            } => (limit.clone(), offset.clone(), limit_by.len()),
            LimitClause::OffsetCommaLimit { offset, limit } => {
                let offset = Offset {
                    value: offset.clone(),
                    rows: datafusion::sql::sqlparser::ast::OffsetRows::None,
                };
                (Some(limit.clone()), Some(offset), 0)
            }
        };
        if by > 0 {
            return Err(not_offered("LIMIT BY"));
        }
        let limit = limit.map(|limit| self.row_count(&limit)).transpose()?.flatten();
        let offset = offset
            .map(|offset| self.row_count(&offset.value))
            .transpose()?
            .flatten();
        if limit.is_none() && offset.is_none() {
            return Ok(None);
        }
        let offset = offset.map(|value| Offset {
            value,
            rows: datafusion::sql::sqlparser::ast::OffsetRows::None,
        });
        Ok(Some(LimitClause::LimitOffset {
            limit,
            offset,
            limit_by: vec![],
        }))
    }

    /// The bound of LIMIT or OFFSET: a number or a parameter. `None` if it is NULL.
    fn row_count(&mut self, bound: &Expr) -> Result<Option<Expr>, Problem> {
        // No name means anything here, so the bound is resolved without scopes.
        match self.isolated(|resolver| resolver.expression(bound))? {
            Expr::Value(ValueWithSpan {
                value: Literal::Placeholder(name),
                ..
            }) => self.row_count_parameter(&name),
            Expr::Value(ValueWithSpan {
                value: Literal::Null, ..
            }) => Ok(None),
            Expr::Value(ValueWithSpan {
                value: Literal::Number(digits, _),
                ..
            }) if digits.parse::<u32>().is_ok() => Ok(Some(number(&digits))),
            other => Err(no_row_count(&other.to_string())),
        }
    }

    fn row_count_parameter(&self, name: &str) -> Result<Option<Expr>, Problem> {
        let index: Option<usize> = name.strip_prefix('$').and_then(|n| n.parse().ok());
        match index.and_then(|index| self.parameters.get(index.wrapping_sub(1))) {
            Some(serde_json::Value::Null) => Ok(None),
            Some(value) if value.as_u64().is_some_and(|n| u32::try_from(n).is_ok()) => {
                Ok(Some(number(&value.to_string())))
            }
            Some(value) => Err(no_row_count(&value.to_string())),
            None => Err(no_row_count(name)),
        }
    }
}

fn no_row_count(bound: &str) -> Problem {
    bad(format!("{bound} is not a number of rows"))
        .hint("LIMIT and OFFSET take a whole number that is not negative, or a parameter with one")
}

/// The LIMIT of a query, or its FETCH as a LIMIT.
fn limit_clause(query: &Query) -> Result<Option<LimitClause>, Problem> {
    let Some(fetch) = &query.fetch else {
        return Ok(query.limit_clause.clone());
    };
    let Fetch {
        with_ties: false,
        percent: false,
        quantity,
    } = fetch
    else {
        return Err(unsupported_fetch());
    };
    let offset = match &query.limit_clause {
        None => None,
        Some(LimitClause::LimitOffset {
            limit: None, offset, ..
        }) => offset.clone(),
        Some(_) => return Err(unsupported_fetch()),
    };
    Ok(Some(LimitClause::LimitOffset {
        limit: Some(quantity.clone().unwrap_or_else(|| number("1"))),
        offset,
        limit_by: vec![],
    }))
}

fn unsupported_fetch() -> Problem {
    not_offered("this FETCH").hint("write LIMIT n")
}

/// Renames columns to the column list of an alias.
pub(super) fn rename(
    mut columns: Vec<OutputColumn>,
    names: &[String],
    alias: &str,
) -> Result<Vec<OutputColumn>, Problem> {
    if names.len() > columns.len() {
        return Err(bad(format!(
            "{alias} has {} columns, but the alias names {}",
            columns.len(),
            names.len()
        )));
    }
    for (column, name) in columns.iter_mut().zip(names) {
        column.name.clone_from(name);
    }
    Ok(columns)
}

fn order_expressions(query: &Query) -> Result<Vec<OrderByExpr>, Problem> {
    match &query.order_by {
        None => Ok(vec![]),
        Some(OrderBy {
            kind: OrderByKind::All(options),
            interpolate: None,
        }) => {
            let SetExpr::Select(select) = &*query.body else {
                return Err(not_offered("ORDER BY ALL of this query").hint("name the columns"));
            };
            let is_star =
                |item: &SelectItem| !matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            if select.projection.iter().any(is_star) {
                return Err(not_offered("ORDER BY ALL with *").hint("name the columns"));
            }
            let by_number = |index: usize| OrderByExpr {
                expr: number(&index.to_string()),
                options: *options,
                with_fill: None,
            };
            Ok((1..=select.projection.len()).map(by_number).collect())
        }
        Some(OrderBy {
            kind: OrderByKind::Expressions(all),
            interpolate: None,
        }) if all.iter().all(|o| o.with_fill.is_none()) => Ok(all.clone()),
        Some(_) => Err(not_offered("this ORDER BY").hint("name the columns")),
    }
}

/// ORDER BY of a set operation: its columns by name or number.
fn order_by_name(order: &OrderByExpr, columns: &[OutputColumn]) -> Result<OrderByExpr, Problem> {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    let index = output_index(&order.expr, &names)?.ok_or_else(|| {
        bad(format!(
            "ORDER BY {}: the set operation does not return this column",
            order.expr
        ))
        .hint(format!("its columns are {}", names.join(", ")))
    })?;
    Ok(OrderByExpr {
        expr: number(&(index + 1).to_string()),
        options: order.options,
        with_fill: None,
    })
}

fn refuse_query_extras(query: &Query) -> Result<(), Problem> {
    let Query {
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
        ..
    } = query;
    match () {
        () if !locks.is_empty() => Err(not_offered("FOR UPDATE or FOR SHARE").hint("queries do not lock anything")),
        () if for_clause.is_some() => Err(not_offered("FOR JSON or FOR XML")),
        () if settings.is_some() => Err(not_offered("SETTINGS")),
        () if format_clause.is_some() => Err(not_offered("FORMAT").hint("choose the format with the Accept header")),
        () if !pipe_operators.is_empty() => Err(not_offered("|>")),
        () => Ok(()),
    }
}
