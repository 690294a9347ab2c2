//! `benches fan-out`: what more leaves and more shards cost, where a question has so little to compute that its time is
//! communication, and where it groups all documents. One process is measured in the same run: the limit.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Kafka, Server, Settings, cluster::ClusterSize, process::Process};

use super::{RunArgs, SuiteReport};
use crate::{
    documents::DocumentFile,
    footprint::{Usage, usage},
    report::{P50_MS, P99_MS, guarded, percentiles_ms},
    system::rachis::{ask_sql, ingest_topic},
};

pub(super) const LEAVES: &str = "leaves";
pub(super) const SHARDS: &str = "shards of one leaf";
pub(super) const SMALL: &str = "small question";
const QUESTIONS: [(&str, &str); 2] = [
    (SMALL, "select count(*) as n from bluesky where did = 'did:plc:unknown'"),
    (
        "group by",
        "select commit.collection as event, count(*) as n from bluesky group by event",
    ),
];
const ONE_PROCESS: &str = "one process";

/// What `benches fan-out` measures.
#[derive(Debug, Args)]
pub struct FanOutArgs {
    /// Documents
    #[arg(long, default_value_t = 200_000)]
    documents: u64,
    /// Numbers of leaves, each with as many shards as the most leaves
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    leaves: Vec<usize>,
    /// Numbers of shards on one leaf
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64])]
    shards: Vec<usize>,
    /// Replicas of each shard of a cluster; with one, each leaf answers for its own shards
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    runs: RunArgs,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// Measures Rachis alone: as one process, and as a cluster of each size.
pub async fn fan_out(arguments: &FanOutArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("fan-out")?;
    report.note(format!("{} runs of each question", arguments.runs.repetitions));
    report.note(format!("{} replica(s) of each shard of a cluster", arguments.replicas));
    report.note("a cluster also has one tailer and one aggregator; CPU and peak are those of all its processes");
    let documents = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    let most = arguments.leaves.iter().copied().max().unwrap_or(1);
    let sizes = arguments.leaves.iter().map(|leaves| (LEAVES, *leaves, *leaves, most));
    let shards = arguments.shards.iter().map(|shards| (SHARDS, *shards, 1, *shards));
    let result = guarded(one_process(&documents, most, arguments, &mut report)).await;
    result.unwrap_or_else(|error| report.fail(ONE_PROCESS, &error));
    for (table, number, leaves, shards) in sizes.chain(shards) {
        eprintln!("fan-out: {leaves} leaves, {shards} shards");
        let result = guarded(one_cluster(
            table,
            number,
            leaves,
            shards,
            &documents,
            arguments,
            &mut report,
        ))
        .await;
        result.unwrap_or_else(|error| report.fail(&format!("{number} {table}"), &error));
    }
    report.finish(arguments.json.as_deref())
}

/// A table of one question.
pub(super) fn table_name(table: &str, question: &str) -> String {
    format!("{table}, {question}")
}

async fn one_process(
    documents: &DocumentFile,
    shards: usize,
    arguments: &FanOutArgs,
    report: &mut SuiteReport,
) -> Result<()> {
    let kafka = Kafka::start().await;
    let server = Server::start(Settings::default()).await;
    load(&server, &kafka, documents, json!({ "shards": shards })).await?;
    measure(
        LEAVES,
        ONE_PROCESS,
        &server,
        &[server.process()],
        documents,
        arguments,
        report,
    )
    .await
}

async fn one_cluster(
    table: &str,
    number: usize,
    leaves: usize,
    shards: usize,
    documents: &DocumentFile,
    arguments: &FanOutArgs,
    report: &mut SuiteReport,
) -> Result<()> {
    let size = ClusterSize {
        leaves,
        tailers: 1,
        aggregators: 1,
    };
    let cluster = Cluster::start(size, Settings::default()).await;
    let settings = json!({ "shards": shards, "replicas": arguments.replicas });
    load(&cluster, &cluster.kafka, documents, settings).await?;
    let processes: Vec<&Process> = cluster.nodes().map(|node| cluster.process(&node.name)).collect();
    let sql = "select count(distinct leaf) from rachis.replicas where state = 'serving'";
    let used = ask_sql(&cluster, sql).await?.rows;
    ensure!(
        used == [[json!(leaves)]],
        "of {leaves} leaves these have shards: {used:?}"
    );
    measure(
        table,
        &number.to_string(),
        &cluster,
        &processes,
        documents,
        arguments,
        report,
    )
    .await
}

/// Loads the documents into a collection with these settings, from a topic with as many partitions as it has shards.
async fn load(client: &Client, kafka: &Kafka, documents: &DocumentFile, settings: Value) -> Result<()> {
    let name = documents.set.name();
    let partitions = settings["shards"].as_u64().context("a number of shards")?;
    documents.produce(kafka, i32::try_from(partitions)?).await?;
    let path = format!("/v1/collections/{name}");
    client.json(Method::PUT, &path, settings).await?;
    ingest_topic(client, kafka, name, documents.documents).await?;
    wait_until_settled(client, name).await
}

/// Waits until the number of documents in the tail and the number of splits have not changed for a while.
async fn wait_until_settled(client: &Client, collection: &str) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(10);
    const WAIT_MAX: Duration = Duration::from_secs(300);
    let sql = format!(
        "select sum(tail), (select count(*) from rachis.splits where collection = '{collection}') \
         from rachis.shards where collection = '{collection}'"
    );
    let (started, mut last, mut last_change) = (Instant::now(), Value::Null, Instant::now());
    while started.elapsed() < WAIT_MAX && last_change.elapsed() < QUIET {
        let now = json!(ask_sql(client, &sql).await?.rows);
        if now != last {
            (last, last_change) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn measure(
    table: &str,
    what: &str,
    client: &Client,
    processes: &[&Process],
    documents: &DocumentFile,
    arguments: &FanOutArgs,
    report: &mut SuiteReport,
) -> Result<()> {
    for (question, sql) in QUESTIONS {
        let expected = if question == SMALL { 0 } else { documents.documents };
        for _ in 0..arguments.runs.warmups {
            let rows = ask_sql(client, sql).await?.rows;
            let sum: u64 = rows.iter().filter_map(|row| row.last()?.as_u64()).sum();
            ensure!(sum == expected, "{question}: {sum} documents of {expected}");
        }
        let before = usage_of_all(processes)?;
        let mut times = Vec::new();
        for _ in 0..arguments.runs.repetitions {
            times.push(ask_sql(client, sql).await?.time);
        }
        let (p50, p99) = percentiles_ms(times);
        let table = table_name(table, question);
        report.add(&table, what, "rachis", &[(P50_MS, p50), (P99_MS, p99)]);
        report.add_usage(&table, what, "rachis", before, usage_of_all(processes)?);
    }
    Ok(())
}

/// The sum of what all processes used.
pub(super) fn usage_of_all(processes: &[&Process]) -> Result<Usage> {
    let mut sum = Usage::default();
    for process in processes {
        let used = usage(process.pid())?;
        sum.cpu += used.cpu;
        sum.peak_bytes += used.peak_bytes;
    }
    Ok(sum)
}
