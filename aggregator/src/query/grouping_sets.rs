//! Rule: what grouping sets give has neither constants nor an order nor a partitioning.
//!
//! DataFusion takes over what it knows of the input: a key that is constant there, or sorted, is taken for that after the grouping as well. But a
//! set without this key has NULL in its place. Groups came twice (the next operator took a change of the key for the end of a group), and an ORDER BY of
//! the key was left out (in 55.2).

use std::{fmt, sync::Arc};

use datafusion::{
    common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion},
    config::ConfigOptions,
    error::Result,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, Partitioning, PlanProperties, SendableRecordBatchStream,
        aggregates::AggregateExec,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
    },
};

/// The rule. It comes before all that read what is known of an input.
#[derive(Debug)]
pub(super) struct ForgetConstants;

impl PhysicalOptimizerRule for ForgetConstants {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrap = |node: Arc<dyn ExecutionPlan>| {
            let has_sets = node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| aggregate.group_expr().has_grouping_set());
            Ok(match has_sets {
                true => Transformed::yes(Arc::new(GroupingSets::of(node)) as Arc<dyn ExecutionPlan>),
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

/// Passes its input on, of which nothing is known.
#[derive(Debug)]
struct GroupingSets {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl GroupingSets {
    fn of(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for GroupingSets {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupingSets")
    }
}

impl ExecutionPlan for GroupingSets {
    fn name(&self) -> &str {
        "GroupingSets"
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

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::of(children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input)))))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
