//! Where the files of a copy come from: another leaf, or a snapshot.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::{
    Code, Problem,
    cluster::NodeName,
    ingest::ShardId,
    replica::{CopiedFile, OfferedCopy, ReplicaPeers},
    snapshot::{SnapshotId, StoredObject},
};
use snapshots::{ShardFiles, SnapshotStore, StoredFile};
use tracing::info;
use uuid::Uuid;

use super::FromSnapshot;
use crate::shard::STORE_FOLDER;

/// Bytes of a file of a snapshot that are read at once.
const READ_BYTES: u64 = 8 << 20;
/// The timeout of a call to the store, its own retries included.
const STORE_WAIT: Duration = Duration::from_mins(3);

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
        from: FromSnapshot,
        /// `None` if the settings of this leaf name none.
        store: Option<SnapshotStore>,
        /// The snapshots that have turned out to be damaged.
        damaged: BTreeSet<SnapshotId>,
        /// What was read last, and of which snapshot.
        reading: Arc<Mutex<Option<(SnapshotId, StoredObject)>>>,
    },
}

impl fmt::Display for CopySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf { name, .. } => name.fmt(f),
            Self::Snapshot { from, .. } => from.fmt(f),
        }
    }
}

impl CopySource {
    /// The shard as it is named there.
    pub(super) fn shard_there(&self, shard: ShardId) -> ShardId {
        match self {
            Self::Leaf { .. } => shard,
            Self::Snapshot { from, .. } => ShardId {
                collection: from.collection,
                ..shard
            },
        }
    }

    /// The files of the shard at one point in time; `None` if the shard is to begin empty.
    pub(super) async fn offer(&self, shard: ShardId) -> Result<Option<OfferedCopy>, Problem> {
        match self {
            Self::Leaf { name, peers } => peers.offer_copy(name, shard).await.map(Some),
            Self::Snapshot {
                from,
                store,
                damaged,
                reading,
            } => {
                let there = self.shard_there(shard);
                let (id, store) = match (&from.id, store) {
                    (Some(id), store) => (id.clone(), needed(store.as_ref())?),
                    (None, None) => return from.nothing(),
                    (None, Some(store)) => match newest_with(store, there, damaged).await? {
                        Some(id) => (id, store),
                        None => return from.nothing(),
                    },
                };
                let manifest = within(store.known_manifest(&id)).await?;
                let known = manifest.shard(there).ok_or_else(|| {
                    let detail = format!("snapshot {id} has no shard {there}");
                    Problem::new(Code::NotFound, detail)
                })?;
                *reading.lock() = Some((id.clone(), known.files.clone()));
                let list: ShardFiles = within(store.get_json(&known.files)).await?;
                if list.shard != there || !list.files.iter().any(is_current) {
                    let detail = format!("snapshot {id} lists no store of shard {there}");
                    return Err(Problem::new(Code::Unavailable, detail).hint("restore from another snapshot"));
                }
                info!(%shard, snapshot = %id, "copying a shard from a snapshot");
                let files = list.files.into_iter().map(|file| CopiedFile {
                    name: file.name,
                    bytes: file.object.bytes,
                    sha256: Some(file.object.sha256),
                });
                Ok(Some(OfferedCopy {
                    id: Uuid::nil(),
                    store: list.store,
                    files: files.collect(),
                }))
            }
        }
    }

    /// A part of a file of a copy that was offered.
    pub(super) async fn read(&self, copy: Uuid, file: &CopiedFile, from: u64) -> Result<Bytes, Problem> {
        match self {
            Self::Leaf { name, peers } => peers.read_copy(name, copy, &file.name, from).await,
            Self::Snapshot { store, reading, .. } => {
                let object = file.sha256.map(|sha256| StoredObject {
                    sha256,
                    bytes: file.bytes,
                });
                let object = object.ok_or_else(|| {
                    let detail = format!("the hash of {} is not known", file.name);
                    Problem::new(Code::Internal, detail)
                })?;
                if let Some((_, last)) = reading.lock().as_mut() {
                    last.clone_from(&object);
                }
                let read = from..file.bytes.min(from + READ_BYTES);
                within(needed(store.as_ref())?.get_range(&object, read)).await
            }
        }
    }

    /// The snapshot that was read, if what was read last of it is damaged and an older one will do.
    pub(super) async fn damaged(&self) -> Option<SnapshotId> {
        let Self::Snapshot {
            from: FromSnapshot { id: None, .. },
            store,
            reading,
            ..
        } = self
        else {
            return None;
        };
        let (id, object) = reading.lock().clone()?;
        let is_whole = within(store.as_ref()?.compare(&object)).await;
        (is_whole == Ok(false)).then_some(id)
    }

    /// Nothing more is read of a copy.
    pub(super) async fn end(&self, copy: Uuid) {
        if let Self::Leaf { name, peers } = self {
            // If this fails, the other leaf ends the copy itself.
            let _ = peers.end_copy(name, copy).await;
        }
    }
}

/// The newest undamaged snapshot of a shard; `None` if the store has snapshots, but none of this collection. An unreadable
/// manifest and an empty store are errors, because the missing snapshot may contain the shard.
async fn newest_with(
    store: &SnapshotStore,
    shard: ShardId,
    damaged: &BTreeSet<SnapshotId>,
) -> Result<Option<SnapshotId>, Problem> {
    const WITHOUT: &str = "to fill the shard from Kafka alone, start this leaf without url in [snapshots]";
    let all = within(store.list()).await?;
    if all.is_empty() {
        let detail = format!(
            "the snapshot store {} has no snapshots: is it the right one?",
            store.url()
        );
        return Err(Problem::new(Code::Unavailable, detail).hint(WITHOUT));
    }
    let mut known = Vec::new();
    for (id, summary) in all {
        let hint = || format!("if its manifest is damaged, remove it: `rachis snapshot remove {id}`");
        let summary = summary.map_err(|problem| problem.hint(hint()))?;
        known.push((id, summary));
    }
    known.retain(|(_, summary)| summary.uids.contains(&shard.collection));
    let newest_first = snapshots::newest_first(known, chrono::Utc::now().timestamp_millis());
    match newest_first.iter().find(|id| !damaged.contains(id)) {
        Some(id) => Ok(Some(id.clone())),
        None if newest_first.is_empty() => Ok(None),
        None => {
            let detail = format!("all snapshots that have shard {shard} are damaged");
            Err(Problem::new(Code::Unavailable, detail).hint(WITHOUT))
        }
    }
}

/// Limits how long a call to the store may take: a network file system may block for ever.
async fn within<T>(answer: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = |_| Problem::new(Code::Unavailable, "the snapshot store does not answer").hint("is its disk mounted?");
    tokio::time::timeout(STORE_WAIT, answer).await.map_err(late)?
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
