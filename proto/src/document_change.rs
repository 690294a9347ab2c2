//! Changes of documents that were ingested before, and their encoding as items of records of the source of changes.
//!
//! What a shard holds is a function of its partitions' records, and changes are records like any others: a replica that
//! is filled again reads them again, and hides again what was deleted.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use crate::{
    address::{Address, SourceName},
    place_ranges::PlaceRanges,
    record::{Record, Rules},
    wire::tailer::{self as wire, document_change::Change},
};

const VERSION: u8 = 1;

/// A change of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentChange {
    /// The documents in these ranges are deleted, whether the shard holds them already or reads them later.
    Delete(DeletedRanges),
    /// The same, because the retention of the collection says so.
    Expire {
        /// Which documents.
        ranges: DeletedRanges,
        /// When they were found to be too old, in milliseconds since 1970.
        as_of_ms: i64,
    },
    /// A dead letter is ingested again, unless an earlier change did so.
    Redrive(Box<Redrive>),
}

/// A dead letter that is ingested again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Where the dead letter is.
    pub address: Address,
    /// By which rules it is ingested now.
    pub rules: Rules,
    /// Its record, perhaps with another value than before. The offset is not used.
    pub record: Record,
    /// The offset through which its partition was read when the change was made: in the order of its key, the document
    /// follows everything until there.
    pub read_through: i64,
}

/// Ranges of places by source and partition.
pub type DeletedRanges = BTreeMap<(SourceName, i32), PlaceRanges>;

impl DocumentChange {
    /// The change as bytes.
    pub fn encode(&self) -> Bytes {
        let partition = |((source, partition), ranges): (&(SourceName, i32), &PlaceRanges)| wire::PartitionRanges {
            source: source.as_str().to_owned(),
            partition: *partition,
            ranges: ranges.to_numbers(),
        };
        let change = match self {
            Self::Delete(ranges) => Change::Delete(wire::DeletedDocuments {
                partitions: ranges.iter().map(partition).collect(),
            }),
            Self::Expire { ranges, as_of_ms } => Change::Expire(wire::ExpiredDocuments {
                partitions: ranges.iter().map(partition).collect(),
                as_of_ms: *as_of_ms,
            }),
            Self::Redrive(redrive) => Change::Redrive(wire::RedrivenDeadLetter {
                address: redrive.address.to_string(),
                rules: Some(redrive.rules.clone().into()),
                record: Some(redrive.record.clone().into()),
                read_through: redrive.read_through,
            }),
        };
        let message = wire::DocumentChange { change: Some(change) };
        let mut bytes = Vec::with_capacity(1 + message.encoded_len());
        bytes.push(VERSION);
        message.encode_raw(&mut bytes);
        bytes.into()
    }

    /// Whether these bytes are a dead letter that is ingested again, if they are a change. Does not read all of them.
    pub fn is_redrive(bytes: &[u8]) -> bool {
        // A change has one field, and its number is in its first byte.
        const FIELD: u8 = 3;
        bytes.get(1).is_some_and(|tag| tag >> 3 == FIELD)
    }

    /// The change of these bytes; none if they are no change.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, message) = bytes.split_first()? else {
            return None;
        };
        Some(match wire::DocumentChange::decode(message).ok()?.change? {
            Change::Delete(deleted) => Self::Delete(ranges_of(deleted.partitions)?),
            Change::Expire(expired) => Self::Expire {
                ranges: ranges_of(expired.partitions)?,
                as_of_ms: expired.as_of_ms,
            },
            Change::Redrive(redrive) => Self::Redrive(Box::new(Redrive {
                address: redrive.address.parse().ok()?,
                rules: redrive.rules?.into(),
                record: redrive.record?.try_into().ok()?,
                read_through: redrive.read_through,
            })),
        })
    }
}

fn ranges_of(partitions: Vec<wire::PartitionRanges>) -> Option<DeletedRanges> {
    let mut ranges = DeletedRanges::new();
    for partition in partitions {
        let of = (partition.source.parse().ok()?, partition.partition);
        ranges
            .entry(of)
            .or_default()
            .add(&PlaceRanges::of_numbers(&partition.ranges)?);
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        place_ranges::range_of,
        record::{Format, Key, RecordValue, TimeKind},
    };

    #[test]
    fn a_change_round_trips_and_other_bytes_are_no_change() {
        let ranges = |offsets: &[i64]| offsets.iter().map(|offset| range_of(*offset, None)).collect();
        let of = |source: &str, partition| (source.parse().expect("a name"), partition);
        let deleted = DeletedRanges::from([
            (of("clicks", 0), ranges(&[1, 2, 3, 900])),
            (of("push", 7), ranges(&[0, 1 << 40])),
        ]);
        let expire = DocumentChange::Expire {
            ranges: deleted.clone(),
            as_of_ms: 1_700_000_000_000,
        };
        assert_eq!(DocumentChange::decode(&expire.encode()), Some(expire));
        let redrive = DocumentChange::Redrive(Box::new(Redrive {
            address: "clicks/3@17.4".parse().expect("an address"),
            rules: Rules {
                format: Format::Text,
                key: Some(Key::Record),
            },
            record: Record {
                key: Some(Bytes::from_static(b"k")),
                value: RecordValue::One(Bytes::from_static(b"{")),
                time_ms: -5,
                time_kind: TimeKind::Create,
                headers: vec![("h".into(), None)],
                ..Record::default()
            },
            read_through: 40,
        }));
        assert!(DocumentChange::is_redrive(&redrive.encode()));
        assert_eq!(DocumentChange::decode(&redrive.encode()), Some(redrive));
        let delete = DocumentChange::Delete(deleted);
        let bytes = delete.encode();
        assert!(!DocumentChange::is_redrive(&bytes));
        assert_eq!(DocumentChange::decode(&bytes), Some(delete));
        for other in [
            &b""[..],
            b"{}",
            b"\x01",
            b"\x01\x01",
            b"\x02",
            &bytes[..bytes.len() - 1],
        ] {
            assert_eq!(DocumentChange::decode(other), None, "{other:?}");
        }
    }
}
