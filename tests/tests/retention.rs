//! Retention: what is older than a collection keeps it is gone from every answer, is counted, and stays gone; what is
//! younger stays.

use std::collections::BTreeSet;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Client, Cluster, Server, Service, cluster::ClusterSize, eventually, files::texts_in_files, kafka::NewRecord,
    query_both, seed,
};

tests::for_single_process_and_cluster! {
    documents_older_than_the_retention_never_answer_again: tests::Settings::default().small_splits(),
    documents_expire_while_nobody_asks_for_it: tests::Settings::default(),
    a_wrong_retention_says_what_is_wrong_and_removes_nothing: tests::Settings::default(),
}

async fn put(client: &Client, settings: Value) -> Value {
    let put = client.json(Method::PUT, "/v1/collections/events", settings).await;
    put.expect("settings")
}

/// A document whose event is this many days old.
fn aged(n: u64, days: i64, text: &str) -> String {
    let at = chrono::Utc::now() - chrono::TimeDelta::days(days);
    format!(
        "{{\"n\":{n},\"at\":\"{}\",\"text\":\"{text}\"}}",
        at.format("%Y-%m-%dT%H:%M:%SZ")
    )
}

async fn numbers(client: &Client) -> BTreeSet<u64> {
    let rows = query_both(client, "select n from events order by n limit 100000").await;
    rows.iter().map(|row| row[0].as_u64().expect("a number")).collect()
}

/// The documents of `events` that its sources counted as expired, and as deleted.
async fn expired_and_deleted(client: &Client) -> (i64, i64) {
    let sums = "select sum(expired)::bigint, sum(deleted)::bigint from rachis.sources where collection = 'events'";
    let rows = client.sql(sums).await.rows;
    let number = |value: &Value| value.as_i64().expect("a number");
    (number(&rows[0][0]), number(&rows[0][1]))
}

async fn documents_older_than_the_retention_never_answer_again(mut service: Service) {
    const DAYS: u64 = 60;
    const OF_A_DAY: u64 = 40;
    put(&service, json!({ "shards": 3, "time_path": "at" })).await;
    let documents: Vec<String> = (0..DAYS * OF_A_DAY)
        .map(|n| aged(n, (n % DAYS).cast_signed(), &format!("word{n} all")))
        .collect();
    for part in documents.chunks(700) {
        service.push("events", part.join("\n")).await.expect("a push");
    }
    let stays = |kept: u64| -> BTreeSet<u64> { (0..DAYS * OF_A_DAY).filter(|n| n % DAYS < kept).collect() };
    assert_eq!(numbers(&service).await.len() as u64, DAYS * OF_A_DAY);
    // Some of what expires is deleted before, and counts as deleted.
    let deleted = service.sql("delete from events where n % 60 = 59").await.rows[0][0].as_i64();
    assert_eq!(deleted, Some(OF_A_DAY.cast_signed()));
    for kept in [40, 20] {
        let answer = put(&service, json!({ "retention": format!("{kept}d by event") })).await;
        assert!(answer["warnings"].is_null(), "{answer}");
        assert_eq!(answer["settings"]["retention"], format!("{kept}d by event"));
        assert_eq!(numbers(&service).await, stays(kept), "with the answer");
        let gone = service
            .get("/v1/collections/events/search?q=word45")
            .await
            .expect("a search");
        let left = service
            .get("/v1/collections/events/search?q=word61")
            .await
            .expect("a search");
        assert_eq!((&gone["total"], &left["total"]), (&json!(0), &json!(1)));
        service.kill_and_restart().await;
        assert_eq!(numbers(&service).await, stays(kept), "after a kill");
    }
    let expired = ((DAYS - 20 - 1) * OF_A_DAY).cast_signed();
    assert_eq!(expired_and_deleted(&service).await, (expired, OF_A_DAY.cast_signed()));
    service.assert_outcomes_add_up("push").await;
    let listed = "select cause, documents, complete, condition like 'retention 20d by event: _time < %' \
                  from rachis.deletes where collection = 'events' order by requested";
    let rows = service.sql(listed).await.rows;
    assert_eq!(rows[0][..2], [json!("request"), json!(OF_A_DAY)]);
    // Of all removals of expired documents, the last one is listed.
    assert_eq!(
        rows[1..],
        [[json!("retention"), json!(20 * OF_A_DAY), json!(true), json!(true)]]
    );

    // An event that comes too late is counted, and not lost silently.
    service.push("events", aged(9_000, 21, "late")).await.expect("a push");
    put(&service, json!({ "retention": "20d by event" })).await;
    assert_eq!(numbers(&service).await, stays(20));
    assert_eq!(expired_and_deleted(&service).await.0, expired + 1);
    // Without a retention everything is kept again, but nothing comes back.
    put(&service, json!({ "retention": null })).await;
    service.push("events", aged(9_001, 21, "late")).await.expect("a push");
    let mut wanted = stays(20);
    wanted.insert(9_001);
    assert_eq!(numbers(&service).await, wanted);
    // The time path decides, at any time and for all history: without it, all documents are of today.
    put(&service, json!({ "time_path": null, "retention": "20d by event" })).await;
    assert_eq!(numbers(&service).await, wanted);
    put(&service, json!({ "time_path": "at" })).await;
    assert_eq!(numbers(&service).await, stays(20));
}

async fn documents_expire_while_nobody_asks_for_it(service: Service) {
    put(&service, json!({ "retention": "1s" })).await;
    let lines: String = (0..1_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    service.push("events", lines).await.expect("a push");
    service.eventually("select count(*) from events", json!(0)).await;
    assert_eq!(expired_and_deleted(&service).await, (1_000, 0));
    put(&service, json!({ "retention": "1h" })).await;
    service.push("events", "{\"n\":1}").await.expect("a push");
    let listed = "select retention from rachis.collections where name = 'events'";
    assert_eq!(service.sql(listed).await.rows, [[json!("1h")]]);
    assert_eq!(numbers(&service).await, BTreeSet::from([1]));
}

async fn a_wrong_retention_says_what_is_wrong_and_removes_nothing(service: Service) {
    service.push("events", aged(1, 9_000, "old")).await.expect("a push");
    for retention in [
        json!("30 moons"),
        json!("0s"),
        json!("30d by size"),
        json!(""),
        json!(30),
        json!("-1d"),
    ] {
        let refused = service
            .json(Method::PUT, "/v1/collections/events", json!({ "retention": retention }))
            .await
            .expect_err("a wrong retention");
        let message = format!("{refused:#}");
        assert!(
            message.contains("400") && message.contains("30d"),
            "{retention}: {message}"
        );
    }
    assert_eq!(numbers(&service).await, BTreeSet::from([1]));
}

#[tokio::test]
async fn no_file_has_a_byte_of_what_has_expired() {
    let settings = tests::Settings::default().small_splits();
    let server = Server::start(settings.with("RACHIS_LEAF__DELETED_KEPT_MS", 200)).await;
    put(&server, json!({ "time_path": "at" })).await;
    let mut rng = StdRng::seed_from_u64(seed());
    // Random, so that no compression hides all of them.
    let secrets: Vec<String> = (0..2_000)
        .map(|n| {
            format!(
                "{n}x{}",
                std::iter::repeat_with(|| rng.random_range('a'..='z'))
                    .take(24)
                    .collect::<String>()
            )
        })
        .collect();
    let document = |(n, secret): (i64, &String)| aged(n.cast_unsigned(), n % 2 * 99, secret);
    let lines: Vec<String> = (0..).zip(&secrets).map(document).collect();
    server.push("events", lines.join("\n")).await.expect("a push");
    server.wait_for_splits(2_000).await;
    let found = texts_in_files(vec![server.data_dir()], &secrets);
    assert!(
        found.len() > 1_000,
        "the search finds {} of 2000 documents",
        found.len()
    );
    put(&server, json!({ "retention": "30d by event" })).await;
    server
        .eventually("select bool_and(erased) from rachis.deletes", json!(true))
        .await;
    let splits = "select sum(documents)::bigint, sum(gone)::bigint from rachis.splits";
    assert_eq!(server.sql(splits).await.rows, [[json!(1_000), json!(0)]]);
    let mut found = texts_in_files(vec![server.data_dir()], &secrets);
    found.retain(|number, _| number % 2 == 1);
    assert!(
        found.is_empty(),
        "{} texts are left: {:?}",
        found.len(),
        found.first_key_value()
    );
}

#[tokio::test]
async fn a_leaf_that_lost_its_disk_never_shows_what_has_expired() {
    let size = ClusterSize {
        leaves: 1,
        ..ClusterSize::default()
    };
    let mut cluster = Cluster::start(size, tests::Settings::default().small_splits()).await;
    cluster.kafka.create_topic("events", 2, &[]).await;
    cluster.source_of_topic("events", &cluster.kafka).await;
    let year = |n: u32| if n.is_multiple_of(3) { 1990 } else { 2025 };
    let records = (0..6_000).map(|n| NewRecord::value(format!("{{\"n\":{n},\"at\":\"{}-05-05T00:00:00Z\"}}", year(n))));
    cluster.kafka.produce("events", records.collect()).await;
    cluster.eventually("select count(*) from events", json!(6_000)).await;
    cluster.sql("delete from events where n % 6 = 0").await;
    let answer = put(&cluster, json!({ "time_path": "at", "retention": "20y by event" })).await;
    assert!(answer["warnings"].is_null(), "{answer}");
    let counts = "select count(*), count(*) filter (where n % 3 = 0) from events";
    assert_eq!(cluster.sql(counts).await.rows, [[json!(4_000), json!(0)]]);
    assert_eq!(expired_and_deleted(&cluster).await, (1_000, 1_000));

    cluster.kill("leaf-1");
    std::fs::remove_dir_all(cluster.data_dir("leaf-1")).expect("the disk is lost");
    // Nothing removes expired documents now but what the records of the changes say.
    put(&cluster, json!({ "retention": null })).await;
    cluster.restart("leaf-1").await;
    eventually("the shards are filled again", async || {
        let answer = cluster.query(counts, json!({ "timeout_ms": 2_000 })).await?;
        assert_eq!(answer.rows[0][1], json!(0), "an expired document shows");
        anyhow::ensure!(answer.rows[0][0] == json!(4_000), "{answer:?}");
        Ok(())
    })
    .await;
    cluster.assert_outcomes_add_up("events").await;
    assert_eq!(expired_and_deleted(&cluster).await, (1_000, 1_000));
}
