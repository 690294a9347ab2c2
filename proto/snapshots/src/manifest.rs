//! What a snapshot consists of.
//!
//! ```text
//! manifest ──> collection ──> shard: its list of files ──> files
//! ```
//!
//! A manifest names one object for each shard, which lists the shard's files. So a manifest stays small, and a leaf reads
//! only what is about its shard.

use std::collections::BTreeMap;

use proto::{
    CollectionName, CollectionUid, PositionVector, SourceName,
    catalog::{Collection, Source},
    cluster::NodeName,
    ingest::{BlockDigest, ShardId},
    snapshot::{SnapshotId, StoredObject},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of the format of a manifest. It is raised when an older release must not restore a snapshot.
pub(crate) const FORMAT: u32 = 2;
/// The format of one without collections that have runs, which earlier releases read, too.
pub(crate) const FORMAT_WITHOUT_RUNS: u32 = 1;

/// A complete snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// The snapshot.
    pub id: SnapshotId,
    /// The cluster that it was taken of; `None` for one process.
    pub cluster: Option<Uuid>,
    /// The release that has taken it.
    pub release: String,
    /// The node that has taken it.
    pub by: String,
    /// Whether the schedule has taken it, which also removes it.
    pub scheduled: bool,
    /// When it was begun, milliseconds since 1970 …
    pub begun_ms: i64,
    /// … and when the last shard was written.
    pub ended_ms: i64,
    /// Its collections.
    pub collections: BTreeMap<CollectionName, CollectionSnapshot>,
    /// The definitions of its collections, as `rachis definition export` writes them; empty without any.
    #[serde(default)]
    pub definitions: String,
}

/// A collection in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionSnapshot {
    /// What the catalog said of it; without where its shards are.
    pub collection: Collection,
    /// Its Kafka sources, without what gives access to Kafka.
    #[serde(default)]
    pub sources: BTreeMap<SourceName, Source>,
    /// Its shards, by number.
    pub shards: Vec<ShardSnapshot>,
}

/// A shard in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardSnapshot {
    /// The object that lists its files, a [`ShardFiles`].
    pub files: StoredObject,
    /// The leaf whose replica was written; `None` if one process holds all shards.
    pub leaf: Option<NodeName>,
    /// The bytes of its files.
    pub bytes: u64,
    /// The bytes that no earlier snapshot had.
    pub written: u64,
}

/// The files of a shard in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardFiles {
    /// The shard.
    pub shard: ShardId,
    /// The replica that was written. A table of the same replica with the same name and size has the same contents.
    pub store: Uuid,
    /// What the shard has of each partition.
    pub positions: PositionVector,
    /// The digests of what it has ingested, block by block.
    pub digests: Vec<BlockDigest>,
    /// Its files.
    pub files: Vec<StoredFile>,
}

/// A file of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its path in the folder of the shard, such as `store/000012.sst`.
    pub name: String,
    /// Its contents.
    pub object: StoredObject,
}

/// What is said of a snapshot in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The cluster that it was taken of; `None` for one process.
    pub cluster: Option<Uuid>,
    /// The node that has taken it.
    pub by: String,
    /// Whether the schedule has taken it.
    pub scheduled: bool,
    /// When it was begun, milliseconds since 1970 …
    pub begun_ms: i64,
    /// … and when the last shard was written.
    pub ended_ms: i64,
    /// Its collections.
    pub collections: Vec<CollectionName>,
    /// Their uids.
    pub uids: Vec<CollectionUid>,
    /// The number of its shards.
    pub shards: u64,
    /// The bytes of its files.
    pub bytes: u64,
    /// The bytes that no earlier snapshot had.
    pub written: u64,
}

impl Manifest {
    /// What is said of it in a list.
    pub fn summary(&self) -> Summary {
        let shards = || self.collections.values().flat_map(|collection| &collection.shards);
        Summary {
            cluster: self.cluster,
            by: self.by.clone(),
            scheduled: self.scheduled,
            begun_ms: self.begun_ms,
            ended_ms: self.ended_ms,
            collections: self.collections.keys().cloned().collect(),
            uids: self.collections.values().map(|known| known.collection.uid).collect(),
            shards: shards().count() as u64,
            bytes: shards().map(|shard| shard.bytes).sum(),
            written: shards().map(|shard| shard.written).sum(),
        }
    }

    /// A shard of a collection.
    pub fn shard(&self, shard: ShardId) -> Option<&ShardSnapshot> {
        let mut collections = self.collections.values();
        let collection = collections.find(|collection| collection.collection.uid == shard.collection)?;
        collection.shards.get(shard.number as usize)
    }

    /// The objects that list the files of its shards.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &StoredObject> {
        let collections = self.collections.values();
        collections.flat_map(|collection| collection.shards.iter().map(|shard| &shard.files))
    }
}
