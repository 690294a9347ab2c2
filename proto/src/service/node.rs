//! `rachis.node.v1.Node`: streams the node's catalog to peers, and describes the node and its queries.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    catalog::CATALOG_RULES_LEVEL,
    catalog::State,
    cluster::NodeName,
    node::{NodeReport, Queries, VERSION, Watched},
    tailer::Changes,
    wire::{leaf::Json, node::node_server},
};

/// The node service.
pub struct NodeService {
    /// The id of the node's data folder.
    pub instance: Uuid,
    /// When the node started, milliseconds since 1970.
    pub started_ms: i64,
    /// The state of the change log, as this node has read it.
    pub state: watch::Receiver<Arc<State>>,
    /// The change log.
    pub changes: Arc<dyn Changes>,
    /// The queries of this process, if its role runs queries.
    pub queries: Option<Arc<dyn Queries>>,
    /// For how long each member that does not answer this node has not answered.
    pub silent: Arc<dyn Fn() -> BTreeMap<NodeName, Duration> + Send + Sync>,
    /// Ends the watch streams, which otherwise never end.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl node_server::Node for NodeService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Json, Status>> + Send>>;

    async fn watch(&self, request: Request<Json>) -> Result<Response<Self::WatchStream>, Status> {
        let watched: Watched = request.into_inner().decode::<Option<_>>()?.unwrap_or_default();
        let mut state = self.state.clone();
        state.mark_changed();
        let states = stream::unfold(state, move |mut state| async move {
            state.changed().await.ok()?;
            let current = state.borrow_and_update().clone();
            let message = match watched {
                Watched::States => Json::of(&*current),
                Watched::Positions => Json::of(&current.position()),
            };
            Some((message.map_err(Status::from), state))
        });
        let stopped = self.stop.clone().cancelled_owned();
        Ok(Response::new(states.take_until(stopped).boxed()))
    }

    async fn describe(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        let catalog = self.changes.catalog();
        if let Some(version) = super::unseen_version(&request, &catalog) {
            self.changes.missed(version);
        }
        super::wait_for_catalog(&request, &catalog).await?;
        let silent = (self.silent)().into_iter();
        let silent = silent.map(|(name, silent)| (name.to_string(), silent.as_millis() as u64));
        Json::response(&NodeReport {
            version: VERSION.to_owned(),
            instance: Some(self.instance),
            started_ms: self.started_ms,
            log: self.changes.health(),
            silent: Some(silent.collect()),
            rules_level: CATALOG_RULES_LEVEL,
        })
    }

    async fn queries(&self, _: Request<Json>) -> Result<Response<Json>, Status> {
        let running = self.queries.as_ref().map(|queries| queries.running());
        Json::response(&running.unwrap_or_default())
    }

    async fn cancel(&self, request: Request<Json>) -> Result<Response<Json>, Status> {
        let id = request.into_inner().decode()?;
        Json::response(&self.queries.as_ref().is_some_and(|queries| queries.cancel(id)))
    }
}
