//! `benches copies`: how fast shards are written to a snapshot store and restored from there, and copied to another leaf,
//! beside `cp` of the same folders.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use reqwest::Method;
use serde_json::json;
use tests::{Cluster, Settings, cluster::ClusterSize, process::TestDir};

use super::SuiteReport;
use crate::{
    documents::DocumentFile,
    report::MEBIBYTE,
    system::rachis::{ask_sql, wait_for_documents},
};

const COPY: &str = "copies of 4 shards, without a limit";
const WAIT_MAX: Duration = Duration::from_mins(30);

/// What `benches copies` measures.
#[derive(Debug, Args)]
pub struct CopiesArgs {
    /// Documents
    #[arg(long, default_value_t = 500_000)]
    documents: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures Rachis, and `cp`.
pub async fn copies(arguments: &CopiesArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("copies")?;
    report.note(
        "2 leaves, 1 tailer, 1 aggregator; the snapshot store is a folder on the same disk, and everything is synced",
    );
    let documents = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    let folder = TestDir::new("copies")?;
    std::fs::create_dir(folder.path().join("store"))?;
    let settings = Settings::default()
        .with("RACHIS_LEAF__COPY_BYTES_PER_SECOND", 1_u64 << 40)
        .with("RACHIS_SNAPSHOTS__URL", folder.path().join("store").display());
    let size = ClusterSize {
        leaves: 2,
        tailers: 1,
        aggregators: 1,
    };
    let mut cluster = Cluster::start(size, settings).await;
    let name = documents.set.name();
    let one_replica = json!({ "shards": 4, "replicas": 1 });
    cluster
        .json(Method::PUT, &format!("/v1/collections/{name}"), one_replica)
        .await?;
    documents.produce(&cluster.kafka, 4).await?;
    cluster
        .source("topic", name, name, &cluster.kafka.bootstrap(), json!({}))
        .await?;
    wait_for_documents(&cluster, name, documents.documents).await?;

    let began = Instant::now();
    let first = take(&cluster).await?;
    let taken = began.elapsed();
    let row = ask_sql(&cluster, "select bytes from rachis.snapshots").await?.rows;
    let bytes = row[0][0].as_f64().context("bytes")?;
    let mut add = |what: &str, system: &str, bytes: f64, time: Duration| {
        report.add(
            COPY,
            what,
            system,
            &[("MB/s", bytes / time.as_secs_f64() / 1e6), ("MiB", bytes / MEBIBYTE)],
        );
    };
    add("a snapshot", "rachis", bytes, taken);
    let began = Instant::now();
    take(&cluster).await?;
    let again = began.elapsed();
    let sql = "select bytes_written from rachis.snapshots order by began desc limit 1";
    let written = ask_sql(&cluster, sql).await?.rows[0][0].as_f64().context("bytes")?;
    add("another one, of what it has", "rachis", bytes, again);
    add("another one, of what it has written", "rachis", written, again);

    let began = Instant::now();
    let path = format!("/v1/snapshots/{first}/restore");
    cluster
        .json(Method::POST, &path, json!({ "collections": [name], "as": "restored" }))
        .await?;
    let (count, all) = ("select count(*) from restored", json!(documents.documents));
    // It answers only once it has all shards.
    while ask_sql(&cluster, count)
        .await
        .ok()
        .is_none_or(|answer| answer.rows != [[all.clone()]])
    {
        ensure!(began.elapsed() < WAIT_MAX, "the copy does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    add("a restored copy, until it answers", "rachis", bytes, began.elapsed());
    cluster
        .json(Method::DELETE, "/v1/collections/restored", json!({}))
        .await?;

    let began = Instant::now();
    let two_replicas = json!({ "shards": 4, "replicas": 2 });
    cluster
        .json(Method::PUT, &format!("/v1/collections/{name}"), two_replicas)
        .await?;
    cluster.json(Method::POST, "/v1/rebalance", json!({})).await?;
    let sql = "select count(*) from rachis.moves where state in ('waiting', 'copying')";
    let is_copied = || async {
        let begun = ask_sql(&cluster, "select count(*) from rachis.replicas").await?.rows == [[json!(8)]];
        Ok::<_, anyhow::Error>(begun && ask_sql(&cluster, sql).await?.rows == [[json!(0)]])
    };
    // A leaf begins within a second.
    while began.elapsed() < Duration::from_secs(2) || !is_copied().await? {
        ensure!(began.elapsed() < WAIT_MAX, "the replicas are not copied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    add("second replicas, from leaf to leaf", "rachis", bytes, began.elapsed());

    // A leaf that runs removes files meanwhile.
    cluster.stop("leaf-1");
    let (from, to) = (cluster.data_dir("leaf-1").join("shards"), folder.path().join("copied"));
    let (copied, time) = copy_with_cp(&from, &to)?;
    add("a folder with all shards", "cp", copied as f64, time);
    report.finish(arguments.json.as_deref())
}

/// Takes a snapshot, and returns its name.
async fn take(cluster: &Cluster) -> Result<String> {
    let began = Instant::now();
    let begun = cluster.json(Method::POST, "/v1/snapshots", json!({})).await?;
    let id = begun["id"].as_str().context("its name")?.to_owned();
    loop {
        let shown = cluster.get(&format!("/v1/snapshots/{id}")).await?;
        if shown["state"] == "complete" {
            return Ok(id);
        }
        ensure!(shown["state"] == "running" && began.elapsed() < WAIT_MAX, "{shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Copies a folder, and syncs it.
fn copy_with_cp(from: &Path, to: &Path) -> Result<(u64, Duration)> {
    let began = Instant::now();
    for (program, arguments) in [
        ("cp", vec![Path::new("-r"), from, to]),
        ("sync", vec![Path::new("-f"), to]),
    ] {
        ensure!(
            Command::new(program).args(arguments).status()?.success(),
            "{program} failed"
        );
    }
    let time = began.elapsed();
    let files = walkdir::WalkDir::new(to).into_iter().filter_map(Result::ok);
    let bytes = files
        .filter_map(|file| file.metadata().ok())
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len());
    Ok((bytes.sum(), time))
}
