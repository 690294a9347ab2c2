//! Optimizer rule: bounds the memory that wide rows take.
//!
//! Some operators (joins, windows, `unnest`) copy the values of an input row into each of its output rows, a whole
//! batch at a time however large that gets, and constants are written out for every row of a batch. So the batches of a
//! plan that may copy much are small, and the input of such an operator is watched: its batches are split, or the query
//! fails at a limit.

mod watched_exec;

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::tree_node::{Transformed, TransformedResult as _, TreeNodeRecursion},
    config::ConfigOptions,
    error::Result,
    physical_expr::{PhysicalExpr, utils::collect_columns, window::WindowExpr},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        scalar_subquery::ScalarSubqueryExec,
        unnest::UnnestExec,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};
use plan::functions::constants::{self, BATCH_ROWS};
use plan::walk::Walk as _;
use serde::{Deserialize, Serialize};

pub(super) use self::watched_exec::Watch;

/// Rows of a batch if a join copies lists. It applies to the join and the operators above it, not below.
const ROWS_WITH_LISTS: usize = 64;
/// Rows of a batch if a join copies texts.
const ROWS_WITH_TEXTS: usize = 1_024;
/// Values of a batch, rows times columns: an operator cannot be stopped within a batch, and very many columns take
/// long.
const BATCH_VALUES: usize = 64 * BATCH_ROWS;

/// Watches the input of operators that copy rows.
#[derive(Debug)]
pub(super) struct WatchWideRows;

impl PhysicalOptimizerRule for WatchWideRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let watch = |node: Arc<dyn ExecutionPlan>| {
            let Some(reason) = watch_reason(node.as_ref()) else {
                return Ok(Transformed::no(node));
            };
            let inputs = node
                .children()
                .into_iter()
                .enumerate()
                .map(|(index, input)| watched_input(node.as_ref(), &reason, index, input))
                .collect::<Result<_>>()?;
            node.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
                .map(Transformed::yes)
        };
        plan.transform_up(watch).data()
    }

    fn name(&self) -> &str {
        "WatchWideRows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn watched_input(
    node: &dyn ExecutionPlan,
    reason: &WatchReason,
    index: usize,
    input: &Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    // The first input of a plan with subqueries only passes through.
    if index == 0 && matches!(reason, WatchReason::ScalarSubquery) {
        return Ok(Arc::clone(input));
    }
    // A join collects its first input, so only the second is paced. A cross join reads it batch by batch, and yields.
    let is_probed = index == 1 && matches!(reason, WatchReason::Join { .. }) && !node.is::<CrossJoinExec>();
    let paced = is_probed || matches!(reason, WatchReason::GroupingSets { .. });
    let watch = Watch {
        reason: reason.clone(),
        paced,
        input_batch_rows: batch_rows(input)?,
    };
    Ok(watch.over(Arc::clone(input)))
}

/// The batch size of a plan: smaller if the plan copies or writes out values that may be long. The plan below a watched
/// input has a batch size of its own.
pub(super) fn batch_rows(plan: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let mut rows = BATCH_ROWS;
    plan.apply(|node| {
        if Watch::of(node.as_ref()).is_some() {
            return Ok(TreeNodeRecursion::Jump);
        }
        let mut bytes = 0;
        node.apply_expressions(&mut |expr| {
            bytes += constants::bytes(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        rows = rows
            .min(constants::rows(bytes))
            .min((BATCH_VALUES / node.schema().fields().len().max(1)).max(ROWS_WITH_LISTS));
        let any_input_column = |is: fn(&DataType) -> bool| {
            node.children()
                .iter()
                .any(|input| input.schema().fields().iter().any(|field| is(field.data_type())))
        };
        rows = match watch_reason(node.as_ref()) {
            Some(WatchReason::Join { .. }) if any_input_column(DataType::is_nested) => rows.min(ROWS_WITH_LISTS),
            Some(WatchReason::Join { copies_views }) if any_input_column(copied_types(copies_views)) => {
                rows.min(ROWS_WITH_TEXTS)
            }
            _ => rows,
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(rows)
}

/// A test for the types whose values a join copies with their row.
fn copied_types(copies_views: bool) -> fn(&DataType) -> bool {
    if copies_views {
        constants::is_long
    } else {
        is_long_outside_views
    }
}

fn is_long_outside_views(of: &DataType) -> bool {
    constants::is_long(of) && !matches!(of, DataType::Utf8View | DataType::BinaryView)
}

/// Why an operator's input is watched.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum WatchReason {
    /// A join copies lists and texts for every output row; but for view arrays, some joins copy the views only.
    Join { copies_views: bool },
    /// Each item of these lists becomes a row with a copy of the other columns.
    Unnest { lists: Vec<usize> },
    /// The value of a scalar subquery is written out for every row of a batch.
    ScalarSubquery,
    /// Each row belongs to a group in each of several grouping sets, and each group may keep the values of these
    /// columns. DataFusion accounts for them only after each batch.
    GroupingSets { sets: usize, kept: Vec<usize> },
    /// A window may repeat a value of these columns for all rows of its input, which it may also buffer.
    Window { buffers_input: bool, repeated: Vec<usize> },
}

fn watch_reason(node: &dyn ExecutionPlan) -> Option<WatchReason> {
    if node.is::<CrossJoinExec>() || node.is::<NestedLoopJoinExec>() {
        return Some(WatchReason::Join { copies_views: true });
    }
    if node.is::<HashJoinExec>() || node.is::<SortMergeJoinExec>() {
        return Some(WatchReason::Join { copies_views: false });
    }
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        let lists = unnest
            .list_column_indices()
            .iter()
            .map(|list| list.index_in_input_schema)
            .collect();
        return Some(WatchReason::Unnest { lists });
    }
    if node.is::<ScalarSubqueryExec>() {
        return Some(WatchReason::ScalarSubquery);
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return grouping_sets(aggregate);
    }
    if let Some(window) = node.downcast_ref::<WindowAggExec>() {
        return Some(window_reason(window.window_expr(), true));
    }
    let window = node.downcast_ref::<BoundedWindowAggExec>()?;
    Some(window_reason(window.window_expr(), false))
}

/// The reason to watch an aggregate, if it has several grouping sets.
fn grouping_sets(aggregate: &AggregateExec) -> Option<WatchReason> {
    let (sets, input) = (aggregate.group_expr().groups().len(), aggregate.input().schema());
    if sets <= 1 {
        return None;
    }
    let is_long = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(&input).is_ok_and(|of| constants::is_long(&of));
    let read = aggregate
        .group_expr()
        .input_exprs()
        .into_iter()
        .chain(aggregate.aggr_expr().iter().flat_map(|call| {
            let keys = call.order_bys().iter().map(|key| Arc::clone(&key.expr));
            call.expressions().into_iter().chain(keys).collect::<Vec<_>>()
        }));
    let kept = read
        .filter(is_long)
        .flat_map(|expr| collect_columns(&expr))
        .map(|column| column.index())
        .collect();
    Some(WatchReason::GroupingSets { sets, kept })
}

fn window_reason(windows: &[Arc<dyn WindowExpr>], buffers_input: bool) -> WatchReason {
    let is_long =
        |window: &&Arc<dyn WindowExpr>| window.field().is_ok_and(|field| constants::is_long(field.data_type()));
    let read = windows.iter().filter(is_long).flat_map(|window| window.expressions());
    let repeated = read
        .flat_map(|expr| collect_columns(&expr))
        .map(|column| column.index())
        .collect();
    WatchReason::Window {
        buffers_input,
        repeated,
    }
}
