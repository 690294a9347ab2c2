//! From a Kafka topic to an answer: documents are queried by SQL and by id, byte for byte; keys, tombstones, text and
//! dead letters; and the errors that a user sees.

#[path = "kafka_to_answer/stopped.rs"]
mod stopped;
#[path = "kafka_to_answer/support.rs"]
mod support;

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use stopped::{
    a_lost_range_stops_its_partition_until_it_is_skipped,
    a_source_without_json_stops_until_its_dead_letters_are_cleared,
};
use support::{check_by_id, check_caught_up, check_rejected, numbers, wait_for_offsets};
use tests::{
    Client, Kafka, Server, Service, Settings, data, eventually, kafka::NewRecord, oracle::SETS, unused_address,
};

tests::for_single_process_and_cluster! {
    keys_tombstones_text_and_dead_letters_are_queried_as_documented: tests::Settings::default(),
    a_source_is_previewed_suspended_resumed_and_shows_its_errors: tests::Settings::default(),
    a_lost_range_stops_its_partition_until_it_is_skipped: tests::Settings::default(),
    a_source_without_json_stops_until_its_dead_letters_are_cleared: tests::Settings::default(),
}

/// Partitions of each topic of real events.
const PARTITIONS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn real_events_are_queried_byte_for_byte() {
    if data::folder().is_none() {
        return;
    }
    let (kafka, mut server) = tokio::join!(Kafka::start(), Server::start(Settings::default()));
    for (set, file) in SETS {
        let documents = data::documents(file).expect("documents");
        kafka.create_topic(set, PARTITIONS as i32, &[]).await;
        let record = |(i, document): (usize, &String)| NewRecord {
            partition: Some((i % PARTITIONS) as i32),
            ..NewRecord::value(document.as_str())
        };
        let (first, second) = documents.split_at(documents.len() / 2);
        let mut offsets = kafka.produce(set, first.iter().enumerate().map(record).collect()).await;
        server.source_of_topic(set, &kafka).await;
        // The second half is produced while the first is read.
        offsets.extend(
            kafka
                .produce(set, second.iter().enumerate().map(record).collect())
                .await,
        );
        wait_for_offsets(&server, set, &offsets).await;
        server.assert_outcomes_add_up(set).await;
        assert_eq!(server.outcomes(set).await[0], documents.len() as i64);
        check_by_id(&server, set, &documents, &offsets)
            .await
            .expect("each document by its address");
    }
    server.stop();
    server.restart().await;
    for (set, file) in SETS {
        let documents = data::documents(file).expect("documents");
        assert_eq!(
            *server.sql(&format!("select count(*) from {set}")).await.single_value(),
            json!(documents.len())
        );
        eventually("it catches up after a restart", || check_caught_up(&server, set)).await;
    }
}

async fn keys_tombstones_text_and_dead_letters_are_queried_as_documented(server: Service) {
    let kafka = Kafka::start().await;
    for topic in ["accounts", "by-path", "lines"] {
        kafka.create_topic(topic, 1, &[]).await;
    }
    produce_samples(&kafka).await;
    for (topic, collection, settings) in [
        ("accounts", "accounts", json!({ "key": "record" })),
        ("by-path", "paths", json!({ "key": "u.id" })),
        ("lines", "lines", json!({ "format": "text" })),
    ] {
        server
            .source(topic, collection, topic, &kafka.bootstrap(), settings)
            .await
            .expect("a source");
    }
    check_accounts(&server).await;

    wait_for_offsets(&server, "by-path", &[(0, 2)]).await;
    assert_eq!(
        server.sql("select v from paths order by v").await.rows,
        [[json!(2)], [json!(3)]]
    );

    wait_for_offsets(&server, "lines", &[(0, 2)]).await;
    let lines = server.sql("select _doc from lines order by _offset").await.rows;
    assert!(
        lines.contains(&vec![json!("first line")]) && lines.contains(&vec![json!("{\"a\":1}")]),
        "{lines:?}"
    );
    // A line of plain text stays one, whatever it looks like.
    let score = |word: &str| format!("select score() > 0.5 from lines where search('{word}')");
    for word in ["first", "a"] {
        assert_eq!(server.sql(&score(word)).await.rows, [[json!(true)]], "{word}");
    }
}

async fn produce_samples(kafka: &Kafka) {
    let accounts = [
        ("a", Some(r#"{"v":1}"#)),
        ("b", Some(r#"{"v":2}"#)),
        ("a", Some(r#"{ "v" : 3 }"#)),
        ("b", None),
        ("c", Some("{oops")),
        ("d", Some(r#"{"v":4}"#)),
    ];
    kafka
        .produce(
            "accounts",
            accounts
                .map(|(key, value)| NewRecord::keyed(key, value.map(Into::into)))
                .to_vec(),
        )
        .await;
    kafka
        .produce(
            "by-path",
            [
                "{\"u\":{\"id\":7},\"v\":1}",
                "{\"u\":{\"id\":7},\"v\":2}",
                "{\"u\":{\"id\":8},\"v\":3}",
            ]
            .map(NewRecord::value)
            .to_vec(),
        )
        .await;
    kafka
        .produce("lines", ["first line", "", "{\"a\":1}"].map(NewRecord::value).to_vec())
        .await;
}

/// The last document of each key is stored, unless a tombstone follows it; a record that is not JSON is a dead letter.
async fn check_accounts(server: &Client) {
    wait_for_offsets(server, "accounts", &[(0, 5)]).await;
    assert_eq!(
        server.sql("select _id, v from accounts order by _id").await.rows,
        [[json!("a"), json!(3)], [json!("d"), json!(4)]]
    );
    assert_eq!(
        server.document("accounts", "a").await.expect("an answer").as_deref(),
        Some(&b"{ \"v\" : 3 }"[..]),
        "byte for byte"
    );
    assert_eq!(
        server.document("accounts", "b").await.expect("an answer"),
        None,
        "a tombstone removes it"
    );
    assert_eq!(server.outcomes("accounts").await, [6, 4, 1, 1, 1, 1, 2]);
    let dead = server
        .sql("select address, bytes from rachis.dead_letters where collection = 'accounts'")
        .await;
    assert_eq!(dead.rows, [[json!("accounts/0@4"), json!("{oops")]]);
}

async fn a_source_is_previewed_suspended_resumed_and_shows_its_errors(server: Service) {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("orders", 2, &[]).await;
    kafka.produce("orders", numbers(0..10)).await;
    check_preview(&server, &kafka).await;
    check_rejected_settings(&server, &kafka).await;

    server
        .json(Method::PUT, "/v1/sources/orders", orders_settings(&kafka, "orders"))
        .await
        .expect("a source");
    server.eventually("select count(*) from orders", json!(10)).await;
    server
        .json(Method::POST, "/v1/sources/orders/suspend", json!({}))
        .await
        .expect("suspended");
    kafka.produce("orders", numbers(10..20)).await;
    let states = server
        .sql("select distinct state from rachis.sources where source = 'orders' and state is not null")
        .await;
    assert_eq!(states.rows, [[json!("suspended")]]);
    assert_eq!(
        *server.sql("select count(*) from orders").await.single_value(),
        json!(10)
    );
    server
        .json(Method::POST, "/v1/sources/orders/resume", json!({}))
        .await
        .expect("resumed");
    server.eventually("select count(*) from orders", json!(20)).await;

    kafka.kill();
    wait_for_connection_error(&server).await;
    assert_eq!(
        *server.sql("select count(*) from orders").await.single_value(),
        json!(20),
        "queries are answered without Kafka"
    );
    kafka.restart().await;
    kafka.produce("orders", numbers(20..30)).await;
    server.eventually("select count(*) from orders", json!(30)).await;
    eventually("the error has cleared", || check_caught_up(&server, "orders")).await;
}

fn orders_settings(kafka: &Kafka, topic: &str) -> Value {
    json!({ "collection": "orders", "topic": topic, "config": { "bootstrap.servers": kafka.bootstrap() } })
}

async fn check_preview(server: &Client, kafka: &Kafka) {
    let preview = server
        .json(
            Method::POST,
            "/v1/sources/orders/preview",
            orders_settings(kafka, "orders"),
        )
        .await
        .expect("a preview");
    assert_eq!(
        (&preview["partitions"], preview["records"].as_array().map(Vec::len)),
        (&json!(2), Some(10))
    );
    assert!(
        server.get("/v1/collections/orders").await.is_err(),
        "a preview creates nothing"
    );
}

async fn check_rejected_settings(server: &Client, kafka: &Kafka) {
    check_rejected(server, orders_settings(kafka, "order"), 404, "order").await;
    let mut misspelt = orders_settings(kafka, "orders");
    misspelt["config"]["fetch.mim.bytes"] = json!("1");
    check_rejected(server, misspelt, 400, "fetch.mim.bytes").await;
    let mut unreachable = orders_settings(kafka, "orders");
    unreachable["config"]["bootstrap.servers"] = json!(unused_address());
    check_rejected(server, unreachable, 503, "bootstrap.servers").await;
}

async fn wait_for_connection_error(server: &Client) {
    eventually("the source shows the error", || async {
        let errors = server
            .query(
                "select error from rachis.sources where source = 'orders' and error is not null",
                json!({}),
            )
            .await?;
        ensure!(
            errors
                .rows
                .iter()
                .any(|row| row[0].as_str().is_some_and(|error| error.contains("bootstrap.servers"))),
            "{errors:?}"
        );
        Ok(())
    })
    .await;
}
