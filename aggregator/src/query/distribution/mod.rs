//! Runs the operators above the scans of a large query on several aggregators, by crate `datafusion-distributed`.
//!
//! ```text
//! aggregator-1, which was asked ── stages of the plan ──> aggregator-2: joins, sorts, groups its share of the rows
//!   scans ══ rows by the hash of their key ════════════>      │
//!   answer <══════════════════════════ its rows ══════════════┘
//! ```
//!
//! The aggregator that was asked opens the read views, asks the leaves, and evaluates functions. So warnings, coverage and
//! statistics are those of any query. The others get rows and plans of plain operators ([`stages`]), and refuse other plans;
//! each computes within the memory of one query ([`parts`]). A query whose other aggregator dies or refuses runs again on one,
//! unless a part of its answer was sent.

mod codec;
mod parts;
mod service;
mod stage_exec;
mod stage_pool;
mod stages;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use datafusion::{
    common::{DFSchema, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::{SessionStateBuilder, context::QueryPlanner},
    logical_expr::{EmptyRelation, LogicalPlan},
    physical_plan::ExecutionPlan,
};
use datafusion_distributed::{
    ChannelResolver, DistributedExt as _, ExecuteTaskRequest, GetWorkerInfoRequest, ProducerHead, RouteTasksEvent,
    RouteTasksEventResponse, SessionStateBuilderExt as _, TaskKey, Worker, WorkerChannel, WorkerResolver,
    grpc::{BoxCloneSyncChannel, create_worker_client},
};
use futures::{FutureExt as _, future};
use parking_lot::RwLock;
use plan::walk::Walk as _;
use proto::{
    Problem,
    client::peers::Peers,
    cluster::{NodeName, Role},
    node::{QueryId, VERSION},
};
use tracing::warn;
use url::Url;
use uuid::Uuid;

use self::{
    parts::{PartHead, Parts},
    stage_exec::sendable,
};
pub(crate) use self::{service::connection_problem, stage_exec::sent_problem};
use super::{
    Engine,
    context::QueryContext,
    query_plan::{ExecutablePlan, task_with},
    shard_scan::ShardScan,
};
use crate::failure;

/// What a connection to another aggregator buffers.
const BUFFER_BYTES: usize = 8 << 20;
/// How often an aggregator looks which others answer.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long another one, which may be busy, may take to say so.
const LOOK_MAX: Duration = Duration::from_secs(4);
/// How often what has ended is dropped.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// How often a failed attempt is looked at …
const SETTLED_EVERY: Duration = Duration::from_millis(10);
/// … and for how long.
const SETTLED_MAX: Duration = Duration::from_secs(2);

/// Where large queries may run.
#[derive(Debug, Clone)]
pub struct DistributionOptions {
    /// The name of this aggregator.
    pub own: NodeName,
    /// The other nodes.
    pub peers: Peers,
}

/// What an aggregator needs to have others compute parts of its queries, and to compute parts of theirs.
pub(super) struct Distribution {
    options: DistributionOptions,
    worker: Worker,
    parts: Arc<Parts>,
    /// The URLs of the other aggregators that answer and run this release.
    others: RwLock<Vec<Url>>,
}

impl Distribution {
    pub(super) fn new(options: DistributionOptions, engine: &Weak<Engine>) -> Self {
        metrics::counter!("rachis_queries_distributed_total").increment(0);
        metrics::counter!("rachis_queries_distributed_failed_total").increment(0);
        let parts = Arc::new(Parts::new(engine.clone()));
        let sessions = Arc::clone(&parts);
        let channels = Channels(options.peers.clone());
        let build = move |context| {
            let (parts, channels) = (Arc::clone(&sessions), channels.clone());
            async move { parts.session(context, channels).map_err(sendable) }
        };
        Self {
            options,
            worker: Worker::from_session_builder(build).with_version(VERSION),
            parts,
            others: RwLock::default(),
        }
    }

    /// Has the library drop the plans of tasks that have ended: its cache drops an entry when it is used the next time.
    fn forget_ended(&self) {
        let task_key = TaskKey {
            query_id: Uuid::nil(),
            stage_id: 0,
            task_number: 0,
        };
        let unknown = ExecuteTaskRequest {
            task_key,
            target_partition_start: 0,
            target_partition_end: 0,
            producer_head: ProducerHead::None,
        };
        // To look the task up is enough. Polled again, the call would wait until it times out.
        let _waiting = self.worker.execute_task(unknown).now_or_never();
    }

    fn own_url(&self) -> Option<Url> {
        let catalog = self.options.peers.catalog().borrow().clone();
        Url::parse(&catalog.members.get(&self.options.own)?.url).ok()
    }

    /// Looks which other aggregators compute parts of queries, and run this release.
    async fn look(&self) {
        let catalog = self.options.peers.catalog().borrow().clone();
        let peers = self.options.peers.of(Role::Aggregator).into_iter();
        let looks = peers.filter(|peer| peer.name != self.options.own).map(|peer| {
            let url = catalog
                .members
                .get(&peer.name)
                .and_then(|member| Url::parse(&member.url).ok());
            async move {
                let mut client = create_worker_client(BoxCloneSyncChannel::new(peer.data));
                let asked = client.get_worker_info(GetWorkerInfoRequest {});
                let info = tokio::time::timeout(LOOK_MAX, asked).await.ok()?.ok()?;
                url.filter(|_| info.version == VERSION)
            }
        });
        let found = future::join_all(looks).await;
        *self.others.write() = found.into_iter().flatten().collect();
    }
}

/// Looks which other aggregators can be asked, until the engine is dropped.
pub(super) async fn look(engine: Weak<Engine>) {
    while let Some(alive) = engine.upgrade()
        && let Some(distribution) = alive.enabled_distribution()
    {
        distribution.look().await;
        drop(alive);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Drops what is left of queries that have ended, until the engine is dropped.
pub(super) async fn forget_ended(engine: Weak<Engine>) {
    while let Some(alive) = engine.upgrade()
        && let Some(distribution) = alive.enabled_distribution()
    {
        distribution.forget_ended();
        drop(alive);
        tokio::time::sleep(FORGET_EVERY).await;
    }
}

/// Waits until nothing of a query runs here any more, after its first attempt has failed: else it would be counted twice, and
/// take the memory that the second one needs.
pub(super) async fn settled(engine: &Engine, query: QueryId) {
    let Some(distribution) = &engine.distribution else {
        return;
    };
    let settled = async {
        while distribution.parts.has_stage_of(query) {
            distribution.forget_ended();
            tokio::time::sleep(SETTLED_EVERY).await;
        }
    };
    if tokio::time::timeout(SETTLED_MAX, settled).await.is_err() {
        warn!(%query, "parts of a query have not ended yet, and it runs again");
    }
}

/// The plan as it runs on several aggregators, if it is large enough and they can; else as it is.
pub(super) async fn distributed(
    engine: &Engine,
    context: &Arc<QueryContext>,
    planned: ExecutablePlan,
) -> ExecutablePlan {
    match on_several(engine, context, &planned).await {
        Ok(Some(distributed)) => distributed,
        Ok(None) => planned,
        Err(problem) => {
            warn!(query = %context.id, %problem, "a query cannot be computed by several aggregators; one computes it");
            planned
        }
    }
}

async fn on_several(
    engine: &Engine,
    context: &Arc<QueryContext>,
    planned: &ExecutablePlan,
) -> Result<Option<ExecutablePlan>, Problem> {
    let Some(distribution) = engine.enabled_distribution().filter(|_| context.may_be_distributed()) else {
        return Ok(None);
    };
    let others = distribution.others.read().clone();
    let is_large = documents_of_scans(&planned.physical) >= engine.options.distribute_documents_min;
    let (Some(own), false, true) = (distribution.own_url(), others.is_empty(), is_large) else {
        return Ok(None);
    };
    let urls: Vec<Url> = std::iter::once(own.clone()).chain(others).collect();
    let batch_rows = planned.task.session_config().batch_size();
    let staged = stages::in_stages(&planned.physical, urls.len(), batch_rows).map_err(failure::problem)?;
    let Some((staged, batch_rows)) = staged.filter(|(staged, _)| codec::can_be_sent(staged)) else {
        return Ok(None);
    };
    let head = PartHead::of(context, &distribution.options.own, batch_rows);
    let running = distribution.parts.coordinate(&head, &planned.task);
    let config = planned
        .task
        .session_config()
        .clone()
        .with_extension(Arc::new(running))
        .with_distributed_user_codec(codec::PlanCodec)
        .with_distributed_worker_resolver(Urls(urls.clone()))
        .with_distributed_channel_resolver(Channels(distribution.options.peers.clone()))
        .with_distributed_local_worker_context(distribution.worker.to_local_worker_context(own))
        .with_distributed_route_tasks_handler(route_to(urls.clone()))
        .with_distributed_passthrough_headers(head.headers()?)
        .and_then(|config| config.with_distributed_metrics_collection(false))
        .and_then(|config| config.with_distributed_compression(None))
        .and_then(|config| config.with_distributed_worker_connection_buffer_budget_bytes(BUFFER_BYTES))
        .map_err(failure::problem)?;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_query_planner(Arc::new(Ready(staged)))
        .with_distributed_planner()
        .build();
    let nothing = LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(DFSchema::empty()),
    });
    let physical = state
        .query_planner()
        .create_physical_plan(&nothing, &state)
        .await
        .map_err(failure::problem)?;
    context.note_aggregators(urls.len());
    metrics::counter!("rachis_queries_distributed_total").increment(1);
    Ok(Some(ExecutablePlan {
        physical,
        task: task_with(&planned.task, state.config().clone(), planned.task.runtime_env()),
    }))
}

/// The documents of the collections that a plan scans, whatever its conditions: how many they select is not known before.
fn documents_of_scans(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let mut documents = 0_u64;
    let _never_fails = plan.apply(|node| {
        if let Some(scan) = node.downcast_ref::<ShardScan>() {
            documents = documents.saturating_add(scan.documents());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    documents
}

/// Sends the tasks of a stage to all aggregators, each to one.
fn route_to(
    urls: Vec<Url>,
) -> impl Fn(RouteTasksEvent<'_>) -> Option<Result<RouteTasksEventResponse, DataFusionError>> + Send + Sync + 'static {
    move |event| (event.task_count == urls.len()).then(|| Ok(RouteTasksEventResponse::new(urls.clone())))
}

/// A query planner that returns this plan.
#[derive(Debug)]
struct Ready(Arc<dyn ExecutionPlan>);

#[async_trait]
impl QueryPlanner for Ready {
    async fn create_physical_plan(
        &self,
        _: &LogicalPlan,
        _: &dyn datafusion::catalog::Session,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(Arc::clone(&self.0))
    }
}

struct Urls(Vec<Url>);

impl WorkerResolver for Urls {
    fn get_urls(&self) -> Result<Vec<Url>, DataFusionError> {
        Ok(self.0.clone())
    }
}

/// The connections to other aggregators.
#[derive(Clone)]
struct Channels(Peers);

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>, DataFusionError> {
        let catalog = self.0.catalog().borrow().clone();
        let mut members = catalog.members_of(Role::Aggregator);
        let found = members.find(|(_, member)| Url::parse(&member.url).is_ok_and(|known| known == *url));
        let name = found.map(|(name, _)| name.clone());
        let left = || {
            failure::error(Problem::new(
                proto::Code::Unavailable,
                format!("no aggregator of the cluster is at {url} any more"),
            ))
        };
        let peer = self.0.named(&name.ok_or_else(left)?).map_err(failure::error)?;
        Ok(create_worker_client(BoxCloneSyncChannel::new(peer.data)))
    }
}

#[cfg(test)]
pub(super) use self::stages::in_stages;
