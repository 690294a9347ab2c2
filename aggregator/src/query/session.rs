//! How DataFusion is set up: which rules, which functions, what a query may take. Nothing of it reaches files or URLs.

use std::{fs, path::Path, sync::Arc};

use datafusion::{
    catalog::{CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider, TableProvider},
    common::ScalarValue,
    config::ConfigOptions,
    execution::{
        SessionState, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    prelude::SessionConfig,
};
use plan::functions::{self, Notices};
use proto::{Code, Problem};

use super::{failure, memory::QueryPool, push_aggregate::PushAggregate, push_top::PushTop, yielding::Yielding};
use crate::{AggregatorOptions, typing};

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Parts that an operator above the scans is cut into.
const PARTITIONS: usize = 2;
const CATALOG: &str = "rachis";
const SCHEMA: &str = "public";

/// Makes a session for each query.
pub(super) struct Sessions {
    template: SessionState,
    runtime: RuntimeEnv,
    query_bytes_max: usize,
}

impl Sessions {
    /// Sets it up; the spill folder is made, or emptied.
    pub fn new(options: &AggregatorOptions) -> Result<Self, Problem> {
        empty_folder(&options.spill_folder)
            .map_err(|e| Problem::new(Code::Internal, format!("cannot prepare {}: {e}", options.spill_folder.display())))?;
        let spill = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![options.spill_folder.clone()]))
            .with_max_temp_directory_size(options.spill_bytes_max);
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(spill).build().map_err(failure::problem)?;
        let template = typing::session().with_config(config()).with_physical_optimizer_rules(rules()).build();
        Ok(Self { template, runtime, query_bytes_max: options.query_bytes_max })
    }

    /// A session with these tables and the present as its `now()`.
    pub fn session(&self, tables: Vec<(String, Arc<dyn TableProvider>)>, notices: &Notices) -> Result<SessionState, Problem> {
        let schema = MemorySchemaProvider::new();
        for (name, table) in tables {
            schema.register_table(name, table).map_err(failure::problem)?;
        }
        let (catalog, catalogs) = (MemoryCatalogProvider::new(), MemoryCatalogProviderList::new());
        datafusion::catalog::CatalogProvider::register_schema(&catalog, SCHEMA, Arc::new(schema)).map_err(failure::problem)?;
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut session = self.template.clone();
        session.register_catalog_list(Arc::new(catalogs));
        session.config_mut().options_mut().extensions.insert(notices.clone());
        session.mark_start_execution();
        Ok(session)
    }

    /// What a plan runs in: its session's settings, and memory of its own.
    pub fn task(&self, session: &SessionState) -> Arc<TaskContext> {
        let runtime = RuntimeEnv { memory_pool: Arc::new(QueryPool::new(self.query_bytes_max)), ..self.runtime.clone() };
        Arc::new(TaskContext::new(
            None,
            session.session_id().to_owned(),
            session.config().clone(),
            // A plan holds its functions itself.
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            Arc::new(runtime),
        ))
    }

    /// The settings that every session has.
    pub fn settings(&self) -> &Arc<ConfigOptions> {
        self.template.config_options()
    }
}

fn config() -> SessionConfig {
    functions::settings()
        .with_target_partitions(PARTITIONS)
        .with_batch_size(BATCH_ROWS)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        // Over input that has an order it plans what cannot run.
        .set_bool("datafusion.optimizer.enable_distinct_aggregation_soft_limit", false)
        .set("datafusion.sql_parser.collect_spans", &ScalarValue::from(true))
}

/// DataFusion's rules, and ours where the plan has its final shape but nothing hides a scan yet.
fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // It takes an order by a constant, or by one column twice, for a missing order, and refuses the plan.
    rules.retain(|rule| rule.name() != "SanityCheckPlan");
    let at = rules.iter().position(|rule| rule.name() == "EnsureCooperative").unwrap_or(rules.len().saturating_sub(1));
    let ours: [Arc<dyn PhysicalOptimizerRule + Send + Sync>; 2] = [Arc::new(PushAggregate), Arc::new(PushTop)];
    rules.splice(at..at, ours);
    rules.insert(rules.len().saturating_sub(1), Arc::new(Yielding));
    rules
}

/// Only we may look into what queries spill, and nothing is left of the last run.
fn empty_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?,
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}
