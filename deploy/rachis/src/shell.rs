//! What every server process has around its roles: settings, log, metrics, data folder, address, signals.
//!
//! Up in this order; down, on SIGTERM or SIGINT, the other way round: first nobody new is let in, then nothing more is
//! read, then what is there is closed. A second signal ends the process at once.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use aggregator::http::MetricsText;
use proto::wire::DESCRIPTORS;
use tokio::{net::TcpListener, signal::unix, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tracing::{error, info, warn};

use crate::{
    client::Failure,
    data_folder::{self, DataFolder},
    files::{self, Files},
    settings::Log,
    telemetry,
};

/// The exit code of a process that was told twice to end.
const TOLD_TWICE: i32 = 130;

/// A process, ready for its roles.
pub struct Shell {
    /// Its data.
    pub folder: DataFolder,
    /// Where it listens.
    pub listener: TcpListener,
    /// As clients on this machine reach it.
    pub url: String,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
    /// Files that it may have open.
    pub files: Files,
    /// What `/metrics` shows.
    pub metrics: MetricsText,
    /// Cancelled when the process is told to end.
    pub shutdown: CancellationToken,
}

impl Shell {
    /// Everything up to the roles.
    pub async fn start(log: &Log, data: &Path, listen: &str, insecure: bool) -> Result<Self, Failure> {
        telemetry::start_log(log)?;
        let address = address(listen, insecure)?;
        let files = files::divided();
        let metrics = telemetry::start_metrics()?;
        let shutdown = when_told_to_end()?;
        let folder = DataFolder::take(data)?;
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Failure::new(format!("cannot listen at {address}: {e}"))
                .hint("choose another address with --listen; port 0 takes a free one")
        })?;
        let bound = listener
            .local_addr()
            .map_err(|e| Failure::new(format!("cannot tell where it listens: {e}")))?;
        let started_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as i64;
        Ok(Self {
            folder,
            listener,
            url: data_folder::url(bound),
            started_ms,
            files,
            metrics,
            shutdown,
        })
    }

    /// Says in the data folder where it listens. A full disk, say, keeps it from that and not from answering.
    pub fn listening(&self) {
        let data = self.folder.path().display();
        if let Err(error) = self.folder.listening(&self.url) {
            warn!(%data, %error, "the address could not be written into the data folder");
        }
        info!(url = self.url, %data, "listening");
    }
}

/// What every process serves over gRPC: health and reflection.
pub fn routes() -> Result<RoutesBuilder, Failure> {
    let mut routes = RoutesBuilder::default();
    let (_, health) = tonic_health::server::health_reporter();
    routes.add_service(health);
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed = |e| Failure::new(format!("the services cannot be described: {e}"));
    routes.add_service(described().build_v1().map_err(failed)?);
    // Many clients still ask by the protocol's earlier name.
    routes.add_service(described().build_v1alpha().map_err(failed)?);
    Ok(routes)
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
    let not_understood = |why: String| {
        Failure::usage(format!("the address {listen:?} is not understood: {why}"))
            .hint("give HOST:PORT, such as 127.0.0.1:7700")
    };
    let mut found = listen.to_socket_addrs().map_err(|e| not_understood(e.to_string()))?;
    let address = found.next().ok_or_else(|| not_understood("no such host".into()))?;
    match address.ip().is_loopback() || insecure {
        true => Ok(address),
        false => Err(Failure::usage(format!(
            "{address} can be reached from other machines, and there is neither TLS nor access control"
        ))
        .hint("listen on 127.0.0.1, or say --insecure")),
    }
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
