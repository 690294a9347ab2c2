//! `rachis.leaf.v1.Ingest`.

use std::sync::Arc;

use proto::{
    Catalog,
    ingest::Ingest,
    service::caught_up,
    wire::{
        ingest::{source, there},
        leaf::{self as wire, ingest_server},
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{collection, deadline, shard};
use crate::Leaf;

/// The service.
pub struct IngestService {
    /// Who does it.
    pub leaf: Arc<Leaf>,
    /// What this node has heard of.
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

#[tonic::async_trait]
impl ingest_server::Ingest for IngestService {
    async fn write(&self, request: Request<wire::Batch>) -> Result<Response<wire::Verdict>, Status> {
        caught_up(&request, &self.catalog).await?;
        let verdict = self.leaf.write(request.into_inner().try_into()?).await?;
        Ok(Response::new(verdict.into()))
    }

    async fn stored(&self, request: Request<wire::PartitionRequest>) -> Result<Response<wire::StoredAnswer>, Status> {
        caught_up(&request, &self.catalog).await?;
        let asked = request.into_inner();
        let stored = self
            .leaf
            .stored(shard(asked.shard)?, &source(&asked.source)?, asked.partition)
            .await?;
        Ok(Response::new(stored.into()))
    }

    async fn pushed(&self, request: Request<wire::PushedRequest>) -> Result<Response<wire::PushAnswer>, Status> {
        caught_up(&request, &self.catalog).await?;
        let asked = request.into_inner();
        let key = there(asked.request, "the request")?.try_into()?;
        let pushed = self
            .leaf
            .pushed(
                shard(asked.shard)?,
                asked.partition,
                asked.offset,
                &key,
                deadline(asked.wait_ms),
            )
            .await?;
        Ok(Response::new(pushed.into()))
    }

    async fn partitions(
        &self,
        request: Request<wire::PartitionsRequest>,
    ) -> Result<Response<wire::PartitionsAnswer>, Status> {
        caught_up(&request, &self.catalog).await?;
        let partitions = self
            .leaf
            .partitions(collection(&request.into_inner().collection)?)
            .await?;
        Ok(Response::new(wire::PartitionsAnswer {
            partitions: partitions.into_iter().map(Into::into).collect(),
        }))
    }

    async fn note_loss(&self, request: Request<wire::LossNote>) -> Result<Response<wire::LossNoted>, Status> {
        caught_up(&request, &self.catalog).await?;
        let note = request.into_inner();
        self.leaf
            .note_loss(shard(note.shard)?, there(note.loss, "the loss")?.try_into()?)
            .await?;
        Ok(Response::new(wire::LossNoted {}))
    }

    async fn losses(&self, request: Request<wire::PartitionsRequest>) -> Result<Response<wire::LossesAnswer>, Status> {
        caught_up(&request, &self.catalog).await?;
        let losses = self.leaf.losses(collection(&request.into_inner().collection)?).await?;
        Ok(Response::new(wire::LossesAnswer {
            losses: losses.into_iter().map(Into::into).collect(),
        }))
    }

    async fn clear_dead_letters(
        &self,
        request: Request<wire::ClearRequest>,
    ) -> Result<Response<wire::Cleared>, Status> {
        caught_up(&request, &self.catalog).await?;
        let asked = request.into_inner();
        let of = asked.source.as_deref().map(source).transpose()?;
        let cleared = self
            .leaf
            .clear_dead_letters(collection(&asked.collection)?, of.as_ref())
            .await?;
        Ok(Response::new(wire::Cleared {
            letters: cleared.letters,
            complete: cleared.complete,
        }))
    }
}
