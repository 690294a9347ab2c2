//! What many collections cost one node, at the system's limit of open files and at a low one, and how much memory it
//! takes while many shards catch up.
//!
//! Every figure is printed as a row of a table, with its unit. Nothing here is a test: a figure cannot fail.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use benches::{
    bluesky::Bluesky,
    measure::{mebibytes, percentiles, row},
};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tests::{Kafka, Server, Settings, kafka::Produce, server::binary};

/// Measures a node with many collections.
#[derive(Parser)]
struct Arguments {
    /// Collections; none measures the shards that catch up alone.
    #[arg(long, default_value_t = 2_000)]
    collections: u64,
    /// The low limit of open files.
    #[arg(long, default_value_t = 1_024)]
    open_files: u64,
    /// Shards that catch up.
    #[arg(long, default_value_t = 16)]
    shards: i32,
    /// Documents that they catch up with.
    #[arg(long, default_value_t = 2_000_000)]
    documents: u64,
    /// The seed of the documents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Requests at once.
const AT_ONCE: usize = 8;
/// Collections that are asked.
const ASKED: u64 = 200;
/// After so long without a question, shards are closed; and as long again, until the closing is done.
const IDLE: Duration = Duration::from_secs(20);

const LISTINGS: [&str; 4] = [
    "select count(*) from rachis.collections",
    "select count(*) from rachis.shards where error is null",
    "select count(*) from rachis.fields where error is null",
    "select count(*) from information_schema.columns",
];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.collections > 0 {
        collections("", Settings::default(), &arguments).await?;
        let folder = tempfile::tempdir()?;
        let limited = limited(folder.path(), arguments.open_files)?;
        let settings = Settings {
            binary: Some(limited),
            ..Settings::default()
        };
        collections(&format!("{} open files: ", arguments.open_files), settings, &arguments).await?;
    }
    catch_up(&arguments).await
}

/// A program that is the server with few open files.
fn limited(folder: &Path, open_files: u64) -> Result<PathBuf> {
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

async fn collections(when: &str, settings: Settings, arguments: &Arguments) -> Result<()> {
    let count = arguments.collections;
    let mut server = Server::start(settings).await;
    resources(when, "empty", &server)?;
    let begun = Instant::now();
    push_to_all(&server, count).await?;
    row(
        &format!("{when}{count} collections, a push to each, which makes them"),
        begun.elapsed().as_secs_f64(),
        "s",
    );
    let begun = Instant::now();
    push_to_all(&server, count).await?;
    row(
        &format!("{when}another push to each"),
        begun.elapsed().as_secs_f64(),
        "s",
    );
    resources(when, "after that", &server)?;
    tokio::time::sleep(IDLE).await;
    resources(when, "idle", &server)?;

    let mut times = Vec::new();
    for number in (0..ASKED).map(|number| number * count / ASKED) {
        let asked = Instant::now();
        let answer = server
            .ask(&format!("select count(*) from c{number}"), json!({}))
            .await?;
        times.push(asked.elapsed());
        ensure!(answer.rows == [[json!(2)]], "c{number} has {:?} documents", answer.rows);
    }
    percentiles(&format!("{when}a question to a collection that nobody used"), times);
    listings(when, &server).await?;
    resources(when, "after the lists", &server)?;

    server.stop();
    let begun = Instant::now();
    server.start_again().await;
    row(
        &format!("{when}start, until ready"),
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    let begun = Instant::now();
    server.eventually("select count(*) from c7", json!(2)).await;
    row(
        &format!("{when}the first question"),
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    listings(when, &server).await?;
    resources(when, "after the lists", &server)?;

    push_to_all(&server, count).await?;
    server.kill();
    let begun = Instant::now();
    server.start_again().await;
    row(
        &format!("{when}start after kill -9, until ready"),
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    let begun = Instant::now();
    server.eventually("select count(*) from c7", json!(3)).await;
    row(
        &format!("{when}the first question after kill -9"),
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    Ok(())
}

fn resources(when: &str, moment: &str, server: &Server) -> Result<()> {
    row(
        &format!("{when}resident memory, {moment}"),
        mebibytes(server.process().resident_bytes()?),
        "MiB",
    );
    row(
        &format!("{when}threads, {moment}"),
        server.process().threads()? as f64,
        "",
    );
    row(
        &format!("{when}open files, {moment}"),
        server.process().open_files()? as f64,
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
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn listings(when: &str, server: &Server) -> Result<()> {
    let begun = Instant::now();
    server.get("/v1/collections").await?;
    row(
        &format!("{when}GET /v1/collections"),
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    for sql in LISTINGS {
        let begun = Instant::now();
        server.ask(sql, json!({})).await?;
        row(&format!("{when}{sql}"), begun.elapsed().as_secs_f64() * 1000.0, "ms");
    }
    Ok(())
}

/// One collection of many shards reads a topic from its beginning.
async fn catch_up(arguments: &Arguments) -> Result<()> {
    let Arguments { shards, documents, .. } = *arguments;
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
    let begun = Instant::now();
    server
        .source("many-source", "many", "many", &kafka.bootstrap(), json!({}))
        .await?;
    let mut anonymous = 0;
    while server
        .ask("select sum(documents) from rachis.shards", json!({}))
        .await?
        .rows
        != [[json!(documents)]]
    {
        ensure!(
            begun.elapsed() < Duration::from_secs(900),
            "not all documents are there after 15 minutes"
        );
        anonymous = anonymous.max(server.process().anonymous_bytes()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = begun.elapsed();
    row(
        &format!("{shards} shards catch up, {:.0} MB", raw_bytes as f64 / 1e6),
        raw_bytes as f64 / 1e6 / took.as_secs_f64(),
        "MB/s",
    );
    row(
        &format!("{shards} shards catch up: peak of resident memory"),
        mebibytes(server.process().peak_bytes()?),
        "MiB",
    );
    row(
        &format!("{shards} shards catch up: without mapped files"),
        mebibytes(anonymous),
        "MiB",
    );
    server.eventually("select count(*) from many", json!(documents)).await;
    row(
        &format!("{shards} shards catch up: peak with a question behind it"),
        mebibytes(server.process().peak_bytes()?),
        "MiB",
    );
    Ok(())
}

async fn produce(kafka: &Kafka, arguments: &Arguments) -> Result<u64> {
    const BATCH: u64 = 50_000;
    let bluesky = Bluesky::new(arguments.seed);
    let mut raw_bytes = 0;
    for from in (0..arguments.documents).step_by(BATCH as usize) {
        let record = |i: u64| {
            let mut document = String::new();
            bluesky.document(i, &mut document);
            Produce {
                partition: Some((i % arguments.shards as u64) as i32),
                ..Produce::value(document)
            }
        };
        let records: Vec<Produce> = (from..(from + BATCH).min(arguments.documents)).map(record).collect();
        raw_bytes += records
            .iter()
            .filter_map(|record| record.value.as_ref())
            .map(|value| value.len() as u64)
            .sum::<u64>();
        kafka.produce("many", records).await;
    }
    Ok(raw_bytes)
}
