//! `rachis.node.v1.Node`: gives its copy of the catalog to peers, and says who it is.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    catalog::State,
    cluster::{NodeName, Role},
    limits::PART_BYTES_MAX,
    node::{Queries, VERSION},
    problem::{Code, Problem},
    tailer::{Changes, LogHealth},
    wire::{
        ingest::{query_bytes, query_id},
        node::{
            CancelAnswer, CancelRequest, DescribeRequest, Description, Piece, QueriesAnswer, QueriesRequest,
            RunningQuery, WatchRequest, node_server,
        },
    },
};

/// The service of a node.
pub struct NodeService {
    /// Who it is.
    pub name: NodeName,
    /// What it does.
    pub role: Role,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
    /// What it knows of the change log.
    pub state: watch::Receiver<Arc<State>>,
    /// How the log is.
    pub changes: Arc<dyn Changes>,
    /// What runs here, where queries run.
    pub queries: Option<Arc<dyn Queries>>,
    /// Ends what would go on for ever.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl node_server::Node for NodeService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Piece, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut state = self.state.clone();
        state.mark_changed();
        let states = stream::unfold(state, |mut state| async move {
            state.changed().await.ok()?;
            let now = state.borrow_and_update().clone();
            Some((pieces(&now), state))
        });
        let until = self.stop.clone().cancelled_owned();
        Ok(Response::new(states.flat_map(stream::iter).take_until(until).boxed()))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        super::caught_up(&request, &self.changes.catalog()).await?;
        let LogHealth {
            offset,
            hash,
            cluster,
            trouble,
        } = self.changes.health();
        Ok(Response::new(Description {
            name: self.name.to_string(),
            role: self.role.word().to_owned(),
            version: VERSION.to_owned(),
            started_ms: self.started_ms,
            offset,
            hash,
            trouble,
            catalog_version: self.changes.catalog().borrow().version,
            cluster: cluster.map(|cluster| cluster.simple().to_string()).unwrap_or_default(),
        }))
    }

    async fn queries(&self, _: Request<QueriesRequest>) -> Result<Response<QueriesAnswer>, Status> {
        let running = self
            .queries
            .as_ref()
            .map(|queries| queries.running())
            .unwrap_or_default();
        let told = running.into_iter().map(|query| RunningQuery {
            id: query_bytes(query.id),
            text: query.text,
            started_ms: query.started_ms,
            elapsed_ms: query.elapsed_ms,
        });
        Ok(Response::new(QueriesAnswer {
            queries: told.collect(),
        }))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelAnswer>, Status> {
        let id = query_id(&request.into_inner().query)?;
        Ok(Response::new(CancelAnswer {
            cancelled: self.queries.as_ref().is_some_and(|queries| queries.cancel(id)),
        }))
    }
}

fn pieces(state: &State) -> Vec<Result<Piece, Status>> {
    let json = match serde_json::to_vec(state) {
        Ok(json) => Bytes::from(json),
        Err(error) => return vec![Err(Problem::new(Code::Internal, error.to_string()).into())],
    };
    let ends = (0..json.len()).step_by(PART_BYTES_MAX);
    ends.map(|from| {
        let to = (from + PART_BYTES_MAX).min(json.len());
        Ok(Piece {
            bytes: json.slice(from..to),
            last: to == json.len(),
        })
    })
    .collect()
}
