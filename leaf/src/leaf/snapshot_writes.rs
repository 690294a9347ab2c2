//! Writes replicas of this leaf to the snapshot store, when an aggregator asks for it.
//!
//! The first call starts the upload of a shard in the background, later calls return its progress. The leaf cancels an upload
//! that the aggregator has not polled for two minutes.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Code, Problem,
    catalog::ReplicaState,
    ingest::{DIGESTS_MAX, ShardId},
    snapshot::{ShardSnapshotRequest, ShardSnapshotStatus, SnapshotId, StoredObject},
};
use snapshots::{Pace, ShardFiles, ShardSource, SnapshotStore, write_shard};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Leaf,
    copies::{
        OFFERED, never_changes,
        offered::{copy_to, remove},
    },
};
use crate::{
    error::Error,
    shard::{STORE_FOLDER, state::positions},
    store::Store,
    threads::blocking,
};

/// Shards that a leaf writes at once.
const WRITTEN_AT_ONCE: usize = 2;
/// Shards that are written, or wait for it.
const UNFINISHED_MAX: usize = 1_000;
/// How long it waits until the replica may answer questions.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long after the last call a write is given up, or forgotten.
const KEPT: Duration = Duration::from_mins(2);

/// The shards that this leaf writes to the snapshot store.
pub(super) struct SnapshotWrites {
    known: Mutex<HashMap<(SnapshotId, ShardId), Write>>,
    permits: Arc<Semaphore>,
}

/// One of them.
struct Write {
    status: Arc<Mutex<ShardSnapshotStatus>>,
    asked: Instant,
    stop: CancellationToken,
}

impl Default for SnapshotWrites {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            permits: Arc::new(Semaphore::new(WRITTEN_AT_ONCE)),
        }
    }
}

impl Leaf {
    /// Begins to write the replica of a shard, or says how far that is.
    pub(super) fn write_snapshot(&self, request: &ShardSnapshotRequest) -> Result<ShardSnapshotStatus, Problem> {
        let store = self.options.snapshots.clone().ok_or_else(|| {
            Problem::new(Code::NotSupported, "this leaf has no snapshot store")
                .hint("set url in [snapshots] of its settings, the same for all nodes, and restart it")
        })?;
        let mut known = self.snapshot_writes.known.lock();
        let key = (request.snapshot.clone(), request.shard);
        if let Some(write) = known.get_mut(&key) {
            write.asked = Instant::now();
            let status = write.status.lock().clone();
            // The aggregator calls again after a failure: then the upload starts anew.
            if matches!(status.ended, Some(Err(_))) {
                known.remove(&key);
            }
            return Ok(status);
        }
        let unfinished = known.values().filter(|write| write.status.lock().ended.is_none());
        if unfinished.count() >= UNFINISHED_MAX {
            let detail = format!("this leaf writes {UNFINISHED_MAX} shards to the snapshot store already");
            return Err(Problem::new(Code::Busy, detail).hint("it goes on when some are written"));
        }
        self.check_serves(request.shard)?;
        let (status, stop) = (Arc::<Mutex<ShardSnapshotStatus>>::default(), CancellationToken::new());
        let writer = Writer {
            leaf: self.this.clone(),
            permits: self.snapshot_writes.permits.clone(),
            store,
            request: request.clone(),
            pace: LeafPace {
                leaf: self.this.clone(),
                status: status.clone(),
                stop: stop.clone(),
            },
        };
        let write = Write {
            status: status.clone(),
            asked: Instant::now(),
            stop,
        };
        known.insert(key, write);
        tokio::spawn(async move {
            // In a task of its own, so that a panic is an end, too.
            let ended = tokio::spawn(writer.run()).await;
            let broken = |error| Problem::new(Code::Internal, format!("the shard was not written: {error}"));
            status.lock().ended = Some(ended.unwrap_or_else(|error| Err(broken(error))));
        });
        Ok(ShardSnapshotStatus::default())
    }

    /// Fails unless the replica of a shard on this leaf serves.
    pub(super) fn check_serves(&self, shard: ShardId) -> Result<(), Problem> {
        let Some(node) = &self.options.node else {
            return Ok(());
        };
        let catalog = self.catalog.borrow().clone();
        let collection = catalog.collection(shard.collection).map(|(_, collection)| collection);
        match collection.and_then(|collection| collection.replica_state(shard.number, node)) {
            Some(ReplicaState::Serving) => Ok(()),
            _ => {
                let detail = format!("this leaf does not serve shard {shard}");
                Err(Problem::new(Code::Unavailable, detail).hint("copy it from a leaf that serves it"))
            }
        }
    }

    /// Cancels uploads that no aggregator has polled for two minutes, and forgets finished ones.
    pub(super) fn expire_snapshot_writes(&self) {
        self.snapshot_writes.known.lock().retain(|_, write| {
            let is_kept = write.asked.elapsed() < KEPT;
            if !is_kept {
                write.stop.cancel();
            }
            is_kept
        });
    }
}

/// Writes one shard.
struct Writer {
    leaf: Weak<Leaf>,
    permits: Arc<Semaphore>,
    store: SnapshotStore,
    request: ShardSnapshotRequest,
    pace: LeafPace,
}

impl Writer {
    async fn run(self) -> Result<StoredObject, Problem> {
        let permit = tokio::select! {
            permit = self.permits.acquire() => permit,
            () = self.pace.stop.cancelled() => return Err(given_up()),
        };
        let _until_it_is_written = permit.map_err(|_| shutting_down())?;
        let leaf = self.leaf.upgrade().ok_or_else(shutting_down)?;
        let folder = leaf
            .options
            .folder
            .join(format!("{OFFERED}{}", Uuid::now_v7().simple()));
        let written = self.write(leaf, folder.clone()).await;
        // What is left is removed at the next start.
        let _ = tokio::task::spawn_blocking(move || remove(&folder)).await;
        let (shard, snapshot) = (self.request.shard, &self.request.snapshot);
        match &written {
            Ok(_) => {
                let ShardSnapshotStatus { total, written, .. } = *self.pace.status.lock();
                metrics::counter!("rachis_leaf_snapshot_bytes_total").increment(written);
                info!(%shard, %snapshot, bytes = total, written, "a shard was written to the snapshot store");
            }
            Err(problem) => warn!(%shard, %snapshot, %problem, "a shard was not written to the snapshot store"),
        }
        written
    }

    async fn write(&self, leaf: Arc<Leaf>, folder: PathBuf) -> Result<StoredObject, Problem> {
        let shard = leaf.shard(self.request.shard).await?;
        // What a replica lacks that may not answer now, the snapshot would lack for ever.
        let until = Instant::now() + ANSWER_WAIT;
        leaf.wait_until_it_may_answer(&shard, until).await?;
        leaf.wait_for_changes(&shard, until).await?;
        let source = blocking(move || {
            let files = copy_to(&leaf.shards, &shard, &folder)?;
            let files = files.into_iter().map(|(name, bytes)| {
                let never_changes = never_changes(&name);
                (name, bytes, never_changes)
            });
            let copied = Store::open_read_only(shard.id, &folder.join(STORE_FOLDER), leaf.services.tables_open_max)?;
            let about = ShardFiles {
                shard: shard.id,
                store: Uuid::from_u128(shard.store().incarnation()),
                positions: positions(&copied.partitions()?),
                digests: copied.digests(DIGESTS_MAX)?,
                files: Vec::new(),
            };
            Ok::<_, Error>(ShardSource {
                files: files.collect(),
                folder,
                about,
            })
        });
        let source = source.await?;
        self.pace.status.lock().total = source.files.iter().map(|(_, bytes, _)| bytes).sum();
        let earlier = match &self.request.earlier {
            Some(earlier) => self.store.get_json::<ShardFiles>(earlier).await,
            None => return write_shard(&self.store, source, None, &self.pace).await,
        };
        if let Err(problem) = &earlier {
            let shard = self.request.shard;
            warn!(%shard, %problem, "an earlier snapshot cannot be read: all files of a shard are written again");
        }
        write_shard(&self.store, source, earlier.as_ref().ok(), &self.pace).await
    }
}

/// Keeps a write below the rate of copies, and ends it.
struct LeafPace {
    leaf: Weak<Leaf>,
    status: Arc<Mutex<ShardSnapshotStatus>>,
    stop: CancellationToken,
}

#[async_trait]
impl Pace for LeafPace {
    async fn wait(&self) -> Result<(), Problem> {
        loop {
            if self.stop.is_cancelled() {
                return Err(given_up());
            }
            match self.leaf.upgrade().ok_or_else(shutting_down)?.pause_of_reads() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Ok(()),
            }
        }
    }

    fn wrote(&self, bytes: u64) {
        let mut status = self.status.lock();
        (status.bytes, status.written) = (status.bytes + bytes, status.written + bytes);
        if let Some(leaf) = self.leaf.upgrade() {
            leaf.note_read(bytes);
        }
    }

    fn had(&self, bytes: u64) {
        self.status.lock().bytes += bytes;
    }
}

fn given_up() -> Problem {
    Problem::new(Code::Cancelled, "no aggregator has polled this upload for two minutes")
}

fn shutting_down() -> Problem {
    Problem::new(Code::Unavailable, "the leaf is shutting down")
}
