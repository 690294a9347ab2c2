//! `POST /v1/collections/{c}/documents` and `GET /v1/collections/{c}/documents/{id}`.

use axum::{
    Json,
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use plan::scan::Document;
use proto::{Code, CollectionName, Problem, limits::PUSH_BYTES_MAX, record::RequestKey};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    body,
    error::{HttpError, PathText, bad_path, path_text, respond},
    items::{self, PushFormat},
    openapi::schemas,
    shape::bad_query,
    state::AppState,
};
use crate::doors::{
    byte_budget::BUDGET_WAIT_MAX,
    names::collection_name,
    push::{self, PushSummary},
};

/// Bodies from this size on are split on a blocking thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// What an item takes in memory beside its bytes.
const ITEM_BYTES: usize = 64;

/// The query string of [`push`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PushOptions {
    /// The documents are the values of this column of the rows, or of this field of the objects in the body. A text
    /// becomes a document byte for byte.
    column: Option<String>,
}

/// Ingests documents. When the answer arrives, they are stored and visible.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/documents",
    operation_id = "push_documents",
    tag = "Documents",
    params(("collection" = String, Path, description = "Its name"), PushOptions, ("Idempotency-Key" = Option<String>, Header, description = "The same key and body return the same answer, so a push can be retried")),
    request_body(description = "JSON, a list of JSON, NDJSON, or CSV or TSV with a header", content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (String = "text/tab-separated-values"))),
    responses((status = 200, description = "What was accepted", body = schemas::PushAnswer))
)]
pub(super) async fn push(
    State(app): State<AppState>,
    path: PathText,
    options: Result<Query<PushOptions>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let Query(PushOptions { column }) =
        options.map_err(|e| bad_query(&e).hint("?column=_doc stores the texts in the column _doc as the documents"))?;
    let deadline = Instant::now() + BUDGET_WAIT_MAX;
    let format = PushFormat::of(
        headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or("(not text)")),
    )?;
    let mut reserved = app.pushes.budget.reserve(0, deadline).await?;
    let bytes = body::read(&headers, body, PUSH_BYTES_MAX, Some(&mut reserved)).await?;
    let mut key = request_key(&headers, &bytes)?;
    if let (Some(key), Some(column)) = (&mut key, &column) {
        // The same body has other documents with another column.
        key.body ^= xxh3_128(column.as_bytes());
    }
    let body_bytes = bytes.len();
    let is_copied = column.is_some() || matches!(format, PushFormat::Csv | PushFormat::Tsv);
    let items = split(bytes, format, column).await?;
    let count = items.len();
    if is_copied {
        // Each row has become a document of its own beside the body.
        let documents: usize = items.iter().map(|item| item.len() + ITEM_BYTES).sum();
        reserved.grow_to(body_bytes + documents).await?;
    }
    let outcome = app.pushes.push(&app.engine, &name, items, key, deadline).await?;
    Ok(response(&outcome, count))
}

async fn split(bytes: Bytes, format: PushFormat, column: Option<String>) -> Result<Vec<Bytes>, Problem> {
    let bytes_of_body = bytes.len();
    let split = move || {
        let items = items::split(&bytes, format)?;
        match column {
            Some(column) => items::values_of(&column, &items),
            None => Ok(items),
        }
    };
    if bytes_of_body < INLINE_BYTES_MAX {
        return split();
    }
    tokio::task::spawn_blocking(split)
        .await
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))?
}

fn request_key(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<RequestKey>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (Some(value), another) = (values.next(), values.next()) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if another.is_none() => push::request_key(key, bytes).map(Some),
        _ => Err(push::bad_request_key()),
    }
}

/// The summary of a push. If items were rejected and none was accepted, it is a problem that also has the summary.
fn response(outcome: &PushSummary, count: usize) -> Response {
    let mut summary = serde_json::json!({
        "accepted": outcome.accepted,
        "rejected": outcome.rejected,
        "errors": outcome.errors,
        "position": outcome.position.to_string(),
    });
    if outcome.repeated() {
        summary["repeated"] = true.into();
    }
    if outcome.rejected == 0 || outcome.accepted > 0 {
        return Json(summary).into_response();
    }
    let first = outcome
        .errors
        .first()
        .map_or(String::new(), |error| format!("; the first error: {}", error.detail));
    let problem = Problem::new(
        Code::BadRequest,
        format!("none of the {count} items became a document{first}"),
    )
    .hint("the items are stored as dead letters: select * from rachis.dead_letters");
    let mut body = problem.to_json();
    if let (Some(body), serde_json::Value::Object(summary)) = (body.as_object_mut(), summary) {
        body.extend(summary);
    }
    respond(Code::BadRequest, &body)
}

/// Returns a document, byte for byte.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/documents/{*id}",
    operation_id = "get_document",
    tag = "Documents",
    params(("collection" = String, Path, description = "Its name"), ("id" = String, Path, description = "Its key or, without one, its address, percent-encoded")),
    responses((status = 200, description = "The document, byte for byte; the header Rachis-Address has its address", content((serde_json::Value = "application/json"), (String = "text/plain"))))
)]
pub(super) async fn get(
    State(app): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, HttpError> {
    let Path((collection, id)) = path.map_err(|e| bad_path(&e))?;
    let name = collection_name(&collection)?;
    let found = app.engine.document(&name, &id).await?;
    Ok(raw(found.ok_or_else(|| no_document(&id, &name))?))
}

pub(super) fn no_document(id: &str, collection: &CollectionName) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("document {id:?} does not exist in collection {collection}"),
    )
    .hint("an id is the document's key or, without one, its address, for example clicks/0@1234, percent-encoded")
}

fn raw(document: Document) -> Response {
    let content_type = if document.json {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    };
    let mut response = document.bytes.into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(address) = HeaderValue::from_str(&document.address.to_string()) {
        response.headers_mut().insert("rachis-address", address);
    }
    response
}

#[cfg(test)]
mod tests {
    use proto::ingest::ItemError;

    use super::*;

    fn headers(keys: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(
                "idempotency-key",
                HeaderValue::from_bytes(key.as_bytes()).expect("a header"),
            );
        }
        headers
    }

    #[test]
    fn a_request_key_is_one_short_string() {
        assert_eq!(request_key(&headers(&[]), b"x").map(|key| key.is_some()), Ok(false));
        assert_eq!(
            request_key(&headers(&["k1"]), b"x").map(|key| key.map(|k| k.key)),
            Ok(Some("k1".into()))
        );
        for bad in [vec![""], vec!["a", "b"], vec!["\u{e9}"], vec!["k".repeat(256).as_str()]] {
            assert_eq!(
                request_key(&headers(&bad), b"x").map_err(|p| p.code),
                Err(Code::BadRequest),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_status_depends_on_whether_anything_was_accepted() {
        let error = ItemError {
            index: 0,
            code: "not_json".into(),
            detail: "not JSON".into(),
        };
        let outcome = |accepted, rejected| PushSummary {
            accepted,
            rejected,
            errors: vec![error.clone()],
            ..PushSummary::default()
        };
        assert_eq!(response(&outcome(2, 0), 2).status(), 200);
        assert_eq!(response(&outcome(1, 1), 2).status(), 200);
        assert_eq!(response(&outcome(0, 1), 1).status(), 400);
    }
}
