//! The scrubber: compares the files of all splits with their checksums, one after another and slowly, so that damage is
//! found before somebody asks.
//!
//! It reads files, not shards: for it none is opened and none stays open. Only where a file does not match is the shard
//! opened, which then finds the damage in its own split, and stays open until that is built again.

use std::{collections::VecDeque, io, path::PathBuf, time::Instant};

use metrics::{counter, gauge};
use proto::ingest::ShardId;
use tracing::warn;

use super::Leaf;
use crate::{error::Error, split::SplitFile};

/// The file of a split.
struct Named {
    shard: ShardId,
    split: u64,
    path: PathBuf,
    /// Whether it was read once, and could not be confirmed.
    tried: bool,
}

/// Where the scrubber is.
pub struct Scrubber {
    begun: Option<Instant>,
    looked: Instant,
    /// Bytes that may be read now, more or less than none.
    budget: f64,
    /// Files that are still to be read in this round, and how many there were.
    rest: VecDeque<Named>,
    round: usize,
    /// The first of them, if it was opened, and where it goes on.
    current: Option<SplitFile>,
    from: usize,
}

impl Scrubber {
    /// At the beginning.
    pub fn new() -> Self {
        Self {
            begun: None,
            looked: Instant::now(),
            budget: 0.0,
            rest: VecDeque::new(),
            round: 0,
            current: None,
            from: 0,
        }
    }

    /// Reads on, as much as the time since the last call allows.
    pub fn run(&mut self, leaf: &Leaf) {
        let rate = leaf.options.scrub_bytes_per_second as f64;
        // What was not read while there was nothing to read is not made up for: a second's worth at most.
        self.budget = (self.budget + self.looked.elapsed().as_secs_f64() * rate).min(rate);
        self.looked = Instant::now();
        if self.rest.is_empty()
            && self
                .begun
                .is_none_or(|begun| begun.elapsed() >= leaf.options.scrub_every)
        {
            self.begin(leaf);
        }
        // Less than a byte reads nothing.
        while self.budget >= 1.0
            && let Some(Named {
                shard,
                split,
                path,
                tried,
            }) = self.rest.front()
        {
            let most = self.budget as u64;
            let read = match self.current.take().map_or_else(|| SplitFile::open(path), Ok) {
                Ok(file) => file
                    .compare(self.from, most)
                    .map(|read| read.map(|(next, bytes)| (file, next, bytes))),
                Err(failure) => Err(failure),
            };
            match read {
                Ok(Some((file, next, bytes))) => {
                    self.budget -= bytes as f64;
                    counter!("rachis_leaf_scrubbed_bytes_total").increment(bytes);
                    match next {
                        Some(next) => (self.current, self.from) = (Some(file), next),
                        None => self.next(),
                    }
                }
                // It was replaced meanwhile.
                Err(failure) if failure.kind() == io::ErrorKind::NotFound => self.next(),
                Ok(None) | Err(_) => {
                    let (id, tried) = (*shard, *tried);
                    let confirmed = confirm(leaf, id, *split, self.from);
                    let named = self.rest.pop_front();
                    (self.current, self.from) = (None, 0);
                    if let Err(error) = confirmed {
                        warn!(shard = %id, %error, "a split that does not match its checksums waits for its shard to open");
                        // There is no room to open it, say: it is tried once more, after the others.
                        self.rest
                            .extend(named.filter(|_| !tried).map(|named| Named { tried: true, ..named }));
                    }
                    return;
                }
            }
        }
    }

    fn begin(&mut self, leaf: &Leaf) {
        let of_shard = |shard| {
            leaf.shards
                .split_files(shard)
                .into_iter()
                .map(move |(split, path)| Named {
                    shard,
                    split,
                    path,
                    tried: false,
                })
        };
        self.rest = leaf.here().into_iter().flat_map(of_shard).collect();
        (self.round, self.begun) = (self.rest.len(), Some(Instant::now()));
        gauge!("rachis_leaf_scrubbed_ratio").set(if self.rest.is_empty() { 1.0 } else { 0.0 });
    }

    fn next(&mut self) {
        self.rest.pop_front();
        (self.current, self.from) = (None, 0);
        gauge!("rachis_leaf_scrubbed_ratio").set(1.0 - self.rest.len() as f64 / self.round.max(1) as f64);
    }
}

/// Has the shard look at its split itself, from an extent on. It may have none of this id: then nobody needs the file.
fn confirm(leaf: &Leaf, id: ShardId, split: u64, from: usize) -> Result<(), Error> {
    if leaf.known(id).is_err() {
        return Ok(());
    }
    let shard = leaf.shards.open_unused(id)?;
    let segment = shard.look(|state| {
        state
            .segments
            .iter()
            .find(|indexed| indexed.id == split)
            .map(|indexed| indexed.segment.clone())
    });
    if let Some(segment) = segment {
        // What it finds it notes by itself.
        let _found = segment.scrub(from, u64::MAX);
    }
    Ok(())
}
