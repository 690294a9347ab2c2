//! Partial aggregate: DataFusion's aggregate operator over a worker's blocks.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
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
use plan::scan::PartialAggregate;
use proto::{Code, Problem};

use super::{
    TIME_SLICE,
    blocks::{Blocks, Next, ScannedBlock},
    pool::StepOutcome,
};
use crate::error::Error;

/// A worker's partial aggregate.
pub(super) struct Partial {
    states: SendableRecordBatchStream,
    output: SchemaRef,
}

impl Partial {
    /// Over a worker's blocks.
    pub(super) fn new(aggregate: &PartialAggregate, blocks: Blocks, runtime: Arc<RuntimeEnv>) -> Result<Self, Error> {
        let schema = aggregate.input.clone();
        let rows = WorkerRows {
            schema: schema.clone(),
            stream: Mutex::new(Some(RowStream {
                schema: schema.clone(),
                blocks,
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
    slice_end: Option<Instant>,
}

impl RowStream {
    fn batch(&self, block: ScannedBlock) -> DataFusionResult<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(block.documents.len()));
        Ok(RecordBatch::try_new_with_options(
            self.schema.clone(),
            block.arrays,
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
        match self.blocks.next(slice_end) {
            Ok(Next::Block(block)) => Poll::Ready(Some(self.batch(block))),
            Ok(Next::End) => Poll::Ready(None),
            Ok(Next::Pause) => {
                self.slice_end = None;
                Poll::Pending
            }
            Err(problem) => Poll::Ready(Some(Err(DataFusionError::External(Box::new(problem))))),
        }
    }
}

impl RecordBatchStream for RowStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
