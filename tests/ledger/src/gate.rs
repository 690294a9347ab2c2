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

    /// Records that may have been pushed by now, when so many were produced. Pushing stays in step with producing, so
    /// that both kinds are in flight until the end, even if one stands still for a while.
    pub(crate) fn push_now(&self, produced: u64) -> u64 {
        let in_step = in_step(produced, self.produce_quota, self.push_quota);
        self.share(self.push_quota).min(in_step + lead(self.push_quota))
    }

    /// Records that may have been produced by now, when so many were pushed and so many produced records were answered.
    /// A producer that hangs gives up all its records in flight at once, so these must be a small part of the load.
    pub(crate) fn produce_now(&self, pushed: u64, answered: u64) -> u64 {
        let in_step = in_step(pushed, self.push_quota, self.produce_quota);
        self.share(self.produce_quota)
            .min(in_step.min(answered) + lead(self.produce_quota))
    }
}

/// The records of one kind, out of its quota, that correspond to those of the other kind. All of them if there are none
/// of the other kind.
fn in_step(other: u64, other_quota: u64, quota: u64) -> u64 {
    (other * quota).checked_div(other_quota).unwrap_or(quota)
}

/// How far one kind may run ahead of the other. With a larger lead, a short run would end before its last kill.
fn lead(quota: u64) -> u64 {
    const LEAD_MAX: u64 = 500;
    (quota / 20).clamp(1, LEAD_MAX)
}
