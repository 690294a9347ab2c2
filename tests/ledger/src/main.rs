//! The ledger program: produces numbered records to Kafka and by push, deletes some of them, ingests those that are no
//! JSON again as text, and changes definitions, while server and broker are killed, paused and restarted. It records what was acknowledged, and checks at the end that
//! every acknowledged record that was not deleted is stored exactly once, no deleted one is there, and every acknowledged
//! version of a definition is there.
//!
//! ```text
//! load: pushers, producer ──> ledger <── acknowledgements   check: SQL, search, by id, bytes, outcomes ──> findings
//! plan: kill, pause, restart ──> server, broker                    twice: as it is, and after one more kill
//! ```
//!
//! It shares no code with the server, so that it cannot share a bug with it: it knows only HTTP, Kafka and what the
//! server promises.

#![allow(clippy::print_stdout, reason = "the report is what this program is for")]

mod broker;
mod catch_up;
mod check;
mod definitions;
mod document;
mod faults;
mod gate;
mod hosts;
mod http;
mod ledger;
mod log;
mod plan;
mod produce;
mod push;
mod queries;
mod questions;
mod redrives;
mod removals;
mod report;
mod server;
mod topics;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::{
    broker::Broker,
    definitions::{Changes, Definers},
    document::Documents,
    faults::Faults,
    hosts::Hosts,
    http::Client,
    ledger::Ledger,
    plan::Plan,
    produce::Producer,
    push::Pushers,
    questions::Probe,
    redrives::{Redriver, Redrives},
    removals::{Removals, Remover},
    report::Report,
    server::{Binaries, Server},
};

/// Kills, pauses and restarts a server and its broker under load, and checks that nothing is lost or duplicated.
#[derive(Parser, Debug, Clone)]
#[command(version)]
struct Arguments {
    /// Path of the server binary.
    #[arg(long)]
    server: PathBuf,
    /// Seed of the plan and the load; a seed repeats a plan. Random if omitted.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of kills (kill -9).
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Number of records, pushed and produced together.
    #[arg(long, default_value_t = 40_000)]
    records: u64,
    /// Only push; runs without Kafka.
    #[arg(long)]
    push_only: bool,
    /// Run each role as processes of its own: two tailers, three leaves and two aggregators.
    #[arg(long, conflicts_with = "push_only")]
    apart: bool,
    /// Replicas of each shard.
    #[arg(long, requires = "apart", default_value_t = 1)]
    replicas: u32,
    /// Add, drain and empty leaves while the load runs. There are three to five of them.
    #[arg(long, requires = "apart")]
    moves: bool,
    /// Path of the server binary of an older release. All nodes run it at first, and are upgraded one after the other while
    /// the load runs.
    #[arg(long, requires = "apart")]
    older: Option<PathBuf>,
    /// Cut the network between some of the processes for some seconds. Needs root.
    #[arg(long, requires = "apart")]
    cuts: bool,
    /// Folder with the jars of Apache Kafka.
    #[arg(long, env = "RACHIS_KAFKA_JARS")]
    kafka_jars: Option<PathBuf>,
    /// Switch on a seeded bug of the server; the run succeeds if the check finds it.
    #[arg(long)]
    bug: Option<String>,
    /// Named point at which the server ends itself, instead of some of the kills. Can be repeated.
    #[arg(long)]
    crash_at: Vec<String>,
    /// Folder for data and logs of server and broker. Default: a temporary folder, which is kept if the check fails.
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
            eprintln!("ledger: cannot start the runtime: {error}");
            return ExitCode::from(2);
        }
    };
    let report = match runtime.block_on(run(&arguments, seed)) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("ledger: the run failed (seed {seed}): {error:#}");
            return ExitCode::from(2);
        }
    };
    report.print();
    let succeeded = match &arguments.bug {
        None => report.is_clean(),
        Some(bug) => {
            println!("bug {bug}: {}", if report.is_clean() { "NOT CAUGHT" } else { "caught" });
            !report.is_clean()
        }
    };
    if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What the parts of a run share.
struct Run {
    ledger: Arc<Ledger>,
    documents: Documents,
    changes: Changes,
    removals: Removals,
    redrives: Redrives,
    client: Client,
    /// The replicas of each shard.
    replicas: u32,
}

/// Runs in a folder that is kept unless everything is as it should be.
async fn run(arguments: &Arguments, seed: u64) -> Result<Report> {
    let temporary = tempfile::Builder::new()
        .prefix("ledger-")
        .tempdir()
        .context("cannot create a temporary folder")?;
    let folder = arguments.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let report = run_in(&folder, arguments, seed).await;
    if arguments.folder.is_none() && !report.as_ref().is_ok_and(Report::is_clean) {
        let kept = temporary.keep();
        eprintln!("ledger: data and logs are in {}", kept.display());
    }
    report
}

async fn run_in(folder: &Path, arguments: &Arguments, seed: u64) -> Result<Report> {
    let began = Instant::now();
    let (server, broker) = start_servers(arguments, folder).await?;
    let run = Arc::new(Run {
        ledger: Arc::new(Ledger::new(arguments.records)),
        documents: Documents::new(seed),
        changes: Changes::default(),
        removals: Removals::default(),
        redrives: Redrives::default(),
        client: server.client(),
        replicas: arguments.replicas,
    });
    let mut plan = Plan::new(seed, arguments, server, broker);
    plan.prepare(&run).await?;
    // With one replica, there is no answer while a leaf is away.
    let probe = (run.replicas > 1).then(|| Probe::start(&run)).transpose()?;
    let carried_out = load_and_disturb(&run, &mut plan, seed).await?;
    let probed = match probe {
        Some(probe) => Some(probe.finish().await?),
        None => None,
    };
    let mut report = plan.report(&run, seed, probed.as_ref()).await;
    report.add(
        "while the load ran",
        probed.map_or_else(Vec::new, |probed| probed.findings),
    );
    match carried_out {
        Ok(()) => audit(&mut plan, &run, &mut report, seed, arguments.bug.is_some()).await?,
        // A server that exits on its own, does not come back or hangs is a finding.
        Err(error) => report.add("while the plan was carried out", vec![format!("{error:#}")]),
    }
    report.elapsed = began.elapsed();
    plan.stop().await;
    if report.is_clean() && report.has_too_few_kills() {
        bail!("the plan was not carried out: {}", report.summary());
    }
    Ok(report)
}

async fn start_servers(arguments: &Arguments, folder: &Path) -> Result<(Server, Option<Broker>)> {
    let mut hosts = Hosts::new(arguments.cuts)?;
    let broker = match arguments.push_only {
        true => None,
        false => {
            let jars = arguments
                .kafka_jars
                .as_ref()
                .context("no Kafka: pass --kafka-jars FOLDER (or set RACHIS_KAFKA_JARS), or use --push-only")?;
            Some(Broker::start(jars, &folder.join("broker"), hosts.take()?).await?)
        }
    };
    let faults = Faults {
        bug: arguments.bug.clone(),
        crash_at: arguments.crash_at.clone(),
    };
    let kafka = broker.as_ref().filter(|_| arguments.apart).map(Broker::address);
    let binaries = Binaries {
        server: arguments.server.clone(),
        older: arguments.older.clone(),
    };
    let server = Server::start(binaries, &folder.join("server"), faults, hosts, kafka.as_deref()).await?;
    Ok((server, broker))
}

/// Runs the load beside the plan, which opens the gate step by step; the load ends when its records are used up.
///
/// The outer result is about the load, the inner one about the plan.
async fn load_and_disturb(run: &Arc<Run>, plan: &mut Plan, seed: u64) -> Result<Result<()>> {
    let pushers = Pushers::start(run.clone(), plan.gate(), seed);
    let definers = Definers::start(run, seed);
    let remover = Remover::start(run, seed);
    let redriver = Redriver::start(run);
    let producer = match plan.broker() {
        Some(broker) => Some(Producer::start(run.clone(), plan.gate(), broker.address(), seed)?),
        None => None,
    };
    if let Err(error) = plan.carry_out(run).await {
        return Ok(Err(error));
    }
    pushers.finish().await?;
    definers.finish().await?;
    remover.finish().await?;
    redriver.finish().await?;
    if let Some(producer) = producer {
        producer.finish().await?;
    }
    removals::mark_short_lived(run);
    if let Some(broker) = plan.broker()
        && run.ledger.has_unknown_records()
    {
        let address = broker.address();
        let log = tokio::task::spawn_blocking(move || log::read(&address)).await??;
        eprintln!(
            "ledger: resolved {} records that were given up by what the log contains",
            run.ledger.resolve_unknown_records(&log)
        );
    }
    Ok(Ok(()))
}

/// Checks twice: what is stored must still be there after one more kill, and what is removed between must be gone. If a seeded bug was found, once is enough.
async fn audit(plan: &mut Plan, run: &Run, report: &mut Report, seed: u64, bug: bool) -> Result<()> {
    if run.replicas > 1 {
        eprintln!("ledger: the load is done, waiting for all replicas");
        plan.settle(run).await?;
    }
    eprintln!("ledger: the load is done, checking");
    report.add("after the load", check::everything(run).await?);
    if bug && !report.is_clean() {
        return Ok(());
    }
    eprintln!("ledger: removing documents, and counting them");
    report.add("after the last removals", removals::remove_exactly(run).await?);
    report.add("after the last redrive", redrives::redrive_exactly(run).await?);
    plan.kill_and_restart_server().await?;
    eprintln!("ledger: checking again after one more kill");
    report.add("after one more kill", check::everything(run).await?);
    if run.replicas > 1 {
        eprintln!("ledger: asking each replica");
        report.add("in the answers of replicas", plan.ask_each_replica(run, seed).await?);
    }
    Ok(())
}
