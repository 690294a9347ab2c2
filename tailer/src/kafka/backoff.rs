//! Waits between attempts that double up to a limit.

use std::time::Duration;

/// The wait before the next attempt; doubles from `first` to `max`.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// Starts with a wait of `first`.
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self {
            next: first,
            first,
            max,
        }
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.max);
        wait
    }

    /// Starts over after a success.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}
