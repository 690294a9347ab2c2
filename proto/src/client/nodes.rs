//! All nodes as one asks them: how they are, what runs on them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::watch;

use super::{Peer, follower::StateReader};
use crate::{
    catalog::State,
    cluster::{Members, NodeName, Role},
    node::{NodeReport, NodeStatus, Nodes, QueryId, RunningQuery},
    problem::Problem,
    tailer::LogHealth,
    wire::{
        ingest::{query_bytes, query_id},
        node::{CancelRequest, DescribeRequest, QueriesRequest, node_client::NodeClient},
    },
};

/// How long a node may take to say how it is.
const ASK_WAIT: Duration = Duration::from_secs(3);

/// The members of a cluster.
pub struct RemoteNodes {
    own: String,
    nodes: Vec<(Role, String, Peer)>,
}

impl RemoteNodes {
    /// All members, as the one of this name sees them. Must be called within a tokio runtime.
    pub fn new(own: &str, members: &Members) -> Result<Self, Problem> {
        // What is asked here is how a node is, not what is agreed on: none has to wait until it has caught up.
        let unasked = watch::channel(Arc::default()).1;
        let peer = |((role, name), url): (&(Role, NodeName), &String)| {
            Ok((*role, url.clone(), Peer::new(name.clone(), url, unasked.clone())?))
        };
        Ok(Self {
            own: own.to_owned(),
            nodes: members.nodes.iter().map(peer).collect::<Result<_, Problem>>()?,
        })
    }

    /// The newest state of the change log that one of them has.
    pub async fn newest_state(&self) -> Option<State> {
        let read = |(.., peer): &(Role, String, Peer)| {
            let peer = peer.clone();
            async move {
                tokio::time::timeout(ASK_WAIT, async { StateReader::open(&peer).await?.next().await })
                    .await
                    .ok()?
                    .ok()?
            }
        };
        let states = join_all(self.nodes.iter().map(read)).await;
        states
            .into_iter()
            .flatten()
            .reduce(|best, state| if state.is_newer_than(&best) { state } else { best })
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
        let ask = |(role, url, peer): &(Role, String, Peer)| {
            let (role, url, peer) = (*role, url.clone(), peer.clone());
            async move {
                NodeStatus {
                    name: peer.name.to_string(),
                    role: role.word().to_owned(),
                    url,
                    report: report(&peer).await,
                }
            }
        };
        join_all(self.nodes.iter().map(ask)).await
    }

    async fn queries_of_others(&self) -> Vec<(String, RunningQuery)> {
        let ask = |peer: Peer| async move {
            let answer = NodeClient::new(peer.control.clone())
                .queries(peer.request(QueriesRequest {}, ASK_WAIT))
                .await;
            let told = answer.map(|told| told.into_inner().queries).unwrap_or_default();
            let read = |query: crate::wire::node::RunningQuery| {
                let id = query_id(&query.id).ok()?;
                let query = RunningQuery {
                    id,
                    text: query.text,
                    started_ms: query.started_ms,
                    elapsed_ms: query.elapsed_ms,
                };
                Some((peer.name.to_string(), query))
            };
            told.into_iter().filter_map(read).collect::<Vec<_>>()
        };
        join_all(self.other_aggregators().map(ask))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    async fn cancel_elsewhere(&self, id: QueryId) -> bool {
        let ask = |peer: Peer| async move {
            let asked = NodeClient::new(peer.control.clone())
                .cancel(peer.request(CancelRequest { query: query_bytes(id) }, ASK_WAIT))
                .await;
            asked.is_ok_and(|told| told.into_inner().cancelled)
        };
        join_all(self.other_aggregators().map(ask)).await.contains(&true)
    }
}

async fn report(peer: &Peer) -> Result<NodeReport, Problem> {
    let answer = NodeClient::new(peer.control.clone())
        .describe(peer.request(DescribeRequest {}, ASK_WAIT))
        .await;
    let told = answer.map_err(|status| peer.problem(status))?.into_inner();
    let log = LogHealth {
        offset: told.offset,
        hash: told.hash,
        cluster: told.cluster.parse().ok(),
        trouble: told.trouble,
    };
    Ok(NodeReport {
        version: told.version,
        started_ms: told.started_ms,
        log,
    })
}
