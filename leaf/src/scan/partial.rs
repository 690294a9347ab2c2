//! Partial aggregate: DataFusion's aggregate operator over a worker's blocks.
//!
//! Where a segment can count documents by their values, the operator gets one row for many documents (`weighted.rs`).
//! Where the index knows all results without groups, it gets no row at all (`index_totals.rs`).

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
        datatypes::SchemaRef,
    },
    error::{DataFusionError, Result as DataFusionResult},
    execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext, runtime_env::RuntimeEnv},
    physical_plan::{
        EmptyRecordBatchStream, ExecutionPlan,
        streaming::{PartitionStream, StreamingTableExec},
    },
    prelude::SessionConfig,
};
use futures::{Stream, StreamExt, task::noop_waker_ref};
use parking_lot::Mutex;
use plan::{
    calendar::Interval,
    functions::WarningCounts,
    scan::{PartialAggregate, ScanSource, Stage},
};
use proto::{Code, Problem};

use super::{
    BATCH_ROWS, TIME_SLICE, batch_of,
    blocks::{Blocks, Next},
    index_totals::IndexTotals,
    pool::StepOutcome,
    state_cache::{RequestKey, SPLIT_STATES_BYTES_MAX, SplitStates, StateCache},
    task::ScanTask,
    weighted::{FunctionTrial, WeightedAggregate, calls_function, expressions, with_zero_counts},
};
use crate::{error::Error, split::Groups, view::SegmentView};

/// A worker's share of a partial aggregate: states that are cached, splits that are aggregated one by one, and the rest.
pub(super) struct Shares {
    cached: Vec<RecordBatch>,
    splits: Option<Arc<UncachedSplits>>,
    current: Option<SplitShare>,
    /// None if there is nothing else.
    rest: Option<Partial>,
}

/// Splits that are aggregated one by one, so that their states can be cached. The workers of a scan take them in turn.
pub(super) struct UncachedSplits {
    /// The scan of everything else.
    pub scan: Arc<ScanTask>,
    /// The request's key in the cache.
    pub key: RequestKey,
    /// The cache for their states.
    pub cache: Arc<StateCache>,
    /// The splits that no worker has taken.
    pub queued: Mutex<Vec<SegmentView>>,
    /// The memory of aggregates.
    pub memory: Arc<RuntimeEnv>,
}

/// A split that is being aggregated.
struct SplitShare {
    split: SegmentView,
    scan: Arc<ScanTask>,
    partial: Partial,
    /// Its states so far; None if they are too large to be cached.
    states: Option<Vec<RecordBatch>>,
    states_bytes: usize,
}

impl Shares {
    /// These states, then a part of these splits, then the rest.
    pub(super) fn new(cached: Vec<RecordBatch>, splits: Option<Arc<UncachedSplits>>, rest: Option<Partial>) -> Self {
        Self {
            cached,
            splits,
            current: None,
            rest,
        }
    }

    /// Computes the next batch of aggregate states.
    pub(super) fn step(&mut self) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
        if let Some(states) = self.cached.pop() {
            return Ok(StepOutcome::Done(Some(states)));
        }
        let Some(splits) = &self.splits else {
            return step_rest(&mut self.rest);
        };
        let Some(share) = &mut self.current else {
            let next = splits.queued.lock().pop();
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
    fn new(splits: &UncachedSplits, split: SegmentView) -> Result<Self, Error> {
        let scan = Arc::new(splits.scan.of_split(split.clone())?);
        let Stage::Partial(aggregate) = &scan.prepared.request.stage else {
            return Err(Problem::new(Code::Internal, "only the splits of an aggregate are scanned one by one").into());
        };
        let partial = Partial::new(aggregate, Blocks::new(scan.clone(), 0, 1), splits.memory.clone());
        Ok(Self {
            split,
            scan,
            partial,
            states: Some(Vec::new()),
            states_bytes: 0,
        })
    }

    fn add(&mut self, states: &RecordBatch, splits: &UncachedSplits) {
        self.states_bytes += states.get_array_memory_size();
        if self.states_bytes > SPLIT_STATES_BYTES_MAX {
            self.states = None;
            splits.cache.refuse(&splits.key);
        }
        self.states.iter_mut().for_each(|all| all.push(states.clone()));
    }

    fn finish(self, splits: &UncachedSplits) {
        let stats = self.scan.stats.lock();
        splits.scan.stats.lock().add(&stats);
        if let (Some(counted), Some(states)) = (stats.counted(), self.states) {
            let states = SplitStates {
                deleted: self.split.deleted.clone(),
                states,
                counted,
            };
            splits.cache.put(&splits.key, &self.split, states);
        }
    }
}

/// An aggregate over the blocks of one scan.
pub(super) struct Partial {
    aggregate: Arc<PartialAggregate>,
    /// The results as far as the index knows them, if it may know all of them.
    totals: Option<Arc<Mutex<IndexTotals>>>,
    memory: Arc<RuntimeEnv>,
    progress: Progress,
}

enum Progress {
    /// The index is asked first.
    Index(Blocks),
    /// The operator gets the documents of which it does not know enough.
    Rows(Box<Operator>),
    End,
}

impl Partial {
    /// Over a worker's blocks.
    pub(super) fn new(aggregate: &Arc<PartialAggregate>, blocks: Blocks, memory: Arc<RuntimeEnv>) -> Self {
        let prepared = &blocks.scan.prepared;
        // A scan of raw documents is the oracle, so it computes what it was asked for.
        let totals = match prepared.request.read {
            ScanSource::Auto => IndexTotals::of(aggregate, &prepared.request.columns),
            ScanSource::Raw => None,
        };
        Self {
            aggregate: aggregate.clone(),
            totals: totals.map(|totals| Arc::new(Mutex::new(totals))),
            memory,
            progress: Progress::Index(blocks),
        }
    }

    /// Computes the next batch of aggregate states.
    pub(super) fn step(&mut self) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
        let mut operator = match std::mem::replace(&mut self.progress, Progress::End) {
            Progress::End => return Ok(StepOutcome::Done(None)),
            Progress::Rows(operator) => operator,
            Progress::Index(mut blocks) => {
                let slice_end = Instant::now() + TIME_SLICE;
                if let Some(totals) = &self.totals {
                    if add_totals(totals, &mut blocks, slice_end)?.is_pending() {
                        self.progress = Progress::Index(blocks);
                        return Ok(StepOutcome::Again);
                    }
                    if blocks.are_finished()? {
                        let output = &self.aggregate.output;
                        let states = with_schema(totals.lock().states(output)?, 1, output)?;
                        return Ok(StepOutcome::Done(Some(states)));
                    }
                }
                Box::new(Operator::new(
                    &self.aggregate,
                    blocks,
                    self.totals.clone(),
                    self.memory.clone(),
                )?)
            }
        };
        let outcome = operator.step();
        self.progress = Progress::Rows(operator);
        outcome
    }
}

/// Adds what the index knows of the next documents. Pending at the end of the time slice.
fn add_totals(known: &Mutex<IndexTotals>, blocks: &mut Blocks, slice_end: Instant) -> Result<Poll<()>, Problem> {
    while let Some(totals) = blocks.next_totals()? {
        known.lock().add(&totals);
        if Instant::now() >= slice_end {
            return Ok(Poll::Pending);
        }
    }
    Ok(Poll::Ready(()))
}

/// DataFusion's operator over blocks.
struct Operator {
    states: SendableRecordBatchStream,
    /// Which columns of the states are counts that are computed as sums.
    counts: Vec<usize>,
    /// What the index knows is added to the states.
    totals: Option<Arc<Mutex<IndexTotals>>>,
    output: SchemaRef,
}

impl Operator {
    fn new(
        aggregate: &PartialAggregate,
        blocks: Blocks,
        totals: Option<Arc<Mutex<IndexTotals>>>,
        memory: Arc<RuntimeEnv>,
    ) -> Result<Self, Error> {
        // Functions count with the scan, and end with it.
        let in_context;
        let aggregate = match expressions(aggregate).any(calls_function) {
            true => {
                in_context = aggregate.in_context(&blocks.scan.functions)?;
                &in_context
            }
            false => aggregate,
        };
        // See `Partial::new`.
        let weighted = match blocks.scan.prepared.request.read {
            ScanSource::Auto => WeightedAggregate::of(aggregate)?,
            ScanSource::Raw => None,
        };
        let running = weighted.as_ref().map_or(aggregate, |weighted| &weighted.aggregate);
        let trial = match &weighted {
            Some(weighted) => {
                let warnings = WarningCounts::default();
                let context = blocks.scan.function_context(warnings.clone());
                let counted = blocks.scan.functions.warnings.clone();
                Some(FunctionTrial::new(&weighted.aggregate, counted, warnings, &context)?)
            }
            None => None,
        };
        let schema = running.input.clone();
        let rows = WorkerRows {
            schema: schema.clone(),
            stream: Mutex::new(Some(RowStream {
                schema: schema.clone(),
                blocks,
                totals: totals.clone(),
                trial,
                interval: weighted.as_ref().and_then(|weighted| weighted.interval),
                groups: Vec::new(),
                slice_end: None,
            })),
        };
        let input = StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, [], false, None)?;
        let context = TaskContext::default()
            .with_session_config(SessionConfig::new())
            .with_runtime(memory);
        Ok(Self {
            states: running.over(Arc::new(input))?.execute(0, Arc::new(context))?,
            counts: weighted.map_or(Vec::new(), |weighted| weighted.counts),
            totals,
            output: aggregate.output.clone(),
        })
    }

    fn step(&mut self) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
        // The input never waits: pending means that the time slice is used up.
        match self.states.poll_next_unpin(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Pending => Ok(StepOutcome::Again),
            Poll::Ready(None) => Ok(StepOutcome::Done(None)),
            Poll::Ready(Some(states)) => {
                let states = states?;
                let columns = with_zero_counts(&states, &self.counts);
                let states = with_schema(columns, states.num_rows(), &self.output)?;
                let states = match &self.totals {
                    Some(totals) => with_schema(totals.lock().add_to(&states)?, states.num_rows(), &self.output)?,
                    None => states,
                };
                Ok(StepOutcome::Done(Some(states)))
            }
        }
    }
}

/// States with the planned schema. Different types mean that leaf and planner disagree.
fn with_schema(columns: Vec<ArrayRef>, rows: usize, schema: &SchemaRef) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| {
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
    /// What the index knows of the results.
    totals: Option<Arc<Mutex<IndexTotals>>>,
    /// The functions of the aggregate, if rows may stand for several documents: the last column says how many.
    trial: Option<FunctionTrial>,
    /// See [`WeightedAggregate::interval`].
    interval: Option<Interval>,
    /// Groups that come next, last first.
    groups: Vec<RecordBatch>,
    slice_end: Option<Instant>,
}

impl RowStream {
    /// The next rows; pending at the end of the time slice.
    fn next_rows(&mut self, slice_end: Instant) -> Result<Poll<Option<RecordBatch>>, Error> {
        if let Some(known) = &self.totals
            && add_totals(known, &mut self.blocks, slice_end)?.is_pending()
        {
            return Ok(Poll::Pending);
        }
        if let Some(batch) = self.next_groups(slice_end)? {
            return Ok(Poll::Ready(Some(batch)));
        }
        Ok(match self.blocks.next(slice_end)? {
            Next::Block(block) => {
                let rows = block.documents.len();
                let mut columns = block.arrays;
                if self.trial.is_some() {
                    columns.push(Arc::new(Int64Array::from(vec![1; rows])));
                }
                Poll::Ready(Some(batch_of(&self.schema, columns, rows)?))
            }
            Next::End => Poll::Ready(None),
            Next::Pause => Poll::Pending,
        })
    }

    /// The next groups. Those of several parts are one batch, which is aggregated faster than many small ones, unless
    /// functions were tried: they are computed from just the batches for which they had results.
    fn next_groups(&mut self, slice_end: Instant) -> Result<Option<RecordBatch>, Error> {
        let Some(trial) = &mut self.trial else { return Ok(None) };
        if let Some(groups) = self.groups.pop() {
            return Ok(Some(groups));
        }
        let (mut batches, mut rows) = (Vec::new(), 0);
        while rows < BATCH_ROWS && (rows == 0 || Instant::now() < slice_end) && !trial.has_failed() {
            let accept = |groups: Vec<Groups>, documents: usize| {
                let groups = slices(&batch_of_groups(&self.schema, groups)?);
                Ok(trial.accepts(&groups, documents)?.then_some(groups))
            };
            let Some(groups) = self.blocks.next_groups(self.interval, accept)? else {
                break;
            };
            rows += groups.iter().map(RecordBatch::num_rows).sum::<usize>();
            batches.extend(groups);
            if !trial.is_trivial() {
                break;
            }
        }
        if trial.is_trivial() && !batches.is_empty() {
            return Ok(Some(concat_batches(&self.schema, &batches)?));
        }
        batches.reverse();
        self.groups = batches;
        Ok(self.groups.pop())
    }
}

/// Parts of a batch that have no more rows than a batch of documents.
fn slices(groups: &RecordBatch) -> Vec<RecordBatch> {
    let rows = groups.num_rows();
    let slice = |from: usize| groups.slice(from, BATCH_ROWS.min(rows - from));
    (0..rows).step_by(BATCH_ROWS).map(slice).collect()
}

/// Groups as rows, with the number of documents of each as the last column.
fn batch_of_groups(schema: &SchemaRef, groups: Vec<Groups>) -> Result<RecordBatch, Error> {
    let batches = groups.into_iter().map(|groups| {
        let Groups {
            mut values, documents, ..
        } = groups;
        let rows = documents.len();
        values.push(Arc::new(Int64Array::from(documents)));
        batch_of(schema, values, rows)
    });
    Ok(concat_batches(schema, &batches.collect::<Result<Vec<_>, _>>()?)?)
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
