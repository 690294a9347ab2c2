//! The gRPC service `rachis.leaf.v1.Ingest`.

use std::sync::Arc;

use proto::{
    Catalog, CollectionUid, Position, SourceName,
    ingest::{Ingest, PushAnswer, ShardId},
    record::RequestKey,
    wire::leaf::{self as wire, Json, ingest_server},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{caught_up, deadline};
use crate::Leaf;

/// Serves `rachis.leaf.v1.Ingest`.
pub(super) struct IngestService {
    /// The leaf that handles the calls.
    pub leaf: Arc<Leaf>,
    /// This node's catalog; calls wait until it has caught up with the caller's.
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

impl IngestService {
    /// The value of a call, see [`caught_up`].
    async fn value<T: DeserializeOwned>(&self, request: Request<Json>) -> Result<T, Status> {
        Ok(caught_up(request, &self.catalog).await?.decode()?)
    }

    /// The result of a record of one of the collection's own sources.
    async fn pushed_to(&self, source: SourceName, request: Request<Json>) -> Result<Response<Json>, Status> {
        let (shard, partition, offset, key, wait_ms): (ShardId, i32, i64, RequestKey, u64) =
            self.value(request).await?;
        let position = Position {
            source,
            partition,
            offset,
        };
        let not_asked = !self.leaf.is_asked(shard);
        if not_asked {
            self.leaf.wait_for_earlier_grants(deadline(wait_ms)).await?;
        }
        let result = match not_asked {
            true => None,
            false => Some(self.leaf.pushed(shard, &position, &key, deadline(wait_ms)).await?),
        };
        // Named after this replica has the push: one that may be asked from now on will have it, too.
        let also = self.leaf.must_confirm(shard);
        Json::response(&PushAnswer {
            result,
            not_asked,
            also,
        })
    }
}

#[tonic::async_trait]
impl ingest_server::Ingest for IngestService {
    async fn write(&self, request: Request<wire::Batch>) -> Result<Response<Json>, Status> {
        let batch = caught_up(request, &self.catalog).await?;
        Json::response(&self.leaf.write(batch.try_into()?).await?)
    }

    async fn stored(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        let (shard, source, partition): (ShardId, SourceName, i32) = self.value(request).await?;
        Json::response(&self.leaf.stored(shard, &source, partition).await?)
    }

    async fn ingest_times(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        let (shard, source, partition, after, through): (ShardId, SourceName, i32, i64, i64) =
            self.value(request).await?;
        let times = self
            .leaf
            .ingest_times(shard, &source, partition, after, through)
            .await?;
        Json::response(&times.into_iter().collect::<Vec<(i64, i64)>>())
    }

    async fn digests(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.digests(self.value(request).await?).await?)
    }

    async fn pushed(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        self.pushed_to(SourceName::push(), request).await
    }

    async fn changed(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        self.pushed_to(SourceName::changes(), request).await
    }

    async fn partitions(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.partitions(self.value(request).await?).await?)
    }

    async fn note_loss(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        let (shard, loss) = self.value(request).await?;
        Json::response(&self.leaf.note_loss(shard, loss).await?)
    }

    async fn losses(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.losses(self.value(request).await?).await?)
    }

    async fn clear_dead_letters(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        let (collection, source): (CollectionUid, Option<SourceName>) = self.value(request).await?;
        Json::response(&self.leaf.clear_dead_letters(collection, source.as_ref()).await?)
    }

    async fn grant(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.grant(self.value(request).await?).await?)
    }

    async fn snapshot_shard(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.snapshot_shard(&self.value(request).await?).await?)
    }

    async fn offer_copy(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.offer_copy(self.value(request).await?).await?)
    }

    async fn read_copy(&self, request: Request<Json>) -> Result<Response<wire::CopyPart>, Status> {
        let (copy, file, from): (Uuid, String, u64) = self.value(request).await?;
        let bytes = self.leaf.read_copy(copy, file, from).await?;
        Ok(Response::new(wire::CopyPart { bytes }))
    }

    async fn end_copy(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.end_copy(self.value(request).await?).await?)
    }

    async fn copies(&self, _request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.leaf.copies().await?)
    }
}
