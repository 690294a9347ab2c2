//! `/healthz`, `/readyz`, `/metrics`: endpoints for monitoring and load balancers.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use proto::{Code, Problem, cluster::Role, node::NodeStatus};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    error::HttpError,
    state::{AppState, MetricsText, ReadinessCheck},
};

/// Liveness: the process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "Monitoring",
    responses((status = 200, description = "The process runs", body = Object))
)]
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// Readiness: the node is not shutting down, has a catalog and reaches at least one leaf. Unreachable leaves are only
/// listed: one missing leaf must not make every aggregator unready.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "Monitoring",
    responses((status = 200, description = "The node answers queries", body = Object))
)]
pub(super) async fn readyz(State(app): State<AppState>) -> Result<Response, HttpError> {
    if app.closing.is_cancelled() {
        return Err(closing().into());
    }
    if app.engine.roles.changes.health().offset < 0 {
        return Err(Problem::new(Code::Unavailable, "the catalog has not been loaded yet")
            .hint("check that the tailers are running")
            .into());
    }
    let leaves: Vec<NodeStatus> = app
        .engine
        .roles
        .nodes
        .status()
        .await
        .into_iter()
        .filter(|node| node.role.contains(Role::Leaf.as_str()))
        .collect();
    let unreachable: Vec<&str> = leaves
        .iter()
        .filter(|leaf| leaf.report.is_err())
        .map(|leaf| leaf.name.as_str())
        .collect();
    if leaves.is_empty() {
        return Err(Problem::new(Code::Unavailable, "the cluster has no leaf")
            .hint("start one with `rachis leaf`")
            .into());
    }
    if unreachable.len() == leaves.len() {
        let detail = format!("no leaf responds: {}", unreachable.join(", "));
        return Err(Problem::new(Code::Unavailable, detail).into());
    }
    let catalog = app.engine.catalog();
    Ok(Json(json!({
        "status": "ready",
        "collections": catalog.collections.len(),
        "catalog_version": catalog.version,
        "leaves_away": unreachable,
    }))
    .into_response())
}

fn closing() -> Problem {
    Problem::new(Code::Unavailable, "the node is shutting down")
}

/// The same endpoints for a node that serves only its peers.
pub(in crate::doors) fn router(metrics: MetricsText, closed: CancellationToken, ready: ReadinessCheck) -> Router {
    let readyz = move || async move {
        if closed.is_cancelled() {
            return Err(HttpError(closing()));
        }
        ready().map_err(HttpError)?;
        Ok::<_, HttpError>(Json(json!({ "status": "ready" })))
    };
    let metrics = move || async move { metrics_response(&metrics) };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(not_an_aggregator)
        .method_not_allowed_fallback(super::error::method_not_allowed)
        .layer(axum::middleware::from_fn(super::observe::observe))
}

async fn not_an_aggregator(uri: Uri) -> HttpError {
    let problem = Problem::new(
        Code::NotFound,
        format!("route {} does not exist: this node is not an aggregator", uri.path()),
    );
    HttpError(problem.hint("use an aggregator; this node has /healthz, /readyz, /metrics, and gRPC for other nodes"))
}

/// Metrics in the Prometheus text format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Monitoring",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(app): State<AppState>) -> Result<Response, HttpError> {
    let text = app
        .metrics
        .as_ref()
        .ok_or_else(|| Problem::new(Code::Unavailable, "this process records no metrics"))?;
    Ok(metrics_response(text))
}

fn metrics_response(text: &MetricsText) -> Response {
    let mut response = text().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
