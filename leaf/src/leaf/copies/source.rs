//! Where the files of a copy come from: another leaf, or a snapshot.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use proto::{
    Code, Problem,
    catalog::Restored,
    cluster::NodeName,
    ingest::ShardId,
    replica::{CopiedFile, OfferedCopy, ReplicaPeers},
    snapshot::StoredObject,
};
use snapshots::{ShardFiles, SnapshotStore, StoredFile};
use uuid::Uuid;

use crate::shard::STORE_FOLDER;

/// Bytes of a file of a snapshot that are read at once.
const READ_BYTES: u64 = 8 << 20;

/// Where the files of a copy come from.
#[derive(Clone)]
pub(super) enum CopySource {
    /// A leaf that serves the shard.
    Leaf {
        name: NodeName,
        peers: Arc<dyn ReplicaPeers>,
    },
    /// A snapshot.
    Snapshot {
        restored: Restored,
        /// `None` if the settings of this leaf name none.
        store: Option<SnapshotStore>,
    },
}

impl fmt::Display for CopySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf { name, .. } => name.fmt(f),
            Self::Snapshot { restored, .. } => write!(f, "snapshot {}", restored.snapshot),
        }
    }
}

impl CopySource {
    /// The shard as it is named there.
    pub(super) fn shard_there(&self, shard: ShardId) -> ShardId {
        match self {
            Self::Leaf { .. } => shard,
            Self::Snapshot { restored, .. } => ShardId {
                collection: restored.collection,
                ..shard
            },
        }
    }

    /// The files of the shard at one point in time.
    pub(super) async fn offer(&self, shard: ShardId) -> Result<OfferedCopy, Problem> {
        match self {
            Self::Leaf { name, peers } => peers.offer_copy(name, shard).await,
            Self::Snapshot { restored, store } => {
                let store = needed(store.as_ref())?;
                let manifest = store.known_manifest(&restored.snapshot).await?;
                let there = self.shard_there(shard);
                let known = manifest.shard(there).ok_or_else(|| {
                    let detail = format!("snapshot {} has no shard {there}", restored.snapshot);
                    Problem::new(Code::NotFound, detail)
                })?;
                let list: ShardFiles = store.get_json(&known.files).await?;
                if list.shard != there || !list.files.iter().any(is_current) {
                    let detail = format!("snapshot {} lists no store of shard {there}", restored.snapshot);
                    return Err(Problem::new(Code::Unavailable, detail).hint("restore from another snapshot"));
                }
                let files = list.files.into_iter().map(|file| CopiedFile {
                    name: file.name,
                    bytes: file.object.bytes,
                    sha256: Some(file.object.sha256),
                });
                Ok(OfferedCopy {
                    id: Uuid::nil(),
                    store: list.store,
                    files: files.collect(),
                })
            }
        }
    }

    /// A part of a file of a copy that was offered.
    pub(super) async fn read(&self, copy: Uuid, file: &CopiedFile, from: u64) -> Result<Bytes, Problem> {
        match self {
            Self::Leaf { name, peers } => peers.read_copy(name, copy, &file.name, from).await,
            Self::Snapshot { store, .. } => {
                let object = file.sha256.map(|sha256| StoredObject {
                    sha256,
                    bytes: file.bytes,
                });
                let object = object.ok_or_else(|| {
                    let detail = format!("the hash of {} is not known", file.name);
                    Problem::new(Code::Internal, detail)
                })?;
                let read = from..file.bytes.min(from + READ_BYTES);
                needed(store.as_ref())?.get_range(&object, read).await
            }
        }
    }

    /// Nothing more is read of a copy.
    pub(super) async fn end(&self, copy: Uuid) {
        if let Self::Leaf { name, peers } = self {
            // If this fails, the other leaf ends the copy itself.
            let _ = peers.end_copy(name, copy).await;
        }
    }
}

fn needed(store: Option<&SnapshotStore>) -> Result<&SnapshotStore, Problem> {
    store.ok_or_else(|| {
        Problem::new(Code::NotSupported, "this leaf has no snapshot store")
            .hint("set url in [snapshots] of its settings, the same for all nodes, and restart it")
    })
}

/// Whether this is the file without which RocksDB would create an empty store.
fn is_current(file: &StoredFile) -> bool {
    file.name.strip_prefix(STORE_FOLDER) == Some("/CURRENT")
}
