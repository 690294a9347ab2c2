//! `rachis tailer`, `rachis leaf`, `rachis aggregator`: one role as a process. The settings name the Kafka of the cluster,
//! and the catalog the other members. It keeps a copy of the catalog in its data folder, so that it can start while all
//! others are down.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aggregator::{AggregatorOptions, DistributionOptions, Engine, Roles, doors};
use futures::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use leaf::{Leaf, LeafOptions, ReplicaLinks};
use plan::client::RemoteScan;
use proto::{
    Catalog, Code, Problem,
    catalog::{Collection, ReplicaState},
    client::{
        ingest::RemoteIngest,
        nodes::RemoteNodes,
        peers::Peers,
        tailers::{LoggedPushes, Tailers},
    },
    cluster::{Member, NodeName, Role},
    node::Queries,
    service::node::NodeService,
    tailer::Changes,
    wire::node::node_server::NodeServer,
};
use tailer::{
    CatalogFile, CatalogReplica, ClusterKafka, Follower, Tailer, TailerOptions, TopicChanges, service::PushLog,
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tracing::{error, info};

use crate::{
    cli,
    client::Failure,
    dev,
    member::{self, Membership},
    settings,
    settings::Settings,
    shell::{self, Shell},
};

/// The default number of shards of a collection that a push creates.
const PUSH_SHARDS: u32 = 4;
/// How long shutdown waits for pushes to reach Kafka.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long replicas that have to catch up keep their leaf from being ready.
const CATCH_UP_MAX: Duration = Duration::from_mins(15);

/// The address to listen on, unless the user chooses another.
const LISTEN: &str = "127.0.0.1:7700";

/// Runs a role until shutdown.
pub(crate) async fn run(role: Role, arguments: cli::NodeArgs) -> Result<(), Failure> {
    let settings = settings::load(arguments.config.as_deref())?;
    let kafka = settings.cluster.kafka()?;
    let name = arguments.name.as_ref().or(settings.node.name.as_ref()).ok_or_else(|| {
        Failure::usage("this node has no name").hint("give it one that no other node has: --name, or name in [node]")
    })?;
    let name: NodeName = name
        .parse()
        .map_err(|e: proto::address::Malformed| Failure::usage(e.to_string()))?;
    let listen = arguments.listen.as_deref().unwrap_or(LISTEN);
    let data = arguments
        .data
        .map_or_else(|| dev::default_data().map(|folder| folder.join(name.as_str())), Ok)?;
    let shell = Shell::start(&settings.log, &data, listen, arguments.insecure).await?;
    let instance = shell.folder.claim_for(&format!("{role} {name}"))?;
    let address = arguments.address.or_else(|| settings.node.address.clone());
    let member = Member {
        // Kubernetes sets a variable to nothing if it does not know the zone.
        zone: settings.node.zone.clone().filter(|zone| !zone.is_empty()),
        capacity: settings.node.capacity.unwrap_or(1),
        ..Member::new(role, url_for_others(address.as_deref(), &shell)?, instance)
    };
    if let Some(fault) = member.fault() {
        return Err(Failure::usage(fault).hint("set --address HOST:PORT, and zone and capacity in [node]"));
    }
    let replica = CatalogFile::new(shell.folder.path())
        .and_then(CatalogReplica::open)
        .map_err(|e| {
            Failure::new(format!("cannot read this node's copy of the catalog: {e}"))
                .hint("move catalog.json out of the data folder; the node fetches it again from its peers")
        })?;
    let stop = CancellationToken::new();
    let node = Node {
        follower: Follower::start(replica.clone(), &name, &stop),
        name,
        member,
        kafka,
        replica,
        settings,
        stop,
    };
    info!(name = %node.name, %role, url = node.member.url, "starting node");
    let names = node.allowed_hosts();
    let running = match role {
        Role::Leaf => node.leaf(&shell).await?,
        Role::Tailer => node.tailer(&shell)?,
        Role::Aggregator => node.aggregator(&shell)?,
    };
    shell.publish_url();
    let instance = running.membership.member.instance;
    let running = Running {
        router: doors::refuse_calls_to_others(running.router, instance),
        ..running
    };
    running.serve(shell, names).await
}

/// The URL at which other nodes reach this one.
fn url_for_others(address: Option<&str>, shell: &Shell) -> Result<String, Failure> {
    if let Some(address) = address {
        return Ok(format!("http://{address}"));
    }
    match shell.bound.ip().is_unspecified() {
        false => Ok(format!("http://{}", shell.bound)),
        true => Err(Failure::usage(format!(
            "this node listens on all addresses ({}), so it cannot tell others where it is",
            shell.bound
        ))
        .hint("set --address HOST:PORT, at which the other nodes reach it")),
    }
}

/// A node before it starts its role.
struct Node {
    name: NodeName,
    member: Member,
    kafka: ClusterKafka,
    replica: Arc<CatalogReplica>,
    /// Follows the change log through the other members.
    follower: Arc<Follower>,
    settings: Settings,
    stop: CancellationToken,
}

/// A node with a running role.
struct Running {
    router: doors::NodeServer,
    /// Announces the node.
    membership: Membership,
    /// Closes the role.
    close: BoxFuture<'static, ()>,
    stop: CancellationToken,
}

impl Running {
    /// Serves until shutdown, or until the node cannot be a member. Then closes the role.
    async fn serve(self, shell: Shell, names: doors::AllowedHosts) -> Result<(), Failure> {
        let close = async move {
            self.close.await;
            self.stop.cancel();
        };
        let shutdown = shell.shutdown.clone();
        let excluded = async {
            tokio::select! {
                failure = self.membership.keep() => {
                    // The log has it too: the exit message of a service is easily missed.
                    error!(why = %failure, "this node cannot be a member of the cluster: shutting down");
                    shutdown.cancel();
                    Err(failure)
                }
                () = shutdown.cancelled() => Ok(()),
            }
        };
        let (served, excluded) = tokio::join!(shell.serve(self.router, names, close), excluded);
        excluded.and(served)
    }
}

impl Node {
    /// Hosts to which the node answers. Others on this machine may know it by the machine's name, which means loopback
    /// here.
    fn allowed_hosts(&self) -> doors::AllowedHosts {
        let own = self.member.url.split_once("://").map(|(_, host)| host.to_owned());
        self.settings.http.names().iter().cloned().chain(own).collect()
    }

    /// The node as a member, which proposes through `changes`.
    fn membership(&self, changes: &Arc<dyn Changes>, shell: &Shell) -> Membership {
        Membership {
            folder: shell.folder.mark(),
            name: self.name.clone(),
            member: self.member.clone(),
            changes: changes.clone(),
            replica: self.replica.clone(),
            has_snapshots: self.settings.snapshots.is_set(),
        }
    }

    async fn leaf(self, shell: &Shell) -> Result<Running, Failure> {
        let changes = self.follow();
        let mut options = LeafOptions::new(shell.folder.join("shards"));
        options.open_files_max = shell.files.shards;
        options.node = Some(self.name.clone());
        let Settings { leaf: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        options.snapshots = self.settings.snapshots.store()?;
        let opened = tokio::task::block_in_place(|| Leaf::open(options, self.replica.catalog()));
        let leaf = opened.map_err(|e| Failure::with_cause("cannot open the leaf", &e))?;
        let links = ReplicaLinks {
            name: self.name.clone(),
            instance: self.member.instance,
            peers: Arc::new(Peers::new(self.replica.catalog())),
            changes: changes.clone(),
        };
        let own = (links.name.clone(), links.instance);
        let confirming = Leaf::keep_confirming_runs(Arc::downgrade(&leaf), Some(own), changes.clone());
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(confirming));
        let keeping = Leaf::keep_replicas(Arc::downgrade(&leaf), links);
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(keeping));
        let mut routes = self.routes(&changes, None, shell)?;
        leaf::service::add(&mut routes, &leaf, &self.replica.catalog());
        let ready = self.leaf_readiness();
        let router = doors::status_router(shell.metrics.clone(), shell.shutdown.clone(), ready, routes);
        Ok(Running {
            router,
            membership: self.membership(&changes, shell),
            close: async move { leaf.close().await }.boxed(),
            stop: self.stop,
        })
    }

    fn tailer(self, shell: &Shell) -> Result<Running, Failure> {
        // While Kafka is down, its follower learns the catalog from the other members.
        let kafka = self.kafka.clone();
        let changes = TopicChanges::start(
            kafka.clone(),
            self.replica.clone(),
            self.follower.clone(),
            self.settings.cluster.replicas()?,
            self.stop.clone(),
        )
        .map_err(failed("read the change log"))?;
        let shared: Arc<dyn Changes> = Arc::new(changes.clone());
        let remote = RemoteIngest::new(Peers::new(self.replica.catalog()));
        let mut options = TailerOptions {
            node: Some(self.name.to_string()),
            pushes: Some(kafka.clone()),
            ..TailerOptions::default()
        };
        let Settings { tailer: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        let (dropped_kept, absent_kept) = (options.dropped_kept, options.absent_kept);
        let tailer = Tailer::start(options, Arc::new(remote), shared.clone());
        let pushes = PushLog::new(kafka, shared.clone()).map_err(failed("reach Kafka"))?;
        tokio::spawn(
            self.stop
                .clone()
                .run_until_cancelled_owned(pushes.clone().delete_dropped(dropped_kept)),
        );
        let removing = member::remove_absent(self.follower.clone(), shared.clone(), absent_kept);
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(removing));
        let mut routes = self.routes(&shared, None, shell)?;
        tailer::service::add(&mut routes, changes, pushes.clone(), tailer.clone());
        let router = doors::status_router(shell.metrics.clone(), shell.shutdown.clone(), self.readiness(), routes);
        let close = async move {
            tailer.shutdown().await;
            let _ = tokio::task::spawn_blocking(move || pushes.flush(FLUSH_TIMEOUT)).await;
        };
        Ok(Running {
            router,
            membership: self.membership(&shared, shell),
            close: close.boxed(),
            stop: self.stop,
        })
    }

    fn aggregator(self, shell: &Shell) -> Result<Running, Failure> {
        let changes = self.follow();
        let peers = Peers::new(self.replica.catalog());
        let leaves = RemoteIngest::new(peers.clone());
        let leaf = Arc::new(RemoteScan::new(leaves.clone()));
        let ingest = Arc::new(leaves);
        let tailers = Tailers::new(peers);
        let pushes = LoggedPushes::new(tailers.clone(), ingest.clone(), self.replica.catalog());
        let mut options = AggregatorOptions {
            push_shards: PUSH_SHARDS,
            replicas: self.settings.cluster.replicas()?,
            snapshots: self.settings.snapshots.options(None)?,
            distribution: Some(DistributionOptions {
                own: self.name.clone(),
                peers: Peers::of_any_version(self.replica.catalog()),
            }),
            ..AggregatorOptions::new(shell.folder.join("spill"))
        };
        let Settings { aggregator: limits, .. } = &self.settings;
        limits.clone().apply(&mut options);
        let nodes = RemoteNodes::new(self.name.as_str(), self.replica.catalog());
        let roles = Roles {
            leaf,
            ingest,
            pushes: Arc::new(pushes),
            changes: changes.clone(),
            source_admin: Arc::new(tailers),
            nodes: Arc::new(nodes),
        };
        let engine = Engine::start(roles, options).map_err(failed("start the query engine"))?;
        let mut routes = self.routes(&changes, Some(engine.clone()), shell)?;
        engine.add_services(&mut routes);
        let router = doors::router(
            engine,
            Some(shell.metrics.clone()),
            shell.shutdown.clone(),
            self.has_joined(),
            routes,
        );
        Ok(Running {
            router,
            membership: self.membership(&changes, shell),
            close: future::ready(()).boxed(),
            stop: self.stop,
        })
    }

    /// Follows the change log through the other members and, while no tailer answers, at the broker.
    fn follow(&self) -> Arc<dyn Changes> {
        let reading = self.follower.clone().read_log_without_tailers(self.kafka.clone());
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(reading));
        self.follower.clone()
    }

    /// The gRPC services of every node: those of every process, and the node service.
    fn routes(
        &self,
        changes: &Arc<dyn Changes>,
        queries: Option<Arc<dyn Queries>>,
        shell: &Shell,
    ) -> Result<RoutesBuilder, Failure> {
        let mut routes = shell::routes()?;
        let follower = self.follower.clone();
        let node = NodeService {
            instance: self.member.instance,
            started_ms: shell.started_ms,
            state: self.replica.state(),
            changes: changes.clone(),
            queries,
            silent: Arc::new(move || follower.silent()),
            stop: shell.shutdown.clone(),
        };
        routes.add_service(NodeServer::new(node));
        Ok(routes)
    }

    /// Whether the node is a member of its cluster.
    fn has_joined(&self) -> doors::ReadinessCheck {
        let (catalog, name, instance) = (self.replica.catalog(), self.name.clone(), self.member.instance);
        Arc::new(move || {
            let catalog = catalog.borrow().clone();
            match catalog
                .members
                .get(&name)
                .is_some_and(|member| member.instance == instance)
            {
                true => Ok(()),
                false => Err(
                    Problem::new(Code::Unavailable, "this node is not a member of the cluster yet")
                        .hint("its log says why"),
                ),
            }
        })
    }

    /// A node is ready once it is a member of its cluster, and while its change log has no fault.
    fn readiness(&self) -> doors::ReadinessCheck {
        let (replica, has_joined) = (self.replica.clone(), self.has_joined());
        Arc::new(move || {
            let health = replica.health();
            match (health.cluster, health.fault) {
                (None, fault) => Err(Problem::new(
                    Code::Unavailable,
                    fault.unwrap_or_else(|| "the change log has not been read yet".to_owned()),
                )),
                (_, Some(fault)) => Err(Problem::new(Code::Unavailable, fault)),
                _ => has_joined(),
            }
        })
    }

    /// A leaf is ready once its replicas have caught up, too, or after [`CATCH_UP_MAX`]: a replica that cannot catch up must
    /// not block restarts of other nodes for ever.
    fn leaf_readiness(&self) -> doors::ReadinessCheck {
        let (joined, follower) = (self.readiness(), self.follower.clone());
        let (catalog, name) = (self.replica.catalog(), self.name.clone());
        let (knows_catalog, behind_since) = (AtomicBool::new(false), Mutex::new(None::<Instant>));
        Arc::new(move || {
            joined()?;
            // Until another node has answered, the saved catalog of this leaf may be outdated.
            if !knows_catalog.load(Ordering::Relaxed) && !follower.has_caught_up() {
                let detail = "it is not known yet whether the replicas on this leaf have caught up";
                return Err(Problem::new(Code::Unavailable, detail).hint("no other node has answered since its start"));
            }
            knows_catalog.store(true, Ordering::Relaxed);
            let caught_up = has_caught_up(&catalog.borrow(), &name);
            let mut since = behind_since.lock().unwrap_or_else(PoisonError::into_inner);
            match caught_up {
                Ok(()) => *since = None,
                Err(problem) if since.get_or_insert_with(Instant::now).elapsed() < CATCH_UP_MAX => return Err(problem),
                Err(_) => {}
            }
            Ok(())
        })
    }
}

/// Checks that every replica on a leaf serves, except those that are being copied to it for the first time. A rolling
/// restart waits for this before it takes down the next leaf, which may have the only other replicas.
fn has_caught_up(catalog: &Catalog, leaf: &NodeName) -> Result<(), Problem> {
    let is_missed = |collection: &Collection, shard: u32| {
        let moves = collection.moves.get(&shard);
        let is_new = moves.is_some_and(|moves| moves.contains_key(leaf));
        let state = collection.replica_state(shard, leaf);
        !is_new && matches!(state, Some(ReplicaState::Behind { .. } | ReplicaState::Joining { .. }))
    };
    let mut missed = catalog.collections.iter().flat_map(|(name, collection)| {
        let shards = (0..collection.settings.shards).filter(move |shard| is_missed(collection, *shard));
        shards.map(move |shard| format!("shard {shard} of {name}"))
    });
    let Some(first) = missed.next() else { return Ok(()) };
    let others = match missed.count() {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    let detail = format!("the replicas on this leaf have not caught up: {first}{others}");
    Err(Problem::new(Code::Unavailable, detail)
        .hint("other leaves answer for them; take none of these down meanwhile (`rachis.replicas` shows the states)"))
}

fn failed(what: &str) -> impl Fn(Problem) -> Failure + '_ {
    move |problem| Failure::with_cause(&format!("cannot {what}"), &problem)
}
