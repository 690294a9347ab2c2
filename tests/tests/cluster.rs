//! Roles apart: tailers, leaves and aggregators as processes are the same service as one process.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Settings, cluster::Size, kafka::Produce, server};

#[tokio::test]
async fn a_push_is_visible_at_every_aggregator_when_it_is_acknowledged() {
    let cluster = Cluster::start(Size::default(), Settings::default()).await;
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
            assert_eq!(*cluster.sql("select count(*) from events").await.one(), json!(pushed));
        }
    }
    let topic = "clicks";
    cluster.kafka.create_topic(topic, 4, &[]).await;
    cluster
        .source("clicks", "clicks", topic, &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    cluster
        .kafka
        .produce(
            topic,
            (0..1000).map(|n| Produce::value(format!("{{\"n\":{n}}}"))).collect(),
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

/// A collection with a shard on each leaf and documents in each shard; the leaf that holds each shard.
async fn on_three_leaves(cluster: &Cluster) -> Vec<String> {
    cluster
        .json(Method::PUT, "/v1/collections/events", json!({ "shards": 3 }))
        .await
        .expect("a collection");
    let lines: String = (0..300).map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n}}}\n")).collect();
    cluster.push("events", lines).await.expect("a push");
    let told: Value = serde_json::from_str(
        &cluster
            .command(&["cluster", "status", "-o", "json"])
            .expect("the status"),
    )
    .expect("JSON");
    let mut leaves: Vec<(u64, String)> = told["shards"]
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
async fn a_leaf_that_is_away_makes_an_answer_incomplete_and_the_answer_says_so() {
    let mut cluster = Cluster::start(Size::default(), Settings::default()).await;
    let leaves = on_three_leaves(&cluster).await;
    let complete = cluster.sql("select count(*), sum(n)::bigint from events").await;
    assert_eq!(complete.rows, [[json!(300), json!(44_850)]]);
    assert_eq!(complete.stats["shards"], json!({ "total": 3, "answered": 3 }));
    cluster.kill(&leaves[1]);
    for _ in 0..4 {
        let refused = cluster
            .ask("select count(*) from events", json!({}))
            .await
            .expect_err("a shard is missing");
        let told = format!("{refused:#}");
        assert!(
            told.contains("503") && told.contains("incomplete") && told.contains("shard 1 of events"),
            "{told}"
        );
    }
    let partial = cluster
        .ask("select count(*) from events", json!({ "allow_partial": true }))
        .await
        .expect("a partial answer");
    assert_eq!(
        (&partial.stats["partial"], &partial.stats["shards"]),
        (&json!(true), &json!({ "total": 3, "answered": 2 }))
    );
    let there = partial.one().as_u64().expect("a count");
    assert!((1..300).contains(&there), "{there} documents are on two leaves");
    let described = cluster
        .get("/v1/collections/events")
        .await
        .expect("what is agreed on is known");
    assert!(
        described["statistics"].is_null() && described["away"].is_string() && described["settings"]["shards"] == 3,
        "{described}"
    );
    let listed = cluster
        .sql("select name, shards, documents from rachis.collections")
        .await;
    assert_eq!(listed.rows, [[json!("events"), json!(3), json!(null)]]);
    let absent = "select count(*) from events where n not in (select n from events where n < 100)";
    let refused = cluster
        .ask(absent, json!({ "allow_partial": true }))
        .await
        .expect_err("rows could appear by absence");
    assert!(format!("{refused:#}").contains("503"), "{refused:#}");

    // A push that may go anywhere goes where somebody is, and no door is closed.
    for n in 0..12 {
        let begun = Instant::now();
        cluster.push("others", format!("{{\"n\":{n}}}")).await.expect("a push");
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "push {n} waited for a leaf that is away: {:?}",
            begun.elapsed()
        );
    }
    let there = cluster
        .ask("select count(*) from others", json!({ "allow_partial": true }))
        .await
        .expect("a partial answer");
    assert_eq!(*there.one(), json!(12), "where they are is there");
    for _ in 0..2 {
        let ready = cluster.get("/readyz").await.expect("the door is ready");
        assert_eq!(ready["leaves_away"], json!([leaves[1]]), "{ready}");
    }
    cluster.start_again(&leaves[1]).await;
    assert_eq!(
        cluster.sql("select count(*), sum(n)::bigint from events").await.rows,
        complete.rows
    );
}

#[tokio::test]
async fn a_dead_leaf_holds_back_its_own_partitions_and_no_others() {
    let mut cluster = Cluster::start(Size::default(), Settings::default()).await;
    cluster.kafka.create_topic("clicks", 3, &[]).await;
    cluster
        .source("clicks", "clicks", "clicks", &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    let value = |partition: i32| {
        move |n: i32| Produce {
            partition: Some(partition),
            ..Produce::value(format!("{{\"n\":{n}}}"))
        }
    };
    cluster
        .kafka
        .produce("clicks", (0..3).flat_map(|p| (0..10).map(value(p))).collect())
        .await;
    cluster.eventually("select count(*) from clicks", json!(30)).await;
    let held = cluster
        .sql("select partition, shard from rachis.sources where source = 'clicks' order by 1")
        .await;
    let told: Value = serde_json::from_str(
        &cluster
            .command(&["cluster", "status", "-o", "json"])
            .expect("the status"),
    )
    .expect("JSON");
    let leaf_of_shard = |shard: u64| {
        let row = told["shards"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["shard"] == shard))
            .expect("a row");
        row["leaf"].as_str().expect("a leaf").to_owned()
    };
    let leaf_of = |partition: usize| leaf_of_shard(held.rows[partition][1].as_u64().expect("a shard"));
    let dead = leaf_of(0);
    cluster.kill(&dead);
    cluster
        .kafka
        .produce("clicks", (0..3).flat_map(|p| (10..20).map(value(p))).collect())
        .await;
    let others = (0..3).filter(|partition| leaf_of(*partition) != dead).count();
    tests::eventually("the other partitions go on", || async {
        let answer = cluster
            .ask("select count(*) from clicks", json!({ "allow_partial": true }))
            .await?;
        anyhow::ensure!(answer.rows == [[json!(others * 20)]], "{answer:?}");
        Ok(())
    })
    .await;
    tests::eventually("each partition is shown as it is, and those of the dead leaf as unknown, with the reason", || async {
        let shown =
            cluster.ask("select position, documents, state, error from rachis.sources where source = 'clicks' order by partition", json!({})).await?;
        anyhow::ensure!(shown.rows.len() == 3, "{shown:?}");
        for (partition, row) in shown.rows.iter().enumerate() {
            match leaf_of(partition) == dead {
                true => {
                    let why = row[3].as_str().unwrap_or_default();
                    anyhow::ensure!(row[..2] == [json!(null), json!(null)] && row[2] == "unknown" && why.contains(&dead), "{partition}: {row:?}");
                }
                false => anyhow::ensure!(row == &[json!(19), json!(20), json!("caught_up"), json!(null)], "{partition}: {row:?}"),
            }
        }
        Ok(())
    })
    .await;
    let url = cluster.door("aggregator-1").url().to_owned();
    let status = Command::new(server::binary())
        .args(["cluster", "status", "--url", &url])
        .output()
        .expect("it ends");
    let (shown, noted) = (
        String::from_utf8_lossy(&status.stdout),
        String::from_utf8_lossy(&status.stderr),
    );
    assert!(noted.contains("1 of 7 nodes do not answer"), "{noted}");
    let row = |words: &[&str]| {
        shown
            .lines()
            .any(|line| line.split_whitespace().collect::<Vec<_>>().starts_with(words))
    };
    assert!(
        row(&[&dead, "leaf", "away"]) && row(&["tailer-1", "tailer", "up"]) && row(&["clicks", "0", &leaf_of_shard(0)]),
        "{shown}"
    );
    let by_environment = Command::new(server::binary())
        .args(["cluster", "status"])
        .env("RACHIS_URL", &url)
        .output()
        .expect("it ends");
    assert_eq!(String::from_utf8_lossy(&by_environment.stdout), shown);
    cluster.start_again(&dead).await;
    cluster.eventually("select count(*) from clicks", json!(60)).await;
}

#[tokio::test]
async fn a_frozen_leaf_is_told_of_in_bounded_time() {
    let cluster = Cluster::start(Size::default(), Settings::default()).await;
    let leaves = on_three_leaves(&cluster).await;
    cluster.process(&leaves[2]).pause();
    let begun = Instant::now();
    let refused = cluster
        .ask("select count(*) from events", json!({}))
        .await
        .expect_err("a shard does not answer");
    assert!(format!("{refused:#}").contains("503"), "{refused:#}");
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "long before the question's own deadline: {:?}",
        begun.elapsed()
    );
    let partial = cluster
        .ask("select count(*) from events", json!({ "allow_partial": true }))
        .await
        .expect("a partial answer");
    assert_eq!(partial.stats["partial"], true);
    cluster.process(&leaves[2]).resume();
    cluster.eventually("select count(*) from events", json!(300)).await;
}

// The end of a process is waited for on a thread of its own, while writes go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_write() {
    let mut cluster = Cluster::start(Size::default(), Settings::default()).await;
    on_three_leaves(&cluster).await;
    let doors: Vec<String> = cluster
        .nodes()
        .filter(|node| node.role == "aggregator")
        .map(|node| node.url.clone())
        .collect();
    let stop = tokio_util::sync::CancellationToken::new();
    let (told, writer) = (stop.clone(), reqwest::Client::new());
    let writing = tokio::spawn(async move {
        let mut written = 0_u64;
        while !told.is_cancelled() {
            let body = format!("{{\"written\":{written}}}");
            let mut door = written as usize;
            let answer = loop {
                let url = format!("{}/v1/collections/events/documents", doors[door % doors.len()]);
                match writer
                    .post(url)
                    .header("idempotency-key", format!("w{written}"))
                    .body(body.clone())
                    .send()
                    .await
                {
                    Ok(answer) => break answer,
                    // A door that just closed: the next one is open. The key makes it one push.
                    Err(_) => door += 1,
                }
                assert!(door < written as usize + 50, "no door is open");
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
    });
    let names: Vec<String> = cluster.nodes().map(|node| node.name.clone()).collect();
    for name in &names {
        cluster.stop(name);
        cluster.start_again(name).await;
    }
    stop.cancel();
    let written = writing.await.expect("no write fails");
    assert!(written >= 10, "{written} writes while seven nodes were restarted");
    let there = cluster
        .sql("select count(*), count(distinct written) from events where written is not null")
        .await;
    assert_eq!(there.rows, [[json!(written), json!(written)]]);
}
