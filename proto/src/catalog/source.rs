//! Source: one Kafka topic that feeds a collection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::collection::CollectionName;
use crate::record::Rules;

/// A source and what is agreed on about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The catalog version that changed it last.
    pub version: u64,
    /// What the user said.
    pub settings: SourceSettings,
    /// Whether reading is suspended by request.
    pub suspended: bool,
    /// Where to go on after a loss, by partition: set by `skip`, used once the stored position is before it.
    #[serde(default, with = "offsets")]
    pub skips: BTreeMap<i32, i64>,
}

/// Offsets by partition. A key of a JSON object is a text; where it stands inside of a tagged value, serde does not read it as a number.
pub(super) mod offsets {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(offsets: &BTreeMap<i32, i64>, s: S) -> Result<S::Ok, S::Error> {
        offsets.serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<i32, i64>, D::Error> {
        let read = |(partition, offset): (String, i64)| Ok((partition.parse().map_err(D::Error::custom)?, offset));
        BTreeMap::<String, i64>::deserialize(d)?.into_iter().map(read).collect()
    }
}

/// What a user says about a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Where the documents go; created where it does not exist.
    pub collection: CollectionName,
    /// The topic.
    pub topic: String,
    /// librdkafka's own keys: `bootstrap.servers` and any other, save those that load code.
    pub config: BTreeMap<String, String>,
    /// How records become documents.
    #[serde(flatten)]
    pub rules: Rules,
    /// Where to begin a partition that nothing is stored of.
    #[serde(default)]
    pub start: Start,
    /// How many partitions the topic had when a source that starts at the latest record was made. Ours to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
}

impl SourceSettings {
    /// Where a partition begins that nothing is stored of. One that was added after the source was made has no record from before it.
    pub fn start_of(&self, partition: i32) -> Start {
        match self.partitions {
            Some(known) if i64::from(partition) >= i64::from(known) => Start::Earliest,
            _ => self.start,
        }
    }
}

/// Where to begin a partition that nothing is stored of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the first record there is.
    #[default]
    Earliest,
    /// After the last record there is.
    Latest,
}
