//! What it costs to have the roles apart: the same documents and questions, in one process and in seven, in the same
//! run.
//!
//! Every figure is printed as a row of a table, with its unit. Nothing here is a test: a figure cannot fail.

use std::time::Instant;

use anyhow::{Result, ensure};
use benches::measure::{self, QUESTIONS, mebibytes, percentiles, row};
use clap::Parser;
use serde_json::json;
use tests::{Client, Cluster, Kafka, Server, Settings, cluster::Size};

/// Measures one process and a cluster.
#[derive(Parser)]
struct Arguments {
    /// Documents.
    #[arg(long, default_value_t = 200_000)]
    documents: u64,
    /// Runs of each question.
    #[arg(long, default_value_t = 30)]
    runs: usize,
    /// Seconds of each freshness measurement.
    #[arg(long, default_value_t = 10)]
    fresh_seconds: u64,
    /// The seed of the documents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A question of which little is computed: what is left is the way.
const SMALL: (&str, &str) = ("a small question", "select count(*) from bluesky where did = 'nobody'");

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kafka = Kafka::start().await;
    let raw_bytes = measure::produce(&kafka, arguments.documents, arguments.seed, &mut std::io::sink()).await?;
    row("raw documents", raw_bytes as f64 / 1e6, "MB");

    let server = Server::start(Settings::default()).await;
    let whole = measured("one process", &server, &kafka, &arguments, raw_bytes).await?;
    row(
        "one process: resident memory",
        mebibytes(server.process().resident_bytes()?),
        "MiB",
    );
    drop(server);

    let cluster = Cluster::start_on(kafka, Size::default(), Settings::default()).await;
    let apart = measured("seven processes", &cluster, &cluster.kafka, &arguments, raw_bytes).await?;
    for ((name, whole), (_, apart)) in whole.iter().zip(&apart) {
        row(&format!("{name}: seven processes over one, p50"), apart / whole, "x");
    }
    for node in cluster.nodes() {
        row(
            &format!("{}: resident memory", node.name),
            mebibytes(cluster.process(&node.name).resident_bytes()?),
            "MiB",
        );
    }
    for megabytes in [2, 5, 10] {
        measure::freshness(
            &cluster,
            &cluster.kafka,
            arguments.seed + megabytes,
            arguments.fresh_seconds,
            megabytes,
        )
        .await?;
    }
    Ok(())
}

/// Ingest, and the questions' medians in milliseconds.
async fn measured(
    form: &str,
    client: &Client,
    kafka: &Kafka,
    arguments: &Arguments,
    raw_bytes: u64,
) -> Result<Vec<(&'static str, f64)>> {
    let took = measure::ingest(client, kafka, arguments.documents).await?;
    row(
        &format!("{form}: ingest through Kafka, until all are visible"),
        raw_bytes as f64 / 1e6 / took.as_secs_f64(),
        "MB/s",
    );
    let mut medians = Vec::new();
    for (name, sql) in std::iter::once(SMALL).chain(QUESTIONS) {
        let mut times = Vec::new();
        for _ in 0..arguments.runs {
            let asked = Instant::now();
            let answer = client.ask(sql, json!({})).await?;
            times.push(asked.elapsed());
            ensure!(!answer.rows.is_empty(), "{name} found nothing");
        }
        medians.push((name, percentiles(&format!("{form}: {name}"), times)));
    }
    Ok(medians)
}
