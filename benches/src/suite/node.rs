//! `benches footprint`: what a node costs that has nothing, many collections, many shards that catch up, or many
//! documents with more coming in and dashboards beside.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::json;
use tests::{Kafka, Server, Settings, server::binary};

use super::{SuiteReport, SystemArgs, SystemName, freshness::follow_topic};
use crate::{
    documents::DocumentFile,
    feed::{FeedPlan, Marks, feed_kafka},
    footprint::usage,
    question::JSONBENCH,
    report::{MEBIBYTE, guarded, percentiles_ms},
    system::{
        self, PushServer as _, RachisServer, System as _,
        rachis::{ask_sql, ingest_topic},
    },
};

pub(super) const EMPTY: &str = "empty node";
pub(super) const MANY: &str = "many collections";
pub(super) const PEAKS: &str = "memory";
pub(super) const RESIDENT: &str = "resident MiB";
pub(super) const THREADS: &str = "threads";
pub(super) const FIRST_ANSWER_MS: &str = "first answer ms";
pub(super) const IDLE: &str = "idle";
pub(super) const DOCUMENTS: &str = "documents";
pub(super) const COLLECTIONS: &str = "collections";
/// Concurrent requests.
const REQUESTS_MAX: usize = 8;
/// Collections that are queried.
const QUERIED_COLLECTIONS: u64 = 200;
/// Long enough for shards to become idle and to be closed.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// The rate of documents that come in beside dashboards, in MB/s, and for how long.
const BESIDE_RATE: u64 = 5;

const LISTINGS: [&str; 4] = [
    "select count(*) from rachis.collections",
    "select count(*) from rachis.shards where error is null",
    "select count(*) from rachis.fields where error is null",
    "select count(*) from information_schema.columns",
];

/// What `benches footprint` measures.
#[derive(Debug, Args)]
pub struct FootprintArgs {
    /// Collections; 0 leaves them out
    #[arg(long, default_value_t = 1_000)]
    collections: u64,
    /// A low limit of open files, with which many collections are measured once more
    #[arg(long, default_value_t = 1_024)]
    open_files: u64,
    /// Shards that catch up; 0 leaves them out
    #[arg(long, default_value_t = 16)]
    shards: i32,
    /// Documents that the shards catch up with
    #[arg(long, default_value_t = 2_000_000)]
    shard_documents: u64,
    /// Documents under ingest and dashboards; 0 leaves them out
    #[arg(long, default_value_t = 10_000_000)]
    documents: u64,
    /// Seconds of ingest and dashboards after the documents have been loaded
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    systems: SystemArgs,
}

/// Measures Rachis; an empty node and many documents beside VictoriaLogs.
pub async fn footprint(arguments: &FootprintArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("footprint")?;
    let systems = [SystemName::Rachis, SystemName::VictoriaLogs];
    let chosen = arguments.systems.chosen(&systems, &mut report)?;
    for &system in &chosen {
        let result = guarded(empty_node(system, &mut report)).await;
        result.unwrap_or_else(|error| report.fail(&format!("{system}: {EMPTY}"), &error));
    }
    let has_rachis = chosen.contains(&SystemName::Rachis);
    if arguments.collections > 0 && has_rachis {
        let result = guarded(many_collections(arguments, &mut report)).await;
        result.unwrap_or_else(|error| report.fail(MANY, &error));
    }
    if arguments.shards > 0 && has_rachis {
        let result = guarded(catch_up(arguments, &mut report)).await;
        result.unwrap_or_else(|error| report.fail("shards that catch up", &error));
    }
    if arguments.documents > 0 && has_rachis {
        let result = guarded(many_documents(arguments, &mut report)).await;
        result.unwrap_or_else(|error| report.fail("many documents", &error));
    }
    report.finish(arguments.systems.json())
}

/// Starts a server in an empty folder several times; the median start is shown.
async fn empty_node(system: SystemName, report: &mut SuiteReport) -> Result<()> {
    const STARTS: usize = 5;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let server = system.start_server().await?.context("no server")?;
        let ready = started.elapsed().as_secs_f64() * 1e3;
        let resident = usage(server.process_id())?.peak_bytes as f64 / MEBIBYTE;
        server.ask_something().await?;
        let answered = started.elapsed().as_secs_f64() * 1e3;
        let used = usage(server.process_id())?;
        let peak = used.peak_bytes as f64 / MEBIBYTE;
        starts.push((answered, ready, used.cpu.as_secs_f64(), resident, peak));
    }
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (answered, ready, cpu, resident, peak) = starts[STARTS / 2];
    let figures = [
        ("ready ms", ready),
        (FIRST_ANSWER_MS, answered),
        ("CPU s", cpu),
        (RESIDENT, resident),
        ("peak MiB after it", peak),
    ];
    report.add(EMPTY, "start", system, &figures);
    Ok(())
}

async fn many_collections(arguments: &FootprintArgs, report: &mut SuiteReport) -> Result<()> {
    measure_collections("rachis", Settings::default(), arguments.collections, report).await?;
    let folder = tempfile::tempdir()?;
    let settings = Settings {
        binary: Some(limited_binary(folder.path(), arguments.open_files)?),
        ..Settings::default()
    };
    let system = format!("rachis, {} open files", arguments.open_files);
    measure_collections(&system, settings, arguments.collections, report).await
}

/// A script that runs the server with a low limit of open files.
fn limited_binary(folder: &Path, open_files: u64) -> Result<PathBuf> {
    let script = folder.join("rachis");
    let text = format!(
        "#!/bin/sh\nulimit -n {open_files}\nexec {} \"$@\"\n",
        binary().display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))?;
    Ok(script)
}

/// Each collection has one shard and gets a document with each push.
async fn measure_collections(system: &str, settings: Settings, count: u64, report: &mut SuiteReport) -> Result<()> {
    eprintln!("{system}: {count} collections");
    let mut server = Server::start(settings).await;
    resources("empty", system, &server, report)?;
    for what in ["a push to each, which creates them", "another push to each"] {
        let started = Instant::now();
        push_to_all(&server, count).await?;
        report.add(MANY, what, system, &[("s", started.elapsed().as_secs_f64())]);
        resources(what, system, &server, report)?;
    }
    tokio::time::sleep(IDLE_TIME).await;
    resources(IDLE, system, &server, report)?;
    report.add(MANY, IDLE, system, &[(COLLECTIONS, count as f64)]);
    query_idle_collections(system, &server, count, report).await?;
    listings("listings", system, &server, report).await?;
    server.stop();
    measure_start("start after an orderly stop", system, &mut server, 2, report).await?;
    listings("listings after a start", system, &server, report).await?;
    push_to_all(&server, count).await?;
    server.kill();
    measure_start("start after kill -9", system, &mut server, 3, report).await
}

async fn query_idle_collections(system: &str, server: &Server, count: u64, report: &mut SuiteReport) -> Result<()> {
    let mut times = Vec::new();
    for number in (0..QUERIED_COLLECTIONS).map(|number| number * count / QUERIED_COLLECTIONS) {
        let answer = ask_sql(server, &format!("select count(*) from c{number}")).await?;
        ensure!(answer.rows == [[json!(2)]], "c{number} has {:?} documents", answer.rows);
        times.push(answer.time);
    }
    let (p50, p99) = percentiles_ms(times);
    let figures = [("p50 ms", p50), ("p99 ms", p99)];
    report.add(MANY, "a question to an idle collection", system, &figures);
    Ok(())
}

/// Starts the stopped server; each collection has `documents` documents.
async fn measure_start(
    what: &str,
    system: &str,
    server: &mut Server,
    documents: u64,
    report: &mut SuiteReport,
) -> Result<()> {
    let started = Instant::now();
    server.restart().await;
    let ready = started.elapsed().as_secs_f64();
    server.eventually("select count(*) from c0", json!(documents)).await;
    let figures = [("ready s", ready), ("s", started.elapsed().as_secs_f64())];
    report.add(MANY, what, system, &figures);
    resources(what, system, server, report)
}

fn resources(what: &str, system: &str, server: &Server, report: &mut SuiteReport) -> Result<()> {
    let process = server.process();
    let figures = [
        (RESIDENT, process.resident_bytes()? as f64 / MEBIBYTE),
        (THREADS, process.threads()? as f64),
        ("open files", process.open_files()? as f64),
        ("CPU s so far", process.cpu_time()?.as_secs_f64()),
    ];
    report.add(MANY, what, system, &figures);
    Ok(())
}

async fn push_to_all(server: &Server, count: u64) -> Result<()> {
    let push = |number: u64| async move {
        let document = format!("{{\"number\":{number},\"word\":\"coffee\"}}");
        server.push(&format!("c{number}"), document).await.map(drop)
    };
    let pushes = stream::iter(0..count).map(push).buffer_unordered(REQUESTS_MAX);
    pushes.try_collect().await
}

async fn listings(what: &str, system: &str, server: &Server, report: &mut SuiteReport) -> Result<()> {
    let started = Instant::now();
    server.get("/v1/collections").await?;
    for sql in LISTINGS {
        ask_sql(server, sql).await?;
    }
    report.add(MANY, what, system, &[("s", started.elapsed().as_secs_f64())]);
    resources(what, system, server, report)
}

/// One collection with many shards reads a topic from its beginning.
async fn catch_up(arguments: &FootprintArgs, report: &mut SuiteReport) -> Result<()> {
    let documents = DocumentFile::bluesky(arguments.shard_documents, arguments.seed)?;
    let name = documents.set.name();
    let kafka = Kafka::start().await;
    documents.produce(&kafka, arguments.shards).await?;
    let server = RachisServer::start().await;
    let (path, shards) = (format!("/v1/collections/{name}"), json!({ "shards": arguments.shards }));
    server.client().json(Method::PUT, &path, shards).await?;
    let before = usage(server.process_id())?;
    eprintln!("rachis: {} shards catch up", arguments.shards);
    let time = ingest_topic(server.client(), &kafka, name, documents.documents).await?;
    let what = catch_up_name(arguments.shards);
    let rate = documents.bytes as f64 / 1e6 / time.as_secs_f64();
    report.add(PEAKS, &what, SystemName::Rachis, &[("MB/s", rate)]);
    report.add_usage(PEAKS, &what, SystemName::Rachis, before, usage(server.process_id())?);
    Ok(())
}

/// The names of rows.
pub(super) fn catch_up_name(shards: i32) -> String {
    format!("{shards} shards catch up")
}
pub(super) const MANY_DOCUMENTS: &str = "many documents, ingest and dashboards";

/// Loads documents from Kafka while dashboards ask, and goes on at a lower rate.
async fn many_documents(arguments: &FootprintArgs, report: &mut SuiteReport) -> Result<()> {
    let plan = FeedPlan {
        megabytes_per_second: BESIDE_RATE,
        time: Duration::from_secs(arguments.seconds),
    };
    let documents = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    let fed = DocumentFile::bluesky(plan.documents(), arguments.seed + 1)?;
    let (kafka, mut server) = (Kafka::start().await, RachisServer::start().await);
    let name = documents.set.name();
    server.create(documents.set).await?;
    let before = usage(server.process_id())?;
    eprintln!("rachis: {} documents, ingest and dashboards", documents.documents);
    let ingest = async {
        follow_topic(server.client(), &kafka, name).await?;
        let started = Instant::now();
        server.push_all(&documents).await?;
        let time = started.elapsed();
        let fed = feed_kafka(&kafka.bootstrap(), &fed, plan, Marks::default()).await?;
        system::wait_for_count(&server, documents.set, documents.documents + fed.documents).await?;
        anyhow::Ok(documents.bytes as f64 / 1e6 / time.as_secs_f64())
    };
    let mut times = Vec::new();
    let dashboards = async {
        loop {
            for question in &JSONBENCH {
                tokio::time::sleep(Duration::from_millis(500)).await;
                times.push(server.ask(question).await?.time);
            }
        }
    };
    let rate = tokio::select! {
        rate = ingest => rate?,
        result = dashboards => {
            let result: Result<()> = result;
            return Err(result.err().context("the dashboards ended")?);
        }
    };
    report.add(PEAKS, MANY_DOCUMENTS, SystemName::Rachis, &[("MB/s", rate)]);
    report.add_usage(
        PEAKS,
        MANY_DOCUMENTS,
        SystemName::Rachis,
        before,
        usage(server.process_id())?,
    );
    let figures = [
        (DOCUMENTS, documents.documents as f64),
        ("dashboard p99 ms", percentiles_ms(times).1),
    ];
    report.add(PEAKS, MANY_DOCUMENTS, SystemName::Rachis, &figures);
    Ok(())
}
