//! `/v1/sources/{source}/spread`: has the records of a hot partition belong to several shards.

use axum::{
    Json,
    extract::{Query, Request, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use proto::{Problem, SourceName, catalog::Run};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    body,
    error::{HttpError, PathText, path_text},
    shape::{self, bad_query},
    state::AppState,
};
use crate::doors::names::source_name;

const HINT: &str =
    "{\"partition\": 0} spreads partition 0 over all shards, {\"partition\": 0, \"shards\": [0, 2]} over two";

/// The body of a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SpreadRequest {
    /// The partition.
    partition: i32,
    /// The shards that its records belong to by turns; all if left out.
    #[serde(default)]
    shards: Option<Vec<u32>>,
}

/// The query string of a withdrawal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WithdrawOptions {
    /// The partition.
    partition: i32,
}

/// Spreads what a partition gets from now on over several shards.
#[utoipa::path(
    post,
    path = "/v1/sources/{source}/spread",
    operation_id = "spread_partition",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    request_body = SpreadRequest,
    responses((
        status = 200,
        description = "From the offset `from` on, the records belong to these `shards` by turns, `block` offsets to each",
        body = Object,
    ))
)]
pub(super) async fn spread(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let source = source_name(&path_text(path)?)?;
    let request: Value = body::json(request, HINT).await?;
    let request: SpreadRequest = shape::from_value(&request).map_err(|problem| problem.hint(HINT))?;
    let run = app.engine.spread(&source, request.partition, request.shards).await?;
    Ok(answer(&source, request.partition, &run, "in force"))
}

/// Withdraws the spread of a partition that not all leaves have confirmed yet.
#[utoipa::path(
    delete,
    path = "/v1/sources/{source}/spread",
    operation_id = "withdraw_spread",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name"), WithdrawOptions),
    responses((status = 200, description = "What was withdrawn", body = Object))
)]
pub(super) async fn withdraw(
    State(app): State<AppState>,
    path: PathText,
    options: Result<Query<WithdrawOptions>, QueryRejection>,
) -> Result<Response, HttpError> {
    let source = source_name(&path_text(path)?)?;
    let Query(options) = options.map_err(|e| -> Problem { bad_query(&e).hint("?partition=0 names the partition") })?;
    let run = app.engine.withdraw_spread(&source, options.partition).await?;
    Ok(answer(&source, options.partition, &run, "withdrawn"))
}

fn answer(source: &SourceName, partition: i32, run: &Run, state: &str) -> Response {
    let answer = json!({
        "source": source,
        "partition": partition,
        "from": run.from,
        "shards": run.shards,
        "block": run.block,
        "state": state,
    });
    Json(answer).into_response()
}
