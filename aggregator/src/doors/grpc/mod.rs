//! The gRPC services for clients, `rachis.v1.{Query, Ingest, Catalog}`: the same engine, checks and errors as over
//! HTTP.

mod catalog;
mod ingest;
mod query;

use std::sync::Arc;

use proto::{
    limits::WRITE_MESSAGE_BYTES_MAX,
    wire::v1::{catalog_server::CatalogServer, ingest_server::IngestServer, query_server::QueryServer},
};
use tonic::service::RoutesBuilder;

use super::push::PushPipeline;
use crate::{definition_file::FILE_BYTES_MAX, query::Engine};

/// Adds all gRPC services of an aggregator to a node's routes.
pub(super) fn add(routes: &mut RoutesBuilder, engine: &Arc<Engine>, pushes: &Arc<PushPipeline>) {
    routes.add_service(
        QueryServer::new(query::QueryService { engine: engine.clone() })
            .max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX),
    );
    routes.add_service(
        IngestServer::new(ingest::IngestService {
            engine: engine.clone(),
            pushes: pushes.clone(),
        })
        .max_decoding_message_size(WRITE_MESSAGE_BYTES_MAX),
    );
    routes.add_service(
        CatalogServer::new(catalog::CatalogService { engine: engine.clone() })
            .max_decoding_message_size(FILE_BYTES_MAX)
            .max_encoding_message_size(FILE_BYTES_MAX),
    );
}

/// A text field, or None if it is empty: proto3 does not distinguish an empty text from an unset one.
fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
