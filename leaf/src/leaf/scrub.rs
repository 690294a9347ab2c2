//! The scrubber: compares the files of all splits with their checksums, one after another and slowly, so that damage is found before somebody asks.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use metrics::{counter, gauge};
use proto::ingest::ShardId;
use tracing::warn;

use super::shards::Shards;
use crate::{options::LeafOptions, split::Segment};

/// Where the scrubber is.
pub struct Scrubber {
    begun: Option<Instant>,
    looked: Instant,
    /// Bytes that may be read now, more or less than none.
    budget: f64,
    /// Splits that are still to be read in this round, and how many there were.
    rest: VecDeque<(ShardId, u64)>,
    round: usize,
    /// Where the first of them goes on.
    from: usize,
}

impl Scrubber {
    /// At the beginning.
    pub fn new() -> Self {
        Self { begun: None, looked: Instant::now(), budget: 0.0, rest: VecDeque::new(), round: 0, from: 0 }
    }

    /// Reads on, as much as the time since the last call allows.
    pub fn run(&mut self, shards: &Shards, options: &LeafOptions) {
        let rate = options.scrub_bytes_per_second as f64;
        // What was not read while there was nothing to read is not made up for: a second's worth at most.
        self.budget = (self.budget + self.looked.elapsed().as_secs_f64() * rate).min(rate);
        self.looked = Instant::now();
        if self.rest.is_empty() && self.begun.is_none_or(|begun| begun.elapsed() >= options.scrub_every) {
            self.begin(shards);
        }
        // Less than a byte reads nothing.
        while self.budget >= 1.0
            && let Some((shard, split)) = self.rest.front().copied()
        {
            match find(shards, shard, split) {
                Some(segment) => self.read(&segment, shard, split),
                // It was replaced or closed meanwhile.
                None => self.next(),
            }
        }
    }

    fn begin(&mut self, shards: &Shards) {
        let of_shard = |shard: &Arc<crate::shard::Shard>| {
            shard.look(|state| state.segments.iter().filter(|indexed| indexed.on_disk).map(|indexed| (shard.id, indexed.id)).collect::<Vec<_>>())
        };
        self.rest = shards.all().iter().flat_map(of_shard).collect();
        (self.round, self.from, self.begun) = (self.rest.len(), 0, Some(Instant::now()));
        gauge!("rachis_leaf_scrubbed_ratio").set(if self.rest.is_empty() { 1.0 } else { 0.0 });
    }

    fn read(&mut self, segment: &Segment, shard: ShardId, split: u64) {
        match segment.scrub(self.from, self.budget as u64) {
            Ok((next, bytes)) => {
                self.budget -= bytes as f64;
                counter!("rachis_leaf_scrubbed_bytes_total").increment(bytes);
                match next {
                    Some(next) => self.from = next,
                    None => self.next(),
                }
            }
            Err(error) => {
                warn!(%shard, split, %error, "a split could not be read through");
                self.next();
            }
        }
    }

    fn next(&mut self) {
        self.rest.pop_front();
        self.from = 0;
        gauge!("rachis_leaf_scrubbed_ratio").set(1.0 - self.rest.len() as f64 / self.round.max(1) as f64);
    }
}

fn find(shards: &Shards, shard: ShardId, split: u64) -> Option<Arc<Segment>> {
    let shard = shards.ready(shard)?;
    shard.look(|state| state.segments.iter().find(|indexed| indexed.id == split).map(|indexed| indexed.segment.clone()))
}
