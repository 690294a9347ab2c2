//! Weighted rows: an aggregate over rows that stand for several documents each.
//!
//! Where a segment counts documents by their values (`split/groups.rs`), the aggregate gets a row for each combination of
//! values, and the number of its documents as a further column. So its keys, arguments and filters are computed once for
//! each combination, whatever they are:
//!
//! ```text
//! count(x) FILTER (WHERE f)  ->  sum(CASE WHEN x IS NOT NULL THEN documents END) FILTER (WHERE f), and 0 for NULL
//! sum(x) of integers         ->  sum(x * documents): both are decimals, so it is exact
//! min(x), max(x), …          ->  the same: equal values do not change them
//! ```
//!
//! A histogram only counts the intervals that times are in, so one row stands for all times of an interval.
//!
//! A function counts the rows for which it has no result, and some count all their rows. So functions are tried on the
//! rows first. Where one has no result, documents are read one by one. If all have results, the rows are tried again,
//! those that stand for equally many documents together, and what they count is added for each document. The aggregate
//! gets just the batches that were tried: AND and OR evaluate a part of them that depends on the others.

use std::{ops::Range, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, Int64Array, RecordBatch},
        compute::{partition, sort_to_indices, take_record_batch},
        datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Int64Type, Schema},
    },
    error::Result,
    functions_aggregate::sum::sum_udaf,
    logical_expr::Operator,
    physical_expr::{
        HigherOrderFunctionExpr, PhysicalExpr, ScalarFunctionExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
        expressions::{
            BinaryExpr, CastExpr, Column as PhysicalColumn, InListExpr, IsNotNullExpr, Literal, binary, case, cast, col,
        },
    },
};
use plan::{
    calendar::Interval,
    functions::{FunctionContext, WarningCounts, call_in_context, interval_number::NUMBER},
    scan::{PartialAggregate, SUMMED_INTEGER},
    walk::Walk as _,
};

/// The column with the number of documents that a row stands for.
const DOCUMENTS: &str = "rachis_documents";

/// Functions whose results do not change if a value occurs more than once.
const IDEMPOTENT: [&str; 4] = ["min", "max", "bool_and", "bool_or"];

/// An aggregate over the same columns and the number of documents that each row stands for.
pub(super) struct WeightedAggregate {
    /// The aggregate.
    pub aggregate: PartialAggregate,
    /// Which columns of its states are counts.
    pub counts: Vec<usize>,
    /// The times of one of these intervals are the same to the aggregate.
    pub interval: Option<Interval>,
}

impl WeightedAggregate {
    /// The weighted form of an aggregate. None if it has none, or segments do not count documents by its columns.
    pub(super) fn of(aggregate: &PartialAggregate) -> Result<Option<Self>> {
        let mut fields = aggregate.input.fields().iter();
        let are_counted = fields.all(|field| may_be_counted(field.data_type()));
        if !are_counted || !aggregate.group_by.is_single() || expressions(aggregate).any(calls_lambda) {
            return Ok(None);
        }
        // Without groups, arguments are evaluated for the rows that pass the filter: other ones than were tried.
        let has_filter = aggregate.filters.iter().any(Option::is_some);
        if has_filter && aggregate.group_by.is_true_no_grouping() && expressions(aggregate).any(calls_function) {
            return Ok(None);
        }
        let documents = Arc::new(Field::new(DOCUMENTS, DataType::Int64, false));
        let fields = aggregate.input.fields().iter().cloned().chain([documents]);
        let input = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (mut aggregates, mut counts) = (Vec::new(), Vec::new());
        let mut states = aggregate.group_by.expr().len();
        for call in &aggregate.aggregates {
            let name = call.fun().name();
            if name == "count" && !call.is_distinct() {
                let Some(documents) = counted_documents(call, &input)? else {
                    return Ok(None);
                };
                let sum = AggregateExprBuilder::new(sum_udaf(), vec![documents])
                    .schema(input.clone())
                    .alias(DOCUMENTS)
                    .build()?;
                counts.push(states);
                aggregates.push(Arc::new(sum));
            } else if name == "sum" && !call.is_distinct() {
                let Some(sum) = sum_of_documents(call, &input)? else {
                    return Ok(None);
                };
                aggregates.push(sum);
            } else if IDEMPOTENT.contains(&name) {
                aggregates.push(call.clone());
            } else {
                return Ok(None);
            }
            states += call.state_fields()?.len();
        }
        let interval = only_interval(aggregate);
        let aggregate = PartialAggregate {
            group_by: aggregate.group_by.clone(),
            aggregates,
            filters: aggregate.filters.clone(),
            input,
            output: aggregate.output.clone(),
        };
        Ok(Some(Self {
            aggregate,
            counts,
            interval,
        }))
    }
}

/// The interval, if all that an aggregate reads of its only column is in which one of these a time is.
fn only_interval(aggregate: &PartialAggregate) -> Option<Interval> {
    let read = |expression: Arc<dyn PhysicalExpr>| {
        if expression.is::<Literal>() {
            return Some(None);
        }
        let call = expression.downcast_ref::<ScalarFunctionExpr>()?;
        match call.args() {
            [time, interval] if call.fun().name() == NUMBER && time.is::<PhysicalColumn>() => {
                let interval = interval.downcast_ref::<Literal>()?.value().try_as_str()??;
                Some(Some(Interval::parse(interval)?))
            }
            _ => None,
        }
    };
    let intervals: Vec<Option<Interval>> = expressions(aggregate).map(read).collect::<Option<_>>()?;
    let mut intervals = intervals.into_iter().flatten();
    let interval = intervals.next()?;
    let is_only = aggregate.input.fields().len() == 1 && intervals.all(|other| other == interval);
    is_only.then_some(interval)
}

/// Whether a segment may count documents by the values of a column of this type.
fn may_be_counted(data_type: &DataType) -> bool {
    use DataType::{Boolean, Float64, Int64, Timestamp, Utf8View};
    matches!(data_type, Utf8View | Int64 | Float64 | Boolean | Timestamp(..))
}

/// The columns of states, with 0 instead of NULL in those that are counts: without any row, a sum is NULL.
pub(super) fn with_zero_counts(states: &RecordBatch, counts: &[usize]) -> Vec<ArrayRef> {
    let mut columns = states.columns().to_vec();
    for count in counts {
        let sums = columns[*count].as_primitive::<Int64Type>();
        if sums.null_count() > 0 {
            let counts: Int64Array = sums.iter().map(|sum| Some(sum.unwrap_or(0))).collect();
            columns[*count] = Arc::new(counts);
        }
    }
    columns
}

/// The documents of a row that a count counts: all of them, or none if its argument is NULL. None if it has several
/// arguments.
fn counted_documents(count: &AggregateFunctionExpr, input: &Schema) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let documents = col(DOCUMENTS, input)?;
    Ok(match counted_arguments(count).as_slice() {
        [] => Some(documents),
        [argument] => {
            let is_present: Arc<dyn PhysicalExpr> = Arc::new(IsNotNullExpr::new(argument.clone()));
            Some(case(None, vec![(is_present, documents)], None)?)
        }
        _ => None,
    })
}

/// The arguments of a call without its constants. Of those of a count, these decide which rows it counts.
pub(super) fn counted_arguments(call: &AggregateFunctionExpr) -> Vec<Arc<dyn PhysicalExpr>> {
    let is_constant = |argument: &Arc<dyn PhysicalExpr>| {
        argument
            .downcast_ref::<Literal>()
            .is_some_and(|constant| !constant.value().is_null())
    };
    let mut arguments = call.expressions();
    arguments.retain(|argument| !is_constant(argument));
    arguments
}

/// A sum of integers, each as often as its row stands for documents. None if it is not one of integers: they are summed
/// as decimals, and those of 64 bits times a number of documents fit into one.
fn sum_of_documents(sum: &AggregateFunctionExpr, input: &Arc<Schema>) -> Result<Option<Arc<AggregateFunctionExpr>>> {
    const PRODUCT: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);
    let [argument] = &sum.expressions()[..] else {
        return Ok(None);
    };
    let is_integer = (argument.downcast_ref::<CastExpr>())
        .map(|cast| cast.expr().data_type(input))
        .transpose()?
        .is_some_and(|from| from == DataType::Int64);
    if !is_integer || argument.data_type(input)? != SUMMED_INTEGER {
        return Ok(None);
    }
    let documents = cast(col(DOCUMENTS, input)?, input, SUMMED_INTEGER)?;
    let product = binary(argument.clone(), Operator::Multiply, documents, input)?;
    let weighted = AggregateExprBuilder::new(sum_udaf(), vec![cast(product, input, PRODUCT)?])
        .schema(input.clone())
        .alias(sum.name())
        .build()?;
    Ok((weighted.state_fields()? == sum.state_fields()?).then(|| Arc::new(weighted)))
}

/// The keys, arguments and filters of an aggregate.
pub(super) fn expressions(aggregate: &PartialAggregate) -> impl Iterator<Item = Arc<dyn PhysicalExpr>> {
    let keys = aggregate.group_by.expr().iter().map(|(key, _)| key.clone());
    let arguments = aggregate.aggregates.iter().flat_map(|call| call.expressions());
    keys.chain(arguments).chain(aggregate.filters.iter().flatten().cloned())
}

pub(super) fn calls_function(expression: Arc<dyn PhysicalExpr>) -> bool {
    expression
        .exists(|part| Ok(part.is::<ScalarFunctionExpr>()))
        .unwrap_or(true)
}

/// Whether an expression calls a function that takes a lambda: in it, nothing can be replaced.
fn calls_lambda(expression: Arc<dyn PhysicalExpr>) -> bool {
    expression
        .exists(|part| Ok(part.is::<HigherOrderFunctionExpr>()))
        .unwrap_or(true)
}

/// Whether what an expression counts depends on which rows are evaluated together, and not only on each row: AND and OR
/// may evaluate their right side for some rows only, IN the items of a computed list, and a call without columns is evaluated once for all.
fn counts_batches(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let is_column = |part: &Arc<dyn PhysicalExpr>| Ok(part.is::<PhysicalColumn>());
    let depends = expression.exists(|part| {
        if part.is::<ScalarFunctionExpr>() {
            return Ok(!part.exists(is_column)?);
        }
        if let Some(list) = part.downcast_ref::<InListExpr>() {
            return Ok(list.list().iter().cloned().any(calls_function));
        }
        Ok(part.downcast_ref::<BinaryExpr>().is_some_and(|binary| {
            matches!(binary.op(), Operator::And | Operator::Or) && calls_function(binary.right().clone())
        }))
    });
    depends.unwrap_or(true)
}

/// Whether an expression calls a function that may count values. [`NUMBER`] has a result for every time.
fn may_count(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let may_count = |part: &Arc<dyn PhysicalExpr>| {
        let call = part.downcast_ref::<ScalarFunctionExpr>();
        Ok(call.is_some_and(|call| call.fun().name() != NUMBER))
    };
    expression.exists(may_count).unwrap_or(true)
}

/// The functions of an aggregate, to be tried on weighted rows.
pub(super) struct FunctionTrial {
    /// The expressions that call functions. What these count is not part of the answer.
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    /// What they count.
    warnings: WarningCounts,
    /// The counts of the aggregate's own calls, which count each row once.
    counted: WarningCounts,
    counts_batches: bool,
    has_failed: bool,
}

impl FunctionTrial {
    /// The functions of an aggregate whose own calls count `counted`, in a context that counts `warnings`.
    pub(super) fn new(
        aggregate: &PartialAggregate,
        counted: WarningCounts,
        warnings: WarningCounts,
        context: &FunctionContext,
    ) -> Result<Self> {
        let mut tried = Vec::new();
        for expression in expressions(aggregate).filter(may_count) {
            let in_context = expression.transform_up(|part| call_in_context(part, context))?;
            if in_context.transformed {
                tried.push(in_context.data);
            }
        }
        Ok(Self {
            counts_batches: tried.iter().any(counts_batches),
            expressions: tried,
            warnings,
            counted,
            has_failed: false,
        })
    }

    /// Whether there is nothing to try.
    pub(super) fn is_trivial(&self) -> bool {
        self.expressions.is_empty()
    }

    /// Whether a function had no result for some row, or it is not known what it counts for each document. Then it is not
    /// tried again.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether the functions may be computed from these batches, which stand for so many documents: their rows are
    /// fewer, and the functions have results for all. Then all but the first document of each row are counted.
    pub(super) fn accepts(&mut self, batches: &[RecordBatch], documents: usize) -> Result<bool> {
        /// Documents per row that make it worth while to compute functions twice.
        const DOCUMENTS_PER_ROW: usize = 4;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if self.is_trivial() {
            return Ok(true);
        }
        if rows.saturating_mul(DOCUMENTS_PER_ROW) > documents {
            return Ok(false);
        }
        let have_results = batches.iter().all(|rows| self.evaluate(rows).is_ok());
        let counted = self.warnings.take();
        self.has_failed = !have_results || counted.has_failures() || (self.counts_batches && !counted.is_empty());
        if !self.has_failed && !counted.is_empty() {
            batches.iter().try_for_each(|rows| self.count_documents(rows))?;
        }
        Ok(!self.has_failed)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<()> {
        let mut expressions = self.expressions.iter();
        expressions.try_for_each(|expression| expression.evaluate(rows).map(drop))
    }

    /// Counts all documents of these rows but the first of each.
    fn count_documents(&self, rows: &RecordBatch) -> Result<()> {
        let documents = rows.column(rows.num_columns() - 1);
        let sorted = take_record_batch(rows, &sort_to_indices(documents, None, None)?)?;
        let documents = sorted.column(rows.num_columns() - 1);
        for Range { start, end } in partition(std::slice::from_ref(documents))?.ranges() {
            let documents = documents.as_primitive::<Int64Type>().value(start);
            if documents > 1 {
                self.evaluate(&sorted.slice(start, end - start))?;
                self.counted
                    .add_for_documents(&self.warnings.take(), 1, documents as u64 - 1);
            }
        }
        Ok(())
    }
}
