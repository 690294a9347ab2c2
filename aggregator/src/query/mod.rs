//! The query engine: computes statements and searches from the leaves, within their limits.
//!
//! ```text
//! Engine ┬ context, registry, admission
//!        ├ search ─ read_views ─ planner ══scan══> leaf: hits
//!        ├ statement ┬ sql: parse, and the collections that it reads
//!        │           ├ read_views ══open══> leaf: one read view of every shard
//!        │           ├ sql: resolve
//!        │           └ planner ─ typing ─ rules of session ─ shard_table, shard_scan
//!        └ run ══scan══> leaf: a stream for all its shards ─> columns, rows, statistics (report)
//! ```
//!
//! A query runs on separate threads (`runtime`) and within its own memory limit (`memory`), until it finishes, passes
//! its deadline or is cancelled, or until its answer is dropped. No answer is older than an earlier one as long as the
//! leaves can catch up (`read_views::watermarks`).

mod admission;
mod aggregate_pushdown;
mod context;
mod cursor;
mod distinct_groups;
mod explain;
pub(crate) mod failure;
mod find_collection;
mod forget_constants;
mod interruptible_planning;
mod join_filter;
mod lookup;
mod memory;
mod paced;
mod plan_cache;
mod plan_template;
mod planner;
mod quoted_texts;
mod read_views;
mod registry;
mod report;
mod run;
mod runtime;
mod search;
mod session;
mod shard_scan;
mod shard_table;
mod statement;
mod system;
mod topk_pushdown;
mod wide_rows;
mod yielding;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use proto::{
    Catalog, Code, Position, PositionVector, Problem,
    catalog::Change,
    ingest::ShardId,
    node::{Queries, QueryId, RunningQuery},
    status::TailStatus,
};

pub(crate) use self::find_collection::{find_collection, no_collection};
#[cfg(test)]
pub(crate) use self::planner::parameter;
pub(crate) use self::shard_table::ShardTable;
pub(crate) use self::system::CollectionFields;
use self::{
    admission::{Admission, QuerySlot},
    context::QueryContext,
    plan_cache::PlanCache,
    read_views::{CollectionKinds, ReadWatermarks},
    registry::{RegisteredQuery, Registry},
    runtime::QueryRuntime,
    session::Sessions,
};
use crate::{
    AggregatorOptions, Roles,
    answer::{Answer, QueryOptions, SearchAnswer, SearchQuery, SqlQuery},
};

/// The query engine: admits, plans and runs queries.
pub struct Engine {
    /// The roles that it calls.
    pub roles: Roles,
    /// Its limits.
    pub options: AggregatorOptions,
    admission: Admission,
    registry: Arc<Registry>,
    runtime: QueryRuntime,
    sessions: Sessions,
    plans: PlanCache,
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
    /// Starts an engine with its own query runtime. Creates the spill folder, or empties it.
    pub fn new(roles: Roles, options: AggregatorOptions) -> Result<Arc<Self>, Problem> {
        Ok(Arc::new(Self {
            admission: Admission::new(options.queries_max, options.queue_max),
            registry: Arc::default(),
            runtime: QueryRuntime::start()?,
            sessions: Sessions::new(&options)?,
            plans: PlanCache::new(),
            kinds: Arc::new(CollectionKinds::new()),
            watermarks: Arc::new(ReadWatermarks::new(roles.source_admin.clone(), roles.changes.catalog())),
            roles,
            options,
        }))
    }

    /// Ends all queries, and waits up to two seconds until they have released their resources. Later queries fail.
    pub async fn close(&self) {
        self.runtime.close().await;
    }

    /// Runs a SQL statement.
    pub async fn query(self: &Arc<Self>, request: SqlQuery) -> Result<Answer, Problem> {
        let started = Instant::now();
        let (context, slot) = self.admit(&request.options, &request.sql, started).await?;
        let (mut sender, answer) = run::answer_channel(&context, Some(slot));
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let work = async {
                let output = statement::run(&engine, &context, &request).await?;
                sender.send(output, &context, started).await
            };
            if let Err(problem) = run::guarded(&context, work).await {
                sender.fail(problem).await;
            }
        });
        answer.await
    }

    /// Runs a search.
    pub async fn search(self: &Arc<Self>, request: SearchQuery) -> Result<SearchAnswer, Problem> {
        let started = Instant::now();
        let text = format!("search {}: {}", request.collection, request.query);
        let (context, slot) = self.admit(&request.options, &text, started).await?;
        let (sender, answer) = run::single_answer_channel(&context);
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let result = run::guarded(&context, search::run(&engine, &context, &request, started)).await;
            drop(slot);
            // The send fails if the client is gone, which needs no handling.
            let _ = sender.send(result);
        });
        answer.await
    }

    /// Lists the running queries with the names of their nodes: first those of this node, then those of others, each
    /// oldest first.
    pub async fn queries(&self) -> Vec<(String, RunningQuery)> {
        let nodes = &self.roles.nodes;
        let remote = nodes.remote_queries().await;
        self.running()
            .into_iter()
            .map(|query| (nodes.own().to_owned(), query))
            .chain(remote)
            .collect()
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

    /// Creates the context of a query, lists the query under `text`, and waits for a slot among the running queries.
    async fn admit(
        &self,
        options: &QueryOptions,
        text: &str,
        started: Instant,
    ) -> Result<(Arc<QueryContext>, (QuerySlot, RegisteredQuery)), Problem> {
        let context = self.context(options, started)?;
        let registered = self.registry.register(context.id, text, context.cancel.clone())?;
        let slot = tokio::select! {
            slot = self.admission.enter(context.deadline()) => slot,
            () = context.cancel.cancelled() => Err(context::cancelled()),
        }?;
        Ok((context, (slot, registered)))
    }

    fn context(&self, options: &QueryOptions, started: Instant) -> Result<Arc<QueryContext>, Problem> {
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
        Ok(QueryContext::new(
            Arc::clone(&self.roles.leaf),
            Arc::clone(&self.watermarks),
            Arc::clone(&self.kinds),
            options,
            started,
            timeout,
        ))
    }
}
