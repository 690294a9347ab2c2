//! The cost of separate roles: the same documents and queries in one process and in seven, in the same run.
//!
//! Every figure is printed as a table row with its unit. These are measurements, not tests: a figure cannot fail.

use anyhow::Result;
use benches::measure::{self, QUERIES, percentiles, row, row_mib};
use clap::Parser;
use tests::{Client, Cluster, Kafka, Server, Settings, cluster::ClusterSize};

/// Measures one process and a cluster
#[derive(Parser)]
struct ClusterBenchArgs {
    /// Documents
    #[arg(long, default_value_t = 200_000)]
    documents: u64,
    /// Runs of each query
    #[arg(long, default_value_t = 30)]
    runs: usize,
    /// Seconds of each freshness measurement
    #[arg(long, default_value_t = 10)]
    fresh_seconds: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A query that computes little, so its latency is mostly communication.
const SMALL: (&str, &str) = ("a small query", "select count(*) from bluesky where did = 'nobody'");

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = ClusterBenchArgs::parse();
    let kafka = Kafka::start().await;
    let raw_bytes = measure::produce(&kafka, arguments.documents, arguments.seed, &mut std::io::sink()).await?;
    row("raw documents", raw_bytes as f64 / 1e6, "MB");

    let server = Server::start(Settings::default()).await;
    let single = measure_deployment("one process", &server, &kafka, &arguments, raw_bytes).await?;
    row_mib("one process: resident memory", server.process().resident_bytes()?);
    drop(server);

    let cluster = Cluster::start_on(kafka, ClusterSize::default(), Settings::default()).await;
    let separate = measure_deployment("seven processes", &cluster, &cluster.kafka, &arguments, raw_bytes).await?;
    for ((name, single), (_, separate)) in single.iter().zip(&separate) {
        row(&format!("{name}: seven processes / one, p50"), separate / single, "x");
    }
    for node in cluster.nodes() {
        row_mib(
            &format!("{}: resident memory", node.name),
            cluster.process(&node.name).resident_bytes()?,
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

/// Measures ingest and queries. Returns the median of each query in milliseconds.
async fn measure_deployment(
    title: &str,
    client: &Client,
    kafka: &Kafka,
    arguments: &ClusterBenchArgs,
    raw_bytes: u64,
) -> Result<Vec<(&'static str, f64)>> {
    let ingested = measure::ingest(client, kafka, arguments.documents).await?;
    row(
        &format!("{title}: ingest from Kafka, until all are visible"),
        raw_bytes as f64 / 1e6 / ingested.as_secs_f64(),
        "MB/s",
    );
    let mut medians = Vec::new();
    for (name, sql) in std::iter::once(SMALL).chain(QUERIES) {
        let times = measure::time_query(client, name, sql, arguments.runs).await?;
        medians.push((name, percentiles(&format!("{title}: {name}"), times)));
    }
    Ok(medians)
}
