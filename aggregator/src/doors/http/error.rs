//! Problem -> response (`application/problem+json`), and the server's own problems: unknown routes, wrong methods, bad
//! paths.

use axum::{
    extract::rejection::PathRejection,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use proto::{Code, Problem};

/// The error of a handler. Becomes a problem document.
#[derive(Debug)]
pub(in crate::doors) struct HttpError(pub Problem);

impl From<Problem> for HttpError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        respond(self.0.code, &self.0.to_json())
    }
}

/// The response for a problem with this body, which may have more members than the problem itself.
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

/// The fallback for unknown paths.
pub(super) async fn not_found(uri: Uri) -> HttpError {
    let hint = "GET / lists the routes, and /openapi.json describes them; ids are percent-encoded";
    HttpError(Problem::new(Code::NotFound, format!("route {} does not exist", uri.path())).hint(hint))
}

/// The fallback for methods that a route does not have. The router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> HttpError {
    HttpError(
        Problem::new(
            Code::MethodNotAllowed,
            format!("{} does not support {method}", uri.path()),
        )
        .hint("the Allow header lists the supported methods"),
    )
}

/// The parameter of a path, percent-decoded.
pub(super) type PathText = Result<axum::extract::Path<String>, PathRejection>;

/// The parameter of a path as text. Fails if it cannot be decoded.
pub(super) fn path_text(path: PathText) -> Result<String, Problem> {
    path.map(|axum::extract::Path(text)| text).map_err(|e| bad_path(&e))
}

/// The problem of a path that cannot be decoded.
pub(super) fn bad_path(rejection: &PathRejection) -> Problem {
    Problem::new(Code::BadRequest, format!("invalid path: {}", rejection.body_text()))
        .hint("percent-encode names and ids as UTF-8")
}
