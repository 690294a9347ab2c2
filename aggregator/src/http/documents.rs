//! `POST /v1/collections/{c}/documents` and `GET /v1/collections/{c}/documents/{id}`.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use plan::scan::Document;
use proto::{Code, Problem, limits::PUSH_BYTES_MAX, record::RequestKey};
use tokio::time::Instant;

use super::{
    App, body,
    items::{self, Form},
    push::{self, Outcome},
    refusal::{PathText, Refusal, bad_path, collection_name, path_text, respond},
};

/// How long a push waits for room.
pub(super) const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bodies from this on are split off the core threads.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Takes documents in.
pub(super) async fn push(
    State(app): State<App>,
    path: PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let deadline = Instant::now() + ROOM_WAIT_MAX;
    let form = Form::of(
        headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or("what is no text")),
    )?;
    let mut held = app.intake.room.hold(0, deadline).await?;
    let bytes = body::read(&headers, body, PUSH_BYTES_MAX, Some(&mut held)).await?;
    let key = request_key(&headers, &bytes)?;
    let items = split(bytes, form).await?;
    let count = items.len();
    let outcome = app.intake.take(&app.engine, &name, items, key, deadline).await?;
    Ok(answer(&outcome, count))
}

async fn split(bytes: Bytes, form: Form) -> Result<Vec<Bytes>, Problem> {
    if bytes.len() < INLINE_BYTES_MAX {
        return items::split(&bytes, form);
    }
    tokio::task::spawn_blocking(move || items::split(&bytes, form))
        .await
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))?
}

fn request_key(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<RequestKey>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let (Some(value), more) = (given.next(), given.next()) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if more.is_none() => push::request_key(key, bytes).map(Some),
        _ => Err(push::bad_request_key()),
    }
}

fn answer(outcome: &Outcome, count: usize) -> Response {
    let mut told = serde_json::json!({
        "accepted": outcome.accepted,
        "rejected": outcome.rejected,
        "errors": outcome.errors,
        "position": outcome.position.to_string(),
    });
    if outcome.repeated() {
        told["repeated"] = true.into();
    }
    if outcome.rejected == 0 || outcome.accepted > 0 {
        return Json(told).into_response();
    }
    let why = outcome
        .errors
        .first()
        .map_or(String::new(), |error| format!(": {}", error.detail));
    let problem = Problem::new(
        Code::BadRequest,
        format!("none of {count} items became a document; the first{why}"),
    )
    .hint("the items are kept as dead letters: select * from rachis.dead_letters");
    let mut body = problem.to_json();
    if let (Some(body), serde_json::Value::Object(told)) = (body.as_object_mut(), told) {
        body.extend(told);
    }
    respond(Code::BadRequest, &body)
}

/// Gives a document back, byte for byte.
pub(super) async fn get(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((collection, id)) = path.map_err(|e| bad_path(&e))?;
    let name = collection_name(&collection)?;
    let found = app.engine.document(&name, &id).await?;
    let document = found.ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no document {id:?} in {name}"))
            .hint("an id is the document's key or, without one, its address such as clicks/0@1234, percent-encoded")
    })?;
    Ok(raw(document))
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
    fn a_request_key_is_one_short_text() {
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
    fn the_status_says_whether_anything_was_accepted() {
        let error = ItemError {
            index: 0,
            code: "not_json".into(),
            detail: "not JSON".into(),
        };
        let outcome = |accepted, rejected| Outcome {
            accepted,
            rejected,
            errors: vec![error.clone()],
            ..Outcome::default()
        };
        assert_eq!(answer(&outcome(2, 0), 2).status(), 200);
        assert_eq!(answer(&outcome(1, 1), 2).status(), 200);
        assert_eq!(answer(&outcome(0, 1), 1).status(), 400);
    }
}
