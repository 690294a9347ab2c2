//! How busy the leaves are, as the calls of this process show: which replica of a shard is asked first.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Peer;
use crate::{cluster::NodeName, problem::Problem};

/// A leaf that did not answer is asked last for this long.
const AVOIDED_FOR: Duration = Duration::from_secs(3);
/// A call that is given up after this time counts as failed.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(300);
/// A call is slow if it takes so many times as long as the last ones on average, …
const SLOW_TIMES: u32 = 5;
/// … but not sooner than this.
const SLOW_MIN: Duration = Duration::from_millis(100);
/// Of the mean duration of calls, each call is this part.
const WEIGHT: f64 = 0.1;

/// The calls of this process to each leaf. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LeafLoads {
    by_leaf: Arc<Mutex<HashMap<NodeName, Load>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// Calls that are not answered yet.
    calls: u32,
    /// The mean duration of the last calls that were answered.
    seconds: f64,
    /// When a call failed, if none was answered since.
    failed: Option<Instant>,
}

impl Load {
    /// How long a further call would wait, as far as one can say.
    fn wait(&self) -> f64 {
        f64::from(self.calls + 1) * self.seconds
    }

    fn is_avoided(&self) -> bool {
        self.failed.is_some_and(|at| at.elapsed() < AVOIDED_FOR)
    }
}

/// A call to a leaf. One that is dropped without an answer, because the caller does not wait any longer, counts as failed
/// if it took long.
pub struct LeafCall {
    is_ended: bool,
    loads: LeafLoads,
    leaf: NodeName,
    began: Instant,
}

impl LeafLoads {
    /// Notes that a call begins.
    pub fn begin(&self, leaf: &NodeName) -> LeafCall {
        self.by_leaf.lock().entry(leaf.clone()).or_default().calls += 1;
        LeafCall {
            is_ended: false,
            loads: self.clone(),
            leaf: leaf.clone(),
            began: Instant::now(),
        }
    }

    /// Puts leaves in the order in which to ask them: those that answer soonest first, those that have just failed last.
    /// Leaves that are about as busy stay in their order.
    pub fn sort(&self, peers: &mut [Peer]) {
        let by_leaf = self.by_leaf.lock();
        let load = |peer: &Peer| by_leaf.get(&peer.name).copied().unwrap_or_default();
        // In steps of a factor of two: the order must not follow noise.
        let rank = |load: Load| {
            (
                load.is_avoided(),
                (load.wait() * 1_000.0).max(1.0).log2().round() as i64,
            )
        };
        peers.sort_by_key(|peer| rank(load(peer)));
    }

    /// After how long a call to a leaf is slow, so that another replica is asked, too.
    pub fn slow_after(&self, leaf: &NodeName) -> Duration {
        let load = self.by_leaf.lock().get(leaf).copied().unwrap_or_default();
        (Duration::from_secs_f64(load.seconds) * SLOW_TIMES).max(SLOW_MIN)
    }
}

impl LeafCall {
    /// Notes the answer.
    pub fn end<T>(mut self, answer: &Result<T, Problem>) {
        self.is_ended = true;
        let mut by_leaf = self.loads.by_leaf.lock();
        let load = by_leaf.entry(self.leaf.clone()).or_default();
        match answer {
            Err(problem) if problem.code.is_of_one_replica() => load.failed = Some(Instant::now()),
            _ => {
                load.failed = None;
                let seconds = self.began.elapsed().as_secs_f64();
                load.seconds += (seconds - load.seconds) * if load.seconds == 0.0 { 1.0 } else { WEIGHT };
            }
        }
    }
}

impl Drop for LeafCall {
    fn drop(&mut self) {
        if let Some(load) = self.loads.by_leaf.lock().get_mut(&self.leaf) {
            load.calls -= 1;
            if !self.is_ended && self.began.elapsed() > GIVEN_UP_AFTER {
                load.failed = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests;
