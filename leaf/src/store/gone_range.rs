//! Gone range. Family `meta`, key: 26 partition, offset of the change. Value: when the change was requested, and the
//! ranges of places of the partition whose documents it deletes. The row stays until its documents are erased: then
//! nothing of them is left to hide.

use proto::place_ranges::PlaceRanges;

use super::key::{KeyReader, Partition, RowKey, RowKind};
use crate::codec::{DecodeError, DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// The ranges that one change deletes of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoneRangeRow {
    /// When the change was requested, or at the latest when it was applied, in milliseconds since 1970.
    pub time_ms: i64,
    pub ranges: PlaceRanges,
}

/// The key of the ranges of a partition that a change at this offset deletes.
pub(crate) fn key(partition: &Partition, change: i64) -> Vec<u8> {
    RowKey::new(RowKind::GoneRange)
        .partition(partition)
        .signed(change)
        .bytes()
}

/// The partition, the offset of the change, and the ranges of a row.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> DecodeResult<(Partition, i64, GoneRangeRow)> {
    let mut key = KeyReader::new(key, RowKind::GoneRange)?;
    Ok((key.partition()?, key.signed()?, GoneRangeRow::decode(value)?))
}

impl GoneRangeRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let numbers = self.ranges.to_numbers();
        let value = ValueWriter::new(VERSION)
            .signed(self.time_ms)
            .number(numbers.len() as u64);
        numbers.into_iter().fold(value, ValueWriter::number).finish()
    }

    fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "gone range", VERSION)?;
        let time_ms = reader.signed()?;
        let count = reader.number()?;
        let numbers: Vec<u64> = (0..count).map(|_| reader.number()).collect::<Result<_, _>>()?;
        let ranges = PlaceRanges::of_numbers(&numbers)
            .ok_or_else(|| DecodeError::Malformed("the ranges do not ascend".into()))?;
        Ok(Self { time_ms, ranges })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::place_ranges::range_of;

    use super::*;

    proptest! {
        #[test]
        fn a_gone_range_round_trips(
            time_ms: i64,
            number: i32,
            change: i64,
            places in prop::collection::vec((0i64.., any::<Option<u32>>()), 0..20),
        ) {
            let ranges = places.into_iter().map(|(offset, item)| range_of(offset, item)).collect();
            let row = GoneRangeRow { time_ms, ranges };
            let partition = Partition { source: proto::SourceName::push(), number };
            let decoded = decode(&key(&partition, change), &row.encode())?;
            prop_assert_eq!(decoded, (partition, change, row));
        }
    }
}
