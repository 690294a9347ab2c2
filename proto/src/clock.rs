//! The clock of grants between leaves, and of the lease of a snapshot.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since this machine was started, also while it was suspended: the clock of [`std::time::Instant`] stands still
/// then.
pub fn since_boot() -> Duration {
    // A clock that stood still would keep every lease alive, so there is no default.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("Linux has had this clock since 2.6.39")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs() {
        let before = since_boot();
        assert!(before > Duration::ZERO && since_boot() >= before);
    }
}
