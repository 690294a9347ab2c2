//! `rachis tailer`, `rachis leaf`, `rachis aggregator`: one role as a process. Its peers are in the settings. It keeps
//! a copy of the catalog in its data folder, so that it can start while all peers are down.

use std::{path::Path, sync::Arc, time::Duration};

use aggregator::{AggregatorOptions, Engine, Roles, doors};
use futures::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use leaf::{Leaf, LeafOptions};
use plan::client::RemoteScan;
use proto::{
    Code, Problem,
    client::{
        ingest::RemoteIngest,
        nodes::RemoteNodes,
        tailers::{LoggedPushes, Tailers},
    },
    cluster::{Members, NodeName, Role},
    node::Queries,
    service::node::NodeService,
    tailer::Changes,
    wire::node::node_server::NodeServer,
};
use tailer::{CatalogFile, CatalogReplica, Follower, Tailer, TailerOptions, TopicChanges, service::PushLog};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tracing::{info, warn};

use crate::{
    cli,
    client::Failure,
    dev, settings,
    settings::Settings,
    shell::{self, Shell},
};

/// The default number of shards of a collection that a push creates.
const PUSH_SHARDS: u32 = 4;
/// How long shutdown waits for pushes to reach Kafka.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a role until shutdown.
pub(crate) async fn run(role: Role, arguments: cli::NodeArgs) -> Result<(), Failure> {
    let config = arguments.config.as_deref();
    let settings = settings::load(config)?;
    let members = settings.cluster.members()?;
    let name: NodeName = arguments
        .name
        .parse()
        .map_err(|e: proto::address::Malformed| Failure::usage(e.to_string()))?;
    let member_address = member_address(&members, role, &name, config)?;
    let listen = arguments.listen.unwrap_or_else(|| member_address.clone());
    let data = arguments
        .data
        .map_or_else(|| dev::default_data().map(|folder| folder.join(name.as_str())), Ok)?;
    let shell = Shell::start(&settings.log, &data, &listen, arguments.insecure).await?;
    shell.folder.claim_for(&format!("{} {name}", role.as_str()))?;
    let replica = CatalogFile::new(shell.folder.path())
        .and_then(CatalogReplica::open)
        .map_err(|e| {
            Failure::new(format!("cannot read this node's copy of the catalog: {e}"))
                .hint("move catalog.json out of the data folder; the node fetches it again from its peers")
        })?;
    let node = Node {
        name,
        members,
        replica,
        settings,
        stop: CancellationToken::new(),
    };
    if listen != member_address {
        warn!(
            listen,
            member_address, "this node does not listen on its address in [cluster], where other nodes connect"
        );
    }
    info!(name = %node.name, role = role.as_str(), "starting node");
    let names = node.allowed_hosts();
    let running = match role {
        Role::Leaf => node.leaf(&shell).await?,
        Role::Tailer => node.tailer(&shell)?,
        Role::Aggregator => node.aggregator(&shell)?,
    };
    shell.publish_url();
    running.serve(shell, names).await
}

/// The node's `HOST:PORT` in [cluster].
fn member_address(members: &Members, role: Role, name: &NodeName, config: Option<&Path>) -> Result<String, Failure> {
    if members.nodes.is_empty() {
        let place = config.map_or_else(
            || "there is no settings file".to_owned(),
            |file| format!("{} has none", file.display()),
        );
        return Err(
            Failure::usage(format!("the settings list no nodes: [cluster] is missing ({place})")).hint(
                "--config selects the settings file, which is the same on all nodes; deploy/rachis.toml is a sample",
            ),
        );
    }
    let url = members.nodes.get(&(role, name.clone())).ok_or_else(|| {
        let known: Vec<&str> = members.of(role).map(|(name, _)| name.as_str()).collect();
        let key = settings::members_key(role);
        Failure::usage(format!(
            "`{key}` in [cluster] does not list {name}; it lists {}",
            known.join(", ")
        ))
        .hint(format!("add it to `{key}` on every node"))
    })?;
    Ok(url.trim_start_matches("http://").to_owned())
}

/// A node before it starts its role.
struct Node {
    name: NodeName,
    members: Members,
    replica: Arc<CatalogReplica>,
    settings: Settings,
    stop: CancellationToken,
}

/// A node with a running role.
struct Running {
    router: doors::NodeServer,
    /// Closes the role.
    close: BoxFuture<'static, ()>,
    stop: CancellationToken,
}

impl Running {
    /// Serves until shutdown, then closes the role.
    async fn serve(self, shell: Shell, names: doors::AllowedHosts) -> Result<(), Failure> {
        let close = async move {
            self.close.await;
            self.stop.cancel();
        };
        shell.serve(self.router, names, close).await
    }
}

impl Node {
    /// Hosts to which the node answers besides its own address. Peers on this machine may know each other by the
    /// machine's name, which means loopback here.
    fn allowed_hosts(&self) -> doors::AllowedHosts {
        let members = self
            .members
            .nodes
            .values()
            .filter_map(|url| Some(url.split_once("://")?.1.to_owned()));
        self.settings.http.names().iter().cloned().chain(members).collect()
    }

    async fn leaf(self, shell: &Shell) -> Result<Running, Failure> {
        let changes = self.follow()?;
        let mut options = LeafOptions::new(shell.folder.join("shards"));
        options.open_files_max = shell.files.shards;
        options.node = Some(self.name.clone());
        let Settings { leaf: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        let opened = tokio::task::block_in_place(|| Leaf::open(options, self.replica.catalog()));
        let leaf = opened.map_err(|e| Failure::with_cause("cannot open the leaf", &e))?;
        let mut routes = self.routes(&changes, None, shell)?;
        leaf::service::add(&mut routes, &leaf, &self.replica.catalog());
        let router = doors::status_router(shell.metrics.clone(), shell.shutdown.clone(), self.readiness(), routes);
        Ok(Running {
            router,
            close: async move { leaf.close().await }.boxed(),
            stop: self.stop,
        })
    }

    fn tailer(self, shell: &Shell) -> Result<Running, Failure> {
        let kafka = self.settings.cluster.kafka()?;
        let leaves: Vec<NodeName> = self.members.of(Role::Leaf).map(|(name, _)| name.clone()).collect();
        // While Kafka is down, a tailer learns the catalog from its peers.
        let _follower = self.follow()?;
        let changes = TopicChanges::start(kafka.clone(), self.replica.clone(), leaves, self.stop.clone())
            .map_err(failed("read the change log"))?;
        let shared: Arc<dyn Changes> = Arc::new(changes.clone());
        let remote = RemoteIngest::new(&self.members, self.replica.catalog()).map_err(failed("reach the leaves"))?;
        let mut options = TailerOptions {
            node: Some(self.name.to_string()),
            pushes: Some(kafka.clone()),
            ..TailerOptions::default()
        };
        let Settings { tailer: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        let dropped_kept = options.dropped_kept;
        let tailer = Tailer::start(options, Arc::new(remote), shared.clone());
        let pushes = PushLog::new(kafka, shared.clone()).map_err(failed("reach Kafka"))?;
        tokio::spawn(
            self.stop
                .clone()
                .run_until_cancelled_owned(pushes.clone().delete_dropped(dropped_kept)),
        );
        let mut routes = self.routes(&shared, None, shell)?;
        tailer::service::add(&mut routes, changes, pushes.clone(), tailer.clone());
        let router = doors::status_router(shell.metrics.clone(), shell.shutdown.clone(), self.readiness(), routes);
        let close = async move {
            tailer.shutdown().await;
            let _ = tokio::task::spawn_blocking(move || pushes.flush(FLUSH_TIMEOUT)).await;
        };
        Ok(Running {
            router,
            close: close.boxed(),
            stop: self.stop,
        })
    }

    fn aggregator(self, shell: &Shell) -> Result<Running, Failure> {
        let changes = self.follow()?;
        let leaves = RemoteIngest::new(&self.members, self.replica.catalog()).map_err(failed("reach the leaves"))?;
        let leaf = Arc::new(RemoteScan::new(leaves.clone()));
        let ingest = Arc::new(leaves);
        let tailers = Tailers::new(&self.members, self.replica.catalog()).map_err(failed("reach the tailers"))?;
        let pushes = LoggedPushes::new(tailers.clone(), ingest.clone(), self.replica.catalog());
        let mut options = AggregatorOptions {
            push_shards: PUSH_SHARDS,
            ..AggregatorOptions::new(shell.folder.join("spill"))
        };
        let Settings { aggregator: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        let nodes = RemoteNodes::new(self.name.as_str(), &self.members).map_err(failed("reach the other nodes"))?;
        let roles = Roles {
            leaf,
            ingest,
            pushes: Arc::new(pushes),
            changes: changes.clone(),
            source_admin: Arc::new(tailers),
            nodes: Arc::new(nodes),
        };
        let engine = Engine::new(roles, options).map_err(failed("start the query engine"))?;
        let routes = self.routes(&changes, Some(engine.clone()), shell)?;
        let router = doors::router(engine, Some(shell.metrics.clone()), shell.shutdown.clone(), routes);
        Ok(Running {
            router,
            close: future::ready(()).boxed(),
            stop: self.stop,
        })
    }

    /// Follows the change log through peers.
    fn follow(&self) -> Result<Arc<dyn Changes>, Failure> {
        let follower = Follower::start(self.replica.clone(), &self.name, &self.members, &self.stop)
            .map_err(failed("follow the change log"))?;
        Ok(follower)
    }

    /// The gRPC services of every node: those of every process, and the node service.
    fn routes(
        &self,
        changes: &Arc<dyn Changes>,
        queries: Option<Arc<dyn Queries>>,
        shell: &Shell,
    ) -> Result<RoutesBuilder, Failure> {
        let mut routes = shell::routes()?;
        let node = NodeService {
            started_ms: shell.started_ms,
            state: self.replica.state(),
            changes: changes.clone(),
            queries,
            stop: shell.shutdown.clone(),
        };
        routes.add_service(NodeServer::new(node));
        Ok(routes)
    }

    /// A node is ready once it knows its cluster, and while its change log has no fault.
    fn readiness(&self) -> doors::ReadinessCheck {
        let replica = self.replica.clone();
        Arc::new(move || {
            let health = replica.health();
            match (health.cluster, health.fault) {
                (None, fault) => Err(Problem::new(
                    Code::Unavailable,
                    fault.unwrap_or_else(|| "the change log has not been read yet".to_owned()),
                )),
                (_, Some(fault)) => Err(Problem::new(Code::Unavailable, fault)),
                _ => Ok(()),
            }
        })
    }
}

fn failed(what: &str) -> impl Fn(Problem) -> Failure + '_ {
    move |problem| Failure::with_cause(&format!("cannot {what}"), &problem)
}
