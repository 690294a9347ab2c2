//! `/healthz`, `/readyz`, `/metrics`: for those who watch over the process.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use proto::{Code, Problem};
use serde_json::json;

use super::{App, refusal::Refusal};

/// How long a leaf may take to say that it is there.
const LEAF_WAIT_MAX: Duration = Duration::from_secs(2);

/// The process runs.
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// Questions and pushes can be answered: every collection's shards are there, and the door is not closing.
pub(super) async fn readyz(State(app): State<App>) -> Result<Response, Refusal> {
    if app.closing.is_cancelled() {
        return Err(Problem::new(Code::Unavailable, "the process is shutting down").into());
    }
    let catalog = app.engine.catalog();
    let leaf = &app.engine.roles.leaf;
    let all = catalog.collections.iter().map(|(name, collection)| async move {
        let asked = leaf.partitions(collection.uid);
        match tokio::time::timeout(LEAF_WAIT_MAX, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(problem)) => Err(Problem::new(Code::Unavailable, format!("collection {name} is not ready: {problem}"))),
            Err(_) => Err(Problem::new(Code::Unavailable, format!("collection {name} did not answer within {} seconds", LEAF_WAIT_MAX.as_secs()))),
        }
    });
    futures::future::try_join_all(all).await?;
    Ok(Json(json!({ "status": "ready", "collections": catalog.collections.len(), "catalog_version": catalog.version })).into_response())
}

/// Metrics as Prometheus reads them.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Refusal> {
    let text = app.metrics.as_ref().ok_or_else(|| Problem::new(Code::Unavailable, "this process records no metrics"))?;
    let mut response = text().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}
