//! Collection: a named set of documents, its settings and its placement.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    deletion::Deletion,
    retention::Retention,
    runs::PartitionRuns,
    source::{RetiredSource, Skips},
};
use crate::{
    address::{Malformed, PositionVector, SourceName, is_name, malformed, name_conversions},
    cluster::NodeName,
    ingest::ShardId,
    limits::DELETIONS_MAX,
    snapshot::SnapshotId,
};

/// The name of a collection: `[a-z0-9_][a-z0-9_-]{0,127}`, except the reserved names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionName(Arc<str>);

name_conversions!(CollectionName);

impl FromStr for CollectionName {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        const RESERVED: [&str; 2] = ["rachis", "information_schema"];
        if RESERVED.contains(&text) {
            return Err(malformed(
                text,
                "a valid name of a collection: it is reserved for system tables",
            ));
        }
        match is_name(text, false) {
            true => Ok(Self(text.into())),
            false => Err(malformed(
                text,
                "the name of a collection (lower-case letters, digits, `_` and `-`, at most 128, such as events)",
            )),
        }
    }
}

/// The permanent id of a collection: the uid of the request that created it. It is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CollectionUid(pub uuid::Uuid);

impl fmt::Display for CollectionUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// What the names of all topics for pushes begin with.
pub const PUSH_TOPICS: &str = "rachis-push-";
/// What the names of all topics for changes of documents begin with.
pub const CHANGE_TOPICS: &str = "rachis-changes-";

/// The name of the topic for the pushes of a collection.
pub fn push_topic_of(collection: CollectionUid) -> String {
    format!("{PUSH_TOPICS}{collection}")
}

/// The name of the topic for the changes of a collection's documents.
pub fn change_topic_of(collection: CollectionUid) -> String {
    format!("{CHANGE_TOPICS}{collection}")
}

/// A collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// The permanent id.
    pub uid: CollectionUid,
    /// The catalog version of its last change.
    pub version: u64,
    /// The settings.
    pub settings: CollectionSettings,
    /// The leaves that hold each shard, by the number of the shard; empty if one process holds all shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement: Vec<Vec<NodeName>>,
    /// The replicas that do not serve, by the number of the shard.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_serving: BTreeMap<u32, BTreeMap<NodeName, ReplicaState>>,
    /// Replicas that were added and do not serve yet, by the number of the shard.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moves: BTreeMap<u32, BTreeMap<NodeName, Move>>,
    /// The leaves that have no replica of a shard any more, with the catalog version since which; the last ones of each
    /// shard.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left: BTreeMap<u32, BTreeMap<NodeName, u64>>,
    /// Whether the topic for its pushes exists.
    #[serde(default)]
    pub push_topic: bool,
    /// The ranges of its pushes that are skipped on request.
    #[serde(default)]
    pub push_skips: Skips,
    /// Whether the topic for the changes of its documents exists.
    #[serde(default, skip_serializing_if = "is_false")]
    pub change_topic: bool,
    /// The positions of the source of changes that every answer covers: so no shard that is filled again shows what was
    /// deleted.
    #[serde(default, skip_serializing_if = "PositionVector::is_empty")]
    pub changed_through: PositionVector,
    /// The last deletes, oldest first, at most [`DELETIONS_MAX`]; one of them at most is a removal of expired documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deletions: Vec<Deletion>,
    /// Dropped sources of which the collection may have documents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retired_sources: BTreeMap<SourceName, RetiredSource>,
    /// The snapshot that shards come from which no leaf has yet; none once each is on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// The shards that no leaf served any more, until the one that serves them now has what a snapshot has of them. Each
    /// with the catalog version since which its files must be placed there; older ones are of an earlier placement.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<u32, u64>,
    /// The positions after which the topics of its own sources begin, if these are not the topics that its first documents
    /// came from.
    #[serde(default, skip_serializing_if = "PositionVector::is_empty")]
    pub own_topics_after: PositionVector,
    /// The partitions whose records belong to several shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<PartitionRuns>,
}

/// Where shards of a restored collection come from that no leaf has yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The collection in the snapshot.
    pub collection: CollectionUid,
    /// The catalog version since which its shards are to be there.
    pub since: u64,
    /// The shards that no leaf has yet.
    pub awaited: BTreeSet<u32>,
}

impl Collection {
    /// A collection without placement.
    pub fn new(uid: CollectionUid, version: u64, settings: CollectionSettings) -> Self {
        Self {
            uid,
            version,
            settings,
            placement: Vec::new(),
            not_serving: BTreeMap::new(),
            moves: BTreeMap::new(),
            left: BTreeMap::new(),
            push_topic: false,
            push_skips: Skips::default(),
            change_topic: false,
            changed_through: PositionVector::default(),
            deletions: Vec::new(),
            retired_sources: BTreeMap::new(),
            restored: None,
            lost: BTreeMap::new(),
            own_topics_after: PositionVector::default(),
            runs: Vec::new(),
        }
    }

    /// The same, without where its replicas are.
    pub fn without_placement(mut self) -> Self {
        self.placement = Vec::new();
        (self.not_serving, self.moves, self.left, self.lost) = Default::default();
        self
    }

    /// Whether a shard has to be copied from a snapshot first: it is restored, or was lost.
    pub fn awaits_snapshot(&self, shard: u32) -> bool {
        self.is_restored(shard) || self.lost.contains_key(&shard)
    }

    /// Whether any shard may have to be copied from a snapshot first.
    pub fn may_await_snapshots(&self) -> bool {
        self.restored.is_some() || !self.lost.is_empty()
    }

    /// Whether a shard is restored, and no leaf has it yet.
    pub(super) fn is_restored(&self, shard: u32) -> bool {
        let restored = self.restored.as_ref();
        restored.is_some_and(|restored| restored.awaited.contains(&shard))
    }

    /// The ids of all shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        let collection = self.uid;
        (0..self.settings.shards).map(move |number| ShardId { collection, number })
    }

    /// The leaves that hold a replica of a shard; none if one process holds all shards.
    pub fn replicas_of(&self, shard: u32) -> &[NodeName] {
        self.placement.get(shard as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a shard has several replicas.
    pub fn is_replicated(&self) -> bool {
        self.placement.iter().any(|replicas| replicas.len() > 1)
    }

    /// Whether a replica serves; `None` if this leaf has none of this shard.
    pub fn replica_state(&self, shard: u32, leaf: &NodeName) -> Option<ReplicaState> {
        let is_placed = self.replicas_of(shard).contains(leaf);
        let other = self.not_serving.get(&shard).and_then(|replicas| replicas.get(leaf));
        is_placed.then(|| other.copied().unwrap_or(ReplicaState::Serving))
    }

    /// Whether a replica of a shard was added and does not serve yet, or leaves.
    pub fn is_moving(&self, shard: u32) -> bool {
        let mut states = self.not_serving.get(&shard).into_iter().flat_map(BTreeMap::values);
        self.moves.contains_key(&shard) || states.any(|state| matches!(state, ReplicaState::Leaving { .. }))
    }

    /// The leaves whose replica of a shard answers questions.
    pub fn serving(&self, shard: u32) -> impl Iterator<Item = &NodeName> {
        let replicas = self.replicas_of(shard).iter();
        replicas.filter(move |leaf| self.replica_state(shard, leaf) == Some(ReplicaState::Serving))
    }

    /// The leaves whose replica of a shard must have a push before it is acknowledged.
    pub fn confirming(&self, shard: u32) -> impl Iterator<Item = &NodeName> {
        let may_be_asked = move |leaf: &NodeName| {
            let state = self.replica_state(shard, leaf);
            state.is_some_and(|state| state.not_asked_since().is_none())
        };
        self.replicas_of(shard).iter().filter(move |leaf| may_be_asked(leaf))
    }

    /// The leaves that answer no questions about a shard although they did once, or were to, with the catalog version since
    /// which: their replicas are behind or leave, or they have none any more.
    pub fn not_asked(&self, shard: u32) -> impl Iterator<Item = (&NodeName, u64)> {
        let states = self.not_serving.get(&shard).into_iter().flatten();
        let states = states.filter_map(|(leaf, state)| Some((leaf, state.not_asked_since()?)));
        let left = self.left.get(&shard).into_iter().flatten();
        states.chain(left.map(|(leaf, since)| (leaf, *since)))
    }

    /// The same of all shards.
    pub fn all_not_asked(&self) -> impl Iterator<Item = (&NodeName, u64)> {
        let states = self.not_serving.values().flatten();
        let states = states.filter_map(|(leaf, state)| Some((leaf, state.not_asked_since()?)));
        states.chain(self.left.values().flatten().map(|(leaf, since)| (leaf, *since)))
    }

    /// The replicas of a shard with their states, such as `leaf-1 serving, leaf-2 behind`; `None` if one process holds all
    /// shards.
    pub fn describe_replicas(&self, shard: u32) -> Option<String> {
        let describe = |leaf: &NodeName| Some(format!("{leaf} {}", self.replica_state(shard, leaf)?.as_str()));
        let replicas: Vec<String> = self.replicas_of(shard).iter().filter_map(describe).collect();
        (!replicas.is_empty()).then(|| replicas.join(", "))
    }

    /// The name of the topic of one of its own sources.
    pub fn own_topic_name(&self, source: &SourceName) -> String {
        match source.is_changes() {
            true => change_topic_of(self.uid),
            false => push_topic_of(self.uid),
        }
    }

    /// Whether the topic of one of its own sources exists.
    pub fn has_own_topic(&self, source: &SourceName) -> bool {
        match source.is_changes() {
            true => self.change_topic,
            false => self.push_topic,
        }
    }

    /// The position that the first record of a partition of one of its own topics has.
    pub fn own_topic_begins(&self, source: &SourceName, partition: i32) -> i64 {
        self.own_topics_after
            .get(source, partition)
            .map_or(0, |after| after + 1)
    }

    /// Adds a delete that shards have applied.
    pub(super) fn add_deletion(&mut self, deletion: &Deletion) {
        self.changed_through.merge(&deletion.position);
        // Retention removes documents again and again, and must not push what people deleted out of the list.
        self.deletions.retain(|known| !(known.expired && deletion.expired));
        if self.deletions.len() >= DELETIONS_MAX {
            self.deletions.remove(0);
        }
        self.deletions.push(deletion.clone());
    }
}

/// A replica that was added to a shard and does not serve yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The leaf whose replica leaves once this one serves; none if the shard gets one more replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<NodeName>,
    /// The catalog version since which it is there.
    pub since: u64,
}

/// Whether a replica of a shard answers questions.
///
/// ```text
/// (added) ────────────────────────────────────────────────────────────┐
///                                                                     v
/// serving ── it does not keep up, or does not answer its peers ──> behind
///  │ ^                                                               │ it has what its peers had a moment ago
///  │ └─ it has what each serving replica had since it joined ─ joining
///  └─ another one serves in its place ──> leaving ── after a while ──> (removed)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// It answers questions, and has every acknowledged push.
    Serving,
    /// No push is acknowledged without it any more. It answers questions once it also has those from before.
    Joining {
        /// The catalog version since which it has been joining.
        since: u64,
    },
    /// It is fed, and answers no questions.
    Behind {
        /// The catalog version since which it has been behind.
        since: u64,
    },
    /// It is fed, so that no push waits for it, and answers no questions. It is removed once no leaf lets it answer any
    /// more.
    Leaving {
        /// The catalog version since which it has been leaving.
        since: u64,
    },
}

impl ReplicaState {
    /// Its name in system tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Joining { .. } => "joining",
            Self::Behind { .. } => "behind",
            Self::Leaving { .. } => "leaving",
        }
    }

    /// The catalog version since which it is asked nothing, and no push waits for it; `None` if it serves or joins.
    pub fn not_asked_since(self) -> Option<u64> {
        match self {
            Self::Serving | Self::Joining { .. } => None,
            Self::Behind { since } | Self::Leaving { since } => Some(since),
        }
    }
}

/// The settings of a collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionSettings {
    /// The number of shards; fixed at creation.
    #[serde(default = "one")]
    pub shards: u32,
    /// The path of the event time in a document, in SQL spelling; the record's timestamp if not set. Evaluated at query
    /// time, so a change applies to existing documents too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_path: Option<String>,
    /// How long documents are kept; for ever if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The number of replicas of each shard; a rebalance adds or removes some after a change. If not set, the default of
    /// the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
}

fn one() -> u32 {
    1
}

pub(super) fn is_false(value: &bool) -> bool {
    !*value
}

impl Default for CollectionSettings {
    fn default() -> Self {
        Self {
            shards: 1,
            time_path: None,
            retention: None,
            replicas: None,
        }
    }
}
