//! How long full windows keep the poll thread from polling, before their partitions are paused.
//!
//! A pause drops what the client has prefetched, and the client fetches again up to a second after it ends. So the
//! thread only waits while a leaf drains a full window. It must not wait for long if the leaf accepts nothing, or while
//! the records of other partitions are behind those of the full one.

use std::time::{Duration, Instant};

/// A partition whose window has been full for this long is paused.
const FULL_MAX: Duration = Duration::from_secs(1);
/// A full partition is paused if another one has had nothing to send for this long.
const STARVED_MAX: Duration = Duration::from_millis(100);

/// The windows of a source, as far as they keep its poll thread from polling.
#[derive(Debug, Default)]
pub(super) struct HoldBack {
    full_since: Option<Instant>,
    starved_since: Option<Instant>,
}

impl HoldBack {
    /// Notes whether a window is full and whether a partition is starved: it has nothing to send, and records at the
    /// broker. Returns whether to pause the full partitions.
    pub(super) fn update(&mut self, full: bool, starved: bool, now: Instant) -> bool {
        let full_since = full.then(|| self.full_since.unwrap_or(now));
        self.starved_since = starved.then(|| self.starved_since.unwrap_or(now));
        let is_over =
            |since: Option<Instant>, max: Duration| since.is_some_and(|since| now.duration_since(since) >= max);
        let pause = full && (is_over(full_since, FULL_MAX) || is_over(self.starved_since, STARVED_MAX));
        self.full_since = full_since.filter(|_| !pause);
        pause
    }

    /// Whether the thread is not to poll now.
    pub(super) fn is_holding(&self) -> bool {
        self.full_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_holds_the_thread_back_for_a_second_and_is_paused_then() {
        let (mut hold, start) = (HoldBack::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!hold.update(false, false, at(0)) && !hold.is_holding());
        assert!(!hold.update(true, false, at(10)) && hold.is_holding());
        assert!(!hold.update(true, false, at(1_000)) && hold.is_holding());
        assert!(hold.update(true, false, at(1_010)) && !hold.is_holding());
    }

    #[test]
    fn a_window_that_drains_is_not_paused() {
        let (mut hold, start) = (HoldBack::default(), Instant::now());
        for ms in (0..10_000).step_by(900) {
            let at = start + Duration::from_millis(ms);
            assert!(!hold.update(true, false, at) && hold.is_holding());
            assert!(!hold.update(false, false, at) && !hold.is_holding());
        }
    }

    #[test]
    fn a_partition_that_is_starved_by_a_full_one_waits_for_a_tenth_of_a_second() {
        let (mut hold, start) = (HoldBack::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!hold.update(true, true, at(0)));
        assert!(!hold.update(false, true, at(50)), "the full one has drained a little");
        assert!(
            hold.update(true, true, at(100)),
            "the other one has waited since the start"
        );
        assert!(!hold.update(true, false, at(200)) && hold.is_holding());
    }
}
