//! The service `rachis.tailer.v1.Sources`: status and inspection of sources.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use proto::{
    catalog::SourceSettings,
    tailer::SourceAdmin,
    wire::{
        ingest::require,
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

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<Json>, Status> {
        Json::response(&self.tailer.status().await?)
    }

    async fn ends(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        Json::response(&self.tailer.ends(&request.into_inner().decode()?).await?)
    }

    async fn preview(&self, request: Request<wire::PreviewRequest>) -> Result<Response<Self::PreviewStream>, Status> {
        let request = request.into_inner();
        let settings: SourceSettings = require(request.settings, "the settings")?.decode()?;
        let records = self.tailer.preview(&settings, request.records as usize).await?;
        let message = |(partition, record): (i32, proto::record::Record)| {
            Ok(wire::PreviewRecord {
                partition,
                record: Some(record.into()),
            })
        };
        Ok(Response::new(stream::iter(records.into_iter().map(message)).boxed()))
    }
}
