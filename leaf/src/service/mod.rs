//! gRPC services of a leaf: convert wire messages and call the traits `Ingest` and `Scan`. No other module sees a wire
//! type.

mod deferred_answers;
mod ingest;
mod scan;

use std::{sync::Arc, time::Duration};

use proto::{
    Catalog,
    limits::{MESSAGE_BYTES_MAX, OPENED_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX},
    service::wait_for_catalog,
    wire::leaf::{ingest_server::IngestServer, scan_server::ScanServer},
};
use tokio::sync::watch;
use tonic::{Request, Status, service::RoutesBuilder};

use crate::Leaf;

/// Upper limit for the wait time that a call may request.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Adds both services of a leaf to a node's routes.
pub fn add(routes: &mut RoutesBuilder, leaf: &Arc<Leaf>, catalog: &watch::Receiver<Arc<Catalog>>) {
    let ingest = ingest::IngestService {
        leaf: leaf.clone(),
        catalog: catalog.clone(),
    };
    routes.add_service(
        IngestServer::new(ingest)
            .max_decoding_message_size(WRITE_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX),
    );
    let scan = scan::ScanService::new(leaf.clone(), catalog.clone());
    routes.add_service(
        ScanServer::new(scan)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(OPENED_BYTES_MAX),
    );
}

/// The message of a call, once this node's catalog has caught up with the caller's.
async fn caught_up<T>(request: Request<T>, catalog: &watch::Receiver<Arc<Catalog>>) -> Result<T, Status> {
    wait_for_catalog(&request, catalog).await?;
    Ok(request.into_inner())
}

fn deadline(wait_ms: u64) -> std::time::Instant {
    std::time::Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX)
}
