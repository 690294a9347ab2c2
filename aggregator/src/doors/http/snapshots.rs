//! `/v1/snapshots`: takes, lists, checks, removes and restores snapshots.

use axum::{
    Json,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use proto::{Code, CollectionName, Problem, snapshot::SnapshotId};
use serde::Deserialize;
use serde_json::{Value, json};
use snapshots::RestoreRequest;
use utoipa::{IntoParams, ToSchema};

use super::{
    body,
    error::{HttpError, PathText, path_text},
    shape::bad_query,
    state::AppState,
};

/// Lists all snapshots, and what is being taken.
#[utoipa::path(
    get,
    path = "/v1/snapshots",
    operation_id = "list_snapshots",
    tag = "Snapshots",
    responses((status = 200, description = "`snapshots`, ordered by when they were begun, as in the table `rachis.snapshots`", body = Object))
)]
pub(super) async fn list(State(app): State<AppState>) -> Result<Response, HttpError> {
    let mut rows = app.engine.snapshot_rows().await?;
    rows.iter_mut().for_each(write_times);
    Ok(Json(json!({ "snapshots": rows })).into_response())
}

/// The body of a request to take a snapshot.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TakeBody {
    /// The collections; all, if this is left out.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    collections: Option<Vec<CollectionName>>,
}

/// Begins a snapshot. `GET /v1/snapshots/{id}` shows how far it is.
#[utoipa::path(
    post,
    path = "/v1/snapshots",
    operation_id = "take_snapshot",
    tag = "Snapshots",
    request_body = TakeBody,
    responses((status = 202, description = "The name of the snapshot, `id`", body = Object))
)]
pub(super) async fn take(State(app): State<AppState>, request: Request) -> Result<Response, HttpError> {
    let body: TakeBody = body::json(request, "send {\"collections\": [\"events\"]}, or {} for all").await?;
    let id = app.engine.take_snapshot(named(body.collections)?).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response())
}

/// The query string of a description.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DescribeOptions {
    /// Also what each shard has of each partition, and the digests of that.
    #[serde(default)]
    digests: bool,
}

/// Describes a snapshot: its collections and shards, and its definitions; or how far it is.
#[utoipa::path(
    get,
    path = "/v1/snapshots/{id}",
    operation_id = "get_snapshot",
    tag = "Snapshots",
    params(("id" = String, Path, description = "The name of the snapshot"), DescribeOptions),
    responses((status = 200, description = "The snapshot", body = Object))
)]
pub(super) async fn get(
    State(app): State<AppState>,
    path: PathText,
    options: Result<Query<DescribeOptions>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(options) = options.map_err(|e| bad_query(&e).hint("?digests=true also says what each shard has"))?;
    let mut described = app.engine.describe_snapshot(&id(path)?, options.digests).await?;
    write_times(&mut described);
    Ok(Json(described).into_response())
}

/// Removes a snapshot, and the files that no other one has.
#[utoipa::path(
    delete,
    path = "/v1/snapshots/{id}",
    operation_id = "remove_snapshot",
    tag = "Snapshots",
    params(("id" = String, Path, description = "The name of the snapshot")),
    responses((status = 200, description = "How many `objects` were removed, and their `bytes`", body = Object))
)]
pub(super) async fn remove(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let (engine, id) = (app.engine.clone(), id(path)?);
    let removed = to_its_end(async move { engine.remove_snapshots(&[id]).await }).await?;
    Ok(Json(json!(removed)).into_response())
}

/// The query string of a check.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CheckOptions {
    /// Reads every byte and compares hashes, instead of sizes.
    #[serde(default)]
    read: bool,
}

/// Looks whether all files of a snapshot are there.
#[utoipa::path(
    post,
    path = "/v1/snapshots/{id}/check",
    operation_id = "check_snapshot",
    tag = "Snapshots",
    params(("id" = String, Path, description = "The name of the snapshot"), CheckOptions),
    responses((status = 200, description = "How many `objects` were looked at, how many are `damaged`, and `examples`", body = Object))
)]
pub(super) async fn check(
    State(app): State<AppState>,
    path: PathText,
    options: Result<Query<CheckOptions>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(options) = options.map_err(|e| bad_query(&e).hint("?read=true also compares the bytes"))?;
    let found = app.engine.verify_snapshot(&id(path)?, options.read).await?;
    Ok(Json(json!(found)).into_response())
}

/// The body of a request to restore.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreBody {
    /// The collections; all of the snapshot, and its definitions, if this is left out.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    collections: Option<Vec<CollectionName>>,
    /// The name that the collection gets, if one is named.
    #[serde(default, rename = "as")]
    #[schema(value_type = Option<String>)]
    rename: Option<CollectionName>,
    /// Whether they go on with their topics for pushes and deletes, in the same Kafka. Otherwise they are copies with topics
    /// of their own.
    #[serde(default, rename = "continue")]
    continued: bool,
}

/// Restores collections. They are there at once; a shard answers as soon as its leaf has copied it, and `rachis.moves` shows
/// the progress.
#[utoipa::path(
    post,
    path = "/v1/snapshots/{id}/restore",
    operation_id = "restore_snapshot",
    tag = "Snapshots",
    params(("id" = String, Path, description = "The name of the snapshot")),
    request_body = RestoreBody,
    responses((
        status = 200,
        description = "The collections that are `restored`, the `sources` that were created, and `sources_left_out` with \
                       the reason of each",
        body = Object,
    ))
)]
pub(super) async fn restore(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let id = id(path)?;
    let hint = "send {\"collections\": [\"events\"], \"as\": \"events_before\"}, or {} for all";
    let body: RestoreBody = body::json(request, hint).await?;
    let request = RestoreRequest {
        id,
        collections: named(body.collections)?.unwrap_or_default(),
        rename: body.rename,
        continued: body.continued,
    };
    let engine = app.engine.clone();
    let answer = to_its_end(async move { engine.restore(&request).await }).await?;
    Ok(Json(answer).into_response())
}

/// The collections that a request names; `None` for all.
fn named(collections: Option<Vec<CollectionName>>) -> Result<Option<Vec<CollectionName>>, Problem> {
    match collections {
        Some(none) if none.is_empty() => {
            let detail = "the list of collections is empty";
            Err(Problem::new(Code::BadRequest, detail).hint("name some, or leave `collections` out for all"))
        }
        collections => Ok(collections),
    }
}

/// Does something wholly, even if the client that has asked for it goes away.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(Problem::new(Code::Internal, error.to_string())))
}

/// Writes milliseconds since 1970 as times.
fn write_times(row: &mut Value) {
    for key in ["began", "ended"] {
        let time = row[key].as_i64().and_then(chrono::DateTime::from_timestamp_millis);
        if let Some(time) = time {
            row[key] = time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true).into();
        }
    }
}

/// The snapshot in the path.
fn id(path: PathText) -> Result<SnapshotId, Problem> {
    Ok(path_text(path)?.parse()?)
}
