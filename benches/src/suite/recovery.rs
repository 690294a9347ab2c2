//! `benches recovery`: from `kill -9`, and from an orderly stop, to the first right answer, with few and with many
//! documents. It must not depend on how many there are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::{SuiteReport, SystemArgs, SystemName};
use crate::{
    documents::DocumentFile,
    footprint::usage,
    report::{MEBIBYTE, guarded},
    system::{self, PushServer, RachisServer},
};

pub(super) const RECOVERY: &str = "start on documents";
pub(super) const FIRST_ANSWER_MS: &str = "first right answer ms";

/// What `benches recovery` measures.
#[derive(Debug, Args)]
pub struct RecoveryArgs {
    /// Numbers of stored documents
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    documents: Vec<u64>,
    /// Starts of each kind; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    systems: SystemArgs,
}

/// The name of a row.
pub(super) fn killed(documents: u64) -> String {
    format!("{documents}, after kill -9")
}

/// Starts Rachis and VictoriaLogs on documents.
pub async fn recovery(arguments: &RecoveryArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("recovery")?;
    let systems = [SystemName::Rachis, SystemName::VictoriaLogs];
    let chosen = arguments.systems.chosen(&systems, &mut report)?;
    for documents in &arguments.documents {
        let file = DocumentFile::bluesky(*documents, arguments.seed)?;
        for &system in &chosen {
            let result = match system {
                SystemName::Rachis => guarded(measure_rachis(&file, arguments.runs, &mut report)).await,
                _ => guarded(measure_rival(system, &file, arguments.runs, &mut report)).await,
            };
            result.unwrap_or_else(|error| report.fail(&format!("{system} with {documents} documents"), &error));
        }
    }
    report.finish(arguments.systems.json())
}

async fn measure_rachis(file: &DocumentFile, runs: u32, report: &mut SuiteReport) -> Result<()> {
    let mut server = RachisServer::start().await;
    load(SystemName::Rachis, &mut server, file).await?;
    let orderly = format!("{}, after an orderly stop", file.documents);
    let mut starts = Vec::new();
    for _ in 0..runs {
        server.stop();
        starts.push(start(&mut server, file).await?);
    }
    add_figures(&orderly, SystemName::Rachis, starts, report);
    measure_kills(SystemName::Rachis, &mut server, file, runs, report).await
}

async fn measure_rival(system: SystemName, file: &DocumentFile, runs: u32, report: &mut SuiteReport) -> Result<()> {
    let mut server = system.start_server().await?.context("no server")?;
    load(system, server.as_mut(), file).await?;
    measure_kills(system, server.as_mut(), file, runs, report).await
}

async fn load(system: SystemName, server: &mut dyn PushServer, file: &DocumentFile) -> Result<()> {
    eprintln!("{system}: loading {} documents", file.documents);
    let loaded = server.load(file).await?;
    ensure!(loaded.refused == 0, "it refused {} documents", loaded.refused);
    system::settle(server).await.map(drop)
}

async fn measure_kills(
    system: SystemName,
    server: &mut dyn PushServer,
    file: &DocumentFile,
    runs: u32,
    report: &mut SuiteReport,
) -> Result<()> {
    let mut starts = Vec::new();
    for _ in 0..runs {
        server.kill();
        starts.push(start(server, file).await?);
    }
    add_figures(&killed(file.documents), system, starts, report);
    Ok(())
}

/// What a start took.
struct Start {
    ready: Duration,
    first_answer: Duration,
    cpu: Duration,
    peak_bytes: u64,
}

/// Starts a stopped server. The first answer must be right.
async fn start(server: &mut dyn PushServer, file: &DocumentFile) -> Result<Start> {
    let started = Instant::now();
    server.restart().await?;
    let ready = started.elapsed();
    let count = server.count(file.set).await?;
    let first_answer = started.elapsed();
    ensure!(count == file.documents, "{count} documents of {}", file.documents);
    let used = usage(server.process_id())?;
    Ok(Start {
        ready,
        first_answer,
        cpu: used.cpu,
        peak_bytes: used.peak_bytes,
    })
}

fn add_figures(what: &str, system: SystemName, starts: Vec<Start>, report: &mut SuiteReport) {
    let median = |figure: fn(&Start) -> f64| {
        let mut figures: Vec<f64> = starts.iter().map(figure).collect();
        figures.sort_unstable_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let figures = [
        ("ready ms", median(|start| start.ready.as_secs_f64() * 1e3)),
        (FIRST_ANSWER_MS, median(|start| start.first_answer.as_secs_f64() * 1e3)),
        ("CPU s", median(|start| start.cpu.as_secs_f64())),
        ("peak MiB", median(|start| start.peak_bytes as f64 / MEBIBYTE)),
    ];
    report.add(RECOVERY, what, system, &figures);
}
