//! Optimizer rule: pushes the partial phase of an aggregate down to the leaves, if there is at most a projection
//! between it and the scan.
//!
//! ```text
//!   AggregateExec(Partial)              ShardScan(partial)   group keys and states cross, not rows
//!     [ProjectionExec]         ->
//!       ShardScan(rows)
//! ```
//!
//! The leaf runs DataFusion's own operator, so the accumulator states are the same, and the schema is copied unchanged.
//! Aggregates that depend on the order of rows or keep values for DISTINCT stay above the scan, and so do grouping
//! sets.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TransformedResult as _},
    config::ConfigOptions,
    error::Result,
    physical_expr::{
        PhysicalExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
        expressions::Column as PhysicalColumn,
        scalar_subquery::ScalarSubqueryExpr,
    },
    physical_expr_common::physical_expr::is_volatile,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        projection::ProjectionExec,
    },
};
use plan::scan::{PartialAggregate, Stage};
use plan::walk::Walk as _;

use super::shard_scan::ShardScan;

#[derive(Debug)]
pub(super) struct AggregatePushdown;

impl PhysicalOptimizerRule for AggregatePushdown {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match push_down(&node) {
                Some(scan) => Transformed::yes(scan),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "AggregatePushdown"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn push_down(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let aggregate = node.downcast_ref::<AggregateExec>()?;
    if *aggregate.mode() != AggregateMode::Partial || !can_push_down(aggregate) {
        return None;
    }
    if let Some(scan) = aggregate.input().downcast_ref::<ShardScan>() {
        return scan_with_partial(aggregate, scan);
    }
    let projection = aggregate.input().downcast_ref::<ProjectionExec>()?;
    let scan = projection.input().downcast_ref::<ShardScan>()?;
    let inlined = inline_projection(aggregate, projection)?;
    // The final phase above would misread states of any other schema.
    (inlined.schema() == aggregate.schema() && can_push_down(&inlined))
        .then(|| scan_with_partial(&inlined, scan))
        .flatten()
}

fn scan_with_partial(aggregate: &AggregateExec, scan: &ShardScan) -> Option<Arc<dyn ExecutionPlan>> {
    if !scan.returns_all_rows() {
        return None;
    }
    let partial = Stage::Partial(Arc::new(PartialAggregate::of(aggregate)));
    Some(Arc::new(scan.with_stage(partial, aggregate.schema())))
}

fn can_push_down(aggregate: &AggregateExec) -> bool {
    let is_plain =
        |call: &Arc<AggregateFunctionExpr>| !call.is_distinct() && !call.is_reversed() && call.order_bys().is_empty();
    let groups = aggregate.group_expr().expr().iter().map(|(group, _)| group);
    let arguments = aggregate
        .aggr_expr()
        .iter()
        .flat_map(|call| call.expressions())
        .collect::<Vec<_>>();
    let filters = aggregate.filter_expr().iter().flatten();
    let is_stable = |expression: &Arc<dyn PhysicalExpr>| !is_volatile(expression) && !needs_this_plan(expression);
    aggregate.aggr_expr().iter().all(is_plain)
        && !aggregate.group_expr().has_grouping_set()
        && groups.chain(&arguments).chain(filters).all(is_stable)
}

/// Whether an expression needs the result of a scalar subquery, which only the running plan has.
fn needs_this_plan(expression: &Arc<dyn PhysicalExpr>) -> bool {
    expression
        .exists(|node| Ok(node.is::<ScalarSubqueryExpr>()))
        .unwrap_or(true)
}

/// The same aggregate over the input of the projection, with each column replaced by its expression. A subexpression
/// that several expressions share is then computed for each of them; that costs less than sending the rows.
fn inline_projection(aggregate: &AggregateExec, projection: &ProjectionExec) -> Option<AggregateExec> {
    let below = |expression: &Arc<dyn PhysicalExpr>| inline(expression, projection);
    let group = |(group, name): &(Arc<dyn PhysicalExpr>, String)| Some((below(group)?, name.clone()));
    let groups = aggregate
        .group_expr()
        .expr()
        .iter()
        .map(group)
        .collect::<Option<Vec<_>>>()?;
    let input = projection.input();
    let call = |call: &Arc<AggregateFunctionExpr>| {
        let arguments = call.expressions().iter().map(below).collect::<Option<Vec<_>>>()?;
        let built = AggregateExprBuilder::new(Arc::new(call.fun().clone()), arguments)
            .schema(input.schema())
            .alias(call.name());
        built.with_ignore_nulls(call.ignore_nulls()).build().ok().map(Arc::new)
    };
    let calls = aggregate.aggr_expr().iter().map(call).collect::<Option<Vec<_>>>()?;
    let filter = |filter: &Option<Arc<dyn PhysicalExpr>>| match filter {
        Some(filter) => below(filter).map(Some),
        None => Some(None),
    };
    let filters = aggregate.filter_expr().iter().map(filter).collect::<Option<Vec<_>>>()?;
    AggregateExec::try_new(
        AggregateMode::Partial,
        PhysicalGroupBy::new_single(groups),
        calls,
        filters,
        Arc::clone(input),
        input.schema(),
    )
    .ok()
}

fn inline(expression: &Arc<dyn PhysicalExpr>, projection: &ProjectionExec) -> Option<Arc<dyn PhysicalExpr>> {
    let replace = |node: Arc<dyn PhysicalExpr>| {
        let from = node
            .downcast_ref::<PhysicalColumn>()
            .and_then(|column| projection.expr().get(column.index()));
        Ok(match from {
            Some(from) => Transformed::yes(Arc::clone(&from.expr)),
            None => Transformed::no(node),
        })
    };
    Arc::clone(expression).transform_up(replace).data().ok()
}
