//! `rachis.v1.Ingest`.

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

use super::{
    super::{
        documents::ROOM_WAIT_MAX,
        push::{Intake, request_key},
    },
    collection,
};
use crate::query::Engine;

/// Pushes of one stream that are under way at once.
const PUSHES_AT_ONCE_MAX: usize = 8;

/// The service. A cheap handle.
#[derive(Clone)]
pub struct IngestService {
    pub engine: Arc<Engine>,
    pub intake: Arc<Intake>,
}

impl IngestService {
    async fn take(&self, asked: wire::PushRequest) -> Result<wire::PushAnswer, Problem> {
        let name = collection(&asked.collection)?;
        let bytes: usize = asked.documents.iter().map(|document| document.len()).sum();
        match asked.documents.len() {
            0 => {
                return Err(Problem::new(Code::BadRequest, "the push holds no document")
                    .hint("put at least one into `documents`"));
            }
            _ if bytes > PUSH_BYTES_MAX => {
                let detail = format!("{bytes} bytes are over the limit of {PUSH_BYTES_MAX} for one push");
                return Err(Problem::new(Code::TooLarge, detail)
                    .hint("send them as several pushes; PushMany takes a stream of them"));
            }
            count if count > PUSH_ITEMS_MAX => {
                let detail = format!("{count} documents are over the limit of {PUSH_ITEMS_MAX} for one push");
                return Err(Problem::new(Code::TooLarge, detail)
                    .hint("send them as several pushes; PushMany takes a stream of them"));
            }
            _ => {}
        }
        let deadline = Instant::now() + ROOM_WAIT_MAX;
        let _held = self.intake.room.hold(bytes, deadline).await?;
        let key = match asked.idempotency_key.as_str() {
            "" => None,
            // The documents with what holds them apart, as one body.
            key => Some(request_key(key, &asked.documents.join(&b'\n'))?),
        };
        let outcome = self
            .intake
            .take(&self.engine, &name, asked.documents, key, deadline)
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
        Ok(Response::new(self.take(request.into_inner()).await?))
    }

    async fn push_many(
        &self,
        request: Request<Streaming<wire::PushRequest>>,
    ) -> Result<Response<Self::PushManyStream>, Status> {
        let service = self.clone();
        let answers = request.into_inner().map(move |asked| {
            let service = service.clone();
            async move { Ok(service.take(asked?).await?) }
        });
        Ok(Response::new(answers.buffered(PUSHES_AT_ONCE_MAX).boxed()))
    }
}
