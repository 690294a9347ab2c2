//! The engine over a leaf in memory: what is asked of the leaf, and what comes out.

mod asking;
mod fake;
mod finding;
mod limits;
mod searching;
mod statements;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Instant};

use datafusion::{
    arrow::{array::RecordBatch, util::pretty::pretty_format_batches},
    sql::sqlparser::{ast, dialect::PostgreSqlDialect, parser::Parser},
};
use futures::StreamExt as _;
use plan::Column;
use proto::{
    CollectionName, PositionVector, Problem,
    catalog::{Change, CollectionSettings},
    ingest::ShardId,
    node::OnlyNode,
    tailer::Changes as _,
};
use serde_json::Value;
use tokio::sync::watch;

use self::fake::{FakeChanges, FakeLeaf, FakeTailing};
use super::{Engine, pins::Pins, planner, run, statement};
use crate::{
    AggregatorOptions, Roles,
    answer::{Answer, How, Part, Question, Stats},
    sql::{Resolved, Table, TableUse},
};

/// An engine and the leaf behind it.
struct Bench {
    engine: Arc<Engine>,
    leaf: Arc<FakeLeaf>,
    tailing: Arc<FakeTailing>,
    spill: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.spill);
    }
}

/// A collection `events` of two shards that hold these documents in turn.
async fn bench(documents: impl IntoIterator<Item = Value>) -> Bench {
    bench_with(documents, |_| {}).await
}

async fn bench_with(documents: impl IntoIterator<Item = Value>, limits: impl FnOnce(&mut AggregatorOptions)) -> Bench {
    let (leaf, tailing) = (Arc::new(FakeLeaf::default()), Arc::new(FakeTailing::default()));
    let changes = Arc::new(FakeChanges(watch::Sender::new(Arc::default())));
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
    let nodes = OnlyNode {
        url: String::new(),
        started_ms: 0,
        changes: changes.clone(),
    };
    let roles = Roles {
        leaf: leaf.clone(),
        pushes: leaf.clone(),
        changes,
        tailing: tailing.clone(),
        nodes: Arc::new(nodes),
    };
    Bench {
        engine: Engine::new(roles, options).expect("an engine"),
        leaf,
        tailing,
        spill,
    }
}

fn events() -> CollectionName {
    "events".parse().expect("a name")
}

/// A query whose names are resolved by hand: `rachis_0`, … are `events`, each with these columns.
fn resolved(sql: &str, tables: &[&[&str]]) -> Resolved {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).expect("SQL");
    let Some(ast::Statement::Query(query)) = statements.pop() else {
        panic!("not a query")
    };
    let column = |name: &&str| Column::parse(name).unwrap_or_else(|| panic!("{name} is no flat name"));
    let table = |(i, columns): (usize, &&[&str])| TableUse {
        name: format!("rachis_{i}"),
        table: Table::Collection {
            collection: events(),
            columns: columns.iter().map(column).collect(),
        },
    };
    Resolved {
        query,
        tables: tables.iter().enumerate().map(table).collect(),
        warnings: Vec::new(),
    }
}

impl Bench {
    /// Asks a resolved query, as the engine does after the resolver.
    async fn ask_resolved(&self, question: Question, sql: &str, tables: &[&[&str]]) -> Result<Answer, Problem> {
        let resolved = resolved(sql, tables);
        let rows_max = (!planner::has_limit(&resolved.query)).then_some(self.engine.options.rows_max);
        let started = Instant::now();
        let context = self.engine.context(&question.how, started)?;
        let (mut reply, asked) = run::answer(&context, None);
        let engine = Arc::clone(&self.engine);
        self.engine.runtime.spawn(async move {
            let work = async {
                let names = BTreeSet::from([events()]);
                let pins = Pins::take(&context, &engine.catalog(), &names, &question.how.at_least).await?;
                pins.complete_or(question.how.allow_partial)?;
                let mut stats = Stats::default();
                pins.fill(&mut stats);
                let planned = planner::plan(&engine, &context, &pins, resolved, &[], rows_max).await?;
                reply
                    .send(statement::begin(pins, planned, stats, rows_max)?, &context, started)
                    .await
            };
            if let Err(problem) = run::guarded(&context, work).await {
                reply.fail(problem).await;
            }
        });
        asked.answer().await
    }

    /// The rows of a resolved query as lines of text, and its statistics.
    async fn rows(&self, sql: &str, tables: &[&[&str]]) -> (Vec<String>, Stats) {
        let answer = self
            .ask_resolved(Question::default(), sql, tables)
            .await
            .unwrap_or_else(|p| panic!("{sql}: {p}"));
        let (batches, stats) = read(answer).await.unwrap_or_else(|p| panic!("{sql}: {p}"));
        (lines(&batches), stats)
    }

    /// Asks a statement as a door does.
    async fn sql(&self, sql: &str) -> (Vec<String>, Stats) {
        let (batches, stats) = self.try_sql(sql).await.unwrap_or_else(|p| panic!("{sql}: {p}"));
        (lines(&batches), stats)
    }

    async fn try_sql(&self, sql: &str) -> Result<(Vec<RecordBatch>, Stats), Problem> {
        read(
            self.engine
                .ask(Question {
                    sql: sql.to_owned(),
                    ..Question::default()
                })
                .await?,
        )
        .await
    }

    /// Waits until nothing of any query is held by the leaf.
    async fn until_let_go(&self) {
        while !self.leaf.pinned.lock().is_empty() || self.leaf.hanging.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn read(answer: Answer) -> Result<(Vec<RecordBatch>, Stats), Problem> {
    let (mut batches, mut parts) = (Vec::new(), answer.parts);
    loop {
        match parts.next().await {
            Some(Ok(Part::Rows(batch))) => batches.push(batch),
            Some(Ok(Part::End(stats))) => {
                assert!(parts.next().await.is_none(), "nothing comes after the end");
                return Ok((batches, *stats));
            }
            Some(Err(problem)) => return Err(problem),
            None => panic!("an answer without an end"),
        }
    }
}

/// `a | b` a row.
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
