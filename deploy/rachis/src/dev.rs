//! `rachis dev`: all three roles in one process on one data folder, no Kafka needed.

use std::{path::PathBuf, sync::Arc};

use aggregator::{AggregatorOptions, Roles, http, query::Engine};
use leaf::{Leaf, LeafOptions};
use proto::node::OnlyNode;
use tailer::{FileChanges, Tailer, TailerOptions};
use tracing::info;

use crate::{
    cli,
    client::Failure,
    demo, settings,
    settings::Settings,
    shell::{self, Shell},
};

/// Where it listens unless told otherwise.
const LISTEN: &str = "127.0.0.1:7700";

/// Runs until it is told to end.
pub async fn run(arguments: cli::Dev) -> Result<(), Failure> {
    let settings = settings::load(arguments.config.as_deref())?;
    let data = arguments.data.map_or_else(default_data, Ok)?;
    let shell = Shell::start(
        &settings.log,
        &data,
        arguments.listen.as_deref().unwrap_or(LISTEN),
        arguments.insecure,
    )
    .await?;
    shell.folder.belongs_to("dev")?;
    let names = settings.http.names();
    let opened = tokio::task::block_in_place(|| House::open(&shell, settings));
    let house = opened?;
    shell.listening();
    let Shell {
        folder,
        listener,
        url,
        metrics,
        shutdown,
        files,
        ..
    } = shell;
    let demo = arguments.demo.then(|| tokio::spawn(demo::run(url, shutdown.clone())));

    let door = http::door(
        Arc::clone(&house.engine),
        Some(metrics),
        shutdown.clone(),
        shell::routes()?,
    );
    let served = http::serve(door, listener, shutdown.clone(), names, files.connections).await;
    shutdown.cancel();
    folder.not_listening();
    if let Some(demo) = demo {
        let _ = demo.await;
    }
    house.close().await;
    info!("closed in order");
    served.map_err(|e| Failure::new(format!("the door failed: {e}")))
}

/// The roles, running.
struct House {
    engine: Arc<Engine>,
    tailer: Arc<Tailer>,
    leaf: Arc<Leaf>,
}

impl House {
    fn open(shell: &Shell, settings: Settings) -> Result<Self, Failure> {
        let folder = &shell.folder;
        let changes =
            FileChanges::open(&folder.join("changes")).map_err(|e| Failure::of("cannot open the change log", &e))?;
        let changes: Arc<dyn proto::tailer::Changes> = Arc::new(changes);
        let mut options = LeafOptions::new(folder.join("shards"));
        options.open_files_max = shell.files.of_shards;
        settings.leaf.apply(&mut options);
        let leaf = Leaf::open(options, changes.catalog()).map_err(|e| Failure::of("cannot open the leaf", &e))?;
        let mut options = TailerOptions::default();
        settings.tailer.apply(&mut options);
        let tailer = Tailer::start(options, ingest(&leaf), changes.clone());
        let mut options = AggregatorOptions::new(folder.join("spill"));
        settings.aggregator.apply(&mut options);
        let nodes = OnlyNode {
            url: shell.url.clone(),
            started_ms: shell.started_ms,
            changes: changes.clone(),
        };
        let roles = Roles {
            leaf: leaf.clone(),
            pushes: leaf.clone(),
            changes,
            tailing: tailer.clone(),
            nodes: Arc::new(nodes),
        };
        let engine =
            Engine::new(roles, options).map_err(|problem| Failure::of("cannot start the query engine", &problem))?;
        Ok(Self { engine, tailer, leaf })
    }

    async fn close(self) {
        // A query that still runs keeps its shards open, and a shard that closes while the process exits ends it by a
        // signal.
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
    Arc::new(crate::overtaking::Overtaking(leaf.clone()))
}

/// Where data lies unless told otherwise.
pub fn default_data() -> Result<PathBuf, Failure> {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    of("XDG_DATA_HOME")
        .or_else(|| of("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("rachis"))
        .ok_or_else(|| Failure::usage("there is no home folder to keep data in").hint("name one with --data"))
}
