//! The operator that watches one input: it passes batches on, splits large ones, and fails at a limit.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::DataType},
    common::{Statistics, tree_node::TreeNodeRecursion},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_expr::PhysicalExpr,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        filter_pushdown::{ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation},
        statistics::{ChildStats, StatisticsArgs},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use plan::{arrays, functions::constants};
use proto::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::{WatchReason, copied_types};
use crate::{
    failure,
    query::{paced::PacedStream, query_plan::task_with, row_slices::row_slices},
};

/// Bytes that an operator may copy at once.
const COPIED_BYTES_MAX: u64 = 256 << 20;
/// Bytes of the value of a scalar subquery.
const SUBQUERY_BYTES_MAX: u64 = 16 << 20;
/// Bytes that `unnest` may produce from a batch before the batch is split.
const UNNESTED_BYTES_MAX: u64 = 32 << 20;
/// Bytes of a batch that the groups of all grouping sets together may keep.
const GROUPED_BYTES_MAX: u64 = 32 << 20;
/// The smallest batch for an aggregate with grouping sets.
const GROUPING_SETS_ROWS_MIN: usize = 16;
/// Bytes that the windows over one partition may repeat.
const REPEATED_BYTES_MAX: u64 = 512 << 20;
/// Batches up to this size are not measured row by row.
const UNMEASURED_BYTES_MAX: u64 = 64 << 10;

/// Passes its input on, in smaller batches if need be, and fails at a limit.
#[derive(Debug)]
struct WatchedExec {
    input: Arc<dyn ExecutionPlan>,
    watch: Watch,
}

/// How an input is watched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::query) struct Watch {
    pub(super) reason: WatchReason,
    /// Whether the size of the batches adapts to the speed of the operator above.
    pub(super) paced: bool,
    /// The batch size of the plan below.
    pub(in crate::query) input_batch_rows: usize,
}

impl Watch {
    /// How an operator watches its input, if it does.
    pub(in crate::query) fn of(operator: &dyn ExecutionPlan) -> Option<&Self> {
        operator.downcast_ref::<WatchedExec>().map(|watched| &watched.watch)
    }

    /// The operator that watches this input.
    pub(in crate::query) fn over(self, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(WatchedExec { input, watch: self })
    }
}

impl DisplayAs for WatchedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchedExec")
    }
}

impl ExecutionPlan for WatchedExec {
    fn name(&self) -> &str {
        "WatchedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
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
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(self.watch.clone().over(input))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        conditions: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(conditions, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(pushed))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let config = context.session_config().clone();
        let config = config.with_batch_size(self.watch.input_batch_rows);
        let input_context = task_with(&context, config, context.runtime_env());
        let input = self.input.execute(partition, input_context)?;
        let watch = InputWatch {
            reason: self.watch.reason.clone(),
            batch_rows: context.session_config().batch_size() as u64,
            reservation: MemoryConsumer::new("Window").register(context.memory_pool()),
            rows: AtomicU64::new(0),
            widest: AtomicU64::new(0),
        };
        let batches = input
            .map(move |batch| {
                watch
                    .checked(batch?)
                    .map(|parts| stream::iter(parts.into_iter().map(Ok)))
            })
            .try_flatten();
        let watched: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches));
        Ok(if self.watch.paced {
            Box::pin(PacedStream::new(watched))
        } else {
            watched
        })
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(inputs
            .first()
            .map_or_else(|| Arc::new(Statistics::new_unknown(&self.schema())), Arc::clone))
    }
}

/// The state of the watch over one partition.
struct InputWatch {
    reason: WatchReason,
    /// The batch size of the operator above.
    batch_rows: u64,
    reservation: MemoryReservation,
    /// Rows read so far, for windows.
    rows: AtomicU64,
    /// Bytes of the widest row so far, for windows.
    widest: AtomicU64,
}

impl InputWatch {
    /// Returns the batch in parts that are small enough. Fails if a single row is too large.
    fn checked(&self, batch: RecordBatch) -> Result<Vec<RecordBatch>> {
        match &self.reason {
            WatchReason::Join { copies_views } => self.checked_for_join(batch, *copies_views),
            WatchReason::Unnest { lists } => split_for_unnest(batch, lists),
            WatchReason::ScalarSubquery => checked_for_subquery(batch),
            WatchReason::GroupingSets { sets, kept } => self.checked_for_grouping_sets(batch, *sets, kept),
            WatchReason::Window {
                buffers_input,
                repeated,
            } => self.checked_for_window(batch, *buffers_input, repeated),
        }
    }

    fn checked_for_join(&self, batch: RecordBatch, copies_views: bool) -> Result<Vec<RecordBatch>> {
        let is_copied = copied_types(copies_views);
        let (widest, limit) = (
            widest_row(&batch, |_, of| is_copied(of)),
            COPIED_BYTES_MAX / self.batch_rows,
        );
        if widest > limit {
            return Err(too_wide(format!(
                "a join copies a row of {widest} bytes for every row that it returns; the limit is {limit} bytes"
            )));
        }
        // A join without a key returns batches as long as its input batches.
        Ok(row_slices(batch, self.batch_rows as usize).collect())
    }

    fn checked_for_grouping_sets(&self, batch: RecordBatch, sets: usize, kept: &[usize]) -> Result<Vec<RecordBatch>> {
        let bytes = GROUPED_BYTES_MAX / sets as u64;
        let widest = widest_row(&batch, |index, of| constants::is_long(of) && kept.contains(&index));
        if widest > bytes {
            return Err(too_wide(format!(
                "each of {sets} grouping sets may keep a row of {widest} bytes; the limit is {bytes} bytes"
            )));
        }
        let rows = (self.batch_rows as usize / sets).max(GROUPING_SETS_ROWS_MIN);
        Ok(arrays::split_batch(batch, bytes)
            .flat_map(|part| row_slices(part, rows))
            .collect())
    }

    fn checked_for_window(
        &self,
        batch: RecordBatch,
        buffers_input: bool,
        repeated: &[usize],
    ) -> Result<Vec<RecordBatch>> {
        if buffers_input {
            // The window buffers the batches and then concatenates them, which takes their size twice.
            self.reservation
                .try_grow(2 * batch.columns().iter().map(arrays::size).sum::<u64>() as usize)?;
        }
        if !repeated.is_empty() {
            let rows_read = self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed) + batch.num_rows() as u64;
            // A window that does not buffer its input returns it batch by batch.
            let rows = if buffers_input {
                rows_read
            } else {
                rows_read.min(self.batch_rows)
            };
            let widest_here = widest_row(&batch, |index, of| constants::is_long(of) && repeated.contains(&index));
            let widest = self.widest.fetch_max(widest_here, Ordering::Relaxed).max(widest_here);
            if rows.saturating_mul(widest) > REPEATED_BYTES_MAX {
                return Err(too_wide(format!(
                    "a window may repeat a value of {widest} bytes for {rows} rows; the limit is {REPEATED_BYTES_MAX} \
                     bytes"
                )));
            }
        }
        Ok(vec![batch])
    }
}

fn checked_for_subquery(batch: RecordBatch) -> Result<Vec<RecordBatch>> {
    match widest_row(&batch, |_, of| constants::is_long(of)) {
        widest if widest > SUBQUERY_BYTES_MAX => Err(too_wide(format!(
            "a scalar subquery returns a row of {widest} bytes; the limit is {SUBQUERY_BYTES_MAX} bytes"
        ))),
        _ => Ok(vec![batch]),
    }
}

fn too_wide(detail: String) -> DataFusionError {
    failure::error(Problem::new(Code::LimitReached, detail).hint(
        "leave long columns out, shorten them, for example with left(x, 1000), or join or unnest later in the query",
    ))
}

/// Bytes of the widest row, over the columns that are counted.
fn widest_row(batch: &RecordBatch, is_counted: impl Fn(usize, &DataType) -> bool) -> u64 {
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .enumerate()
        .filter(|(index, column)| is_counted(*index, column.data_type()))
        .collect();
    let all: u64 = columns.iter().map(|(_, column)| arrays::size(column)).sum();
    if all <= UNMEASURED_BYTES_MAX {
        return all / (batch.num_rows().max(1) as u64);
    }
    let width = |row| {
        columns
            .iter()
            .map(|(_, column)| arrays::size(&column.slice(row, 1)))
            .sum()
    };
    (0..batch.num_rows()).map(width).max().unwrap_or_default()
}

/// Splits a batch into parts that stay below a limit when these lists are unnested. Fails if a single row exceeds it.
fn split_for_unnest(batch: RecordBatch, lists: &[usize]) -> Result<Vec<RecordBatch>> {
    let (mut parts, mut from, mut sum) = (Vec::new(), 0, 0_u64);
    for row in 0..batch.num_rows() {
        let bytes = unnested_bytes(&batch.slice(row, 1), lists);
        if bytes > COPIED_BYTES_MAX {
            return Err(too_wide(format!(
                "unnest expands a row to {bytes} bytes; the limit is {COPIED_BYTES_MAX} bytes"
            )));
        }
        sum = sum.saturating_add(bytes);
        if sum > UNNESTED_BYTES_MAX && row > from {
            parts.push(batch.slice(from, row - from));
            (from, sum) = (row, bytes);
        }
    }
    parts.push(batch.slice(from, batch.num_rows() - from));
    Ok(parts)
}

/// The bytes of a single row after its lists are unnested: the items, and a copy of the other columns for each of them.
fn unnested_bytes(row: &RecordBatch, lists: &[usize]) -> u64 {
    let bytes = |index: usize| arrays::size(row.column(index));
    let items = lists
        .iter()
        .map(|list| arrays::count_items(row.column(*list)))
        .max()
        .unwrap_or_default();
    let others: u64 = (0..row.num_columns())
        .filter(|index| !lists.contains(index))
        .map(bytes)
        .sum();
    let own: u64 = lists.iter().map(|list| bytes(*list)).sum();
    own.saturating_add(items.saturating_mul(others + 16))
}
