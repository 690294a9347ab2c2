//! Source: one Kafka topic that feeds a collection.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

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
    /// What reading leaves out on request.
    #[serde(default)]
    pub skips: Skips,
}

/// Offsets that are left out: `from` and all before `to`. Where both are one, the record before them is not compared with what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The offset that was to be read next when the skip was asked for.
    pub from: i64,
    /// Where to go on.
    pub to: i64,
}

impl Skip {
    /// Where to go on, if the next offset to read lies in what is left out. A leaf that stands before it, or is filled again, gets what there is.
    pub fn over(&self, next: i64) -> Option<i64> {
        (self.from <= next && next <= self.to).then_some(self.to)
    }
}

/// The last skip of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Skips(pub BTreeMap<i32, Skip>);

/// A key of a JSON object is a text; where it stands inside of a tagged value, serde does not read it as a number.
impl<'de> Deserialize<'de> for Skips {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let read = |(partition, skip): (String, Skip)| Ok((partition.parse().map_err(D::Error::custom)?, skip));
        BTreeMap::<String, Skip>::deserialize(d)?.into_iter().map(read).collect::<Result<_, _>>().map(Self)
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
