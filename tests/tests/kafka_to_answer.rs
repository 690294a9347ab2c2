//! From a Kafka topic to an answer: what was produced is asked back by SQL and by id, byte for byte; keys, tombstones,
//! text and dead letters; and what a user is told where something is wrong.

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Kafka, Server, Service, Settings, data, eventually, kafka::Produce, oracle::SETS};

tests::of_one_process_and_of_a_cluster! {
    keys_tombstones_text_and_dead_letters_are_what_they_say: tests::Settings::default(),
    a_source_is_looked_at_suspended_resumed_and_says_what_is_wrong: tests::Settings::default(),
    a_lost_range_stops_its_partition_and_a_skip_goes_on: tests::Settings::default(),
    a_source_of_nonsense_stops_and_goes_on_once_its_dead_letters_are_cleared: tests::Settings::default(),
}

const PARTITIONS: usize = 3;
/// Documents that are asked back by id, of each set.
const DOCUMENTS_ASKED: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn real_events_go_from_kafka_to_answers_byte_for_byte() {
    if data::folder().is_none() {
        return;
    }
    let (kafka, mut server) = tokio::join!(Kafka::start(), Server::start(Settings::default()));
    for (set, file) in SETS {
        let documents = data::documents(file).expect("documents");
        kafka.create_topic(set, PARTITIONS as i32, &[]).await;
        let record = |(i, document): (usize, &String)| Produce {
            partition: Some((i % PARTITIONS) as i32),
            ..Produce::value(document.as_str())
        };
        let (first, second) = documents.split_at(documents.len() / 2);
        let mut places = kafka.produce(set, first.iter().enumerate().map(record).collect()).await;
        server
            .source(set, set, set, &kafka.bootstrap(), json!({}))
            .await
            .expect("a source");
        // The second half comes while the first is read.
        places.extend(
            kafka
                .produce(set, second.iter().enumerate().map(record).collect())
                .await,
        );
        is_in(&server, set, &places).await;
        equations_hold(&server, set, documents.len()).await;
        by_id(&server, set, &documents, &places)
            .await
            .expect("each document by its address");
    }
    server.stop();
    server.start_again().await;
    for (set, file) in SETS {
        let documents = data::documents(file).expect("documents");
        assert_eq!(
            *server.sql(&format!("select count(*) from {set}")).await.one(),
            json!(documents.len())
        );
        eventually("it reads on after a restart", || caught_up(&server, set)).await;
    }
}

async fn keys_tombstones_text_and_dead_letters_are_what_they_say(server: Service) {
    let kafka = Kafka::start().await;
    for topic in ["accounts", "by-path", "lines"] {
        kafka.create_topic(topic, 1, &[]).await;
    }
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
                .map(|(key, value)| Produce::keyed(key, value.map(Into::into)))
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
            .map(Produce::value)
            .to_vec(),
        )
        .await;
    kafka
        .produce("lines", ["first line", "", "{\"a\":1}"].map(Produce::value).to_vec())
        .await;
    server
        .source(
            "accounts",
            "accounts",
            "accounts",
            &kafka.bootstrap(),
            json!({ "key": "record" }),
        )
        .await
        .expect("a source");
    server
        .source(
            "by-path",
            "paths",
            "by-path",
            &kafka.bootstrap(),
            json!({ "key": "u.id" }),
        )
        .await
        .expect("a source");
    server
        .source(
            "lines",
            "lines",
            "lines",
            &kafka.bootstrap(),
            json!({ "format": "text" }),
        )
        .await
        .expect("a source");

    is_in(&server, "accounts", &[(0, 5)]).await;
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
    assert_eq!(outcomes(&server, "accounts").await, [6, 4, 1, 1, 1, 1, 2]);
    let dead = server
        .sql("select address, bytes from rachis.dead_letters where collection = 'accounts'")
        .await;
    assert_eq!(dead.rows, [[json!("accounts/0@4"), json!("{oops")]]);

    is_in(&server, "by-path", &[(0, 2)]).await;
    assert_eq!(
        server.sql("select v from paths order by v").await.rows,
        [[json!(2)], [json!(3)]]
    );

    is_in(&server, "lines", &[(0, 2)]).await;
    let lines = server.sql("select _doc from lines order by _offset").await.rows;
    assert!(
        lines.contains(&vec![json!("first line")]) && lines.contains(&vec![json!("{\"a\":1}")]),
        "{lines:?}"
    );
}

async fn a_source_is_looked_at_suspended_resumed_and_says_what_is_wrong(server: Service) {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("orders", 2, &[]).await;
    kafka.produce("orders", numbers(0..10)).await;
    let body = |topic: &str| json!({ "collection": "orders", "topic": topic, "config": { "bootstrap.servers": kafka.bootstrap() } });

    let shown = server
        .json(Method::POST, "/v1/sources/orders/preview", body("orders"))
        .await
        .expect("a preview");
    assert_eq!(
        (&shown["partitions"], shown["records"].as_array().map(Vec::len)),
        (&json!(2), Some(10))
    );
    assert!(
        server.get("/v1/collections/orders").await.is_err(),
        "a preview creates nothing"
    );
    refused(&server, body("order"), 404, "order").await;
    let mut misspelt = body("orders");
    misspelt["config"]["fetch.mim.bytes"] = json!("1");
    refused(&server, misspelt, 400, "fetch.mim.bytes").await;
    let mut nobody = body("orders");
    nobody["config"]["bootstrap.servers"] = json!(format!("127.0.0.1:{}", closed_port()));
    refused(&server, nobody, 503, "bootstrap.servers").await;

    server
        .json(Method::PUT, "/v1/sources/orders", body("orders"))
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
    assert_eq!(*server.sql("select count(*) from orders").await.one(), json!(10));
    server
        .json(Method::POST, "/v1/sources/orders/resume", json!({}))
        .await
        .expect("resumed");
    server.eventually("select count(*) from orders", json!(20)).await;

    kafka.kill();
    eventually("the error shows", || async {
        let errors = server
            .ask(
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
    assert_eq!(
        *server.sql("select count(*) from orders").await.one(),
        json!(20),
        "questions are answered without Kafka"
    );
    kafka.start_again().await;
    kafka.produce("orders", numbers(20..30)).await;
    server.eventually("select count(*) from orders", json!(30)).await;
    eventually("the error is gone", || caught_up(&server, "orders")).await;
}

async fn a_source_of_nonsense_stops_and_goes_on_once_its_dead_letters_are_cleared(server: Service) {
    let kafka = Kafka::start().await;
    kafka.create_topic("mixed-up", 1, &[]).await;
    kafka.produce("mixed-up", vec![Produce::value("nonsense"); 600]).await;
    server
        .source("mixed-up", "mixed", "mixed-up", &kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    let call = "/v1/collections/mixed/dead-letters?source=mixed-up";
    eventually("it stops, and says how it goes on", async || {
        let rows = server
            .ask(
                "select state, error from rachis.sources where source = 'mixed-up'",
                json!({}),
            )
            .await?
            .rows;
        let stopped = rows.iter().any(|row| {
            row[0] == "stopped"
                && row[1]
                    .as_str()
                    .is_some_and(|why| why.contains(&format!("DELETE {call}")))
        });
        ensure!(stopped, "{rows:?}");
        Ok(())
    })
    .await;
    kafka.produce("mixed-up", vec![Produce::value("{\"a\":1}"); 10]).await;
    let cleared = server
        .json(Method::DELETE, call, Value::Null)
        .await
        .expect("they are cleared");
    assert_eq!(
        (&cleared["cleared"], &cleared["complete"]),
        (&json!(501), &json!(true)),
        "{cleared}"
    );
    server.eventually("select count(*) from mixed", json!(10)).await;
    eventually("it is at its end", || caught_up(&server, "mixed-up")).await;
    assert_eq!(
        server.sql("select count(*) from rachis.dead_letters").await.one(),
        &json!(99),
        "what came behind the stop"
    );
}

async fn a_lost_range_stops_its_partition_and_a_skip_goes_on(server: Service) {
    let kafka = Kafka::start().await;
    kafka.create_topic("t", 1, &[]).await;
    kafka.produce("t", numbers_in(0, 0..20)).await;
    server
        .source("t", "t", "t", &kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    server.eventually("select count(*) from t", json!(20)).await;
    server
        .json(Method::POST, "/v1/sources/t/suspend", json!({}))
        .await
        .expect("suspended");
    kafka.produce("t", numbers_in(0, 20..100)).await;
    kafka.delete_records_before("t", 0, 50).await;
    server
        .json(Method::POST, "/v1/sources/t/resume", json!({}))
        .await
        .expect("resumed");
    eventually("the lost range is said", || async {
        let row = server
            .ask("select state, error from rachis.sources where source = 't'", json!({}))
            .await?;
        ensure!(
            row.rows[0][0] == "stopped"
                && row.rows[0][1]
                    .as_str()
                    .is_some_and(|error| error.contains("t/0@20 through t/0@49")),
            "{row:?}"
        );
        Ok(())
    })
    .await;
    let lost = "select source, partition, from_offset, through_offset, reason from rachis.losses";
    let gone = [[
        json!("t"),
        json!(0),
        json!(20),
        json!(49),
        json!("gone at the broker before they were taken in"),
    ]];
    assert_eq!(server.sql(lost).await.rows, gone, "the loss is remembered");
    server
        .json(Method::POST, "/v1/sources/t/skip", json!({ "to": { "0": 50 } }))
        .await
        .expect("skipped");
    server.eventually("select count(*) from t", json!(70)).await;
    assert_eq!(
        server.sql("select min(n), max(n) from t where n >= 20").await.rows,
        [[json!(50), json!(99)]]
    );
    server
        .json(Method::POST, "/v1/sources/t/suspend", json!({}))
        .await
        .expect("suspended");
    kafka.produce("t", numbers_in(0, 100..120)).await;
    server
        .json(Method::POST, "/v1/sources/t/skip", json!({ "to": { "0": 110 } }))
        .await
        .expect("skipped");
    server
        .json(Method::POST, "/v1/sources/t/resume", json!({}))
        .await
        .expect("resumed");
    server.eventually("select count(*) from t", json!(80)).await;
    let lost = server.sql(&format!("{lost} order by from_offset")).await.rows;
    assert_eq!(lost[..1], gone, "and stays remembered");
    assert_eq!(
        lost[1..],
        [[
            json!("t"),
            json!(0),
            json!(100),
            json!(109),
            json!("skipped on request")
        ]]
    );
}

/// Waits for what was produced, by the positions in the producer's own metadata.
async fn is_in(server: &Client, source: &str, places: &[(i32, i64)]) {
    let mut last = std::collections::BTreeMap::new();
    for (partition, offset) in places {
        last.insert(*partition, *offset);
    }
    eventually(&format!("{source} is in"), || async {
        let rows = server
            .ask(
                &format!("select partition, position from rachis.sources where source = '{source}'"),
                json!({}),
            )
            .await?
            .rows;
        for (partition, offset) in &last {
            let row = rows.iter().find(|row| row[0] == json!(partition));
            ensure!(row.is_some_and(|row| row[1].as_i64() >= Some(*offset)), "{rows:?}");
        }
        Ok(())
    })
    .await;
}

async fn caught_up(server: &Client, source: &str) -> Result<()> {
    let rows = server
        .ask(
            &format!("select state, lag, error from rachis.sources where source = '{source}'"),
            json!({}),
        )
        .await?
        .rows;
    ensure!(
        !rows.is_empty()
            && rows
                .iter()
                .all(|row| *row == [json!("caught_up"), json!(0), Value::Null]),
        "{rows:?}"
    );
    Ok(())
}

/// events, accepted, tombstones, dead letters, superseded, deleted, documents.
async fn outcomes(server: &Client, source: &str) -> Vec<i64> {
    let columns = [
        "events",
        "accepted",
        "tombstones",
        "dead_letters",
        "superseded",
        "deleted",
        "documents",
    ];
    let sums: Vec<String> = columns
        .iter()
        .map(|column| format!("sum({column}) as {column}"))
        .collect();
    let answer = server
        .sql(&format!(
            "select {} from rachis.sources where source = '{source}'",
            sums.join(", ")
        ))
        .await;
    answer.rows[0]
        .iter()
        .map(|value| value.as_f64().unwrap_or(-1.0) as i64)
        .collect()
}

/// Per partition: every event has one outcome, and what is there is what was accepted less what was taken away.
async fn equations_hold(server: &Client, source: &str, events: usize) {
    let wrong = server
        .sql(&format!(
            "select * from rachis.sources where source = '{source}' and (events <> accepted + tombstones + duplicates + dead_letters \
             or documents <> accepted - superseded - deleted - expired)"
        ))
        .await;
    assert_eq!(wrong.rows.len(), 0, "{wrong:?}");
    assert_eq!(outcomes(server, source).await[0], events as i64);
}

/// Documents by the address that the producer's metadata says, byte for byte.
async fn by_id(server: &Client, set: &str, documents: &[String], places: &[(i32, i64)]) -> Result<()> {
    let step = (documents.len() / DOCUMENTS_ASKED).max(1);
    for (document, (partition, offset)) in documents.iter().zip(places).step_by(step) {
        let address = format!("{set}/{partition}@{offset}");
        let found = server
            .document(set, &address)
            .await?
            .with_context(|| format!("{address} is not there"))?;
        ensure!(
            found == document.as_bytes(),
            "{address}: {}",
            String::from_utf8_lossy(&found)
        );
    }
    Ok(())
}

async fn refused(server: &Client, body: Value, status: u16, named: &str) {
    let answer = server
        .request(Method::PUT, "/v1/sources/orders")
        .json(&body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), status);
    let problem: Value = answer.json().await.expect("a problem");
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.contains(named)),
        "{problem}"
    );
}

/// A port on which nobody listens any more.
fn closed_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<Produce> {
    range.map(|n| Produce::value(format!("{{\"n\":{n}}}"))).collect()
}

fn numbers_in(partition: i32, range: std::ops::Range<usize>) -> Vec<Produce> {
    numbers(range)
        .into_iter()
        .map(|record| Produce {
            partition: Some(partition),
            ..record
        })
        .collect()
}
