//! The ledger: produces numbered records to Kafka and by push while server and broker are killed, paused and restarted,
//! keeps the books of what was acknowledged, and at the end wants every acknowledged record to be there exactly once.
//!
//! ```text
//! load: pushers, producer ──> book <── acknowledgements        check: SQL, search, by id, raw bytes, outcomes ──> discrepancies
//! plan: kill, pause, restart ──> server, broker                       twice: as it is, and after one more kill
//! ```
//!
//! It shares no code with the server, so that no mistake is made twice: it speaks HTTP and Kafka and knows the
//! promises, nothing else.

#![allow(clippy::print_stdout, reason = "the report is what this program is for")]

mod book;
mod broker;
mod check;
mod crash;
mod document;
mod http;
mod log;
mod plan;
mod process;
mod produce;
mod push;
mod questions;
mod report;
mod server;
mod settle;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::{
    book::Book, broker::Broker, crash::Faults, document::Documents, http::Client, plan::Plan, produce::Producer,
    push::Pushers, report::Report, server::Server,
};

/// Kills, pauses and restarts a server and its broker under load, and checks that nothing is lost and nothing is there
/// twice.
#[derive(Parser, Debug, Clone)]
#[command(version)]
struct Arguments {
    /// The server's binary.
    #[arg(long)]
    server: PathBuf,
    /// Repeats a plan.
    #[arg(long)]
    seed: Option<u64>,
    /// How often something is killed (kill -9).
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Records, pushed and produced together.
    #[arg(long, default_value_t = 40_000)]
    records: u64,
    /// No Kafka: push, kill, recover.
    #[arg(long)]
    push_only: bool,
    /// The server's roles apart: two tailers, three leaves, two aggregators, each a process.
    #[arg(long, conflicts_with = "push_only")]
    apart: bool,
    /// The folder of Apache Kafka's jars.
    #[arg(long, env = "RACHIS_KAFKA_JARS")]
    kafka_jars: Option<PathBuf>,
    /// A seeded bug of the server's: the check is expected to fail.
    #[arg(long)]
    bug: Option<String>,
    /// A named point at which the server ends itself, instead of some of the kills; may be given several times.
    #[arg(long)]
    crash_at: Vec<String>,
    /// Where server and broker keep their data and logs; a new temporary folder where it is not given, kept when the
    /// check fails.
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(rand::random);
    eprintln!("ledger: seed {seed} (repeat with --seed {seed})");
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ledger: no runtime: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = runtime.block_on(run(&arguments, seed));
    match (outcome, &arguments.bug) {
        (Ok(report), None) => {
            report.print();
            if report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        (Ok(report), Some(bug)) => {
            report.print();
            println!("bug {bug}: {}", if report.is_clean() { "NOT CAUGHT" } else { "caught" });
            if report.is_clean() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
        (Err(error), _) => {
            eprintln!("ledger: could not run (seed {seed}): {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What the parts of one run share.
struct Run {
    book: Arc<Book>,
    documents: Documents,
    client: Client,
}

async fn run(arguments: &Arguments, seed: u64) -> Result<Report> {
    let began = Instant::now();
    let temporary = tempfile::Builder::new()
        .prefix("ledger-")
        .tempdir()
        .context("no temporary folder")?;
    let folder = arguments.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let broker = match arguments.push_only {
        true => None,
        false => {
            let jars = arguments
                .kafka_jars
                .as_ref()
                .context("no Kafka: say --kafka-jars FOLDER (RACHIS_KAFKA_JARS), or --push-only")?;
            Some(Broker::start(jars, &folder.join("broker")).await?)
        }
    };
    let faults = Faults {
        bug: arguments.bug.clone(),
        crash_at: arguments.crash_at.clone(),
    };
    let kafka = broker.as_ref().filter(|_| arguments.apart).map(Broker::address);
    let server = Server::start(&arguments.server, &folder.join("server"), faults, kafka.as_deref()).await?;
    let run = Arc::new(Run {
        book: Arc::new(Book::new(arguments.records)),
        documents: Documents::new(seed),
        client: server.client(),
    });
    let mut plan = Plan::new(seed, arguments.kills, arguments.records, server, broker);
    plan.prepare(&run).await?;

    let pushers = Pushers::start(run.clone(), plan.gate(), seed);
    let producer = match plan.broker() {
        Some(broker) => Some(Producer::start(run.clone(), plan.gate(), broker.address(), seed)?),
        None => None,
    };
    // The load ends by itself when its records are used up; the plan opens the gate step by step.
    let carried_out = plan.carry_out(&run).await;
    if carried_out.is_ok() {
        pushers.finish().await?;
        if let Some(producer) = producer {
            producer.finish().await?;
        }
        if let Some(address) = plan
            .broker()
            .map(Broker::address)
            .filter(|_| run.book.has_unknown_records())
        {
            let log = tokio::task::spawn_blocking(move || log::read(&address)).await??;
            eprintln!(
                "ledger: of {} records that were given up, the log tells what became of them",
                run.book.learn(&log)
            );
        }
    }
    let mut report = plan.report(&run, seed).await;
    match carried_out {
        Ok(()) => audit(&mut plan, &run, &mut report, arguments.bug.is_some()).await?,
        // A server that ends by itself, does not come back or stands still is a finding.
        Err(error) => report.add("while the plan was carried out", vec![format!("{error:#}")]),
    }
    report.elapsed = began.elapsed();
    plan.stop().await;
    if !report.is_clean() && arguments.folder.is_none() {
        let kept = temporary.keep();
        eprintln!("ledger: data and logs are kept in {}", kept.display());
    }
    if report.is_clean() && report.kills_too_few() {
        bail!("the plan was not carried out: {}", report.line());
    }
    Ok(report)
}

/// Twice: what is there must also be there after one more kill. A bug that was found need not be found again.
async fn audit(plan: &mut Plan, run: &Run, report: &mut Report, bug: bool) -> Result<()> {
    eprintln!("ledger: the load is done: checking");
    report.add("after the load", check::everything(run).await?);
    if bug && !report.is_clean() {
        return Ok(());
    }
    plan.kill_and_restart_server().await?;
    eprintln!("ledger: checking again, after one more kill");
    report.add("after one more kill", check::everything(run).await?);
    Ok(())
}
