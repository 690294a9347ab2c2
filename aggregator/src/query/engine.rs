//! The query engine: what all queries of an aggregator share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    Catalog, Code, Position, PositionVector, Problem,
    catalog::Change,
    ingest::ShardId,
    node::{NodeQueries, Queries, QueryId, RunningQuery},
    status::TailStatus,
};
use tokio::sync::Semaphore;

use super::{
    admission::Admission,
    context::QueryContext,
    controller,
    delete::DELETES_AT_ONCE_MAX,
    distribution::{self, Distribution},
    plan_cache::PlanCache,
    read_views::{CollectionKinds, ReadWatermarks},
    registry::Registry,
    retention::{self, Removals},
    runtime::QueryRuntime,
    session::Sessions,
    snapshots,
};
use crate::{AggregatorOptions, Roles, answer::QueryOptions};

/// The query engine: admits, plans and runs queries.
pub struct Engine {
    /// The roles that it calls.
    pub roles: Roles,
    /// Its limits.
    pub options: AggregatorOptions,
    pub(super) admission: Admission,
    pub(super) registry: Arc<Registry>,
    pub(super) runtime: QueryRuntime,
    pub(super) sessions: Sessions,
    pub(super) plans: PlanCache,
    /// Limits the deletes that run at once.
    pub(super) deletes: Arc<Semaphore>,
    /// Held while expired documents of a collection are removed.
    pub(super) removals: Removals,
    /// None in a single process.
    pub(super) distribution: Option<Distribution>,
    kinds: Arc<CollectionKinds>,
    watermarks: Arc<ReadWatermarks>,
}

/// How far the tailers have read every partition. If no tailer is reachable, that is not an error: the catalog and the
/// leaves are known without them.
#[derive(Debug)]
pub struct TailStatuses {
    /// The status of each partition.
    pub rows: Vec<TailStatus>,
    /// Why no tailer could be asked, if so.
    pub unavailable: Option<String>,
}

impl Queries for Engine {
    fn running(&self) -> Vec<RunningQuery> {
        self.registry.list()
    }

    fn cancel(&self, id: QueryId) -> bool {
        self.registry.cancel(id)
    }
}

impl Engine {
    /// Starts an engine that also removes expired documents, takes snapshots by their schedule, and in a cluster replaces lost
    /// replicas if it becomes the controller.
    pub fn start(roles: Roles, options: AggregatorOptions) -> Result<Arc<Self>, Problem> {
        let engine = Self::new(roles, options)?;
        engine.runtime.spawn(retention::run(Arc::downgrade(&engine)));
        engine.runtime.spawn(controller::run(Arc::downgrade(&engine)));
        engine.runtime.spawn(snapshots::run(Arc::downgrade(&engine)));
        engine.runtime.spawn(distribution::look(Arc::downgrade(&engine)));
        engine
            .runtime
            .spawn(distribution::forget_ended(Arc::downgrade(&engine)));
        Ok(engine)
    }

    /// Starts an engine with its own query runtime. Creates the spill folder, or empties it.
    pub(super) fn new(roles: Roles, options: AggregatorOptions) -> Result<Arc<Self>, Problem> {
        let (runtime, sessions) = (QueryRuntime::start()?, Sessions::new(&options)?);
        Ok(Arc::new_cyclic(|engine| Self {
            admission: Admission::new(options.queries_max, options.queue_max),
            registry: Arc::default(),
            runtime,
            sessions,
            plans: PlanCache::new(),
            deletes: Arc::new(Semaphore::new(DELETES_AT_ONCE_MAX)),
            removals: Removals::default(),
            distribution: options
                .distribution
                .clone()
                .map(|options| Distribution::new(options, engine)),
            kinds: Arc::new(CollectionKinds::new()),
            watermarks: Arc::new(ReadWatermarks::new(roles.source_admin.clone(), roles.changes.catalog())),
            roles,
            options,
        }))
    }

    /// What several aggregators need to compute queries together, if they shall.
    pub(super) fn enabled_distribution(&self) -> Option<&Distribution> {
        (self.distribution.as_ref()).filter(|_| self.options.distribute_documents_min > 0)
    }

    /// Ends all queries, and waits up to two seconds until they have released their resources. Later queries fail.
    pub async fn close(&self) {
        self.runtime.close().await;
    }

    /// Lists the running queries: first those of this node, then those of others.
    pub async fn queries(&self) -> Vec<NodeQueries> {
        let nodes = &self.roles.nodes;
        let own = NodeQueries {
            node: nodes.own().to_owned(),
            queries: Ok(self.running()),
        };
        [own].into_iter().chain(nodes.remote_queries().await).collect()
    }

    /// Cancels a query on whichever node it runs. Returns whether it was found.
    pub async fn cancel_anywhere(&self, id: QueryId) -> bool {
        self.cancel(id) || self.roles.nodes.cancel_remote(id).await
    }

    /// The highest positions of a shard in any answer or acknowledged push so far.
    pub fn watermark_of(&self, shard: ShardId) -> PositionVector {
        self.watermarks.of(shard)
    }

    /// Records an acknowledged push, which every later answer must contain.
    pub fn on_push_acknowledged(&self, shard: ShardId, position: Position) {
        self.watermarks.advance(shard, &PositionVector::from_iter([position]));
    }

    /// Asks the tailers how far they have read every partition.
    pub async fn tails(&self) -> Result<TailStatuses, Problem> {
        match self.roles.source_admin.status().await {
            Ok(rows) => Ok(TailStatuses {
                rows,
                unavailable: None,
            }),
            Err(problem) if problem.code == Code::Unavailable => Ok(TailStatuses {
                rows: Vec::new(),
                unavailable: Some(problem.to_string()),
            }),
            Err(problem) => Err(problem),
        }
    }

    /// The current catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.roles.changes.catalog().borrow().clone()
    }

    /// Changes the catalog, whichever version the changed entry has. Returns the catalog after the change.
    pub async fn change_catalog(&self, change: Change) -> Result<Arc<Catalog>, Problem> {
        self.roles.changes.propose(change, None).await
    }

    /// The context of a query, or of a part of one, that may take so long.
    pub(super) fn context_until(
        &self,
        options: &QueryOptions,
        started: Instant,
        timeout: Duration,
    ) -> Arc<QueryContext> {
        QueryContext::new(
            Arc::clone(&self.roles.leaf),
            Arc::clone(&self.watermarks),
            Arc::clone(&self.kinds),
            options,
            started,
            timeout,
        )
    }

    /// The context of a query that has just arrived.
    pub(super) fn context(&self, options: &QueryOptions, started: Instant) -> Result<Arc<QueryContext>, Problem> {
        let timeout = options.timeout.unwrap_or(self.options.timeout);
        if timeout > self.options.timeout_max {
            return Err(Problem::new(
                Code::BadRequest,
                format!("a timeout of {} ms is too long", timeout.as_millis()),
            )
            .hint(format!(
                "set timeout_ms to at most {}",
                self.options.timeout_max.as_millis()
            )));
        }
        Ok(self.context_until(options, started, timeout))
    }
}
