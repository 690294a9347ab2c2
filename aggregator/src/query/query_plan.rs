//! The plan of a query: as it is optimized, and as it runs.

use std::sync::Arc;

use datafusion::{
    execution::{TaskContext, runtime_env::RuntimeEnv},
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
    prelude::SessionConfig,
};

/// A plan that is ready to run.
pub(super) struct ExecutablePlan {
    pub physical: Arc<dyn ExecutionPlan>,
    pub task: Arc<TaskContext>,
}

/// A new plan of a query.
pub(super) struct QueryPlan {
    /// After DataFusion's logical rules.
    pub logical: LogicalPlan,
    pub executable: ExecutablePlan,
    /// See [`ResolvedQuery::definitions_hash`](crate::sql::ResolvedQuery).
    pub definitions_hash: u64,
    /// Whether the statement means the same at any time.
    pub repeatable: bool,
    /// Whether it serves other texts than those of the statement: its scans have placeholders for all of them.
    pub has_placeholders: bool,
}

/// The same task with other settings, or another runtime. Plans hold their functions, so it needs none.
pub(super) fn task_with(task: &TaskContext, config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Arc<TaskContext> {
    Arc::new(TaskContext::new(
        task.task_id(),
        task.session_id(),
        config,
        Default::default(),
        Default::default(),
        Default::default(),
        Default::default(),
        runtime,
    ))
}
