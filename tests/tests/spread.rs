//! What a hot partition gets from now on is spread over several shards, while records arrive, nodes die and people ask.
//! Every record is there exactly once.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Client, Cluster, Settings, WAIT_MAX,
    cli::{Cli, assert_fails, stdout},
    cluster::ClusterSize,
    kafka::{Kafka, KafkaProducer, NewRecord},
    server::Server,
};

const TWO_LEAVES: ClusterSize = ClusterSize {
    leaves: 2,
    tailers: 1,
    aggregators: 1,
};
const SHARDS: usize = 4;
/// Records of one round: several blocks of a run.
const ROUND: i64 = 6_000;

/// The records of partition 0 of a topic: the numbers from 0 on, in order.
struct Numbers {
    producer: KafkaProducer,
    written: i64,
}

impl Numbers {
    /// A topic with one partition, and a collection of the same name that gets it.
    async fn create(kafka: &Kafka, client: &Client, replicas: Option<u32>) -> Self {
        kafka.create_topic("events", 1, &[]).await;
        let settings = match replicas {
            Some(replicas) => json!({ "shards": SHARDS, "replicas": replicas }),
            None => json!({ "shards": SHARDS }),
        };
        let created = client.json(Method::PUT, "/v1/collections/events", settings).await;
        created.expect("a collection");
        client.source_of_topic("events", kafka).await;
        Self {
            producer: kafka.producer(),
            written: 0,
        }
    }

    async fn write(&mut self, records: i64) {
        let value = |n: i64| NewRecord {
            partition: Some(0),
            ..NewRecord::value(json!({ "n": n, "text": "x".repeat(100) }).to_string())
        };
        let all = (self.written..self.written + records).map(value).collect();
        self.producer.produce("events", all).await;
        self.written += records;
    }

    /// Waits until every number is there, once, at its offset. No question fails, and none sees a number twice.
    async fn wait_until_complete(&self, client: &Client) {
        let began = Instant::now();
        let (last, sum) = (self.written - 1, self.written * (self.written - 1) / 2);
        let sql = "select count(*), count(distinct n), sum(n), min(n - _offset), max(n - _offset) from events";
        loop {
            let rows = client.sql(sql).await.rows;
            let counts = [0, 1].map(|column| rows[0][column].as_i64().expect("a count"));
            assert_eq!(counts[0], counts[1], "a record is there twice");
            if rows[0] == [json!(self.written), json!(self.written), json!(sum), json!(0), json!(0)] {
                break;
            }
            assert!(began.elapsed() < WAIT_MAX, "{rows:?} of {} records", self.written);
        }
        let answer = client.query(
            "select max(n) from events",
            json!({ "at_least": format!("events/0@{last}") }),
        );
        assert_eq!(answer.await.expect("an answer").rows, [[json!(last)]]);
        let source = "select position, events, documents from rachis.sources where source = 'events'";
        client
            .eventually(&format!("select events from ({source})"), json!(self.written))
            .await;
        let source = client.sql(source).await;
        assert_eq!(source.rows, [[json!(last), json!(self.written), json!(self.written)]]);
        for offset in [0, last / 2, last - 1_100, last] {
            let found = client
                .document("events", &format!("events/0@{offset}"))
                .await
                .expect("an answer");
            let found: Value = serde_json::from_slice(&found.expect("a document")).expect("JSON");
            assert_eq!(found["n"], offset);
        }
    }
}

async fn spread(client: &Client, shards: Option<&[u32]>) -> Result<Value, String> {
    let body = json!({ "partition": 0, "shards": shards });
    let answer = client.json(Method::POST, "/v1/sources/events/spread", body).await;
    answer.map_err(|failure| failure.to_string())
}

async fn shards_with_documents(client: &Client) -> usize {
    let documents = by_shard(client).await.into_iter();
    documents.filter(|documents| *documents > 0).count()
}

/// The documents of each shard.
async fn by_shard(client: &Client) -> Vec<i64> {
    let rows = client
        .sql("select documents from rachis.shards order by shard")
        .await
        .rows;
    assert_eq!(rows.len(), SHARDS);
    rows.iter()
        .map(|row| row[0].as_i64().expect("the shard answers"))
        .collect()
}

#[tokio::test]
async fn a_partition_is_spread_and_joined_again_while_records_arrive_and_nodes_die() {
    let mut cluster = Cluster::start(TWO_LEAVES, Settings::default()).await;
    let client = cluster.client_of("aggregator-1");
    let mut numbers = Numbers::create(&cluster.kafka, &client, Some(2)).await;
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&client).await;
    assert_eq!(shards_with_documents(&client).await, 1);

    let (answer, ()) = futures::join!(spread(&client, None), numbers.write(ROUND));
    let first = answer.expect("it is spread");
    assert!(first["from"].as_i64() >= Some(ROUND), "{first}");
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&client).await;
    assert_eq!(shards_with_documents(&client).await, SHARDS);

    cluster.kill("leaf-1");
    numbers.write(ROUND).await;
    cluster.kill("tailer-1");
    cluster.restart("leaf-1").await;
    cluster.restart("tailer-1").await;
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&client).await;

    let (answer, ()) = futures::join!(spread(&client, Some(&[2])), numbers.write(ROUND));
    answer.expect("it belongs to one shard again");
    numbers.wait_until_complete(&client).await;
    let before = by_shard(&client).await;
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&client).await;
    let after = by_shard(&client).await;
    let grown: Vec<i64> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after - before)
        .collect();
    assert_eq!(grown, [0, 0, ROUND, 0]);
    client.wait_until_replicas_are_equal(2).await;

    // A tailer that starts anew finds every shard after what the broker has deleted.
    let kept = numbers.written - 10;
    cluster.kafka.delete_records_before("events", 0, kept).await;
    cluster.kill("tailer-1");
    cluster.restart("tailer-1").await;
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&client).await;
    let state = "select state from rachis.sources where source = 'events'";
    client.eventually(state, json!("caught_up")).await;

    let deleted = client.sql("delete from events where n % 7 = 0").await;
    assert_eq!(deleted.rows[0][0], (numbers.written + 6) / 7);
    let left = client
        .sql("select count(*), count(*) filter (where n % 7 = 0) from events")
        .await;
    assert_eq!(
        left.rows,
        [[json!(numbers.written - (numbers.written + 6) / 7), json!(0)]]
    );
}

#[tokio::test]
async fn a_spread_waits_for_a_leaf_that_is_away_and_can_be_withdrawn() {
    let mut cluster = Cluster::start(TWO_LEAVES, Settings::default()).await;
    let client = cluster.client_of("aggregator-1");
    let mut numbers = Numbers::create(&cluster.kafka, &client, Some(2)).await;
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&client).await;
    cluster.kill("leaf-2");
    let asked = tokio::spawn({
        let client = cluster.client_of("aggregator-1");
        async move { spread(&client, None).await }
    });
    let waits = "select waits_for from rachis.runs where state = 'proposed'";
    client.eventually(waits, json!("leaf-2")).await;
    let withdrawal = client.json(Method::DELETE, "/v1/sources/events/spread?partition=0", Value::Null);
    withdrawal.await.expect("it is withdrawn");
    let failure = asked.await.expect("it does not panic").expect_err("it is withdrawn");
    assert!(failure.contains("was withdrawn"), "{failure}");
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&client).await;
    assert_eq!(shards_with_documents(&client).await, 1);

    let asked = tokio::spawn({
        let client = cluster.client_of("aggregator-1");
        async move { spread(&client, None).await }
    });
    client.eventually(waits, json!("leaf-2")).await;
    // The tailer holds them back until leaf-2 knows of the spread.
    numbers.write(ROUND).await;
    let source = "select state, error from rachis.sources where source = 'events'";
    client
        .eventually(&format!("select state from ({source})"), json!("waiting"))
        .await;
    let error = client.sql(source).await.rows[0][1].to_string();
    assert!(
        error.contains("wait for leaf-2") && error.contains("--withdraw"),
        "{error}"
    );
    cluster.restart("leaf-2").await;
    asked.await.expect("it does not panic").expect("it is spread");
    numbers.wait_until_complete(&client).await;
    assert_eq!(shards_with_documents(&client).await, SHARDS);
    client.wait_until_replicas_are_equal(2).await;
}

#[tokio::test]
async fn one_process_spreads_a_partition_and_says_what_cannot_be_spread() {
    let kafka = Kafka::start().await;
    let mut server = Server::start(Settings::default()).await;
    let mut numbers = Numbers::create(&kafka, &server, None).await;
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&server).await;
    let heat = "select shard from rachis.shards where events_per_minute > 0";
    assert_eq!(server.sql(heat).await.rows.len(), 1);
    let first = spread(&server, Some(&[0, 1, 2])).await.expect("it is spread");
    assert_eq!(first["from"], ROUND, "no record is on its way");
    let again = Cli::new(&server).run(&["source", "spread", "events", "0", "--shards", "0,1,2"]);
    let again: Value = serde_json::from_str(&stdout(&again)).expect("JSON");
    assert_eq!(again, first, "it is already");
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&server).await;
    assert_eq!(server.sql(heat).await.rows.len(), 4, "the shard from before, and three");
    server.kill();
    numbers.write(ROUND).await;
    server.restart().await;
    numbers.wait_until_complete(&server).await;
    let runs = "select from_offset, shards, block, state from rachis.runs";
    let run = [json!(ROUND), json!("0, 1, 2"), json!(1_024), json!("in force")];
    assert_eq!(server.sql(runs).await.rows, [run]);

    server
        .source("keyed", "events", "events", &kafka.bootstrap(), json!({ "key": "n" }))
        .await
        .expect("a source");
    let refused = async |source: &str, body: Value| {
        let answer = server
            .json(Method::POST, &format!("/v1/sources/{source}/spread"), body)
            .await;
        answer.expect_err("it is refused").to_string()
    };
    for (source, body, reason) in [
        ("keyed", json!({ "partition": 0 }), "the source has a key"),
        (
            "events",
            json!({ "partition": 1 }),
            "partition 1 of events does not exist",
        ),
        ("events", json!({ "partition": 0, "shards": [0, 4] }), "no shard 4"),
        ("events", json!({ "partition": 0, "shards": [] }), "no shard is named"),
        ("nowhere", json!({ "partition": 0 }), "source nowhere does not exist"),
        ("events", json!({ "shards": [0] }), "partition"),
    ] {
        let failure = refused(source, body).await;
        assert!(failure.contains(reason), "{failure}");
    }
    let withdrawal = server
        .json(Method::DELETE, "/v1/sources/events/spread?partition=0", Value::Null)
        .await;
    let failure = withdrawal.expect_err("none is proposed").to_string();
    assert!(failure.contains("no spread that could be withdrawn"), "{failure}");
    let withdrawal = Cli::new(&server).run(&["source", "spread", "events", "0", "--withdraw"]);
    assert_fails(&withdrawal, 1, "no spread that could be withdrawn");
}

#[tokio::test]
async fn records_that_the_broker_deletes_are_one_loss_and_a_skip_goes_on_after_them_in_every_shard() {
    let kafka = Kafka::start().await;
    let server = Server::start(Settings::default()).await;
    let mut numbers = Numbers::create(&kafka, &server, None).await;
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&server).await;
    spread(&server, None).await.expect("it is spread");
    numbers.write(ROUND).await;
    numbers.wait_until_complete(&server).await;
    let ask = async |path: &str, body: Value| {
        let answer = server
            .json(Method::POST, &format!("/v1/sources/events/{path}"), body)
            .await;
        answer.map_err(|failure| failure.to_string())
    };
    ask("suspend", json!({})).await.expect("it is suspended");
    let first = numbers.written;
    numbers.write(ROUND).await;
    let kept = numbers.written - 100;
    kafka.delete_records_before("events", 0, kept).await;
    ask("resume", json!({})).await.expect("it is resumed");
    let state = "select state from rachis.sources where source = 'events'";
    server.eventually(state, json!("stopped")).await;
    let skip = json!({ "to": { "0": kept } });
    let failure = ask("skip", skip.clone())
        .await
        .expect_err("shards may be at different positions");
    assert!(failure.contains("suspend the source first"), "{failure}");
    ask("suspend", json!({})).await.expect("it is suspended");
    ask("skip", skip).await.expect("a skip");
    ask("resume", json!({})).await.expect("it is resumed");
    server.eventually(state, json!("caught_up")).await;
    let counts = server
        .sql("select count(*), count(distinct n), max(n) from events")
        .await;
    let stored = first + 100;
    assert_eq!(
        counts.rows,
        [[json!(stored), json!(stored), json!(numbers.written - 1)]]
    );
    let losses = "select from_offset, through_offset from rachis.losses";
    assert_eq!(server.sql(losses).await.rows, [[json!(first), json!(kept - 1)]]);
}
