//! The HTTP door: how the engine is asked and told over HTTP. One file per resource; this one joins them and keeps the connections.
//!
//! Nothing here decides what an answer is: a handler reads a request strictly (an unknown key is refused and named), hands it on, and writes
//! what comes back. Every error is a problem (RFC 9457), the door's own ones included.

mod answer;
mod body;
mod collections;
mod documents;
mod items;
mod observe;
mod push;
mod queries;
mod refusal;
mod render;
mod room;
mod search;
pub mod service;
mod source_config;
mod sources;
mod sql;
mod status;

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    routing::{delete, get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use proto::Problem;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::query::Engine;

/// Connections at once; one more waits to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take for the head of a request.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long running requests may take once the door closes.
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long accepting pauses when the system has no file handle left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a node serves: made here, handed to [`serve`].
pub type Door = Router;

/// Renders the metrics of this process as Prometheus text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What every handler sees.
#[derive(Clone)]
struct App(Arc<Shared>);

struct Shared {
    engine: Arc<Engine>,
    metrics: Option<MetricsText>,
    push_room: room::Room,
    /// Pushes without key and ids so far: shares them out over partitions.
    pushes: AtomicU64,
    closing: CancellationToken,
}

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The door of an aggregator. `metrics` is what `/metrics` shows; once `closing` is cancelled it says that it is not ready.
pub fn router(engine: Arc<Engine>, metrics: Option<MetricsText>, closing: CancellationToken) -> Router {
    let push_room = room::Room::new(engine.options.push_bytes_inflight_max);
    routes(App(Arc::new(Shared { engine, metrics, push_room, pushes: AtomicU64::new(0), closing })))
}

/// The door of a node that only peers ask: how it is, and its metrics. `ready` says why it is not.
pub fn status_router(metrics: MetricsText, closing: CancellationToken, ready: Ready) -> Router {
    status::router(metrics, closing, ready)
}

/// Why a node is not ready, if it is not.
pub type Ready = Arc<dyn Fn() -> Result<(), Problem> + Send + Sync>;

/// HTTP and gRPC behind one address: what says that it is gRPC goes there.
pub fn with_grpc(http: Router, grpc: Routes) -> Router {
    let grpc = grpc.into_axum_router();
    Router::new().fallback(move |request: Request| {
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let door = if content_type.is_some_and(|kind| kind.starts_with(b"application/grpc")) { grpc.clone() } else { http.clone() };
        door.oneshot(request)
    })
}

/// Serves until cancelled, then lets running requests end, for ten seconds at most.
pub async fn serve(router: Router, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let service = TowerToHyperService::new(router);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    while let Some((stream, permit)) = accept(&listener, &connections, &shutdown).await {
        let connection = connection_builder().serve_connection(TokioIo::new(stream), service.clone()).into_owned();
        let (connection, cut) = (graceful.watch(connection), cut.clone());
        tokio::spawn(async move {
            if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
                debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(CLOSING_WAIT_MAX, graceful.shutdown()).await.is_err() {
        warn!(seconds = CLOSING_WAIT_MAX.as_secs(), "requests still running are cut off");
        cut.cancel();
    }
    Ok(())
}

/// The next connection and its place among those at once; none once the door closes.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = shutdown.run_until_cancelled(Arc::clone(connections).acquire_owned()).await?.ok()?;
    loop {
        match shutdown.run_until_cancelled(listener.accept()).await? {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "small packets may be late");
                }
                return Some((stream, permit));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                shutdown.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await?;
            }
        }
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT_MAX);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(10))).max_concurrent_streams(256).adaptive_window(true);
    builder
}

fn routes(app: App) -> Router {
    Router::new()
        .route("/v1/collections", get(collections::list))
        .route("/v1/collections/{collection}", get(collections::get).put(collections::put).delete(collections::delete))
        .route("/v1/collections/{collection}/fields", get(collections::fields))
        .route("/v1/collections/{collection}/documents", post(documents::push))
        .route("/v1/collections/{collection}/documents/{*id}", get(documents::get))
        .route("/v1/collections/{collection}/search", get(search::by_query).post(search::by_body))
        .route("/v1/sql", post(sql::ask))
        .route("/v1/queries", get(queries::list))
        .route("/v1/queries/{query}", delete(queries::cancel))
        .route("/v1/sources", get(sources::list))
        .route("/v1/sources/{source}", get(sources::get).put(sources::put).delete(sources::delete))
        .route("/v1/sources/{source}/preview", post(sources::preview))
        .route("/v1/sources/{source}/suspend", post(sources::suspend))
        .route("/v1/sources/{source}/resume", post(sources::resume))
        .route("/v1/sources/{source}/skip", post(sources::skip))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .fallback(refusal::not_found)
        .method_not_allowed_fallback(refusal::method_not_allowed)
        .layer(axum::middleware::from_fn(observe::observe))
        .with_state(app)
}
