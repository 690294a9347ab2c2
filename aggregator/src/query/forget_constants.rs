//! Optimizer rule: grouping sets and outer joins do not pass on the constants and orderings of their input.
//!
//! DataFusion 55.2 assumes that a column that is constant or sorted in the input remains so in the output. But grouping
//! sets replace keys by NULL, and an outer join returns NULL for rows without a match. As a consequence of the wrong
//! assumption, a later operator emits a group twice (it takes a change of the key for the end of the group), and the
//! planner drops an ORDER BY of the column.

use std::{fmt, sync::Arc};

use datafusion::{
    common::{
        JoinType, Statistics,
        stats::Precision,
        tree_node::{Transformed, TransformedResult as _, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::Result,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, Partitioning, PlanProperties,
        SendableRecordBatchStream,
        aggregates::AggregateExec,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        statistics::{ChildStats, StatisticsArgs},
    },
};
use plan::walk::Walk as _;

/// The rule. It must run before all rules that read the properties of an input.
#[derive(Debug)]
pub(super) struct ForgetConstants;

impl PhysicalOptimizerRule for ForgetConstants {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrap = |node: Arc<dyn ExecutionPlan>| {
            Ok(match adds_nulls(node.as_ref()) {
                true => Transformed::yes(Arc::new(ForgetConstantsExec::new(node)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(node),
            })
        };
        plan.transform_up(wrap).data()
    }

    fn name(&self) -> &str {
        "ForgetConstants"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn adds_nulls(node: &dyn ExecutionPlan) -> bool {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return aggregate.group_expr().has_grouping_set();
    }
    let join = (node.downcast_ref::<HashJoinExec>().map(HashJoinExec::join_type))
        .or_else(|| {
            node.downcast_ref::<NestedLoopJoinExec>()
                .map(NestedLoopJoinExec::join_type)
        })
        .copied()
        .or_else(|| {
            node.downcast_ref::<SortMergeJoinExec>()
                .map(SortMergeJoinExec::join_type)
        });
    matches!(join, Some(JoinType::Left | JoinType::Right | JoinType::Full))
}

/// Passes its input on and hides its constants, orderings and column statistics.
#[derive(Debug)]
struct ForgetConstantsExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl ForgetConstantsExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self {
            input,
            properties: Arc::new(properties),
        }
    }
}

/// Whether an operator hides the constants of its input.
pub(super) fn is_forgetting(operator: &dyn ExecutionPlan) -> bool {
    operator.is::<ForgetConstantsExec>()
}

/// The operator that hides the constants of this input.
pub(super) fn forgetting(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(ForgetConstantsExec::new(input))
}

impl DisplayAs for ForgetConstantsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForgetConstantsExec")
    }
}

impl ExecutionPlan for ForgetConstantsExec {
    fn name(&self) -> &str {
        "ForgetConstantsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(
            children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input)),
        )))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        // The row count only: column statistics may not hold once NULLs are added.
        let rows = inputs.first().map_or(Precision::Absent, |input| input.num_rows);
        Ok(Arc::new(
            Statistics::new_unknown(&self.schema()).with_num_rows(rows.to_inexact()),
        ))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
