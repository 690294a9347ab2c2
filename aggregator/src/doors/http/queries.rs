//! `/v1/queries`: lists running queries and cancels them.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat};
use proto::{
    Code, Problem,
    node::{QueryId, RunningQuery},
};
use serde_json::{Value, json};

use super::{
    error::{HttpError, PathText, path_text},
    openapi::schemas,
    state::AppState,
};

/// Lists the running queries of all nodes.
#[utoipa::path(
    get,
    path = "/v1/queries",
    operation_id = "list_queries",
    tag = "Queries",
    responses((status = 200, description = "The running queries", body = schemas::Queries))
)]
pub(super) async fn list(State(app): State<AppState>) -> Json<Value> {
    let started =
        |ms: i64| DateTime::from_timestamp_millis(ms).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    let row = |node: &str, query: RunningQuery| {
        let (id, started) = (query.id.to_string(), started(query.started_ms));
        json!({
            "id": id, "node": node, "text": query.text, "started": started, "elapsed_ms": query.elapsed_ms,
            "documents": query.documents, "documents_scanned": query.documents_scanned,
            "memory_bytes": query.memory_bytes, "memory_bytes_most": query.memory_bytes_most,
        })
    };
    let (mut queries, mut away) = (Vec::new(), Vec::new());
    for of_node in app.engine.queries().await {
        let node = of_node.node;
        match of_node.queries {
            Ok(running) => queries.extend(running.into_iter().map(|query| row(&node, query))),
            Err(problem) => away.push(json!({ "node": node, "error": problem.to_string() })),
        }
    }
    Json(json!({ "queries": queries, "away": away }))
}

/// Cancels a query, on whichever node it runs.
#[utoipa::path(
    delete,
    path = "/v1/queries/{query}",
    operation_id = "cancel_query",
    tag = "Queries",
    params(("query" = String, Path, description = "Its id")),
    responses((status = 200, description = "The id of the cancelled query", body = Object))
)]
pub(super) async fn cancel(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let text = path_text(path)?;
    let missing = || {
        Problem::new(Code::NotFound, format!("query {text} is not running"))
            .hint("GET /v1/queries lists the running queries")
    };
    // A client may write its UUID with hyphens.
    let id: QueryId = text.replace('-', "").parse().map_err(|_| missing())?;
    match app.engine.cancel_anywhere(id).await {
        true => Ok(Json(json!({ "cancelled": text })).into_response()),
        false => Err(missing().into()),
    }
}
