//! Manifest row. Family `meta`, key: 18 id of the split. Value: which records of which partitions it covers, how it
//! came about, how big it is.
//!
//! Written after the split's file is on disk under its name, so it names only what is there.

use std::{collections::BTreeMap, path::Path};

use super::{
    codec::{Read, Reader, Unreadable, Writer},
    key::Partition,
};

const VERSION: u8 = 1;

/// A run of offsets of each partition: after the first, through the second.
pub type Ranges = BTreeMap<Partition, (i64, i64)>;

/// A live split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRow {
    /// What it covers.
    pub ranges: Ranges,
    /// Where it stands among the others, the oldest first; a rebuild takes the place of the first it replaces.
    pub place: u64,
    /// How many rebuilds made it: 0 from the tail.
    pub generation: u32,
    /// Documents in it.
    pub documents: u64,
    /// Raw bytes of these documents, about.
    pub raw_bytes: u64,
}

/// The name of a split's file.
pub fn file_name(id: u64) -> String {
    format!("{id:016x}.split")
}

/// The split that a file is of, by its name.
pub fn split_of(file: &Path) -> Option<u64> {
    u64::from_str_radix(file.file_name()?.to_str()?.strip_suffix(".split")?, 16).ok()
}

impl ManifestRow {
    /// The value of the row.
    pub fn encode(&self) -> Vec<u8> {
        let value = Writer::new(VERSION)
            .number(self.place)
            .number(u64::from(self.generation))
            .number(self.documents)
            .number(self.raw_bytes);
        let range = |value: Writer, (partition, (after, through)): (&Partition, &(i64, i64))| {
            value
                .bytes(partition.source.as_str().as_bytes())
                .signed(i64::from(partition.number))
                .signed(*after)
                .signed(*through)
        };
        self.ranges
            .iter()
            .fold(value.number(self.ranges.len() as u64), range)
            .finish()
    }

    /// The row of a value.
    pub fn decode(value: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(value, VERSION)?;
        let (place, generation, documents, raw_bytes) =
            (reader.number()?, reader.small()?, reader.number()?, reader.number()?);
        let mut ranges = Ranges::new();
        for _ in 0..reader.number()? {
            let source = reader
                .text()?
                .parse()
                .map_err(|e: proto::address::Malformed| Unreadable(e.to_string()))?;
            let number = i32::try_from(reader.signed()?).map_err(|e| Unreadable(e.to_string()))?;
            ranges.insert(Partition { source, number }, (reader.signed()?, reader.signed()?));
        }
        reader.end()?;
        Ok(Self {
            ranges,
            place,
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
        fn a_manifest_row_reads_back(
            ranges in proptest::collection::vec((addresses(), any::<(i64, i64)>()), 0..5),
            place: u64,
            generation: u32,
            documents: u64,
            raw_bytes: u64,
        ) {
            let ranges = ranges.into_iter().map(|(address, range)| (Partition::of(&address), range)).collect();
            let row = ManifestRow { ranges, place, generation, documents, raw_bytes };
            prop_assert_eq!(ManifestRow::decode(&row.encode())?, row);
        }
    }
}
