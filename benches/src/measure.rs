//! Measurements that several programs share: ingest, queries, freshness, and the printed table.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Client, Kafka, kafka::NewRecord};

use crate::bluesky::Bluesky;

/// Partitions of the topic of the main collection.
pub const PARTITIONS: i32 = 2;

/// JSONBench's five queries.
pub const QUERIES: [(&str, &str); 5] = [
    (
        "Q1",
        "select commit.collection as event, count(*) as n from bluesky group by event order by n desc",
    ),
    (
        "Q2",
        "select commit.collection as event, count(*) as n, count(distinct did) as users from bluesky \
         where kind = 'commit' and commit.operation = 'create' group by event order by n desc",
    ),
    (
        "Q3",
        "select commit.collection as event, extract(hour from to_timestamp_micros(time_us)) as hour, count(*) as n \
         from bluesky where kind = 'commit' and commit.operation = 'create' \
         and commit.collection in ('app.bsky.feed.post', 'app.bsky.feed.repost', 'app.bsky.feed.like') \
         group by event, hour order by hour, event",
    ),
    (
        "Q4",
        "select did, min(time_us) as first from bluesky where kind = 'commit' and commit.operation = 'create' \
         and commit.collection = 'app.bsky.feed.post' group by did order by first limit 3",
    ),
    (
        "Q5",
        "select did, max(time_us) - min(time_us) as span from bluesky where kind = 'commit' \
         and commit.operation = 'create' and commit.collection = 'app.bsky.feed.post' \
         group by did order by span desc limit 3",
    ),
];

/// Prints a row of the table.
pub fn row(what: &str, figure: f64, unit: &str) {
    let digits = if figure < 10.0 { 2 } else { usize::from(figure < 100.0) };
    #[allow(clippy::print_stdout, reason = "the table is the output of the program")]
    {
        println!("| {what} | {figure:.digits$} {unit} |");
    }
}

/// Prints a row in milliseconds.
pub fn row_ms(what: &str, time: Duration) {
    row(what, time.as_secs_f64() * 1000.0, "ms");
}

/// Prints a row in MiB.
pub fn row_mib(what: &str, bytes: u64) {
    row(what, bytes as f64 / f64::from(1 << 20), "MiB");
}

/// Prints the median and the 99th percentile, and returns the median in milliseconds.
pub fn percentiles(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    row_ms(&format!("{what}, p50"), quantile(&times, 0.5));
    row_ms(&format!("{what}, p99 of {}", times.len()), quantile(&times, 0.99));
    quantile(&times, 0.5).as_secs_f64() * 1000.0
}

/// The time that this share of the times does not exceed; there must be at least one, in ascending order.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// The documents of `range` as records, distributed over the partitions.
fn records(bluesky: &Bluesky, range: std::ops::Range<u64>, partitions: i32) -> Vec<NewRecord> {
    let record = |i: u64| {
        let mut document = String::new();
        bluesky.document(i, &mut document);
        NewRecord {
            partition: Some((i % partitions as u64) as i32),
            ..NewRecord::value(document)
        }
    };
    range.map(record).collect()
}

/// Produces the documents to the topic `bluesky`, writes them to `lines` too, and returns the raw bytes.
pub async fn produce(kafka: &Kafka, documents: u64, seed: u64, lines: &mut impl Write) -> Result<u64> {
    const BATCH_DOCUMENTS: u64 = 100_000;
    kafka.create_topic("bluesky", PARTITIONS, &[]).await;
    let bluesky = Bluesky::new(seed);
    let mut raw_bytes = 0;
    for from in (0..documents).step_by(BATCH_DOCUMENTS as usize) {
        let records = records(&bluesky, from..(from + BATCH_DOCUMENTS).min(documents), PARTITIONS);
        for value in records.iter().filter_map(|record| record.value.as_ref()) {
            raw_bytes += value.len() as u64;
            lines.write_all(value)?;
            lines.write_all(b"\n")?;
        }
        kafka.produce("bluesky", records).await;
    }
    Ok(raw_bytes)
}

/// Creates a source for the documents and returns the time until all are visible.
pub async fn ingest(client: &Client, kafka: &Kafka, documents: u64) -> Result<Duration> {
    ingest_topic(client, kafka, "bluesky", documents).await
}

/// Creates the source `TOPIC-source`, which reads a topic into the collection of its name, and returns the time until
/// all documents are visible.
pub(crate) async fn ingest_topic(client: &Client, kafka: &Kafka, topic: &str, documents: u64) -> Result<Duration> {
    let started = Instant::now();
    let source = format!("{topic}-source");
    client
        .source(&source, topic, topic, &kafka.bootstrap(), json!({}))
        .await?;
    let count = format!("select count(*) from {topic}");
    loop {
        let answer = client.query(&count, json!({})).await?;
        if answer.rows == [[json!(documents)]] {
            return Ok(started.elapsed());
        }
        ensure!(
            started.elapsed() < Duration::from_secs(900),
            "only {:?} documents are visible after 15 minutes",
            answer.rows
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs a query `runs` times, which must return rows.
pub async fn time_query(client: &Client, name: &str, sql: &str, runs: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let started = Instant::now();
        let answer = client.query(sql, json!({})).await?;
        times.push(started.elapsed());
        ensure!(!answer.rows.is_empty(), "{name} returned no rows");
    }
    Ok(times)
}

/// Waits until the number of documents in the tail and the number of splits have not changed for 15 s, at most 10
/// minutes.
pub async fn wait_until_settled(client: &Client, collection: &str) -> Result<()> {
    let sql = format!(
        "select sum(tail), (select count(*) from rachis.splits where collection = '{collection}') \
         from rachis.shards where collection = '{collection}'"
    );
    let started = Instant::now();
    let (mut last, mut last_change) = (Value::Null, Instant::now());
    while started.elapsed() < Duration::from_secs(600) {
        let now = json!(client.query(&sql, json!({})).await?.rows);
        if now != last {
            (last, last_change) = (now, Instant::now());
        } else if last_change.elapsed() > Duration::from_secs(15) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Produces `megabytes` MB/s and, ten times a second, a marked record, which is queried until it is visible.
pub async fn freshness(client: &Client, kafka: &Kafka, seed: u64, seconds: u64, megabytes: u64) -> Result<()> {
    /// Documents in 0.1 MB.
    const TENTH_DOCUMENTS: u64 = 210;
    let topic = format!("fresh-{megabytes}");
    kafka.create_topic(&topic, 2, &[]).await;
    client
        .source(
            &format!("{topic}-source"),
            &topic,
            &topic,
            &kafka.bootstrap(),
            json!({}),
        )
        .await?;
    let (bluesky, documents) = (Bluesky::new(seed), TENTH_DOCUMENTS * megabytes);
    let mut times = Vec::new();
    let started = Instant::now();
    for tick in 0..seconds * 10 {
        let due = started + Duration::from_millis(100 * tick);
        tokio::time::sleep_until(due.into()).await;
        let mut batch = records(&bluesky, tick * documents..(tick + 1) * documents, 2);
        batch.push(NewRecord {
            partition: Some(0),
            ..NewRecord::value(format!("{{\"marker\":{tick}}}"))
        });
        kafka.produce(&topic, batch).await;
        let produced = Instant::now();
        let sql = format!("select count(*) from \"{topic}\" where marker = {tick}");
        while client.query(&sql, json!({})).await?.rows != [[json!(1)]] {
            ensure!(
                produced.elapsed() < Duration::from_secs(30),
                "record {tick} is not visible after 30 s"
            );
        }
        times.push(produced.elapsed());
    }
    percentiles(
        &format!("from Kafka's acknowledgement to visible, at {megabytes} MB/s"),
        times,
    );
    Ok(())
}
