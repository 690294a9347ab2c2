//! Grants between leaves that hold replicas of the same shards. Shared by: leaf (both sides), `client/replicas.rs`.
//!
//! A push is acknowledged once every replica that may be asked has it. A replica that is cut off cannot have it, so it
//! must have stopped answering before a push is acknowledged without it. Therefore a replica answers only while it holds
//! a grant of each other serving replica of its shard, and a leaf names every replica that it has granted in its answer
//! to a push.
//!
//! ```text
//! leaf-1 ── grant? (my catalog version, what you should have by now) ──> leaf-2
//!        <── granted for 5 s; what I have; what I lack ─────────────────
//! ```
//!
//! The caller counts the time of a grant from when it sent the call, the other leaf from when it received it. So clocks
//! need not agree, only run at about the same rate: see [`GRANTED_FOR`].

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    address::PositionVector,
    cluster::NodeName,
    ingest::{BlockDigest, ShardId},
    problem::Problem,
    snapshot::Sha256,
};

/// How long a leaf that granted something takes it into account. It counts on a clock that also runs while the machine
/// is suspended.
pub const GRANTED_FOR: Duration = Duration::from_secs(5);
/// How long the leaf that was granted it relies on it. The difference is for clocks that run at different rates: one may
/// be a tenth slower than the other.
pub const GRANT_USED_FOR: Duration = Duration::from_millis(4_500);

/// Asks a leaf for a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRequest {
    /// The leaf that asks …
    pub leaf: NodeName,
    /// … and its data folder.
    pub instance: Uuid,
    /// The version of its catalog. It uses the grant only with this catalog or a later one.
    pub version: u64,
    /// Shards of which it wants to know what the other leaf has.
    pub compared: Vec<ShardId>,
    /// What it had a while ago of shards, so that the other leaf should have it by now.
    pub expected: Vec<(ShardId, PositionVector)>,
}

/// A grant. It holds for [`GRANTED_FOR`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What this leaf has of the shards that were to be compared, as far as it can say.
    pub has: Vec<(ShardId, PositionVector)>,
    /// The shards of which it lacks what is expected, or cannot say in time what it has.
    pub lacks: Vec<ShardId>,
}

/// Bytes of a file that one call of [`ReplicaPeers::read_copy`] returns at most.
pub const COPY_READ_BYTES: usize = 2 << 20;

/// The files of a replica at one point in time, which its leaf keeps for a while so that another leaf can read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedCopy {
    /// Names it.
    pub id: Uuid,
    /// The replica that was copied. A table of the same replica with the same name and size has the same contents.
    pub store: Uuid,
    /// Its files.
    pub files: Vec<CopiedFile>,
}

/// A file of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Its path in the folder of the shard, such as `store/000012.sst`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

/// The leaves that hold replicas of the same shards.
#[async_trait]
pub trait ReplicaPeers: Send + Sync {
    /// Asks a leaf for a grant.
    async fn grant(&self, leaf: &NodeName, request: &GrantRequest) -> Result<Grant, Problem>;

    /// The digests of the replica on a leaf, as [`Ingest::digests`](crate::ingest::Ingest::digests) has them.
    async fn digests(&self, leaf: &NodeName, shard: ShardId) -> Result<Vec<BlockDigest>, Problem>;

    /// Has a leaf link the files of its replica of a shard, to be read by [`read_copy`](Self::read_copy). The leaf removes
    /// the links two minutes after the last read.
    async fn offer_copy(&self, leaf: &NodeName, shard: ShardId) -> Result<OfferedCopy, Problem>;

    /// Up to [`COPY_READ_BYTES`] of a file of a copy, from this byte on. `NotFound` once the copy has ended.
    async fn read_copy(&self, leaf: &NodeName, copy: Uuid, file: &str, from: u64) -> Result<Bytes, Problem>;

    /// Ends a copy.
    async fn end_copy(&self, leaf: &NodeName, copy: Uuid) -> Result<(), Problem>;
}
