//! Filters rows before an aggregate instead of in each of its results, so that an index decides which rows are read.
//!
//! ```text
//! before                                                     after
//! Aggregate: count(*) FILTER (WHERE search('a')), …          Aggregate: count(*), …
//!   Scan                                                       Filter: search('a')
//!                                                                Scan
//! ```
//!
//! Only without groups: a group in which no row passes the filter has a result, too. And only if the filter calls no
//! function and computes nothing: either may fail or be counted for rows that a condition below excludes.
//!
//! If results have different searches as their filters, rows that none of these finds are left out, and the filters stay:
//!
//! ```text
//! Aggregate: count(*) FILTER (WHERE search('a')), …(WHERE search('b'))   ->   Filter: search('a') OR search('b')
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datafusion::{
    common::{Result, tree_node::Transformed},
    logical_expr::{
        Aggregate, Expr, Filter, LogicalPlan, Operator,
        expr::{AggregateFunction, AggregateFunctionParams},
        utils::{split_binary, split_conjunction},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use plan::ColumnSource;
use plan::walk::Walk as _;

use super::distinct_groups::call;

/// Searches of which any may find a row. Each adds to the work for every row.
const SEARCHES_MAX: usize = 100;

/// Moves the filter that all results of an aggregate have below it.
#[derive(Debug)]
pub(super) struct CommonFilter;

impl OptimizerRule for CommonFilter {
    fn name(&self) -> &'static str {
        "common_filter"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else {
            return Ok(Transformed::no(plan));
        };
        let Some(filter) = common_filter(aggregate) else {
            return any_search(aggregate);
        };
        let input = Filter::try_new(filter.clone(), Arc::clone(&aggregate.input))?;
        let results = (aggregate.aggr_expr.iter().zip(aggregate.schema.fields()))
            .filter_map(|(expr, field)| {
                let AggregateFunction { func, params } = call(expr)?.clone();
                let params = AggregateFunctionParams { filter: None, ..params };
                Some(Expr::AggregateFunction(AggregateFunction { func, params }).alias(field.name()))
            })
            .collect();
        let aggregate = Aggregate::try_new(Arc::new(LogicalPlan::Filter(input)), Vec::new(), results)?;
        Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
    }
}

/// Filters the rows of an aggregate by whether any of the searches finds them that all its results have as filters.
fn any_search(aggregate: &Aggregate) -> Result<Transformed<LogicalPlan>> {
    let unchanged = || Ok(Transformed::no(LogicalPlan::Aggregate(aggregate.clone())));
    let filters = aggregate
        .aggr_expr
        .iter()
        .map(|expr| call(expr)?.params.filter.as_deref());
    let mut searches = BTreeMap::new();
    for filter in filters {
        match filter.and_then(|filter| Some((search_name(filter)?, filter))) {
            Some((name, filter)) => searches.insert(name, filter),
            None => return unchanged(),
        };
    }
    if !aggregate.group_expr.is_empty() || searches.len() > SEARCHES_MAX || is_filtered(&aggregate.input, &searches) {
        return unchanged();
    }
    let Some(any) = searches.values().map(|filter| Expr::clone(filter)).reduce(Expr::or) else {
        return unchanged();
    };
    let input = Filter::try_new(any, Arc::clone(&aggregate.input))?;
    let aggregate = Aggregate::try_new(
        Arc::new(LogicalPlan::Filter(input)),
        Vec::new(),
        aggregate.aggr_expr.clone(),
    )?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// The name of the column, if the expression is whether a search finds the row.
fn search_name(filter: &Expr) -> Option<&str> {
    let Expr::Column(column) = filter else { return None };
    let is_search = matches!(plan::Column::parse(&column.name)?.source, ColumnSource::Search(_));
    is_search.then_some(column.name.as_str())
}

/// Whether rows are already filtered by whether any of these searches finds them.
fn is_filtered(input: &LogicalPlan, searches: &BTreeMap<&str, &Expr>) -> bool {
    let is_any = |filter: &Expr| {
        let parts = split_binary(filter, Operator::Or);
        let names: BTreeSet<Option<&str>> = parts.into_iter().map(search_name).collect();
        names.iter().copied().eq(searches.keys().map(|name| Some(*name)))
    };
    match input {
        LogicalPlan::Filter(filter) => {
            split_conjunction(&filter.predicate).into_iter().any(is_any) || is_filtered(&filter.input, searches)
        }
        LogicalPlan::TableScan(scan) => scan.filters.iter().any(is_any),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            input.inputs().into_iter().any(|input| is_filtered(input, searches))
        }
        _ => false,
    }
}

fn common_filter(aggregate: &Aggregate) -> Option<&Expr> {
    let mut filters = aggregate
        .aggr_expr
        .iter()
        .map(|expr| call(expr)?.params.filter.as_deref());
    let filter = filters.next()??;
    let is_common = aggregate.group_expr.is_empty() && filters.all(|other| other == Some(filter));
    (is_common && is_plain(filter)).then_some(filter)
}

/// Whether an expression only compares and combines columns and constants: it cannot fail, and counts nothing.
fn is_plain(filter: &Expr) -> bool {
    let is_other = |part: &Expr| {
        Ok(match part {
            Expr::BinaryExpr(binary) => !matches!(
                binary.op,
                Operator::Eq
                    | Operator::NotEq
                    | Operator::Lt
                    | Operator::LtEq
                    | Operator::Gt
                    | Operator::GtEq
                    | Operator::And
                    | Operator::Or
            ),
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::InList(_)
            | Expr::Between(_) => false,
            _ => true,
        })
    };
    !filter.exists(is_other).unwrap_or(true)
}
