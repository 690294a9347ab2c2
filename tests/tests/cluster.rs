//! Tailers, leaves and aggregators as separate processes behave like the single-process service, also when nodes fail.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Settings, cluster::ClusterSize, kafka::NewRecord, server};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn an_acknowledged_push_is_visible_at_every_aggregator() {
    let cluster = Cluster::start(ClusterSize::default(), Settings::default()).await;
    let mut pushed = 0;
    for round in 0..20 {
        let body = format!("{{\"round\":{round}}}\n{{\"round\":{round},\"more\":true}}");
        let answer = cluster.push("events", body).await.expect("a push");
        assert_eq!(
            (&answer["accepted"], &answer["rejected"]),
            (&json!(2), &json!(0)),
            "{answer}"
        );
        pushed += 2;
        for _ in 0..2 {
            assert_eq!(
                *cluster.sql("select count(*) from events").await.single_value(),
                json!(pushed)
            );
        }
    }
    let topic = "clicks";
    cluster.kafka.create_topic(topic, 4, &[]).await;
    cluster.source_of_topic(topic, &cluster.kafka).await;
    cluster
        .kafka
        .produce(
            topic,
            (0..1000).map(|n| NewRecord::value(format!("{{\"n\":{n}}}"))).collect(),
        )
        .await;
    cluster
        .eventually("select sum(n)::bigint from clicks", json!(499_500))
        .await;
    let grouped = cluster
        .sql("select n % 10 as d, count(*) as c from clicks group by 1 order by 1")
        .await;
    assert_eq!(grouped.rows.len(), 10);
}

/// The answer of `rachis cluster status`.
fn status(cluster: &Cluster) -> Value {
    let json = cluster
        .command(&["cluster", "status", "-o", "json"])
        .expect("the status");
    serde_json::from_str(&json).expect("JSON")
}

/// The leaf that owns a shard, from the answer of `rachis cluster status`.
fn leaf_of_shard(status: &Value, shard: u64) -> String {
    let row = status["shards"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["shard"] == shard))
        .expect("a row");
    row["leaf"].as_str().expect("a leaf").to_owned()
}

/// Creates the collection `events` with three shards, and 300 documents in it.
async fn create(cluster: &Cluster) {
    cluster
        .json(Method::PUT, "/v1/collections/events", json!({ "shards": 3 }))
        .await
        .expect("a collection");
    let lines: String = (0..300).map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n}}}\n")).collect();
    cluster.push("events", lines).await.expect("a push");
}

/// The same with a shard on each of three leaves. Returns the leaf of each shard.
async fn create_on_three_leaves(cluster: &Cluster) -> Vec<String> {
    create(cluster).await;
    let mut leaves: Vec<(u64, String)> = status(cluster)["shards"]
        .as_array()
        .expect("shards")
        .iter()
        .map(|row| {
            (
                row["shard"].as_u64().expect("a number"),
                row["leaf"].as_str().expect("a leaf").to_owned(),
            )
        })
        .collect();
    leaves.sort();
    let leaves: Vec<String> = leaves.into_iter().map(|(_, leaf)| leaf).collect();
    let mut distinct = leaves.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(
        (leaves.len(), distinct.len()),
        (3, 3),
        "a shard on each leaf: {leaves:?}"
    );
    leaves
}

#[tokio::test]
async fn an_answer_without_a_leaf_is_refused_or_marked_partial() {
    let mut cluster = Cluster::start(ClusterSize::default(), Settings::default().one_replica().no_splits()).await;
    let leaves = create_on_three_leaves(&cluster).await;
    let complete = cluster.sql("select count(*), sum(n)::bigint from events").await;
    assert_eq!(complete.rows, [[json!(300), json!(44_850)]]);
    assert_eq!(complete.stats["shards"], json!({ "total": 3, "answered": 3 }));
    cluster.kill(&leaves[1]);
    for _ in 0..4 {
        let refused = cluster
            .query("select count(*) from events", json!({}))
            .await
            .expect_err("a shard is missing");
        let message = format!("{refused:#}");
        assert!(
            message.contains("503") && message.contains("incomplete") && message.contains("shard 1 of events"),
            "{message}"
        );
    }
    let partial = cluster
        .query("select count(*) from events", json!({ "allow_partial": true }))
        .await
        .expect("a partial answer");
    assert_eq!(
        (&partial.stats["partial"], &partial.stats["shards"]),
        (&json!(true), &json!({ "total": 3, "answered": 2 }))
    );
    let counted = partial.single_value().as_u64().expect("a count");
    assert!((1..300).contains(&counted), "{counted} documents are on two leaves");
    let anti_join = "select count(*) from events where n not in (select n from events where n < 100)";
    let refused = cluster
        .query(anti_join, json!({ "allow_partial": true }))
        .await
        .expect_err("missing rows could add rows to the answer");
    assert!(format!("{refused:#}").contains("503"), "{refused:#}");
    the_catalog_is_described_without_a_leaf(&cluster).await;
    pushes_avoid_a_dead_leaf(&cluster, &leaves[1]).await;
    cluster.restart(&leaves[1]).await;
    assert_eq!(
        cluster.sql("select count(*), sum(n)::bigint from events").await.rows,
        complete.rows
    );
}

async fn the_catalog_is_described_without_a_leaf(cluster: &Cluster) {
    let described = cluster
        .get("/v1/collections/events")
        .await
        .expect("the settings are known");
    assert!(
        described["statistics"].is_null() && described["away"].is_string() && described["settings"]["shards"] == 3,
        "{described}"
    );
    let listed = cluster
        .sql("select name, shards, documents from rachis.collections")
        .await;
    assert_eq!(listed.rows, [[json!("events"), json!(3), json!(null)]]);
    // Every table shows what the other leaves know, and says that a shard is missing. Whether they have splits already is a
    // matter of time.
    for (table, knows_others) in [
        ("collections", Some(false)),
        ("sources", Some(true)),
        ("shards", Some(true)),
        ("splits", None),
        ("fields", Some(true)),
        ("losses", Some(false)),
        ("dead_letters", Some(false)),
    ] {
        let sql = format!(
            "select count(*) filter (where error is null), count(*) filter (where error is not null), max(error) \
             from rachis.{table}"
        );
        let row = cluster.sql(&sql).await.rows.remove(0);
        let error = row[2].as_str().unwrap_or_default();
        assert!(
            row[1] != json!(0)
                && knows_others.is_none_or(|knows| knows == (row[0] != json!(0)))
                && error.contains("leaf-"),
            "rachis.{table}: {row:?}"
        );
    }
}

/// A push without an id may go to any shard, so it goes to a leaf that is up, and the aggregators stay ready.
async fn pushes_avoid_a_dead_leaf(cluster: &Cluster, dead: &str) {
    for n in 0..12 {
        let begun = Instant::now();
        cluster.push("others", format!("{{\"n\":{n}}}")).await.expect("a push");
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "push {n} waited for a dead leaf: {:?}",
            begun.elapsed()
        );
    }
    let partial = cluster
        .query("select count(*) from others", json!({ "allow_partial": true }))
        .await
        .expect("a partial answer");
    assert_eq!(*partial.single_value(), json!(12), "the shards that hold them are up");
    for _ in 0..2 {
        let ready = cluster.get("/readyz").await.expect("the aggregator is ready");
        assert_eq!(ready["leaves_away"], json!([dead]), "{ready}");
    }
}

#[tokio::test]
async fn a_dead_leaf_stalls_its_own_partitions_only() {
    let mut cluster = Cluster::start(ClusterSize::default(), Settings::default().one_replica()).await;
    cluster.kafka.create_topic("clicks", 3, &[]).await;
    cluster.source_of_topic("clicks", &cluster.kafka).await;
    let value = |partition: i32| {
        move |n: i32| NewRecord {
            partition: Some(partition),
            ..NewRecord::value(format!("{{\"n\":{n}}}"))
        }
    };
    cluster
        .kafka
        .produce("clicks", (0..3).flat_map(|p| (0..10).map(value(p))).collect())
        .await;
    cluster.eventually("select count(*) from clicks", json!(30)).await;
    let placed = cluster
        .sql("select partition, shard from rachis.sources where source = 'clicks' order by 1")
        .await;
    let status = status(&cluster);
    let leaves: Vec<String> = placed
        .rows
        .iter()
        .map(|row| leaf_of_shard(&status, row[1].as_u64().expect("a shard")))
        .collect();
    let dead = leaves[0].clone();
    cluster.kill(&dead);
    cluster
        .kafka
        .produce("clicks", (0..3).flat_map(|p| (10..20).map(value(p))).collect())
        .await;
    let others = leaves.iter().filter(|leaf| **leaf != dead).count();
    tests::eventually("the other partitions are ingested", || async {
        let answer = cluster
            .query("select count(*) from clicks", json!({ "allow_partial": true }))
            .await?;
        ensure!(answer.rows == [[json!(others * 20)]], "{answer:?}");
        Ok(())
    })
    .await;
    the_sources_table_shows_a_dead_leaf(&cluster, &leaves, &dead).await;
    the_status_command_shows_a_dead_leaf(&cluster, &dead, &leaf_of_shard(&status, 0));
    cluster.restart(&dead).await;
    cluster.eventually("select count(*) from clicks", json!(60)).await;
}

/// `rachis.sources` shows the partitions of a dead leaf as unknown, with the reason, and the others as they are.
async fn the_sources_table_shows_a_dead_leaf(cluster: &Cluster, leaves: &[String], dead: &str) {
    let sql = "select position, documents, state, error from rachis.sources where source = 'clicks' order by partition";
    tests::eventually(
        "the partitions of the dead leaf are unknown, the others caught up",
        || async {
            let shown = cluster.query(sql, json!({})).await?;
            ensure!(shown.rows.len() == 3, "{shown:?}");
            for (partition, row) in shown.rows.iter().enumerate() {
                if leaves[partition] == dead {
                    let why = row[3].as_str().unwrap_or_default();
                    ensure!(
                        row[..2] == [json!(null), json!(null)] && row[2] == "unknown" && why.contains(dead),
                        "{partition}: {row:?}"
                    );
                } else {
                    ensure!(
                        row == &[json!(19), json!(20), json!("caught_up"), json!(null)],
                        "{partition}: {row:?}"
                    );
                }
            }
            Ok(())
        },
    )
    .await;
}

fn the_status_command_shows_a_dead_leaf(cluster: &Cluster, dead: &str, leaf_of_shard_0: &str) {
    let url = cluster.client_of("aggregator-1").url().to_owned();
    let output = Command::new(server::binary())
        .args(["cluster", "status", "--url", &url])
        .output()
        .expect("the program exits");
    let (shown, warnings) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(warnings.contains("1 of 7 nodes do not respond"), "{warnings}");
    let row = |words: &[&str]| {
        shown
            .lines()
            .any(|line| line.split_whitespace().collect::<Vec<_>>().starts_with(words))
    };
    assert!(
        row(&[dead, "leaf", "away"]) && row(&["tailer-1", "tailer", "up"]) && row(&["clicks", "0", leaf_of_shard_0]),
        "{shown}"
    );
    let by_environment = Command::new(server::binary())
        .args(["cluster", "status"])
        .env("RACHIS_URL", &url)
        .output()
        .expect("the program exits");
    assert_eq!(String::from_utf8_lossy(&by_environment.stdout), shown);
}

#[tokio::test]
async fn a_frozen_leaf_is_reported_in_bounded_time() {
    let cluster = Cluster::start(ClusterSize::default(), Settings::default().one_replica()).await;
    let leaves = create_on_three_leaves(&cluster).await;
    cluster.process(&leaves[2]).pause();
    let begun = Instant::now();
    let refused = cluster
        .query("select count(*) from events", json!({}))
        .await
        .expect_err("a shard does not answer");
    assert!(format!("{refused:#}").contains("503"), "{refused:#}");
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "not long before the deadline of the query: {:?}",
        begun.elapsed()
    );
    let partial = cluster
        .query("select count(*) from events", json!({ "allow_partial": true }))
        .await
        .expect("a partial answer");
    assert_eq!(partial.stats["partial"], true);
    cluster.process(&leaves[2]).resume();
    cluster.eventually("select count(*) from events", json!(300)).await;
}

/// Pushes one document after the other, to the aggregators in turn; each push must succeed. Returns their number.
async fn push_until_cancelled(aggregators: Vec<String>, stop: CancellationToken) -> u64 {
    let client = reqwest::Client::new();
    let mut written = 0_u64;
    while !stop.is_cancelled() {
        let body = format!("{{\"written\":{written}}}");
        let mut target = written as usize;
        let answer = loop {
            let url = format!(
                "{}/v1/collections/events/documents",
                aggregators[target % aggregators.len()]
            );
            let request = client
                .post(url)
                .header("idempotency-key", format!("w{written}"))
                .body(body.clone());
            match request.send().await {
                Ok(answer) => break answer,
                // This aggregator just closed its listener, so the next one is tried. The key keeps it one push.
                Err(_) => target += 1,
            }
            assert!(target < written as usize + 50, "no aggregator accepts connections");
        };
        let status = answer.status();
        assert!(
            status.is_success(),
            "push {written}: {status}: {}",
            answer.text().await.unwrap_or_default()
        );
        written += 1;
    }
    written
}

// Stopping a process blocks a thread, so the writer needs another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_write() {
    let mut cluster = Cluster::start(ClusterSize::default(), Settings::default()).await;
    create(&cluster).await;
    let aggregators: Vec<String> = cluster
        .nodes()
        .filter(|node| node.role == "aggregator")
        .map(|node| node.url.clone())
        .collect();
    let stop = CancellationToken::new();
    let writing = tokio::spawn(push_until_cancelled(aggregators, stop.clone()));
    let names: Vec<String> = cluster.nodes().map(|node| node.name.clone()).collect();
    for name in &names {
        cluster.stop(name);
        cluster.restart(name).await;
    }
    stop.cancel();
    let written = writing.await.expect("no write fails");
    assert!(written >= 10, "{written} writes while seven nodes were restarted");
    let stored = cluster
        .sql("select count(*), count(distinct written) from events where written is not null")
        .await;
    assert_eq!(stored.rows, [[json!(written), json!(written)]]);
}
