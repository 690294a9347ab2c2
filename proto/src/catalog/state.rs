//! State: what the records of the change log add up to, and how one record is read. The same on every node.
//!
//! Pure: a record's offset, time and bytes come in; what comes out is its outcome, or the trouble for which a node must
//! stop deciding. A hash over all that was read, verdicts included, goes with every proposal, so nodes that judge
//! differently find out.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Catalog, ChangeRecord, LEVEL};
use crate::problem::{Code, Problem};

/// Hashes of the past that are kept to compare with what proposers have seen.
const TRAIL_MAX: usize = 256;

/// What the change log adds up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The cluster, from the first record on.
    pub cluster: Option<Uuid>,
    /// How often the log was made anew from a copy.
    pub restored: u32,
    /// The last record read; -1 before the first.
    pub offset: i64,
    /// Over all records and their verdicts.
    pub hash: u64,
    /// Of the last record's bytes: whoever goes on compares it, and so finds another log.
    pub last: u64,
    /// The catalog.
    pub catalog: Catalog,
    /// What became of requests that may still be repeated.
    pub recent: BTreeMap<Uuid, Recent>,
    /// Hashes after the last records, by offset.
    pub trail: VecDeque<(i64, u64)>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// Until when it may be in the log again, milliseconds since 1970.
    pub not_after_ms: i64,
    /// Why it was refused, if it was.
    pub refused: Option<Problem>,
}

/// How far a proposer had read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The last record.
    pub offset: i64,
    /// The hash after it.
    pub hash: u64,
}

/// A record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// By which rules to read it.
    pub level: u16,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first record: the log begins.
    Begin(Begin),
    /// A change.
    Change(LogChange),
}

/// How a log begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// The cluster.
    pub cluster: Uuid,
    /// What it goes on from, where it was made anew from a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Box<State>>,
}

/// A change on its way through the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogChange {
    /// The change.
    #[serde(flatten)]
    pub record: ChangeRecord,
    /// Read later than this (by the log's clock), it is refused: a proposer that gave up is not surprised.
    pub not_after_ms: i64,
    /// How far its proposer had read.
    pub seen: Seen,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was known.
    Known,
    /// The log began.
    Began,
    /// A request was accepted or refused.
    Judged(Uuid, Result<(), Problem>),
}

/// Why a node decides nothing any more. It serves what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A record that this node has read is another one now.
    Other {
        /// Where.
        offset: i64,
    },
    /// Records are missing in between.
    Hole {
        /// The next that should be there.
        expected: i64,
        /// What is there.
        found: i64,
    },
    /// A record that this program does not know.
    Unknown {
        /// Where.
        offset: i64,
        /// What is unknown.
        reason: String,
    },
    /// Another node has judged the same records otherwise.
    Diverged {
        /// Where it says so.
        offset: i64,
        /// What it speaks of.
        seen: i64,
    },
    /// The log was made anew, without changes that this node knows.
    Behind {
        /// The last that this node knows.
        known: i64,
        /// The last that the new log goes on from.
        from: i64,
    },
    /// The log is another cluster's.
    OtherCluster {
        /// Whose.
        found: Uuid,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { offset } => write!(
                f,
                "record {offset} is another than the one that was read: the log was made anew or was tampered with"
            ),
            Self::Hole { expected, found } => write!(
                f,
                "record {expected} is gone, the next is {found}: the log was compacted or cut"
            ),
            Self::Unknown { offset, reason } => write!(
                f,
                "record {offset} cannot be read by this program ({reason}): update this node"
            ),
            Self::Diverged { offset, seen } => {
                write!(
                    f,
                    "record {offset} was proposed by a node that had read the log through {seen} to another end: compare the nodes' versions"
                )
            }
            Self::Behind { known, from } => {
                write!(
                    f,
                    "the log was restored from a copy through {from}, and this node has read through {known}: restore it from this node's copy"
                )
            }
            Self::OtherCluster { found } => write!(f, "the log belongs to cluster {}, not to this one", found.simple()),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            cluster: None,
            restored: 0,
            offset: -1,
            hash: 0,
            last: 0,
            catalog: Catalog::default(),
            recent: BTreeMap::new(),
            trail: VecDeque::new(),
        }
    }
}

impl State {
    /// How far it has read.
    pub fn seen(&self) -> Seen {
        Seen {
            offset: self.offset,
            hash: self.hash,
        }
    }

    /// Whether it knows more than the other, of the same log or of a later one.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.restored, self.offset) > (other.restored, other.offset)
    }

    /// Reads the next record. Unread where there is trouble.
    pub fn read(&mut self, offset: i64, time_ms: i64, bytes: &[u8]) -> Result<Outcome, Trouble> {
        if offset <= self.offset {
            return match offset < self.offset || xxh3_64(bytes) == self.last {
                true => Ok(Outcome::Known),
                false => Err(Trouble::Other { offset }),
            };
        }
        if offset != self.offset + 1 {
            return Err(Trouble::Hole {
                expected: self.offset + 1,
                found: offset,
            });
        }
        let entry = entry(bytes).map_err(|reason| Trouble::Unknown { offset, reason })?;
        let outcome = match entry {
            Entry::Begin(begin) => {
                self.begin(offset, begin)?;
                Outcome::Began
            }
            Entry::Change(_) if self.cluster.is_none() => {
                return Err(Trouble::Unknown {
                    offset,
                    reason: "the log does not begin with its cluster".into(),
                });
            }
            Entry::Change(change) => Outcome::Judged(change.record.uid, self.judge(offset, time_ms, &change)?),
        };
        let accepted = !matches!(outcome, Outcome::Judged(_, Err(_)));
        self.advance(offset, bytes, accepted);
        Ok(outcome)
    }

    /// The state after the first record of a log that was made anew from a copy, for a node that has read the log of
    /// before.
    pub fn adopt(&self, first: &[u8]) -> Result<Self, Trouble> {
        let mut next = Self::default();
        next.read(0, 0, first)?;
        match (self.cluster, next.cluster) {
            (Some(own), Some(found)) if own != found => Err(Trouble::OtherCluster { found }),
            _ if next.restored <= self.restored => Err(Trouble::Other { offset: 0 }),
            _ => match restored_from(first) {
                Some(from) if from.restored == self.restored && from.offset < self.offset => Err(Trouble::Behind {
                    known: self.offset,
                    from: from.offset,
                }),
                _ => Ok(next),
            },
        }
    }

    fn begin(&mut self, offset: i64, begin: Begin) -> Result<(), Trouble> {
        if offset != 0 {
            return Err(Trouble::Unknown {
                offset,
                reason: "a log begins once".into(),
            });
        }
        if let Some(from) = begin.from {
            *self = Self {
                restored: from.restored + 1,
                offset: -1,
                trail: VecDeque::new(),
                ..*from
            };
        }
        self.cluster = Some(begin.cluster);
        Ok(())
    }

    fn judge(&mut self, offset: i64, time_ms: i64, change: &LogChange) -> Result<Result<(), Problem>, Trouble> {
        let seen = change.seen;
        if self
            .trail
            .iter()
            .any(|(at, hash)| *at == seen.offset && *hash != seen.hash)
        {
            return Err(Trouble::Diverged {
                offset,
                seen: seen.offset,
            });
        }
        self.recent.retain(|_, recent| recent.not_after_ms >= time_ms);
        if let Some(known) = self.recent.get(&change.record.uid) {
            return Ok(known.refused.clone().map_or(Ok(()), Err));
        }
        if change.not_after_ms < time_ms {
            return Ok(Err(Problem::new(
                Code::Timeout,
                "the change came into the log after its time",
            )
            .hint("repeat it")));
        }
        let (next, result) = self.catalog.apply(&change.record);
        self.catalog = next;
        let recent = Recent {
            not_after_ms: change.not_after_ms,
            refused: result.clone().err(),
        };
        self.recent.insert(change.record.uid, recent);
        Ok(result)
    }

    fn advance(&mut self, offset: i64, bytes: &[u8], accepted: bool) {
        let mut hasher = Xxh3::new();
        hasher.update(&self.hash.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        hasher.update(&[u8::from(accepted)]);
        hasher.update(bytes);
        (self.offset, self.hash, self.last) = (offset, hasher.digest(), xxh3_64(bytes));
        self.trail.push_back((offset, self.hash));
        if self.trail.len() > TRAIL_MAX {
            self.trail.pop_front();
        }
    }
}

fn entry(bytes: &[u8]) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Level {
        level: u16,
    }
    let Level { level } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if level > LEVEL {
        return Err(format!("its level is {level}, this program knows up to {LEVEL}"));
    }
    serde_json::from_slice::<LogRecord>(bytes)
        .map(|record| record.entry)
        .map_err(|e| e.to_string())
}

/// What a log goes on from, by its first record.
fn restored_from(first: &[u8]) -> Option<State> {
    match entry(first).ok()? {
        Entry::Begin(begin) => begin.from.map(|from| *from),
        Entry::Change(_) => None,
    }
}
