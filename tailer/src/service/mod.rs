//! The gRPC services of a tailer: proposals to the change log, pushes to their topics, and queries about sources.

mod pushes;
mod sources;

use std::sync::Arc;

use proto::{
    Problem,
    limits::{MESSAGE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX},
    service::wait_for_catalog,
    tailer::Changes as _,
    wire::{
        leaf::Json,
        tailer::{
            changes_server::{self, ChangesServer},
            pushes_server::PushesServer,
            sources_server::SourcesServer,
        },
    },
};
use tonic::{Request, Response, Status, service::RoutesBuilder};

pub use self::pushes::PushLog;
use crate::{Tailer, changes::topic::TopicChanges};

/// Adds all services of a tailer to the routes of a node.
pub fn add(routes: &mut RoutesBuilder, changes: TopicChanges, pushes: Arc<PushLog>, tailer: Arc<Tailer>) {
    routes.add_service(ChangesServer::new(ChangesService { changes }).max_decoding_message_size(MESSAGE_BYTES_MAX));
    routes.add_service(PushesServer::from_arc(pushes).max_decoding_message_size(WRITE_MESSAGE_BYTES_MAX));
    routes.add_service(
        SourcesServer::new(sources::SourcesService { tailer }).max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX),
    );
}

/// The service `rachis.tailer.v1.Changes`.
struct ChangesService {
    changes: TopicChanges,
}

#[tonic::async_trait]
impl changes_server::Changes for ChangesService {
    async fn propose(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        wait_for_catalog(&request, &self.changes.catalog()).await?;
        let ((uid, expected, change), changes) = (request.into_inner().decode()?, self.changes.clone());
        // A proposal that has started is completed even if its client disconnects.
        let offset = tokio::spawn(async move { changes.submit(uid, change, expected).await });
        let offset = offset
            .await
            .map_err(|e| Problem::new(proto::Code::UnknownOutcome, e.to_string()))??;
        Json::response(&offset)
    }
}
