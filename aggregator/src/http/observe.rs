//! What surrounds every request: its id, its line in the log, its metrics, and the net below a handler that panics.

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use metrics::{counter, histogram};
use proto::{Code, Problem};
use tracing::{debug, error};

use super::refusal::Refusal;

/// Names a request; the client's own is kept.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a request id that a client gives; a longer one is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Runs a request and notes it.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.to_str().is_ok())
        .cloned();
    let id = given.or_else(|| HeaderValue::from_str(&uuid::Uuid::now_v7().simple().to_string()).ok());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none".to_owned(), |path| path.as_str().to_owned());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            error!(%method, path, reason = reason(panic.as_ref()), "a request ended in a panic");
            Refusal(Problem::new(
                Code::Internal,
                "the request ran into a fault of ours; nothing else is affected",
            ))
            .into_response()
        }
    };
    let (status, elapsed) = (response.status().as_u16(), begun.elapsed());
    debug!(%method, path, status, elapsed_ms = elapsed.as_millis() as u64, id = ?id, "answered");
    let labels = [
        ("route", route),
        ("method", known_method(&method).to_owned()),
        ("status", status.to_string()),
    ];
    counter!("rachis_http_requests_total", &labels).increment(1);
    histogram!("rachis_http_request_seconds", &labels).record(elapsed.as_secs_f64());
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The method as a label: a bounded set, whatever clients invent.
fn known_method(method: &axum::http::Method) -> &'static str {
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| method.as_str() == *known)
        .unwrap_or("other")
}

fn reason(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown")
}
