//! Clients for the nodes of a cluster: their status, their running queries, and what they have read of the change log.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::Peer;
use crate::{
    catalog::{State, StatePosition},
    cluster::{Members, NodeName, Role},
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
    nodes: Vec<(Role, String, Peer)>,
}

impl RemoteNodes {
    /// All members, as seen by the node named `own`. Must be called within a tokio runtime.
    pub fn new(own: &str, members: &Members) -> Result<Self, Problem> {
        // These requests are about the node, not the catalog. With version 0, no node waits until it has caught up.
        let any_version = watch::channel(Arc::default()).1;
        let peer = |((role, name), url): (&(Role, NodeName), &String)| {
            Ok((*role, url.clone(), Peer::new(name.clone(), url, any_version.clone())?))
        };
        Ok(Self {
            own: own.to_owned(),
            nodes: members.nodes.iter().map(peer).collect::<Result<_, Problem>>()?,
        })
    }

    /// The newest state of the change log on any node that answers.
    pub async fn newest_state(&self) -> Option<State> {
        let read = |(.., peer): &(Role, String, Peer)| {
            let peer = peer.clone();
            async move {
                tokio::time::timeout(STATUS_WAIT, StateReader::current(&peer))
                    .await
                    .ok()?
                    .ok()?
            }
        };
        let states = join_all(self.nodes.iter().map(read)).await;
        states.into_iter().flatten().reduce(|best, state| {
            if state.position().is_newer_than(&best.position()) {
                state
            } else {
                best
            }
        })
    }

    fn other_aggregators(&self) -> impl Iterator<Item = Peer> + '_ {
        let others = self
            .nodes
            .iter()
            .filter(|(role, _, peer)| *role == Role::Aggregator && peer.name.as_str() != self.own);
        others.map(|(.., peer)| peer.clone())
    }
}

#[async_trait]
impl Nodes for RemoteNodes {
    fn own(&self) -> &str {
        &self.own
    }

    async fn status(&self) -> Vec<NodeStatus> {
        let request = |(role, url, peer): &(Role, String, Peer)| {
            let (role, url, peer) = (*role, url.clone(), peer.clone());
            async move {
                NodeStatus {
                    name: peer.name.to_string(),
                    role: role.as_str().to_owned(),
                    url,
                    report: report(&peer).await,
                }
            }
        };
        join_all(self.nodes.iter().map(request)).await
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

async fn report(peer: &Peer) -> Result<NodeReport, Problem> {
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
    peer.answer(client.watch(Json::of(&watched)?).await)
}

async fn next<T: DeserializeOwned>(peer: &Peer, messages: &mut tonic::Streaming<Json>) -> Result<Option<T>, Problem> {
    let message = messages.message().await.map_err(|status| peer.problem(status))?;
    message.map(|message| message.decode()).transpose()
}
