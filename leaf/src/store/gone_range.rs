//! Gone range. Family `meta`, key: 26 partition, offset of the change. Value: when the change was requested, the ranges of
//! places of the partition whose documents it deletes, and those whose documents expired. The row stays until its documents
//! are erased: then nothing of them is left to hide.

use proto::place_ranges::PlaceRanges;

use super::key::{KeyReader, Partition, RowKey, RowKind};
use crate::codec::{DecodeError, DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 2;
/// Rows of earlier versions have no ranges of expired documents.
const EXPIRED_VERSION: u8 = 2;

/// The ranges that one change hides of a partition. No two rows of a partition have the same place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GoneRangeRow {
    /// When the change was requested, or at the latest when it was applied, in milliseconds since 1970.
    pub time_ms: i64,
    /// What is deleted.
    pub deleted: PlaceRanges,
    /// What has expired.
    pub expired: PlaceRanges,
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
        let value = ValueWriter::new(VERSION).signed(self.time_ms);
        let ranges = |value: ValueWriter, ranges: &PlaceRanges| {
            let numbers = ranges.to_numbers();
            let value = value.number(numbers.len() as u64);
            numbers.into_iter().fold(value, ValueWriter::number)
        };
        ranges(ranges(value, &self.deleted), &self.expired).finish()
    }

    fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "gone range", VERSION)?;
        let version = value[0];
        let time_ms = reader.signed()?;
        let deleted = read_ranges(&mut reader)?;
        let expired = match version {
            ..EXPIRED_VERSION => PlaceRanges::default(),
            _ => read_ranges(&mut reader)?,
        };
        Ok(Self {
            time_ms,
            deleted,
            expired,
        })
    }
}

fn read_ranges(reader: &mut ValueReader<'_>) -> DecodeResult<PlaceRanges> {
    let count = reader.number()?;
    let numbers: Vec<u64> = (0..count).map(|_| reader.number()).collect::<Result<_, _>>()?;
    PlaceRanges::of_numbers(&numbers).ok_or_else(|| DecodeError::Malformed("the ranges do not ascend".into()))
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
            places in prop::collection::vec((0i64.., any::<Option<u32>>(), any::<bool>()), 0..20),
        ) {
            let ranges = |of: bool| {
                let places = places.iter().filter(|place| place.2 == of);
                places.map(|(offset, item, _)| range_of(*offset, *item)).collect()
            };
            let row = GoneRangeRow { time_ms, deleted: ranges(false), expired: ranges(true) };
            let partition = Partition { source: proto::SourceName::push(), number };
            let decoded = decode(&key(&partition, change), &row.encode())?;
            prop_assert_eq!(decoded, (partition, change, row));
        }
    }

    #[test]
    fn a_row_of_the_release_before_has_only_deleted_documents() {
        let row = ValueWriter::new(1).signed(-7).number(4);
        let row = [5, 0, 1, 0].into_iter().fold(row, ValueWriter::number).finish();
        let deleted = [range_of(5, None)].into_iter().collect();
        let decoded = GoneRangeRow::decode(&row).expect("a row");
        assert_eq!(
            decoded,
            GoneRangeRow {
                time_ms: -7,
                deleted,
                ..GoneRangeRow::default()
            }
        );
    }
}
