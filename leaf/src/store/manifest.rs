//! Manifest row. Family `meta`, key: 18 split id. Value: the offset ranges the split covers, its order, generation and
//! size, which file it is, and the times of its documents.
//!
//! The row is written after the file of the split is on disk under its final name, so it never names a missing file.

use std::path::Path;

use uuid::Uuid;

use super::key::{Partition, Ranges};
use crate::{
    codec::{DecodeResult, ValueReader, ValueWriter},
    split::{Segment, TimeBounds},
};

const VERSION: u8 = 1;

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
    /// The id of its file.
    pub uuid: Uuid,
    /// The hash of its file, as the footer has it.
    pub hash: u128,
    pub file_bytes: u64,
    /// The times of its documents.
    pub times: TimeBounds,
    /// Where an object store has the file; empty while it is only here.
    pub place: String,
    /// The files with materialised columns of its documents; none yet.
    pub sidecars: Vec<Uuid>,
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
    /// Names the file of a split.
    pub(crate) fn name_file(&mut self, split: &Segment) {
        if let Some(facts) = split.facts() {
            (self.uuid, self.hash, self.times) = (facts.origin.uuid, facts.hash, facts.times);
            self.file_bytes = split.bytes();
        }
    }

    /// Whether it names the file of this split.
    pub(crate) fn names_file(&self, split: &Segment) -> bool {
        split
            .facts()
            .is_some_and(|facts| (facts.origin.uuid, facts.hash) == (self.uuid, self.hash))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let value = ValueWriter::new(VERSION)
            .number(self.order)
            .number(u64::from(self.generation))
            .number(self.documents)
            .number(self.raw_bytes)
            .rest(self.uuid.as_bytes())
            .rest(&self.hash.to_be_bytes())
            .number(self.file_bytes)
            .bytes(&self.times.encode())
            .bytes(self.place.as_bytes())
            .number(self.sidecars.len() as u64);
        let value = (self.sidecars.iter()).fold(value, |value, sidecar| value.rest(sidecar.as_bytes()));
        let range = |value: ValueWriter, (partition, (after, through)): (&Partition, &(i64, i64))| {
            partition.encode_into(value).signed(*after).signed(*through)
        };
        self.ranges
            .iter()
            .fold(value.number(self.ranges.len() as u64), range)
            .finish()
    }

    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "manifest row", VERSION)?;
        let (order, generation, documents, raw_bytes) =
            (reader.number()?, reader.small()?, reader.number()?, reader.number()?);
        let (uuid, hash) = (Uuid::from_bytes(reader.fixed()?), u128::from_be_bytes(reader.fixed()?));
        let file_bytes = reader.number()?;
        let times = TimeBounds::decode(reader.bytes()?)?;
        let place = reader.text()?.to_owned();
        let sidecars = (0..reader.number()?).map(|_| reader.fixed().map(Uuid::from_bytes));
        let sidecars = sidecars.collect::<DecodeResult<_>>()?;
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
            uuid,
            hash,
            file_bytes,
            times,
            place,
            sidecars,
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
            file: (u128, u128, u64),
            times: [Option<(i64, i64)>; 2],
            place: String,
            sidecars: Vec<u128>,
        ) {
            let ranges = ranges.into_iter().map(|(address, range)| (Partition::of(&address), range)).collect();
            let row = ManifestRow {
                ranges,
                order,
                generation,
                documents,
                raw_bytes,
                uuid: Uuid::from_u128(file.0),
                hash: file.1,
                file_bytes: file.2,
                times: TimeBounds { time_ms: times[0], ingested_ms: times[1] },
                place,
                sidecars: sidecars.into_iter().map(Uuid::from_u128).collect(),
            };
            prop_assert_eq!(ManifestRow::decode(&row.encode())?, row);
        }
    }
}
