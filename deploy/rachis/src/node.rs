//! `rachis tailer`, `rachis leaf`, `rachis aggregator`: one role as a process. Its peers are in the settings; what it
//! knows of the catalog it keeps in its folder, so that it starts while everybody else is away.

use std::{sync::Arc, time::Duration};

use aggregator::{AggregatorOptions, Roles, http, query::Engine};
use leaf::{Leaf, LeafOptions};
use plan::client::RemoteLeaves;
use proto::{
    Code, Problem,
    client::{
        copy::Copy,
        follower::{Follower, Known},
        leaves::Leaves,
        nodes::RemoteNodes,
        tailers::{LoggedPushes, Tailers},
    },
    cluster::{Members, NodeName, Role},
    node::Queries,
    service::node::NodeService,
    tailer::Changes,
    wire::node::node_server::NodeServer,
};
use tailer::{Tailer, TailerOptions, changes::topic::TopicChanges, service::PushLog};
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

/// Shards of a collection that a push creates, unless the settings say otherwise.
const PUSH_SHARDS: u32 = 4;
/// How long pushes on their way to Kafka may take once everything closes.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// Runs a role until it is told to end.
pub async fn run(role: Role, arguments: cli::Node) -> Result<(), Failure> {
    let settings = settings::load(arguments.config.as_deref())?;
    let members = settings.cluster.members()?;
    let name: NodeName = arguments
        .name
        .parse()
        .map_err(|e: proto::address::Malformed| Failure::usage(e.to_string()))?;
    if members.nodes.is_empty() {
        let place = arguments.config.as_deref().map_or_else(
            || "there is no file of settings".to_owned(),
            |file| format!("{} has none", file.display()),
        );
        return Err(
            Failure::usage(format!("no cluster is described: [cluster] is missing ({place})"))
                .hint("--config names the file that all nodes have; deploy/rachis.toml is a sample"),
        );
    }
    let url = members.nodes.get(&(role, name.clone())).ok_or_else(|| {
        let known: Vec<&str> = members.of(role).map(|(name, _)| name.as_str()).collect();
        let plural = settings::members_key(role);
        Failure::usage(format!(
            "{name} is none of the {plural} in [cluster]: {}",
            known.join(", ")
        ))
        .hint(format!("add it to `{plural}`, on every node"))
    })?;
    let told = url.trim_start_matches("http://").to_owned();
    let listen = arguments.listen.unwrap_or_else(|| told.clone());
    let data = arguments
        .data
        .map_or_else(|| dev::default_data().map(|folder| folder.join(name.as_str())), Ok)?;
    let shell = Shell::start(&settings.log, &data, &listen, arguments.insecure).await?;
    shell.folder.belongs_to(&format!("{} {name}", role.word()))?;
    let known = Copy::new(shell.folder.path()).and_then(Known::open).map_err(|e| {
        Failure::new(format!("the copy of the catalog does not read: {e}"))
            .hint("move catalog.json away; peers give it again")
    })?;
    let node = Node {
        name,
        role,
        members,
        known,
        settings,
        stop: CancellationToken::new(),
    };
    if listen != told {
        warn!(
            listen,
            told,
            "the others look for this node at the address that [cluster] has for it, which is not where it listens"
        );
    }
    info!(name = %node.name, role = role.word(), "node");
    // Peers on this machine may know each other by the machine's name, which means loopback here.
    let members = node
        .members
        .nodes
        .values()
        .filter_map(|url| Some(url.split_once("://")?.1.to_owned()));
    let names = node.settings.http.names().iter().cloned().chain(members).collect();
    let running = match role {
        Role::Leaf => node.leaf(&shell).await?,
        Role::Tailer => node.tailer(&shell)?,
        Role::Aggregator => node.aggregator(&shell)?,
    };
    shell.listening();
    let Shell {
        folder,
        listener,
        shutdown,
        files,
        ..
    } = shell;
    let served = http::serve(running.door, listener, shutdown.clone(), names, files.connections).await;
    shutdown.cancel();
    folder.not_listening();
    for close in running.close {
        close.await;
    }
    running.stop.cancel();
    info!("closed in order");
    served.map_err(|e| Failure::new(format!("the door failed: {e}")))
}

/// What a node is made of before it has a role.
struct Node {
    name: NodeName,
    role: Role,
    members: Members,
    known: Arc<Known>,
    settings: Settings,
    stop: CancellationToken,
}

/// A node that is served.
struct Running {
    door: http::Door,
    /// In this order, once nobody new is let in.
    close: Vec<futures::future::BoxFuture<'static, ()>>,
    stop: CancellationToken,
}

impl Node {
    async fn leaf(self, shell: &Shell) -> Result<Running, Failure> {
        let changes = self.follow()?;
        let mut options = LeafOptions::new(shell.folder.join("shards"));
        options.open_files_max = shell.files.of_shards;
        options.node = Some(self.name.clone());
        let Settings { leaf: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        let opened = tokio::task::block_in_place(|| Leaf::open(options, self.known.catalog()));
        let leaf = opened.map_err(|e| Failure::of("cannot open the leaf", &e))?;
        let mut routes = self.routes(&changes, None, shell)?;
        leaf::service::add(&mut routes, &leaf, &self.known.catalog());
        let door = http::status_door(shell.metrics.clone(), shell.shutdown.clone(), self.readiness(), routes);
        Ok(Running {
            door,
            close: vec![Box::pin(async move { leaf.close().await })],
            stop: self.stop,
        })
    }

    fn tailer(self, shell: &Shell) -> Result<Running, Failure> {
        let kafka = self.settings.cluster.kafka()?;
        let leaves: Vec<NodeName> = self.members.of(Role::Leaf).map(|(name, _)| name.clone()).collect();
        // A tailer whose Kafka is away learns from its peers what was agreed on.
        let _followed = self.follow()?;
        let changes = TopicChanges::start(kafka.clone(), self.known.clone(), leaves, self.stop.clone())
            .map_err(failed("read the change log"))?;
        let shared: Arc<dyn Changes> = Arc::new(changes.clone());
        let remote = Leaves::new(&self.members, self.known.catalog()).map_err(failed("reach the leaves"))?;
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
                .run_until_cancelled_owned(pushes.clone().remove_dropped(dropped_kept)),
        );
        let mut routes = self.routes(&shared, None, shell)?;
        tailer::service::add(&mut routes, changes, pushes.clone(), tailer.clone());
        let door = http::status_door(shell.metrics.clone(), shell.shutdown.clone(), self.readiness(), routes);
        let close = Box::pin(async move {
            tailer.shutdown().await;
            let _ = tokio::task::spawn_blocking(move || pushes.flush(FLUSH_WAIT)).await;
        });
        Ok(Running {
            door,
            close: vec![close],
            stop: self.stop,
        })
    }

    fn aggregator(self, shell: &Shell) -> Result<Running, Failure> {
        let changes = self.follow()?;
        let leaves = Leaves::new(&self.members, self.known.catalog()).map_err(failed("reach the leaves"))?;
        let leaf = Arc::new(RemoteLeaves::new(leaves));
        let tailers = Tailers::new(&self.members, self.known.catalog()).map_err(failed("reach the tailers"))?;
        let pushes = Arc::new(LoggedPushes::new(tailers.clone(), leaf.clone(), self.known.catalog()));
        let mut options = AggregatorOptions {
            push_shards: PUSH_SHARDS,
            ..AggregatorOptions::new(shell.folder.join("spill"))
        };
        let Settings { aggregator: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        let nodes = RemoteNodes::new(self.name.as_str(), &self.members).map_err(failed("reach the other nodes"))?;
        let roles = Roles {
            leaf,
            pushes,
            changes: changes.clone(),
            tailing: Arc::new(tailers),
            nodes: Arc::new(nodes),
        };
        let engine = Engine::new(roles, options).map_err(failed("start the query engine"))?;
        let routes = self.routes(&changes, Some(engine.clone()), shell)?;
        let door = http::door(engine, Some(shell.metrics.clone()), shell.shutdown.clone(), routes);
        Ok(Running {
            door,
            close: Vec::new(),
            stop: self.stop,
        })
    }

    /// The change log, from peers.
    fn follow(&self) -> Result<Arc<dyn Changes>, Failure> {
        let follower = Follower::start(self.known.clone(), &self.name, &self.members, &self.stop)
            .map_err(failed("follow the change log"))?;
        Ok(follower)
    }

    /// What every node serves: its catalog, besides what every process serves.
    fn routes(
        &self,
        changes: &Arc<dyn Changes>,
        queries: Option<Arc<dyn Queries>>,
        shell: &Shell,
    ) -> Result<RoutesBuilder, Failure> {
        let mut routes = shell::routes()?;
        let node = NodeService {
            name: self.name.clone(),
            role: self.role,
            started_ms: shell.started_ms,
            state: self.known.state(),
            changes: changes.clone(),
            queries,
            stop: shell.shutdown.clone(),
        };
        routes.add_service(NodeServer::new(node));
        Ok(routes)
    }

    /// A node is ready once it knows its cluster, and while it sees nothing wrong with the change log.
    fn readiness(&self) -> http::Ready {
        let known = self.known.clone();
        Arc::new(move || {
            let health = known.health();
            match (health.cluster, health.trouble) {
                (None, trouble) => Err(Problem::new(
                    Code::Unavailable,
                    trouble.unwrap_or_else(|| "the change log was not read yet".to_owned()),
                )),
                (_, Some(trouble)) => Err(Problem::new(Code::Unavailable, trouble)),
                _ => Ok(()),
            }
        })
    }
}

fn failed(what: &str) -> impl Fn(Problem) -> Failure + '_ {
    move |problem| Failure::of(&format!("cannot {what}"), &problem)
}
