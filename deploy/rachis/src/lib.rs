#![doc = include_str!("../README.md")]

mod cli;
mod client;
mod cluster;
mod data_folder;
mod demo;
mod dev;
mod files;
mod node;
#[cfg(feature = "seeded-bugs")]
mod overtaking;
mod settings;
mod shell;
mod telemetry;

use std::{io::Write, process::ExitCode, time::Duration};

use clap::Parser;
use proto::cluster::Role;

use crate::{cli::Command, client::Failure};

/// Returns freed memory to the system, which the system's own allocator keeps: after a million documents that is a
/// third of the process. It serves the C and C++ libraries, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long tasks that are still running may take once everything is closed.
const LAST_WAIT_MAX: Duration = Duration::from_secs(2);

/// Does what was typed; the exit code of the process.
pub fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    let mut builder = match command {
        Command::Dev(_) | Command::Tailer(_) | Command::Leaf(_) | Command::Aggregator(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let result = match builder.enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(run(command));
            runtime.shutdown_timeout(LAST_WAIT_MAX);
            result
        }
        Err(error) => Err(Failure::new(format!("cannot start threads: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Tailer(arguments) => node::run(Role::Tailer, arguments).await,
        Command::Leaf(arguments) => node::run(Role::Leaf, arguments).await,
        Command::Aggregator(arguments) => node::run(Role::Aggregator, arguments).await,
        Command::Cluster(arguments) => cluster::run(arguments).await,
        Command::Sql(arguments) => client::sql::run(arguments).await,
        Command::Search(arguments) => client::search::run(arguments).await,
        Command::Push(arguments) => client::push::run(arguments).await,
        Command::Source(arguments) => client::source::run(arguments).await,
        Command::Collection(arguments) => client::collection::run(arguments).await,
        Command::Debug(arguments) => client::debug::run(arguments).await,
        Command::Fields(arguments) => client::collection::fields(arguments).await,
    }
}
