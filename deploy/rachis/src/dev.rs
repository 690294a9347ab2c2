//! `rachis dev`: all three roles in one process on one data folder.
//!
//! Up: settings, log, folder, change log, leaf, tailer, engine, door. Down, on SIGTERM or SIGINT, the other way round: first nobody new is
//! let in, then nothing more is read, then what is there is closed. A second signal ends the process at once.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
};

use aggregator::{AggregatorOptions, Roles, http, query::Engine};
use leaf::{Leaf, LeafOptions};
use tailer::{FileChanges, Tailer, TailerOptions};
use tokio::{net::TcpListener, signal::unix, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    cli,
    client::Failure,
    data_folder::{self, DataFolder},
    demo, settings,
    settings::Settings,
    telemetry,
};

/// Where it listens unless told otherwise.
const LISTEN: &str = "127.0.0.1:7700";
/// The exit code of a process that was told twice to end.
const TOLD_TWICE: i32 = 130;

/// Runs until it is told to end.
pub async fn run(arguments: cli::Dev) -> Result<(), Failure> {
    let settings = settings::load(arguments.config.as_deref())?;
    telemetry::start_log(&settings.log)?;
    let address = address(arguments.listen.as_deref().unwrap_or(LISTEN), arguments.insecure)?;
    let metrics = telemetry::start_metrics()?;
    let shutdown = when_told_to_end()?;
    let folder = DataFolder::take(&arguments.data.map_or_else(default_data, Ok)?)?;
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Failure::new(format!("cannot listen at {address}: {e}")).hint("choose another address with --listen; port 0 takes a free one")
    })?;
    let bound = listener.local_addr().map_err(|e| Failure::new(format!("cannot tell where it listens: {e}")))?;

    let opened = tokio::task::block_in_place(|| House::open(&folder, settings));
    let house = opened?;
    let url = data_folder::url(bound);
    folder.listening(&url).map_err(|e| Failure::new(format!("cannot write the address into {}: {e}", folder.path().display())))?;
    info!(url, data = %folder.path().display(), "listening");
    let demo = arguments.demo.then(|| tokio::spawn(demo::run(url, shutdown.clone())));

    let served = http::serve(Arc::clone(&house.engine), Some(metrics), listener, shutdown.clone()).await;
    shutdown.cancel();
    folder.not_listening();
    if let Some(demo) = demo {
        let _ = demo.await;
    }
    house.close().await;
    info!("closed in order");
    served.map_err(|e| Failure::new(format!("the door failed: {e}")))
}

/// The roles, running.
struct House {
    engine: Arc<Engine>,
    tailer: Arc<Tailer>,
    leaf: Arc<Leaf>,
}

impl House {
    fn open(folder: &DataFolder, settings: Settings) -> Result<Self, Failure> {
        let changes = FileChanges::open(&folder.join("changes")).map_err(|e| Failure::of("cannot open the change log", &e))?;
        let changes: Arc<dyn proto::tailer::Changes> = Arc::new(changes);
        let mut options = LeafOptions::new(folder.join("shards"));
        settings.leaf.apply(&mut options);
        let leaf = Leaf::open(options, changes.catalog()).map_err(|e| Failure::of("cannot open the leaf", &e))?;
        let mut options = TailerOptions::default();
        settings.tailer.apply(&mut options);
        let tailer = Tailer::start(options, ingest(&leaf), changes.clone());
        let mut options = AggregatorOptions::new(folder.join("spill"));
        settings.aggregator.apply(&mut options);
        let roles = Roles { leaf: leaf.clone(), changes, tailing: tailer.clone() };
        let engine = Engine::new(roles, options).map_err(|problem| Failure::of("cannot start the query engine", &problem))?;
        Ok(Self { engine, tailer, leaf })
    }

    async fn close(self) {
        self.tailer.shutdown().await;
        self.leaf.close().await;
    }
}

#[cfg(not(feature = "seeded-bugs"))]
fn ingest(leaf: &Arc<Leaf>) -> Arc<dyn proto::ingest::Ingest> {
    leaf.clone()
}

#[cfg(feature = "seeded-bugs")]
fn ingest(leaf: &Arc<Leaf>) -> Arc<dyn proto::ingest::Ingest> {
    Arc::new(crate::overtaking::Overtaking(leaf.clone()))
}

/// A token that is cancelled by the first signal to end; the second ends the process.
fn when_told_to_end() -> Result<CancellationToken, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot listen to signals: {e}"));
    let mut terminate = unix::signal(unix::SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).map_err(failed)?;
    let token = CancellationToken::new();
    let told = token.clone();
    let (signals, mut heard) = watch::channel(0u32);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                got = terminate.recv() => if got.is_none() { return },
                got = interrupt.recv() => if got.is_none() { return },
            }
            signals.send_modify(|count| *count += 1);
        }
    });
    tokio::spawn(async move {
        while heard.changed().await.is_ok() {
            if *heard.borrow_and_update() > 1 || told.is_cancelled() {
                error!("told twice to end: ending at once; what was acknowledged is safe");
                std::process::exit(TOLD_TWICE);
            }
            info!("closing");
            told.cancel();
        }
    });
    Ok(token)
}

fn address(listen: &str, insecure: bool) -> Result<SocketAddr, Failure> {
    let not_understood =
        |why: String| Failure::usage(format!("the address {listen:?} is not understood: {why}")).hint("give HOST:PORT, such as 127.0.0.1:7700");
    let mut found = listen.to_socket_addrs().map_err(|e| not_understood(e.to_string()))?;
    let address = found.next().ok_or_else(|| not_understood("no such host".into()))?;
    match address.ip().is_loopback() || insecure {
        true => Ok(address),
        false => Err(Failure::usage(format!("{address} can be reached from other machines, and there is neither TLS nor access control"))
            .hint("listen on 127.0.0.1, or say --insecure")),
    }
}

fn default_data() -> Result<PathBuf, Failure> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("XDG_DATA_HOME")
        .or_else(|| of("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("rachis"))
        .ok_or_else(|| Failure::usage("there is no home folder to keep data in").hint("name one with --data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_this_machine_is_said_aloud() {
        assert!(address("127.0.0.1:0", false).is_ok() && address("[::1]:0", false).is_ok());
        let refused = address("0.0.0.0:7700", false).expect_err("it is refused");
        assert_eq!(refused.exit_code(), 2);
        assert!(address("0.0.0.0:7700", true).is_ok());
        assert!(address("7700", false).is_err());
    }
}
