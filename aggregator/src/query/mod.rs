//! How a statement is computed from the leaves, within its limits.
//!
//! ```text
//! ask ─ admission ─ parse ─ pins ─ resolve ─ planner ─ rules ─ run ─> parts, statistics
//!                            │                 │         │
//!                            └ every shard,    └ shard_table, shard_scan ══> leaf
//!                              one moment
//! ```
//!
//! A query runs on threads of its own (`runtime`), within its own memory (`memory`), until its deadline, until it is
//! cancelled or until its answer is dropped. An answer is not behind an earlier one while the leaves can do better
//! (`answered`).

mod admission;
mod answered;
mod context;
mod cursor;
mod ends;
mod explain;
pub(crate) mod failure;
mod lookup;
mod made_nulls;
mod memory;
mod paced;
mod pins;
mod planner;
mod push_aggregate;
mod push_top;
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
mod wide_rows;
mod world;
mod yielding;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use proto::{
    Catalog, Code, Position, PositionVector, Problem,
    ingest::ShardId,
    node::{Queries, QueryId, RunningQuery},
    status::TailStatus,
};

pub(crate) use self::pins::no_collection;
#[cfg(test)]
pub(crate) use self::planner::parameter;
pub(crate) use self::shard_table::ShardTableProvider;
pub use self::system::Fields;
use self::{
    admission::Admission, answered::Answered, context::QueryContext, registry::Registry, runtime::QueryRuntime,
    session::Sessions,
};
use crate::{
    AggregatorOptions, Roles,
    answer::{Answer, How, Question, SearchAnswer, SearchQuestion},
};

/// The engine: admits, plans, runs.
pub struct Engine {
    /// Whom it asks.
    pub roles: Roles,
    /// Its limits.
    pub options: AggregatorOptions,
    admission: Admission,
    registry: Arc<Registry>,
    runtime: QueryRuntime,
    sessions: Sessions,
    answered: Arc<Answered>,
}

/// How far every partition is read, as far as tailers answer: what is agreed on, and what the leaves hold, is known
/// without them.
#[derive(Debug)]
pub struct Tails {
    /// What they say.
    pub rows: Vec<TailStatus>,
    /// Why none says anything.
    pub away: Option<String>,
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
    /// An engine with its own runtime for queries. The spill folder is made, or emptied.
    pub fn new(roles: Roles, options: AggregatorOptions) -> Result<Arc<Self>, Problem> {
        Ok(Arc::new(Self {
            admission: Admission::new(options.queries_max, options.queue_max),
            registry: Arc::default(),
            runtime: QueryRuntime::start()?,
            sessions: Sessions::new(&options)?,
            answered: Arc::new(Answered::new(roles.tailing.clone(), roles.changes.catalog())),
            roles,
            options,
        }))
    }

    /// Ends all queries, and waits until they gave back what they hold, for two seconds at most. Whoever asks later is
    /// not answered.
    pub async fn close(&self) {
        self.runtime.close().await;
    }

    /// Answers a SQL question.
    pub async fn ask(self: &Arc<Self>, question: Question) -> Result<Answer, Problem> {
        let started = Instant::now();
        let context = self.context(&question.how, started)?;
        let listed = self.registry.enter(context.id, &question.sql, context.cancel.clone())?;
        let ticket = self.admitted(&context).await?;
        let (mut reply, asked) = run::answer(&context, Some((ticket, listed)));
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let work = async {
                let running = statement::run(&engine, &context, &question).await?;
                reply.send(running, &context, started).await
            };
            if let Err(problem) = run::guarded(&context, work).await {
                reply.fail(problem).await;
            }
        });
        asked.answer().await
    }

    /// Answers a search.
    pub async fn search(self: &Arc<Self>, question: SearchQuestion) -> Result<SearchAnswer, Problem> {
        let started = Instant::now();
        let context = self.context(&question.how, started)?;
        let listed = self.registry.enter(
            context.id,
            &format!("search {}: {}", question.collection, question.query),
            context.cancel.clone(),
        )?;
        let ticket = self.admitted(&context).await?;
        let (answered, answer) = run::single(&context);
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let result = run::guarded(&context, search::run(&engine, &context, &question, started)).await;
            drop((ticket, listed));
            // Nobody waits any more: then nobody is told.
            let _ = answered.send(result);
        });
        answer.wait().await
    }

    /// What runs now with the node where it does: here, then elsewhere, each oldest first.
    pub async fn queries(&self) -> Vec<(String, RunningQuery)> {
        let nodes = &self.roles.nodes;
        let elsewhere = nodes.queries_of_others().await;
        self.running()
            .into_iter()
            .map(|query| (nodes.own().to_owned(), query))
            .chain(elsewhere)
            .collect()
    }

    /// Cancels a query that runs, wherever it does; whether it was there.
    pub async fn cancel_anywhere(&self, id: QueryId) -> bool {
        self.cancel(id) || self.roles.nodes.cancel_elsewhere(id).await
    }

    /// How far a shard was when it answered last, or acknowledged a push.
    pub fn seen(&self, shard: ShardId) -> PositionVector {
        self.answered.of(shard)
    }

    /// A push was acknowledged: no later answer is without it.
    pub fn acknowledged(&self, shard: ShardId, position: Position) {
        self.answered.advance(shard, &PositionVector::from_iter([position]));
    }

    /// How far every partition is read.
    pub async fn tails(&self) -> Result<Tails, Problem> {
        match self.roles.tailing.status().await {
            Ok(rows) => Ok(Tails { rows, away: None }),
            Err(problem) if problem.code == Code::Unavailable => Ok(Tails {
                rows: Vec::new(),
                away: Some(problem.to_string()),
            }),
            Err(problem) => Err(problem),
        }
    }

    /// The catalog as it is now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.roles.changes.catalog().borrow().clone()
    }

    /// Waits for a place among the queries that run.
    async fn admitted(&self, context: &QueryContext) -> Result<admission::Ticket, Problem> {
        tokio::select! {
            ticket = self.admission.enter(context.deadline()) => ticket,
            () = context.cancel.cancelled() => Err(context::cancelled()),
        }
    }

    fn context(&self, how: &How, started: Instant) -> Result<Arc<QueryContext>, Problem> {
        let timeout = how.timeout.unwrap_or(self.options.timeout);
        if timeout > self.options.timeout_max {
            return Err(
                Problem::new(Code::BadRequest, format!("a timeout of {} ms", timeout.as_millis())).hint(format!(
                    "a query may have {} ms at most",
                    self.options.timeout_max.as_millis()
                )),
            );
        }
        Ok(QueryContext::new(
            Arc::clone(&self.roles.leaf),
            Arc::clone(&self.answered),
            how,
            started,
            timeout,
        ))
    }
}
