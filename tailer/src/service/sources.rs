//! The service `rachis.tailer.v1.Sources`: status and inspection of sources.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use proto::{
    catalog::SourceSettings,
    tailer::SourceAdmin,
    wire::{
        leaf::Json,
        tailer::{self as wire, sources_server},
    },
};
use tonic::{Request, Response, Status};

use crate::Tailer;

/// Implements the service.
pub(super) struct SourcesService {
    /// The tailer that reads the sources.
    pub tailer: Arc<Tailer>,
}

#[tonic::async_trait]
impl sources_server::Sources for SourcesService {
    type PreviewStream = Pin<Box<dyn Stream<Item = Result<wire::PreviewRecord, Status>> + Send>>;

    async fn status(&self, _: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.tailer.status().await?)
    }

    async fn ends(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.tailer.ends(&request.into_inner().decode()?).await?)
    }

    async fn preview(&self, request: Request<Json>) -> Result<Response<Self::PreviewStream>, Status> {
        let (settings, records): (SourceSettings, usize) = request.into_inner().decode()?;
        let records = self.tailer.preview(&settings, records).await?;
        let message = |(partition, record): (i32, proto::record::Record)| {
            Ok(wire::PreviewRecord {
                partition,
                record: Some(record.into()),
            })
        };
        Ok(Response::new(stream::iter(records.into_iter().map(message)).boxed()))
    }
}
