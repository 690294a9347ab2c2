//! What the figures are measured against, in the same run: DuckDB on the same documents, and a consumer that does
//! nothing with them.

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

/// What DuckDB did with the same documents, in a table of typed columns.
#[derive(Debug, Deserialize)]
pub struct DuckDb {
    /// Its version.
    pub version: String,
    /// How long it read the file.
    pub load_seconds: f64,
    /// Its file's size.
    pub bytes: u64,
    /// The median of each question, in milliseconds.
    pub milliseconds: Vec<f64>,
}

/// Loads a file of JSON lines into DuckDB and asks JSONBench's questions.
pub fn duckdb(lines: &Path, runs: usize) -> Result<DuckDb> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("duckdb_jsonbench.py");
    let output = Command::new(python()?)
        .arg(script)
        .arg(lines)
        .arg(runs.to_string())
        .output()
        .context("python cannot be run")?;
    ensure!(
        output.status.success(),
        "DuckDB: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("DuckDB's figures do not read back")
}

fn python() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("RACHIS_PYTHON") {
        return Ok(given.into());
    }
    let home = std::env::var_os("HOME").context("no HOME")?;
    let caches = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(home).join(".cache"), PathBuf::from)
        .join("rachis");
    for entry in std::fs::read_dir(&caches).with_context(|| caches.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("python-duckdb-") {
            return Ok(entry.path().join("bin/python"));
        }
    }
    bail!(
        "there is no python with duckdb in {}; ./tests/run --prepare makes one",
        caches.display()
    )
}

/// How long a consumer that throws everything away needs for so many records of a topic.
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
    let begun = Instant::now();
    consumer.assign(&list)?;
    let (mut seen, mut bytes) = (0, 0);
    while seen < records {
        match consumer.poll(Duration::from_secs(30)) {
            Some(message) => {
                bytes += message?.payload_len();
                seen += 1;
            }
            None => bail!("{seen} of {records} records came"),
        }
    }
    ensure!(bytes > 0, "the records are empty");
    Ok(begun.elapsed())
}
