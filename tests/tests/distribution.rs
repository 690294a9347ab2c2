//! Several aggregators compute a large query together: the answer is that of one, also if one of them dies, is frozen, or the
//! query is cancelled.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Settings, cluster::ClusterSize, eventually};

const TWO_AGGREGATORS: ClusterSize = ClusterSize {
    leaves: 2,
    tailers: 1,
    aggregators: 2,
};

/// What joins, sorts and groups, and what a program that knows the documents expects.
fn questions(rows: u32) -> Vec<(&'static str, Vec<Vec<Value>>)> {
    let keys = rows / 10;
    let joined: u64 = (0..rows).filter(|n| n % 2 == 0).map(u64::from).sum();
    let sorted: Vec<Vec<Value>> = (0..rows).rev().map(|n| vec![json!(n)]).collect();
    vec![
        (
            "select count(*), sum(f.n) from facts f join parts p on f.k = p.k where f.n % 2 = 0",
            vec![vec![json!(rows / 2), json!(joined)]],
        ),
        ("select n from facts order by n desc", sorted),
        (
            "select count(*), min(c), max(c) from (select k, count(*) as c from facts group by k) g",
            vec![vec![json!(keys), json!(10), json!(10)]],
        ),
        (
            "select count(*) from facts f left join parts p on f.n = p.k where p.k is null",
            vec![vec![json!(rows - keys)]],
        ),
        (
            "select upper(p.name) as name, count(*) as c from facts f join parts p on f.k = p.k group by p.name order by p.name limit 2",
            vec![
                vec![json!("PART 00000"), json!(10)],
                vec![json!("PART 00001"), json!(10)],
            ],
        ),
    ]
}

async fn load(client: &Client, rows: u32) {
    let keys = rows / 10;
    let fact = |n: u32| {
        let (k, few) = (n % keys, n % 8);
        format!("{{\"n\":{n},\"k\":{k},\"few\":{few},\"same\":0,\"pad\":\"{n:0400}\"}}\n")
    };
    let part = |k: u32| format!("{{\"k\":{k},\"name\":\"part {k:05}\"}}\n");
    load_lines(client, "facts", rows, fact).await;
    load_lines(client, "parts", keys, part).await;
}

async fn load_lines(client: &Client, name: &str, rows: u32, line: impl Fn(u32) -> String) {
    let path = format!("/v1/collections/{name}");
    let created = client.json(Method::PUT, &path, json!({ "shards": 3 })).await;
    created.expect("a collection");
    for from in (0..rows).step_by(10_000) {
        let lines: String = (from..rows.min(from + 10_000)).map(&line).collect();
        client.push(name, lines).await.expect("a push");
    }
}

/// Asks one aggregator, and returns the rows and how many aggregators have computed them.
async fn ask(client: &Client, sql: &str) -> anyhow::Result<(Vec<Vec<Value>>, u64)> {
    let answer = client.query(sql, json!({ "all_rows": true })).await?;
    let aggregators = answer.stats["aggregators"].as_u64().unwrap_or_default();
    Ok((answer.rows, aggregators))
}

/// Waits until two aggregators compute a question together.
async fn until_together(client: &Client, sql: &str) {
    eventually("two aggregators compute a query", || async {
        let (_, aggregators) = ask(client, sql).await?;
        ensure!(aggregators == 2, "{aggregators} aggregators");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn two_aggregators_give_the_answers_of_one_also_when_one_dies() {
    let rows = 20_000;
    let mut cluster = Cluster::start(TWO_AGGREGATORS, Settings::default().distributed()).await;
    load(&cluster, rows).await;
    let questions = questions(rows);
    for name in ["aggregator-1", "aggregator-2"] {
        let client = cluster.client_of(name);
        for (sql, expected) in &questions {
            until_together(&client, sql).await;
            let (rows, _) = ask(&client, sql).await.expect("an answer");
            assert_eq!(rows, *expected, "{name}: {sql}");
        }
        for (sql, why) in [
            ("select count(*) from facts", "the leaves count"),
            (
                "select count(*) from facts f join parts p on f.k = p.k where p.name = 'part 00001'",
                "the leaves find the few documents that join",
            ),
        ] {
            let (_, aggregators) = ask(&client, sql).await.expect("an answer");
            assert_eq!(aggregators, 1, "{sql}: {why}");
        }
    }
    let client = cluster.client_of("aggregator-1");
    cluster.kill("aggregator-2");
    for (sql, expected) in &questions {
        let (rows, aggregators) = ask(&client, sql).await.expect("the other one computes it alone");
        assert_eq!((&rows, aggregators), (expected, 1), "{sql}");
    }
    cluster.restart("aggregator-2").await;
    until_together(&client, questions[0].0).await;
}

#[tokio::test]
async fn a_problem_in_a_part_of_a_query_is_said_as_ever_and_a_cancelled_query_leaves_nothing_behind() {
    let settings = Settings::default()
        .distributed()
        .with("RACHIS_AGGREGATOR__QUERY_BYTES_MAX", 16 << 20);
    let rows = 100_000;
    let cluster = Cluster::start(TWO_AGGREGATORS, settings).await;
    load(&cluster, rows).await;
    let client = cluster.client_of("aggregator-1");
    until_together(&client, "select count(*) from facts f join parts p on f.k = p.k").await;
    // More passes through than a query may hold.
    let sql = "select count(*), max(f.pad) from facts f join parts p on f.k = p.k";
    let largest = format!("{:0400}", rows - 1);
    let answer = ask(&client, sql).await.expect("an answer");
    assert_eq!(answer, (vec![vec![json!(rows), json!(largest)]], 2));
    // All but one partition need no row of the larger input.
    let sql = "select count(*), max(f.n), max(f.pad) from facts s join facts f on f.k = s.same";
    let last = rows - rows / 10;
    let answer = ask(&client, sql).await.expect("an answer");
    let expected = vec![json!(10 * rows), json!(last), json!(format!("{last:0400}"))];
    assert_eq!(answer, (vec![expected], 2));
    // The input that a join keeps in memory fits neither here nor there.
    let sql = "select max(a.pad || b.pad) from facts a join facts b on a.n = b.n";
    let refused = client.query(sql, json!({})).await.expect_err("too much memory");
    let refused = format!("{refused:#}");
    assert!(refused.contains("limit_reached"), "{refused}");
    let failed = cluster
        .metric("aggregator-1", "rachis_queries_distributed_failed_total")
        .await;
    assert_eq!(failed.expect("a count"), 1.0, "one aggregator has tried it again");
    let slow = "select count(*) from facts a join facts b on a.few = b.few";
    let late = client
        .query(slow, json!({ "timeout_ms": 300 }))
        .await
        .expect_err("too late");
    let late = format!("{late:#}");
    assert!(late.contains("timeout"), "{late}");
    let running = client.query(slow, json!({ "timeout_ms": 60_000 }));
    let cancel = async {
        let id = eventually("the other aggregator computes a part of it", || async {
            let sql = "select q.id from rachis.queries q join rachis.queries p on q.id = p.id
                       where q.text like '%a.few = b.few%' and p.text like 'a part of%'";
            let rows = client.query(sql, json!({})).await?.rows;
            let id = rows.first().and_then(|row| row[0].as_str());
            Ok(id.context("no part")?.to_owned())
        })
        .await;
        let path = format!("/v1/queries/{id}");
        client
            .json(Method::DELETE, &path, Value::Null)
            .await
            .expect("cancelled");
    };
    let (cancelled, ()) = tokio::join!(running, cancel);
    let cancelled = format!("{:#}", cancelled.expect_err("it was cancelled"));
    assert!(cancelled.contains("cancelled"), "{cancelled}");
    eventually("nothing of it is left", || async {
        let sql = "select node, text from rachis.queries where text not like '%rachis.queries%'";
        let running = client.query(sql, json!({})).await?.rows;
        ensure!(running.is_empty(), "{running:?}");
        for (node, metric) in [
            ("aggregator-1", "rachis_queries_memory_bytes"),
            ("aggregator-2", "rachis_queries_memory_bytes"),
            ("leaf-1", "rachis_leaf_views"),
            ("leaf-2", "rachis_leaf_views"),
        ] {
            let left = cluster.metric(node, metric).await?;
            ensure!(left == 0.0, "{node}: {metric} is {left}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn many_short_queries_are_all_computed_together() {
    let cluster = Cluster::start(TWO_AGGREGATORS, Settings::default().distributed()).await;
    load(&cluster, 1_000).await;
    let client = cluster.client_of("aggregator-1");
    let sql = "select k, count(*) as c from facts group by k order by k";
    until_together(&client, sql).await;
    let asked = (0..60).map(|_| ask(&client, sql));
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(4).collect().await;
    let expected: Vec<Vec<Value>> = (0..100).map(|k| vec![json!(k), json!(10)]).collect();
    for answer in answers {
        let (rows, aggregators) = answer.expect("an answer");
        assert_eq!((rows == expected, aggregators), (true, 2));
    }
    let failed = cluster
        .metric("aggregator-1", "rachis_queries_distributed_failed_total")
        .await;
    assert_eq!(failed.expect("a count"), 0.0);
}

#[tokio::test]
async fn a_frozen_aggregator_does_not_stop_queries_for_long() {
    let mut cluster = Cluster::start(TWO_AGGREGATORS, Settings::default().distributed()).await;
    load(&cluster, 5_000).await;
    let client = cluster.client_of("aggregator-1");
    let sql = "select count(*) from facts f join parts p on f.k = p.k";
    until_together(&client, sql).await;
    cluster.process("aggregator-2").pause();
    let began = std::time::Instant::now();
    let (rows, aggregators) = ask(&client, sql).await.expect("the other one computes it alone");
    assert_eq!((rows, aggregators), (vec![vec![json!(5_000)]], 1));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    cluster.process("aggregator-2").resume();
    until_together(&client, sql).await;
    cluster.kill("aggregator-2");
}
