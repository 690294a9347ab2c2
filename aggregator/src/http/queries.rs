//! `/v1/queries`: what runs now, and how it is stopped.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat};
use plan::scan::QueryId;
use proto::{Code, Problem};
use serde_json::{Value, json};

use super::{
    App,
    refusal::{PathText, Refusal, path_text},
};

/// Lists the queries that run, oldest first.
pub(super) async fn list(State(app): State<App>) -> Json<Value> {
    let started = |ms: i64| DateTime::from_timestamp_millis(ms).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    let queries: Vec<Value> = app
        .engine
        .queries()
        .iter()
        .map(|query| json!({ "id": query.id.to_string(), "text": query.text, "started": started(query.started_ms), "elapsed_ms": query.elapsed_ms }))
        .collect();
    Json(json!({ "queries": queries }))
}

/// Stops one.
pub(super) async fn cancel(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    let text = path_text(path)?;
    let missing = || Problem::new(Code::NotFound, format!("no query {text} runs")).hint("GET /v1/queries lists those that do");
    let id = u128::from_str_radix(&text, 16).map_err(|_| missing())?;
    match app.engine.cancel(QueryId(id)) {
        true => Ok(Json(json!({ "cancelled": text })).into_response()),
        false => Err(missing().into()),
    }
}
