//! What both programs measure: the same documents in, the same questions, the same table.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Client, Kafka, kafka::Produce};

use crate::bluesky::Bluesky;

/// Partitions of the topic of the main collection.
pub const PARTITIONS: i32 = 2;

/// JSONBench's five questions.
pub const QUESTIONS: [(&str, &str); 5] = [
    (
        "Q1",
        "select commit.collection as event, count(*) as n from bluesky group by event order by n desc",
    ),
    (
        "Q2",
        "select commit.collection as event, count(*) as n, count(distinct did) as users from bluesky where kind = 'commit' and commit.operation = 'create' \
         group by event order by n desc",
    ),
    (
        "Q3",
        "select commit.collection as event, extract(hour from to_timestamp_micros(time_us)) as hour, count(*) as n from bluesky where kind = 'commit' and \
         commit.operation = 'create' and commit.collection in ('app.bsky.feed.post', 'app.bsky.feed.repost', 'app.bsky.feed.like') \
         group by event, hour order by hour, event",
    ),
    (
        "Q4",
        "select did, min(time_us) as first from bluesky where kind = 'commit' and commit.operation = 'create' and commit.collection = 'app.bsky.feed.post' \
         group by did order by first limit 3",
    ),
    (
        "Q5",
        "select did, max(time_us) - min(time_us) as span from bluesky where kind = 'commit' and commit.operation = 'create' and \
         commit.collection = 'app.bsky.feed.post' group by did order by span desc limit 3",
    ),
];

/// A row of the table.
pub fn row(what: &str, figure: f64, unit: &str) {
    let digits = if figure < 10.0 { 2 } else { usize::from(figure < 100.0) };
    #[allow(clippy::print_stdout, reason = "the table is what this program is for")]
    {
        println!("| {what} | {figure:.digits$} {unit} |");
    }
}

/// Two rows; the median in milliseconds.
pub fn percentiles(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    row(&format!("{what}, p50"), at(0.5), "ms");
    row(&format!("{what}, p99 of {}", times.len()), at(0.99), "ms");
    at(0.5)
}

/// Bytes as a figure.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Documents `range` as records of at most this many at a time.
fn records(bluesky: &Bluesky, range: std::ops::Range<u64>, partitions: i32) -> Vec<Produce> {
    let record = |i: u64| {
        let mut document = String::new();
        bluesky.document(i, &mut document);
        Produce {
            partition: Some((i % partitions as u64) as i32),
            ..Produce::value(document)
        }
    };
    range.map(record).collect()
}

/// Produces the documents, and writes them to `lines` too; the raw bytes.
pub async fn produce(kafka: &Kafka, documents: u64, seed: u64, lines: &mut impl Write) -> Result<u64> {
    const AT_ONCE: u64 = 100_000;
    kafka.create_topic("bluesky", PARTITIONS, &[]).await;
    let bluesky = Bluesky::new(seed);
    let mut raw_bytes = 0;
    for from in (0..documents).step_by(AT_ONCE as usize) {
        let records = records(&bluesky, from..(from + AT_ONCE).min(documents), PARTITIONS);
        for value in records.iter().filter_map(|record| record.value.as_ref()) {
            raw_bytes += value.len() as u64;
            lines.write_all(value)?;
            lines.write_all(b"\n")?;
        }
        kafka.produce("bluesky", records).await;
    }
    Ok(raw_bytes)
}

/// Has the documents read; how long until all are visible.
pub async fn ingest(client: &Client, kafka: &Kafka, documents: u64) -> Result<Duration> {
    let begun = Instant::now();
    client
        .source("bluesky-source", "bluesky", "bluesky", &kafka.bootstrap(), json!({}))
        .await?;
    loop {
        let answer = client.ask("select count(*) from bluesky", json!({})).await?;
        if answer.rows == [[json!(documents)]] {
            return Ok(begun.elapsed());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(900),
            "only {:?} documents after 15 minutes",
            answer.rows
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the tail is in splits and their number does not change for a while.
pub async fn settled(client: &Client, collection: &str) -> Result<()> {
    let sql = format!(
        "select sum(tail), (select count(*) from rachis.splits where collection = '{collection}') from rachis.shards where collection = '{collection}'"
    );
    let begun = Instant::now();
    let (mut last, mut since) = (Value::Null, Instant::now());
    while begun.elapsed() < Duration::from_secs(600) {
        let now = json!(client.ask(&sql, json!({})).await?.rows);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > Duration::from_secs(15) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Produces so many MB/s and, ten times a second, a marked record; asks for it until it is there.
pub async fn freshness(client: &Client, kafka: &Kafka, seed: u64, seconds: u64, megabytes: u64) -> Result<()> {
    /// Documents of a tenth of a megabyte.
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
    let begun = Instant::now();
    for tick in 0..seconds * 10 {
        let due = begun + Duration::from_millis(100 * tick);
        tokio::time::sleep_until(due.into()).await;
        let mut batch = records(&bluesky, tick * documents..(tick + 1) * documents, 2);
        batch.push(Produce {
            partition: Some(0),
            ..Produce::value(format!("{{\"marker\":{tick}}}"))
        });
        kafka.produce(&topic, batch).await;
        let produced = Instant::now();
        let sql = format!("select count(*) from \"{topic}\" where marker = {tick}");
        while client.ask(&sql, json!({})).await?.rows != [[json!(1)]] {
            ensure!(
                produced.elapsed() < Duration::from_secs(30),
                "record {tick} is not visible after 30 s"
            );
        }
        times.push(produced.elapsed());
    }
    percentiles(&format!("acknowledged by Kafka to visible, at {megabytes} MB/s"), times);
    Ok(())
}
