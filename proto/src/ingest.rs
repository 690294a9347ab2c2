//! Ingest: how events get into a shard. Tailers and aggregators send them, the leaf decides what to apply.
//!
//! The leaf deduplicates by the position that it stores in the same write as the documents. So a batch may arrive
//! twice, late, or from two senders: the leaf answers `BatchOutcome::Already` if it has the records, and
//! `BatchOutcome::Gap` if records before the batch are missing.

use std::{collections::BTreeMap, fmt, iter::Sum, sync::Arc, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    address::{Position, SourceName},
    catalog::CollectionUid,
    cluster::NodeName,
    problem::{Code, Problem},
    record::{Record, RequestKey, Rules},
    snapshot::{ShardSnapshotRequest, ShardSnapshotStatus},
};

/// A shard of a collection: the unit of placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// The collection.
    pub collection: CollectionUid,
    /// The number of the shard, from 0.
    pub number: u32,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.number)
    }
}

/// The version of the rules by which a leaf accepts or refuses events. Every batch and push names the version it was
/// made for, so that replicas of different releases decide alike.
pub const INGEST_RULES_LEVEL: u16 = 1;
/// The version of the rules for the source of changes; from 3 on, documents expire, and from 4 on dead letters are ingested
/// again. A leaf of an earlier release refuses them, rather than to take them for documents, or for no changes.
pub const CHANGE_RULES_LEVEL: u16 = 4;

/// The version of the rules for the records of a source.
pub fn rules_level(source: &SourceName) -> u16 {
    match source.is_changes() {
        true => CHANGE_RULES_LEVEL,
        false => INGEST_RULES_LEVEL,
    }
}

/// Consecutive records of one source partition. Offsets have holes (compaction, transactions), so the batch states its
/// range explicitly.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The shard that the batch is for.
    pub shard: ShardId,
    /// The source.
    pub source: SourceName,
    /// The id of the topic (or of this push source): a topic that is recreated under the same name has another one.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The sender's last position before this batch, exclusive: -1 at the start.
    pub after: i64,
    /// The position after this batch, inclusive.
    pub through: i64,
    /// The version of the rules to apply, see [`rules_level`].
    pub level: u16,
    /// How many runs of the partition the sender knows: they decide which records belong to the shard.
    pub runs: u32,
    /// How records become documents.
    pub rules: Rules,
    /// The records with `after < offset <= through`, ascending. A resuming sender includes the record at the stored
    /// position: by its hash the leaf detects a topic that was truncated or recreated.
    pub records: Vec<Record>,
}

/// The outcome of a batch. `stored` is the partition's position afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchOutcome {
    /// Applied, and visible to every query that starts from now on. Survives a crash of the process; after a power
    /// failure the sender may have to send the batch again, because it is synced a little later.
    Applied {
        /// The position afterwards.
        stored: i64,
    },
    /// A duplicate: every record was stored before.
    Already {
        /// The position.
        stored: i64,
    },
    /// Records between `stored` and the batch are missing: the sender must go back.
    Gap {
        /// The position.
        stored: i64,
    },
    /// Backpressure: the sender must retry the batch later.
    Busy(Backpressure),
    /// Refused: to send the batch again is pointless until something changes. The partition stops and reports the
    /// reason; the tailer rechecks some causes, such as too many dead letters, and the others wait for a change.
    Refused {
        /// The reason, as text for users.
        reason: String,
    },
}

/// Why a leaf accepts no more for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backpressure {
    /// The reason, as text for users.
    pub reason: String,
    /// Whether it passes by itself, once the leaf has written or indexed what it has. False if something else has to happen,
    /// such as space on a full disk, and from an older release.
    #[serde(default)]
    pub passes: bool,
}

impl Backpressure {
    /// Until the leaf has written or indexed what it has.
    pub fn passing(reason: String) -> Self {
        Self { reason, passes: true }
    }

    /// Until something else happens.
    pub fn lasting(reason: String) -> Self {
        Self { reason, passes: false }
    }
}

/// What a shard has stored of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPosition {
    /// The topic that the records came from; `None` before the first record.
    pub topic: Option<String>,
    /// The position; -1 before the first record.
    pub offset: i64,
    /// The offset of the last record that the shard was sent, at or before the position; `None` before the first, or from
    /// an older release.
    #[serde(default)]
    pub last: Option<i64>,
    /// The hash of that record; 0 before the first.
    pub hash: u64,
    /// Whether the partition accepts no more because too many of its first records, or too many bytes, became dead
    /// letters.
    pub stopped_by_dead_letters: bool,
    /// The first offset that it has, or is to have; `None` before the first record.
    #[serde(default)]
    pub first: Option<i64>,
    /// Whether the replica of the shard serves, as its leaf knows.
    #[serde(default)]
    pub serving: bool,
    /// Whether the replica accepts nothing yet, because it waits for a copy of another one.
    #[serde(default)]
    pub awaits_copy: bool,
}

impl StoredPosition {
    /// The position. Fails while the replica waits for a copy: until then it has none, and accepts no records.
    pub fn unless_awaiting_copy(self, shard: ShardId) -> Result<Self, Problem> {
        if self.awaits_copy {
            let detail = format!("shard {} is being copied or restored", shard.number);
            return Err(Problem::new(Code::Unavailable, detail)
                .hint("retry once it is there; `select * from rachis.moves` shows the progress"));
        }
        Ok(self)
    }
}

/// A shard that a leaf copies from another one, or from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// The shard.
    pub shard: ShardId,
    /// The leaf, or `snapshot …`, that it is copied from; `None` while it waits for its turn.
    pub from: Option<String>,
    /// The bytes that are here …
    pub bytes: u64,
    /// … of all.
    pub total: u64,
    /// The bytes that were read since `started`, without what was here before.
    pub read: u64,
    /// How long they took, in milliseconds.
    pub elapsed_ms: u64,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

impl CopyStatus {
    /// A shard that waits for its turn.
    pub fn waiting(shard: ShardId) -> Self {
        Self {
            shard,
            from: None,
            bytes: 0,
            total: 0,
            read: 0,
            elapsed_ms: 0,
            error: None,
        }
    }
}

/// One HTTP push: a record of the collection's push source. Or changes of documents: a record of its source of changes.
/// Without a log in front of the leaf, the leaf assigns the offset, and syncs before it answers.
#[derive(Debug, Clone)]
pub struct Push {
    /// The shard that the push is for.
    pub shard: ShardId,
    /// One of the collection's own sources.
    pub source: SourceName,
    /// The partition of the source.
    pub partition: i32,
    /// How items become documents.
    pub rules: Rules,
    /// The client's idempotency key and the hash of the body, if the client sent a key: a key is applied once.
    pub request: Option<RequestKey>,
    /// When the push arrived, milliseconds since 1970.
    pub time_ms: i64,
    /// The version of the rules to apply, see [`rules_level`].
    pub level: u16,
    /// The items, one event each, byte for byte. An item that cannot become a document becomes a dead letter. Empty if
    /// this partition only stores the request on behalf of other partitions. For the source of changes, each is a
    /// [`DocumentChange`](crate::document_change::DocumentChange).
    pub items: Vec<Bytes>,
}

/// The result of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushResult {
    /// Items that became documents.
    pub accepted: u64,
    /// Items that became dead letters.
    pub rejected: u64,
    /// The first rejected items, at most [`PUSH_ERRORS_MAX`].
    pub errors: Vec<ItemError>,
    /// The position of the push, `push/0@12`: a query with this as `at_least` is sure to see it, on any node.
    pub position: Position,
    /// Whether an earlier request with the same key was applied, so that this one changed nothing.
    #[serde(skip)]
    pub repeated: bool,
}

/// What one replica says of a push that it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PushAnswer {
    /// The result of the push; `None` if the replica may not have it.
    #[serde(flatten)]
    pub result: Option<PushResult>,
    /// Whether the replica knows that it answers no questions. Before it does so again, it gets what the serving ones have
    /// by then.
    #[serde(default)]
    pub not_asked: bool,
    /// The leaves of the other replicas that must have it, too, before it is acknowledged.
    #[serde(default)]
    pub also: Vec<NodeName>,
}

/// The code of an item that was to ingest a dead letter again, which was ingested again before.
pub const ALREADY_REDRIVEN: &str = "already_redriven";

/// Rejected items listed in the answer to a push.
pub const PUSH_ERRORS_MAX: usize = 100;

/// Why one item of a push was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// The number of the item, from 0.
    pub index: u64,
    /// A stable word: `not_json`, `too_big`, `too_deep`, `empty`, `bad_id`, `panicked`.
    pub code: String,
    /// The reason, as text for users.
    pub detail: String,
}

/// Counts of a partition's events by outcome. Always: `events = accepted + tombstones + duplicates + dead_letters` and
/// `documents = accepted - superseded - deleted - expired`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Ingested events: the items of all records.
    pub events: u64,
    /// Events that became a document.
    pub accepted: u64,
    /// Null values: each deleted the document of its key or, without a key, nothing.
    pub tombstones: u64,
    /// Events that changed nothing: items of a push whose request had been applied before, and dead letters that were to
    /// be ingested again, but had been before, or still cannot become documents.
    pub duplicates: u64,
    /// Events that could not become a document.
    pub dead_letters: u64,
    /// Documents replaced by a later one with the same key.
    pub superseded: u64,
    /// Documents deleted by key or by request.
    pub deleted: u64,
    /// Documents removed by retention.
    pub expired: u64,
    /// Live documents.
    pub documents: u64,
    /// Raw bytes of accepted documents.
    pub bytes: u64,
}

impl Sum for Outcomes {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |a, b| Self {
            events: a.events + b.events,
            accepted: a.accepted + b.accepted,
            tombstones: a.tombstones + b.tombstones,
            duplicates: a.duplicates + b.duplicates,
            dead_letters: a.dead_letters + b.dead_letters,
            superseded: a.superseded + b.superseded,
            deleted: a.deleted + b.deleted,
            expired: a.expired + b.expired,
            documents: a.documents + b.documents,
            bytes: a.bytes + b.bytes,
        })
    }
}

impl Outcomes {
    /// Whether both equations hold.
    pub fn balance(&self) -> bool {
        self.events == self.accepted + self.tombstones + self.duplicates + self.dead_letters
            && self.documents == self.accepted - self.superseded - self.deleted - self.expired
    }
}

/// Records of a source partition that were never ingested: they are lost, or were skipped on request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The source.
    pub source: SourceName,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The last offset.
    pub through: i64,
    /// When the loss was noticed, milliseconds since 1970.
    pub noticed_ms: i64,
    /// The reason, as text for users.
    pub reason: String,
}

/// A hash over what one replica has ingested of a block of a partition: 65,536 offsets. Replicas that have ingested the same
/// have the same digest, however their batches were cut and whatever was deleted since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDigest {
    /// The source.
    pub source: SourceName,
    /// The partition.
    pub partition: i32,
    /// The first offset of the block.
    pub from: i64,
    /// The last offset that was ingested: that of the block, or the position of the partition.
    pub through: i64,
    /// The hash, as 32 hexadecimal digits.
    pub digest: String,
}

/// The blocks in the digests of one replica, at most: the first ones of the first partitions.
pub const DIGESTS_MAX: usize = 100_000;

/// The result of clearing dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearedDeadLetters {
    /// The number of dead letters removed.
    pub letters: u64,
    /// Whether all were removed; `false` if the time limit was reached first.
    pub complete: bool,
}

impl ClearedDeadLetters {
    /// Adds the result of another shard.
    pub fn add(&mut self, other: Self) {
        self.letters += other.letters;
        self.complete &= other.complete;
    }
}

/// How fast documents arrive, as the last minutes show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heat {
    /// Ingested events per minute.
    pub events_per_minute: u64,
    /// Raw bytes of accepted documents per minute.
    pub bytes_per_minute: u64,
}

impl Sum for Heat {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |a, b| Self {
            events_per_minute: a.events_per_minute + b.events_per_minute,
            bytes_per_minute: a.bytes_per_minute + b.bytes_per_minute,
        })
    }
}

/// A partition as its shard sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The shard that owns it.
    pub shard: ShardId,
    /// The position.
    pub position: Position,
    /// The events by outcome.
    pub outcomes: Outcomes,
    /// The timestamp of the last record in milliseconds since 1970, if it had one.
    pub last_record_ms: Option<i64>,
    /// When the last record was ingested, milliseconds since 1970.
    pub last_ingested_ms: Option<i64>,
    /// Keys of this partition that also occur in another partition of the shard.
    pub keys_elsewhere: u64,
    /// How fast it grows.
    #[serde(default)]
    pub heat: Heat,
    /// Of the source of changes: the last one up to which no byte of what was deleted is left on the leaf's disk.
    #[serde(default)]
    pub erased_through: Option<i64>,
}

/// What the shards of a collection say, as far as their leaves answered.
#[derive(Debug, Clone)]
pub struct ShardAnswers<T> {
    /// What the shards say whose leaf answered.
    pub available: Vec<T>,
    /// The other shards, each with the reason.
    pub unavailable: BTreeMap<u32, Problem>,
}

impl<T> ShardAnswers<T> {
    /// The answer of all shards at once.
    pub fn of_all(answer: Result<Vec<T>, Problem>, shards: u32) -> Self {
        match answer {
            Ok(available) => Self {
                available,
                unavailable: BTreeMap::new(),
            },
            Err(problem) => Self {
                available: Vec::new(),
                unavailable: (0..shards).map(|shard| (shard, problem.clone())).collect(),
            },
        }
    }

    /// What all shards say, or why one of them does not.
    pub fn all(self) -> Result<Vec<T>, Problem> {
        match self.unavailable.into_values().next() {
            Some(problem) => Err(problem),
            None => Ok(self.available),
        }
    }

    /// Which shards did not answer, and why; none if all did.
    pub fn error(&self) -> Option<String> {
        let (first, problem) = self.unavailable.first_key_value()?;
        Some(match self.unavailable.len() {
            1 => format!("shard {first}: {problem}"),
            shards => format!("{shards} shards, among them {first}: {problem}"),
        })
    }
}

/// A leaf's interface to the senders of events.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// The replicas on one leaf; `None` if one process holds all shards.
    fn replica_on(&self, _leaf: &NodeName) -> Option<Arc<dyn Ingest>> {
        None
    }

    /// Applies what is new in a batch. `Err` only if the leaf cannot decide at all.
    async fn write(&self, batch: Batch) -> Result<BatchOutcome, Problem>;

    /// What is stored of a partition. Opens the shard if necessary.
    async fn stored(&self, shard: ShardId, source: &SourceName, partition: i32) -> Result<StoredPosition, Problem>;

    /// When the replica has ingested the records with `after` < offset <= `through`, in milliseconds since 1970, by offset:
    /// as far as documents or dead letters of them are stored.
    async fn ingest_times(
        &self,
        _shard: ShardId,
        _source: &SourceName,
        _partition: i32,
        _after: i64,
        _through: i64,
    ) -> Result<BTreeMap<i64, i64>, Problem> {
        Ok(BTreeMap::new())
    }

    /// The digests of a replica, by source, partition and block; at most [`DIGESTS_MAX`].
    async fn digests(&self, _shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
        Ok(Vec::new())
    }

    /// The shards that this leaf copies from others now.
    async fn copies(&self) -> Result<Vec<CopyStatus>, Problem> {
        Ok(Vec::new())
    }

    /// Has the replica of a shard be written to the snapshot store, in the background. The first call begins, and each says
    /// how far it is.
    async fn snapshot_shard(&self, _request: &ShardSnapshotRequest) -> Result<ShardSnapshotStatus, Problem> {
        Err(Problem::new(Code::NotSupported, "this node takes no snapshots"))
    }

    /// The result of the push at this position of the log of pushes or of changes. Waits until the leaf has ingested it,
    /// at most until the deadline (`Code::Timeout`). `Conflict` if the key was used for another body.
    async fn pushed(
        &self,
        shard: ShardId,
        position: &Position,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<PushResult, Problem>;

    /// All partitions of the collection.
    async fn partitions(&self, collection: CollectionUid) -> Result<Vec<PartitionStatus>, Problem>;

    /// The partitions of the first `shards` shards. An unavailable leaf hides only its own partitions.
    async fn available_partitions(&self, collection: CollectionUid, shards: u32) -> ShardAnswers<PartitionStatus> {
        ShardAnswers::of_all(self.partitions(collection).await, shards)
    }

    /// Records a loss; it is durable when this returns. A loss replaces a known one that starts at the same offset, if
    /// it reaches further.
    async fn note_loss(&self, shard: ShardId, loss: Loss) -> Result<(), Problem>;

    /// All losses of a collection.
    async fn losses(&self, collection: CollectionUid) -> Result<Vec<Loss>, Problem>;

    /// The losses of the first `shards` shards. An unavailable leaf hides only its own.
    async fn available_losses(&self, collection: CollectionUid, shards: u32) -> ShardAnswers<Loss> {
        ShardAnswers::of_all(self.losses(collection).await, shards)
    }

    /// Removes the dead letters of a collection, or of one of its sources, and resumes partitions that they had
    /// stopped. Returns the count also when the time limit was reached before all were removed.
    async fn clear_dead_letters(
        &self,
        _collection: CollectionUid,
        _source: Option<&SourceName>,
    ) -> Result<ClearedDeadLetters, Problem> {
        Err(Problem::new(Code::NotSupported, "this node cannot clear dead letters"))
    }
}

/// Accepts pushes: the push log of the collection or, if there is none, the leaf itself.
#[async_trait]
pub trait Pushes: Send + Sync {
    /// Applies a push: it is durable and visible when this returns. `Conflict` for a known key with another body,
    /// `Busy` under backpressure, `UnknownOutcome` if the outcome is still unknown at the deadline.
    async fn push(&self, push: Push, deadline: Instant) -> Result<PushResult, Problem>;

    /// Waits until a push to this partition could be stored and become visible, at most until the deadline. Writes
    /// nothing. `Unavailable` names the node that does not answer.
    async fn ready(&self, _shard: ShardId, _partition: i32, _deadline: Instant) -> Result<(), Problem> {
        Ok(())
    }

    /// Whether a push to this partition would become visible soon: its leaf answers, or did a moment ago, and a tailer
    /// reads it. A caller that is free to choose the partition prefers a reachable one.
    async fn reachable(&self, _shard: ShardId, _partition: i32) -> bool {
        true
    }
}

/// Whether a sender should retry after this error.
pub fn is_transient(problem: &Problem) -> bool {
    matches!(problem.code, Code::Busy | Code::Unavailable | Code::Timeout)
}
