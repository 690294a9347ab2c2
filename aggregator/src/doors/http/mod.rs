//! The HTTP interface: one file per resource; this file holds the routes.
//!
//! No query semantics here: a handler parses a request strictly (an unknown key is an error that names the key), calls
//! the engine and writes its result. Every error is a problem document (RFC 9457), including the server's own errors.

mod accept;
mod answer;
mod body;
mod collections;
mod definitions;
mod documents;
pub(super) mod error;
mod items;
mod observe;
mod queries;
mod saved;
mod search;
mod skips;
mod sniff;
mod sources;
mod sql;
pub(super) mod state;
pub(super) mod status;

use axum::{
    Router,
    http::{Extensions, HeaderMap, StatusCode, Version},
    routing::{delete, get, post},
};
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, Predicate, predicate::SizeAbove},
};

use self::state::AppState;

/// Smaller responses are not compressed.
const COMPRESSED_BYTES_MIN: u16 = 1_024;
/// The level for both gzip and zstd.
const COMPRESSION_LEVEL: i32 = 1;

/// Compresses successful responses for clients that accept it, streamed ones frame by frame. Problems stay
/// uncompressed, and so do responses to pushes, whose route is outside of this layer.
fn compressed() -> CompressionLayer<impl Predicate> {
    let is_success = |status: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| status.is_success();
    let layer = CompressionLayer::new()
        .gzip(true)
        .zstd(true)
        .quality(CompressionLevel::Precise(COMPRESSION_LEVEL));
    layer.compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN).and(is_success))
}

/// The routes of an aggregator.
pub(super) fn routes(app: AppState) -> Router {
    compressed_routes()
        .layer(compressed())
        .route("/v1/collections/{collection}/documents", post(documents::push))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::middleware::from_fn(observe::observe))
        .with_state(app)
}

fn compressed_routes() -> Router<AppState> {
    Router::new()
        .route("/v1/collections", get(collections::list))
        .route(
            "/v1/collections/{collection}",
            get(collections::get).put(collections::put).delete(collections::delete),
        )
        .route("/v1/collections/{collection}/skip", post(skips::skip_pushes))
        .route(
            "/v1/collections/{collection}/dead-letters",
            delete(collections::clear_dead_letters),
        )
        .route("/v1/collections/{collection}/fields", get(collections::fields))
        .route("/v1/collections/{collection}/documents/{*id}", get(documents::get))
        .route(
            "/v1/collections/{collection}/search",
            get(search::by_query).post(search::by_body),
        )
        .route("/v1/sql", post(sql::run))
        .route("/v1/definitions", get(definitions::list))
        .route("/v1/definitions/export", get(definitions::export))
        .route("/v1/definitions/apply", post(definitions::apply))
        .route("/v1/definitions/try", post(definitions::try_definition))
        .route("/v1/saved/{query}", get(saved::by_query).post(saved::by_body))
        .route("/v1/queries", get(queries::list))
        .route("/v1/queries/{query}", delete(queries::cancel))
        .route("/v1/sources", get(sources::list))
        .route(
            "/v1/sources/{source}",
            get(sources::get).put(sources::put).delete(sources::delete),
        )
        .route("/v1/sources/{source}/preview", post(sources::preview))
        .route("/v1/sources/{source}/suspend", post(sources::suspend))
        .route("/v1/sources/{source}/resume", post(sources::resume))
        .route("/v1/sources/{source}/skip", post(skips::skip_source))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use axum::{extract::Request, http::header};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn compression_does_not_delay_frames() {
        use axum::body::Body;
        use futures::{StreamExt as _, stream};
        use http_body_util::BodyExt as _;

        let first = "row ".repeat(1_000);
        let rows = first.clone();
        let never_ends =
            move || async move { Body::from_stream(stream::iter([Ok::<_, io::Error>(rows)]).chain(stream::pending())) };
        let router = Router::new().route("/", get(never_ends)).layer(compressed());
        let request = Request::builder()
            .uri("/")
            .header(header::ACCEPT_ENCODING, "gzip")
            .body(Body::empty())
            .expect("a request");
        let mut body = router.oneshot(request).await.expect("a response").into_body();
        let (mut compressed, mut received) = (Vec::new(), Vec::new());
        while received.len() < first.len() {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame())
                .await
                .expect("no timeout")
                .expect("a frame")
                .expect("no error");
            compressed.extend_from_slice(&frame.into_data().expect("data"));
            received.clear();
            // Decoding fails at the missing end of the stream; what was decoded until then counts.
            let _ = io::Read::read_to_end(&mut flate2::read::GzDecoder::new(compressed.as_slice()), &mut received);
        }
        assert_eq!(received, first.as_bytes());
    }
}
