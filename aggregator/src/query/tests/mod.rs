//! Tests of the engine over an in-memory leaf: what it requests from the leaf, and what it returns.

mod definition_changes;
mod definitions;
mod deletes;
mod distinct;
mod exploring;
mod fake;
mod field_search;
mod fuzzed;
mod limits;
mod plan_cache;
mod pushdown;
mod retention;
mod search;
mod search_grammar;
mod search_highlight;
mod search_score;
mod search_summary;
mod search_support;
mod several_aggregators;
mod statements;
mod view_search;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Instant};

use datafusion::{
    arrow::{array::RecordBatch, util::pretty::pretty_format_batches},
    sql::sqlparser::{ast, dialect::PostgreSqlDialect, parser::Parser},
};
use futures::StreamExt as _;
use plan::{Column, scan::ScanRequest};
use proto::{
    CollectionName, PositionVector, Problem,
    catalog::{Change, CollectionSettings},
    ingest::ShardId,
    node::SingleNode,
    tailer::Changes as _,
};
use serde_json::Value;

use self::fake::{FakeChanges, FakeLeaf, FakeTailer};
use super::{Engine, planner, read_views::QueryViews, run, statement, statement_shape::StatementValues};
use crate::{
    AggregatorOptions, Roles,
    answer::{Answer, AnswerChunk, QueryOptions, SqlQuery, Stats},
    sql::{ResolvedQuery, Table, TableUse},
};

/// An engine over in-memory fakes.
struct Bench {
    engine: Arc<Engine>,
    leaf: Arc<FakeLeaf>,
    tailer: Arc<FakeTailer>,
    changes: Arc<FakeChanges>,
    spill: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.spill);
    }
}

/// Creates a collection `events` with two shards, which get the documents in turn.
async fn bench(documents: impl IntoIterator<Item = Value>) -> Bench {
    bench_with(documents, |_| {}).await
}

async fn bench_with(documents: impl IntoIterator<Item = Value>, limits: impl FnOnce(&mut AggregatorOptions)) -> Bench {
    let (leaf, tailer) = (FakeLeaf::new(), Arc::new(FakeTailer::default()));
    let changes = Arc::new(FakeChanges::default());
    let settings = CollectionSettings {
        shards: 2,
        ..CollectionSettings::default()
    };
    let catalog = changes
        .propose(
            Change::CreateCollection {
                name: events(),
                settings,
                placement: Vec::new(),
            },
            None,
        )
        .await
        .expect("a collection");
    let collection = catalog.collections[&events()].uid;
    for (i, document) in documents.into_iter().enumerate() {
        leaf.add(
            ShardId {
                collection,
                number: u32::try_from(i % 2).expect("small"),
            },
            document,
        );
    }
    let spill = std::env::temp_dir().join(format!("rachis-query-test-{}", uuid::Uuid::now_v7()));
    let mut options = AggregatorOptions::new(&spill);
    limits(&mut options);
    let nodes = SingleNode {
        url: String::new(),
        started_ms: 0,
        changes: changes.clone(),
    };
    let roles = Roles {
        leaf: leaf.clone(),
        ingest: leaf.clone(),
        pushes: leaf.clone(),
        changes: changes.clone(),
        source_admin: tailer.clone(),
        nodes: Arc::new(nodes),
    };
    Bench {
        engine: Engine::new(roles, options).expect("an engine"),
        leaf,
        tailer,
        changes,
        spill,
    }
}

fn events() -> CollectionName {
    "events".parse().expect("a name")
}

/// A resolved query without the resolver: the tables `rachis_0`, … are `events`, each with the given columns.
fn resolved(sql: &str, tables: &[&[&str]]) -> ResolvedQuery {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).expect("SQL");
    let Some(ast::Statement::Query(query)) = statements.pop() else {
        panic!("not a query")
    };
    let column = |name: &&str| Column::parse(name).unwrap_or_else(|| panic!("{name} is not a flat name"));
    let table = |(i, columns): (usize, &&[&str])| TableUse {
        name: format!("rachis_{i}"),
        table: Table::Collection {
            collection: events(),
            columns: columns.iter().map(column).collect(),
        },
    };
    ResolvedQuery {
        query,
        tables: tables.iter().enumerate().map(table).collect(),
        definitions_hash: 0,
        is_relative: false,
        warnings: Vec::new(),
    }
}

impl Bench {
    /// Runs a resolved query, as the engine does after the resolver.
    async fn run_resolved(&self, request: SqlQuery, sql: &str, tables: &[&[&str]]) -> Result<Answer, Problem> {
        let resolved = resolved(sql, tables);
        let rows_max = (!planner::has_limit(&resolved.query)).then_some(self.engine.options.rows_max);
        let started = Instant::now();
        let context = self.engine.context(&request.options, started)?;
        let (mut sender, answer) = run::answer_channel(&context, None);
        let engine = Arc::clone(&self.engine);
        self.engine.runtime.spawn(async move {
            let work = async {
                let names = BTreeSet::from([events()]);
                let read_views =
                    QueryViews::open(&context, &engine.catalog(), &names, &request.options.at_least).await?;
                read_views.require_complete(request.options.allow_partial)?;
                let planned = planner::plan(
                    &engine,
                    &context,
                    &read_views,
                    resolved,
                    StatementValues::default(),
                    rows_max,
                )
                .await?;
                let output = statement::execute(&engine, &context, read_views, planned.executable, rows_max).await?;
                sender.send(output, &context, started).await
            };
            if let Err(problem) = run::guarded(&context, work).await {
                sender.fail(problem).await;
            }
        });
        answer.await
    }

    /// Runs a resolved query. Returns its rows as lines of text, and the statistics.
    async fn rows(&self, sql: &str, tables: &[&[&str]]) -> (Vec<String>, Stats) {
        let answer = self
            .run_resolved(SqlQuery::default(), sql, tables)
            .await
            .unwrap_or_else(|p| panic!("{sql}: {p}"));
        let (batches, stats) = read(answer).await.unwrap_or_else(|p| panic!("{sql}: {p}"));
        (lines(&batches), stats)
    }

    /// Runs a SQL statement through the whole engine.
    async fn sql(&self, sql: &str) -> (Vec<String>, Stats) {
        let (batches, stats) = self.try_sql(sql).await.unwrap_or_else(|p| panic!("{sql}: {p}"));
        (lines(&batches), stats)
    }

    async fn try_sql(&self, sql: &str) -> Result<(Vec<RecordBatch>, Stats), Problem> {
        read(
            self.engine
                .query(SqlQuery {
                    sql: sql.to_owned(),
                    ..SqlQuery::default()
                })
                .await?,
        )
        .await
    }

    /// Asserts that a condition holds for every scan that the leaf was asked for.
    fn assert_each_request(&self, holds: impl Fn(&ScanRequest) -> bool) {
        let requests = self.leaf.requests.lock();
        assert!(requests.iter().all(holds), "{requests:?}");
    }

    /// Waits until no query has a read view or a scan at the leaf.
    async fn until_released(&self) {
        let hanging_scans = || self.leaf.hanging_scans.load(std::sync::atomic::Ordering::SeqCst);
        while !self.leaf.open.lock().is_empty() || hanging_scans() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn read(answer: Answer) -> Result<(Vec<RecordBatch>, Stats), Problem> {
    let (mut batches, mut parts) = (Vec::new(), answer.chunks);
    loop {
        match parts.next().await {
            Some(Ok(AnswerChunk::Rows(batch))) => batches.push(batch),
            Some(Ok(AnswerChunk::End(stats))) => {
                assert!(parts.next().await.is_none(), "nothing follows the end");
                return Ok((batches, *stats));
            }
            Some(Err(problem)) => return Err(problem),
            None => panic!("the answer has no end"),
        }
    }
}

/// Each row as `a | b`.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let Some(all) = fake::one_batch(batches) else {
        return Vec::new();
    };
    let table = pretty_format_batches(&[all]).expect("a table").to_string();
    let row = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" | ")
    };
    table
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(row)
        .collect()
}
