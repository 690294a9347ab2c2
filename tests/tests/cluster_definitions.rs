//! Definitions in a cluster: a thousand of them, made through two aggregators at once, and the life of one while a leaf
//! or the change log is away. Every aggregator answers with them, and every node ends with the same catalog.
//!
//! `RACHIS_DEFINITIONS` sets the number of definitions.

use std::{collections::BTreeMap, fs, ops::Range};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Settings, cluster::ClusterSize, eventually, query_both};

const DOCUMENTS: u64 = 300;
/// Definitions of a file.
const IN_FILE: usize = 50;
/// Changes of one field while two files are applied.
const SHARED: usize = 4;
/// One view of so many definitions reads that field, and is checked with each of its changes.
const READ_EVERY: usize = 50;

fn definitions_max() -> usize {
    let wanted = std::env::var("RACHIS_DEFINITIONS").ok();
    wanted.and_then(|number| number.parse().ok()).unwrap_or(1_000)
}

/// A cluster of three leaves, two tailers and two aggregators with documents on every leaf.
async fn start() -> Cluster {
    let cluster = Cluster::start(ClusterSize::default(), Settings::default()).await;
    let created = cluster
        .json(Method::PUT, "/v1/collections/events", json!({ "shards": 3 }))
        .await;
    created.expect("a collection");
    // Pushes go to one shard each, in turns.
    for first in (0..DOCUMENTS).step_by(50) {
        let documents: Vec<String> = (first..first + 50)
            .map(|n| json!({ "n": n, "text": n.to_string() }).to_string())
            .collect();
        cluster.push("events", documents.join("\n")).await.expect("a push");
    }
    cluster
}

fn aggregators(cluster: &Cluster) -> Vec<Client> {
    let names = cluster.nodes().filter(|node| node.role == "aggregator");
    names.map(|node| cluster.client_of(&node.name)).collect()
}

/// The catalog in the data folder of each node.
fn catalogs(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let catalog = |name: &str| -> Result<Value> {
        let text = fs::read(cluster.data_dir(name).join("catalog.json"))?;
        let state: Value = serde_json::from_slice(&text)?;
        Ok(state["catalog"].clone())
    };
    cluster
        .nodes()
        .map(|node| Ok((node.name.clone(), catalog(&node.name)?)))
        .collect()
}

/// Waits until every node has the same catalog, and returns it.
async fn same_catalog_everywhere(cluster: &Cluster) -> Value {
    eventually("every node has the same catalog", || async {
        let catalogs = catalogs(cluster)?;
        let (first, catalog) = catalogs.first_key_value().context("no node")?;
        ensure!(
            catalog["definitions"].is_array() || catalog["definitions"].is_object(),
            "{catalog}"
        );
        for (name, other) in &catalogs {
            let versions = (&catalog["version"], &other["version"]);
            ensure!(
                catalog == other,
                "{first} and {name} differ; their versions are {versions:?}"
            );
        }
        Ok(catalog.clone())
    })
    .await
}

/// The number of a version that a statement made.
async fn made(client: &Client, sql: &str) -> Result<u64> {
    let answer = client.query(sql, json!({})).await?;
    answer.rows[0][1].as_u64().with_context(|| format!("{sql}: no version"))
}

fn definition(number: usize) -> String {
    match number % 5 {
        0 => format!("CREATE FIELD events.f{number} AS n + {number};"),
        1 => format!("CREATE FUNCTION g{number}(x bigint) RETURNS bigint AS x * {number};"),
        2 => {
            let column = if number % READ_EVERY == 2 { "shared" } else { "n" };
            format!("CREATE VIEW v{number} AS SELECT n, {column} AS x FROM events WHERE n < {number};")
        }
        3 => format!(
            "CREATE QUERY q{number}(below bigint DEFAULT {number}) AS SELECT count(*) FROM events WHERE n < $below;"
        ),
        _ => format!("CREATE PARSER events.p{number} ON text AS REGEX '^(?<d{number}>[0-9])';"),
    }
}

/// Applies a file of definitions, and returns how many it changed.
async fn apply(client: &Client, numbers: Range<usize>) -> Result<usize> {
    let file: Vec<String> = numbers.map(definition).collect();
    let request = client
        .request(Method::POST, "/v1/definitions/apply")
        .body(file.join("\n"));
    let applied: Value = request.send().await?.json().await?;
    applied["changes"]
        .as_array()
        .map(Vec::len)
        .with_context(|| applied.to_string())
}

#[tokio::test]
async fn a_thousand_definitions_of_two_aggregators_are_in_force_everywhere() {
    let cluster = start().await;
    let both = aggregators(&cluster);
    made(&both[0], "CREATE FIELD events.shared AS n")
        .await
        .expect("a field");
    let max = definitions_max();
    let mut shared = BTreeMap::from([(1, "n".to_owned())]);
    // Each aggregator applies a file while both change the same field.
    for first in (0..max).step_by(2 * IN_FILE) {
        let file = |number: usize| first + number * IN_FILE..max.min(first + (number + 1) * IN_FILE);
        let change = |number: usize| {
            let text = format!("n + {}", first + number);
            let client = &both[number % 2];
            async move {
                let sql = format!("CREATE OR REPLACE FIELD events.shared AS {text}");
                anyhow::Ok((made(client, &sql).await?, text))
            }
        };
        let (applied, changed) = tokio::join!(
            try_join_all([apply(&both[0], file(0)), apply(&both[1], file(1))]),
            try_join_all((0..SHARED).map(change))
        );
        assert_eq!(applied.expect("files")[..], [file(0).len(), file(1).len()]);
        for (version, text) in changed.expect("changes") {
            assert_eq!(shared.insert(version, text), None, "version {version} is there twice");
        }
    }

    same_catalog_everywhere(&cluster).await;
    for client in &both {
        let versions = client
            .sql("SELECT version, text FROM rachis.definitions WHERE name = 'shared' ORDER BY version LIMIT 10000")
            .await;
        let expected: Vec<Vec<Value>> = shared
            .iter()
            .map(|(version, text)| vec![json!(version), json!(text)])
            .collect();
        assert_eq!(versions.rows, expected);
        let counted = client.sql("SELECT count(DISTINCT name) FROM rachis.definitions").await;
        assert_eq!(counted.single_value(), &json!(max + 1));
        let (_, last) = shared.last_key_value().expect("a version");
        let plus: u64 = last.trim_start_matches("n + ").parse().expect("a number");
        for number in (0..max - 5).step_by(READ_EVERY) {
            let (field, function, view) = (number, number + 1, number + 2);
            let (query, parser) = (number + 3, number + 4);
            let sql = format!(
                "SELECT sum(f{field}), sum(g{function}(n)), count(p{parser}.d{parser}), \
                 (SELECT count(*) FROM v{view}), (SELECT sum(x) FROM v{view}) FROM events"
            );
            let all: u64 = (0..DOCUMENTS).sum();
            let below = DOCUMENTS.min(view as u64);
            let expected = [
                json!(all + DOCUMENTS * field as u64),
                json!(all * function as u64),
                json!(DOCUMENTS),
                json!(below),
                json!((0..below).sum::<u64>() + below * plus),
            ];
            assert_eq!(query_both(client, &sql).await, [expected], "{sql}");
            let called = client.sql(&format!("CALL q{query}()")).await;
            assert_eq!(called.single_value(), &json!(DOCUMENTS.min(query as u64)));
        }
    }
}

/// A change, and what it leads to.
struct Change {
    sql: &'static str,
    /// The names and versions of the field, with their tags.
    versions: &'static [(&'static str, u64, &'static str)],
    /// What the current version adds to `n`, if there is one.
    adds: Option<u64>,
    name: &'static str,
}

/// The life of a field, without its first change.
const LIFE: [Change; 7] = [
    Change {
        sql: "CREATE FIELD events.price AS n + 1",
        versions: &[("price", 1, "latest")],
        adds: Some(1),
        name: "price",
    },
    Change {
        sql: "CREATE OR REPLACE FIELD events.price AS n + 2",
        versions: &[("price", 1, ""), ("price", 2, "latest")],
        adds: Some(2),
        name: "price",
    },
    Change {
        sql: "ALTER FIELD events.price SET TAG prod TO 2",
        versions: &[("price", 1, ""), ("price", 2, "latest, prod")],
        adds: Some(2),
        name: "price",
    },
    Change {
        sql: "REVERT FIELD events.price TO 1",
        versions: &[("price", 1, "latest"), ("price", 2, "prod")],
        adds: Some(1),
        name: "price",
    },
    Change {
        sql: "ALTER FIELD events.price RENAME TO cost",
        versions: &[("cost", 1, "latest"), ("cost", 2, "prod")],
        adds: Some(1),
        name: "cost",
    },
    Change {
        sql: "CREATE OR REPLACE FIELD events.cost AS n + 3",
        versions: &[("cost", 1, ""), ("cost", 2, "prod"), ("cost", 3, "latest")],
        adds: Some(3),
        name: "cost",
    },
    Change {
        sql: "DROP FIELD events.cost",
        versions: &[],
        adds: None,
        name: "cost",
    },
];

impl Change {
    /// Whether an aggregator has made it.
    async fn is_made(&self, client: &Client) -> Result<bool> {
        let sql = "SELECT name, version, coalesce(tags, '') FROM rachis.definitions WHERE name IN ('price', 'cost') ORDER BY version";
        let found = client.query(sql, json!({})).await?.rows;
        let expected: Vec<Vec<Value>> = (self.versions.iter())
            .map(|(name, version, tags)| vec![json!(name), json!(version), json!(tags)])
            .collect();
        Ok(found == expected)
    }

    /// Makes it at one aggregator, and checks that the other asks with it at once.
    async fn make(&self, by: &Client, asked: &Client, options: Value) {
        by.query(self.sql, json!({})).await.expect(self.sql);
        assert!(self.is_made(asked).await.expect("an answer"), "{}", self.sql);
        self.check_answer(asked, options).await;
    }

    async fn check_answer(&self, asked: &Client, options: Value) {
        let Some(adds) = self.adds else {
            return;
        };
        let sql = format!("SELECT min({0} - n), max({0} - n) FROM events", self.name);
        let answer = asked.query(&sql, options).await.expect("an answer");
        assert_eq!(answer.rows, [[json!(adds), json!(adds)]], "{} {sql}", self.sql);
    }
}

#[tokio::test]
async fn definitions_change_while_a_leaf_is_away() {
    let mut cluster = start().await;
    for (number, step) in LIFE.iter().enumerate() {
        let (leaf, both) = (format!("leaf-{}", number % 3 + 1), aggregators(&cluster));
        cluster.kill(&leaf);
        let partial = json!({ "allow_partial": true });
        step.make(&both[number % 2], &both[(number + 1) % 2], partial).await;
        cluster.restart(&leaf).await;
        for client in aggregators(&cluster) {
            step.check_answer(&client, json!({})).await;
            step.check_answer(&client, json!({ "scan": "raw" })).await;
        }
    }
    same_catalog_everywhere(&cluster).await;
}

#[tokio::test]
async fn a_change_without_the_change_log_is_made_once_or_not_at_all() {
    let cluster = start().await;
    let both = aggregators(&cluster);
    let mut before: Option<&Change> = None;
    for (number, step) in LIFE.iter().enumerate() {
        let (by, asked) = (&both[number % 2], &both[(number + 1) % 2]);
        cluster.kafka.pause();
        let refused = by.query(step.sql, json!({ "timeout_ms": 2_000 })).await;
        refused.expect_err("no change without the change log");
        // Questions are answered with the definitions that both have.
        if let Some(before) = before {
            before.check_answer(by, json!({})).await;
            before.check_answer(asked, json!({})).await;
        }
        cluster.kafka.resume();
        // The change may have been written before its outcome was known. It is made once more only if it was not.
        let missing = eventually("the change log is back", || async {
            let name = format!("after{number}");
            let written = format!("CREATE FUNCTION {name}(x bigint) RETURNS bigint AS x");
            let known = by.query(&written, json!({})).await;
            ensure!(known.is_ok() || format!("{known:?}").contains("exists"), "{known:?}");
            Ok(!step.is_made(by).await?)
        })
        .await;
        if missing {
            step.make(by, asked, json!({})).await;
        }
        for client in &both {
            assert!(step.is_made(client).await.expect("an answer"), "{}", step.sql);
            step.check_answer(client, json!({})).await;
        }
        before = step.adds.map(|_| step);
    }
    same_catalog_everywhere(&cluster).await;
}
