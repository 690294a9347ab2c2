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

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode as _},
    },
    logical_expr::{
        Aggregate, Expr, Filter, LogicalPlan, Operator,
        expr::{AggregateFunction, AggregateFunctionParams},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use super::distinct_groups::call;

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
            return Ok(Transformed::no(plan));
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
