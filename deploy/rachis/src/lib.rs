#![doc = include_str!("../README.md")]

mod cli;
mod client;
mod cluster;
mod data_folder;
mod demo;
mod dev;
#[cfg(feature = "seeded-bugs")]
mod duplicate_sender;
mod file_limits;
mod member;
mod moves;
mod node;
mod settings;
mod shell;
mod telemetry;

use std::{io::Write, process::ExitCode, time::Duration};

use proto::cluster::Role;

use crate::{cli::Command, client::Failure};

/// mimalloc returns freed memory to the system. The system's allocator keeps it: after a million documents that is a
/// third of the process. The C and C++ libraries use it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long remaining tasks may take after shutdown.
const RUNTIME_SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// Runs the command and returns the exit code of the process.
pub fn main() -> ExitCode {
    let command = cli::Cli::read();
    let mut builder = match command {
        Command::Dev(_) | Command::Tailer(_) | Command::Leaf(_) | Command::Aggregator(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let result = match builder.enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(run(command));
            runtime.shutdown_timeout(RUNTIME_SHUTDOWN_MAX);
            result
        }
        Err(error) => Err(Failure::new(format!("cannot start the runtime: {error}"))),
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
        Command::Rebalance(arguments) => moves::rebalance(arguments).await,
        Command::Snapshot(arguments) => client::snapshot::run(arguments).await,
        Command::Sql(arguments) => client::sql::run(arguments).await,
        Command::Status(arguments) => client::status::run(arguments).await,
        Command::Completions(arguments) => client::output::write(&cli::Cli::completions(arguments.shell)),
        Command::Search(arguments) => client::search::run(arguments).await,
        Command::Push(arguments) => client::push::run(arguments).await,
        Command::Source(arguments) => client::source::run(arguments).await,
        Command::Collection(arguments) => client::collection::run(arguments).await,
        Command::DeadLetters(arguments) => client::dead_letters::run(arguments).await,
        Command::Debug(arguments) => client::debug::run(arguments).await,
        Command::Definition(arguments) => client::definition::run(arguments).await,
        Command::Fields(arguments) => client::collection::fields(arguments).await,
    }
}
