//! Plans a resolved query over its read views.

use std::sync::Arc;

use datafusion::{
    catalog::TableProvider,
    common::{JoinType, tree_node::TreeNodeRecursion},
    datasource::MemTable,
    execution::SessionState,
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    physical_plan::ExecutionPlan,
    prelude::SessionConfig,
    sql::sqlparser::ast,
};
use plan::{
    Path,
    scan::{ScanRequest, ScanStream},
    walk::apply_with_subqueries,
};
use proto::{Code, Problem, ingest::ShardId};

use super::{
    Engine,
    context::QueryContext,
    placeholders::{are_only_in_scans, plan_with_texts, with_placeholders},
    plan_template::{PlanTemplate, only_scan},
    plan_walk::is_repeatable,
    query_plan::{ExecutablePlan, QueryPlan},
    read_views::QueryViews,
    shard_scan::{Answers, QueryScans, ScanValues},
    shard_table::ShardTable,
    statement_shape::StatementValues,
    system, wide_rows,
};
use crate::{
    failure,
    sql::{ResolvedQuery, Table, TableUse},
};

/// An analyzed query, in which every expression has its type. Plans are built on it.
pub(super) struct TypedQuery {
    context: Arc<QueryContext>,
    session: SessionState,
    values: ScanValues,
    /// See [`ResolvedQuery::definitions_hash`].
    pub definitions_hash: u64,
    /// See [`ResolvedQuery::is_relative`].
    is_relative: bool,
    /// Before DataFusion's logical rules.
    pub logical: LogicalPlan,
}

/// Analyzes a query: registers its tables, inserts its parameters, types its expressions and then replaces its texts by
/// placeholders.
pub(super) async fn type_query(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    resolved: ResolvedQuery,
    values: StatementValues,
) -> Result<TypedQuery, Problem> {
    resolved
        .warnings
        .iter()
        .for_each(|warning| context.report.warn(warning));
    let mut tables = Vec::with_capacity(resolved.tables.len());
    for used in &resolved.tables {
        tables.push((used.name.clone(), provider(engine, context, read_views, used).await?));
    }
    let session = engine
        .sessions
        .session(tables, context.for_functions(engine.options.query_bytes_max))?;
    let (definitions_hash, is_relative) = (resolved.definitions_hash, resolved.is_relative);
    let logical = front::logical_plan(&session, resolved.query)
        .await
        .map_err(failure::problem)?;
    let texts = Arc::clone(&values.texts);
    let logical = match values.into_parameters() {
        Some(parameters) => logical.with_param_values(parameters).map_err(failure::problem)?,
        None => logical,
    };
    let logical = session
        .analyzer()
        .execute_and_check(logical, session.config_options(), |_, _| {})
        .and_then(|logical| with_placeholders(logical, &texts))
        .map_err(failure::problem)?;
    Ok(TypedQuery {
        context: Arc::clone(context),
        session,
        values: ScanValues::texts(texts),
        definitions_hash,
        is_relative,
        logical,
    })
}

/// Plans a query. With `rows_max` the plan returns at most one row more.
pub(super) async fn plan(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    resolved: ResolvedQuery,
    values: StatementValues,
    rows_max: Option<usize>,
) -> Result<QueryPlan, Problem> {
    let typed = type_query(engine, context, read_views, resolved, values).await?;
    let logical = match rows_max {
        // The extra row shows that the answer was cut.
        Some(rows_max) => LogicalPlanBuilder::from(typed.logical.clone())
            .limit(0, Some(rows_max.saturating_add(1)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(failure::problem)?,
        None => typed.logical.clone(),
    };
    typed.plan(engine, read_views, logical).await
}

impl TypedQuery {
    /// Optimizes and plans a logical plan that was built on this query.
    pub(super) async fn plan(
        &self,
        engine: &Engine,
        read_views: &QueryViews,
        logical: LogicalPlan,
    ) -> Result<QueryPlan, Problem> {
        let session = &self.session;
        let repeatable = is_repeatable(&logical) && !self.is_relative;
        let logical = session
            .optimizer()
            .optimize(logical, session, |_, _| {})
            .map_err(failure::problem)?;
        let has_placeholders = are_only_in_scans(&logical).map_err(failure::problem)?;
        let logical = match has_placeholders {
            true => logical,
            false => plan_with_texts(logical, &self.values.texts).map_err(failure::problem)?,
        };
        if read_views.first_missing().is_some() && has_rows_by_absence(&logical) {
            return Err(Problem::new(
                Code::Incomplete,
                "shards are missing, and this query returns rows because others are absent \
                 (an outer or anti-join, NOT IN, EXCEPT)",
            )
            .hint("retry; a partial answer would contain wrong rows"));
        }
        let executable = physical_plan(engine, &self.context, read_views, session, &logical, &self.values).await?;
        Ok(QueryPlan {
            logical,
            executable,
            definitions_hash: self.definitions_hash,
            repeatable,
            has_placeholders,
        })
    }
}

/// Plans a query whose logical plan is optimized already, with these values for its scans.
pub(super) async fn plan_optimized(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    logical: &LogicalPlan,
    values: &ScanValues,
) -> Result<ExecutablePlan, Problem> {
    let functions = context.for_functions(engine.options.query_bytes_max);
    let session = engine.sessions.session(Vec::new(), functions)?;
    physical_plan(engine, context, read_views, &session, logical, values).await
}

async fn physical_plan(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    session: &SessionState,
    logical: &LogicalPlan,
    values: &ScanValues,
) -> Result<ExecutablePlan, Problem> {
    let physical = front::physical_plan(session, logical).await.map_err(failure::problem)?;
    let batch_rows = wide_rows::batch_rows(&physical).map_err(failure::problem)?;
    let (config, scans) = (
        session.config().clone(),
        query_scans(context, read_views, values.clone(), Answers::default()),
    );
    Ok(ExecutablePlan {
        physical,
        task: engine.sessions.task(config, batch_rows, scans),
    })
}

/// A plan that was copied from a template for one run. It has no read views yet.
pub(super) struct CopiedPlan {
    physical: Arc<dyn ExecutionPlan>,
    config: SessionConfig,
    batch_rows: usize,
    values: ScanValues,
}

impl CopiedPlan {
    /// Copies a plan, with these values for its scans.
    pub(super) fn new(
        engine: &Engine,
        context: &QueryContext,
        template: &PlanTemplate,
        values: ScanValues,
    ) -> Result<Self, Problem> {
        let config = engine
            .sessions
            .config(context.for_functions(engine.options.query_bytes_max));
        Ok(Self {
            physical: template.plan(config.options(), context).map_err(failure::problem)?,
            config,
            batch_rows: template.batch_rows,
            values,
        })
    }

    /// What it will ask for over all these shards, if it has a single scan.
    pub(super) fn expected_scan(
        &self,
        context: &QueryContext,
        time_path: Option<Path>,
        shards: Vec<ShardId>,
    ) -> Option<ScanRequest> {
        let scan = only_scan(&self.physical)?.with_values(&self.values).ok()?;
        Some(scan.request(context, time_path, shards))
    }

    /// The plan over read views. The answers of its only scan may have been prefetched.
    pub(super) fn over(
        self,
        engine: &Engine,
        context: &Arc<QueryContext>,
        read_views: &QueryViews,
        prefetched: Option<Vec<ScanStream>>,
    ) -> ExecutablePlan {
        let answers = only_scan(&self.physical).zip(prefetched);
        let answers = answers.map_or_else(Answers::default, |(scan, prefetched)| {
            Answers::prefetched(scan, prefetched)
        });
        let scans = query_scans(context, read_views, self.values, answers);
        ExecutablePlan {
            task: engine.sessions.task(self.config, self.batch_rows, scans),
            physical: self.physical,
        }
    }
}

fn query_scans(
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    values: ScanValues,
    answers: Answers,
) -> QueryScans {
    QueryScans {
        context: Arc::clone(context),
        collections: read_views.collections().to_vec(),
        values,
        answers,
    }
}

async fn provider(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    used: &TableUse,
) -> Result<Arc<dyn TableProvider>, Problem> {
    match &used.table {
        Table::Collection { collection, columns } => {
            let opened = read_views
                .collection(collection)
                .ok_or_else(|| super::no_collection(collection, &engine.catalog()))?;
            Ok(Arc::new(ShardTable::new(
                Arc::clone(context),
                Arc::clone(opened),
                columns.clone(),
            )))
        }
        Table::System { schema, name } => {
            let table = system::tables::find(schema, name)
                .ok_or_else(|| Problem::new(Code::NotFound, format!("table {schema}.{name} does not exist")))?;
            let rows = system::rows(engine, context, table).await?;
            let memory = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(failure::problem)?;
            Ok(Arc::new(memory))
        }
    }
}

/// Whether a plan may return rows because others are missing.
fn has_rows_by_absence(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = apply_with_subqueries(plan, &mut |node| {
        if let LogicalPlan::Join(join) = node {
            found |= !matches!(
                join.join_type,
                JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi
            );
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    found || walked.is_err()
}

/// Whether a query limits its rows itself.
pub(super) fn has_limit(query: &ast::Query) -> bool {
    let limited = query.limit_clause.as_ref().is_some_and(|clause| match clause {
        ast::LimitClause::LimitOffset { limit, .. } => limit.is_some(),
        ast::LimitClause::OffsetCommaLimit { .. } => true,
    });
    limited || query.fetch.is_some() || matches!(&*query.body, ast::SetExpr::Query(inner) if has_limit(inner))
}
