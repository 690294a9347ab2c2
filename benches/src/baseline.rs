//! The baselines, measured in the same run: DuckDB on the same documents, and a Kafka consumer that discards them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use serde::Deserialize;

use crate::rivals::cache_dir;

/// DuckDB's figures for the same documents in a table of typed columns.
#[derive(Debug, Deserialize)]
pub struct DuckDb {
    /// The version of DuckDB.
    pub version: String,
    /// How long it took to load the file.
    pub load_seconds: f64,
    /// The size of the database file.
    pub bytes: u64,
    /// The median of each query, in milliseconds.
    pub milliseconds: Vec<f64>,
}

/// Loads a file of JSON lines into DuckDB and runs JSONBench's queries.
pub fn duckdb(lines: &Path, runs: usize) -> Result<DuckDb> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("duckdb_jsonbench.py");
    let output = Command::new(python()?)
        .arg(script)
        .arg(lines)
        .arg(runs.to_string())
        .output()
        .context("cannot run python")?;
    ensure!(
        output.status.success(),
        "DuckDB: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("cannot parse DuckDB's figures")
}

fn python() -> Result<PathBuf> {
    if let Some(python) = std::env::var_os("RACHIS_PYTHON") {
        return Ok(python.into());
    }
    let caches = cache_dir()?;
    for entry in std::fs::read_dir(&caches).with_context(|| caches.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("python-duckdb-") {
            return Ok(entry.path().join("bin/python"));
        }
    }
    bail!(
        "no python with duckdb in {}; ./tests/run --prepare installs one",
        caches.display()
    )
}

/// How long a consumer that discards everything takes to read `records` records of a topic.
pub fn consume(bootstrap: &str, topic: &str, partitions: i32, records: u64) -> Result<Duration> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .context("a consumer")?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let started = Instant::now();
    consumer.assign(&list)?;
    let (mut received, mut bytes) = (0, 0);
    while received < records {
        match consumer.poll(Duration::from_secs(30)) {
            Some(message) => {
                bytes += message?.payload_len();
                received += 1;
            }
            None => bail!("received only {received} of {records} records"),
        }
    }
    ensure!(bytes > 0, "the records are empty");
    Ok(started.elapsed())
}
