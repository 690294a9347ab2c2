//! `benches giants`: documents with 100,000 keys among normal ones, against as many bytes of normal documents alone.

use anyhow::{Result, ensure};
use clap::Args;

use super::{SuiteReport, SystemArgs, SystemName, freshness::SERVERS, what};
use crate::{
    documents::{DocumentFile, DocumentSet},
    footprint::usage,
    report::{MEBIBYTE, guarded},
    system,
};

pub(super) const GIANTS: &str = "giant documents";
pub(super) const OVER_NORMAL: &str = "rate over normal";
pub(super) const REFUSED: &str = "refused";

/// What `benches giants` measures.
#[derive(Debug, Args)]
pub struct GiantsArgs {
    /// Documents
    #[arg(long, default_value_t = 200_000)]
    documents: u64,
    /// One of so many documents is a giant
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(2..))]
    every: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    systems: SystemArgs,
}

/// Loads both kinds into each server.
pub async fn giants(arguments: &GiantsArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("giants")?;
    let chosen = arguments.systems.chosen(&SERVERS, &mut report)?;
    let giants = DocumentFile::giants(arguments.documents, arguments.every, arguments.seed)?;
    let sample = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    let count = (giants.bytes as f64 / (sample.bytes as f64 / sample.documents as f64)) as u64;
    let normal = DocumentFile::bluesky(count, arguments.seed)?;
    drop(sample);
    report.note(format!(
        "{} giants of {} documents, {:.0} of {:.0} MB",
        arguments.documents / arguments.every,
        arguments.documents,
        giants.bytes.saturating_sub(arguments.documents * 467) as f64 / 1e6,
        giants.bytes as f64 / 1e6
    ));
    for system in chosen {
        let result = guarded(measure(system, &normal, &giants, &mut report)).await;
        result.unwrap_or_else(|error| report.fail(system.as_str(), &error));
    }
    report.finish(arguments.systems.json())
}

async fn measure(
    system: SystemName,
    normal: &DocumentFile,
    giants: &DocumentFile,
    report: &mut SuiteReport,
) -> Result<()> {
    let normal_rate = load(system, normal, None, report).await?;
    ensure!(normal_rate > 0.0, "nothing was loaded");
    load(system, giants, Some(normal_rate), report).await.map(drop)
}

/// Loads documents into a fresh server. Returns the rate.
async fn load(
    system: SystemName,
    documents: &DocumentFile,
    normal_rate: Option<f64>,
    report: &mut SuiteReport,
) -> Result<f64> {
    eprintln!("{system}: loading {}", what(documents));
    let mut server = system.start().await?;
    let before = usage(server.process_id())?;
    let loaded = server.load(documents).await?;
    let disk_bytes = system::settle(server.as_ref()).await?;
    let used = usage(server.process_id())?;
    let rate = documents.bytes as f64 / 1e6 / loaded.time.as_secs_f64();
    let mut figures = vec![
        (REFUSED, loaded.refused as f64),
        ("MB/s", rate),
        ("CPU s", used.cpu.saturating_sub(before.cpu).as_secs_f64()),
        ("peak MiB", used.peak_bytes as f64 / MEBIBYTE),
        ("disk / raw", disk_bytes as f64 / documents.bytes as f64),
    ];
    // Without the documents that it refuses, a rate says nothing.
    if let Some(normal_rate) = normal_rate.filter(|_| loaded.refused == 0) {
        figures.push((OVER_NORMAL, rate / normal_rate));
    }
    let kind = match documents.set {
        DocumentSet::Giant => "giants among them",
        _ => "normal alone",
    };
    report.add(GIANTS, kind, system, &figures);
    Ok(rate)
}
