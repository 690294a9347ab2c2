//! The gate that keeps the load in step with the plan: it says how many records may have been sent by now.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far the load may go.
pub(crate) struct Gate {
    millionths: AtomicU64,
    /// Records to push.
    pub push_quota: u64,
    /// Records to produce.
    pub produce_quota: u64,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn new(push_quota: u64, produce_quota: u64) -> Self {
        Self {
            millionths: AtomicU64::new(0),
            push_quota,
            produce_quota,
        }
    }

    /// Opens the gate up to this share of both quotas. It never closes again.
    pub(crate) fn open_to(&self, fraction: f64) {
        self.millionths
            .fetch_max((fraction.min(1.0) * 1e6) as u64, Ordering::Relaxed);
    }

    fn share(&self, quota: u64) -> u64 {
        quota * self.millionths.load(Ordering::Relaxed) / 1_000_000
    }

    /// Records that may have been pushed by now.
    pub(crate) fn push_now(&self) -> u64 {
        self.share(self.push_quota)
    }

    /// Records that may have been produced by now. Stays in step with `pushed`, so that both kinds are always in
    /// flight.
    pub(crate) fn produce_now(&self, pushed: u64) -> u64 {
        const AHEAD_MAX: u64 = 500;
        // With a smaller lead, a short run does not end before its last kill.
        let ahead = (self.produce_quota / 20).min(AHEAD_MAX);
        let in_step = (pushed * self.produce_quota)
            .checked_div(self.push_quota)
            .unwrap_or(self.produce_quota);
        self.share(self.produce_quota).min(in_step + ahead)
    }
}
