//! The gRPC service `rachis.leaf.v1.Ingest`.

use std::sync::Arc;

use proto::{
    Catalog,
    ingest::Ingest,
    wire::{
        ingest::{require, shard, source},
        leaf::{self as wire, Json, ingest_server},
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{caught_up, collection, deadline};
use crate::Leaf;

/// Serves `rachis.leaf.v1.Ingest`.
pub(super) struct IngestService {
    /// The leaf that handles the calls.
    pub leaf: Arc<Leaf>,
    /// This node's catalog; calls wait until it has caught up with the caller's.
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

#[tonic::async_trait]
impl ingest_server::Ingest for IngestService {
    async fn write(&self, request: Request<wire::Batch>) -> Result<Response<Json>, Status> {
        let batch = caught_up(request, &self.catalog).await?;
        Json::response(&self.leaf.write(batch.try_into()?).await?)
    }

    async fn stored(&self, request: Request<wire::PartitionRequest>) -> Result<Response<Json>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let (shard, source) = (shard(request.shard)?, source(&request.source)?);
        Json::response(&self.leaf.stored(shard, &source, request.partition).await?)
    }

    async fn pushed(&self, request: Request<wire::PushedRequest>) -> Result<Response<Json>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let key = require(request.request, "the request")?.try_into()?;
        let pushed = self
            .leaf
            .pushed(
                shard(request.shard)?,
                request.partition,
                request.offset,
                &key,
                deadline(request.wait_ms),
            )
            .await?;
        Json::response(&pushed)
    }

    async fn partitions(&self, request: Request<wire::PartitionsRequest>) -> Result<Response<Json>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        Json::response(&self.leaf.partitions(collection(&request.collection)?).await?)
    }

    async fn note_loss(&self, request: Request<wire::LossNote>) -> Result<Response<wire::LossNoted>, Status> {
        let note = caught_up(request, &self.catalog).await?;
        self.leaf
            .note_loss(shard(note.shard)?, require(note.loss, "the loss")?.decode()?)
            .await?;
        Ok(Response::new(wire::LossNoted {}))
    }

    async fn losses(&self, request: Request<wire::PartitionsRequest>) -> Result<Response<Json>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        Json::response(&self.leaf.losses(collection(&request.collection)?).await?)
    }

    async fn clear_dead_letters(&self, request: Request<wire::ClearRequest>) -> Result<Response<Json>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let of_source = request.source.as_deref().map(source).transpose()?;
        let cleared = self
            .leaf
            .clear_dead_letters(collection(&request.collection)?, of_source.as_ref())
            .await?;
        Json::response(&cleared)
    }
}
