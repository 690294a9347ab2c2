//! `benches overview`: ingest, freshness, size on disk, memory, startup, recovery and query latency of the real server
//! with a real Kafka, compared with DuckDB and a plain Kafka consumer.
//!
//! Every figure is printed as a table row with its unit. These are measurements, not tests: a figure cannot fail.

use std::{io::Write as _, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use tests::{Kafka, Server, Settings};

use crate::{
    baseline::{self, DuckDb},
    bluesky::Bluesky,
    footprint::folder_bytes,
    measure::{self, PARTITIONS, QUERIES, percentiles, row, row_mib, row_ms},
};

/// What `benches overview` measures.
#[derive(Debug, Args)]
pub struct OverviewArgs {
    /// Documents of the main collection
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Documents that are pushed in addition
    #[arg(long, default_value_t = 200_000)]
    pushed: u64,
    /// Runs of each query
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Seconds of the freshness measurement
    #[arg(long, default_value_t = 30)]
    fresh_seconds: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const SEARCHES: [(&str, &str); 4] = [
    ("search, a frequent word", "coffee"),
    ("search, a word at a path", "commit.record.text:rocket"),
    ("search, a phrase", "\"open source\""),
    ("search, two words", "coffee AND rocket"),
];

/// Measures the server in one process and prints a row for each figure.
pub async fn run(arguments: OverviewArgs) -> Result<()> {
    let started = Instant::now();
    let mut server = Server::start(Settings::default()).await;
    row_ms("start with an empty folder, until ready", started.elapsed());
    row_mib("resident memory, empty", server.process().resident_bytes()?);

    let kafka = Kafka::start().await;
    let lines = tempfile::NamedTempFile::new()?;
    let raw_bytes = ingest_from_kafka(&server, &kafka, &arguments, lines.as_file()).await?;
    row_mib(
        "resident memory, right after ingest",
        server.process().resident_bytes()?,
    );
    measure::wait_until_settled(&server, "bluesky").await?;
    row_mib("resident memory, settled", server.process().resident_bytes()?);
    row(
        "bytes on disk per raw byte",
        folder_bytes(&server.data_dir()) as f64 / raw_bytes as f64,
        "",
    );

    let duckdb = measure_duckdb(lines.path(), raw_bytes, arguments.runs)?;
    drop(lines);
    for ((name, sql), duckdb_ms) in QUERIES.into_iter().zip(duckdb.milliseconds) {
        let times = measure::time_query(&server, name, sql, arguments.runs).await?;
        let median_ms = percentiles(name, times);
        row(&format!("{name}, p50 / DuckDB's p50"), median_ms / duckdb_ms, "x");
    }
    documents_by_id(&server, &arguments).await?;
    searches(&server, arguments.runs * 3).await?;

    recover_after_kill(&mut server, arguments.documents).await;
    ingest_by_push(&server, &arguments).await?;
    measure::freshness(&server, &kafka, arguments.seed + 2, arguments.fresh_seconds, 2).await?;
    row_mib("resident memory at the end", server.process().resident_bytes()?);
    Ok(())
}

/// Produces the documents to Kafka and to a file, and ingests them. Returns the raw bytes.
async fn ingest_from_kafka(
    server: &Server,
    kafka: &Kafka,
    arguments: &OverviewArgs,
    lines: &std::fs::File,
) -> Result<u64> {
    let mut lines = std::io::BufWriter::new(lines);
    let raw_bytes = measure::produce(kafka, arguments.documents, arguments.seed, &mut lines).await?;
    lines.flush()?;
    let (bootstrap, documents) = (kafka.bootstrap(), arguments.documents);
    let consumed =
        tokio::task::spawn_blocking(move || baseline::consume(&bootstrap, "bluesky", PARTITIONS, documents)).await??;
    let megabytes = raw_bytes as f64 / 1e6;
    row("raw documents", megabytes, "MB");
    row(
        "baseline: a Kafka consumer that discards everything",
        megabytes / consumed.as_secs_f64(),
        "MB/s",
    );
    let ingested = measure::ingest(server, kafka, arguments.documents).await?;
    row(
        "ingest from Kafka, until all are visible",
        megabytes / ingested.as_secs_f64(),
        "MB/s",
    );
    row(
        "ingest from Kafka / baseline",
        consumed.as_secs_f64() / ingested.as_secs_f64(),
        "x",
    );
    Ok(raw_bytes)
}

fn measure_duckdb(lines: &Path, raw_bytes: u64, runs: usize) -> Result<DuckDb> {
    let duckdb = baseline::duckdb(lines, runs)?;
    row(
        &format!("DuckDB {}, loading the same documents from a file", duckdb.version),
        raw_bytes as f64 / 1e6 / duckdb.load_seconds,
        "MB/s",
    );
    row(
        "DuckDB, bytes on disk per raw byte",
        duckdb.bytes as f64 / raw_bytes as f64,
        "",
    );
    Ok(duckdb)
}

async fn documents_by_id(server: &Server, arguments: &OverviewArgs) -> Result<()> {
    let mut times = Vec::new();
    for i in 0..1000_u64 {
        let n = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % arguments.documents;
        let id = format!("bluesky-source/{}@{}", n % 2, n / 2);
        let started = Instant::now();
        server.document("bluesky", &id).await?.with_context(|| id.clone())?;
        times.push(started.elapsed());
    }
    percentiles("a document by id", times);
    Ok(())
}

async fn searches(server: &Server, runs: usize) -> Result<()> {
    for (name, query) in SEARCHES {
        let mut times = Vec::new();
        for _ in 0..runs {
            let started = Instant::now();
            let body = json!({ "q": query, "limit": 20 });
            server
                .json(reqwest::Method::POST, "/v1/collections/bluesky/search", body)
                .await?;
            times.push(started.elapsed());
        }
        percentiles(name, times);
    }
    Ok(())
}

async fn recover_after_kill(server: &mut Server, documents: u64) {
    server.kill();
    let started = Instant::now();
    server.restart().await;
    row_ms("recovery after kill -9, until ready", started.elapsed());
    server
        .eventually("select count(*) from bluesky", json!(documents))
        .await;
    row_ms("recovery after kill -9, until the count is right", started.elapsed());
}

async fn ingest_by_push(server: &Server, arguments: &OverviewArgs) -> Result<()> {
    const BODY_DOCUMENTS: u64 = 2_000;
    const PUSHERS: u64 = 4;
    let bluesky = Bluesky::new(arguments.seed + 1);
    let body = |from: u64| {
        let mut body = String::new();
        for i in from..(from + BODY_DOCUMENTS).min(arguments.pushed) {
            bluesky.document(i, &mut body);
            body.push('\n');
        }
        body
    };
    let bodies: Vec<String> = (0..arguments.pushed)
        .step_by(BODY_DOCUMENTS as usize)
        .map(body)
        .collect();
    let bytes: usize = bodies.iter().map(String::len).sum();
    let started = Instant::now();
    let push = |pusher: u64| {
        let own: Vec<String> = bodies
            .iter()
            .skip(pusher as usize)
            .step_by(PUSHERS as usize)
            .cloned()
            .collect();
        async move {
            for body in own {
                server.push("pushed", body).await?;
            }
            anyhow::Ok(())
        }
    };
    futures::future::try_join_all((0..PUSHERS).map(push)).await?;
    row(
        "ingest by push, four pushers, all visible",
        bytes as f64 / 1e6 / started.elapsed().as_secs_f64(),
        "MB/s",
    );
    server
        .eventually("select count(*) from pushed", json!(arguments.pushed))
        .await;
    Ok(())
}
