//! The systems that are compared, behind one interface: start in a fresh folder, load, ask, tell what it cost.
//!
//! A system is stopped, and its folder removed, when it is dropped. How each is set up is in the README.

pub(crate) mod http;
mod interface;
mod line_child;
mod open_search;
mod python;
pub(crate) mod rachis;
mod tantivy;
mod tantivy_worker;
mod victoria_logs;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

pub use self::interface::SystemName;
pub(crate) use self::{
    interface::{Loaded, PushServer, System, TimedRows},
    rachis::RachisServer,
    tantivy_worker::serve as serve_tantivy,
};
use self::{open_search::OpenSearch, python::PythonDatabase, tantivy::RawTantivy, victoria_logs::VictoriaLogs};
use crate::{
    documents::DocumentSet,
    footprint::{folder_bytes, usage},
};

impl SystemName {
    /// Starts a server that takes pushes; `None` if this is no such system.
    pub(crate) async fn start_server(self) -> Result<Option<Box<dyn PushServer>>> {
        Ok(match self {
            Self::Rachis => Some(Box::new(RachisServer::start().await)),
            Self::RachisWithCache => Some(Box::new(RachisServer::start_with_cache().await)),
            Self::VictoriaLogs => Some(Box::new(VictoriaLogs::start().await?)),
            Self::OpenSearch => Some(Box::new(OpenSearch::start().await?)),
            Self::Duckdb | Self::Chdb | Self::Tantivy => None,
        })
    }

    /// Starts it in a fresh folder and waits until it answers.
    pub(crate) async fn start(self) -> Result<Box<dyn System>> {
        let system: Box<dyn System> = match self {
            Self::Rachis => Box::new(RachisServer::start().await),
            Self::RachisWithCache => Box::new(RachisServer::start_with_cache().await),
            Self::VictoriaLogs => Box::new(VictoriaLogs::start().await?),
            Self::OpenSearch => Box::new(OpenSearch::start().await?),
            Self::Duckdb | Self::Chdb => Box::new(PythonDatabase::start(self)?),
            Self::Tantivy => Box::new(RawTantivy::start()?),
        };
        Ok(system)
    }
}

/// Waits until so many documents are visible: nothing is missing, nothing is there twice.
pub(crate) async fn wait_for_count(server: &dyn PushServer, set: DocumentSet, documents: u64) -> Result<()> {
    const WAIT_MAX: Duration = Duration::from_secs(300);
    let started = Instant::now();
    loop {
        let count = server.count(set).await?;
        if count == documents {
            return Ok(());
        }
        ensure!(count < documents, "{count} documents of {documents}");
        ensure!(started.elapsed() < WAIT_MAX, "only {count} documents of {documents}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a system has been idle for a while: its files have the same size, and it uses almost no CPU. Returns the
/// bytes on disk then.
pub(crate) async fn settle(system: &dyn System) -> Result<u64> {
    const STEP: Duration = Duration::from_secs(1);
    const IDLE_STEPS: u32 = 15;
    const WAIT_MAX: Duration = Duration::from_secs(900);
    let started = Instant::now();
    let (mut bytes, mut cpu, mut idle_steps) = (0, Duration::ZERO, 0);
    while idle_steps < IDLE_STEPS {
        if started.elapsed() > WAIT_MAX {
            eprintln!("still not idle after {WAIT_MAX:?}: its figures are those of now");
            break;
        }
        tokio::time::sleep(STEP).await;
        let (bytes_now, cpu_now) = (folder_bytes(&system.folder()), usage(system.process_id())?.cpu);
        let is_idle = bytes_now == bytes && cpu_now.saturating_sub(cpu) < STEP / 20;
        idle_steps = if is_idle { idle_steps + 1 } else { 0 };
        (bytes, cpu) = (bytes_now, cpu_now);
    }
    Ok(bytes)
}
