//! `rachis.v1.Ingest`: single pushes and streams of pushes.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use proto::{
    Code, Problem,
    ingest::ItemError,
    limits::{PUSH_BYTES_MAX, PUSH_ITEMS_MAX},
    wire::v1::{self as wire, ingest_server},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    doors::{
        byte_budget::BUDGET_WAIT_MAX,
        names::collection_name,
        push::{PushPipeline, request_key},
    },
    query::Engine,
};

/// Limit on the pushes of one stream that run at once.
const PUSHES_AT_ONCE_MAX: usize = 8;

/// The ingest service of an aggregator. A cheap handle.
#[derive(Clone)]
pub(super) struct IngestService {
    pub engine: Arc<Engine>,
    pub pushes: Arc<PushPipeline>,
}

/// Checks the number of documents and their total size.
fn check_size(documents: usize, bytes: usize) -> Result<(), Problem> {
    if documents == 0 {
        return Err(
            Problem::new(Code::BadRequest, "the push has no documents").hint("put at least one into `documents`")
        );
    }
    let detail = if bytes > PUSH_BYTES_MAX {
        format!("the push has {bytes} bytes; the limit is {PUSH_BYTES_MAX}")
    } else if documents > PUSH_ITEMS_MAX {
        format!("the push has {documents} documents; the limit is {PUSH_ITEMS_MAX}")
    } else {
        return Ok(());
    };
    Err(Problem::new(Code::TooLarge, detail).hint("split it into several pushes; PushMany takes a stream of them"))
}

impl IngestService {
    async fn push_one(&self, request: wire::PushRequest) -> Result<wire::PushAnswer, Problem> {
        let name = collection_name(&request.collection)?;
        let bytes: usize = request.documents.iter().map(|document| document.len()).sum();
        check_size(request.documents.len(), bytes)?;
        let deadline = Instant::now() + BUDGET_WAIT_MAX;
        let _reserved = self.pushes.budget.reserve(bytes, deadline).await?;
        let key = match request.idempotency_key.as_str() {
            "" => None,
            // The key covers one body: the documents, each on a line.
            key => Some(request_key(key, &request.documents.join(&b'\n'))?),
        };
        let outcome = self
            .pushes
            .push(&self.engine, &name, request.documents, key, deadline)
            .await?;
        let error = |e: ItemError| wire::PushError {
            index: e.index,
            code: e.code,
            detail: e.detail,
        };
        Ok(wire::PushAnswer {
            accepted: outcome.accepted,
            rejected: outcome.rejected,
            errors: outcome.errors.into_iter().map(error).collect(),
            position: outcome.position.to_string(),
        })
    }
}

#[tonic::async_trait]
impl ingest_server::Ingest for IngestService {
    type PushManyStream = Pin<Box<dyn Stream<Item = Result<wire::PushAnswer, Status>> + Send>>;

    async fn push(&self, request: Request<wire::PushRequest>) -> Result<Response<wire::PushAnswer>, Status> {
        Ok(Response::new(self.push_one(request.into_inner()).await?))
    }

    async fn push_many(
        &self,
        request: Request<Streaming<wire::PushRequest>>,
    ) -> Result<Response<Self::PushManyStream>, Status> {
        let service = self.clone();
        let answers = request.into_inner().map(move |request| {
            let service = service.clone();
            async move { Ok(service.push_one(request?).await?) }
        });
        Ok(Response::new(answers.buffered(PUSHES_AT_ONCE_MAX).boxed()))
    }
}
