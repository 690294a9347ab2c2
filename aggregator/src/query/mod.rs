//! The query engine: computes statements and searches from the leaves, within their limits.
//!
//! ```text
//! Engine ┬ context, registry, admission
//!        ├ search ─ read_views ─ planner ══scan══> leaf: hits
//!        ├ statement ┬ sql: parse, and the collections that it reads
//!        │           ├ read_views ══open══> leaf: one read view of every shard
//!        │           ├ sql: resolve
//!        │           └ planner ─ typing ─ rules of session ─ path_columns ─ shard_table, shard_scan
//!        └ run ══scan══> leaf: a stream for all its shards ─> columns, rows, statistics (report)
//! ```
//!
//! A query runs on separate threads (`runtime`) and within its own memory limit (`memory`), until it finishes, passes
//! its deadline or is cancelled, or until its answer is dropped. No answer is older than an earlier one as long as the
//! leaves can catch up (`read_views::watermarks`).

mod admission;
mod aggregate_pushdown;
mod append;
mod bound_functions;
mod common_filter;
mod condition;
mod context;
mod controller;
mod cursor;
mod definitions;
mod delete;
mod distinct_groups;
mod distribution;
mod engine;
mod explain;
mod failure_of;
mod find_collection;
mod forget_constants;
mod interruptible_planning;
mod join_filter;
mod lookup;
mod memory;
pub(crate) mod moves;
mod paced;
mod path_columns;
mod placeholders;
mod plan_cache;
mod plan_template;
mod plan_walk;
mod planner;
mod query_plan;
mod read_views;
mod redrive;
mod registry;
mod report;
mod retention;
mod row_slices;
mod run;
mod runs;
mod runtime;
mod search;
mod session;
mod shard_scan;
mod shard_table;
mod snapshots;
mod statement;
mod statement_shape;
mod summarize;
mod system;
mod topk_pushdown;
mod wide_rows;
mod yielding;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use proto::{Code, Problem};

pub(crate) use self::append::{AppendUntil, OUTCOME_WAIT_MAX};
pub(crate) use self::delete::{DeleteCause, DeleteRequest, Deleted};
pub use self::distribution::DistributionOptions;
pub(crate) use self::distribution::{connection_problem, sent_problem};
pub use self::engine::Engine;
pub(crate) use self::engine::TailStatuses;
pub(crate) use self::find_collection::{find_collection, no_collection};
pub(crate) use self::redrive::{RedriveRequest, Redriven, RejectedLetter};
pub use self::snapshots::SnapshotOptions;
#[cfg(test)]
pub(crate) use self::statement_shape::parameter;
pub(crate) use self::system::CollectionFields;
use self::{admission::QuerySlot, context::QueryContext, registry::RegisteredQuery};
use crate::{
    answer::{Answer, QueryOptions, SearchAnswer, SearchQuery, SqlQuery},
    definition_file::Step,
};

impl Engine {
    /// Runs a SQL statement.
    pub async fn query(self: &Arc<Self>, mut request: SqlQuery) -> Result<Answer, Problem> {
        let started = Instant::now();
        if request.all_rows {
            request.options.timeout.get_or_insert(self.options.timeout_max);
        }
        let (context, slot) = self.admit(&request.options, &request.sql, started).await?;
        let (mut sender, answer) = run::answer_channel(&context, Some(slot));
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let work = async {
                let output = statement::run(&engine, &context, &request).await?;
                let output = match output.begin_if_repeatable().await {
                    // Nothing was sent yet, so another replica may answer, or this aggregator alone.
                    Err(problem) if context.may_run_again(&problem) => {
                        distribution::settled(&engine, context.id).await;
                        context.begin_again(&problem);
                        statement::run(&engine, &context, &request).await?
                    }
                    begun => begun?,
                };
                sender.send(output, &context, started).await
            };
            if let Err(problem) = run::guarded(&context, work).await {
                sender.fail(problem).await;
            }
        });
        answer.await
    }

    /// Makes the changes of definitions that a file asks for: all, or none. With `dry_run`, they are only checked.
    pub(crate) async fn apply_definitions(
        self: &Arc<Self>,
        file: String,
        author: Option<String>,
        dry_run: bool,
    ) -> Result<Vec<Step>, Problem> {
        let options = QueryOptions {
            timeout: Some(self.options.timeout_max),
            ..QueryOptions::default()
        };
        let (context, slot) = self
            .admit(&options, "apply a file of definitions", Instant::now())
            .await?;
        let (sender, answer) = run::single_answer_channel(&context);
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let work = definitions::apply(&engine, &context, &file, author.as_deref(), dry_run);
            let result = run::guarded(&context, work).await;
            drop(slot);
            // The send fails if the client is gone, which needs no handling.
            let _ = sender.send(result);
        });
        answer.await
    }

    /// Deletes the documents that meet a condition.
    pub(crate) async fn delete(self: &Arc<Self>, request: DeleteRequest) -> Result<Deleted, Problem> {
        let text = format!("delete from {}: {}", request.wanted.collection, request.wanted.text);
        let (context, slot) = self.admit(&request.options, &text, Instant::now()).await?;
        let (sender, answer) = run::single_answer_channel(&context);
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let work = delete::delete(&engine, &context, &request);
            let result = run::guarded(&context, work).await;
            drop(slot);
            // The send fails if the client is gone, which needs no handling.
            let _ = sender.send(result.map(|(deleted, _)| deleted));
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
            let work = async {
                match search::run(&engine, &context, &request, started).await {
                    Err(problem) if problem.code == Code::Unavailable && engine.is_replicated(&request.collection) => {
                        context.begin_again(&problem);
                        search::run(&engine, &context, &request, started).await
                    }
                    result => result,
                }
            };
            let result = run::guarded(&context, work).await;
            drop(slot);
            // The send fails if the client is gone, which needs no handling.
            let _ = sender.send(result);
        });
        answer.await
    }

    /// Whether the shards of a collection have several replicas.
    fn is_replicated(&self, collection: &str) -> bool {
        let catalog = self.catalog();
        let mut found = catalog
            .collections
            .iter()
            .filter(|(name, _)| name.as_str() == collection);
        found.any(|(_, collection)| collection.is_replicated())
    }

    /// Creates the context of a query, lists the query under `text`, and waits for a slot among the running queries.
    async fn admit(
        &self,
        options: &QueryOptions,
        text: &str,
        started: Instant,
    ) -> Result<(Arc<QueryContext>, (QuerySlot, RegisteredQuery)), Problem> {
        let context = self.context(options, started)?;
        let registered = self.registry.register(&context, text)?;
        let slot = tokio::select! {
            slot = self.admission.enter(context.deadline()) => slot,
            () = context.cancel.cancelled() => Err(context::cancelled()),
        }?;
        Ok((context, (slot, registered)))
    }
}
