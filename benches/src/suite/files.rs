//! `benches files`: a folder of Parquet files in, and whole answers out as files, beside DuckDB's `COPY`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Deserialize;
use tokio::process::Command;

use super::{SuiteReport, SystemName};
use crate::{
    documents::{DocumentFile, DocumentSet},
    report::{MEBIBYTE, guarded},
    system::{PushServer as _, RachisServer, rachis::count_documents},
};

const IN: &str = "a folder of Parquet files in";
const OUT: &str = "a whole answer out";
const SECONDS: &str = "s";
const ROWS_PER_SECOND: &str = "rows/s";
const OVER_DUCKDB: &str = "over DuckDB";
/// The folder: files of equally many rows.
const FILES: u64 = 8;
const PUSHED: &str = "eight files, into one table";
const PARQUET: &str = "all columns, to Parquet";
const CSV: &str = "all columns, to CSV with gzip";

/// What `benches files` measures.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// Bluesky-like documents
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What DuckDB reports of a script: how long some of its statements took, by name.
#[derive(Deserialize)]
struct DuckdbSeconds {
    copied_in: f64,
    parquet: f64,
    csv: f64,
}

/// Measures Rachis and DuckDB on the same files, which DuckDB writes. Its Python is that of the tests.
pub async fn files(arguments: &FilesArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("files")?;
    let result = guarded(measure(arguments, &mut report)).await;
    result.unwrap_or_else(|error| report.fail("files", &error));
    report.finish(arguments.json.as_deref())
}

async fn measure(arguments: &FilesArgs, report: &mut SuiteReport) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("benches-files-").tempdir()?;
    let documents = DocumentFile::generate(DocumentSet::Bluesky, arguments.documents, arguments.seed)?;
    let written = duckdb(&documents, folder.path()).await?;
    let seconds: DuckdbSeconds = serde_json::from_str(&written).context("DuckDB's times")?;
    add(
        IN,
        PUSHED,
        SystemName::Duckdb,
        seconds.copied_in,
        arguments.documents,
        report,
    );
    add(
        OUT,
        PARQUET,
        SystemName::Duckdb,
        seconds.parquet,
        arguments.documents,
        report,
    );
    add(OUT, CSV, SystemName::Duckdb, seconds.csv, arguments.documents, report);

    let mut server = RachisServer::start().await;
    server.create(documents.set).await?;
    let url = server.client().url().to_owned();
    let parquet = folder.path().join("in");
    let pushed = timed(&url, folder.path(), &["push", "bluesky", text(&parquet)?]).await?;
    let stored = count_documents(server.client(), "bluesky").await?;
    ensure!(
        stored == arguments.documents,
        "{stored} documents of {}",
        arguments.documents
    );
    add(
        IN,
        PUSHED,
        SystemName::Rachis,
        pushed.as_secs_f64(),
        arguments.documents,
        report,
    );
    for (what, name) in [(PARQUET, "out.parquet"), (CSV, "out.csv.gz")] {
        let file = folder.path().join(name);
        let select = "SELECT did, time_us, kind, commit FROM bluesky";
        let took = timed(&url, folder.path(), &["sql", select, "-o", text(&file)?]).await?;
        add(
            OUT,
            what,
            SystemName::Rachis,
            took.as_secs_f64(),
            arguments.documents,
            report,
        );
        let megabytes = std::fs::metadata(&file)?.len() as f64 / MEBIBYTE;
        report.add(OUT, what, SystemName::Rachis, &[("MiB", megabytes)]);
    }
    let count = format!(
        "import duckdb\nprint([duckdb.sql(f\"select count(*) from '{}/{{name}}'\").fetchall()[0][0] \
         for name in ['out.parquet', 'out.csv.gz']])",
        folder.path().display()
    );
    let (rows, expected) = (python(&count).await?, format!("[{0}, {0}]", arguments.documents));
    ensure!(rows.trim() == expected, "the files have {rows} rows, not {expected}");
    for (table, what) in [(IN, PUSHED), (OUT, PARQUET), (OUT, CSV)] {
        let of = |system: SystemName| report.value(table, what, system.as_str(), SECONDS);
        if let (Some(rachis), Some(duckdb)) = (of(SystemName::Rachis), of(SystemName::Duckdb)) {
            report.add(table, what, SystemName::Rachis, &[(OVER_DUCKDB, rachis / duckdb)]);
        }
    }
    Ok(())
}

fn add(table: &str, what: &str, system: SystemName, seconds: f64, rows: u64, report: &mut SuiteReport) {
    let figures = [(SECONDS, seconds), (ROWS_PER_SECOND, rows as f64 / seconds)];
    report.add(table, what, system, &figures);
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is UTF-8")
}

/// DuckDB writes the documents as Parquet files, copies them into a database file, and copies the table out.
async fn duckdb(documents: &DocumentFile, folder: &Path) -> Result<String> {
    let rows_per_file = documents.documents.div_ceil(FILES);
    python(&format!(
        "import duckdb, json, os, time\n\
         os.mkdir('{folder}/in')\n\
         db = duckdb.connect('{folder}/duckdb.db')\n\
         db.execute('set enable_progress_bar = false')\n\
         db.execute(\"create table t as select * from read_json('{documents}', format = 'newline_delimited', \
         columns = {{'did': 'VARCHAR', 'time_us': 'BIGINT', 'kind': 'VARCHAR', 'commit': 'JSON'}})\")\n\
         for i in range({FILES}):\n\
         \x20   db.execute(f\"copy (select * from t limit {rows_per_file} offset {{i * {rows_per_file}}}) \
         to '{folder}/in/{{i}}.parquet' (format parquet, compression zstd)\")\n\
         db.execute('create or replace table t as from t limit 0')\n\
         seconds = {{}}\n\
         def timed(name, sql):\n\
         \x20   started = time.monotonic()\n\
         \x20   db.execute(sql)\n\
         \x20   seconds[name] = time.monotonic() - started\n\
         timed('copied_in', \"copy t from '{folder}/in/*.parquet' (format parquet)\")\n\
         timed('parquet', \"copy t to '{folder}/duckdb.parquet' (format parquet, compression zstd)\")\n\
         timed('csv', \"copy t to '{folder}/duckdb.csv.gz' (format csv, header, compression gzip)\")\n\
         print(json.dumps(seconds))\n",
        folder = folder.display(),
        documents = documents.path().display(),
    ))
    .await
}

/// Runs a script and returns what it prints.
async fn python(script: &str) -> Result<String> {
    let mut command = Command::new(tests::oracle::python());
    let output = command.args(["-c", script]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a client command. Returns how long it took.
async fn timed(url: &str, folder: &Path, arguments: &[&str]) -> Result<Duration> {
    let started = Instant::now();
    let mut command = Command::new(tests::server::binary());
    command
        .args(arguments)
        .env("RACHIS_URL", url)
        .env("XDG_STATE_HOME", folder.join("state"));
    let output = command.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(started.elapsed())
}
