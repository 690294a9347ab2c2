//! The cost of many collections on one node, with the system's limit of open files and with a low one, and the memory
//! of a node while many shards catch up.
//!
//! Every figure is printed as a table row with its unit. These are measurements, not tests: a figure cannot fail.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use benches::{
    bluesky::Bluesky,
    measure::{percentiles, row, row_mib, row_ms},
};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tests::{Kafka, Server, Settings, kafka::NewRecord, server::binary};

/// Measures a node with many collections
#[derive(Parser)]
struct ManyBenchArgs {
    /// Collections; 0 measures only the shards that catch up
    #[arg(long, default_value_t = 2_000)]
    collections: u64,
    /// The low limit of open files
    #[arg(long, default_value_t = 1_024)]
    open_files: u64,
    /// Shards that catch up
    #[arg(long, default_value_t = 16)]
    shards: i32,
    /// Documents that the shards catch up with
    #[arg(long, default_value_t = 2_000_000)]
    documents: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Concurrent requests.
const REQUESTS_MAX: usize = 8;
/// Collections that are queried.
const QUERIED_COLLECTIONS: u64 = 200;
/// Long enough for shards to become idle and to be closed.
const IDLE: Duration = Duration::from_secs(20);

const LISTINGS: [&str; 4] = [
    "select count(*) from rachis.collections",
    "select count(*) from rachis.shards where error is null",
    "select count(*) from rachis.fields where error is null",
    "select count(*) from information_schema.columns",
];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = ManyBenchArgs::parse();
    if arguments.collections > 0 {
        measure_collections("", Settings::default(), arguments.collections).await?;
        let folder = tempfile::tempdir()?;
        let settings = Settings {
            binary: Some(limited_binary(folder.path(), arguments.open_files)?),
            ..Settings::default()
        };
        let prefix = format!("{} open files: ", arguments.open_files);
        measure_collections(&prefix, settings, arguments.collections).await?;
    }
    catch_up(&arguments).await
}

/// A script that runs the server with a low limit of open files.
fn limited_binary(folder: &Path, open_files: u64) -> Result<PathBuf> {
    let script = folder.join("rachis");
    let mut file = std::fs::File::create(&script)?;
    write!(
        file,
        "#!/bin/sh\nulimit -n {open_files}\nexec {} \"$@\"\n",
        binary().display()
    )?;
    file.set_permissions(std::fs::Permissions::from_mode(0o700))?;
    Ok(script)
}

/// Measures a node with `count` collections; `prefix` starts the name of each row.
async fn measure_collections(prefix: &str, settings: Settings, count: u64) -> Result<()> {
    let mut server = Server::start(settings).await;
    resources(prefix, "empty", &server)?;
    let started = Instant::now();
    push_to_all(&server, count).await?;
    row(
        &format!("{prefix}{count} collections, a push to each, which creates them"),
        started.elapsed().as_secs_f64(),
        "s",
    );
    let started = Instant::now();
    push_to_all(&server, count).await?;
    row(
        &format!("{prefix}another push to each"),
        started.elapsed().as_secs_f64(),
        "s",
    );
    resources(prefix, "after the pushes", &server)?;
    tokio::time::sleep(IDLE).await;
    resources(prefix, "idle", &server)?;

    query_idle_collections(prefix, &server, count).await?;
    listings(prefix, &server).await?;
    resources(prefix, "after the listings", &server)?;

    server.stop();
    measure_start(prefix, "start", &mut server, 2).await;
    listings(prefix, &server).await?;
    resources(prefix, "after the listings", &server)?;

    push_to_all(&server, count).await?;
    server.kill();
    measure_start(prefix, "start after kill -9", &mut server, 3).await;
    Ok(())
}

async fn query_idle_collections(prefix: &str, server: &Server, count: u64) -> Result<()> {
    let mut times = Vec::new();
    for number in (0..QUERIED_COLLECTIONS).map(|number| number * count / QUERIED_COLLECTIONS) {
        let started = Instant::now();
        let answer = server
            .query(&format!("select count(*) from c{number}"), json!({}))
            .await?;
        times.push(started.elapsed());
        ensure!(answer.rows == [[json!(2)]], "c{number} has {:?} documents", answer.rows);
    }
    percentiles(&format!("{prefix}a query on an idle collection"), times);
    Ok(())
}

/// Starts the stopped server; each collection has `documents` documents.
async fn measure_start(prefix: &str, title: &str, server: &mut Server, documents: u64) {
    let started = Instant::now();
    server.restart().await;
    row_ms(&format!("{prefix}{title}, until ready"), started.elapsed());
    let started = Instant::now();
    server.eventually("select count(*) from c7", json!(documents)).await;
    row_ms(&format!("{prefix}{title}, first query"), started.elapsed());
}

fn resources(prefix: &str, moment: &str, server: &Server) -> Result<()> {
    let process = server.process();
    row_mib(&format!("{prefix}resident memory, {moment}"), process.resident_bytes()?);
    row(&format!("{prefix}threads, {moment}"), process.threads()? as f64, "");
    row(
        &format!("{prefix}open files, {moment}"),
        process.open_files()? as f64,
        "",
    );
    Ok(())
}

async fn push_to_all(server: &Server, count: u64) -> Result<()> {
    let push = |number: u64| async move {
        server
            .push(
                &format!("c{number}"),
                format!("{{\"number\":{number},\"word\":\"coffee\"}}"),
            )
            .await
            .map(drop)
    };
    stream::iter(0..count)
        .map(push)
        .buffer_unordered(REQUESTS_MAX)
        .try_collect()
        .await
}

async fn listings(prefix: &str, server: &Server) -> Result<()> {
    let started = Instant::now();
    server.get("/v1/collections").await?;
    row_ms(&format!("{prefix}GET /v1/collections"), started.elapsed());
    for sql in LISTINGS {
        let started = Instant::now();
        server.query(sql, json!({})).await?;
        row_ms(&format!("{prefix}{sql}"), started.elapsed());
    }
    Ok(())
}

/// One collection with many shards reads a topic from its beginning.
async fn catch_up(arguments: &ManyBenchArgs) -> Result<()> {
    let ManyBenchArgs { shards, documents, .. } = *arguments;
    let kafka = Kafka::start().await;
    kafka.create_topic("many", shards, &[]).await;
    let raw_bytes = produce(&kafka, arguments).await?;
    let server = Server::start(Settings::default()).await;
    server
        .json(
            reqwest::Method::PUT,
            "/v1/collections/many",
            json!({ "shards": shards }),
        )
        .await?;
    let started = Instant::now();
    server
        .source("many-source", "many", "many", &kafka.bootstrap(), json!({}))
        .await?;
    let anonymous_peak = wait_until_stored(&server, documents, started).await?;
    let elapsed = started.elapsed();
    let (title, megabytes) = (format!("{shards} shards catch up"), raw_bytes as f64 / 1e6);
    row(
        &format!("{title}, {megabytes:.0} MB"),
        megabytes / elapsed.as_secs_f64(),
        "MB/s",
    );
    let process = server.process();
    row_mib(&format!("{title}: peak of resident memory"), process.peak_bytes()?);
    row_mib(&format!("{title}: peak without mapped files"), anonymous_peak);
    server.eventually("select count(*) from many", json!(documents)).await;
    row_mib(&format!("{title}: peak including a query"), process.peak_bytes()?);
    Ok(())
}

/// Waits until all documents are stored and returns the peak of anonymous memory until then.
async fn wait_until_stored(server: &Server, documents: u64, started: Instant) -> Result<u64> {
    let sql = "select sum(documents) from rachis.shards";
    let mut peak_bytes = 0;
    while server.query(sql, json!({})).await?.rows != [[json!(documents)]] {
        ensure!(
            started.elapsed() < Duration::from_secs(900),
            "not all documents are stored after 15 minutes"
        );
        peak_bytes = peak_bytes.max(server.process().anonymous_bytes()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(peak_bytes)
}

async fn produce(kafka: &Kafka, arguments: &ManyBenchArgs) -> Result<u64> {
    const BATCH_DOCUMENTS: u64 = 50_000;
    let bluesky = Bluesky::new(arguments.seed);
    let mut raw_bytes = 0;
    for from in (0..arguments.documents).step_by(BATCH_DOCUMENTS as usize) {
        let record = |i: u64| {
            let mut document = String::new();
            bluesky.document(i, &mut document);
            NewRecord {
                partition: Some((i % arguments.shards as u64) as i32),
                ..NewRecord::value(document)
            }
        };
        let records: Vec<NewRecord> = (from..(from + BATCH_DOCUMENTS).min(arguments.documents))
            .map(record)
            .collect();
        raw_bytes += records
            .iter()
            .filter_map(|record| record.value.as_ref())
            .map(|value| value.len() as u64)
            .sum::<u64>();
        kafka.produce("many", records).await;
    }
    Ok(raw_bytes)
}
