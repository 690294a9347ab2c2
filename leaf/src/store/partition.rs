//! Partition row. Family `meta`, key: 17 partition. Value: position, hash of the last record and of the rules,
//! counters, how far documents and dead letters were removed. Every write batch contains it.

use proto::ingest::Outcomes;
use serde::{Deserialize, Serialize};

use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// The stored state of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionRow {
    /// The topic it is read from; none before the first record.
    pub topic: Option<String>,
    /// The position: the last ingested offset, -1 before the first record.
    pub offset: i64,
    /// The offset of the last record at or before the position.
    pub last_offset: i64,
    /// The hash of that record, 0 if there is none.
    pub hash: u64,
    /// Its events, counted by outcome.
    pub outcomes: Outcomes,
    /// The timestamp of the last record, milliseconds since 1970.
    pub last_record_ms: Option<i64>,
    /// When the last record was ingested, milliseconds since 1970.
    pub last_ingested_ms: Option<i64>,
    /// The number of its keys that another partition has, too.
    pub keys_elsewhere: u64,
    /// Events counted for the initial trial, which stops a topic that is mostly unusable …
    pub trial_records: u64,
    /// … and how many of them became dead letters.
    pub trial_dead: u64,
    /// Bytes of all its dead letters, before truncation. Limited by `LeafOptions::dead_letter_bytes_max`.
    pub dead_bytes: u64,
    /// Whether too many of its events, or too many bytes of them, became dead letters, so that it accepts no more.
    pub stopped_by_dead_letters: bool,
    /// The hash of the rules by which its records are ingested; 0 before the first record and for pushes.
    pub rules_hash: u64,
    /// The first offset that the shard holds; before the first record, the offset at which it begins to read. Releases
    /// without replicas wrote 0.
    pub run_from: i64,
    /// The offset through which retention has removed documents; -1 while it has removed none.
    pub expired_through: i64,
    /// The number of its dead letters that are stored.
    pub dead_letters: u64,
    /// The last offset of which dead letters were removed; -1 before.
    pub dead_letters_cleared_through: i64,
    /// The last offset of which a dead letter was ingested again; -1 before. A shard that is filled again may not have
    /// read it yet.
    pub redriven_through: i64,
}

impl Default for PartitionRow {
    fn default() -> Self {
        Self {
            topic: None,
            offset: -1,
            last_offset: -1,
            hash: 0,
            outcomes: Outcomes::default(),
            last_record_ms: None,
            last_ingested_ms: None,
            keys_elsewhere: 0,
            trial_records: 0,
            trial_dead: 0,
            dead_bytes: 0,
            stopped_by_dead_letters: false,
            rules_hash: 0,
            run_from: 0,
            expired_through: -1,
            dead_letters: 0,
            dead_letters_cleared_through: -1,
            redriven_through: -1,
        }
    }
}

const TOPIC: u8 = 1;
const RECORD_TIME: u8 = 1 << 1;
const INGEST_TIME: u8 = 1 << 2;
const DEAD: u8 = 1 << 3;

impl PartitionRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.topic.is_some(), TOPIC)
            | flag(self.last_record_ms.is_some(), RECORD_TIME)
            | flag(self.last_ingested_ms.is_some(), INGEST_TIME)
            | flag(self.stopped_by_dead_letters, DEAD);
        let value = ValueWriter::new(VERSION)
            .byte(flags)
            .bytes(self.topic.as_deref().unwrap_or_default().as_bytes())
            .signed(self.offset)
            .signed(self.last_offset)
            .rest(&self.hash.to_be_bytes())
            .signed(self.last_record_ms.unwrap_or_default())
            .signed(self.last_ingested_ms.unwrap_or_default());
        let o = &self.outcomes;
        let counters = [
            o.events,
            o.accepted,
            o.tombstones,
            o.duplicates,
            o.dead_letters,
            o.superseded,
            o.deleted,
            o.expired,
            o.documents,
            o.bytes,
            self.keys_elsewhere,
            self.trial_records,
            self.trial_dead,
            self.dead_bytes,
        ];
        counters
            .into_iter()
            .fold(value, ValueWriter::number)
            .rest(&self.rules_hash.to_be_bytes())
            .signed(self.run_from)
            .signed(self.expired_through)
            .number(self.dead_letters)
            .signed(self.dead_letters_cleared_through)
            .signed(self.redriven_through)
            .finish()
    }

    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "partition row", VERSION)?;
        let flags = reader.byte()?;
        let topic = reader.text()?.to_owned();
        let (offset, last_offset, hash) = (reader.signed()?, reader.signed()?, u64::from_be_bytes(reader.fixed()?));
        let (record_ms, ingested_ms) = (reader.signed()?, reader.signed()?);
        let outcomes = Outcomes {
            events: reader.number()?,
            accepted: reader.number()?,
            tombstones: reader.number()?,
            duplicates: reader.number()?,
            dead_letters: reader.number()?,
            superseded: reader.number()?,
            deleted: reader.number()?,
            expired: reader.number()?,
            documents: reader.number()?,
            bytes: reader.number()?,
        };
        let row = Self {
            topic: (flags & TOPIC != 0).then_some(topic),
            offset,
            last_offset,
            hash,
            outcomes,
            last_record_ms: (flags & RECORD_TIME != 0).then_some(record_ms),
            last_ingested_ms: (flags & INGEST_TIME != 0).then_some(ingested_ms),
            keys_elsewhere: reader.number()?,
            trial_records: reader.number()?,
            trial_dead: reader.number()?,
            dead_bytes: reader.number()?,
            stopped_by_dead_letters: flags & DEAD != 0,
            rules_hash: u64::from_be_bytes(reader.fixed()?),
            run_from: reader.signed()?,
            expired_through: reader.signed()?,
            dead_letters: reader.number()?,
            dead_letters_cleared_through: reader.signed()?,
            redriven_through: if reader.is_at_end() { -1 } else { reader.signed()? },
        };
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_partition_row_round_trips(
            topic in any::<Option<String>>(),
            offsets in any::<(i64, i64, u64)>(),
            times in any::<(Option<i64>, Option<i64>)>(),
            c in proptest::collection::vec(any::<u64>(), 14),
            stopped_by_dead_letters: bool,
            removed in any::<(u64, i64, i64, u64, i64, i64)>(),
        ) {
            let outcomes = Outcomes {
                events: c[0],
                accepted: c[1],
                tombstones: c[2],
                duplicates: c[3],
                dead_letters: c[4],
                superseded: c[5],
                deleted: c[6],
                expired: c[7],
                documents: c[8],
                bytes: c[9],
            };
            let row = PartitionRow {
                topic,
                offset: offsets.0,
                last_offset: offsets.1,
                hash: offsets.2,
                outcomes,
                last_record_ms: times.0,
                last_ingested_ms: times.1,
                keys_elsewhere: c[10],
                trial_records: c[11],
                trial_dead: c[12],
                dead_bytes: c[13],
                stopped_by_dead_letters,
                rules_hash: removed.0,
                run_from: removed.1,
                expired_through: removed.2,
                dead_letters: removed.3,
                dead_letters_cleared_through: removed.4,
                redriven_through: removed.5,
            };
            prop_assert_eq!(PartitionRow::decode(&row.encode())?, row);
        }
    }
}
