//! The HTTP door: how the engine is asked and told over HTTP. One file per resource; this one joins them.
//!
//! Nothing here decides what an answer is: a handler reads a request strictly (an unknown key is refused and named),
//! hands it on, and writes what comes back. Every error is a problem (RFC 9457), the door's own ones included.

mod answer;
mod body;
mod browser;
mod collections;
mod connections;
mod documents;
mod foreign;
mod items;
mod observe;
mod patient;
mod push;
mod queries;
mod refusal;
mod room;
mod search;
mod service;
mod skips;
mod source_config;
mod sources;
mod sql;
mod status;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{Extensions, HeaderMap, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use proto::{Code, Problem};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    service::{Routes, RoutesBuilder},
};
use tower::ServiceExt as _;
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, Predicate, predicate::SizeAbove},
};

use self::push::Intake;
pub use self::{browser::Names, connections::serve};
use crate::query::Engine;

/// Bytes of an answer that is worth compressing, and how hard that is tried, for gzip and zstd alike.
const COMPRESSED_BYTES_MIN: u16 = 1_024;
const COMPRESSION_LEVEL: i32 = 1;
/// The header of a gRPC call that says how long it may take.
const GRPC_TIMEOUT: &str = "grpc-timeout";
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
    intake: Arc<Intake>,
    closing: CancellationToken,
}

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The door of an aggregator: HTTP and, beside what is in `grpc` already, its gRPC services. `metrics` is what
/// `/metrics` shows; once `closing` is cancelled it says that it is not ready.
pub fn door(
    engine: Arc<Engine>,
    metrics: Option<MetricsText>,
    closing: CancellationToken,
    mut grpc: RoutesBuilder,
) -> Door {
    let intake = Arc::new(Intake::new(engine.options.push_bytes_inflight_max));
    service::add(&mut grpc, &engine, &intake);
    let changes = engine.roles.changes.clone();
    let door = with_grpc(
        routes(App(Arc::new(Shared {
            engine,
            metrics,
            intake,
            closing,
        }))),
        grpc.routes(),
    );
    door.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let changes = changes.clone();
        async move {
            let path = request.uri().path();
            if path.starts_with("/v1/") || path.starts_with("/rachis.v1.") || path == "/readyz" {
                changes.current().await;
            }
            next.run(request).await
        }
    }))
}

/// The door of a node that only peers ask: how it is, its metrics, and what is in `grpc`. `ready` says why it is not
/// ready.
pub fn status_door(metrics: MetricsText, closing: CancellationToken, ready: Ready, grpc: RoutesBuilder) -> Door {
    with_grpc(status::router(metrics, closing, ready), grpc.routes())
}

/// Why a node is not ready, if it is not.
pub type Ready = Arc<dyn Fn() -> Result<(), Problem> + Send + Sync>;

/// HTTP and gRPC behind one address: what says that it is gRPC goes there.
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

/// Refuses a request in the form in which its client reads it.
fn refuse(request: &Request, problem: Problem) -> Response {
    match is_grpc(request) {
        true if problem.code == Code::Forbidden => Status::permission_denied(problem.to_string()).into_http(),
        true => Status::unavailable(problem.to_string()).into_http(),
        false => refusal::Refusal(problem).into_response(),
    }
}

/// The deadline of a call ends the work for it here, too: a caller who is cut off cannot say that it has gone.
async fn within_deadline(grpc: Router, request: Request) -> Result<Response, Infallible> {
    let deadline = request
        .headers()
        .get(GRPC_TIMEOUT)
        .and_then(|value| deadline(value.to_str().ok()?));
    match deadline {
        None => grpc.oneshot(request).await,
        Some(deadline) => match tokio::time::timeout(deadline, grpc.oneshot(request)).await {
            Ok(answer) => answer,
            Err(_) => Ok(Status::deadline_exceeded("the call did not end before its deadline").into_http()),
        },
    }
}

/// A deadline as gRPC writes it: up to eight digits and a unit.
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

/// Answers are compressed for those who take it, long ones piece by piece; pushes' answers and problems are as they
/// are.
fn compressed() -> CompressionLayer<impl Predicate> {
    let is_answer = |status: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| status.is_success();
    let layer = CompressionLayer::new()
        .gzip(true)
        .zstd(true)
        .quality(CompressionLevel::Precise(COMPRESSION_LEVEL));
    layer.compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN).and(is_answer))
}

fn routes(app: App) -> Router {
    answers()
        .layer(compressed())
        .route("/v1/collections/{collection}/documents", post(documents::push))
        .fallback(refusal::not_found)
        .method_not_allowed_fallback(refusal::method_not_allowed)
        .layer(axum::middleware::from_fn(observe::observe))
        .with_state(app)
}

fn answers() -> Router<App> {
    Router::new()
        .route("/v1/collections", get(collections::list))
        .route(
            "/v1/collections/{collection}",
            get(collections::get).put(collections::put).delete(collections::delete),
        )
        .route("/v1/collections/{collection}/skip", post(skips::of_pushes))
        .route(
            "/v1/collections/{collection}/dead-letters",
            delete(collections::clear_dead_letters),
        )
        .route("/v1/collections/{collection}/fields", get(collections::fields))
        .route("/v1/collections/{collection}/documents/{*id}", get(documents::get))
        .route(
            "/v1/collections/{collection}/search",
            get(search::by_query).post(search::by_body),
        )
        .route("/v1/sql", post(sql::ask))
        .route("/v1/queries", get(queries::list))
        .route("/v1/queries/{query}", delete(queries::cancel))
        .route("/v1/sources", get(sources::list))
        .route(
            "/v1/sources/{source}",
            get(sources::get).put(sources::put).delete(sources::delete),
        )
        .route("/v1/sources/{source}/preview", post(sources::preview))
        .route("/v1/sources/{source}/suspend", post(sources::suspend))
        .route("/v1/sources/{source}/resume", post(sources::resume))
        .route("/v1/sources/{source}/skip", post(skips::of_source))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn deadlines_read_as_grpc_writes_them() {
        let read = ["10S", "250m", "3M", "1H", "7u", "9n"].map(deadline);
        let are = [
            10_000_000_000,
            250_000_000,
            180_000_000_000,
            3_600_000_000_000,
            7_000,
            9,
        ]
        .map(|ns| Some(Duration::from_nanos(ns)));
        assert_eq!(read, are);
        assert_eq!(
            ["", "S", "10", "10x", "-1S", "123456789S", "é"].map(deadline),
            [None; 7]
        );
    }

    #[tokio::test]
    async fn compression_holds_nothing_back_of_what_was_sent() {
        use axum::body::Body;
        use futures::{StreamExt as _, stream};
        use http_body_util::BodyExt as _;

        let first = "row ".repeat(1_000);
        let rows = first.clone();
        let waits =
            move || async move { Body::from_stream(stream::iter([Ok::<_, io::Error>(rows)]).chain(stream::pending())) };
        let router = Router::new().route("/", get(waits)).layer(compressed());
        let request = Request::builder()
            .uri("/")
            .header(header::ACCEPT_ENCODING, "gzip")
            .body(Body::empty())
            .expect("a request");
        let mut body = router.oneshot(request).await.expect("an answer").into_body();
        let (mut packed, mut come) = (Vec::new(), Vec::new());
        while come.len() < first.len() {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame())
                .await
                .expect("it comes")
                .expect("a frame")
                .expect("no error");
            packed.extend_from_slice(&frame.into_data().expect("data"));
            come.clear();
            // That the end is not there yet is no matter.
            let _ = io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut come);
        }
        assert_eq!(come, first.as_bytes());
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline_whether_or_not_its_caller_is_still_there() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let held = Arc::new(parking_lot::Mutex::new(Some(held)));
        let hangs = Router::new().fallback(move || {
            let held = held.lock().take();
            async move {
                let _held = held;
                std::future::pending::<()>().await;
            }
        });
        let call = Request::builder()
            .header(GRPC_TIMEOUT, "20m")
            .body(axum::body::Body::empty())
            .expect("a request");
        let answer = within_deadline(hangs, call).await.expect("an answer");
        assert_eq!(
            answer
                .headers()
                .get("grpc-status")
                .and_then(|status| status.to_str().ok()),
            Some("4")
        );
        assert!(ended.await.is_err(), "the work was dropped");
    }
}
