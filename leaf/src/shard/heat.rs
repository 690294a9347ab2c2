//! Heat: how much of a partition was ingested lately. It fades, and is not stored.

use std::time::{Duration, Instant};

use proto::ingest::{Heat, Outcomes};

/// After so long, what was ingested counts 1/e as much.
const FADE: Duration = Duration::from_secs(60);

/// The heat of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionHeat {
    at: Instant,
    events: f64,
    bytes: f64,
}

impl PartitionHeat {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            at: now,
            events: 0.0,
            bytes: 0.0,
        }
    }

    /// Adds what was ingested between two counts of a partition.
    pub(crate) fn add(&mut self, before: &Outcomes, after: &Outcomes, now: Instant) {
        let faded = self.faded(now);
        self.events = self.events * faded + after.events.saturating_sub(before.events) as f64;
        self.bytes = self.bytes * faded + after.bytes.saturating_sub(before.bytes) as f64;
        self.at = now;
    }

    /// What would be ingested in a minute at this rate.
    pub(crate) fn per_minute(&self, now: Instant) -> Heat {
        let (faded, minutes) = (self.faded(now), FADE.as_secs_f64() / 60.0);
        Heat {
            events_per_minute: (self.events * faded / minutes).round() as u64,
            bytes_per_minute: (self.bytes * faded / minutes).round() as u64,
        }
    }

    fn faded(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / FADE.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_the_heat_and_it_fades_once_nothing_comes() {
        let start = Instant::now();
        let mut heat = PartitionHeat::new(start);
        let counts = |events, bytes| Outcomes {
            events,
            bytes,
            ..Outcomes::default()
        };
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            heat.add(
                &counts(second * 50, second * 4_000),
                &counts((second + 1) * 50, (second + 1) * 4_000),
                now,
            );
        }
        let now = start + Duration::from_secs(600);
        let steady = heat.per_minute(now);
        assert!((2_900..=3_100).contains(&steady.events_per_minute), "{steady:?}");
        assert!((232_000..=248_000).contains(&steady.bytes_per_minute), "{steady:?}");
        let later = heat.per_minute(now + Duration::from_secs(600));
        assert_eq!(later.events_per_minute, 0, "{later:?}");
    }
}
