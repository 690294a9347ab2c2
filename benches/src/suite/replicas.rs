//! `benches replicas`: what a second replica of each shard costs, and how soon questions and pushes go on after a leaf has
//! died. A collection with one replica is measured in the same cluster.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;
use reqwest::Method;
use serde_json::json;
use tests::{Client, Cluster, Settings, cluster::ClusterSize, process::Process};

use super::{SuiteReport, fan_out::usage_of_all};
use crate::{
    documents::DocumentFile,
    report::{P50_MS, P99_MS, guarded, percentiles_ms},
    system::rachis::{ask_sql, wait_for_documents},
};

const INGEST: &str = "from Kafka, with a shard for each of 2 leaves";
const PUSH: &str = "push of 100 documents";
const DEATH: &str = "after kill -9 of a leaf, median and worst";
const INGEST_WAIT_MAX: Duration = Duration::from_mins(30);
/// Documents of one push.
const PUSHED_AT_ONCE: u64 = 100;

/// What `benches replicas` measures.
#[derive(Debug, Args)]
pub struct ReplicasArgs {
    /// Documents
    #[arg(long, default_value_t = 500_000)]
    documents: u64,
    /// Pushes for each number of replicas
    #[arg(long, default_value_t = 200)]
    pushes: u64,
    /// Leaves to kill
    #[arg(long, default_value_t = 6)]
    deaths: usize,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// Measures Rachis alone.
pub async fn replicas(arguments: &ReplicasArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("replicas")?;
    report.note("2 leaves, 1 tailer, 1 aggregator; CPU and peak are those of the leaves and the tailer");
    let documents = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    for replicas in [1, 2] {
        let result = guarded(of_replicas(replicas, &documents, arguments, &mut report)).await;
        result.unwrap_or_else(|error| report.fail(&format!("{replicas} replicas"), &error));
    }
    report.finish(arguments.json.as_deref())
}

async fn of_replicas(
    replicas: u32,
    documents: &DocumentFile,
    arguments: &ReplicasArgs,
    report: &mut SuiteReport,
) -> Result<()> {
    let size = ClusterSize {
        leaves: 2,
        tailers: 1,
        aggregators: 1,
    };
    let mut cluster = Cluster::start(size, Settings::default()).await;
    let what = format!("{replicas} replicas");
    let (name, settings) = (documents.set.name(), json!({ "shards": 2, "replicas": replicas }));
    for collection in [name, "pushed"] {
        let path = format!("/v1/collections/{collection}");
        cluster.json(Method::PUT, &path, settings.clone()).await?;
    }
    documents.produce(&cluster.kafka, 2).await?;
    ingest(&cluster, documents, replicas, report).await?;
    let mut pushed = 0;
    let mut times = Vec::new();
    while pushed < arguments.pushes * PUSHED_AT_ONCE {
        times.push(push(&cluster, &mut pushed).await?);
    }
    let (p50, p99) = percentiles_ms(times);
    report.add(PUSH, &what, "rachis", &[(P50_MS, p50), (P99_MS, p99)]);
    if replicas > 1 {
        deaths(&mut cluster, arguments.deaths, pushed, report).await?;
    }
    Ok(())
}

/// Ingests all documents, and waits until every replica has them.
async fn ingest(cluster: &Cluster, documents: &DocumentFile, replicas: u32, report: &mut SuiteReport) -> Result<()> {
    let nodes = cluster.nodes().filter(|node| node.role != "aggregator");
    let processes: Vec<&Process> = nodes.map(|node| cluster.process(&node.name)).collect();
    let before = usage_of_all(&processes)?;
    let (name, what, began) = (documents.set.name(), format!("{replicas} replicas"), Instant::now());
    let bootstrap = cluster.kafka.bootstrap();
    cluster.source("topic", name, name, &bootstrap, json!({})).await?;
    wait_for_documents(cluster, name, documents.documents).await?;
    let visible = began.elapsed();
    let sql = format!(
        "select count(*) from rachis.digests where collection = '{name}' and source = 'topic' \
         group by partition, from_offset having count(*) != {replicas} or count(distinct digest) != 1"
    );
    while !ask_sql(cluster, &sql).await?.rows.is_empty() {
        ensure!(began.elapsed() < INGEST_WAIT_MAX, "the replicas differ");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let figures = [
        ("documents/s", documents.documents as f64 / visible.as_secs_f64()),
        (
            "all replicas, documents/s",
            documents.documents as f64 / began.elapsed().as_secs_f64(),
        ),
    ];
    report.add(INGEST, &what, "rachis", &figures);
    report.add_usage(INGEST, &what, "rachis", before, usage_of_all(&processes)?);
    Ok(())
}

/// Pushes some documents, and returns how long that took.
async fn push(client: &Client, pushed: &mut u64) -> Result<Duration> {
    let mut lines = String::new();
    for n in *pushed..*pushed + PUSHED_AT_ONCE {
        writeln!(lines, "{{\"n\":{n},\"text\":\"document {n} of a push\"}}")?;
    }
    let began = Instant::now();
    client.push("pushed", lines).await?;
    *pushed += PUSHED_AT_ONCE;
    Ok(began.elapsed())
}

/// Kills one leaf after the other under questions and pushes.
async fn deaths(cluster: &mut Cluster, deaths: usize, mut pushed: u64, report: &mut SuiteReport) -> Result<()> {
    let (mut answered, mut acknowledged, mut serving) = (Vec::new(), Vec::new(), Vec::new());
    for death in 0..deaths {
        until_serving(cluster).await?;
        ask_count(cluster, pushed).await?;
        let leaf = ["leaf-1", "leaf-2"][death % 2];
        cluster.kill(leaf);
        let began = Instant::now();
        ask_count(cluster, pushed).await?;
        answered.push(began.elapsed());
        push(cluster, &mut pushed).await?;
        acknowledged.push(began.elapsed());
        ask_count(cluster, pushed).await?;
        cluster.restart(leaf).await;
        let began = Instant::now();
        until_serving(cluster).await?;
        serving.push(began.elapsed());
    }
    for (what, mut times) in [
        ("a complete answer", answered),
        ("a push is acknowledged", acknowledged),
        ("back, and serving again", serving),
    ] {
        times.sort_unstable();
        let [median, worst] = [times[times.len() / 2], times[times.len() - 1]].map(|time| time.as_secs_f64() * 1e3);
        report.add(DEATH, what, "rachis", &[("median ms", median), ("worst ms", worst)]);
    }
    Ok(())
}

/// Asks for a complete answer, which must be right.
async fn ask_count(client: &Client, pushed: u64) -> Result<()> {
    let rows = ask_sql(client, "select count(*), count(distinct n) from pushed")
        .await?
        .rows;
    ensure!(rows == [vec![json!(pushed), json!(pushed)]], "{rows:?}, not {pushed}");
    Ok(())
}

async fn until_serving(client: &Client) -> Result<()> {
    const WAIT_MAX: Duration = Duration::from_secs(120);
    let began = Instant::now();
    let sql = "select count(*) from rachis.shards where replicas like '%joining%' or replicas like '%behind%'";
    while ask_sql(client, sql).await?.rows != [vec![json!(0)]] {
        ensure!(began.elapsed() < WAIT_MAX, "a replica does not catch up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
