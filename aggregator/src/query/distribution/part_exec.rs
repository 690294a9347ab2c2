//! The operator at the upper end of a stage: ends it with its query, pauses it, and passes errors on as texts.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

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

use super::{parts::StageOf, stage_pool::Waiting};
use crate::{failure, query::run::panicked};

/// What the text of a problem begins with that another aggregator has sent.
const PROBLEM: &str = "rachis-problem:";

/// What the operators of a stage find in their session.
pub(super) struct StageContext {
    pub(super) query: StageOf,
    /// The runtime without [`StagePool`](super::stage_pool::StagePool), which counts only what is above.
    pub(super) runtime: Arc<RuntimeEnv>,
    pub(super) waiting: Arc<Waiting>,
}

/// Passes the rows of a stage on, until its query must end. Without it, a panic in another aggregator would look like the end
/// of its rows.
#[derive(Debug)]
pub(super) struct PartExec {
    pub(super) input: Arc<dyn ExecutionPlan>,
    /// The rows of a batch below: the plan may have fewer for wide rows.
    pub(super) batch_rows: usize,
}

impl DisplayAs for PartExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartExec: batch_rows={}", self.batch_rows)
    }
}

impl ExecutionPlan for PartExec {
    fn name(&self) -> &str {
        "PartExec"
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
            batch_rows: self.batch_rows,
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// What is below limits its rows already: a limit that is pushed down to here may be one after a sort above.
    fn with_fetch(&self, _: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self {
            input: Arc::clone(&self.input),
            batch_rows: self.batch_rows,
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stage = context.session_config().get_extension::<StageContext>();
        let stage = stage.ok_or_else(|| internal_datafusion_err!("a part of a query runs outside of a stage"))?;
        let below = TaskContext::new(
            context.task_id(),
            context.session_id(),
            context.session_config().clone().with_batch_size(self.batch_rows),
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            Arc::clone(&stage.runtime),
        );
        let rows = self.input.execute(partition, Arc::new(below)).map_err(sendable)?;
        let schema = rows.schema();
        let (listed, ended) = (stage.query.listed(), stage.query.ended());
        let rows = until_ended(rows, ended, Arc::clone(&stage.waiting)).inspect(move |_| {
            let _kept = (&listed, &stage);
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
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

/// An error as one that another aggregator reads as the same problem.
pub(super) fn sendable(error: DataFusionError) -> DataFusionError {
    let problem = failure::problem(error);
    let text = serde_json::to_string(&problem).unwrap_or_default();
    DataFusionError::Execution(format!("{PROBLEM}{text}"))
}

/// The problem in the text of an error, if another aggregator has sent it.
pub(crate) fn sent_problem(text: &str) -> Option<Problem> {
    let (_, json) = text.split_once(PROBLEM)?;
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Problem>();
    values.next()?.ok()
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
}
