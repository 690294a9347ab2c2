//! How operators of ours travel between aggregators, and whether a plan can travel.

use std::sync::Arc;

use datafusion::{
    common::{
        internal_err,
        tree_node::{Transformed, TransformedResult as _, TreeNodeRecursion},
    },
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_plan::{ExecutionPlan, ExecutionPlanProperties as _, empty::EmptyExec},
};
use datafusion_distributed::NetworkBoundaryExt as _;
use datafusion_proto::{
    bytes::{physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec},
    physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension},
};
use plan::{functions, walk::Walk as _};
use serde::{Deserialize, Serialize};

use super::{
    parts::BATCH_ROWS_MAX,
    stage_exec::{StageEnd, StageExec},
};
use crate::query::{
    forget_constants::{forgetting, is_forgetting},
    wide_rows::Watch,
};

/// An operator of ours, without its input.
#[derive(Serialize, Deserialize)]
enum SentOperator {
    Watch(Watch),
    ForgetConstants,
    Stage(StageEnd),
}

/// Encodes and decodes our operators.
#[derive(Debug)]
pub(super) struct PlanCodec;

impl PhysicalExtensionCodec for PlanCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = inputs else {
            return internal_err!("an operator with {} inputs was sent", inputs.len());
        };
        let operator = serde_json::from_slice(bytes).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let batch_rows = match &operator {
            SentOperator::Watch(watch) => watch.input_batch_rows,
            SentOperator::Stage(StageEnd::Sends { batch_rows }) => *batch_rows,
            SentOperator::Stage(StageEnd::Receives) | SentOperator::ForgetConstants => 1,
        };
        if !(1..=BATCH_ROWS_MAX).contains(&batch_rows) {
            return internal_err!("an operator with batches of {batch_rows} rows was sent");
        }
        let input = Arc::clone(input);
        Ok(match operator {
            SentOperator::Watch(watch) => watch.over(input),
            SentOperator::ForgetConstants => forgetting(input),
            SentOperator::Stage(end) => Arc::new(StageExec { input, end }),
        })
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let operator = if let Some(watch) = Watch::of(node.as_ref()) {
            SentOperator::Watch(watch.clone())
        } else if let Some(stage) = node.downcast_ref::<StageExec>() {
            SentOperator::Stage(stage.end)
        } else if is_forgetting(node.as_ref()) {
            SentOperator::ForgetConstants
        } else {
            return internal_err!("{} cannot be sent to another aggregator", node.name());
        };
        serde_json::to_writer(bytes, &operator).map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

/// Whether what other aggregators are to compute arrives there as it is.
pub(super) fn can_be_sent(staged: &Arc<dyn ExecutionPlan>) -> bool {
    let mut arrives = true;
    let walked = staged.apply(|node| {
        let tasks = node
            .as_network_boundary()
            .map_or(0, |boundary| boundary.input_stage().task_count());
        if tasks > 1
            && let Some(stage) = node.children().first()
        {
            arrives &= sent(stage).is_ok_and(|arrived| {
                arrived.schema() == stage.schema()
                    && arrived.output_ordering() == stage.output_ordering()
                    && fetches(&arrived) == fetches(stage)
            });
        }
        Ok(match arrives {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    });
    arrives && walked.is_ok()
}

/// The limits of the operators of a stage: some are encoded in 32 bits.
fn fetches(stage: &Arc<dyn ExecutionPlan>) -> Vec<usize> {
    let mut fetches = Vec::new();
    let _never_fails = stage.apply(|node| {
        fetches.extend(node.fetch());
        Ok(match node.as_network_boundary() {
            Some(_) => TreeNodeRecursion::Jump,
            None => TreeNodeRecursion::Continue,
        })
    });
    fetches
}

/// A stage as another aggregator decodes it, over empty inputs.
fn sent(stage: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let cut = |node: Arc<dyn ExecutionPlan>| {
        Ok(match node.as_network_boundary() {
            Some(_) => {
                let partitions = node.output_partitioning().partition_count();
                let empty = EmptyExec::new(node.schema()).with_partitions(partitions);
                Transformed::new(Arc::new(empty) as Arc<dyn ExecutionPlan>, true, TreeNodeRecursion::Jump)
            }
            None => Transformed::no(node),
        })
    };
    let stage = Arc::clone(stage).transform_down(cut).data()?;
    let bytes = physical_plan_to_bytes_with_extension_codec(stage, &PlanCodec)?;
    physical_plan_from_bytes_with_extension_codec(&bytes, functions::task_context(), &PlanCodec)
}
