//! `rachis.node.v1.Node`: streams the node's catalog to peers, and describes the node and its queries.

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

/// The node service.
pub struct NodeService {
    /// The name of the node.
    pub name: NodeName,
    /// The role of the node.
    pub role: Role,
    /// When the node started, milliseconds since 1970.
    pub started_ms: i64,
    /// The state of the change log, as this node has read it.
    pub state: watch::Receiver<Arc<State>>,
    /// The change log.
    pub changes: Arc<dyn Changes>,
    /// The queries of this process, if its role runs queries.
    pub queries: Option<Arc<dyn Queries>>,
    /// Ends the watch streams, which otherwise never end.
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
            let current = state.borrow_and_update().clone();
            Some((pieces(&current), state))
        });
        let stopped = self.stop.clone().cancelled_owned();
        Ok(Response::new(states.flat_map(stream::iter).take_until(stopped).boxed()))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        super::wait_for_catalog(&request, &self.changes.catalog()).await?;
        let LogHealth {
            offset,
            hash,
            cluster,
            fault,
        } = self.changes.health();
        Ok(Response::new(Description {
            name: self.name.to_string(),
            role: self.role.as_str().to_owned(),
            version: VERSION.to_owned(),
            started_ms: self.started_ms,
            offset,
            hash,
            trouble: fault,
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
        let queries = running.into_iter().map(|query| RunningQuery {
            id: query_bytes(query.id),
            text: query.text,
            started_ms: query.started_ms,
            elapsed_ms: query.elapsed_ms,
        });
        Ok(Response::new(QueriesAnswer {
            queries: queries.collect(),
        }))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelAnswer>, Status> {
        let id = query_id(&request.into_inner().query)?;
        Ok(Response::new(CancelAnswer {
            cancelled: self.queries.as_ref().is_some_and(|queries| queries.cancel(id)),
        }))
    }
}

/// Splits a state into messages that are small enough to send.
fn pieces(state: &State) -> Vec<Result<Piece, Status>> {
    let json = match serde_json::to_vec(state) {
        Ok(json) => Bytes::from(json),
        Err(error) => return vec![Err(Problem::new(Code::Internal, error.to_string()).into())],
    };
    let starts = (0..json.len()).step_by(PART_BYTES_MAX);
    starts
        .map(|from| {
            let to = (from + PART_BYTES_MAX).min(json.len());
            Ok(Piece {
                bytes: json.slice(from..to),
                last: to == json.len(),
            })
        })
        .collect()
}
