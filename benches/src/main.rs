//! `benches`: measures the server beside what people would pick instead, and alone (`overview`).
//!
//! Every figure is printed as a table row with its unit. A figure cannot fail, but a wrong answer of any system ends a
//! suite before its times are printed.

use std::path::PathBuf;

use anyhow::{Result, bail};
use benches::{
    overview::{self, OverviewArgs},
    rivals,
    suite::{self, GhArgs, JsonbenchArgs, LoadArgs},
};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures the server beside what people would pick instead
#[derive(Debug, Parser)]
struct BenchesArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Loads Bluesky-like documents and GitHub events into each system
    Load(LoadArgs),
    /// Asks JSONBench's five questions of Bluesky-like documents
    Jsonbench(JsonbenchArgs),
    /// Asks twelve questions of GitHub events
    Gh(GhArgs),
    /// Sets up the systems to compare with
    #[command(subcommand)]
    Rivals(RivalsCommand),
    /// Measures the server in one process: ingest, freshness, queries, memory, recovery
    Overview(OverviewArgs),
    /// Serves a raw tantivy index on standard input and output; the suites start it
    #[command(hide = true)]
    TantivyWorker {
        /// The folder of the index
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum RivalsCommand {
    /// Downloads and builds what is missing, once, into ~/.cache/rachis/rivals
    Prepare,
}

#[tokio::main]
async fn main() -> Result<()> {
    // What runs is dropped when a signal ends the program, and with it every process that was started.
    tokio::select! {
        result = run(BenchesArgs::parse().command) => result,
        signal = interrupted() => bail!("ended by {}", signal?),
    }
}

async fn run(command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Load(arguments) => suite::load(&arguments).await,
        BenchCommand::Jsonbench(arguments) => suite::jsonbench(&arguments).await,
        BenchCommand::Gh(arguments) => suite::gh(&arguments).await,
        BenchCommand::Rivals(RivalsCommand::Prepare) => rivals::prepare(),
        BenchCommand::Overview(arguments) => overview::run(arguments).await,
        BenchCommand::TantivyWorker { folder } => suite::serve_tantivy(&folder),
    }
}

/// Waits for Ctrl-C or `SIGTERM` and returns its name.
async fn interrupted() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map(|()| "Ctrl-C").map_err(Into::into),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
