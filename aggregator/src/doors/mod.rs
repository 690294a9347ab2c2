//! The network interface of a node: HTTP and gRPC on one address.
//!
//! `http` and `grpc` translate between their protocol and the engine. What both need stands beside them: names and
//! settings that clients send, pushes and their byte budget, the encoding of rows, connections.

mod answer_writer;
mod byte_budget;
mod collections;
mod connections;
mod grpc;
mod http;
mod names;
mod origin;
mod push;
mod source_config;
mod sources;
mod stalled_write;
mod time_paths;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::header,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use proto::{Code, Problem, client::INSTANCE_METADATA};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    service::{Routes, RoutesBuilder},
};
use tower::ServiceExt as _;
use uuid::Uuid;

pub use self::{
    connections::serve,
    http::state::{MetricsText, ReadinessCheck},
    origin::AllowedHosts,
};
use self::{
    http::state::{AppState, Shared},
    push::PushPipeline,
};
use crate::query::Engine;

/// The gRPC header with the timeout of a call.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// All routes of a node, HTTP and gRPC. Pass it to [`serve`].
pub type NodeServer = Router;

/// The routes of an aggregator: HTTP, its gRPC services and those that `grpc` already has. `/metrics` serves `metrics`.
/// Once `closing` is cancelled, `/readyz` reports that the node is not ready. Clients are served from the time on when
/// `joined` is fulfilled: before, others do not know of this node, so it may lack what they have acknowledged.
pub fn router(
    engine: Arc<Engine>,
    metrics: Option<MetricsText>,
    closing: CancellationToken,
    joined: ReadinessCheck,
    mut grpc: RoutesBuilder,
) -> NodeServer {
    let has_joined = Arc::new(AtomicBool::new(false));
    let pushes = Arc::new(PushPipeline::new(engine.options.push_bytes_inflight_max));
    grpc::add(&mut grpc, &engine, &pushes);
    let changes = engine.roles.changes.clone();
    let state = AppState(Arc::new(Shared {
        engine,
        metrics,
        pushes,
        closing,
    }));
    let router = with_grpc(http::routes(state), grpc.routes());
    router.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let (changes, joined, has_joined) = (changes.clone(), joined.clone(), has_joined.clone());
        async move {
            let path = request.uri().path();
            if path.starts_with("/v1/") || path.starts_with("/rachis.v1.") || path == "/readyz" {
                if !has_joined.load(Ordering::Relaxed) {
                    if let Err(problem) = joined() {
                        return reject(&request, problem);
                    }
                    has_joined.store(true, Ordering::Relaxed);
                }
                changes.catch_up().await;
            }
            next.run(request).await
        }
    }))
}

/// The routes of a node that serves only its peers: health, metrics and the services in `grpc`.
pub fn status_router(
    metrics: MetricsText,
    closing: CancellationToken,
    ready: ReadinessCheck,
    grpc: RoutesBuilder,
) -> NodeServer {
    with_grpc(http::status::router(metrics, closing, ready), grpc.routes())
}

/// Refuses calls that are meant for another node: one that had this address before.
pub fn refuse_calls_to_others(server: NodeServer, own: Uuid) -> NodeServer {
    let own = own.to_string();
    server.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let named = request.headers().get(INSTANCE_METADATA);
        let is_other = named.is_some_and(|named| named.as_bytes() != own.as_bytes());
        async move {
            match is_other {
                true => Status::from(Problem::new(Code::Unavailable, "another node has its address")).into_http(),
                false => next.run(request).await,
            }
        }
    }))
}

/// Serves HTTP and gRPC on one address. The content type of a request decides which of the two handles it.
fn with_grpc(http: Router, grpc: Routes) -> Router {
    let grpc = grpc.into_axum_router();
    Router::new().fallback(move |request: Request| {
        let is_grpc = is_grpc(&request);
        let (grpc, http) = (grpc.clone(), http.clone());
        async move {
            if is_grpc {
                within_deadline(grpc, request).await
            } else {
                http.oneshot(request).await
            }
        }
    })
}

fn is_grpc(request: &Request) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Rejects a request: with a gRPC status if it is a gRPC call, else with a problem document.
fn reject(request: &Request, problem: Problem) -> Response {
    match is_grpc(request) {
        true if problem.code == Code::Forbidden => Status::permission_denied(problem.to_string()).into_http(),
        true => Status::unavailable(problem.to_string()).into_http(),
        false => http::error::HttpError(problem).into_response(),
    }
}

/// Stops the work for a call at the call's deadline: a caller that lost its network cannot cancel the call.
async fn within_deadline(grpc: Router, request: Request) -> Result<Response, Infallible> {
    let deadline = request
        .headers()
        .get(GRPC_TIMEOUT)
        .and_then(|value| deadline(value.to_str().ok()?));
    match deadline {
        None => grpc.oneshot(request).await,
        Some(deadline) => match tokio::time::timeout(deadline, grpc.oneshot(request)).await {
            Ok(response) => response,
            Err(_) => Ok(Status::deadline_exceeded("the call did not finish before its deadline").into_http()),
        },
    }
}

/// Parses a gRPC timeout: at most eight digits and a unit.
fn deadline(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_parsed() {
        let parsed = ["10S", "250m", "3M", "1H", "7u", "9n"].map(deadline);
        let expected = [
            10_000_000_000,
            250_000_000,
            180_000_000_000,
            3_600_000_000_000,
            7_000,
            9,
        ]
        .map(|ns| Some(Duration::from_nanos(ns)));
        assert_eq!(parsed, expected);
        assert_eq!(
            ["", "S", "10", "10x", "-1S", "123456789S", "é"].map(deadline),
            [None; 7]
        );
    }

    #[tokio::test]
    async fn a_call_is_dropped_at_its_deadline() {
        let (guard, dropped) = tokio::sync::oneshot::channel::<()>();
        let guard = Arc::new(parking_lot::Mutex::new(Some(guard)));
        let hangs = Router::new().fallback(move || {
            let guard = guard.lock().take();
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }
        });
        let call = Request::builder()
            .header(GRPC_TIMEOUT, "20m")
            .body(axum::body::Body::empty())
            .expect("a request");
        let response = within_deadline(hangs, call).await.expect("a response");
        assert_eq!(
            response
                .headers()
                .get("grpc-status")
                .and_then(|status| status.to_str().ok()),
            Some("4")
        );
        assert!(dropped.await.is_err(), "the work was dropped");
    }
}
