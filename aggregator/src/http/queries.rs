//! `/v1/queries`: what runs now, and how it is stopped.

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
    App,
    refusal::{PathText, Refusal, path_text},
};

/// Lists the queries that run, with the node where they do.
pub(super) async fn list(State(app): State<App>) -> Json<Value> {
    let started =
        |ms: i64| DateTime::from_timestamp_millis(ms).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    let row = |(node, query): &(String, RunningQuery)| {
        let (id, started) = (query.id.to_string(), started(query.started_ms));
        json!({ "id": id, "node": node, "text": query.text, "started": started, "elapsed_ms": query.elapsed_ms })
    };
    let queries: Vec<Value> = app.engine.queries().await.iter().map(row).collect();
    Json(json!({ "queries": queries }))
}

/// Stops one.
pub(super) async fn cancel(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    let text = path_text(path)?;
    let missing =
        || Problem::new(Code::NotFound, format!("no query {text} runs")).hint("GET /v1/queries lists those that do");
    let id: QueryId = text.parse().map_err(|_| missing())?;
    match app.engine.cancel_anywhere(id).await {
        true => Ok(Json(json!({ "cancelled": text })).into_response()),
        false => Err(missing().into()),
    }
}
