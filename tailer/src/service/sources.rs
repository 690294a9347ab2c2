//! The service `rachis.tailer.v1.Sources`: status and inspection of sources.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use proto::{
    catalog::SourceSettings,
    tailer::SourceAdmin,
    wire::{
        problem::malformed,
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

fn settings(json: &[u8]) -> Result<SourceSettings, proto::Problem> {
    serde_json::from_slice(json).map_err(|e| malformed(&e.to_string()))
}

#[tonic::async_trait]
impl sources_server::Sources for SourcesService {
    type PreviewStream = Pin<Box<dyn Stream<Item = Result<wire::PreviewRecord, Status>> + Send>>;

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusAnswer>, Status> {
        let rows = self.tailer.status().await?;
        Ok(Response::new(wire::StatusAnswer {
            rows: rows.into_iter().map(Into::into).collect(),
        }))
    }

    async fn ends(&self, request: Request<wire::TopicRequest>) -> Result<Response<wire::EndsAnswer>, Status> {
        let ends = self.tailer.ends(&settings(&request.into_inner().settings)?).await?;
        Ok(Response::new(wire::EndsAnswer { ends }))
    }

    async fn preview(&self, request: Request<wire::PreviewRequest>) -> Result<Response<Self::PreviewStream>, Status> {
        let request = request.into_inner();
        let records = self
            .tailer
            .preview(&settings(&request.settings)?, request.records as usize)
            .await?;
        let message = |(partition, record): (i32, proto::record::Record)| {
            Ok(wire::PreviewRecord {
                partition,
                record: Some(record.into()),
            })
        };
        Ok(Response::new(stream::iter(records.into_iter().map(message)).boxed()))
    }
}
