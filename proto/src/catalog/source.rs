//! Source: one Kafka topic that feeds a collection.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::collection::CollectionName;
use crate::{
    limits::SKIPS_MAX,
    problem::{Code, Problem},
    record::Rules,
};

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

/// Offsets that are left out: `from` and all before `to`. Where both are one, the record before them is not compared
/// with what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The offset that was to be read next when the skip was asked for.
    pub from: i64,
    /// Where to go on.
    pub to: i64,
}

impl Skip {
    /// Where to go on, if the next offset to read lies in what is left out.
    pub fn over(&self, next: i64) -> Option<i64> {
        (self.from <= next && next <= self.to).then_some(self.to)
    }

    /// Whether a record is left out, by whichever leaf and whenever it is read.
    pub fn leaves_out(&self, offset: i64) -> bool {
        self.from <= offset && offset < self.to
    }
}

/// What is left out of each partition, for ever: what a shard holds must not depend on when it is filled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Skips(pub BTreeMap<i32, Vec<Skip>>);

impl Skips {
    /// What is left out of a partition.
    pub fn of(&self, partition: i32) -> &[Skip] {
        self.0.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// Adds others; `LimitReached` where a partition would have too many.
    pub(super) fn add(&mut self, others: &Self) -> Result<(), Problem> {
        for (partition, skips) in &others.0 {
            let there = self.0.entry(*partition).or_default();
            there.extend(
                skips
                    .iter()
                    .filter(|skip| !there.contains(skip))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            if there.len() > SKIPS_MAX {
                return Err(Problem::new(
                    Code::LimitReached,
                    format!("partition {partition} has {SKIPS_MAX} skips"),
                )
                .hint("create a source of another name for what is there now"));
            }
        }
        Ok(())
    }
}

/// A key of a JSON object is a text; where it stands inside of a tagged value, serde does not read it as a number.
impl<'de> Deserialize<'de> for Skips {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let read = |(partition, skips): (String, Vec<Skip>)| Ok((partition.parse().map_err(D::Error::custom)?, skips));
        BTreeMap::<String, Vec<Skip>>::deserialize(d)?
            .into_iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
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
    /// Where a partition begins that nothing is stored of. One that was added after the source was made has no record
    /// from before it.
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
