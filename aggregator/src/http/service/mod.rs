//! The gRPC door for clients: `rachis.v1.{Query, Ingest, Catalog}`. The same engine behind it as behind HTTP, the same
//! checks, the same problems.

mod catalog;
mod ingest;
mod query;

use std::sync::Arc;

use proto::{
    CollectionName, Problem,
    limits::WRITE_MESSAGE_BYTES_MAX,
    wire::v1::{catalog_server::CatalogServer, ingest_server::IngestServer, query_server::QueryServer},
};
use tonic::service::RoutesBuilder;

use super::{push::Intake, refusal};
use crate::query::Engine;

/// All services of an aggregator, put into a node's routes.
pub(super) fn add(routes: &mut RoutesBuilder, engine: &Arc<Engine>, intake: &Arc<Intake>) {
    routes.add_service(
        QueryServer::new(query::QueryService { engine: engine.clone() })
            .max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX),
    );
    routes.add_service(
        IngestServer::new(ingest::IngestService {
            engine: engine.clone(),
            intake: intake.clone(),
        })
        .max_decoding_message_size(WRITE_MESSAGE_BYTES_MAX),
    );
    routes.add_service(CatalogServer::new(catalog::CatalogService { engine: engine.clone() }));
}

fn collection(name: &str) -> Result<CollectionName, Problem> {
    refusal::collection_name(name)
}

/// What proto3 cannot tell from nothing said.
fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
