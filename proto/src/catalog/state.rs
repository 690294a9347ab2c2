//! The replicated state machine: it reads the change log record by record and reaches the same state on every node.
//!
//! Pure: the input is a record's offset, time and bytes; the output is its outcome, or a fault for which the node must
//! stop deciding. Every proposal carries the proposer's hash over all records and their verdicts, so nodes that decide
//! differently are detected.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{CATALOG_RULES_LEVEL, Catalog, ChangeRecord, change::MOVES_LEVEL};
use crate::problem::{Code, Problem};

/// Past hashes that the state keeps, to compare them with those of proposers.
const TRAIL_MAX: usize = 256;

/// The state after reading the change log up to `offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The cluster; known from the first record on.
    pub cluster: Option<Uuid>,
    /// How often the log was recreated from a copy of the state.
    pub restored: u32,
    /// The last record read; -1 before the first.
    pub offset: i64,
    /// The hash over all records and their verdicts.
    pub hash: u64,
    /// The hash of the last record's bytes. A node that resumes compares it, to detect that the log is another one.
    pub last: u64,
    /// The highest level of the rules of its records. A release that does not know it must not take the state over: it
    /// would read a part of it only.
    #[serde(default)]
    pub rules_level: u16,
    /// The catalog.
    pub catalog: Catalog,
    /// The outcomes of requests that may still be repeated.
    pub recent: BTreeMap<Uuid, RequestOutcome>,
    /// The hash after each of the last records, with its offset.
    pub trail: VecDeque<(i64, u64)>,
}

/// How far a state has read the change log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePosition {
    /// The cluster; known from the first record on.
    pub cluster: Option<Uuid>,
    /// How often the log was recreated from a copy of the state.
    pub restored: u32,
    /// The last record read; -1 before the first.
    pub offset: i64,
    /// The highest level of the rules of its records.
    #[serde(default)]
    pub rules_level: u16,
}

impl StatePosition {
    /// Whether this release knows the rules of all its records.
    pub fn is_known_here(&self) -> bool {
        self.rules_level <= CATALOG_RULES_LEVEL
    }

    /// Whether it is ahead of `other`, in the same log or in a later one.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.restored, self.offset) > (other.restored, other.offset)
    }
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestOutcome {
    /// The deadline of the request in milliseconds since 1970; until then it may occur in the log again.
    pub not_after_ms: i64,
    /// Why the request was refused, if it was.
    pub refused: Option<Problem>,
}

/// How far a node had read, and the hash it had computed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadUpTo {
    /// The last record read.
    pub offset: i64,
    /// The hash after that record.
    pub hash: u64,
}

/// A record in its serialized form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// The version of the rules that are needed to read the record.
    pub level: u16,
    /// The content.
    #[serde(flatten)]
    pub entry: Entry,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The header, which is always the first record and only the first.
    Begin(LogHeader),
    /// A change.
    Change(Box<LogChange>),
}

/// The header of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogHeader {
    /// The cluster.
    pub cluster: Uuid,
    /// The state that the log continues from, if it was recreated from a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Box<State>>,
}

impl LogHeader {
    /// The level of the rules that a release must know to read it.
    pub fn level(&self) -> u16 {
        self.from.as_ref().map_or(MOVES_LEVEL, |state| state.level())
    }
}

/// A proposed change, as a record of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogChange {
    /// The change.
    #[serde(flatten)]
    pub record: ChangeRecord,
    /// The deadline, by the log's clock. A change that is appended later is refused, so that it cannot take effect
    /// after its proposer gave up.
    pub not_after_ms: i64,
    /// How far the proposer had read.
    pub seen: ReadUpTo,
}

/// The outcome of reading a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The record had been read before.
    Known,
    /// The record is the header.
    Began,
    /// The request of this uid was accepted or refused.
    Judged(Uuid, Result<(), Problem>),
}

/// Why a node stops deciding. It continues to serve the state that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFault {
    /// A record differs from the one that this node has read at the same offset.
    RecordChanged {
        /// The offset of the record.
        offset: i64,
    },
    /// Records are missing.
    MissingRecords {
        /// The offset of the first missing record.
        expected: i64,
        /// The offset of the next record in the log.
        found: i64,
    },
    /// This release cannot read a record.
    Unknown {
        /// The offset of the record.
        offset: i64,
        /// Why it cannot be read.
        reason: String,
    },
    /// Another node has decided differently about the same records.
    Diverged {
        /// The offset of that node's proposal.
        offset: i64,
        /// The last record that the node had read.
        seen: i64,
    },
    /// The log was recreated without changes that this node knows.
    Behind {
        /// The last record that this node has read.
        known: i64,
        /// The last record of the copy that the new log continues from.
        from: i64,
    },
    /// The log belongs to another cluster.
    OtherCluster {
        /// That cluster.
        found: Uuid,
    },
}

impl fmt::Display for LogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordChanged { offset } => write!(
                f,
                "record {offset} differs from the one read before: the log was recreated or tampered with"
            ),
            Self::MissingRecords { expected, found } => write!(
                f,
                "record {expected} is missing; the next one is {found}: the log was compacted or truncated"
            ),
            Self::Unknown { offset, reason } => {
                write!(f, "this node cannot read record {offset} ({reason}): upgrade the node")
            }
            Self::Diverged { offset, seen } => write!(
                f,
                "record {offset} comes from a node that read the log through {seen} and reached a different state: \
                 compare the versions of the nodes"
            ),
            Self::Behind { known, from } => write!(
                f,
                "the log was restored from a copy through {from}, but this node has read through {known}: \
                 restore it from this node's copy"
            ),
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
            rules_level: 0,
            catalog: Catalog::default(),
            recent: BTreeMap::new(),
            trail: VecDeque::new(),
        }
    }
}

impl State {
    /// The level of the rules that a release must know to read all of it.
    pub fn level(&self) -> u16 {
        self.rules_level.max(MOVES_LEVEL)
    }

    /// How far this node has read.
    pub fn seen(&self) -> ReadUpTo {
        ReadUpTo {
            offset: self.offset,
            hash: self.hash,
        }
    }

    /// How far this state has read.
    pub fn position(&self) -> StatePosition {
        StatePosition {
            cluster: self.cluster,
            restored: self.restored,
            offset: self.offset,
            rules_level: self.rules_level,
        }
    }

    /// Reads the next record. A fault leaves the state unchanged.
    pub fn read(&mut self, offset: i64, time_ms: i64, bytes: &[u8]) -> Result<Outcome, LogFault> {
        if offset <= self.offset {
            return match offset < self.offset || xxh3_64(bytes) == self.last {
                true => Ok(Outcome::Known),
                false => Err(LogFault::RecordChanged { offset }),
            };
        }
        if offset != self.offset + 1 {
            return Err(LogFault::MissingRecords {
                expected: self.offset + 1,
                found: offset,
            });
        }
        let (level, entry) = decode(bytes).map_err(|reason| LogFault::Unknown { offset, reason })?;
        let outcome = match entry {
            Entry::Begin(header) => {
                self.begin(offset, header)?;
                Outcome::Began
            }
            Entry::Change(_) if self.cluster.is_none() => {
                return Err(LogFault::Unknown {
                    offset,
                    reason: "the log does not start with a header".into(),
                });
            }
            Entry::Change(change) => Outcome::Judged(change.record.uid, self.decide(offset, time_ms, &change)?),
        };
        self.rules_level = self.rules_level.max(level);
        let accepted = !matches!(outcome, Outcome::Judged(_, Err(_)));
        self.advance(offset, bytes, accepted);
        Ok(outcome)
    }

    /// The state after the first record of a recreated log, for a node that has read the log before it.
    pub fn adopt(&self, first: &[u8]) -> Result<Self, LogFault> {
        let mut next = Self::default();
        next.read(0, 0, first)?;
        match (self.cluster, next.cluster) {
            (Some(own), Some(found)) if own != found => Err(LogFault::OtherCluster { found }),
            _ if next.restored <= self.restored => Err(LogFault::RecordChanged { offset: 0 }),
            _ => match restored_from(first) {
                Some(from) if from.restored == self.restored && from.offset < self.offset => Err(LogFault::Behind {
                    known: self.offset,
                    from: from.offset,
                }),
                _ => Ok(next),
            },
        }
    }

    fn begin(&mut self, offset: i64, header: LogHeader) -> Result<(), LogFault> {
        if offset != 0 {
            return Err(LogFault::Unknown {
                offset,
                reason: "a header after the first record".into(),
            });
        }
        if let Some(from) = header.from {
            *self = Self {
                restored: from.restored + 1,
                offset: -1,
                trail: VecDeque::new(),
                ..*from
            };
        }
        self.cluster = Some(header.cluster);
        Ok(())
    }

    /// Accepts or refuses a change. A repeated request gets the outcome of the first.
    fn decide(&mut self, offset: i64, time_ms: i64, change: &LogChange) -> Result<Result<(), Problem>, LogFault> {
        let seen = change.seen;
        if self
            .trail
            .iter()
            .any(|(at, hash)| *at == seen.offset && *hash != seen.hash)
        {
            return Err(LogFault::Diverged {
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
                "the change reached the log after its deadline",
            )
            .hint("retry the change")));
        }
        let (next, result) = self.catalog.apply(&change.record);
        self.catalog = next;
        let recent = RequestOutcome {
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

/// The level of a record, and its content.
fn decode(bytes: &[u8]) -> Result<(u16, Entry), String> {
    #[derive(Deserialize)]
    struct Level {
        level: u16,
    }
    let Level { level } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if level > CATALOG_RULES_LEVEL {
        return Err(format!(
            "its level is {level}, but this release supports levels up to {CATALOG_RULES_LEVEL}"
        ));
    }
    serde_json::from_slice::<LogRecord>(bytes)
        .map(|record| (level, record.entry))
        .map_err(|e| e.to_string())
}

/// The state that a log continues from, according to its first record.
fn restored_from(first: &[u8]) -> Option<State> {
    match decode(first).ok()?.1 {
        Entry::Begin(header) => header.from.map(|from| *from),
        Entry::Change(_) => None,
    }
}
