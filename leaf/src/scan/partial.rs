//! Partial aggregate: DataFusion's aggregate operator over a worker's blocks.
//!
//! An aggregate that only counts, all rows or groups by columns, gets one row for many documents where a segment can
//! count them by ordinals. A further column says how many documents a row stands for, and the counts are sums of it:
//! both have the same state.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions},
        compute::concat_batches,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    error::{DataFusionError, Result as DataFusionResult},
    execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext, runtime_env::RuntimeEnv},
    functions_aggregate::sum::sum_udaf,
    physical_expr::{
        PhysicalExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
        expressions::{Column as PhysicalColumn, Literal, col},
    },
    physical_plan::{
        EmptyRecordBatchStream, ExecutionPlan,
        streaming::{PartitionStream, StreamingTableExec},
    },
    prelude::SessionConfig,
};
use futures::{Stream, StreamExt, task::noop_waker_ref};
use parking_lot::Mutex;
use plan::scan::{PartialAggregate, Stage};
use proto::{Code, Problem};

use super::{
    BATCH_ROWS, TIME_SLICE,
    blocks::{Blocks, Next},
    pool::StepOutcome,
    state_cache::{RequestKey, SPLIT_STATES_BYTES_MAX, SplitStates, StateCache},
    task::ScanTask,
};
use crate::{error::Error, split::Groups, view::SegmentView};

/// The column with the number of documents that a row stands for.
const DOCUMENTS: &str = "rachis_documents";

/// A worker's share of a partial aggregate: states that are known, splits that are aggregated one by one, and the rest.
pub(super) struct Shares {
    known: Vec<RecordBatch>,
    splits: Option<Arc<UnknownSplits>>,
    current: Option<SplitShare>,
    /// None if there is nothing else.
    rest: Option<Partial>,
}

/// Splits that are aggregated one by one, so that their states can be kept. The workers of a scan take them in turn.
pub(super) struct UnknownSplits {
    /// The scan of everything else.
    pub scan: Arc<ScanTask>,
    /// The request, as its states are kept.
    pub key: RequestKey,
    /// Where they are kept.
    pub cache: Arc<StateCache>,
    /// The splits that no worker has taken.
    pub waiting: Mutex<Vec<SegmentView>>,
    /// The memory of aggregates.
    pub memory: Arc<RuntimeEnv>,
}

/// A split that is being aggregated.
struct SplitShare {
    split: SegmentView,
    scan: Arc<ScanTask>,
    partial: Partial,
    /// Its states so far; None if they are too large to be kept.
    states: Option<Vec<RecordBatch>>,
    states_bytes: usize,
}

impl Shares {
    /// These states, then a part of these splits, then the rest.
    pub(super) fn new(known: Vec<RecordBatch>, splits: Option<Arc<UnknownSplits>>, rest: Option<Partial>) -> Self {
        Self {
            known,
            splits,
            current: None,
            rest,
        }
    }

    /// Computes the next batch of aggregate states.
    pub(super) fn step(&mut self) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
        if let Some(states) = self.known.pop() {
            return Ok(StepOutcome::Done(Some(states)));
        }
        let Some(splits) = &self.splits else {
            return step_rest(&mut self.rest);
        };
        let Some(share) = &mut self.current else {
            let next = splits.waiting.lock().pop();
            return match next {
                Some(split) => {
                    self.current = Some(SplitShare::new(splits, split)?);
                    Ok(StepOutcome::Again)
                }
                None => step_rest(&mut self.rest),
            };
        };
        let outcome = share.partial.step()?;
        match &outcome {
            StepOutcome::Again => {}
            StepOutcome::Done(Some(states)) => share.add(states, splits),
            StepOutcome::Done(None) => {
                if let Some(share) = self.current.take() {
                    share.finish(splits);
                }
                return Ok(StepOutcome::Again);
            }
        }
        Ok(outcome)
    }
}

fn step_rest(rest: &mut Option<Partial>) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
    rest.as_mut().map_or(Ok(StepOutcome::Done(None)), Partial::step)
}

impl SplitShare {
    fn new(splits: &UnknownSplits, split: SegmentView) -> Result<Self, Error> {
        let scan = Arc::new(splits.scan.of_split(split.clone())?);
        let Stage::Partial(aggregate) = &scan.prepared.request.stage else {
            return Err(Problem::new(Code::Internal, "only the splits of an aggregate are scanned one by one").into());
        };
        let partial = Partial::new(aggregate, Blocks::new(scan.clone(), 0, 1), splits.memory.clone())?;
        Ok(Self {
            split,
            scan,
            partial,
            states: Some(Vec::new()),
            states_bytes: 0,
        })
    }

    fn add(&mut self, states: &RecordBatch, splits: &UnknownSplits) {
        self.states_bytes += states.get_array_memory_size();
        if self.states_bytes > SPLIT_STATES_BYTES_MAX {
            self.states = None;
            splits.cache.refuse(&splits.key);
        }
        self.states.iter_mut().for_each(|kept| kept.push(states.clone()));
    }

    fn finish(self, splits: &UnknownSplits) {
        let stats = self.scan.stats.lock();
        splits.scan.stats.lock().add(&stats);
        if let (Some(counted), Some(states)) = (stats.counted(), self.states) {
            let states = SplitStates {
                deleted: self.split.deleted.clone(),
                states,
                counted,
            };
            splits.cache.keep(&splits.key, &self.split, states);
        }
    }
}

/// An aggregate over the blocks of one scan.
pub(super) struct Partial {
    states: SendableRecordBatchStream,
    output: SchemaRef,
}

impl Partial {
    /// Over a worker's blocks.
    pub(super) fn new(aggregate: &PartialAggregate, blocks: Blocks, runtime: Arc<RuntimeEnv>) -> Result<Self, Error> {
        let counting = counting(aggregate)?;
        let (counts_groups, aggregate) = (counting.is_some(), counting.as_ref().unwrap_or(aggregate));
        let schema = aggregate.input.clone();
        let rows = WorkerRows {
            schema: schema.clone(),
            stream: Mutex::new(Some(RowStream {
                schema: schema.clone(),
                blocks,
                counts_groups,
                // Without any row, a count is 0 and a sum is NULL.
                groups: match counts_groups && aggregate.group_by.is_true_no_grouping() {
                    true => vec![Groups::empty()],
                    false => Vec::new(),
                },
                slice_end: None,
            })),
        };
        let input = StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, [], false, None)?;
        let context = TaskContext::default()
            .with_session_config(SessionConfig::new())
            .with_runtime(runtime);
        Ok(Self {
            states: aggregate.over(Arc::new(input))?.execute(0, Arc::new(context))?,
            output: aggregate.output.clone(),
        })
    }

    /// Computes the next batch of aggregate states.
    pub(super) fn step(&mut self) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
        // The input never waits: pending means that the time slice is used up.
        match self.states.poll_next_unpin(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Pending => Ok(StepOutcome::Again),
            Poll::Ready(None) => Ok(StepOutcome::Done(None)),
            Poll::Ready(Some(states)) => Ok(StepOutcome::Done(Some(with_schema(&states?, &self.output)?))),
        }
    }
}

/// The same aggregate over rows that stand for several documents each. None if it does more than count
/// documents, grouped by columns or not.
pub(super) fn counting(aggregate: &PartialAggregate) -> DataFusionResult<Option<PartialAggregate>> {
    let keys = aggregate.group_by.expr();
    let groups_by_columns = aggregate.group_by.is_single() && keys.iter().all(|(key, _)| key.is::<PhysicalColumn>());
    let only_counts =
        aggregate.aggregates.iter().all(|call| counts_documents(call)) && aggregate.filters.iter().all(Option::is_none);
    // One group of all rows is counted without their values.
    let has_values = keys.is_empty() && !aggregate.input.fields().is_empty();
    if !groups_by_columns || !only_counts || has_values {
        return Ok(None);
    }
    let documents = Arc::new(Field::new(DOCUMENTS, DataType::Int64, false));
    let fields = aggregate.input.fields().iter().cloned().chain([documents]);
    let input = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let sum = AggregateExprBuilder::new(sum_udaf(), vec![col(DOCUMENTS, &input)?])
        .schema(input.clone())
        .alias(DOCUMENTS)
        .build()?;
    let sum = Arc::new(sum);
    Ok(Some(PartialAggregate {
        group_by: aggregate.group_by.clone(),
        aggregates: aggregate.aggregates.iter().map(|_| sum.clone()).collect(),
        filters: aggregate.filters.clone(),
        input,
        output: aggregate.output.clone(),
    }))
}

/// Whether this is `count(*)` or the count of a constant.
fn counts_documents(call: &AggregateFunctionExpr) -> bool {
    let is_constant = |argument: &Arc<dyn PhysicalExpr>| {
        argument
            .downcast_ref::<Literal>()
            .is_some_and(|constant| !constant.value().is_null())
    };
    call.fun().name() == "count" && !call.is_distinct() && call.expressions().iter().all(is_constant)
}

/// The same columns with the planned schema. Different types mean that leaf and planner disagree.
fn with_schema(states: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(states.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), states.columns().to_vec(), &options).map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("the states of an aggregate do not match its plan: {error}"),
        )
        .into()
    })
}

/// A worker's rows as an input of DataFusion; can be executed once.
struct WorkerRows {
    schema: SchemaRef,
    stream: Mutex<Option<RowStream>>,
}

impl fmt::Debug for WorkerRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerRows")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for WorkerRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        match self.stream.lock().take() {
            Some(stream) => Box::pin(stream),
            None => Box::pin(EmptyRecordBatchStream::new(self.schema.clone())),
        }
    }
}

struct RowStream {
    schema: SchemaRef,
    blocks: Blocks,
    /// Whether rows may stand for several documents: the last column says how many.
    counts_groups: bool,
    /// Groups that were counted before the next ones.
    groups: Vec<Groups>,
    slice_end: Option<Instant>,
}

impl RowStream {
    /// The next rows; pending at the end of the time slice.
    fn next_rows(&mut self, slice_end: Instant) -> Result<Poll<Option<RecordBatch>>, Error> {
        if self.counts_groups
            && let Some(batch) = self.next_groups(slice_end)?
        {
            return Ok(Poll::Ready(Some(batch)));
        }
        Ok(match self.blocks.next(slice_end)? {
            Next::Block(block) => {
                let documents = block.documents.len();
                Poll::Ready(Some(self.batch(block.arrays, documents, None)?))
            }
            Next::End => Poll::Ready(None),
            Next::Pause => Poll::Pending,
        })
    }

    /// The next groups. Those of several parts are one batch, which is aggregated faster than many small ones.
    fn next_groups(&mut self, slice_end: Instant) -> Result<Option<RecordBatch>, Error> {
        let mut rows = 0;
        while rows < BATCH_ROWS && (rows == 0 || Instant::now() < slice_end) {
            let Some(groups) = self.blocks.next_groups()? else {
                break;
            };
            rows += groups.iter().map(|groups| groups.documents.len()).sum::<usize>();
            self.groups.extend(groups);
        }
        let batches = std::mem::take(&mut self.groups).into_iter().map(|groups| {
            let Groups { values, documents, .. } = groups;
            self.batch(values, documents.len(), Some(documents))
        });
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        Ok(match batches.is_empty() {
            true => None,
            false => Some(concat_batches(&self.schema, &batches)?),
        })
    }

    fn batch(&self, mut values: Vec<ArrayRef>, rows: usize, documents: Option<Vec<i64>>) -> Result<RecordBatch, Error> {
        if self.counts_groups {
            let documents = documents.unwrap_or_else(|| vec![1; rows]);
            values.push(Arc::new(Int64Array::from(documents)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            self.schema.clone(),
            values,
            &options,
        )?)
    }
}

impl Stream for RowStream {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let slice_end = match self.slice_end {
            Some(end) if end <= Instant::now() => {
                self.slice_end = None;
                return Poll::Pending;
            }
            Some(end) => end,
            None => Instant::now() + TIME_SLICE,
        };
        self.slice_end = Some(slice_end);
        match self.next_rows(slice_end) {
            Ok(Poll::Ready(batch)) => Poll::Ready(batch.map(Ok)),
            Ok(Poll::Pending) => {
                self.slice_end = None;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Some(Err(DataFusionError::External(Box::new(Problem::from(error)))))),
        }
    }
}

impl RecordBatchStream for RowStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
