//! `benches`: measures the server beside what people would pick instead.
//!
//! Every figure is printed in a table with its unit. A figure cannot fail, but a wrong answer is reported instead of a
//! time, and the exit status says so.

use std::path::PathBuf;

use anyhow::{Result, bail};
use benches::{
    rivals,
    suite::{self, AllArgs, SuiteCommand},
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
    #[command(flatten)]
    Suite(SuiteCommand),
    /// Runs every suite in order and prints which goals are met
    All(AllArgs),
    /// Sets up the systems to compare with
    #[command(subcommand)]
    Rivals(RivalsCommand),
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
        BenchCommand::Suite(suite) => suite.run().await?.check(),
        BenchCommand::All(arguments) => suite::all(&arguments).await,
        BenchCommand::Rivals(RivalsCommand::Prepare) => rivals::prepare(),
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
