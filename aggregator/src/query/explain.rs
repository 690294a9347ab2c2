//! EXPLAIN: the plan as it would run, including the parts pushed down to the leaves. EXPLAIN ANALYZE runs it and adds
//! the metrics of every operator.

use std::sync::Arc;

use datafusion::{
    arrow::array::RecordBatch,
    physical_plan::{display::DisplayableExecutionPlan, execute_stream},
};
use futures::TryStreamExt as _;
use plan::Type;
use proto::Problem;
use serde_json::json;

use super::{
    query_plan::{ExecutablePlan, QueryPlan},
    system::batch,
};
use crate::failure;

/// The logical and the physical plan, a row each.
pub(super) async fn rows(planned: &QueryPlan, analyze: bool) -> Result<RecordBatch, Problem> {
    let logical = ("logical_plan", planned.logical.display_indent().to_string());
    let ExecutablePlan { physical, task } = &planned.executable;
    let physical = match analyze {
        false => (
            "physical_plan",
            DisplayableExecutionPlan::new(physical.as_ref())
                .indent(false)
                .to_string(),
        ),
        true => {
            let mut stream = execute_stream(Arc::clone(physical), Arc::clone(task)).map_err(failure::problem)?;
            while stream.try_next().await.map_err(failure::problem)?.is_some() {}
            (
                "physical_plan_with_metrics",
                DisplayableExecutionPlan::with_metrics(physical.as_ref())
                    .indent(false)
                    .to_string(),
            )
        }
    };
    let rows = [logical, physical].map(|(kind, text)| json!({ "plan_type": kind, "plan": text.trim_end() }));
    batch(&[("plan_type", Type::Text), ("plan", Type::Text)], &rows)
}
