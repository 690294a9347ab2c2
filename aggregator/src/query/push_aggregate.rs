//! Rule: the first phase of an aggregate goes to the leaf, if nothing stands between it and the scan.
//!
//! ```text
//!   AggregateExec(Partial)              ShardScan(partial)   group keys and states cross, not rows
//!     ShardScan(rows)          ->
//! ```
//!
//! The leaf runs DataFusion's own operator, so the states are the same; the schema is taken over bit for bit. What depends on the order of
//! rows or keeps values for DISTINCT stays above the scan, and so do grouping sets.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TransformedResult as _, TreeNode as _},
    config::ConfigOptions,
    error::Result,
    physical_expr::PhysicalExpr,
    physical_expr_common::physical_expr::is_volatile,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
    },
};
use plan::scan::{PartialAggregate, Stage};

use super::shard_scan::ShardScan;

/// The rule.
#[derive(Debug)]
pub(super) struct PushAggregate;

impl PhysicalOptimizerRule for PushAggregate {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match pushed(&node) {
                Some(scan) => Transformed::yes(scan),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "PushAggregate"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn pushed(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let aggregate = node.downcast_ref::<AggregateExec>()?;
    let scan = aggregate.input().downcast_ref::<ShardScan>()?;
    if *aggregate.mode() != AggregateMode::Partial || !scan.gives_all_rows() || !fits(aggregate) {
        return None;
    }
    let partial = PartialAggregate {
        group_by: aggregate.group_expr().clone(),
        aggregates: aggregate.aggr_expr().to_vec(),
        filters: aggregate.filter_expr().to_vec(),
        input: scan.schema(),
        output: aggregate.schema(),
    };
    Some(Arc::new(scan.with_stage(Stage::Partial(Arc::new(partial)), aggregate.schema())))
}

fn fits(aggregate: &AggregateExec) -> bool {
    let plain = aggregate.aggr_expr().iter().all(|call| !call.is_distinct() && call.order_bys().is_empty());
    let groups = aggregate.group_expr().expr().iter().map(|(group, _)| group);
    let arguments = aggregate.aggr_expr().iter().flat_map(|call| call.expressions()).collect::<Vec<_>>();
    let filters = aggregate.filter_expr().iter().flatten();
    let stable = |expression: &Arc<dyn PhysicalExpr>| !is_volatile(expression);
    plain && !aggregate.group_expr().has_grouping_set() && groups.chain(&arguments).chain(filters).all(stable)
}
