//! `POST …/delete` and `DELETE …/documents/{id}`: delete the documents that meet a condition, or that have an id.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use proto::PositionVector;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    body,
    documents::no_document,
    error::{HttpError, PathText, bad_path, path_text},
    openapi::schemas,
    sql::{QueryOptionsBody, ScanSourceBody, author},
    state::AppState,
};
use crate::{
    answer::QueryOptions,
    doors::names::collection_name,
    query::{DeleteCause, DeleteRequest, Deleted},
    sql,
};

const HINT: &str = "{\"where\": \"user = 'bob'\"} deletes the documents of bob; if needed with parameters, dry_run, at_least, \
                    timeout_ms and query_id";

/// Which documents to delete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteBody {
    /// A condition, as after WHERE in SQL; `true` deletes all documents.
    r#where: String,
    /// The values of `$1`, `$2`, … in the condition.
    #[serde(default)]
    parameters: Vec<Value>,
    /// Only count the documents.
    #[serde(default)]
    dry_run: bool,
    /// Delete also what was written through these positions.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    at_least: Option<PositionVector>,
    /// When to give up looking for the documents, in milliseconds.
    #[serde(default)]
    timeout_ms: Option<u64>,
    /// A UUID by which the search for the documents can be cancelled.
    #[serde(default)]
    query_id: Option<String>,
}

/// Deletes the documents that meet a condition. When the answer arrives, no answer shows them any more.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/delete",
    operation_id = "delete_documents",
    tag = "Documents",
    params(("collection" = String, Path, description = "Its name"), ("Rachis-Author" = Option<String>, Header, description = "Who deletes, for rachis.deletes")),
    request_body = DeleteBody,
    responses((status = 200, description = "How many documents were deleted", body = schemas::DeleteAnswer))
)]
pub(super) async fn by_condition(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let author = author(request.headers())?;
    let body: DeleteBody = body::json(request, HINT).await?;
    let options = QueryOptionsBody {
        at_least: body.at_least,
        allow_partial: false,
        timeout_ms: body.timeout_ms,
        scan: ScanSourceBody::Auto,
        query_id: body.query_id,
    };
    let dry_run = body.dry_run;
    let request = DeleteRequest {
        cause: DeleteCause::Request,
        wanted: sql::delete_where(name, &body.r#where, app.engine.options.statement_bytes_max)?,
        parameters: body.parameters,
        author,
        dry_run,
        options: options.parse()?,
    };
    let deleted = app.engine.delete(request).await?;
    Ok(Json(answer(&deleted, dry_run)).into_response())
}

/// Deletes the document with an id. A key that occurs in several source partitions is several documents: all are deleted.
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}/documents/{*id}",
    operation_id = "delete_document",
    tag = "Documents",
    params(("collection" = String, Path, description = "Its name"), ("id" = String, Path, description = "Its key or, without one, its address, percent-encoded"), ("Rachis-Author" = Option<String>, Header, description = "Who deletes, for rachis.deletes")),
    responses((status = 200, description = "How many documents were deleted", body = schemas::DeleteAnswer))
)]
pub(super) async fn by_id(
    State(app): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let Path((collection, id)) = path.map_err(|e| bad_path(&e))?;
    let name = collection_name(&collection)?;
    let request = DeleteRequest {
        cause: DeleteCause::Request,
        wanted: sql::delete_where(name.clone(), "_id = $1", app.engine.options.statement_bytes_max)?,
        parameters: vec![Value::String(id.clone())],
        author: author(&headers)?,
        dry_run: false,
        options: QueryOptions::default(),
    };
    let deleted = app.engine.delete(request).await?;
    match deleted.documents {
        0 => Err(no_document(&id, &name).into()),
        _ => Ok(Json(answer(&deleted, false)).into_response()),
    }
}

fn answer(deleted: &Deleted, dry_run: bool) -> Value {
    let mut answer = match dry_run {
        true => json!({ "documents": deleted.documents, "dry_run": true }),
        false => json!({
            "deleted": deleted.documents,
            "id": deleted.id.map(|id| id.to_string()),
            "position": deleted.position.to_string(),
        }),
    };
    if !deleted.warnings.is_empty() {
        answer["warnings"] = json!(deleted.warnings);
    }
    answer
}
