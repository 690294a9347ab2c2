//! What every server process has around its roles: log, metrics, signals, data folder, address.
//!
//! They start in this order. On SIGTERM or SIGINT the process stops accepting connections, then stops reading, then
//! closes its data. A second signal ends it at once.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aggregator::doors::{self, MetricsText};
use proto::wire::DESCRIPTORS;
use tokio::{net::TcpListener, signal::unix, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tracing::{error, info, warn};

use crate::{
    client::Failure,
    data_folder::{self, DataFolder},
    file_limits::{self, FileLimits},
    settings::LogSettings,
    telemetry,
};

/// The exit code after a second signal.
const SECOND_SIGNAL: i32 = 130;

/// A process that is ready to start its roles.
pub(crate) struct Shell {
    pub folder: DataFolder,
    /// The bound socket.
    pub listener: TcpListener,
    /// The address of the socket.
    pub bound: SocketAddr,
    /// The URL for clients on this machine.
    pub url: String,
    /// When the process started, in milliseconds since 1970.
    pub started_ms: i64,
    /// How many files it may have open.
    pub files: FileLimits,
    /// Renders `/metrics`.
    pub metrics: MetricsText,
    /// Cancelled by the first signal.
    pub shutdown: CancellationToken,
}

impl Shell {
    /// Starts everything except the roles.
    pub(crate) async fn start(log: &LogSettings, data: &Path, listen: &str, insecure: bool) -> Result<Self, Failure> {
        telemetry::start_log(log)?;
        let address = address(listen, insecure)?;
        let files = file_limits::raise_and_divide();
        let metrics = telemetry::start_metrics()?;
        let shutdown = shutdown_on_signal()?;
        let folder = DataFolder::open(data)?;
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Failure::new(format!("cannot listen on {address}: {e}"))
                .hint("choose another address with --listen; port 0 picks a free port")
        })?;
        let bound = listener
            .local_addr()
            .map_err(|e| Failure::new(format!("cannot read the address of the socket: {e}")))?;
        let started_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as i64;
        Ok(Self {
            folder,
            listener,
            bound,
            url: data_folder::local_url(bound),
            started_ms,
            files,
            metrics,
            shutdown,
        })
    }

    /// Serves until shutdown. Then `close` closes the roles; it begins once no more connections are accepted.
    pub(crate) async fn serve(
        self,
        router: doors::NodeServer,
        names: doors::AllowedHosts,
        close: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let shutdown = self.shutdown.clone();
        let served = doors::serve(router, self.listener, self.shutdown, names, self.files.connections).await;
        shutdown.cancel();
        self.folder.remove_url();
        close.await;
        info!("shutdown complete");
        served.map_err(|e| Failure::new(format!("the server failed: {e}")))
    }

    /// Writes the URL to the data folder and the log. If that fails, because the disk is full, say, the process still
    /// serves.
    pub(crate) fn publish_url(&self) {
        let data = self.folder.path().display();
        if let Err(error) = self.folder.write_url(&self.url) {
            warn!(%data, %error, "could not write the URL to the data folder");
        }
        info!(url = self.url, %data, "listening");
    }
}

/// The gRPC services of every process: health and reflection.
pub(crate) fn routes() -> Result<RoutesBuilder, Failure> {
    let mut routes = RoutesBuilder::default();
    let (_, health) = tonic_health::server::health_reporter();
    routes.add_service(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed = |e| Failure::new(format!("cannot start gRPC reflection: {e}"));
    routes.add_service(reflection().build_v1().map_err(failed)?);
    // Many clients still use the older version of the protocol.
    routes.add_service(reflection().build_v1alpha().map_err(failed)?);
    Ok(routes)
}

/// How long a process may take to close. Then it ends as if it were killed: a disk that hangs must not keep it for ever.
const CLOSING_MAX: Duration = Duration::from_secs(60);

/// A token that the first SIGTERM or SIGINT cancels; the second signal ends the process.
fn shutdown_on_signal() -> Result<CancellationToken, Failure> {
    let mut signals = Signals::listen()?;
    let token = CancellationToken::new();
    let cancelled_by_signal = token.clone();
    // How many were received, and the name of the last.
    let (sender, mut received) = watch::channel((0u32, ""));
    tokio::spawn(async move {
        while let Some(name) = signals.next().await {
            sender.send_modify(|(count, last)| {
                *count += 1;
                *last = name;
            });
        }
    });
    tokio::spawn(async move {
        while received.changed().await.is_ok() {
            let (count, name) = *received.borrow_and_update();
            if count > 1 || cancelled_by_signal.is_cancelled() {
                error!("second signal, {name}: exiting immediately; acknowledged writes are safe");
                std::process::exit(SECOND_SIGNAL);
            }
            info!("{name} received: shutting down");
            cancelled_by_signal.cancel();
            // A separate thread: a disk that hangs may block all threads of the runtime.
            std::thread::spawn(move || {
                std::thread::sleep(CLOSING_MAX);
                error!("not closed {CLOSING_MAX:?} after {name}: exiting; acknowledged writes are safe");
                std::process::exit(1);
            });
        }
    });
    Ok(token)
}

/// The signals that end the process.
struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// From now on, they no longer end the process by themselves.
    fn listen() -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::new(format!("cannot handle signals: {e}"));
        Ok(Self {
            terminate: unix::signal(unix::SignalKind::terminate()).map_err(failed)?,
            interrupt: unix::signal(unix::SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// The name of the next one. None if no more can come.
    async fn next(&mut self) -> Option<&'static str> {
        tokio::select! {
            signal = self.terminate.recv() => signal.map(|()| "SIGTERM"),
            signal = self.interrupt.recv() => signal.map(|()| "SIGINT"),
        }
    }
}

fn address(listen: &str, insecure: bool) -> Result<SocketAddr, Failure> {
    let invalid = |why: String| {
        Failure::usage(format!("invalid address {listen:?}: {why}")).hint("use HOST:PORT, for example 127.0.0.1:7700")
    };
    let mut resolved = listen.to_socket_addrs().map_err(|e| invalid(e.to_string()))?;
    let address = resolved.next().ok_or_else(|| invalid("no such host".into()))?;
    match address.ip().is_loopback() || insecure {
        true => Ok(address),
        false => Err(Failure::usage(format!(
            "{address} is reachable from other machines, and there is neither TLS nor access control"
        ))
        .hint("listen on 127.0.0.1, or add --insecure")),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_ends_the_process_is_named() {
        let mut signals = Signals::listen().expect("signals are handled");
        for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
            raise(signal).expect("a signal");
            assert_eq!(signals.next().await, Some(name));
        }
    }

    #[test]
    fn an_address_that_other_machines_reach_needs_insecure() {
        assert!(address("127.0.0.1:0", false).is_ok() && address("[::1]:0", false).is_ok());
        let refused = address("0.0.0.0:7700", false).expect_err("the address is refused");
        assert_eq!(refused.exit_code(), 2);
        assert!(address("0.0.0.0:7700", true).is_ok());
        assert!(address("7700", false).is_err());
    }
}
