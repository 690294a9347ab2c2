//! `/healthz`, `/readyz`, `/metrics`: for those who watch over the process.

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

use super::{App, MetricsText, Ready, refusal::Refusal};

/// The process runs.
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// Questions and pushes can be answered: the door is not closing, and some leaf is there. What is out of reach is
/// named: one leaf that is away must not take every door away.
pub(super) async fn readyz(State(app): State<App>) -> Result<Response, Refusal> {
    if app.closing.is_cancelled() {
        return Err(closing().into());
    }
    if app.engine.roles.changes.health().offset < 0 {
        return Err(Problem::new(Code::Unavailable, "nothing is known of the catalog yet")
            .hint("are the tailers there?")
            .into());
    }
    let leaves: Vec<NodeStatus> = app
        .engine
        .roles
        .nodes
        .status()
        .await
        .into_iter()
        .filter(|node| node.role.contains(Role::Leaf.word()))
        .collect();
    let away: Vec<&str> = leaves
        .iter()
        .filter(|leaf| leaf.report.is_err())
        .map(|leaf| leaf.name.as_str())
        .collect();
    if away.len() == leaves.len() {
        return Err(Problem::new(Code::Unavailable, format!("no leaf answers: {}", away.join(", "))).into());
    }
    let catalog = app.engine.catalog();
    let told = json!({ "status": "ready", "collections": catalog.collections.len(), "catalog_version": catalog.version, "leaves_away": away });
    Ok(Json(told).into_response())
}

fn closing() -> Problem {
    Problem::new(Code::Unavailable, "the process is shutting down")
}

/// The same for a node that only peers ask.
pub(super) fn router(metrics: MetricsText, closed: CancellationToken, ready: Ready) -> Router {
    let readyz = move || async move {
        if closed.is_cancelled() {
            return Err(Refusal(closing()));
        }
        ready().map_err(Refusal)?;
        Ok::<_, Refusal>(Json(json!({ "status": "ready" })))
    };
    let metrics = move || async move { metrics_answer(&metrics) };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(not_here)
        .method_not_allowed_fallback(super::refusal::method_not_allowed)
        .layer(axum::middleware::from_fn(super::observe::observe))
}

async fn not_here(uri: Uri) -> Refusal {
    let problem = Problem::new(
        Code::NotFound,
        format!("nothing is served at {} of this node: it is no aggregator", uri.path()),
    );
    Refusal(problem.hint("ask an aggregator; here are /healthz, /readyz and /metrics, and gRPC for other nodes"))
}

/// Metrics as Prometheus reads them.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Refusal> {
    let text = app
        .metrics
        .as_ref()
        .ok_or_else(|| Problem::new(Code::Unavailable, "this process records no metrics"))?;
    Ok(metrics_answer(text))
}

fn metrics_answer(text: &MetricsText) -> Response {
    let mut response = text().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
