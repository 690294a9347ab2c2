//! Batch -> verdict: how events get into a shard. Shared by: tailer and aggregator (they send), leaf (decides).
//!
//! The leaf decides what is new, from the position that it stores in the same write as the documents. So a batch may be
//! sent twice, late, or by two senders: what was there is told (`Verdict::Already`), what is missing before it is told
//! (`Verdict::Gap`).

use std::{collections::BTreeMap, fmt, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    address::{Position, SourceName},
    catalog::CollectionUid,
    problem::{Code, Problem},
    record::{Record, RequestKey, Rules},
};

/// A slice of a collection: the unit of placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// The collection, by what never changes about it.
    pub collection: CollectionUid,
    /// From 0.
    pub number: u32,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.number)
    }
}

/// The rules by which events are accepted or refused. A batch says by which it was made, so replicas of different age
/// judge alike.
pub const LEVEL: u16 = 1;

/// Consecutive records of one source partition. Offsets have holes (compaction, transactions), so the range is told
/// apart from the records.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Where it goes.
    pub shard: ShardId,
    /// The source.
    pub source: SourceName,
    /// Identifies the topic (or this push source) across a deletion and a new creation under the same name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The sender's last position before this batch, exclusive: -1 at the start.
    pub after: i64,
    /// The position after this batch, inclusive.
    pub through: i64,
    /// By which rules to accept.
    pub level: u16,
    /// How records become documents.
    pub rules: Rules,
    /// The records with `after < offset <= through`, ascending. A resuming sender includes the record at the stored
    /// position: the leaf compares its hash and so finds a topic that was truncated or created anew.
    pub records: Vec<Record>,
}

/// What became of a batch. `stored` is the partition's position afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Applied, durable as the log is, and visible to every question that begins now.
    Applied {
        /// The position afterwards.
        stored: i64,
    },
    /// All of it was there.
    Already {
        /// The position.
        stored: i64,
    },
    /// Records between `stored` and the batch are missing: go back.
    Gap {
        /// The position.
        stored: i64,
    },
    /// No room now; keep it and try again.
    Busy {
        /// Why, for a person.
        reason: String,
    },
    /// Never: the partition stops and says why.
    Refused {
        /// Why, for a person.
        reason: String,
    },
}

/// What a shard has stored of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The topic it was read from, once something was.
    pub topic: Option<String>,
    /// The position: -1 before the first record.
    pub offset: i64,
    /// The hash of the last record, 0 if none.
    pub hash: u64,
    /// Whether so many of the first records were unusable that the source must stop.
    pub dead: bool,
}

/// One HTTP push: a record of the collection's own source whose offset the leaf gives (no log before it), synced before
/// the answer.
#[derive(Debug, Clone)]
pub struct Push {
    /// Where it goes.
    pub shard: ShardId,
    /// The partition of the push source.
    pub partition: i32,
    /// How items become documents.
    pub rules: Rules,
    /// The client's key and the hash of the body, if it gave one: the same key applies once.
    pub request: Option<RequestKey>,
    /// Milliseconds since 1970 when the push came in.
    pub time_ms: i64,
    /// By which rules to accept.
    pub level: u16,
    /// The items, each one event, as they were given. What cannot become a document becomes a dead letter. None, where
    /// this partition only holds the request for others.
    pub items: Vec<Bytes>,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Items that are documents now.
    pub accepted: u64,
    /// Items that are dead letters now.
    pub rejected: u64,
    /// The first rejected items, at most [`PUSH_ERRORS_MAX`].
    pub errors: Vec<ItemError>,
    /// `push/0@12`: ask with `at_least` this to see it for sure, anywhere.
    #[serde(with = "position_text")]
    pub position: Position,
    /// Whether an earlier request under the same key was applied, and this one changed nothing.
    #[serde(skip)]
    pub repeated: bool,
}

/// Errors told in one answer to a push.
pub const PUSH_ERRORS_MAX: usize = 100;

/// Why one item of a push was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// Counts items from 0.
    pub index: u64,
    /// A stable word: `not_json`, `too_big`, `too_deep`, `empty`, `bad_id`, `panicked`.
    pub code: String,
    /// For a person.
    pub detail: String,
}

mod position_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::address::Position;

    pub fn serialize<S: Serializer>(position: &Position, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(position)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Position, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Events of one partition, counted by what became of them. Always: `events = accepted + tombstones + duplicates +
/// dead_letters` and `documents = accepted - superseded - deleted - expired`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Items of records taken in.
    pub events: u64,
    /// Became a document.
    pub accepted: u64,
    /// A null value: removed a document by key, or (without a key) nothing.
    pub tombstones: u64,
    /// Items of a push whose request had been applied before.
    pub duplicates: u64,
    /// Could not become a document.
    pub dead_letters: u64,
    /// Documents replaced by a later one of the same key.
    pub superseded: u64,
    /// Documents removed by key or by request.
    pub deleted: u64,
    /// Documents past their retention.
    pub expired: u64,
    /// Documents there now.
    pub documents: u64,
    /// Raw bytes of accepted documents.
    pub bytes: u64,
}

impl Outcomes {
    /// Whether both equations hold.
    pub fn balance(&self) -> bool {
        self.events == self.accepted + self.tombstones + self.duplicates + self.dead_letters
            && self.documents == self.accepted - self.superseded - self.deleted - self.expired
    }
}

/// Records of a source partition that were not taken in and are gone, or were skipped on request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The source.
    pub source: SourceName,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The last offset.
    pub through: i64,
    /// When it was noticed, milliseconds since 1970.
    pub noticed_ms: i64,
    /// Why, for a person.
    pub reason: String,
}

/// What a clearing of dead letters removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// How many.
    pub letters: u64,
    /// Whether that was all; if not, the time was over.
    pub complete: bool,
}

impl Cleared {
    /// With those of another shard.
    pub fn add(&mut self, other: Self) {
        self.letters += other.letters;
        self.complete &= other.complete;
    }
}

/// A partition as its shard sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The shard that owns it.
    pub shard: ShardId,
    /// The position.
    pub position: Position,
    /// What became of its events.
    pub outcomes: Outcomes,
    /// The time of the last record, milliseconds since 1970, if it had one.
    pub last_record_ms: Option<i64>,
    /// When the last record was taken in, milliseconds since 1970.
    pub last_ingested_ms: Option<i64>,
    /// Keys met here that another partition of the shard has too.
    pub keys_elsewhere: u64,
}

/// The partitions of a collection, as far as its leaves answer.
#[derive(Debug, Clone, Default)]
pub struct Partitions {
    /// What the shards hold whose leaves answer.
    pub held: Vec<PartitionStatus>,
    /// The other shards, and why nothing is known of them.
    pub away: BTreeMap<u32, Problem>,
}

/// What a leaf does for those who send events.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// Judges a batch. `Err` only where the leaf cannot answer at all.
    async fn write(&self, batch: Batch) -> Result<Verdict, Problem>;

    /// What is stored of a partition; the shard is opened where need be.
    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<Stored, Problem>;

    /// What became of a push that stands in the log at this offset, once it was taken in; waits for that until the
    /// deadline (`Code::Timeout`). `Conflict` where the key was used for another body.
    async fn pushed(
        &self,
        shard: ShardId,
        partition: i32,
        offset: i64,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<Pushed, Problem>;

    /// All partitions that shards of this collection hold.
    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem>;

    /// The partitions that the first `shards` shards hold; a leaf that is away hides its own and no others.
    async fn partitions_there(&self, collection: CollectionUid, shards: u32) -> Partitions {
        match self.partitions(collection).await {
            Ok(held) => Partitions {
                held,
                away: BTreeMap::new(),
            },
            Err(problem) => Partitions {
                held: Vec::new(),
                away: (0..shards).map(|shard| (shard, problem.clone())).collect(),
            },
        }
    }

    /// Notes a loss, durable when this returns. One that begins where a known one does replaces it, if it reaches
    /// further.
    async fn note_loss(&self, shard: ShardId, loss: Loss) -> Result<(), Problem>;

    /// All losses of a collection.
    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem>;

    /// Removes the dead letters of a collection, or those of one of its sources; partitions that they stopped go on.
    /// How many were removed is told also where the time was over before all were.
    async fn clear_dead_letters(
        &self,
        _collection: CollectionUid,
        _source: Option<&SourceName>,
    ) -> Result<Cleared, Problem> {
        Err(Problem::new(Code::NotSupported, "dead letters cannot be cleared here"))
    }
}

/// Takes pushes: the leaf itself where there is no log before it, else the log of the collection's pushes.
#[async_trait]
pub trait Pushes: Send + Sync {
    /// Applies a push: durable and visible when this returns. `Conflict` for a known key with another body, `Busy`
    /// without room, `UnknownOutcome` where nobody can say by the deadline.
    async fn push(&self, push: Push, deadline: Instant) -> Result<Pushed, Problem>;

    /// Waits until a push to this partition could be stored and shown, until the deadline. `Unavailable` says what is
    /// away; nothing is written.
    async fn ready(&self, _shard: ShardId, _partition: i32, _deadline: Instant) -> Result<(), Problem> {
        Ok(())
    }

    /// Whether a push to this partition would be shown soon: its leaf answers, or did a moment ago, and a tailer reads
    /// it. Who may choose a partition chooses such a one.
    async fn reachable(&self, _shard: ShardId, _partition: i32) -> bool {
        true
    }
}

/// What the sender does about an error that is not a verdict.
pub fn is_transient(problem: &Problem) -> bool {
    matches!(problem.code, Code::Busy | Code::Unavailable | Code::Timeout)
}
