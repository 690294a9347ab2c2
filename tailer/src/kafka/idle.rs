//! Compares the position of idle partitions with that of their leaf.
//!
//! A leaf that came back from an older disk has less than it has acknowledged. A partition with nothing to send would
//! not notice, so its leaf is asked from time to time, and gets the missing records again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::warn;

use super::{slot::PartitionSlot, task::SourceTask};

/// How often the positions are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// How long a leaf may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// The number of partitions that are compared concurrently.
const COMPARE_CONCURRENCY: usize = 16;

/// The comparison of one source. At most one round runs at a time.
pub(super) struct IdleComparison {
    started: Instant,
    running: Option<JoinHandle<()>>,
}

impl IdleComparison {
    /// A comparison whose first round is due after [`COMPARE_EVERY`].
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            running: None,
        }
    }

    /// Starts a round in the background, if one is due.
    pub(super) fn start_if_due(
        &mut self,
        task: &Arc<SourceTask>,
        slots: &BTreeMap<i32, Arc<PartitionSlot>>,
        handle: &Handle,
    ) {
        if self.started.elapsed() < COMPARE_EVERY || self.running.as_ref().is_some_and(|round| !round.is_finished()) {
            return;
        }
        self.started = Instant::now();
        let replicas = slots.values().flat_map(|slot| {
            let idle_at = |replica| Some((slot.clone(), replica, slot.partition.lock().idle_at(replica)?));
            (0..slot.replicas.len()).filter_map(idle_at).collect::<Vec<_>>()
        });
        let idle: Vec<IdleReplica> = replicas.collect();
        let task = task.clone();
        let compare = move |idle: IdleReplica| compare(task.clone(), idle);
        self.running =
            Some(handle.spawn(futures::stream::iter(idle).for_each_concurrent(COMPARE_CONCURRENCY, compare)));
    }
}

/// A replica to which nothing is to be sent, and the position that it has acknowledged.
type IdleReplica = (Arc<PartitionSlot>, usize, i64);

async fn compare(task: Arc<SourceTask>, (slot, replica, acknowledged): IdleReplica) {
    let asked = &slot.replicas[replica];
    let stored = asked.leaf.stored(asked.shard, &task.source, slot.number);
    // A leaf that does not answer still has what it has; the next round asks it again. It must not hold up the others.
    let Ok(Ok(stored)) = tokio::time::timeout(ANSWER_WAIT, stored).await else {
        return;
    };
    if stored.offset < acknowledged {
        warn!(
            source = %task.source,
            partition = slot.number,
            stored = stored.offset,
            acknowledged,
            "the leaf has less than it has acknowledged: sending the missing records again"
        );
        slot.partition.lock().resolve(replica);
        slot.wake();
    }
}
