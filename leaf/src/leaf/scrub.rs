//! Scrubber: slowly rereads all split files and compares them with their checksums, one after another, so that damage
//! is found before a query reads it. It does not read RocksDB's files.
//!
//! It reads files, not shards: it opens no shard and keeps none open. Only if a file does not match does it open the
//! shard, which then detects the damage in its own split and stays open until that split is rebuilt.

use std::{collections::VecDeque, io, path::PathBuf, time::Instant};

use metrics::{counter, gauge};
use proto::ingest::ShardId;
use tracing::warn;

use super::Leaf;
use crate::{error::Error, split::SplitFile};

/// The file of a split.
struct SplitPath {
    shard: ShardId,
    split: u64,
    path: PathBuf,
    /// True if it did not match once already, and its shard could not be opened to confirm the damage.
    retried: bool,
}

/// The scrubber's progress through the current round.
pub(super) struct Scrubber {
    round_began: Option<Instant>,
    last_run: Instant,
    /// Bytes that may be read now; negative after a read that was larger than the budget.
    budget: f64,
    /// Files still to be read in this round, and the number of files in the round.
    queue: VecDeque<SplitPath>,
    round: usize,
    /// The first file of the queue, if it is open, and the checksummed block to continue at.
    current: Option<SplitFile>,
    block: usize,
}

impl Scrubber {
    /// A scrubber whose first round begins at the first run.
    pub(super) fn new() -> Self {
        Self {
            round_began: None,
            last_run: Instant::now(),
            budget: 0.0,
            queue: VecDeque::new(),
            round: 0,
            current: None,
            block: 0,
        }
    }

    /// Continues reading, as much as the rate allows for the time since the last call.
    pub(super) fn run(&mut self, leaf: &Leaf) {
        let rate = leaf.options.scrub_bytes_per_second as f64;
        // Unused budget accumulates for one second at most.
        self.budget = (self.budget + self.last_run.elapsed().as_secs_f64() * rate).min(rate);
        self.last_run = Instant::now();
        if self.queue.is_empty()
            && self
                .round_began
                .is_none_or(|began| began.elapsed() >= leaf.options.scrub_every)
        {
            self.begin(leaf);
        }
        // With less than one byte of budget nothing would be read.
        while self.budget >= 1.0 && self.read_next(leaf) {}
    }

    /// Continues with the first file of the queue. Returns false if this run ends: the queue is empty, or the file did
    /// not match.
    fn read_next(&mut self, leaf: &Leaf) -> bool {
        let Some(SplitPath { path, .. }) = self.queue.front() else {
            return false;
        };
        let bytes_max = self.budget as u64;
        let read = match self.current.take().map_or_else(|| SplitFile::open(path), Ok) {
            Ok(file) => file
                .verify(self.block, bytes_max)
                .map(|read| read.map(|(next, bytes)| (file, next, bytes))),
            Err(failure) => Err(failure),
        };
        match read {
            Ok(Some((file, next, bytes))) => {
                self.budget -= bytes as f64;
                counter!("rachis_leaf_scrubbed_bytes_total").increment(bytes);
                match next {
                    Some(next) => (self.current, self.block) = (Some(file), next),
                    None => self.next(),
                }
                true
            }
            // The split was replaced meanwhile.
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => {
                self.next();
                true
            }
            Ok(None) | Err(_) => {
                self.confirm_first(leaf);
                false
            }
        }
    }

    /// Has the shard of the first file confirm the damage. If the shard cannot be opened, because there is no room for
    /// example, the file is tried once more after all others.
    fn confirm_first(&mut self, leaf: &Leaf) {
        let Some(file) = self.queue.pop_front() else { return };
        let confirmed = confirm(leaf, file.shard, file.split, self.block);
        (self.current, self.block) = (None, 0);
        let Err(error) = confirmed else { return };
        warn!(shard = %file.shard, %error, "could not open the shard of a split that does not match its checksums");
        if !file.retried {
            self.queue.push_back(SplitPath { retried: true, ..file });
        }
    }

    fn begin(&mut self, leaf: &Leaf) {
        let files_of = |shard| {
            leaf.shards
                .split_files(shard)
                .into_iter()
                .map(move |(split, path)| SplitPath {
                    shard,
                    split,
                    path,
                    retried: false,
                })
        };
        self.queue = leaf.stored_shards().into_iter().flat_map(files_of).collect();
        (self.round, self.round_began) = (self.queue.len(), Some(Instant::now()));
        gauge!("rachis_leaf_scrubbed_ratio").set(if self.queue.is_empty() { 1.0 } else { 0.0 });
    }

    fn next(&mut self) {
        self.queue.pop_front();
        (self.current, self.block) = (None, 0);
        gauge!("rachis_leaf_scrubbed_ratio").set(1.0 - self.queue.len() as f64 / self.round.max(1) as f64);
    }
}

/// Has the shard verify its own split, from this block on. A shard without such a split does not need the file.
fn confirm(leaf: &Leaf, id: ShardId, split: u64, block: usize) -> Result<(), Error> {
    if leaf.check_placement(id).is_err() {
        return Ok(());
    }
    let shard = leaf.shards.open_unused(id)?;
    let segment = shard.with_state(|state| {
        state
            .segments
            .iter()
            .find(|live| live.id == split)
            .map(|live| live.segment.clone())
    });
    if let Some(segment) = segment {
        // The segment itself records the damage.
        let _verified = segment.scrub(block, u64::MAX);
    }
    Ok(())
}
