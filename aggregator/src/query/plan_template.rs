//! A physical plan that several runs of a statement use, also at the same time.
//!
//! A template never runs itself: each run gets a copy with states of its own. Its scans find the query and the read
//! views in the task ([`QueryScans`]). Only what refers to a query in another way is replaced in the copy: scalar
//! functions, which find their query in the settings that they were planned with. There is a template only of plans
//! whose operators are all listed here, because other ones may share a state with their copies, and only if functions
//! occur where they can be replaced. A final aggregate keeps the functions of the first run in its arguments, which it
//! does not evaluate.
//!
//! [`QueryScans`]: super::shard_scan::QueryScans

use std::sync::Arc;

use datafusion::{
    common::{internal_err, tree_node::TreeNodeRecursion},
    config::ConfigOptions,
    error::Result,
    physical_expr::{PhysicalExpr, expressions::DynamicFilterPhysicalExpr},
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        filter::{FilterExec, FilterExecBuilder},
        limit::{GlobalLimitExec, LocalLimitExec},
        projection::{ProjectionExec, ProjectionExpr},
        repartition::RepartitionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
};
use plan::walk::Walk as _;

use super::{
    bound_functions::{contains, is_bound, is_function, with_settings},
    context::QueryContext,
    shard_scan::ShardScan,
    wide_rows,
};

/// A physical plan without a query.
pub(super) struct PlanTemplate {
    pub root: Arc<dyn ExecutionPlan>,
    /// The batch size of its runs.
    pub batch_rows: usize,
}

impl PlanTemplate {
    /// A template of this plan, if it can have one. The settings belong to no query.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, settings: &Arc<ConfigOptions>) -> Option<Self> {
        let mut reusable = true;
        let walked = plan.apply(|node| {
            reusable &= is_reusable(node.as_ref())?;
            Ok(if reusable {
                TreeNodeRecursion::Continue
            } else {
                TreeNodeRecursion::Stop
            })
        });
        if walked.is_err() || !reusable {
            return None;
        }
        Some(Self {
            root: copy(plan, settings, &|number| number).ok()?,
            batch_rows: wide_rows::batch_rows(plan).ok()?,
        })
    }

    /// A plan for one run. Its functions find their query in these settings, and its scans get new numbers: a query may
    /// run several plans.
    pub(super) fn plan(&self, settings: &Arc<ConfigOptions>, context: &QueryContext) -> Result<Arc<dyn ExecutionPlan>> {
        copy(&self.root, settings, &|_| context.next_scan())
    }
}

/// The scan of a plan, if it has only one.
pub(super) fn only_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&ShardScan> {
    only_scan_node(plan)?.downcast_ref()
}

/// The same, as an operator.
pub(super) fn only_scan_node(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    let mut node = plan;
    while !node.is::<ShardScan>() {
        let [input] = node.children()[..] else { return None };
        node = input;
    }
    Some(node)
}

/// Whether a copy of an operator shares nothing with it that a run changes, and knows of no query.
fn is_reusable(node: &dyn ExecutionPlan) -> Result<bool> {
    if let Some(scan) = node.downcast_ref::<ShardScan>() {
        return Ok(!scan.has_join_filters() && !scan.aggregated().iter().any(|expr| contains(expr, is_bound)));
    }
    if node.is::<ProjectionExec>() || node.is::<FilterExec>() {
        // Their functions are replaced.
        return Ok(!any_expression(node, |expr| {
            expr.is::<DynamicFilterPhysicalExpr>() || is_bound(expr)
        })?);
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        // The final phase reads the states of the partial one, and does not evaluate the arguments.
        let is_final = matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
        return Ok(node.dynamic_expressions_produced().is_empty() && (is_final || !any_expression(node, is_function)?));
    }
    // A copy of a sort has a filter of its own. Windows are not listed: they do not show the condition of a FILTER.
    let is_listed = node.is::<CoalescePartitionsExec>()
        || node.is::<CooperativeExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<RepartitionExec>()
        || node.is::<SortExec>()
        || node.is::<SortPreservingMergeExec>();
    Ok(is_listed && !any_expression(node, is_function)?)
}

/// Whether anything in the expressions of an operator is such.
fn any_expression(node: &dyn ExecutionPlan, is: fn(&dyn PhysicalExpr) -> bool) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(&mut |expr| {
        found |= contains(expr, is);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// A copy of a plan, with other settings for its functions and other numbers for its scans.
fn copy(
    node: &Arc<dyn ExecutionPlan>,
    settings: &Arc<ConfigOptions>,
    renumber: &dyn Fn(usize) -> usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let inputs = node
        .children()
        .into_iter()
        .map(|input| copy(input, settings, renumber))
        .collect::<Result<Vec<_>>>()?;
    if let Some(scan) = node.downcast_ref::<ShardScan>() {
        return Ok(Arc::new(scan.for_run(settings, renumber(scan.number))?));
    }
    let with_functions = any_expression(node.as_ref(), is_function)?;
    if let (true, Some(projection), [input]) =
        (with_functions, node.downcast_ref::<ProjectionExec>(), inputs.as_slice())
    {
        let expr = |projected: &ProjectionExpr| {
            Ok(ProjectionExpr {
                expr: with_settings(&projected.expr, settings)?,
                alias: projected.alias.clone(),
            })
        };
        let exprs = projection.expr().iter().map(expr).collect::<Result<Vec<_>>>()?;
        let copied = ProjectionExec::try_new(exprs, Arc::clone(input))?;
        return match copied.schema() == node.schema() {
            true => Ok(Arc::new(copied)),
            false => internal_err!("the copy of a projection has another schema"),
        };
    }
    if let (true, Some(filter), [input]) = (with_functions, node.downcast_ref::<FilterExec>(), inputs.as_slice()) {
        let filter = FilterExecBuilder::from(filter)
            .with_input(Arc::clone(input))
            .with_predicate(with_settings(filter.predicate(), settings)?)
            .build()?;
        return Ok(Arc::new(filter));
    }
    let copied =
        Arc::clone(node).replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?;
    // Otherwise both would have the same filter.
    if copied.is::<SortExec>() {
        copied.reset_state()
    } else {
        Ok(copied)
    }
}
