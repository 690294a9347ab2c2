//! Problem -> response (`application/problem+json`), and the problems that are the door's own: no such route, no such
//! method.

use axum::{
    extract::rejection::PathRejection,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use proto::{Catalog, Code, CollectionName, Problem, SourceName};

pub(super) use crate::query::no_collection;
use crate::sql::nearest;

/// What a handler answers when it does not.
#[derive(Debug)]
pub(super) struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        respond(self.0.code, &self.0.to_json())
    }
}

/// A problem with this body, which may say more than the problem itself does.
pub(super) fn respond(code: Code, body: &serde_json::Value) -> Response {
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if matches!(code, Code::Busy | Code::Unavailable | Code::Incomplete) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Answers a path that nobody serves.
pub(super) async fn not_found(uri: Uri) -> Refusal {
    Refusal(
        Problem::new(Code::NotFound, format!("nothing is served at {}", uri.path()))
            .hint("see /v1/collections, /v1/collections/{c}/documents, /v1/collections/{c}/search, /v1/sql, /v1/sources; ids are percent-encoded"),
    )
}

/// Answers a method that a path does not have; the router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    Refusal(
        Problem::new(
            Code::MethodNotAllowed,
            format!("{method} is not offered at {}", uri.path()),
        )
        .hint("the Allow header names what is"),
    )
}

/// A path's parameter, percent-decoded.
pub(super) type PathText = Result<axum::extract::Path<String>, PathRejection>;

/// A path's parameter as text, or why it is none.
pub(super) fn path_text(path: PathText) -> Result<String, Problem> {
    path.map(|axum::extract::Path(text)| text).map_err(|e| bad_path(&e))
}

/// What is wrong with a path.
pub(super) fn bad_path(rejection: &PathRejection) -> Problem {
    Problem::new(
        Code::BadRequest,
        format!("the path is not understood: {}", rejection.body_text()),
    )
    .hint("percent-encode names and ids as UTF-8")
}

/// A collection's name from a path.
pub(super) fn collection_name(text: &str) -> Result<CollectionName, Problem> {
    text.parse()
        .map_err(|e: proto::address::Malformed| Problem::new(Code::BadRequest, e.to_string()))
}

/// A source's name from a path.
pub(super) fn source_name(text: &str) -> Result<SourceName, Problem> {
    let name: SourceName = text
        .parse()
        .map_err(|e: proto::address::Malformed| Problem::new(Code::BadRequest, e.to_string()))?;
    match name.is_push() {
        false => Ok(name),
        true => Err(
            Problem::new(Code::BadRequest, "push is the name of every collection's own source")
                .hint("POST /v1/collections/{c}/documents feeds it; choose another name for a topic"),
        ),
    }
}

/// The problem of a source that is not there; the hint names one that may have been meant.
pub(super) fn no_source(name: &SourceName, catalog: &Catalog) -> Problem {
    let near = nearest(name.as_str(), catalog.sources.keys().map(SourceName::as_str));
    let hint = near.map_or_else(
        || "GET /v1/sources lists them".to_owned(),
        |near| format!("perhaps {near} was meant"),
    );
    Problem::new(Code::NotFound, format!("there is no source {name}")).hint(hint)
}
