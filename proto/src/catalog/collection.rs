//! Collection: a named set of documents, and what is decided about it.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::source::Skips;
use crate::{
    address::{Malformed, is_name, malformed},
    cluster::NodeName,
    ingest::ShardId,
};

/// The name of a collection: `[a-z0-9_][a-z0-9_-]{0,127}`, not `rachis`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CollectionName {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        const RESERVED: [&str; 2] = ["rachis", "information_schema"];
        if RESERVED.contains(&text) {
            return Err(malformed(
                text,
                "the name of a collection: it is reserved for what Rachis says of itself",
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

impl TryFrom<String> for CollectionName {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<CollectionName> for String {
    fn from(name: CollectionName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What never changes about a collection, and is never given again: the uid of the request that created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CollectionUid(pub uuid::Uuid);

impl fmt::Display for CollectionUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// The topic of the pushes of a collection.
pub fn push_topic_of(collection: CollectionUid) -> String {
    format!("rachis-push-{collection}")
}

/// A collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// What never changes.
    pub uid: CollectionUid,
    /// The catalog version that changed it last.
    pub version: u64,
    /// What is decided about it.
    pub settings: CollectionSettings,
    /// The leaves that hold each shard, by its number; none where one process holds them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement: Vec<Vec<NodeName>>,
    /// Whether there is a topic for its pushes.
    #[serde(default)]
    pub push_topic: bool,
    /// What reading them leaves out on request.
    #[serde(default)]
    pub push_skips: Skips,
}

impl Collection {
    /// A collection that is placed nowhere in particular.
    pub fn new(uid: CollectionUid, version: u64, settings: CollectionSettings) -> Self {
        Self {
            uid,
            version,
            settings,
            placement: Vec::new(),
            push_topic: false,
            push_skips: Skips::default(),
        }
    }

    /// Its shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        let collection = self.uid;
        (0..self.settings.shards).map(move |number| ShardId { collection, number })
    }

    /// The leaf that holds a shard; none where one process holds them all.
    pub fn leaf_of(&self, shard: u32) -> Option<&NodeName> {
        self.placement.get(shard as usize).and_then(|replicas| replicas.first())
    }

    /// The topic of its pushes.
    pub fn push_topic_name(&self) -> String {
        push_topic_of(self.uid)
    }
}

/// What is decided about a collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionSettings {
    /// How many shards; fixed when it is created.
    #[serde(default = "one")]
    pub shards: u32,
    /// Where a document says when its event happened, in the spelling that SQL takes; the record's time where it is not
    /// given. Evaluated when asked, so a change holds for everything there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_path: Option<String>,
}

fn one() -> u32 {
    1
}

impl Default for CollectionSettings {
    fn default() -> Self {
        Self {
            shards: 1,
            time_path: None,
        }
    }
}
