//! Parts of queries: what an aggregator computes for another one, and within which limits.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::Result,
    execution::{SessionState, TaskContext, runtime_env::RuntimeEnv},
    physical_plan::ExecutionPlanProperties as _,
    prelude::SessionConfig,
};
use datafusion_distributed::{
    DistributedExt as _, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerQueryContext,
};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use plan::{functions, scan::ANSWER_READ_MAX, walk::Walk as _};
use proto::{
    Code, Problem,
    cluster::NodeName,
    node::{QueryId, VERSION},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Channels,
    codec::PlanCodec,
    service::FROM_NETWORK,
    stage_exec::{StageContext, sendable},
    stage_pool::StagePool,
    stages,
};
use crate::{
    answer::QueryOptions,
    failure,
    query::{
        Engine,
        context::{QueryContext, cancelled},
        registry::RegisteredQuery,
        shard_scan::QueryScans,
    },
};

/// The metadata key of what an aggregator says about a query when it sends a part of it.
const HEAD: &str = "rachis-query";
/// Partitions of an operator that is computed for another aggregator.
const PARTITIONS_MAX: usize = 4_096;
/// Rows of a batch that is computed for another aggregator.
pub(super) const BATCH_ROWS_MAX: usize = 64 << 10;

/// What an aggregator says about a query when it sends a part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PartHead {
    id: QueryId,
    /// A query that is run again, or another one with the same id, has another.
    attempt: Uuid,
    coordinator: NodeName,
    release: String,
    /// How long the query may still take.
    left_ms: u64,
    /// The rows of a batch where rows leave a stage.
    batch_rows: usize,
}

impl PartHead {
    pub(super) fn of(context: &QueryContext, coordinator: &NodeName, batch_rows: usize) -> Self {
        let left = context.deadline().saturating_duration_since(Instant::now());
        Self {
            id: context.id,
            attempt: Uuid::now_v7(),
            coordinator: coordinator.clone(),
            release: VERSION.to_owned(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            batch_rows,
        }
    }

    pub(super) fn headers(&self) -> Result<HeaderMap, Problem> {
        let text = serde_json::to_string(self).map_err(|error| malformed(&error))?;
        let value = HeaderValue::from_str(&text).map_err(|error| malformed(&error))?;
        Ok(HeaderMap::from_iter([(HeaderName::from_static(HEAD), value)]))
    }

    fn in_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(HEAD).ok_or_else(|| malformed(&"it names no query"))?;
        let head: Self = serde_json::from_slice(value.as_bytes()).map_err(|error| malformed(&error))?;
        if head.release != VERSION {
            let detail = format!(
                "{} runs release {}, this aggregator {}: they compute no query together",
                head.coordinator, head.release, VERSION
            );
            return Err(Problem::new(Code::Unavailable, detail));
        }
        match head.batch_rows {
            1..=BATCH_ROWS_MAX => Ok(head),
            rows => Err(malformed(&format!("its batches have {rows} rows"))),
        }
    }
}

fn malformed(why: &dyn fmt::Display) -> Problem {
    Problem::new(Code::BadRequest, format!("a part of a query cannot be read: {why}"))
}

/// The queries that this aggregator coordinates, and those of which it computes a part, by their attempt.
pub(super) struct Parts {
    engine: Weak<Engine>,
    coordinated: Mutex<HashMap<Uuid, Weak<Coordinated>>>,
    computed: Mutex<HashMap<Uuid, Weak<Part>>>,
}

/// A query that was asked here, for as long as any stage of it exists here.
pub(super) struct Coordinated {
    id: QueryId,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
    ended: CancellationToken,
}

/// A part of a query that this aggregator computes for another one.
pub(super) struct Part {
    context: Arc<QueryContext>,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
    engine: Weak<Engine>,
    coordinator: NodeName,
    /// Lists it for as long as rows of it are computed. None before that.
    registered: Mutex<Option<Weak<RegisteredQuery>>>,
}

impl Part {
    /// Whether all rows of it have been computed: the library keeps its plans for a moment longer.
    fn has_ended(&self) -> bool {
        (self.registered.lock().as_ref()).is_some_and(|registered| registered.strong_count() == 0)
    }
}

/// The query that a stage belongs to.
#[derive(Clone)]
pub(super) enum StageOf {
    /// It was asked here.
    Coordinated(Arc<Coordinated>),
    /// It was asked elsewhere.
    Part(Arc<Part>),
}

impl StageOf {
    /// Lists a part, unless a query that was asked here has the same id.
    pub(super) fn listed(&self) -> Option<Arc<RegisteredQuery>> {
        let Self::Part(part) = self else { return None };
        let mut registered = part.registered.lock();
        if let Some(known) = registered.as_ref().and_then(Weak::upgrade) {
            return Some(known);
        }
        let text = format!("a part of a query that {} was asked", part.coordinator);
        let listed = Arc::new(part.engine.upgrade()?.registry.register(&part.context, &text).ok()?);
        *registered = Some(Arc::downgrade(&listed));
        Some(listed)
    }

    /// Waits until the query must end, and says why.
    pub(super) fn ended(&self) -> BoxFuture<'static, Problem> {
        match self.clone() {
            Self::Coordinated(query) => async move {
                query.ended.cancelled().await;
                cancelled()
            }
            .boxed(),
            Self::Part(part) => async move {
                tokio::select! {
                    () = part.context.cancel.cancelled() => {}
                    () = part.context.time.passed(Duration::ZERO) => {}
                }
                part.context.interrupted().unwrap_or_else(cancelled)
            }
            .boxed(),
        }
    }

    fn session(&self) -> (&SessionConfig, &Arc<RuntimeEnv>) {
        match self {
            Self::Coordinated(query) => (&query.config, &query.runtime),
            Self::Part(part) => (&part.config, &part.runtime),
        }
    }
}

/// Held by the coordinator's own plan: ends the stages that run here when that is dropped.
pub(super) struct Coordinating(Arc<Coordinated>);

impl Drop for Coordinating {
    fn drop(&mut self) {
        self.0.ended.cancel();
    }
}

impl Parts {
    pub(super) fn new(engine: Weak<Engine>) -> Self {
        Self {
            engine,
            coordinated: Mutex::default(),
            computed: Mutex::default(),
        }
    }

    /// Has the stages of a query that run here find its session.
    pub(super) fn coordinate(&self, head: &PartHead, task: &TaskContext) -> Coordinating {
        let query = Arc::new(Coordinated {
            id: head.id,
            config: task.session_config().clone(),
            runtime: task.runtime_env(),
            ended: CancellationToken::new(),
        });
        let mut coordinated = self.coordinated.lock();
        coordinated.retain(|_, query| query.strong_count() > 0);
        coordinated.insert(head.attempt, Arc::downgrade(&query));
        Coordinating(query)
    }

    /// Whether a stage of a query that was asked here exists here.
    pub(super) fn has_stage_of(&self, id: QueryId) -> bool {
        let coordinated = self.coordinated.lock();
        coordinated
            .values()
            .filter_map(Weak::upgrade)
            .any(|query| query.id == id)
    }

    /// The session of a stage.
    pub(super) fn session(&self, asked: WorkerQueryContext, channels: Channels) -> Result<SessionState> {
        let head = PartHead::in_headers(&asked.headers).map_err(failure::error)?;
        let query = self
            .query_of(&head, asked.headers.contains_key(FROM_NETWORK))
            .map_err(failure::error)?;
        let (of_query, runtime) = query.session();
        let pool = StagePool::new(Arc::clone(&runtime.memory_pool));
        let stage = StageContext {
            query: query.clone(),
            runtime: Arc::clone(runtime),
            waiting: pool.waiting(),
        };
        let mut builder = asked.builder;
        let config = builder.config().get_or_insert_default();
        *config = with_query(std::mem::take(config), of_query)
            .with_extension(Arc::new(stage))
            .with_batch_size(head.batch_rows)
            .with_distributed_channel_resolver(channels)
            .with_distributed_user_codec(PlanCodec)
            .with_distributed_passthrough_headers(head.headers().map_err(failure::error)?)?;
        let builder = builder
            .with_runtime_env(Arc::new(RuntimeEnv {
                memory_pool: Arc::new(pool),
                ..RuntimeEnv::clone(runtime)
            }))
            .with_scalar_functions(functions::scalar())
            .with_aggregate_functions(functions::aggregates());
        Ok(match query {
            StageOf::Coordinated(_) => builder.build(),
            StageOf::Part(_) => builder.with_distributed_worker_plan_rewrite_handler(check_sent).build(),
        })
    }

    fn query_of(&self, head: &PartHead, is_from_network: bool) -> Result<StageOf, Problem> {
        let coordinated = self.coordinated.lock().get(&head.attempt).and_then(Weak::upgrade);
        match coordinated {
            Some(_) if is_from_network => {
                let id = head.id;
                let detail = format!("query {id} was asked here: no other aggregator sends parts of it");
                Err(Problem::new(Code::BadRequest, detail))
            }
            Some(query) => Ok(StageOf::Coordinated(query)),
            None if is_from_network => self.part(head).map(StageOf::Part),
            None => Err(cancelled()),
        }
    }

    /// What this aggregator computes of a query for another one. All stages of the query share it.
    fn part(&self, head: &PartHead) -> Result<Arc<Part>, Problem> {
        let stopping = || Problem::new(Code::Unavailable, "the aggregator is shutting down");
        let engine = self.engine.upgrade().ok_or_else(stopping)?;
        let mut computed = self.computed.lock();
        computed.retain(|_, part| part.strong_count() > 0);
        if let Some(part) = computed.get(&head.attempt).and_then(Weak::upgrade) {
            return Ok(part);
        }
        let running = computed.values().filter_map(Weak::upgrade);
        let computing = running.filter(|part| part.coordinator == head.coordinator && !part.has_ended());
        let computing = computing.count();
        if computing >= engine.options.queries_max {
            let detail = format!(
                "this aggregator computes parts of {computing} queries of {} already",
                head.coordinator
            );
            return Err(Problem::new(Code::Unavailable, detail).hint("retry"));
        }
        let options = QueryOptions {
            id: Some(head.id),
            ..QueryOptions::default()
        };
        // It may wait for a slow client without passing its own deadline: its query ends it.
        let timeout = Duration::from_millis(head.left_ms) + ANSWER_READ_MAX;
        let context = engine.context_until(&options, Instant::now(), timeout);
        let part = Arc::new(Part {
            config: engine
                .sessions
                .config(context.for_functions(engine.options.query_bytes_max)),
            runtime: engine.sessions.runtime_of(&context),
            context,
            registered: Mutex::default(),
            engine: self.engine.clone(),
            coordinator: head.coordinator.clone(),
        });
        computed.insert(head.attempt, Arc::downgrade(&part));
        Ok(part)
    }
}

/// A configuration of the library with what the operators and functions of a query look for.
fn with_query(mut config: SessionConfig, query: &SessionConfig) -> SessionConfig {
    if let Some(functions) = functions::FunctionContext::of(query.options()) {
        config.options_mut().extensions.insert(functions.clone());
    }
    if let Some(scans) = query.get_extension::<QueryScans>() {
        config.set_extension(scans);
    }
    config
}

/// Refuses a plan with other operators or expressions than those that are sent.
fn check_sent(event: WorkerPlanRewriteEvent<'_>) -> Result<WorkerPlanRewriteEventResponse> {
    let mut refused = None;
    event.plan.apply(|node| {
        let partitions = node.output_partitioning().partition_count();
        if !stages::is_sent(node)? || partitions > PARTITIONS_MAX {
            refused = Some(format!("{} of {partitions} partitions", node.name()));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match refused {
        None => Ok(WorkerPlanRewriteEventResponse::new(event.plan)),
        Some(name) => Err(sendable(failure::error(Problem::new(
            Code::BadRequest,
            format!("this aggregator runs no {name} for another one"),
        )))),
    }
}
