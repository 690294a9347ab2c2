//! Background maintenance on one low-rate thread: it expires old dead letters, scrubs split files, and rebuilds damaged splits.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{Closed, Leaf, scrub::Scrubber};
use crate::shard::Shard;

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
    let mut expires_at = Instant::now();
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
        scrubber.run(&leaf.shards, &leaf.options);
        if Instant::now() >= mends_at {
            leaf.shards.all().iter().for_each(Shard::mend);
            mends_at = Instant::now() + MEND_EVERY;
        }
        if Instant::now() >= expires_at {
            let complete = leaf.expire_dead_letters();
            let pause = (leaf.options.dead_letters_kept / 100).clamp(LOOK_EVERY, EXPIRE_EVERY_MAX);
            expires_at = Instant::now() + if complete { pause } else { LOOK_EVERY };
        }
    }
}

impl Leaf {
    /// Removes old dead letters, and answers whether all of them are gone.
    fn expire_dead_letters(&self) -> bool {
        let mut complete = true;
        for shard in self.shards.all().into_iter().filter(|shard| shard.failure().is_none()) {
            if *self.closed.0.lock() {
                return true;
            }
            match shard.expire_dead_letters(Instant::now() + EXPIRE_TIME) {
                Ok(expired) => {
                    complete &= expired.complete;
                    if expired.letters > 0 {
                        info!(shard = %shard.id, letters = expired.letters, "old dead letters are removed");
                    }
                }
                Err(error) => warn!(shard = %shard.id, %error, "old dead letters stay for now"),
            }
        }
        complete
    }
}
