//! Source: one Kafka topic that feeds a collection.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::collection::CollectionName;
use crate::{
    limits::SKIPS_MAX,
    problem::{Code, Problem},
    record::Rules,
};

/// A source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The catalog version of its last change.
    pub version: u64,
    /// The settings.
    pub settings: SourceSettings,
    /// Whether reading is suspended by request.
    pub suspended: bool,
    /// The ranges that are skipped on request.
    #[serde(default)]
    pub skips: Skips,
}

/// What remains of a dropped source. A replica that is filled later reads the same records by the same rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetiredSource {
    /// The topic.
    pub topic: String,
    /// How records became documents.
    pub rules: Rules,
    /// The ranges that were skipped on request.
    #[serde(default)]
    pub skips: Skips,
}

/// A skipped range of offsets: `from` inclusive, `to` exclusive. An empty range skips no record; it only suppresses the
/// comparison of the record before it with what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The next offset to read when the skip was requested.
    pub from: i64,
    /// The offset at which reading resumes.
    pub to: i64,
    /// The shard whose records are skipped, of a partition whose records belong to several; otherwise those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
}

impl Skip {
    /// A range in which the records of all shards are skipped.
    pub fn new(from: i64, to: i64) -> Self {
        Self { from, to, shard: None }
    }

    /// Whether records of a shard are skipped.
    pub fn is_of(&self, shard: u32) -> bool {
        self.shard.is_none_or(|of| of == shard)
    }

    /// The offset at which reading resumes, if `next`, the next offset to read, lies in the range or at its end.
    pub fn jump_from(&self, next: i64) -> Option<i64> {
        (self.from <= next && next <= self.to).then_some(self.to)
    }

    /// Whether the record at this offset is skipped, on every leaf and at every time.
    pub fn contains(&self, offset: i64) -> bool {
        self.from <= offset && offset < self.to
    }
}

/// The skipped ranges of each partition. They are permanent: the content of a shard must not depend on when it is
/// filled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Skips(pub BTreeMap<i32, Vec<Skip>>);

impl Skips {
    /// The skipped ranges of a partition.
    pub fn of(&self, partition: i32) -> &[Skip] {
        self.0.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// Adds ranges; `LimitReached` if a partition would have too many.
    pub(super) fn add(&mut self, others: &Self) -> Result<(), Problem> {
        for (partition, skips) in &others.0 {
            let known = self.0.entry(*partition).or_default();
            let new: Vec<Skip> = skips.iter().filter(|skip| !known.contains(skip)).copied().collect();
            known.extend(new);
            let of_shard = |shard| known.iter().filter(|skip| skip.shard == shard).count();
            if skips.iter().any(|skip| of_shard(skip.shard) > SKIPS_MAX) {
                return Err(Problem::new(
                    Code::LimitReached,
                    format!("partition {partition} has reached the limit of {SKIPS_MAX} skips"),
                )
                .hint("create a source with another name to read what the topic has now"));
            }
        }
        Ok(())
    }
}

/// JSON object keys are strings. Within an internally tagged enum, serde does not parse them as numbers, so this does.
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

/// The settings of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// The collection that receives the documents; created if it does not exist.
    pub collection: CollectionName,
    /// The topic.
    pub topic: String,
    /// librdkafka settings: `bootstrap.servers` and any other, except those that load code.
    pub config: BTreeMap<String, String>,
    /// How records become documents.
    #[serde(flatten)]
    pub rules: Rules,
    /// Where to start a partition of which nothing is stored.
    #[serde(default)]
    pub start: Start,
    /// The number of partitions that the topic had when a source that starts at the latest record was created by a release
    /// that did not note their ends. The server sets it, not the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// The end of each partition, one after its last record, when a source that starts at the latest record was created:
    /// there it starts, whenever it first reads. The server sets it, not the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<i64>,
}

impl SourceSettings {
    /// The same, with `***` instead of secrets.
    pub fn redacted(mut self) -> Self {
        let secrets = self.config.iter_mut().filter(|(key, _)| is_secret_setting(key));
        secrets.for_each(|(_, value)| REDACTED.clone_into(value));
        self
    }

    /// Whether secrets were replaced by `***`.
    pub fn is_redacted(&self) -> bool {
        self.config
            .iter()
            .any(|(key, value)| is_secret_setting(key) && value == REDACTED)
    }

    /// Where to start a partition of which nothing is stored. A partition that was added after the source was created
    /// starts at its first record: all of its records are newer than the source.
    pub fn start_of(&self, partition: i32) -> PartitionStart {
        let end = usize::try_from(partition).ok().and_then(|number| self.ends.get(number));
        let is_later = |known: u32| i64::from(partition) >= i64::from(known);
        match (self.start, end) {
            (Start::Earliest, _) => PartitionStart::Earliest,
            (Start::Latest, Some(end)) => PartitionStart::At(*end),
            (Start::Latest, None) if !self.ends.is_empty() || self.partitions.is_some_and(is_later) => {
                PartitionStart::Earliest
            }
            (Start::Latest, None) => PartitionStart::Latest,
        }
    }
}

/// Shown instead of a secret.
pub const REDACTED: &str = "***";

/// Whether the value of a librdkafka setting is a secret.
pub fn is_secret_setting(key: &str) -> bool {
    [
        "password",
        "passphrase",
        "secret",
        ".pem",
        "jaas",
        "oauthbearer.config",
        "token",
    ]
    .iter()
    .any(|part| key.contains(part))
        && !key.ends_with(".location")
        && key != "ssl.ca.pem"
        && key != "ssl.certificate.pem"
}

/// Where to start one partition of which nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionStart {
    /// At the first available record.
    Earliest,
    /// After the last record that is available when it is first read.
    Latest,
    /// At this offset, where the partition ended when the source was created.
    At(i64),
}

/// Where to start the partitions of which nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the first available record.
    #[default]
    Earliest,
    /// After the last available record.
    Latest,
}
