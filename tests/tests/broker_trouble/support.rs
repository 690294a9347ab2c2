//! Shared by the modules: a cluster, sources and records, and assertions about system tables.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Cluster, Kafka, Settings,
    cluster::ClusterSize,
    eventually,
    kafka::{KafkaProducer, NewRecord},
};
use tokio_util::sync::CancellationToken;

/// Starts a cluster whose broker has these additional settings.
pub(super) async fn start(tailers: usize, broker: &[&str]) -> Cluster {
    Cluster::start_on(
        Kafka::start_with(broker).await,
        ClusterSize {
            leaves: 2,
            tailers,
            aggregators: 1,
        },
        Settings::default(),
    )
    .await
}

/// Creates a source that feeds the collection of its name and notices changes of its topic within a second. `options`
/// are further fields of the request.
pub(super) async fn source(cluster: &Cluster, name: &str, topic: &str, options: Value) {
    let mut config = json!({
        "bootstrap.servers": cluster.kafka.bootstrap(),
        "topic.metadata.refresh.interval.ms": 500,
        "session.timeout.ms": 3000,
    });
    for (key, value) in options["config"].as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let mut body = json!({ "collection": name, "topic": topic });
    for (key, value) in options.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body["config"] = config;
    // A broker that has just started may take longer than a change waits for it.
    eventually(&format!("the source {name} is accepted"), async || {
        let path = format!("/v1/sources/{name}");
        cluster.json(Method::PUT, &path, body.clone()).await.map(drop)
    })
    .await;
}

pub(super) fn values(numbers: Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("{{\"n\":{n}}}")).collect()
}

pub(super) async fn produce(kafka: &Kafka, topic: &str, partition: i32, numbers: Range<usize>) {
    let record = |value| NewRecord {
        partition: Some(partition),
        ..NewRecord::value(value)
    };
    kafka
        .produce(topic, values(numbers).into_iter().map(record).collect())
        .await;
}

/// Waits until a plain consumer reads exactly these offsets.
pub(super) async fn eventually_offsets(kafka: &Kafka, topic: &str, partition: i32, offsets: &[i64]) {
    eventually(&format!("{topic}/{partition} has the offsets {offsets:?}"), || async {
        let found = kafka.offsets(topic, partition).await?;
        ensure!(found == offsets, "{found:?}");
        Ok(())
    })
    .await;
}

/// Produces numbers, two hundred at a time, to the partitions in turn. Returns how many went to each partition.
pub(super) async fn produce_until_cancelled(
    stop: CancellationToken,
    producer: KafkaProducer,
    topic: &str,
    partitions: Arc<AtomicUsize>,
) -> Vec<usize> {
    const CHUNK: usize = 200;
    let mut written = Vec::new();
    for chunk in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let partition = chunk % partitions.load(Ordering::Relaxed);
        let record = |value| NewRecord {
            partition: Some(partition as i32),
            ..NewRecord::value(value)
        };
        producer
            .produce(
                topic,
                values(chunk * CHUNK..(chunk + 1) * CHUNK)
                    .into_iter()
                    .map(record)
                    .collect(),
            )
            .await;
        written.resize(written.len().max(partitions.load(Ordering::Relaxed)), 0);
        written[partition] += CHUNK;
    }
    written
}

/// Waits until all `written` records (a count for each partition) are ingested, and asserts that each is stored once.
pub(super) async fn assert_all_ingested(cluster: &Cluster, source: &str, written: &[usize]) {
    let expected: Vec<StatusRow> = written
        .iter()
        .zip(0..)
        .map(|(count, p)| status_row(p, "caught_up", *count as i64 - 1, *count as i64, 0))
        .collect();
    eventually_status(cluster, source, &expected).await;
    let total: usize = written.iter().sum();
    assert_documents(cluster, source, &(0..total).collect::<Vec<_>>()).await;
    assert_counts(cluster, source, [total as i64, total as i64, 0, 0, 0, 0, total as i64]).await;
    assert_losses(cluster, source, &[]).await;
}

pub(super) async fn count(cluster: &Cluster, collection: &str) -> Result<u64> {
    cluster
        .query(&format!("select count(*) from {collection}"), json!({}))
        .await?
        .single_value()
        .as_u64()
        .context("a count")
}

/// An expected row of `rachis.sources`.
#[derive(Debug, Clone)]
pub(super) struct StatusRow {
    /// Partition, state, position, end and lag.
    columns: Value,
    /// What the error contains; without any, there is no error.
    error_parts: Vec<String>,
}

/// A row without an error. A position below 0 stands for NULL.
pub(super) fn status_row(partition: i32, state: &str, position: i64, end: i64, lag: i64) -> StatusRow {
    let position = (position >= 0).then_some(position);
    StatusRow {
        columns: json!([partition, state, position, end, lag]),
        error_parts: Vec::new(),
    }
}

/// A row of partition 0, whose end is not known while the consumer waits for the topic or the group.
pub(super) fn starting_row(position: i64) -> StatusRow {
    StatusRow {
        columns: json!([0, "starting", position, null, null]),
        error_parts: Vec::new(),
    }
}

impl StatusRow {
    /// The same row with an error that contains all of these texts.
    pub(super) fn with_error<const N: usize>(mut self, parts: [&str; N]) -> Self {
        self.error_parts = parts.map(str::to_owned).to_vec();
        self
    }

    fn matches(&self, row: &[Value]) -> bool {
        let error = row[5].as_str();
        json!(row[..5]) == self.columns
            && error.is_some() != self.error_parts.is_empty()
            && self
                .error_parts
                .iter()
                .all(|part| error.is_some_and(|error| error.contains(part)))
    }
}

/// Waits until `rachis.sources` has exactly these rows for a source.
pub(super) async fn eventually_status(cluster: &Cluster, source: &str, expected: &[StatusRow]) {
    let sql = format!(
        "select partition, state, position, \"end\", lag, error from rachis.sources \
         where source = '{source}' order by partition"
    );
    eventually(&format!("the status of {source} is {expected:?}"), || async {
        let rows = cluster.query(&sql, json!({})).await?.rows;
        ensure!(
            rows.len() == expected.len() && expected.iter().zip(&rows).all(|(expected, row)| expected.matches(row)),
            "{rows:?}"
        );
        Ok(())
    })
    .await;
}

/// Asserts that the documents of a collection are these numbers, each once.
pub(super) async fn assert_documents(cluster: &Cluster, collection: &str, numbers: &[usize]) {
    let rows = cluster
        .sql(&format!("select n from \"{collection}\" order by n limit 100000"))
        .await
        .rows;
    let expected: Vec<Vec<Value>> = numbers.iter().map(|n| vec![json!(n)]).collect();
    assert_eq!(rows, expected, "the documents of {collection}");
}

/// Asserts the counts of a source: events, accepted, tombstones, dead letters, superseded, deleted, documents. Also
/// asserts, for each partition, that they add up.
pub(super) async fn assert_counts(cluster: &Cluster, source: &str, expected: [i64; 7]) {
    let names = "events, accepted, tombstones, dead letters, superseded, deleted, documents";
    assert_eq!(cluster.outcomes(source).await, expected, "{names} of {source}");
    cluster.assert_outcomes_add_up(source).await;
}

/// Asserts the rows of `rachis.losses` for a source: partition, first and last offset, reason.
pub(super) async fn assert_losses(cluster: &Cluster, source: &str, expected: &[(i32, i64, i64, &str)]) {
    let sql = format!(
        "select partition, from_offset, through_offset, reason from rachis.losses \
         where source = '{source}' order by 1, 2"
    );
    let expected: Vec<Vec<Value>> = expected
        .iter()
        .map(|(partition, from, through, why)| vec![json!(partition), json!(from), json!(through), json!(why)])
        .collect();
    assert_eq!(cluster.sql(&sql).await.rows, expected, "the losses of {source}");
}

/// The reason for a range that the broker no longer had.
pub(super) const LOST_AT_BROKER: &str = "deleted at the broker before they were ingested";

/// The reason for a range that a user skipped.
pub(super) const SKIPPED: &str = "skipped on request";

/// Sends a request to `/v1/sources/{source}/{action}`.
pub(super) async fn post_to_source(cluster: &Cluster, source: &str, action: &str, body: Value) {
    cluster
        .json(Method::POST, &format!("/v1/sources/{source}/{action}"), body)
        .await
        .unwrap_or_else(|error| panic!("{action} of {source}: {error:#}"));
}
