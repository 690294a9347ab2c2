//! Copies of replicas: a replica that has nothing yet is copied from a leaf that serves the shard, and then fed from the
//! log from there on.
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
//! stopped, if the other leaf still has the same replica: its tables never change. If no other leaf serves the shard, the
//! replica is filled from the log.

mod incoming;
mod offered;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{
    Catalog,
    catalog::{Collection, Move, ReplicaState},
    cluster::NodeName,
    ingest::{CopyStatus, ShardId},
};
use tracing::{info, warn};
use uuid::Uuid;

use self::{incoming::Incoming, offered::Offered};
use super::Leaf;

/// What the name of a folder with an offered copy begins with.
pub(super) const OFFERED: &str = "copy-";

/// The lowest rate of copies, in bytes per second. Below it, the other leaf would remove a copy between two reads.
const RATE_MIN: u64 = 64 << 10;

/// The copies that this leaf makes and offers.
#[derive(Default)]
pub(super) struct Copies {
    /// Shards that are copied from other leaves, or wait for their next attempt.
    incoming: Mutex<BTreeMap<ShardId, Incoming>>,
    /// Copies that other leaves read.
    offered: Mutex<HashMap<Uuid, Offered>>,
    /// Shards that wait for a copy, as of the last round.
    waiting: Mutex<Vec<ShardId>>,
    /// When the next part of a file may be read.
    next_read: Mutex<Option<Instant>>,
    /// When this process first saw that a shard had left the leaf.
    left: Mutex<HashMap<ShardId, Instant>>,
}

impl Leaf {
    /// Whether the replica of a shard on this leaf waits for a copy of another one, as of a catalog.
    pub(super) fn awaits_copy(&self, catalog: &Catalog, shard: ShardId) -> bool {
        let (Some(node), Some((_, collection))) = (&self.options.node, catalog.collection(shard.collection)) else {
            return false;
        };
        let is_behind = matches!(
            collection.replica_state(shard.number, node),
            Some(ReplicaState::Behind { .. })
        );
        is_behind
            && sources(catalog, collection, shard.number, node).next().is_some()
            && match placed_since(collection, shard.number, node) {
                // What is there may be of an earlier placement; this catalog may be an older one.
                Some(since) => self.shards.placed_since(shard).is_none_or(|placed| placed < since),
                None => self.shards.placed_since(shard).is_none(),
            }
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
            left.into_iter().filter(is_due).collect::<Vec<ShardId>>()
        };
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
