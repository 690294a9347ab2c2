//! Configures DataFusion: its rules, functions, settings and resource limits. Queries cannot reach files or URLs.

use std::{fs, path::Path, sync::Arc};

use datafusion::{
    catalog::{
        CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
        TableProvider,
    },
    common::ScalarValue,
    config::ConfigOptions,
    execution::{
        SessionState, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    prelude::SessionConfig,
};
use plan::functions;
use proto::{Code, Problem};

use super::{
    aggregate_pushdown::AggregatePushdown,
    common_filter::CommonFilter,
    context::QueryContext,
    distinct_groups::DistinctGroups,
    failure_of::SetFailuresApart,
    forget_constants::ForgetConstants,
    interruptible_planning::InterruptiblePlanning,
    join_filter::{self, JoinFilterPushdown},
    memory::{NodeMemoryPool, QueryPool},
    path_columns::ReadPathsAsColumns,
    shard_scan::QueryScans,
    topk_pushdown::TopKPushdown,
    wide_rows::WatchWideRows,
    yielding::Yielding,
};
use crate::{AggregatorOptions, failure, typing};

/// Least and most target partitions of the operators above the scans: one for each core, between these.
const PARTITIONS: [usize; 2] = [2, 16];
const CATALOG: &str = "rachis";
const SCHEMA: &str = "public";

/// Creates the DataFusion session of each query.
pub(super) struct Sessions {
    template: SessionState,
    runtime: RuntimeEnv,
    query_bytes_max: usize,
    node: NodeMemoryPool,
}

impl Sessions {
    /// Builds the template of all sessions. Creates the spill folder, or empties it.
    pub(super) fn new(options: &AggregatorOptions) -> Result<Self, Problem> {
        empty_folder(&options.spill_folder).map_err(|e| {
            Problem::new(
                Code::Internal,
                format!(
                    "cannot prepare the spill folder {}: {e}",
                    options.spill_folder.display()
                ),
            )
        })?;
        let spill = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![options.spill_folder.clone()]))
            .with_max_temp_directory_size(options.spill_bytes_max);
        let runtime = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(spill)
            .build()
            .map_err(failure::problem)?;
        let mut builder = typing::session()
            .with_config(config(options))
            .with_physical_optimizer_rules(interleave(rules(), || Arc::new(InterruptiblePlanning)));
        if let Some(analyzer) = builder.analyzer() {
            // Once the types are assigned.
            analyzer.rules.insert(1, Arc::new(SetFailuresApart));
            analyzer.rules.insert(2, Arc::new(ReadPathsAsColumns));
            analyzer.rules = interleave(std::mem::take(&mut analyzer.rules), || Arc::new(InterruptiblePlanning));
        }
        if let Some(optimizer) = builder.optimizer() {
            optimizer.rules.insert(0, Arc::new(CommonFilter));
            optimizer.rules.push(Arc::new(ReadPathsAsColumns));
            optimizer.rules.push(Arc::new(DistinctGroups));
            optimizer.rules = interleave(std::mem::take(&mut optimizer.rules), || Arc::new(InterruptiblePlanning));
        }
        let template = builder.build();
        Ok(Self {
            template,
            runtime,
            query_bytes_max: options.query_bytes_max,
            node: Arc::new(GreedyMemoryPool::new(options.queries_bytes_max)),
        })
    }

    /// Creates a session with these tables for a query. Its `now()` is the present.
    pub(super) fn session(
        &self,
        tables: Vec<(String, Arc<dyn TableProvider>)>,
        query: functions::FunctionContext,
    ) -> Result<SessionState, Problem> {
        let schema = MemorySchemaProvider::new();
        for (name, table) in tables {
            schema.register_table(name, table).map_err(failure::problem)?;
        }
        let (catalog, catalogs) = (MemoryCatalogProvider::new(), MemoryCatalogProviderList::new());
        datafusion::catalog::CatalogProvider::register_schema(&catalog, SCHEMA, Arc::new(schema))
            .map_err(failure::problem)?;
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut session = self.template.clone();
        session.register_catalog_list(Arc::new(catalogs));
        *session.config_mut() = self.config(query);
        session.mark_start_execution();
        Ok(session)
    }

    /// The settings of one query, in which its functions find it.
    pub(super) fn config(&self, query: functions::FunctionContext) -> SessionConfig {
        let mut config = self.template.config().clone();
        config.options_mut().extensions.insert(query);
        config
    }

    /// Creates the task context of a plan: the settings of its query, a batch size that fits the plan, what its scans
    /// read, and a memory pool of its own.
    pub(super) fn task(&self, config: SessionConfig, batch_rows: usize, scans: QueryScans) -> Arc<TaskContext> {
        let runtime = self.runtime_of(&scans.context);
        Arc::new(TaskContext::new(
            None,
            self.template.session_id().to_owned(),
            config.with_batch_size(batch_rows).with_extension(Arc::new(scans)),
            // The plan contains its functions.
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            runtime,
        ))
    }

    /// Where a query reserves memory and spills, within its own limits.
    pub(super) fn runtime_of(&self, query: &Arc<QueryContext>) -> Arc<RuntimeEnv> {
        let pool = QueryPool::new(self.query_bytes_max, self.node.clone(), Arc::downgrade(query));
        Arc::new(RuntimeEnv {
            memory_pool: Arc::new(pool),
            ..self.runtime.clone()
        })
    }

    /// The settings of every session.
    pub(super) fn settings(&self) -> &Arc<ConfigOptions> {
        self.template.config_options()
    }
}

fn config(options: &AggregatorOptions) -> SessionConfig {
    let [least, most] = PARTITIONS;
    let cores = std::thread::available_parallelism().map_or(least, usize::from);
    functions::settings()
        .with_target_partitions(cores.clamp(least, most))
        .with_batch_size(functions::constants::BATCH_ROWS)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .set_usize(
            "datafusion.optimizer.hash_join_inlist_pushdown_max_distinct_values",
            join_filter::KEYS_MAX,
        )
        .set_usize(
            "datafusion.optimizer.hash_join_single_partition_threshold_rows",
            options.collected_join_rows_max,
        )
        // Scans ask for a condition once, when these do not know any yet.
        .set_bool("datafusion.optimizer.enable_topk_dynamic_filter_pushdown", false)
        .set_bool("datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown", false)
        // This optimization produces plans that cannot run if their input is sorted.
        .set_bool("datafusion.optimizer.enable_distinct_aggregation_soft_limit", false)
        .set("datafusion.sql_parser.collect_spans", &ScalarValue::from(true))
}

/// Inserts a rule after each of these rules.
fn interleave<R>(rules: Vec<R>, inserted: impl Fn() -> R) -> Vec<R> {
    rules.into_iter().flat_map(|rule| [rule, inserted()]).collect()
}

/// DataFusion's physical rules with ours: pushdowns go where the plan has its final shape but no wrapper hides a scan
/// yet.
fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // It rejects valid plans: it mistakes an order by a constant, or by one column twice, for a missing order.
    rules.retain(|rule| rule.name() != "SanityCheckPlan");
    for rule in &mut rules {
        if rule.name() == "FilterPushdown(Post)" {
            *rule = Arc::new(JoinFilterPushdown(Arc::clone(rule)));
        }
    }
    let at = rules
        .iter()
        .position(|rule| rule.name() == "EnsureCooperative")
        .unwrap_or(rules.len().saturating_sub(1));
    let ours: [Arc<dyn PhysicalOptimizerRule + Send + Sync>; 2] = [Arc::new(AggregatePushdown), Arc::new(TopKPushdown)];
    rules.splice(at..at, ours);
    let last = rules.len().saturating_sub(1);
    rules.insert(last, Arc::new(WatchWideRows));
    rules.insert(last + 1, Arc::new(Yielding));
    rules.insert(0, Arc::new(ForgetConstants));
    rules
}

/// Removes the files of the last run. Only this user may read what queries spill.
fn empty_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?,
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::LogicalPlanBuilder;

    use super::{super::context::cancelled, *};

    #[test]
    fn each_phase_of_planning_ends_when_the_query_must_end() {
        let folder = std::env::temp_dir().join(format!("rachis-session-test-{}", uuid::Uuid::now_v7()));
        let sessions = Sessions::new(&AggregatorOptions::new(&folder)).expect("sessions");
        fs::remove_dir_all(&folder).expect("removed");
        let query = functions::FunctionContext::new(functions::WarningCounts::default(), || Some(cancelled()));
        let session = sessions.session(Vec::new(), query).expect("a session");
        let plan = || LogicalPlanBuilder::empty(true).build().expect("a plan");
        let analyzed = session
            .analyzer()
            .execute_and_check(plan(), session.config_options(), |_, _| {});
        let optimized = session.optimizer().optimize(plan(), &session, |_, _| {});
        for (phase, result) in [("analysis", analyzed), ("optimization", optimized)] {
            assert_eq!(
                result.map(|_| ()).map_err(|error| failure::problem(error).code),
                Err(Code::Cancelled),
                "{phase}"
            );
        }
    }
}
