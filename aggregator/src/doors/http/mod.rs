//! The HTTP interface: one file per resource; this file holds the routes.
//!
//! No query semantics here: a handler parses a request strictly (an unknown key is an error that names the key), calls
//! the engine and writes its result. Every error is a problem document (RFC 9457), including the server's own errors.

mod accept;
mod answer;
mod body;
mod collections;
mod dead_letters;
mod definitions;
mod deletes;
mod delimited;
mod documents;
pub(super) mod error;
mod items;
mod nodes;
mod observe;
mod openapi;
mod queries;
mod rebalance;
mod saved;
mod search;
mod shape;
mod skips;
mod snapshots;
mod sniff;
mod sources;
mod spread;
mod sql;
pub(super) mod state;
pub(super) mod status;

use axum::{
    Router,
    http::{Extensions, HeaderMap, StatusCode, Version},
};
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, Predicate, predicate::SizeAbove},
};

use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

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
    let (router, interface) = described_routes().split_for_parts();
    openapi::add(router, interface)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::middleware::from_fn(observe::observe))
        .with_state(app)
}

/// The routes with their description, which is made from the annotations of the handlers.
fn described_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Interface::openapi())
        .routes(routes!(collections::list))
        .routes(routes!(collections::get, collections::put, collections::delete))
        .routes(routes!(skips::skip_pushes))
        .routes(routes!(dead_letters::clear))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(collections::fields))
        .routes(routes!(documents::get, deletes::by_id))
        .routes(routes!(deletes::by_condition))
        .routes(routes!(search::by_query, search::by_body))
        .routes(routes!(sql::run))
        .routes(routes!(definitions::list))
        .routes(routes!(definitions::export))
        .routes(routes!(definitions::apply))
        .routes(routes!(definitions::try_definition))
        .routes(routes!(saved::by_query, saved::by_body))
        .routes(routes!(queries::list))
        .routes(routes!(queries::cancel))
        .routes(routes!(nodes::remove))
        .routes(routes!(rebalance::drain, rebalance::undrain))
        .routes(routes!(rebalance::rebalance))
        .routes(routes!(rebalance::hold, rebalance::release))
        .routes(routes!(snapshots::list, snapshots::take))
        .routes(routes!(snapshots::get, snapshots::remove))
        .routes(routes!(snapshots::check))
        .routes(routes!(snapshots::restore))
        .routes(routes!(sources::list))
        .routes(routes!(sources::get, sources::put, sources::delete))
        .routes(routes!(sources::preview))
        .routes(routes!(sources::suspend))
        .routes(routes!(sources::resume))
        .routes(routes!(skips::skip_source))
        .routes(routes!(spread::spread, spread::withdraw))
        .routes(routes!(status::healthz))
        .routes(routes!(status::readyz))
        .routes(routes!(status::metrics))
        .layer(compressed())
        .routes(routes!(documents::push))
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
        let router = Router::new()
            .route("/", axum::routing::get(never_ends))
            .layer(compressed());
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
