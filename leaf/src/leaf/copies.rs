//! Copies of replicas: a replica that has nothing yet is copied from a leaf that serves the shard, and then fed from the
//! log from there on. If its collection was restored from a snapshot and no leaf has the shard yet, it is copied from there;
//! if no leaf that exists served the shard any more, from the newest snapshot that has it.
//!
//! ```text
//! leaf-4 ── offer a copy of shard 3 ──> leaf-1: a checkpoint of its rows, links to its splits
//!        <── id, files ─────────────────
//!        ── bytes of a file, from … ──>          again and again, into `3.copying`
//!        ── end ──────────────────────>
//!        renames the folder: the shard opens like any other
//! ```
//!
//! While a replica waits for its copy, this leaf accepts nothing for the shard. A copy that breaks off goes on where it
//! stopped, if the other leaf still has the same replica: its tables never change. If neither a leaf nor a snapshot has the
//! shard, the replica is filled from the log.

mod incoming;
pub(in crate::leaf) mod offered;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{
    Catalog, Code, CollectionName, CollectionUid, Problem,
    catalog::{Change, Collection, Move, ReplicaState},
    cluster::NodeName,
    ingest::{CopyStatus, ShardId},
    replica::ReplicaPeers,
    snapshot::SnapshotId,
    tailer::Changes,
};
use tracing::{info, warn};
use uuid::Uuid;

pub(in crate::leaf) use self::incoming::never_changes;
use self::{incoming::Incoming, offered::Offered, source::CopySource};
use super::Leaf;

/// What the name of a folder with an offered copy begins with.
pub(super) const OFFERED: &str = "copy-";

/// The lowest rate of copies, in bytes per second. Below it, the other leaf would remove a copy between two reads.
const RATE_MIN: u64 = 64 << 10;

/// How long one round closes shards that have left: other housekeeping must not wait for many.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// How often a leaf that holds all shards looks whether one is to be restored.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The copies that this leaf makes and offers.
#[derive(Default)]
pub(super) struct Copies {
    /// Shards that are copied from other leaves, or wait for their next attempt.
    incoming: Mutex<BTreeMap<ShardId, Incoming>>,
    /// When shards were put in place that were copied from other leaves, and that may lack what was written since.
    catching_up: Mutex<HashMap<ShardId, Instant>>,
    /// Copies that other leaves read.
    offered: Mutex<HashMap<Uuid, Offered>>,
    /// Shards that wait for a copy, as of the last round.
    waiting: Mutex<Vec<ShardId>>,
    /// When the next part of a file may be read.
    next_read: Mutex<Option<Instant>>,
    /// Snapshots that have turned out to be damaged.
    damaged: Mutex<BTreeSet<SnapshotId>>,
    /// When this process first saw that a shard had left the leaf.
    left: Mutex<HashMap<ShardId, Instant>>,
}

impl Leaf {
    /// Whether the replica of a shard on this leaf waits for a copy of another one, or of a snapshot, as of a catalog.
    pub(super) fn awaits_copy(&self, catalog: &Catalog, shard: ShardId) -> bool {
        self.copied_from(catalog, shard).is_some()
    }

    /// What the replica of a shard on this leaf is a copy of, if it waits for one, as of a catalog.
    fn copied_from<'a>(&self, catalog: &'a Catalog, shard: ShardId) -> Option<Origin<'a>> {
        let (_, collection) = catalog.collection(shard.collection)?;
        let number = shard.number;
        // What is there may be of an earlier placement; this catalog may be an older one.
        let has_none_since = |since: u64| self.shards.placed_since(shard).is_none_or(|placed| placed < since);
        let node = self.options.node.as_ref();
        let state = node.and_then(|node| collection.replica_state(number, node));
        if let (Some(node), Some(ReplicaState::Behind { .. })) = (node, state)
            && sources(catalog, collection, number, node).next().is_some()
        {
            let is_missing = match placed_since(collection, number, node) {
                Some(since) => has_none_since(since),
                None => self.shards.placed_since(shard).is_none(),
            };
            return is_missing.then_some(Origin::Leaves(collection));
        }
        let snapshot = self.awaited_snapshot(collection, number)?;
        has_none_since(snapshot.since).then_some(Origin::Snapshot(snapshot))
    }

    /// Which snapshot the replica of a shard on this leaf is copied from, or was, as long as the catalog does not know it.
    fn awaited_snapshot(&self, collection: &Collection, number: u32) -> Option<FromSnapshot> {
        if !self.owns(collection, number) {
            return None;
        }
        if let Some(restored) = &collection.restored
            && restored.awaited.contains(&number)
        {
            return Some(FromSnapshot {
                id: Some(restored.snapshot.clone()),
                collection: restored.collection,
                since: restored.since,
                is_needed: true,
            });
        }
        let node = self.options.node.as_ref()?;
        let serves = collection.replica_state(number, node) == Some(ReplicaState::Serving);
        let since = collection.lost.get(&number).filter(|_| serves)?;
        Some(FromSnapshot {
            id: None,
            collection: collection.uid,
            since: *since,
            // The topics of a restored copy begin after what its snapshot has.
            is_needed: !collection.own_topics_after.is_empty(),
        })
    }

    /// Fails if the replica of a shard on this leaf waits for a copy.
    pub(super) fn check_copied(&self, catalog: &Catalog, name: &CollectionName, shard: ShardId) -> Result<(), Problem> {
        let (detail, hint) = match self.copied_from(catalog, shard) {
            None => return Ok(()),
            Some(Origin::Leaves(_)) => ("copied to this node".to_owned(), "another replica answers"),
            Some(Origin::Snapshot(snapshot)) => (format!("restored from {snapshot}"), "retry once it is there"),
        };
        let detail = format!("shard {} of {name} is being {detail}", shard.number);
        Err(Problem::new(Code::Unavailable, detail)
            .hint(format!("{hint}; `select * from rachis.moves` shows the progress")))
    }

    /// The shards that this leaf has restored from snapshots, and of which the catalog does not know it yet.
    pub(super) fn restored_here(&self, catalog: &Catalog) -> Vec<ShardId> {
        let mut here = Vec::new();
        for collection in catalog.collections.values() {
            if !collection.may_await_snapshots() {
                continue;
            }
            let is_placed = |shard: &ShardId| {
                let snapshot = self.awaited_snapshot(collection, shard.number);
                // One that cannot be read is not known to be there.
                let known = self.shards.placed_since(*shard).filter(|placed| *placed < u64::MAX);
                let placed = |since| known.is_some_and(|placed| placed >= since);
                snapshot.is_some_and(|snapshot| placed(snapshot.since))
            };
            here.extend(collection.shards().filter(is_placed));
        }
        here
    }

    /// Has shards copied from other leaves, and those that were restored or lost from snapshots.
    pub(super) fn copy_shards(
        &self,
        catalog: &Catalog,
        peers: Option<&Arc<dyn ReplicaPeers>>,
        of_leaves: &BTreeSet<ShardId>,
    ) {
        let restored = self.awaiting_snapshots(catalog);
        let all: BTreeSet<ShardId> = of_leaves.iter().copied().chain(restored).collect();
        self.copy_missing(catalog, peers, &all.into_iter().collect::<Vec<ShardId>>());
    }

    /// Restores shards of a leaf that holds all, until it is dropped.
    pub async fn keep_restoring(leaf: Weak<Self>, changes: Arc<dyn Changes>) {
        let Some(mut catalog) = leaf.upgrade().map(|leaf| leaf.catalog.clone()) else {
            return;
        };
        loop {
            let Some(open) = leaf.upgrade() else { return };
            let now = catalog.borrow_and_update().clone();
            open.copy_shards(&now, None, &BTreeSet::new());
            let shards = open.restored_here(&now);
            drop(open);
            if !shards.is_empty() {
                let placed = Change::PlaceRestored {
                    leaf: None,
                    instance: Uuid::nil(),
                    shards,
                };
                if let Err(problem) = changes.propose(placed, None).await {
                    warn!(%problem, "restored shards cannot be noted; this will be retried");
                }
            }
            // A copy that has failed is repeated, and only so many run at once.
            let _ = tokio::time::timeout(LOOK_EVERY, catalog.changed()).await;
        }
    }

    /// The shards that this leaf has to copy from snapshots.
    fn awaiting_snapshots(&self, catalog: &Catalog) -> Vec<ShardId> {
        let collections = catalog.collections.values();
        let shards = collections
            .filter(|collection| collection.may_await_snapshots())
            .flat_map(Collection::shards);
        let is_awaited = |shard: &ShardId| matches!(self.copied_from(catalog, *shard), Some(Origin::Snapshot(_)));
        shards.filter(is_awaited).collect()
    }

    /// The shards that this leaf copies, and those that wait for it.
    pub(super) fn copy_status(&self) -> Vec<CopyStatus> {
        let incoming = self.copies.incoming.lock();
        let waiting = self.copies.waiting.lock().clone();
        let status = |shard: ShardId| match incoming.get(&shard) {
            Some(copy) => copy.status(shard),
            None => CopyStatus::waiting(shard),
        };
        waiting.into_iter().map(status).collect()
    }

    /// Removes offered copies that no leaf has read for two minutes, and one shard that left this leaf longer than
    /// `moved_kept` ago.
    pub(super) fn remove_moved(&self, catalog: &Catalog) {
        self.expire_copies();
        let left: BTreeSet<ShardId> = match &self.options.node {
            Some(node) => {
                let shards = catalog
                    .collections
                    .values()
                    .flat_map(|collection| left_by(collection, node));
                shards.filter(|shard| self.has_left(catalog, *shard)).collect()
            }
            None => BTreeSet::new(),
        };
        let due = {
            let mut known = self.copies.left.lock();
            known.retain(|id, _| left.contains(id));
            let is_due =
                |id: &ShardId| known.entry(*id).or_insert_with(Instant::now).elapsed() >= self.options.moved_kept;
            left.iter().copied().filter(is_due).collect::<Vec<ShardId>>()
        };
        // Meanwhile they take no memory, and nothing is built for them. Questions that began before may read them.
        let began = Instant::now();
        for id in left.iter().take_while(|_| began.elapsed() < CLOSED_WITHIN) {
            self.shards
                .close_left(*id, || self.has_left(&self.catalog.borrow().clone(), *id));
        }
        let open = self.shards.all();
        for shard in open.iter().filter_map(Weak::upgrade).filter(|shard| shard.has_left()) {
            // One may serve again without a copy, if the leaves that have one were lost.
            if self.check_placement(shard.id).is_ok() {
                shard.build_again();
            }
        }
        // One at a time: other housekeeping must not wait for many.
        for id in due {
            let has_left = || self.has_left(&self.catalog.borrow().clone(), id);
            match self.shards.replace_folder(id, None, has_left) {
                Ok(true) => {
                    info!(shard = %id, "removed a shard that was moved to another leaf");
                    break;
                }
                Ok(false) => {}
                Err(error) => warn!(shard = %id, %error, "could not remove a shard that was moved to another leaf"),
            }
        }
    }

    /// Whether there are files of a shard that has left this leaf, as of a catalog.
    fn has_left(&self, catalog: &Catalog, shard: ShardId) -> bool {
        let (Some(node), Some((_, collection))) = (&self.options.node, catalog.collection(shard.collection)) else {
            return false;
        };
        let left = collection.left.get(&shard.number).and_then(|left| left.get(node));
        // A folder of a later placement is not the one that left: this catalog may be an old one.
        let is_of_earlier = |since: &u64| self.shards.placed_since(shard).is_some_and(|placed| placed < *since);
        !collection.replicas_of(shard.number).contains(node) && left.is_some_and(is_of_earlier)
    }
}

/// What a replica that has nothing yet is a copy of.
enum Origin<'a> {
    /// The replicas on other leaves.
    Leaves(&'a Collection),
    /// A snapshot.
    Snapshot(FromSnapshot),
}

/// The snapshot that a shard is copied from.
#[derive(Debug, Clone)]
struct FromSnapshot {
    /// `None`: the newest one that has the shard.
    id: Option<SnapshotId>,
    /// The collection in the snapshot.
    collection: CollectionUid,
    /// The catalog version since which the files of the shard must be placed here.
    since: u64,
    /// Whether the shard cannot begin empty.
    is_needed: bool,
}

impl FromSnapshot {
    /// What no snapshot has.
    fn nothing<T>(&self) -> Result<Option<T>, Problem> {
        if !self.is_needed {
            return Ok(None);
        }
        let detail =
            "no snapshot has this collection, which was itself restored from one: its first documents are nowhere else";
        Err(Problem::new(Code::Unavailable, detail)
            .hint("set the snapshot store in [snapshots] that it was restored from, or drop it and restore it again"))
    }
}

impl fmt::Display for FromSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "snapshot {id}"),
            None => f.write_str("the newest snapshot"),
        }
    }
}

/// The shards of a collection that have left a leaf.
fn left_by<'a>(collection: &'a Collection, node: &'a NodeName) -> impl Iterator<Item = ShardId> + 'a {
    let left = collection.left.iter().filter(move |(_, left)| left.contains_key(node));
    left.map(|(number, _)| ShardId {
        collection: collection.uid,
        number: *number,
    })
}

/// The catalog version since which a replica that does not serve yet has been placed; `None` if it was there before.
fn placed_since(collection: &Collection, shard: u32, node: &NodeName) -> Option<u64> {
    let moves = collection.moves.get(&shard)?;
    moves.get(node).map(|Move { since, .. }| *since)
}

/// The leaves that a replica can be copied from.
fn sources<'a>(
    catalog: &'a Catalog,
    collection: &'a Collection,
    shard: u32,
    node: &'a NodeName,
) -> impl Iterator<Item = &'a NodeName> {
    let serving = collection.serving(shard);
    serving.filter(move |leaf| *leaf != node && catalog.members.contains_key(*leaf))
}

/// When the next read may begin after one of so many bytes, so that the reads together stay below the rate.
fn next_read(known: Option<Instant>, bytes: u64, bytes_per_second: u64, now: Instant) -> Instant {
    let from = known.map_or(now, |known| known.max(now));
    from + Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(RATE_MIN) as f64)
}

#[cfg(test)]
mod tests;
