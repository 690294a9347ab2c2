//! A partition as the poll thread and its senders share it, and the replicas that it is sent to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use proto::{
    catalog::{PartitionRoute, PartitionShare, Skip},
    cluster::NodeName,
    ingest::{Ingest, ShardId},
};
use tokio::sync::Notify;

use super::partition::{BatchLimits, Partition};

/// A partition, shared by the poll thread (fills it) and a sender for each replica (empty it).
pub(super) struct PartitionSlot {
    /// The number of the partition.
    pub number: i32,
    /// The state. Locked only for moments.
    pub partition: Mutex<Partition>,
    /// The replicas that it is sent to, in the order of their cursors.
    pub replicas: Vec<Replica>,
    /// All replicas of its shards.
    pub all_replicas: Vec<Replica>,
    /// Held while it is decided where a replica begins that has nothing.
    pub starting: tokio::sync::Mutex<()>,
    /// The most bytes of a batch, once a larger one took too long.
    halved: AtomicUsize,
}

/// A replica of a shard, as the receiver of a partition.
#[derive(Clone)]
pub(super) struct Replica {
    pub shard: ShardId,
    pub part: Part,
    /// The leaf that holds it; `None` if one process holds all shards.
    pub name: Option<NodeName>,
    pub leaf: Arc<dyn Ingest>,
    /// Wakes its sender.
    pub wake: Arc<Notify>,
}

impl Replica {
    /// Whether this is the same replica, and gets the same records.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.shard, &self.name, &self.part) == (other.shard, &other.name, &other.part)
    }
}

/// The records of a partition that belong to one shard.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub share: PartitionShare,
    pub route: Arc<PartitionRoute>,
}

impl Part {
    pub(super) fn has(&self, offset: i64) -> bool {
        !self.route.is_spread() || self.route.shard_at(offset) == self.share.shard
    }
}

impl PartitionSlot {
    /// A partition whose positions are not known yet.
    pub(super) fn new(number: i32, limits: BatchLimits, skips: &[Skip], replicas: Vec<Replica>) -> Arc<Self> {
        Self::of_some(number, limits, skips, replicas.clone(), replicas)
    }

    /// The same, sent to some of the replicas only.
    pub(super) fn of_some(
        number: i32,
        limits: BatchLimits,
        skips: &[Skip],
        replicas: Vec<Replica>,
        all_replicas: Vec<Replica>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            partition: Partition::new(limits, skips, replicas.iter().map(|replica| replica.part.clone())).into(),
            replicas,
            all_replicas,
            starting: Default::default(),
            halved: usize::MAX.into(),
        })
    }

    /// Notes that batches are to have at most so many bytes: a larger one took too long.
    pub(super) fn note_halved(&self, bytes: usize) {
        self.halved.fetch_min(bytes, Ordering::Relaxed);
    }

    /// The most bytes of a batch, as far as one has taken too long.
    pub(super) fn halved(&self) -> usize {
        self.halved.load(Ordering::Relaxed)
    }

    /// Whether it is read for a replica that is behind.
    pub(super) fn is_apart(&self) -> bool {
        self.replicas.len() < self.all_replicas.len()
    }

    /// Wakes the senders.
    pub(super) fn wake(&self) {
        self.replicas.iter().for_each(|replica| replica.wake.notify_one());
    }

    /// Why records are held back, or the last error of a replica, with its name if there are several.
    pub(super) fn error(&self) -> Option<String> {
        let partition = self.partition.lock();
        if let Some(reason) = partition.held_back() {
            return Some(reason.to_string());
        }
        let (cursor, error) = partition.error()?;
        Some(match &self.replicas[cursor].name {
            Some(name) if self.replicas.len() > 1 => format!("replica on {name}: {error}"),
            _ => error.to_string(),
        })
    }
}
