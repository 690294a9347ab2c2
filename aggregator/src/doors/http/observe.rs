//! Middleware for every request: request id, log line, metrics, and a response for handlers that panic.

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use metrics::{counter, histogram};
use proto::{Code, Problem, problem::panic_text};
use tracing::{debug, error};

use super::error::HttpError;

/// The id of a request. Generated unless the client sends one.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id of a client is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Runs a request, logs it and counts it.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let client_id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.to_str().is_ok())
        .cloned();
    let id = client_id.or_else(|| HeaderValue::from_str(&uuid::Uuid::now_v7().simple().to_string()).ok());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none".to_owned(), |path| path.as_str().to_owned());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            error!(%method, path, reason = panic_text(panic.as_ref()), "the handler of a request panicked");
            HttpError(Problem::new(
                Code::Internal,
                "an internal error ended this request; other requests are not affected",
            ))
            .into_response()
        }
    };
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    debug!(%method, path, status, elapsed_ms = elapsed.as_millis() as u64, id = ?id, "answered");
    let labels = [
        ("route", route),
        ("method", method_label(&method).to_owned()),
        ("status", status.to_string()),
    ];
    counter!("rachis_http_requests_total", &labels).increment(1);
    histogram!("rachis_http_request_seconds", &labels).record(elapsed.as_secs_f64());
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The method as a label. The set is bounded, because clients can send any method.
fn method_label(method: &axum::http::Method) -> &'static str {
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| method.as_str() == *known)
        .unwrap_or("other")
}
