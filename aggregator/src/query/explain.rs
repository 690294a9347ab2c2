//! EXPLAIN: the steps of a statement, as a user would tell them. EXPLAIN ANALYZE runs the statement and adds what each
//! step returned, and how each condition was decided. EXPLAIN VERBOSE shows DataFusion's plans instead.

mod expressions;
mod scan;
mod steps;

use std::sync::Arc;

use datafusion::{
    arrow::array::RecordBatch,
    physical_plan::{ExecutionPlan, display::DisplayableExecutionPlan, execute_stream},
};
use futures::TryStreamExt as _;
use plan::Type;
use proto::Problem;
use serde_json::json;

pub(super) use self::scan::ScanSums;
use self::steps::{PlanStep, Shown};
use super::{
    context::QueryContext,
    query_plan::{ExecutablePlan, QueryPlan},
    system::batch,
};
use crate::{failure, sql::ExplainOptions};

/// What the last line of a plan that did not run says.
const ANALYZE_HINT: &str =
    "EXPLAIN ANALYZE runs the statement, and shows how conditions were decided and what was read.";

/// The lines of the plan, a row each; of a verbose plan, a row for the logical and one for the physical plan.
pub(super) async fn rows(
    planned: &QueryPlan,
    context: &QueryContext,
    options: ExplainOptions,
    rows_max: Option<usize>,
) -> Result<RecordBatch, Problem> {
    let ExecutablePlan { physical, task } = &planned.executable;
    if options.analyze {
        let mut stream = execute_stream(Arc::clone(physical), Arc::clone(task)).map_err(failure::problem)?;
        while stream.try_next().await.map_err(failure::problem)?.is_some() {}
    }
    if options.verbose {
        return data_fusion_plans(planned, options.analyze);
    }
    let shown = Shown {
        report: options.analyze.then_some(&context.report),
        rows_max,
    };
    let mut lines = PlanStep::of(physical, &shown).lines();
    if !options.analyze {
        lines.push(ANALYZE_HINT.to_owned());
    }
    let rows: Vec<_> = lines.iter().map(|line| json!({ "plan": line })).collect();
    batch(&[("plan", Type::Text)], &rows)
}

fn data_fusion_plans(planned: &QueryPlan, analyze: bool) -> Result<RecordBatch, Problem> {
    let physical: &dyn ExecutionPlan = planned.executable.physical.as_ref();
    let physical = match analyze {
        false => ("physical_plan", DisplayableExecutionPlan::new(physical)),
        true => (
            "physical_plan_with_metrics",
            DisplayableExecutionPlan::with_metrics(physical),
        ),
    };
    let logical = ("logical_plan", planned.logical.display_indent().to_string());
    let physical = (physical.0, physical.1.indent(false).to_string());
    let rows = [logical, physical].map(|(kind, text)| json!({ "plan_type": kind, "plan": text.trim_end() }));
    batch(&[("plan_type", Type::Text), ("plan", Type::Text)], &rows)
}
