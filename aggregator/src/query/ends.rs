//! Rule: a query may end between two rules, at its deadline or because it was cancelled. Planning itself never waits
//! for anything, so nothing else could stop it.

use std::sync::Arc;

use datafusion::{
    common::tree_node::Transformed,
    config::ConfigOptions,
    error::Result,
    logical_expr::LogicalPlan,
    optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::ExecutionPlan,
};
use plan::functions::Query;

/// The rule, of each kind.
#[derive(Debug)]
pub(super) struct MayEnd;

fn check(options: &ConfigOptions) -> Result<()> {
    Query::of(options).map_or(Ok(()), Query::check)
}

impl AnalyzerRule for MayEnd {
    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        check(options).map(|()| plan)
    }

    fn name(&self) -> &str {
        "MayEnd"
    }
}

impl OptimizerRule for MayEnd {
    fn name(&self) -> &str {
        "MayEnd"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check(&config.options()).map(|()| Transformed::no(plan))
    }
}

impl PhysicalOptimizerRule for MayEnd {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        check(options).map(|()| plan)
    }

    fn name(&self) -> &str {
        "MayEnd"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
