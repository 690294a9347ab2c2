//! Rows that are wide. Some operators copy the values of a row as often as they give it (joins, windows, `unnest`), a
//! batch at a time and whatever it comes to; and constants are written out for every row of a batch. So batches are
//! small where a plan may copy much, and what goes into such an operator is watched: it is cut, or the query ends at a
//! limit.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::DataType},
    common::{
        Statistics,
        tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::Result,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_expr::{PhysicalExpr, utils::collect_columns, window::WindowExpr},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
        aggregates::AggregateExec,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        scalar_subquery::ScalarSubqueryExec,
        statistics::{ChildStats, StatisticsArgs},
        stream::RecordBatchStreamAdapter,
        unnest::UnnestExec,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use plan::{
    arrays,
    functions::constants::{self, BATCH_ROWS},
};
use proto::{Code, Problem};

use super::{failure, paced::Paced, shard_scan::parts};

/// Rows of a batch where a join copies lists, and where it copies texts: from the join upwards, not below it.
const ROWS_OF_LISTS: usize = 64;
const ROWS_OF_TEXTS: usize = 1_024;
/// Values of a batch: what is done to a batch of very many columns takes long, and nothing can stop it meanwhile.
const BATCH_VALUES: usize = 64 * BATCH_ROWS;
/// Bytes that an operator may copy at once.
const COPIED_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one value that a sub-query gives.
const SUBQUERY_BYTES_MAX: u64 = 16 << 20;
/// Bytes that `unnest` may make of a batch before it is cut.
const UNNESTED_BYTES_MAX: u64 = 32 << 20;
/// Bytes that all groups may keep of a batch that is grouped by several sets of keys …
const GROUPED_BYTES_MAX: u64 = 32 << 20;
/// … and its rows, at least.
const ROWS_OF_SETS_MIN: usize = 16;
/// Bytes that the windows over one partition may repeat.
const REPEATED_BYTES_MAX: u64 = 512 << 20;

/// The rule: what goes into an operator that copies rows is watched.
#[derive(Debug)]
pub(super) struct WatchWideRows;

impl PhysicalOptimizerRule for WatchWideRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let watch = |node: Arc<dyn ExecutionPlan>| {
            let Some(why) = why(node.as_ref()) else {
                return Ok(Transformed::no(node));
            };
            // The first input of a plan with sub-queries only passes through.
            let passes = |place: usize| place == 0 && matches!(why, Why::Subquery);
            let watched = |(place, input): (usize, &Arc<dyn ExecutionPlan>)| -> Result<Arc<dyn ExecutionPlan>> {
                if passes(place) {
                    return Ok(Arc::clone(input));
                }
                // The first input of a join is collected. A cross join goes through its batches one by one, and yields.
                let joined = place == 1 && matches!(why, Why::Joined { .. }) && !node.is::<CrossJoinExec>();
                let paced = joined || matches!(why, Why::Grouped { .. });
                Ok(Arc::new(Watched {
                    input: Arc::clone(input),
                    why: why.clone(),
                    paced,
                    rows_below: batch_rows(input)?,
                }))
            };
            let inputs = node
                .children()
                .into_iter()
                .enumerate()
                .map(watched)
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

/// Rows of a plan's batches: fewer, where it copies or writes out what may be long. What lies below a watched operator
/// has its own.
pub(super) fn batch_rows(plan: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let mut rows = BATCH_ROWS;
    plan.apply(|node| {
        if node.is::<Watched>() {
            return Ok(TreeNodeRecursion::Jump);
        }
        let mut bytes = 0;
        node.apply_expressions(&mut |expr| {
            bytes += constants::bytes(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        rows = rows
            .min(constants::rows(bytes))
            .min((BATCH_VALUES / node.schema().fields().len().max(1)).max(ROWS_OF_LISTS));
        let any = |is: fn(&DataType) -> bool| {
            node.children()
                .iter()
                .any(|input| input.schema().fields().iter().any(|field| is(field.data_type())))
        };
        rows = match why(node.as_ref()) {
            Some(Why::Joined { .. }) if any(DataType::is_nested) => rows.min(ROWS_OF_LISTS),
            Some(Why::Joined { texts }) if any(if texts { constants::is_long } else { is_copied }) => {
                rows.min(ROWS_OF_TEXTS)
            }
            _ => rows,
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(rows)
}

/// Whether the values of a type are copied with their row: views are not.
fn is_copied(of: &DataType) -> bool {
    constants::is_long(of) && !matches!(of, DataType::Utf8View | DataType::BinaryView)
}

/// Why an operator's input is watched.
#[derive(Debug, Clone)]
enum Why {
    /// A join copies lists, and some joins texts, for every row that they give.
    Joined { texts: bool },
    /// Each item of these lists becomes a row with a copy of the others.
    Unnested { lists: Vec<usize> },
    /// The value of a sub-query is written out for every row of a batch.
    Subquery,
    /// Each row is put into a group of each of so many sets of keys, which may keep the values of these columns; they
    /// are counted after each batch.
    Grouped { sets: usize, kept: Vec<usize> },
    /// A window holds all rows of its input, and may repeat a value of these columns for all of them.
    Windowed { holds: bool, repeated: Vec<usize> },
}

fn why(node: &dyn ExecutionPlan) -> Option<Why> {
    if node.is::<CrossJoinExec>() || node.is::<NestedLoopJoinExec>() {
        return Some(Why::Joined { texts: true });
    }
    if node.is::<HashJoinExec>() || node.is::<SortMergeJoinExec>() {
        return Some(Why::Joined { texts: false });
    }
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        let lists = unnest
            .list_column_indices()
            .iter()
            .map(|list| list.index_in_input_schema)
            .collect();
        return Some(Why::Unnested { lists });
    }
    if node.is::<ScalarSubqueryExec>() {
        return Some(Why::Subquery);
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let (sets, input) = (aggregate.group_expr().groups().len(), aggregate.input().schema());
        let long = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(&input).is_ok_and(|of| constants::is_long(&of));
        let read = aggregate
            .group_expr()
            .input_exprs()
            .into_iter()
            .chain(aggregate.aggr_expr().iter().flat_map(|call| {
                let keys = call.order_bys().iter().map(|key| Arc::clone(&key.expr));
                call.expressions().into_iter().chain(keys).collect::<Vec<_>>()
            }));
        let kept = read
            .filter(long)
            .flat_map(|expr| collect_columns(&expr))
            .map(|column| column.index())
            .collect();
        return (sets > 1).then_some(Why::Grouped { sets, kept });
    }
    let (windows, holds) = match (
        node.downcast_ref::<WindowAggExec>(),
        node.downcast_ref::<BoundedWindowAggExec>(),
    ) {
        (Some(window), _) => (window.window_expr(), true),
        (_, Some(window)) => (window.window_expr(), false),
        _ => return None,
    };
    let long = |window: &&Arc<dyn WindowExpr>| window.field().is_ok_and(|field| constants::is_long(field.data_type()));
    let read = windows.iter().filter(long).flat_map(|window| window.expressions());
    let repeated = read
        .flat_map(|expr| collect_columns(&expr))
        .map(|column| column.index())
        .collect();
    Some(Why::Windowed { holds, repeated })
}

/// Passes its input on as it is, or in smaller batches, until it is too much.
#[derive(Debug)]
struct Watched {
    input: Arc<dyn ExecutionPlan>,
    why: Why,
    /// Whether its batches are as large as the operator is fast.
    paced: bool,
    rows_below: usize,
}

impl DisplayAs for Watched {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl ExecutionPlan for Watched {
    fn name(&self) -> &str {
        "Watched"
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
        Ok(Arc::new(Self {
            input,
            why: self.why.clone(),
            paced: self.paced,
            rows_below: self.rows_below,
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let below = TaskContext::new(
            context.task_id(),
            context.session_id(),
            context.session_config().clone().with_batch_size(self.rows_below),
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            context.runtime_env(),
        );
        let input = self.input.execute(partition, Arc::new(below))?;
        let watch = Watch {
            why: self.why.clone(),
            batch_rows: context.session_config().batch_size() as u64,
            held: MemoryConsumer::new("Window").register(context.memory_pool()),
            rows: AtomicU64::new(0),
            widest: AtomicU64::new(0),
        };
        let batches = input
            .map(move |batch| {
                watch
                    .passed(batch?)
                    .map(|parts| stream::iter(parts.into_iter().map(Ok)))
            })
            .try_flatten();
        let watched: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches));
        Ok(if self.paced {
            Box::pin(Paced::new(watched))
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

/// What was seen of one partition's input.
struct Watch {
    why: Why,
    batch_rows: u64,
    held: MemoryReservation,
    rows: AtomicU64,
    widest: AtomicU64,
}

impl Watch {
    /// The batch, in parts that are small enough; an error where one row is too much.
    fn passed(&self, batch: RecordBatch) -> Result<Vec<RecordBatch>> {
        match &self.why {
            Why::Joined { texts } => {
                let copied = if *texts { constants::is_long } else { is_copied };
                let (widest, most) = (widest(&batch, |_, of| copied(of)), COPIED_BYTES_MAX / self.batch_rows);
                match widest > most {
                    true => Err(too_wide(format!(
                        "a join copies a row of {widest} bytes for every row that it gives; the limit is {most}"
                    ))),
                    // A join without a key gives batches as long as those that it takes.
                    false => Ok(parts(batch, self.batch_rows as usize).collect()),
                }
            }
            Why::Unnested { lists } => cut(batch, lists),
            Why::Subquery => match widest(&batch, |_, of| constants::is_long(of)) {
                wide if wide > SUBQUERY_BYTES_MAX => Err(too_wide(format!(
                    "a sub-query gives one value of {wide} bytes, or stands beside such a row; the limit is {SUBQUERY_BYTES_MAX}"
                ))),
                _ => Ok(vec![batch]),
            },
            Why::Grouped { sets, kept } => {
                let bytes = GROUPED_BYTES_MAX / *sets as u64;
                let widest = widest(&batch, |index, of| constants::is_long(of) && kept.contains(&index));
                if widest > bytes {
                    return Err(too_wide(format!(
                        "each of {sets} grouping sets may keep a row of {widest} bytes; the limit is {bytes}"
                    )));
                }
                let rows = (self.batch_rows as usize / sets).max(ROWS_OF_SETS_MIN);
                Ok(arrays::cut(batch, bytes).flat_map(|part| parts(part, rows)).collect())
            }
            Why::Windowed { holds, repeated } => {
                if *holds {
                    // The rows as they come, and all of them put together.
                    self.held
                        .try_grow(2 * batch.columns().iter().map(arrays::size).sum::<u64>() as usize)?;
                }
                if !repeated.is_empty() {
                    let seen =
                        self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed) + batch.num_rows() as u64;
                    // A window that does not hold its rows gives them batch by batch.
                    let rows = if *holds { seen } else { seen.min(self.batch_rows) };
                    let here = widest(&batch, |index, of| constants::is_long(of) && repeated.contains(&index));
                    let widest = self.widest.fetch_max(here, Ordering::Relaxed).max(here);
                    if rows.saturating_mul(widest) > REPEATED_BYTES_MAX {
                        return Err(too_wide(format!(
                            "a window may repeat a value of {widest} bytes for {rows} rows; the limit is {REPEATED_BYTES_MAX} bytes"
                        )));
                    }
                }
                Ok(vec![batch])
            }
        }
    }
}

fn too_wide(detail: String) -> datafusion::error::DataFusionError {
    failure::error(
        Problem::new(Code::LimitReached, detail)
            .hint("leave the long columns out, shorten them, as left(x, 1000), or join or unnest later"),
    )
}

/// Bytes of the widest row, of these columns.
fn widest(batch: &RecordBatch, counted: impl Fn(usize, &DataType) -> bool) -> u64 {
    const HARMLESS_BYTES_MAX: u64 = 64 << 10;
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .enumerate()
        .filter(|(index, column)| counted(*index, column.data_type()))
        .collect();
    let all: u64 = columns.iter().map(|(_, column)| arrays::size(column)).sum();
    if all <= HARMLESS_BYTES_MAX {
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

/// A batch in parts of which each makes no more than a limit when these lists are unnested.
fn cut(batch: RecordBatch, lists: &[usize]) -> Result<Vec<RecordBatch>> {
    let made = |row: usize| {
        let one = batch.slice(row, 1);
        let bytes = |index: usize| arrays::size(one.column(index));
        let items = lists
            .iter()
            .map(|list| arrays::items(one.column(*list)))
            .max()
            .unwrap_or_default();
        let others: u64 = (0..one.num_columns())
            .filter(|index| !lists.contains(index))
            .map(bytes)
            .sum();
        let own: u64 = lists.iter().map(|list| bytes(*list)).sum();
        own.saturating_add(items.saturating_mul(others + 16))
    };
    let (mut parts, mut from, mut sum) = (Vec::new(), 0, 0_u64);
    for row in 0..batch.num_rows() {
        let bytes = made(row);
        if bytes > COPIED_BYTES_MAX {
            return Err(too_wide(format!(
                "unnest makes {bytes} bytes of one row; the limit is {COPIED_BYTES_MAX}"
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
