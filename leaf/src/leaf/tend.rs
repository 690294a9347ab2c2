//! Background maintenance on one low-rate thread: it expires old dead letters, scrubs split files, and rebuilds damaged
//! splits.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use proto::ingest::ShardId;
use tracing::{info, warn};

use super::{Closed, Leaf, scrub::Scrubber};
use crate::{
    error::Error,
    shard::{Shard, dead_letters::expired_before_ms, summary::Summary},
};

/// The tender looks so often whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What was found to be damaged is built again so soon, and again where that failed.
const MEND_EVERY: Duration = Duration::from_secs(2);
/// Dead letters are looked at a hundred times while they are kept, and at least so often.
const EXPIRE_EVERY_MAX: Duration = Duration::from_secs(3_600);
/// A shard with very many old dead letters takes so long at once.
const EXPIRE_TIME: Duration = Duration::from_secs(1);

/// Runs until the leaf is closed.
pub fn tend(leaf: &Weak<Leaf>, closed: &Closed) {
    let (mut expires_at, mut expiring) = (Instant::now(), VecDeque::new());
    let (mut scrubber, mut mends_at) = (Scrubber::new(), Instant::now());
    loop {
        let mut ended = closed.0.lock();
        if !*ended {
            closed.1.wait_for(&mut ended, LOOK_EVERY);
        }
        if *ended {
            return;
        }
        drop(ended);
        let Some(leaf) = leaf.upgrade() else { return };
        scrubber.run(&leaf);
        if Instant::now() >= mends_at {
            for shard in leaf.shards.all() {
                if let Some(shard) = shard.upgrade() {
                    shard.mend();
                }
            }
            mends_at = Instant::now() + MEND_EVERY;
        }
        if expiring.is_empty() && Instant::now() >= expires_at {
            let pause = (leaf.options.dead_letters_kept / 100).clamp(LOOK_EVERY, EXPIRE_EVERY_MAX);
            (expires_at, expiring) = (Instant::now() + pause, leaf.here().into());
        }
        leaf.expire_dead_letters(&mut expiring);
    }
}

impl Leaf {
    /// Removes old dead letters of the first of these shards, for a short while: what else is tended to must not wait
    /// for all of them. One shard after another, so that others can be closed meanwhile.
    fn expire_dead_letters(&self, rest: &mut VecDeque<ShardId>) {
        let until = Instant::now() + LOOK_EVERY;
        while Instant::now() < until
            && let Some(id) = rest.pop_front()
        {
            let shard = match self.with_old_dead_letters(id) {
                Ok(Some(shard)) => shard,
                Ok(None) => continue,
                Err(error) => {
                    warn!(shard = %id, %error, "its old dead letters stay for now");
                    continue;
                }
            };
            match shard.expire_dead_letters(Instant::now() + EXPIRE_TIME) {
                Ok(expired) => {
                    if !expired.complete {
                        rest.push_back(id);
                    }
                    if expired.letters > 0 {
                        info!(shard = %shard.id, letters = expired.letters, "old dead letters are removed");
                    }
                }
                Err(error) => warn!(shard = %shard.id, %error, "old dead letters stay for now"),
            }
        }
    }

    /// The shards of this node of which something is stored, open or not.
    pub(super) fn here(&self) -> Vec<ShardId> {
        let catalog = self.catalog.borrow().clone();
        let stored = self.shards.stored(&catalog).unwrap_or_else(|error| {
            warn!(%error, "the folder of the shards could not be read; what is done in the background is left for later");
            Vec::new()
        });
        stored.into_iter().filter(|id| self.known(*id).is_ok()).collect()
    }

    /// The shard, if it may have dead letters that are too old. One that is closed is opened only if its summary does
    /// not say that it has none, and if there is room on the disk.
    fn with_old_dead_letters(&self, id: ShardId) -> Result<Option<Arc<Shard>>, Error> {
        if let Some(shard) = self.shards.peek(id) {
            return Ok((!shard.store().is_read_only()).then_some(shard));
        }
        let old = |summary: Summary| {
            summary
                .oldest_dead_letter_ms
                .is_some_and(|oldest| oldest < expired_before_ms(&self.options))
        };
        match self.crew.disk.has_room() && self.shards.summary(id).is_none_or(old) {
            true => self.shards.open_unused(id).map(Some),
            false => Ok(None),
        }
    }
}
