//! `rachis dev`: all three roles in one process on one data folder, without Kafka.

use std::{path::PathBuf, sync::Arc};

use aggregator::{AggregatorOptions, Engine, Roles, doors};
use leaf::{Leaf, LeafOptions};
use proto::node::SingleNode;
use tailer::{FileChanges, Tailer, TailerOptions};
use uuid::Uuid;

use crate::{
    cli,
    client::Failure,
    demo, settings,
    settings::Settings,
    shell::{self, Shell},
};

/// The default address.
const LISTEN: &str = "127.0.0.1:7700";

/// Runs until shutdown.
pub(crate) async fn run(arguments: cli::DevArgs) -> Result<(), Failure> {
    let settings = settings::load(arguments.config.as_deref())?;
    let data = arguments.data.map_or_else(default_data, Ok)?;
    let shell = Shell::start(
        &settings.log,
        &data,
        arguments.listen.as_deref().unwrap_or(LISTEN),
        arguments.insecure,
    )
    .await?;
    let instance = shell.folder.claim_for("dev")?;
    let names = settings.http.names();
    let opened = tokio::task::block_in_place(|| DevServer::open(&shell, settings, instance));
    let server = opened?;
    shell.publish_url();
    let demo = (arguments.demo).then(|| tokio::spawn(demo::run(shell.url.clone(), shell.shutdown.clone())));
    let (metrics, shutdown) = (shell.metrics.clone(), shell.shutdown.clone());
    let joined = Arc::new(|| Ok(()));
    let router = doors::router(
        Arc::clone(&server.engine),
        Some(metrics),
        shutdown,
        joined,
        shell::routes()?,
    );
    let close = async move {
        if let Some(demo) = demo {
            let _ = demo.await;
        }
        server.close().await;
    };
    shell.serve(router, names, close).await
}

/// The running roles.
struct DevServer {
    engine: Arc<Engine>,
    tailer: Arc<Tailer>,
    leaf: Arc<Leaf>,
}

impl DevServer {
    fn open(shell: &Shell, settings: Settings, instance: Uuid) -> Result<Self, Failure> {
        let folder = &shell.folder;
        let changes = FileChanges::open(&folder.join("changes"))
            .map_err(|e| Failure::with_cause("cannot open the change log", &e))?;
        let changes: Arc<dyn proto::tailer::Changes> = Arc::new(changes);
        let mut options = LeafOptions::new(folder.join("shards"));
        options.open_files_max = shell.files.shards;
        settings.leaf.apply(&mut options);
        options.snapshots = settings.snapshots.store()?;
        let leaf =
            Leaf::open(options, changes.catalog()).map_err(|e| Failure::with_cause("cannot open the leaf", &e))?;
        tokio::spawn(Leaf::keep_restoring(Arc::downgrade(&leaf), changes.clone()));
        tokio::spawn(Leaf::keep_confirming_runs(Arc::downgrade(&leaf), None, changes.clone()));
        let mut options = TailerOptions::default();
        settings.tailer.apply(&mut options);
        let tailer = Tailer::start(options, ingest(&leaf), changes.clone());
        let mut options = AggregatorOptions::new(folder.join("spill"));
        settings.aggregator.apply(&mut options);
        options.snapshots = settings.snapshots.options(Some(instance))?;
        let nodes = SingleNode {
            url: shell.url.clone(),
            started_ms: shell.started_ms,
            changes: changes.clone(),
        };
        let roles = Roles {
            leaf: leaf.clone(),
            ingest: leaf.clone(),
            pushes: leaf.clone(),
            changes,
            source_admin: tailer.clone(),
            nodes: Arc::new(nodes),
        };
        let engine = Engine::start(roles, options)
            .map_err(|problem| Failure::with_cause("cannot start the query engine", &problem))?;
        Ok(Self { engine, tailer, leaf })
    }

    async fn close(self) {
        // A running query keeps its shards open, and a shard that closes while the process exits would crash it.
        self.engine.close().await;
        self.tailer.shutdown().await;
        self.leaf.close().await;
    }
}

#[cfg(not(feature = "seeded-bugs"))]
fn ingest(leaf: &Arc<Leaf>) -> Arc<dyn proto::ingest::Ingest> {
    leaf.clone()
}

#[cfg(feature = "seeded-bugs")]
fn ingest(leaf: &Arc<Leaf>) -> Arc<dyn proto::ingest::Ingest> {
    Arc::new(crate::duplicate_sender::DuplicateSender(leaf.clone()))
}

/// The default data folder.
pub(crate) fn default_data() -> Result<PathBuf, Failure> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("rachis"))
        .ok_or_else(|| {
            Failure::usage("HOME is not set, so there is no default data folder").hint("choose one with --data")
        })
}
