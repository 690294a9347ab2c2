//! The operator at both ends of a stage: what leaves it, and what other stages send to it.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use datafusion::{
    arrow::array::RecordBatch,
    common::{internal_datafusion_err, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext, runtime_env::RuntimeEnv},
    physical_expr::PhysicalExpr,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream};
use proto::Problem;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::{parts::StageOf, service::failed_elsewhere, stage_pool::Waiting};
use crate::{
    failure,
    query::{query_plan::task_with, run::panicked},
};

/// What the text of a problem begins with that another aggregator has sent.
const PROBLEM: &str = "rachis-problem:";

/// What the operators of a stage find in their session.
pub(super) struct StageContext {
    pub(super) query: StageOf,
    /// The runtime without [`StagePool`](super::stage_pool::StagePool), which counts only what is above.
    pub(super) runtime: Arc<RuntimeEnv>,
    pub(super) waiting: Arc<Waiting>,
}

/// An end of a stage.
#[derive(Debug)]
pub(super) struct StageExec {
    pub(super) input: Arc<dyn ExecutionPlan>,
    pub(super) end: StageEnd,
}

/// Which end of a stage it is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum StageEnd {
    /// Sends rows until the query ends, and errors as texts. Without it, a panic in another aggregator would look like the
    /// end of its rows.
    Sends {
        /// The rows of a batch below: the plan may have fewer for wide rows.
        batch_rows: usize,
    },
    /// Receives the rows and errors of another stage. If the operator above needs no more rows, it reads and drops the
    /// others: those that one partition left would stop the other partitions, with which it shares a connection.
    Receives,
}

impl DisplayAs for StageExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageExec: {:?}", self.end)
    }
}

impl ExecutionPlan for StageExec {
    fn name(&self) -> &str {
        "StageExec"
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
        let input = children.into_iter().next();
        Ok(Arc::new(Self {
            input: input.unwrap_or_else(|| Arc::clone(&self.input)),
            end: self.end,
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match self.end {
            StageEnd::Sends { batch_rows } => send(&self.input, batch_rows, partition, &context),
            StageEnd::Receives => receive(&self.input, partition, context),
        }
    }
}

fn send(
    input: &Arc<dyn ExecutionPlan>,
    batch_rows: usize,
    partition: usize,
    context: &TaskContext,
) -> Result<SendableRecordBatchStream> {
    let stage = context.session_config().get_extension::<StageContext>();
    let stage = stage.ok_or_else(|| internal_datafusion_err!("a part of a query runs outside of a stage"))?;
    let config = context.session_config().clone().with_batch_size(batch_rows);
    let below = task_with(context, config, Arc::clone(&stage.runtime));
    let rows = input.execute(partition, below).map_err(sendable)?;
    let schema = rows.schema();
    let (listed, ended) = (stage.query.listed(), stage.query.ended());
    let rows = until_ended(rows, ended, Arc::clone(&stage.waiting)).inspect(move |_| {
        let _kept = (&listed, &stage);
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

/// The rows, until they, or the query, end; also a join that has found nothing yet ends with its query. No more are read while
/// much waits.
fn until_ended(
    rows: SendableRecordBatchStream,
    ended: BoxFuture<'static, Problem>,
    waiting: Arc<Waiting>,
) -> impl Stream<Item = Result<RecordBatch>> {
    stream::unfold(Some((rows, ended, waiting)), |state| async move {
        let (mut rows, mut ended, waiting) = state?;
        let next = async {
            waiting.has_room().await;
            AssertUnwindSafe(rows.next()).catch_unwind().await
        };
        let failed = |problem: Problem| Some((Err(sendable(failure::error(problem))), None));
        tokio::select! {
            biased;
            problem = &mut ended => failed(problem),
            next = next => match next {
                Ok(batch) => Some((batch?.map_err(sendable), Some((rows, ended, waiting)))),
                Err(panic) => failed(panicked(panic.as_ref())),
            }
        }
    })
}

fn receive(
    input: &Arc<dyn ExecutionPlan>,
    partition: usize,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let stage = context.session_config().get_extension::<StageContext>();
    let rows = input.execute(partition, context).map_err(received)?;
    let schema = rows.schema();
    let rows = ReadToEnd {
        rows: Some(rows),
        // What the coordinator's own plan leaves unread ends with the query.
        ended: stage.map(|stage| stage.query.ended()),
    };
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

/// Rows of another stage. When it is dropped, a task reads what is left of them, until the query ends.
struct ReadToEnd {
    /// None at the end.
    rows: Option<SendableRecordBatchStream>,
    ended: Option<BoxFuture<'static, Problem>>,
}

impl Stream for ReadToEnd {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else {
            return Poll::Ready(None);
        };
        let next = ready!(rows.poll_next_unpin(context)).map(|batch| batch.map_err(received));
        if !matches!(next, Some(Ok(_))) {
            self.rows = None;
        }
        Poll::Ready(next)
    }
}

impl Drop for ReadToEnd {
    fn drop(&mut self) {
        if let (Some(rows), Some(ended), Ok(runtime)) = (self.rows.take(), self.ended.take(), Handle::try_current()) {
            runtime.spawn(async move {
                let read = rows.take_while(|batch| std::future::ready(batch.is_ok()));
                tokio::select! {
                    _ = ended => {}
                    () = read.for_each(|_| std::future::ready(())) => {}
                }
            });
        }
    }
}

/// An error as one that another aggregator reads as the same problem.
pub(super) fn sendable(error: DataFusionError) -> DataFusionError {
    let problem = failure::problem(error);
    let text = serde_json::to_string(&problem).unwrap_or_default();
    DataFusionError::Execution(format!("{PROBLEM}{text}"))
}

/// The error of a stage, or of the connection to it.
fn received(error: DataFusionError) -> DataFusionError {
    let sent = match error.find_root() {
        DataFusionError::Execution(text) => sent_problem(text),
        _ => None,
    };
    failure::error(sent.unwrap_or_else(|| failed_elsewhere(&error)))
}

/// The problem in the text of an error, if another aggregator has sent it.
pub(crate) fn sent_problem(text: &str) -> Option<Problem> {
    serde_json::from_str(text.strip_prefix(PROBLEM)?).ok()
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::{Schema, SchemaRef},
        execution::memory_pool::GreedyMemoryPool,
    };
    use futures::future;
    use proto::Code;

    use super::*;
    use crate::query::distribution::stage_pool::StagePool;

    fn batch() -> RecordBatch {
        RecordBatch::new_empty(SchemaRef::new(Schema::empty()))
    }

    fn rows(of: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(batch().schema(), of))
    }

    /// A stream that sends a message when it has been read to its end.
    fn counted(of: usize) -> (SendableRecordBatchStream, tokio::sync::oneshot::Receiver<()>) {
        let (read, was_read) = tokio::sync::oneshot::channel();
        let end = stream::once(async move {
            let _ = read.send(());
            Ok(batch())
        });
        (rows(stream::iter(0..of).map(|_| Ok(batch())).chain(end)), was_read)
    }

    fn nothing_waits() -> Arc<Waiting> {
        StagePool::new(Arc::new(GreedyMemoryPool::new(100))).waiting()
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_the_end_of_the_rows() {
        let broken = stream::iter([1, 0]).map(|n| match n {
            0 => panic!("a defect"),
            _ => Ok(batch()),
        });
        let mut rows = std::pin::pin!(until_ended(rows(broken), future::pending().boxed(), nothing_waits()));
        assert!(rows.next().await.is_some_and(|batch| batch.is_ok()));
        let error = rows.next().await.expect("an error").expect_err("an error");
        assert_eq!(failure::problem(error).code, Code::Internal);
        assert!(rows.next().await.is_none());
    }

    #[tokio::test]
    async fn what_finds_nothing_ends_with_its_query_and_says_why() {
        let silent = rows(stream::pending());
        let ended = future::ready(Problem::new(Code::Timeout, "too late")).boxed();
        let mut rows = std::pin::pin!(until_ended(silent, ended, nothing_waits()));
        let error = rows.next().await.expect("an error").expect_err("an error");
        let problem = failure::problem(error);
        assert_eq!((problem.code, problem.detail.as_str()), (Code::Timeout, "too late"));
        assert!(rows.next().await.is_none());
    }

    #[tokio::test]
    async fn what_an_operator_leaves_unread_is_read_until_the_query_ends() {
        for is_polled in [false, true] {
            let (received, was_read) = counted(3);
            let mut received = ReadToEnd {
                rows: Some(received),
                ended: Some(future::pending().boxed()),
            };
            if is_polled {
                assert!(received.next().await.is_some_and(|batch| batch.is_ok()));
            }
            drop(received);
            was_read.await.expect("it was read to its end");
        }
        let (received, was_read) = counted(3);
        drop(ReadToEnd {
            rows: Some(rows(stream::pending().chain(received))),
            ended: Some(future::ready(Problem::new(Code::Cancelled, "")).boxed()),
        });
        assert!(was_read.await.is_err(), "the query has ended, so it was dropped");
    }

    #[test]
    fn a_problem_arrives_as_it_is_and_any_other_error_is_that_of_a_connection() {
        let refused = Problem::new(Code::LimitReached, "too much").hint("less");
        let arrived = failure::problem(received(sendable(failure::error(refused))));
        assert_eq!(
            (arrived.code, arrived.detail.as_str()),
            (Code::LimitReached, "too much")
        );
        assert_eq!(arrived.hint.as_deref(), Some("less"));
        let quoted = DataFusionError::Execution(format!("cannot cast {PROBLEM}{{}}"));
        assert_eq!(failure::problem(received(quoted)).code, Code::Unavailable);
    }
}
