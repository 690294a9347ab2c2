//! Conversion of ingest types to and from their wire messages.

use bytes::Bytes;

use super::{leaf as wire, problem::malformed};
use crate::{
    address::{Position, PositionVector, SourceName},
    catalog::CollectionUid,
    ingest::{Batch, ShardId},
    problem::Problem,
    record::{Format, Record, RecordValue, RequestKey, Rules, TimeKind},
};

/// Parses the bytes of a uid.
pub fn uid(bytes: &[u8]) -> Result<uuid::Uuid, Problem> {
    uuid::Uuid::from_slice(bytes).map_err(|_| malformed("an id must have 16 bytes"))
}

/// Parses the name of a source.
pub fn source(name: &str) -> Result<SourceName, Problem> {
    name.parse()
        .map_err(|e: crate::address::Malformed| malformed(&e.to_string()))
}

/// Unwraps a required field; the error names the field.
pub fn require<T>(value: Option<T>, what: &str) -> Result<T, Problem> {
    value.ok_or_else(|| malformed(&format!("{what} is missing")))
}

impl From<ShardId> for wire::Shard {
    fn from(shard: ShardId) -> Self {
        Self {
            collection: Bytes::copy_from_slice(shard.collection.0.as_bytes()),
            number: shard.number,
        }
    }
}

impl TryFrom<wire::Shard> for ShardId {
    type Error = Problem;
    fn try_from(shard: wire::Shard) -> Result<Self, Problem> {
        Ok(Self {
            collection: CollectionUid(uid(&shard.collection)?),
            number: shard.number,
        })
    }
}

/// Unwraps and converts a required shard.
pub fn shard(shard: Option<wire::Shard>) -> Result<ShardId, Problem> {
    require(shard, "the shard")?.try_into()
}

impl From<&Position> for wire::Position {
    fn from(position: &Position) -> Self {
        Self {
            source: position.source.as_str().to_owned(),
            partition: position.partition,
            offset: position.offset,
        }
    }
}

impl TryFrom<wire::Position> for Position {
    type Error = Problem;
    fn try_from(position: wire::Position) -> Result<Self, Problem> {
        Ok(Self {
            source: source(&position.source)?,
            partition: position.partition,
            offset: position.offset,
        })
    }
}

/// A position vector as messages.
pub fn positions(vector: &PositionVector) -> Vec<wire::Position> {
    vector.iter().map(|position| (&position).into()).collect()
}

/// Parses a position vector.
pub fn vector(positions: Vec<wire::Position>) -> Result<PositionVector, Problem> {
    positions.into_iter().map(Position::try_from).collect()
}

impl From<Batch> for wire::Batch {
    fn from(batch: Batch) -> Self {
        Self {
            shard: Some(batch.shard.into()),
            source: batch.source.as_str().to_owned(),
            topic: batch.topic,
            partition: batch.partition,
            after: batch.after,
            through: batch.through,
            level: batch.level.into(),
            runs: batch.runs,
            rules: Some(batch.rules.into()),
            records: batch.records.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Batch> for Batch {
    type Error = Problem;
    fn try_from(batch: wire::Batch) -> Result<Self, Problem> {
        Ok(Self {
            shard: shard(batch.shard)?,
            source: source(&batch.source)?,
            topic: batch.topic,
            partition: batch.partition,
            after: batch.after,
            through: batch.through,
            level: batch.level.try_into().unwrap_or(u16::MAX),
            runs: batch.runs,
            rules: require(batch.rules, "the rules")?.into(),
            records: batch
                .records
                .into_iter()
                .map(Record::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<Rules> for wire::Rules {
    fn from(rules: Rules) -> Self {
        Self {
            text: rules.format == Format::Text,
            key: rules.key.map(Into::into),
        }
    }
}

impl From<wire::Rules> for Rules {
    fn from(rules: wire::Rules) -> Self {
        Self {
            format: if rules.text { Format::Text } else { Format::Json },
            key: rules.key.map(Into::into),
        }
    }
}

impl From<Record> for wire::Record {
    fn from(record: Record) -> Self {
        Self {
            offset: record.offset,
            key: record.key,
            value: match record.value {
                RecordValue::Null => None,
                RecordValue::One(bytes) => Some(wire::record::Value::One(bytes)),
                RecordValue::Many(items) => Some(wire::record::Value::Many(wire::Items { items })),
            },
            time_ms: record.time_ms,
            time_kind: match record.time_kind {
                TimeKind::None => wire::TimeKind::None,
                TimeKind::Create => wire::TimeKind::Create,
                TimeKind::Append => wire::TimeKind::Append,
            }
            .into(),
            headers: record
                .headers
                .into_iter()
                .map(|(name, value)| wire::Header { name, value })
                .collect(),
            request: record.request.map(Into::into),
            ingested_ms: record.ingested_ms,
        }
    }
}

impl TryFrom<wire::Record> for Record {
    type Error = Problem;
    fn try_from(record: wire::Record) -> Result<Self, Problem> {
        let time_kind = match record.time_kind() {
            wire::TimeKind::None => TimeKind::None,
            wire::TimeKind::Create => TimeKind::Create,
            wire::TimeKind::Append => TimeKind::Append,
        };
        Ok(Self {
            offset: record.offset,
            key: record.key,
            value: match record.value {
                None => RecordValue::Null,
                Some(wire::record::Value::One(bytes)) => RecordValue::One(bytes),
                Some(wire::record::Value::Many(many)) => RecordValue::Many(many.items),
            },
            time_ms: record.time_ms,
            time_kind,
            headers: record
                .headers
                .into_iter()
                .map(|header| (header.name, header.value))
                .collect(),
            request: record.request.map(TryInto::try_into).transpose()?,
            ingested_ms: record.ingested_ms,
        })
    }
}

impl From<RequestKey> for wire::Request {
    fn from(request: RequestKey) -> Self {
        Self {
            key: request.key,
            body: Bytes::copy_from_slice(&request.body.to_be_bytes()),
        }
    }
}

impl TryFrom<wire::Request> for RequestKey {
    type Error = Problem;
    fn try_from(request: wire::Request) -> Result<Self, Problem> {
        let body: [u8; 16] = request.body[..]
            .try_into()
            .map_err(|_| malformed("the hash of a body must have 16 bytes"))?;
        Ok(Self {
            key: request.key,
            body: u128::from_be_bytes(body),
        })
    }
}

#[cfg(test)]
mod tests;
