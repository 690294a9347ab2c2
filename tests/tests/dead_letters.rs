//! Ingesting dead letters again: several clients ask at once, processes are killed, and a leaf loses its disk, and still each
//! dead letter becomes one document. One that cannot become a document stays.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Client, Cluster, Server, Service, Settings, cluster::ClusterSize, eventually, kafka::NewRecord, query_both, seed,
};

tests::for_single_process_and_cluster! {
    dead_letters_are_ingested_again_once: tests::Settings::default().small_splits(),
}

async fn redrive(client: &Client, collection: &str, body: Value) -> Result<Value> {
    let path = format!("/v1/collections/{collection}/dead-letters/redrive");
    client.json(Method::POST, &path, body).await
}

async fn dead_letters(client: &Client, collection: &str) -> i64 {
    let sql = format!("select count(*) from rachis.dead_letters where collection = '{collection}'");
    client.sql(&sql).await.single_value().as_i64().expect("a number")
}

fn number(answer: &Value, name: &str) -> u64 {
    answer[name].as_u64().unwrap_or_else(|| panic!("{name} in {answer}"))
}

/// The texts of the documents, however they are read.
async fn texts(client: &Client) -> BTreeSet<String> {
    let rows = query_both(client, "select _doc from logs order by _doc limit 100000").await;
    let texts: Vec<String> = rows
        .iter()
        .map(|row| row[0].as_str().expect("a text").to_owned())
        .collect();
    let distinct: BTreeSet<String> = texts.iter().cloned().collect();
    assert_eq!(distinct.len(), texts.len(), "no document occurs twice");
    distinct
}

async fn dead_letters_are_ingested_again_once(mut service: Service) {
    const LINES: usize = 3_000;
    let mut rng = StdRng::seed_from_u64(seed());
    let lines: Vec<String> = (0..LINES)
        .map(|n| match rng.random_range(0..4) {
            0 => format!("{{\"n\":{n}}}"),
            _ => format!("GET /{n} 200"),
        })
        .collect();
    let is_good = |line: &&String| line.starts_with('{');
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.random_range(1..400).min(rest.len()));
        let pushed = service.push("logs", now.join("\n")).await;
        assert!(pushed.is_ok() || !now.iter().any(|line| is_good(&line)), "{pushed:?}");
        rest = later;
    }
    let good: BTreeSet<String> = lines.iter().filter(is_good).cloned().collect();
    let bad = (LINES - good.len()) as u64;
    assert_eq!(texts(&service).await, good);
    assert_eq!(dead_letters(&service, "logs").await, bad as i64);

    for (body, would, stay) in [
        (json!({ "dry_run": true }), 0, bad),
        (json!({ "dry_run": true, "format": "text" }), bad, 0),
    ] {
        let counted = redrive(&service, "logs", body).await.expect("an answer");
        assert_eq!(
            (number(&counted, "dead_letters"), number(&counted, "rejected")),
            (would, stay)
        );
    }
    let other = redrive(&service, "logs", json!({ "source": "other" }))
        .await
        .expect("an answer");
    assert_eq!((number(&other, "redriven"), number(&other, "rejected")), (0, 0));
    // By the same rules they stay as they are.
    let in_vain = redrive(&service, "logs", json!({ "code": "not_json" }))
        .await
        .expect("an answer");
    assert_eq!((number(&in_vain, "redriven"), number(&in_vain, "rejected")), (0, bad));
    assert_eq!(in_vain["errors"].as_array().map(Vec::len), Some(100));
    assert_eq!(dead_letters(&service, "logs").await, bad as i64);
    service.kill_and_restart().await;
    assert_eq!(texts(&service).await, good);

    // As text, by several clients at once; a kill in the middle changes nothing.
    let as_text = || redrive(&service, "logs", json!({ "format": "text" }));
    let answers = tokio::join!(as_text(), as_text(), as_text());
    let answers = [answers.0, answers.1, answers.2].map(|answer| answer.expect("an answer"));
    let sum = |name: &str| answers.iter().map(|answer| number(answer, name)).sum::<u64>();
    assert_eq!((sum("redriven"), sum("rejected")), (bad, 0), "{answers:?}");
    let all: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(texts(&service).await, all);
    assert_eq!(dead_letters(&service, "logs").await, 0);
    service.kill_and_restart().await;
    assert_eq!(texts(&service).await, all);
    let again = redrive(&service, "logs", json!({ "format": "text" }))
        .await
        .expect("an answer");
    assert_eq!((number(&again, "redriven"), number(&again, "gone")), (0, 0));
    service.assert_outcomes_add_up("push").await;
    service.assert_outcomes_add_up("_changes").await;
    let documents = service.outcomes("push").await[6] + service.outcomes("_changes").await[6];
    assert_eq!(documents, LINES as i64);

    // They are documents like others.
    let found = service
        .get("/v1/collections/logs/search?q=get&limit=3")
        .await
        .expect("a search");
    assert_eq!(found["total"], bad);
    let deleted = service.sql("delete from logs where _source = '_changes'").await;
    assert_eq!(deleted.rows[0][0], json!(bad));
    assert_eq!(texts(&service).await, good);
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_redrive_loses_and_doubles_nothing() {
    const COUNT: u64 = 20_000;
    let mut server = Server::start(Settings::default().small_splits()).await;
    let lines: String = (0..COUNT).map(|n| format!("line {n}\n")).collect();
    server.push("logs", format!("{{}}\n{lines}")).await.expect("a push");
    let listed = "select count(*) filter (where error is null), count(*) filter (where error like '%older%left out%') \
                  from rachis.dead_letters";
    let rows = server.sql(listed).await.rows;
    assert_eq!(
        rows,
        [[json!(10_000), json!(1)]],
        "the table has the newest, and says so"
    );
    let mut rng = StdRng::seed_from_u64(seed());
    for _ in 0..3 {
        let stop_at = rng.random_range(1..COUNT / 5);
        let begun = server
            .sql("select count(*) from logs")
            .await
            .single_value()
            .as_u64()
            .expect("a number");
        let client = Client::new(vec![server.url().to_owned()]);
        let running = tokio::spawn(async move { redrive(&client, "logs", json!({ "format": "text" })).await });
        eventually("some are ingested again", async || {
            let count = server
                .query("select count(*) from logs", json!({}))
                .await?
                .single_value()
                .as_u64();
            ensure!(count >= Some(begun + stop_at) || running.is_finished(), "{count:?}");
            Ok(())
        })
        .await;
        server.kill();
        drop(running.await.expect("no panic"));
        server.restart().await;
    }
    let mut body = json!({ "format": "text" });
    loop {
        let answer = redrive(&server, "logs", body.clone()).await.expect("an answer");
        assert_eq!(number(&answer, "rejected"), 0, "{answer}");
        if answer["next"].is_null() {
            break;
        }
        body["from"] = answer["next"].clone();
    }
    assert_eq!(dead_letters(&server, "logs").await, 0);
    let rows = query_both(&server, "select count(*), count(distinct _doc) from logs").await;
    assert_eq!(rows, [[json!(COUNT + 1), json!(COUNT + 1)]]);
    server.assert_outcomes_add_up("_changes").await;
}

#[tokio::test]
async fn a_record_of_kafka_keeps_its_key_its_time_and_its_headers_and_survives_a_lost_disk() {
    let mut cluster = Cluster::start(
        ClusterSize {
            leaves: 1,
            ..ClusterSize::default()
        },
        Settings::default(),
    )
    .await;
    cluster.kafka.create_topic("orders", 1, &[]).await;
    let keyed = json!({ "key": "record" });
    cluster
        .source("orders", "orders", "orders", &cluster.kafka.bootstrap(), keyed)
        .await
        .expect("a source");
    let record = |key: &str, value: &str, time_ms: i64| NewRecord {
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        time_ms: Some(time_ms),
        headers: vec![("trace".into(), Some(key.as_bytes().to_vec()))],
        ..NewRecord::default()
    };
    let records = vec![
        record("a", "{\"v\":1}", 1_000),
        record("a", "{\"v\":2", 2_000),
        record("b", "{\"v\":3", 3_000),
        record("b", "{\"v\":4}", 4_000),
        record("c", "{\"v\":5", 5_000),
    ];
    cluster.kafka.produce("orders", records).await;
    cluster
        .eventually("select count(*) from rachis.dead_letters", json!(3))
        .await;
    let letter = cluster
        .get("/v1/collections/orders/dead-letters/orders%2F0@1")
        .await
        .expect("the dead letter");
    assert_eq!(letter["value"], json!({ "text": "{\"v\":2" }));
    assert_eq!(letter["key"], json!({ "text": "a" }));
    assert_eq!(letter["time"], "1970-01-01T00:00:02.000Z");
    assert_eq!(
        letter["headers"],
        json!([{ "name": "trace", "value": { "text": "a" } }])
    );

    // A later record of b came after its dead letter.
    for (offset, value, redriven) in [(1, "{\"v\":2}", 1), (2, "{\"v\":3}", 0), (4, "{\"v\":50}", 1)] {
        let body = json!({ "addresses": [format!("orders/0@{offset}")], "value": value });
        let answer = redrive(&cluster, "orders", body).await.expect("an answer");
        assert_eq!(number(&answer, "redriven"), redriven, "{answer}");
        assert!(redriven == 1 || answer["errors"][0]["code"] == "superseded", "{answer}");
    }
    let rows = "select _id, v, _source, _key, epoch_ms(_time) from orders order by _id";
    let expected = [
        json!(["a", 2, "_changes", "a", 2_000]),
        json!(["b", 4, "orders", "b", 4_000]),
        json!(["c", 50, "_changes", "c", 5_000]),
    ];
    let rows_are = |answer: &[Vec<Value>]| json!(answer) == json!(expected);
    let answer = query_both(&cluster, rows).await;
    assert!(rows_are(&answer), "{answer:?}");

    cluster.kill("leaf-1");
    std::fs::remove_dir_all(cluster.data_dir("leaf-1")).expect("the disk is lost");
    cluster.kill("aggregator-1");
    cluster.kill("aggregator-2");
    for node in ["leaf-1", "aggregator-1", "aggregator-2"] {
        cluster.restart(node).await;
    }
    eventually("the shards are filled again", async || {
        let answer = cluster.query(rows, json!({ "timeout_ms": 2_000 })).await?;
        ensure!(rows_are(&answer.rows), "{answer:?}");
        Ok(())
    })
    .await;
    assert_eq!(dead_letters(&cluster, "orders").await, 1);
    // A later record of the key replaces the edited one.
    cluster
        .kafka
        .produce("orders", vec![record("c", "{\"v\":6}", 6_000)])
        .await;
    cluster
        .eventually("select v from orders where _id = 'c'", json!(6))
        .await;
    cluster.assert_outcomes_add_up("orders").await;
    cluster.assert_outcomes_add_up("_changes").await;
}

#[tokio::test]
async fn a_wrong_request_says_what_is_wrong_and_ingests_nothing() {
    let server = Server::start(Settings::default()).await;
    let pushed = server.push("logs", "{}\nnot json\n").await.expect("a push");
    assert_eq!(pushed["rejected"], 1, "{pushed}");
    for (body, expected) in [
        (json!({ "value": "{}" }), "exactly one address"),
        (
            json!({ "value": "{}", "addresses": ["push/0@1", "push/0@2"] }),
            "exactly one address",
        ),
        (json!({ "addresses": ["push/0"] }), "push/0"),
        (json!({ "addresses": ["push/0@0.1"], "code": "not_json" }), "excludes"),
        (json!({ "format": "xml" }), "xml"),
        (json!({ "key": "a..b" }), "not a valid path"),
        (json!({ "sources": ["push"] }), "sources"),
    ] {
        let refused = redrive(&server, "logs", body.clone()).await.expect_err("a wrong body");
        let message = format!("{refused:#}");
        assert!(
            message.contains("400") && message.contains(expected),
            "{body}: {message}"
        );
    }
    let missing = redrive(&server, "nowhere", json!({})).await.expect_err("no collection");
    assert!(format!("{missing:#}").contains("404"), "{missing:#}");
    let none = redrive(&server, "logs", json!({ "addresses": ["push/0@77"] }))
        .await
        .expect("an answer");
    assert_eq!(number(&none, "gone"), 1);
    assert_eq!(none["errors"][0]["code"], "no_dead_letter");
    let path = "/v1/collections/logs/dead-letters/push%2F0@77";
    let missing = server
        .get(path)
        .await
        .context("no dead letter")
        .expect_err("the address has no dead letter");
    assert!(format!("{missing:#}").contains("404"), "{missing:#}");
    assert_eq!(*server.sql("select count(*) from logs").await.single_value(), json!(1));
    assert_eq!(dead_letters(&server, "logs").await, 1);
}
