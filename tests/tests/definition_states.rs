//! The same answer in every state: while documents are added, overwritten and deleted, splits are written and merged,
//! nodes are killed, and definitions get versions and tags at random, every statement returns what plain Rust computes
//! with the versions in force, from columns as from raw documents. Statements that were asked before are asked again, so
//! that kept plans and kept states meet definitions and documents that have changed.
//!
//! `RACHIS_STEPS` sets the number of changes; the long form is 2000. `RACHIS_SEED` repeats a run.

#[path = "definition_states/model.rs"]
mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
};

use model::{Definitions, Document, FIELDS, Value, VersionName};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value as Json, json};
use tests::{Client, Kafka, Service, eventually, kafka::NewRecord, query_both};
use tokio_util::sync::CancellationToken;

tests::for_single_process_and_cluster! {
    every_statement_follows_the_definitions_in_force: tests::Settings::default().small_splits(),
    no_answer_has_a_meaning_that_was_replaced_before_the_question: tests::Settings::default(),
}

/// Ids of documents. Later records overwrite or delete earlier ones.
const IDS: usize = 3_000;
/// Records of one change of the documents.
const RECORDS: usize = 400;
/// Questions that are asked again and again.
const KEPT: usize = 12;
/// Of these, asked after each change.
const ASKED: usize = 3;
/// Rows of a statement that returns rows.
const ROWS_MAX: usize = 40;

fn steps() -> usize {
    let wanted = std::env::var("RACHIS_STEPS").ok().and_then(|steps| steps.parse().ok());
    wanted.unwrap_or(50)
}

/// A question with its answer in plain Rust.
enum Question {
    Rows {
        shown: [Value; 2],
        above: Value,
        limit: i64,
    },
    Groups {
        by: Value,
        of: Value,
    },
    Totals {
        of: [Value; 2],
        above: Value,
        limit: i64,
    },
    View,
    Search {
        field: usize,
        limit: i64,
    },
}

impl Question {
    fn random(definitions: &Definitions, rng: &mut impl Rng) -> Self {
        let value = |rng: &mut _| definitions.random_value(rng, FIELDS, 1);
        let limit = rng.random_range(-5..40);
        match rng.random_range(0..5) {
            0 => Self::Rows {
                shown: [value(rng), value(rng)],
                above: value(rng),
                limit,
            },
            1 => Self::Groups {
                by: value(rng),
                of: value(rng),
            },
            2 => Self::Totals {
                of: [value(rng), value(rng)],
                above: value(rng),
                limit,
            },
            3 => Self::View,
            _ => Self::Search {
                field: rng.random_range(0..FIELDS),
                limit,
            },
        }
    }

    /// Its statement and rows.
    fn statement(&self, definitions: &Definitions, documents: &BTreeMap<String, Document>) -> (String, Vec<Vec<Json>>) {
        let sql = |value: &Value| definitions.sql(value);
        let eval = |value: &Value, document: &Document| definitions.evaluate(value, document);
        match self {
            Self::Rows {
                shown: [x, y],
                above,
                limit,
            } => {
                let matching = documents
                    .iter()
                    .filter(|(_, document)| eval(above, document) > Some(*limit));
                let rows = matching
                    .take(ROWS_MAX)
                    .map(|(id, document)| vec![json!(id), json!(eval(x, document)), json!(eval(y, document))]);
                let statement = format!(
                    "SELECT _id, {} AS x, {} AS y FROM events WHERE {} > {limit} ORDER BY _id LIMIT {ROWS_MAX}",
                    sql(x),
                    sql(y),
                    sql(above)
                );
                (statement, rows.collect())
            }
            Self::Groups { by, of } => {
                let mut groups: BTreeMap<(bool, Option<i64>), Vec<Option<i64>>> = BTreeMap::new();
                for document in documents.values() {
                    let group = eval(by, document).map(|value| value % 5);
                    groups
                        .entry((group.is_none(), group))
                        .or_default()
                        .push(eval(of, document));
                }
                let row = |((_, group), values): ((bool, Option<i64>), Vec<Option<i64>>)| {
                    vec![json!(group), json!(values.len()), json!(sum(values.iter().copied()))]
                };
                let statement = format!(
                    "SELECT {} % 5 AS g, count(*) AS n, sum({}) AS s FROM events GROUP BY 1 ORDER BY 1",
                    sql(by),
                    sql(of)
                );
                (statement, groups.into_iter().map(row).collect())
            }
            Self::Totals {
                of: [x, y],
                above,
                limit,
            } => {
                let matching: Vec<&Document> = documents
                    .values()
                    .filter(|document| eval(above, document) > Some(*limit))
                    .collect();
                let xs: Vec<i64> = matching.iter().filter_map(|document| eval(x, document)).collect();
                let ys: BTreeSet<i64> = matching.iter().filter_map(|document| eval(y, document)).collect();
                let statement = format!(
                    "SELECT count(*) AS n, min({x}) AS low, max({x}) AS high, count(DISTINCT {y}) AS d FROM events \
                     WHERE {} > {limit}",
                    sql(above),
                    x = sql(x),
                    y = sql(y)
                );
                let row = vec![
                    json!(matching.len()),
                    json!(xs.iter().min()),
                    json!(xs.iter().max()),
                    json!(ys.len()),
                ];
                (statement, vec![row])
            }
            Self::View => {
                let rows = definitions.view_rows(documents);
                let [x, y] = [0, 1].map(|column| sum(rows.iter().map(|row| row[column])));
                let row = vec![json!(rows.len()), json!(x), json!(y)];
                (
                    "SELECT count(*) AS n, sum(x) AS x, sum(y) AS y FROM some".to_owned(),
                    vec![row],
                )
            }
            Self::Search { field, limit } => {
                let value = Value::Field(*field, VersionName::Latest);
                let found = documents
                    .values()
                    .filter(|document| eval(&value, document) > Some(*limit));
                (format!("f{field}:>{limit}"), vec![vec![json!(found.count())]])
            }
        }
    }

    async fn check(&self, server: &Client, definitions: &Definitions, documents: &BTreeMap<String, Document>) {
        let (statement, expected) = self.statement(definitions, documents);
        let rows = match self {
            Self::Search { .. } => {
                let search = server
                    .json(
                        reqwest::Method::POST,
                        "/v1/collections/events/search",
                        json!({ "q": statement, "limit": 1 }),
                    )
                    .await;
                vec![vec![search.expect("hits")["total"].clone()]]
            }
            _ => query_both(server, &statement).await,
        };
        assert_eq!(rows, expected, "{statement}");
    }
}

/// The sum of the values that are there, as SQL has it.
fn sum(values: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    values.flatten().reduce(|sum, value| sum + value)
}

/// The documents and their definitions, in the service and in plain Rust.
struct State {
    kafka: Kafka,
    documents: BTreeMap<String, Document>,
    records: usize,
    definitions: Definitions,
}

impl State {
    /// Adds, overwrites and deletes documents, and waits until that is visible.
    async fn change_documents(&mut self, server: &Client, rng: &mut impl Rng) {
        let mut records = Vec::with_capacity(RECORDS);
        for _ in 0..RECORDS {
            let id = format!("k{:04}", rng.random_range(0..IDS));
            let document = rng.random_bool(0.85).then(|| Document::random(rng));
            let value = document
                .as_ref()
                .map(|document| document.json().to_string().into_bytes());
            records.push(NewRecord::keyed(id.clone(), value));
            match document {
                Some(document) => self.documents.insert(id, document),
                None => self.documents.remove(&id),
            };
        }
        self.kafka.produce("events", records).await;
        self.records += RECORDS;
        let sql = "select sum(events) from rachis.sources where source = 'events'";
        eventually("all records are visible", || async {
            let answer = server.query(sql, json!({})).await?;
            anyhow::ensure!(answer.rows[0][0].as_f64() == Some(self.records as f64), "{answer:?}");
            Ok(())
        })
        .await;
    }
}

async fn every_statement_follows_the_definitions_in_force(mut server: Service) {
    let mut rng = StdRng::seed_from_u64(tests::seed());
    let (definitions, statements) = Definitions::first();
    let mut state = State {
        kafka: Kafka::start().await,
        documents: BTreeMap::new(),
        records: 0,
        definitions,
    };
    state.kafka.create_topic("events", 1, &[]).await;
    let settings = json!({ "key": "record" });
    server
        .source("events", "events", "events", &state.kafka.bootstrap(), settings)
        .await
        .expect("a source");
    state.change_documents(&server, &mut rng).await;
    for statement in &statements {
        server.sql(statement).await;
    }
    let mut kept: Vec<Question> = Vec::new();
    let (steps, mut log) = (steps(), Vec::new());
    for step in 0..steps {
        // Each run has kills, whatever the seed.
        match rng.random_range(0..10) {
            _ if step % 25 == 20 => {
                log.push("-- all nodes are killed".to_owned());
                server.kill_and_restart().await;
            }
            0..=1 => {
                log.push(format!("-- {RECORDS} records"));
                state.change_documents(&server, &mut rng).await;
            }
            _ => {
                let statement = state.definitions.random_change(&mut rng);
                log.push(statement.clone());
                let changed = server.query(&statement, json!({})).await;
                changed.unwrap_or_else(|problem| panic!("{problem:#}\nafter\n{}", log.join(";\n")));
            }
        }
        if kept.len() < KEPT {
            kept.push(Question::random(&state.definitions, &mut rng));
        } else {
            kept[rng.random_range(0..KEPT)] = Question::random(&state.definitions, &mut rng);
        }
        eprintln!("{}", log.last().map_or("", String::as_str));
        for _ in 0..ASKED {
            let question = &kept[rng.random_range(0..kept.len())];
            question.check(&server, &state.definitions, &state.documents).await;
        }
    }
}

/// One client replaces a field again and again, others ask. Each answer has a single meaning: one that was in force at
/// some time between question and answer. It goes on until there are enough questions, however slow they are.
async fn no_answer_has_a_meaning_that_was_replaced_before_the_question(server: Service) {
    const VERSIONS: i64 = 200;
    const QUESTIONS: usize = 100;
    let documents: Vec<String> = (0..2_000).map(|n| json!({ "n": n }).to_string()).collect();
    server.push("events", documents.join("\n")).await.expect("a push");
    let (sent, acknowledged, asked) = (AtomicI64::new(0), AtomicI64::new(0), AtomicUsize::new(0));
    let replace = async |version: i64| {
        sent.store(version, Ordering::SeqCst);
        let sql = format!("CREATE OR REPLACE FIELD events.value AS n * 0 + {version}");
        server.sql(&sql).await;
        acknowledged.store(version, Ordering::SeqCst);
    };
    replace(1).await;
    let done = CancellationToken::new();
    let replace_until_all_is_asked = async {
        let mut version = 1;
        while version < VERSIONS || asked.load(Ordering::SeqCst) < QUESTIONS {
            version += 1;
            replace(version).await;
        }
        done.cancel();
    };
    let ask = async |scan: &str| {
        while !done.is_cancelled() {
            let from = acknowledged.load(Ordering::SeqCst);
            let sql = "SELECT min(value) AS low, max(value) AS high, count(value) AS n FROM events";
            let answer = server.query(sql, json!({ "scan": scan })).await.expect("an answer");
            let to = sent.load(Ordering::SeqCst);
            let [low, high, count] = [0, 1, 2].map(|column| answer.rows[0][column].as_i64());
            assert_eq!(count, Some(2_000), "all documents have the field");
            assert!(
                low == high && low >= Some(from) && low <= Some(to),
                "the values are from {low:?} to {high:?}; versions {from} to {to} were in force"
            );
            asked.fetch_add(1, Ordering::SeqCst);
        }
    };
    tokio::join!(replace_until_all_is_asked, ask("auto"), ask("raw"));
}
