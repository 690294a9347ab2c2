//! Background maintenance on one low-rate thread: it expires old dead letters, opens shards that have documents to erase,
//! scrubs split files, and rebuilds damaged splits.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use proto::ingest::ShardId;
use tracing::{info, warn};

use super::{CloseSignal, Leaf, scrub::Scrubber};
use crate::{
    error::Error,
    shard::{Shard, dead_letters::dead_letter_cutoff_ms, erase::erase_before_ms, summary::Summary},
};

/// Pause between two rounds.
const ROUND_EVERY: Duration = Duration::from_millis(100);
/// Pause between two searches for damaged splits, which also retry failed rebuilds. The rebuilds themselves run one at
/// a time per leaf, on the thread of `Task::Merge`.
const REBUILD_EVERY: Duration = Duration::from_secs(2);
/// Dead letters are checked a hundred times per retention period, and at least this often.
const EXPIRE_EVERY_MAX: Duration = Duration::from_secs(3_600);
/// Time limit for removing the dead letters of one shard; a shard that has more goes to the back of the queue.
const EXPIRE_TIME_MAX: Duration = Duration::from_secs(1);

/// Runs until the leaf is closed.
pub(super) fn run(leaf: &Weak<Leaf>, closed: &CloseSignal) {
    let (mut expires_at, mut expiring) = (Instant::now(), VecDeque::new());
    let (mut scrubber, mut rebuilds_at) = (Scrubber::new(), Instant::now());
    loop {
        let mut ended = closed.0.lock();
        if !*ended {
            closed.1.wait_for(&mut ended, ROUND_EVERY);
        }
        if *ended {
            return;
        }
        drop(ended);
        let Some(leaf) = leaf.upgrade() else { return };
        scrubber.run(&leaf);
        if Instant::now() >= rebuilds_at {
            for shard in leaf.shards.all() {
                if let Some(shard) = shard.upgrade() {
                    shard.rebuild_damaged_splits();
                }
            }
            rebuilds_at = Instant::now() + REBUILD_EVERY;
        }
        if expiring.is_empty() && Instant::now() >= expires_at {
            let pause = (leaf.options.dead_letters_kept / 100).min(leaf.options.deleted_kept);
            let pause = pause.clamp(ROUND_EVERY, EXPIRE_EVERY_MAX);
            (expires_at, expiring) = (Instant::now() + pause, leaf.stored_shards().into());
        }
        leaf.expire_dead_letters(&mut expiring);
    }
}

impl Leaf {
    /// Removes expired dead letters of the first of these shards, for a short time only: other maintenance must not
    /// wait for all shards. Handles one shard at a time, so that the others can be closed meanwhile.
    fn expire_dead_letters(&self, queue: &mut VecDeque<ShardId>) {
        let until = Instant::now() + ROUND_EVERY;
        while Instant::now() < until
            && let Some(id) = queue.pop_front()
        {
            let shard = match self.open_if_expired(id) {
                Ok(Some(shard)) => shard,
                Ok(None) => continue,
                Err(error) => {
                    warn!(shard = %id, %error, "could not remove expired dead letters; this will be retried");
                    continue;
                }
            };
            match shard.expire_dead_letters(Instant::now() + EXPIRE_TIME_MAX) {
                Ok(expired) => {
                    if !expired.complete {
                        queue.push_back(id);
                    }
                    if expired.letters > 0 {
                        info!(shard = %shard.id, letters = expired.letters, "removed expired dead letters");
                    }
                }
                Err(error) => {
                    warn!(shard = %shard.id, %error, "could not remove expired dead letters; this will be retried");
                }
            }
        }
    }

    /// The shards of this node that have a folder, open or not.
    pub(super) fn stored_shards(&self) -> Vec<ShardId> {
        let catalog = self.catalog.borrow().clone();
        let stored = self.shards.stored(&catalog).unwrap_or_else(|error| {
            warn!(%error, "could not read the folder of the shards; background maintenance is postponed");
            Vec::new()
        });
        stored
            .into_iter()
            .filter(|id| self.check_placement(*id).is_ok())
            .collect()
    }

    /// The shard, if it may have expired dead letters, or deleted documents to erase, which begins when it opens. A closed
    /// shard is opened only if the disk has room and its summary does not rule out both.
    fn open_if_expired(&self, id: ShardId) -> Result<Option<Arc<Shard>>, Error> {
        if let Some(shard) = self.shards.peek(id) {
            return Ok((!shard.store().is_read_only()).then_some(shard));
        }
        let has_expired = |summary: Summary| {
            let dead_letter_ms = summary.oldest_dead_letter_ms;
            dead_letter_ms.is_some_and(|oldest| oldest < dead_letter_cutoff_ms(&self.options))
                || (summary.unerased).is_some_and(|(_, oldest)| oldest <= erase_before_ms(&self.options))
        };
        match self.services.disk.has_room() && self.shards.summary(id).is_none_or(has_expired) {
            true => self.shards.open_unused(id).map(Some),
            false => Ok(None),
        }
    }
}
