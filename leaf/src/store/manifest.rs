//! Manifest row. Family `meta`, key: 18 split id. Value: the offset ranges the split covers, its order, generation and
//! size.
//!
//! The row is written after the file of the split is on disk under its final name, so it never names a missing file.

use std::{collections::BTreeMap, path::Path};

use super::key::Partition;
use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// An offset range for each partition: after the first offset (exclusive), through the second (inclusive).
pub(crate) type Ranges = BTreeMap<Partition, (i64, i64)>;

/// A live split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ManifestRow {
    /// The records it covers.
    pub ranges: Ranges,
    /// Its rank among the splits, oldest first; a rebuilt split inherits the rank of the first split it replaces.
    pub order: u64,
    /// Merge level: 0 if built from micro-splits, one more than its inputs after a merge. A rebuild keeps it.
    pub generation: u32,
    /// The number of documents in it.
    pub documents: u64,
    /// Approximate raw size of these documents in bytes.
    pub raw_bytes: u64,
}

/// The file name of a split.
pub(crate) fn file_name(id: u64) -> String {
    format!("{id:016x}.split")
}

/// The id of the split in a file, parsed from the file name.
pub(crate) fn split_of(file: &Path) -> Option<u64> {
    u64::from_str_radix(file.file_name()?.to_str()?.strip_suffix(".split")?, 16).ok()
}

impl ManifestRow {
    /// Encodes the row.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let value = ValueWriter::new(VERSION)
            .number(self.order)
            .number(u64::from(self.generation))
            .number(self.documents)
            .number(self.raw_bytes);
        let range = |value: ValueWriter, (partition, (after, through)): (&Partition, &(i64, i64))| {
            partition.encode_into(value).signed(*after).signed(*through)
        };
        self.ranges
            .iter()
            .fold(value.number(self.ranges.len() as u64), range)
            .finish()
    }

    /// Decodes a row.
    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "manifest row", VERSION)?;
        let (order, generation, documents, raw_bytes) =
            (reader.number()?, reader.small()?, reader.number()?, reader.number()?);
        let mut ranges = Ranges::new();
        for _ in 0..reader.number()? {
            let partition = Partition::decode_from(&mut reader)?;
            ranges.insert(partition, (reader.signed()?, reader.signed()?));
        }
        Ok(Self {
            ranges,
            order,
            generation,
            documents,
            raw_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_manifest_row_round_trips(
            ranges in proptest::collection::vec((addresses(), any::<(i64, i64)>()), 0..5),
            order: u64,
            generation: u32,
            documents: u64,
            raw_bytes: u64,
        ) {
            let ranges = ranges.into_iter().map(|(address, range)| (Partition::of(&address), range)).collect();
            let row = ManifestRow { ranges, order, generation, documents, raw_bytes };
            prop_assert_eq!(ManifestRow::decode(&row.encode())?, row);
        }
    }
}
