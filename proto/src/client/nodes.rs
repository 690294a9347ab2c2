//! Clients for the nodes of a cluster: their status, their running queries, and what they have read of the change log.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Peer, peers::Peers};
use crate::{
    catalog::{Catalog, State, StatePosition},
    cluster::{Member, NodeName, Role},
    node::{NodeQueries, NodeReport, NodeStatus, Nodes, QueryId, RunningQuery, Watched},
    problem::Problem,
    wire::{leaf::Json, node::node_client::NodeClient},
};

/// How long a node may take to answer a status request.
const STATUS_WAIT: Duration = Duration::from_secs(3);
/// Bytes of a catalog state.
const STATE_BYTES_MAX: usize = 256 << 20;

/// The members of a cluster.
pub struct RemoteNodes {
    own: String,
    peers: Peers,
}

impl RemoteNodes {
    /// All members, as seen by the node named `own`. Must be called within a tokio runtime.
    pub fn new(own: &str, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            own: own.to_owned(),
            peers: Peers::of_any_version(catalog),
        }
    }

    fn other_aggregators(&self) -> impl Iterator<Item = Peer> + '_ {
        let aggregators = self.peers.of(Role::Aggregator).into_iter();
        aggregators.filter(|peer| peer.name.as_str() != self.own)
    }
}

#[async_trait]
impl Nodes for RemoteNodes {
    fn own(&self) -> &str {
        &self.own
    }

    async fn status(&self) -> Vec<NodeStatus> {
        let catalog = self.peers.catalog().borrow().clone();
        let mut members: Vec<(&NodeName, &Member)> = catalog.members.iter().collect();
        members.sort_by_key(|(name, member)| (member.role, *name));
        let status = |(name, member): (&NodeName, &Member)| {
            let (peer, name, member) = (self.peers.named(name), name.to_string(), member.clone());
            async move {
                let report = match peer {
                    Ok(peer) => report(&peer).await,
                    Err(problem) => Err(problem),
                };
                NodeStatus {
                    name,
                    role: member.role.to_string(),
                    url: member.url,
                    zone: member.zone,
                    capacity: (member.role == Role::Leaf).then_some(member.capacity),
                    report,
                }
            }
        };
        join_all(members.into_iter().map(status)).await
    }

    async fn remote_queries(&self) -> Vec<NodeQueries> {
        let request = |peer: Peer| async move {
            NodeQueries {
                queries: queries(&peer).await,
                node: peer.name.to_string(),
            }
        };
        join_all(self.other_aggregators().map(request)).await
    }

    async fn cancel_remote(&self, id: QueryId) -> bool {
        let Ok(id) = Json::of(&id) else { return false };
        let request = |peer: Peer| {
            let request = peer.request(id.clone(), STATUS_WAIT);
            async move {
                let cancelled = peer.value(NodeClient::new(peer.control.clone()).cancel(request).await);
                cancelled.unwrap_or(false)
            }
        };
        join_all(self.other_aggregators().map(request)).await.contains(&true)
    }
}

async fn queries(peer: &Peer) -> Result<Vec<RunningQuery>, Problem> {
    let request = peer.json(&(), STATUS_WAIT)?;
    peer.value(NodeClient::new(peer.control.clone()).queries(request).await)
}

/// What a node reports about itself.
pub async fn report(peer: &Peer) -> Result<NodeReport, Problem> {
    let request = peer.json(&(), STATUS_WAIT)?;
    peer.value(NodeClient::new(peer.control.clone()).describe(request).await)
}

/// Reads how far the states of a peer have read: its current one first, then each new one.
pub struct StateReader {
    peer: Peer,
    positions: tonic::Streaming<Json>,
}

impl StateReader {
    /// Starts the stream.
    pub async fn open(peer: &Peer) -> Result<Self, Problem> {
        Ok(Self {
            peer: peer.clone(),
            positions: watch(peer, Watched::Positions).await?,
        })
    }

    /// The next position; `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<StatePosition>, Problem> {
        next(&self.peer, &mut self.positions).await
    }

    /// The current state of a peer.
    pub async fn current(peer: &Peer) -> Result<Option<State>, Problem> {
        next(peer, &mut watch(peer, Watched::States).await?).await
    }
}

async fn watch(peer: &Peer, watched: Watched) -> Result<tonic::Streaming<Json>, Problem> {
    let mut client = NodeClient::new(peer.control.clone()).max_decoding_message_size(STATE_BYTES_MAX);
    peer.answer(client.watch(peer.endless_request(Json::of(&watched)?)).await)
}

async fn next<T: DeserializeOwned>(peer: &Peer, messages: &mut tonic::Streaming<Json>) -> Result<Option<T>, Problem> {
    let message = messages.message().await.map_err(|status| peer.problem(status))?;
    message.map(|message| message.decode()).transpose()
}
