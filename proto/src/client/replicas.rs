//! Client for the other leaves of a cluster: asks them for grants, and for digests of what they have.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{
    ASK_WAIT,
    ingest::{control, digests_at},
    peers::Peers,
};
use crate::{
    cluster::NodeName,
    ingest::{BlockDigest, ShardId},
    limits::MESSAGE_BYTES_MAX,
    problem::Problem,
    replica::{Grant, GrantRequest, OfferedCopy, ReplicaPeers},
    wire::leaf::ingest_client::IngestClient,
};

/// How long a leaf may take to write what it has in memory, and to name the files of a copy …
const OFFER_WAIT: Duration = Duration::from_secs(60);
/// … and to send a part of one.
const READ_WAIT: Duration = Duration::from_secs(30);
/// How long a leaf may take to answer.
const GRANT_WAIT: Duration = Duration::from_secs(1);

#[async_trait]
impl ReplicaPeers for Peers {
    async fn grant(&self, leaf: &NodeName, request: &GrantRequest) -> Result<Grant, Problem> {
        let peer = self.named(leaf)?;
        let mut client = control(&peer);
        peer.value(client.grant(peer.json(request, GRANT_WAIT)?).await)
    }

    async fn digests(&self, leaf: &NodeName, shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
        digests_at(&self.named(leaf)?, shard).await
    }

    async fn offer_copy(&self, leaf: &NodeName, shard: ShardId) -> Result<OfferedCopy, Problem> {
        let peer = self.named(leaf)?;
        peer.value(control(&peer).offer_copy(peer.json(&shard, OFFER_WAIT)?).await)
    }

    async fn read_copy(&self, leaf: &NodeName, copy: Uuid, file: &str, from: u64) -> Result<Bytes, Problem> {
        let peer = self.named(leaf)?;
        let mut client = IngestClient::new(peer.data.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let read = client.read_copy(peer.json(&(copy, file, from), READ_WAIT)?).await;
        Ok(peer.answer(read)?.bytes)
    }

    async fn end_copy(&self, leaf: &NodeName, copy: Uuid) -> Result<(), Problem> {
        let peer = self.named(leaf)?;
        peer.value(control(&peer).end_copy(peer.json(&copy, ASK_WAIT)?).await)
    }
}
