//! Optimizer rule: stops planning if the query was cancelled or has passed its deadline. It runs between all other
//! rules, because planning never awaits anything and so could not be stopped otherwise.

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
use plan::functions::FunctionContext;

/// The analyzer rule, logical rule and physical rule.
#[derive(Debug)]
pub(super) struct InterruptiblePlanning;

fn check(options: &ConfigOptions) -> Result<()> {
    FunctionContext::of(options).map_or(Ok(()), FunctionContext::check)
}

impl AnalyzerRule for InterruptiblePlanning {
    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        check(options).map(|()| plan)
    }

    fn name(&self) -> &str {
        "InterruptiblePlanning"
    }
}

impl OptimizerRule for InterruptiblePlanning {
    fn name(&self) -> &str {
        "InterruptiblePlanning"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check(&config.options()).map(|()| Transformed::no(plan))
    }
}

impl PhysicalOptimizerRule for InterruptiblePlanning {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        check(options).map(|()| plan)
    }

    fn name(&self) -> &str {
        "InterruptiblePlanning"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
