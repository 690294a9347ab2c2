//! Client for the other leaves of a cluster: asks them for grants, and for digests of what they have.

use std::time::Duration;

use async_trait::async_trait;

use super::{ingest::digests_at, peers::Peers};
use crate::{
    cluster::NodeName,
    ingest::{BlockDigest, ShardId},
    limits::MESSAGE_BYTES_MAX,
    problem::Problem,
    replica::{Grant, GrantRequest, ReplicaPeers},
    wire::leaf::ingest_client::IngestClient,
};

/// How long a leaf may take to answer.
const GRANT_WAIT: Duration = Duration::from_secs(1);

#[async_trait]
impl ReplicaPeers for Peers {
    async fn grant(&self, leaf: &NodeName, request: &GrantRequest) -> Result<Grant, Problem> {
        let peer = self.named(leaf)?;
        let mut client = IngestClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        peer.value(client.grant(peer.json(request, GRANT_WAIT)?).await)
    }

    async fn digests(&self, leaf: &NodeName, shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
        digests_at(&self.named(leaf)?, shard).await
    }
}
