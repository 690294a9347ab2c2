//! Accepts connections and serves them: limits how many are open, closes idle ones at the limit, and shuts down.
//!
//! A connection is idle while no request runs on it and no byte waits to be sent. At the limit, the server closes the
//! connection that has been idle longest and accepts the new one. If no connection is idle, the server accepts a few
//! more and serves only health checks and metrics on them, so monitoring still works on an overloaded node.

mod counted_body;
mod registry;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use proto::{Code, Problem};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use self::{
    counted_body::CountedBody,
    registry::{ConnectionGuard, Connections, RequestGuard},
};
use super::{AllowedHosts, origin, reject, stalled_write::StalledWriteTimeout};

/// The paths that are served on connections above the limit.
const MONITORING_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// How long a connection waits for the complete head of its next request. This is also how long an idle connection
/// stays open: longer than the minute after which clients and proxies usually close theirs. A client that sends a head
/// slowly has no more time.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(90);
/// How long a client may read nothing of what is sent to it.
const WRITE_STALL_MAX: Duration = Duration::from_secs(300);
/// How long running requests may take during shutdown.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long accepting pauses when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is cancelled, then waits up to ten seconds for running requests. At most `connections_max`
/// connections are open at once, plus a few for monitoring. Rejects requests from web pages that are not from
/// `allowed`.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    shutdown: CancellationToken,
    allowed: AllowedHosts,
    connections_max: usize,
) -> io::Result<()> {
    let service_for = |on_loopback, monitoring_only| guarded_service(&router, &allowed, on_loopback, monitoring_only);
    let services = [
        [service_for(false, false), service_for(false, true)],
        [service_for(true, false), service_for(true, true)],
    ];
    let connections = Connections::new(connections_max);
    let (running, closing, abort) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    while let Some((stream, guard)) = accept(&listener, &connections, &shutdown).await {
        let on_loopback = stream
            .local_addr()
            .is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let service = services[usize::from(on_loopback)][usize::from(guard.connection.monitoring_only)].clone();
        let progress = guard.connection.progress.clone();
        let stream = TokioIo::new(StalledWriteTimeout::new(stream, WRITE_STALL_MAX, progress));
        let connection = serve_connection(stream, service, guard, closing.clone());
        let abort = abort.clone();
        running.spawn(async move { abort.run_until_cancelled(connection).await });
    }
    drop(listener);
    closing.cancel();
    running.close();
    if tokio::time::timeout(SHUTDOWN_WAIT_MAX, running.wait()).await.is_err() {
        warn!(
            seconds = SHUTDOWN_WAIT_MAX.as_secs(),
            "aborting requests that are still running"
        );
        abort.cancel();
    }
    Ok(())
}

/// The routes behind the checks for one kind of connection.
fn guarded_service(
    router: &Router,
    allowed: &AllowedHosts,
    on_loopback: bool,
    monitoring_only: bool,
) -> TowerToHyperService<Router> {
    let router = if monitoring_only {
        router.clone().layer(axum::middleware::from_fn(serve_monitoring_only))
    } else {
        router.clone()
    };
    let allowed = allowed.clone();
    let guard = move |request: Request, next: Next| origin::guard(allowed.clone(), on_loopback, request, next);
    TowerToHyperService::new(router.layer(axum::middleware::from_fn(guard)))
}

/// Accepts the next connection and registers it. None during shutdown.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, ConnectionGuard)> {
    loop {
        shutdown.run_until_cancelled(connections.wait_for_slot()).await?;
        match shutdown.run_until_cancelled(listener.accept()).await? {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "could not set TCP_NODELAY: small packets may be delayed");
                }
                return Some((stream, connections.register()));
            }
            Err(error) => {
                warn!(%error, "could not accept a connection");
                // Usually no file descriptor is left. Closing an idle connection frees one.
                connections.evict_idle(|_| true);
                shutdown.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await?;
            }
        }
    }
}

/// Serves a connection until it ends, is evicted or the server shuts down.
async fn serve_connection<S>(
    stream: TokioIo<StalledWriteTimeout<S>>,
    service: TowerToHyperService<Router>,
    guard: ConnectionGuard,
    closing: CancellationToken,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let state = guard.connection.clone();
    let counted = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let running = RequestGuard::begin(&state);
        if request.version() == Version::HTTP_2 {
            state.is_multiplexed.store(true, Ordering::Relaxed);
        }
        respond(service.clone(), request, running)
    });
    let builder = connection_builder(HEAD_WAIT_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(stream, counted));
    let state = &guard.connection;
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = state.evicted.cancelled() => None,
        () = closing.cancelled() => None,
        () = state.unsent_too_long() => {
            debug!("closing the connection of a client that has stopped reading its response");
            return;
        }
    };
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            // During shutdown, `serve` limits the time for all connections.
            let inactive = async {
                tokio::select! { () = state.inactive() => {}, () = closing.cancelled() => std::future::pending().await }
            };
            tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = inactive => None,
                () = state.unsent_too_long() => None,
            }
        }
    };
    if let Some(Err(error)) = ended {
        debug!(%error, "a connection ended with an error");
    }
}

/// Handles a request, which counts as running until its response is sent.
async fn respond(
    service: TowerToHyperService<Router>,
    request: hyper::Request<Incoming>,
    running: RequestGuard,
) -> Result<Response, Infallible> {
    let response = hyper::service::Service::call(&service, request).await;
    // The client has to reconnect; it may then get an ordinary connection.
    if running.connection.monitoring_only {
        running.connection.evicted.cancel();
    }
    let request = Arc::new(running);
    response.map(|response| response.map(|body| Body::new(CountedBody { body, request })))
}

fn connection_builder(head_wait_max: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_wait_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .max_concurrent_streams(256)
        .adaptive_window(true);
    builder
}

/// The middleware of connections above the limit: rejects other paths than those for monitoring, and makes HTTP/1
/// clients close the connection.
async fn serve_monitoring_only(request: Request, next: Next) -> Response {
    let closes = request.version() < Version::HTTP_2;
    let mut response = if MONITORING_PATHS.contains(&request.uri().path()) {
        next.run(request).await
    } else {
        metrics::counter!("rachis_http_refused_connections_total").increment(1);
        let problem = Problem::new(
            Code::Unavailable,
            "the connection limit is reached, and every connection is running a request",
        );
        reject(
            &request,
            problem.hint("retry later, and reuse one connection for many requests"),
        )
    };
    if closes {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests;
