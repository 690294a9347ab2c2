//! The first figures: ingest, freshness, size, memory, start, recovery, and the latency of questions, of the real
//! server with a real Kafka.
//!
//! Every figure is printed as a row of a table, with its unit. Nothing here is a test: a figure cannot fail.

use std::{io::Write as _, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};
use benches::{
    bluesky::Bluesky,
    measure::{self, PARTITIONS, QUESTIONS, mebibytes, percentiles, row},
    rival,
};
use clap::Parser;
use serde_json::json;
use tests::{Kafka, Server, Settings};

/// Measures the server that was built.
#[derive(Parser)]
struct Arguments {
    /// Documents of the main collection.
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Documents that are pushed besides.
    #[arg(long, default_value_t = 200_000)]
    pushed: u64,
    /// Runs of each question.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Seconds of the freshness measurement.
    #[arg(long, default_value_t = 30)]
    fresh_seconds: u64,
    /// The seed of the documents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const SEARCHES: [(&str, &str); 4] = [
    ("search, a frequent word", "coffee"),
    ("search, a word at a path", "commit.record.text:rocket"),
    ("search, a phrase", "\"open source\""),
    ("search, two words", "coffee AND rocket"),
];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let mut server = Server::start(Settings::default()).await;
    row(
        "start on an empty folder, until ready",
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    row(
        "resident memory, empty",
        mebibytes(server.process().resident_bytes()?),
        "MiB",
    );

    let kafka = Kafka::start().await;
    let lines = tempfile::NamedTempFile::new()?;
    let raw_bytes = ingest_through_kafka(&server, &kafka, &arguments, lines.as_file()).await?;
    row(
        "resident memory, right after ingest",
        mebibytes(server.process().resident_bytes()?),
        "MiB",
    );
    measure::settled(&server, "bluesky").await?;
    row(
        "resident memory, settled",
        mebibytes(server.process().resident_bytes()?),
        "MiB",
    );
    row(
        "bytes on disk per raw byte",
        folder_bytes(&server.data())? as f64 / raw_bytes as f64,
        "",
    );

    let duckdb = rival::duckdb(lines.path(), arguments.runs)?;
    drop(lines);
    row(
        &format!("DuckDB {}, loading the same as a file", duckdb.version),
        raw_bytes as f64 / 1e6 / duckdb.load_seconds,
        "MB/s",
    );
    row(
        "DuckDB, bytes on disk per raw byte",
        duckdb.bytes as f64 / raw_bytes as f64,
        "",
    );

    for ((name, sql), rival) in QUESTIONS.into_iter().zip(duckdb.milliseconds) {
        let mut times = Vec::new();
        for _ in 0..arguments.runs {
            let asked = Instant::now();
            let answer = server.ask(sql, json!({})).await?;
            times.push(asked.elapsed());
            ensure!(!answer.rows.is_empty(), "{name} found nothing");
        }
        let median = percentiles(name, times);
        row(&format!("{name}, p50 over DuckDB's"), median / rival, "x");
    }
    documents_by_id(&server, &arguments).await?;
    for (name, query) in SEARCHES {
        let mut times = Vec::new();
        for _ in 0..arguments.runs * 3 {
            let asked = Instant::now();
            let body = json!({ "q": query, "limit": 20 });
            server
                .json(reqwest::Method::POST, "/v1/collections/bluesky/search", body)
                .await?;
            times.push(asked.elapsed());
        }
        percentiles(name, times);
    }

    server.kill();
    let begun = Instant::now();
    server.start_again().await;
    row(
        "recovery after kill -9, until ready",
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    server
        .eventually("select count(*) from bluesky", json!(arguments.documents))
        .await;
    row(
        "recovery after kill -9, until the count is right",
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );

    ingest_by_push(&server, &arguments).await?;
    measure::freshness(&server, &kafka, arguments.seed + 2, arguments.fresh_seconds, 2).await?;
    row(
        "resident memory at the end",
        mebibytes(server.process().resident_bytes()?),
        "MiB",
    );
    Ok(())
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    // The ballast is none of the documents' bytes.
    let entries = walkdir::WalkDir::new(folder)
        .into_iter()
        .filter_entry(|entry| entry.file_name() != "ballast");
    let sizes = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    Ok(sizes.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum())
}

/// Produces the documents, writes them into a file too, and has them read; the raw bytes.
async fn ingest_through_kafka(
    server: &Server,
    kafka: &Kafka,
    arguments: &Arguments,
    lines: &std::fs::File,
) -> Result<u64> {
    let mut lines = std::io::BufWriter::new(lines);
    let raw_bytes = measure::produce(kafka, arguments.documents, arguments.seed, &mut lines).await?;
    lines.flush()?;
    let (bootstrap, documents) = (kafka.bootstrap(), arguments.documents);
    let limit =
        tokio::task::spawn_blocking(move || rival::consume(&bootstrap, "bluesky", PARTITIONS, documents)).await??;
    row("raw documents", raw_bytes as f64 / 1e6, "MB");
    row(
        "limit: a consumer that throws everything away",
        raw_bytes as f64 / 1e6 / limit.as_secs_f64(),
        "MB/s",
    );
    let took = measure::ingest(server, kafka, arguments.documents).await?;
    row(
        "ingest through Kafka, until all are visible",
        raw_bytes as f64 / 1e6 / took.as_secs_f64(),
        "MB/s",
    );
    row(
        "ingest through Kafka over that limit",
        limit.as_secs_f64() / took.as_secs_f64(),
        "x",
    );
    Ok(raw_bytes)
}

async fn documents_by_id(server: &Server, arguments: &Arguments) -> Result<()> {
    let mut times = Vec::new();
    for i in 0..1000_u64 {
        let n = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % arguments.documents;
        let id = format!("bluesky-source/{}@{}", n % 2, n / 2);
        let asked = Instant::now();
        server.document("bluesky", &id).await?.with_context(|| id.clone())?;
        times.push(asked.elapsed());
    }
    percentiles("a document by id", times);
    Ok(())
}

async fn ingest_by_push(server: &Server, arguments: &Arguments) -> Result<()> {
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
    let begun = Instant::now();
    let push = |pusher: u64| {
        let mine: Vec<String> = bodies
            .iter()
            .skip(pusher as usize)
            .step_by(PUSHERS as usize)
            .cloned()
            .collect();
        async move {
            for body in mine {
                server.push("pushed", body).await?;
            }
            anyhow::Ok(())
        }
    };
    futures::future::try_join_all((0..PUSHERS).map(push)).await?;
    row(
        "ingest by push, four pushers, all visible",
        bytes as f64 / 1e6 / begun.elapsed().as_secs_f64(),
        "MB/s",
    );
    server
        .eventually("select count(*) from pushed", json!(arguments.pushed))
        .await;
    Ok(())
}
