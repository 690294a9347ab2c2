//! Key index row. Family `keys`, key: the bytes of the id. Value: the addresses of the newest documents with this id,
//! one for each partition that has one, with their number in front.
//!
//! One point lookup answers both questions of an ingest: which document a new one replaces in its own partition, and
//! whether other partitions have the key, too.

use proto::Address;

use super::key::Partition;
use crate::codec::{DecodeError, DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// Addresses of the documents with one id, at most one per partition, ordered by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyIndexRow(Vec<Address>);

impl KeyIndexRow {
    /// Inserts a document and returns the one it replaces in its partition.
    pub(crate) fn put(&mut self, address: Address) -> Option<Address> {
        let partition = Partition::of(&address);
        match self.0.iter_mut().find(|known| Partition::of(known) == partition) {
            Some(known) => Some(std::mem::replace(known, address)),
            None => {
                self.0.push(address);
                self.0.sort();
                None
            }
        }
    }

    /// Removes and returns the document of a partition.
    pub(crate) fn take(&mut self, partition: &Partition) -> Option<Address> {
        let at = self.0.iter().position(|known| Partition::of(known) == *partition)?;
        Some(self.0.remove(at))
    }

    /// Removes the addresses that `keep` is false for.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Address) -> bool) {
        self.0.retain(keep);
    }

    /// All addresses.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Address> {
        self.0.iter()
    }

    /// The number of partitions with the key.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no partition has the key.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = ValueWriter::new(VERSION).number(self.0.len() as u64);
        for address in &self.0 {
            value = value
                .bytes(address.source.as_str().as_bytes())
                .signed(i64::from(address.partition))
                .signed(address.offset);
            value = value.number(address.item.map_or(0, |item| u64::from(item) + 1));
        }
        value.finish()
    }

    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "key row", VERSION)?;
        let mut addresses = Vec::new();
        for _ in 0..reader.number()? {
            let source = reader
                .text()?
                .parse()
                .map_err(|e: proto::address::Malformed| DecodeError::Malformed(e.to_string()))?;
            let partition = i32::try_from(reader.signed()?).map_err(|e| DecodeError::Malformed(e.to_string()))?;
            let offset = reader.signed()?;
            let item = match reader.number()? {
                0 => None,
                item => Some(u32::try_from(item - 1).map_err(|e| DecodeError::Malformed(e.to_string()))?),
            };
            addresses.push(Address {
                source,
                partition,
                offset,
                item,
            });
        }
        Ok(Self(addresses))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_key_index_row_round_trips(addresses in proptest::collection::vec(addresses(), 0..5)) {
            let mut key_index = KeyIndexRow::default();
            addresses.into_iter().for_each(|address| drop(key_index.put(address)));
            prop_assert_eq!(KeyIndexRow::decode(&key_index.encode())?, key_index);
        }
    }

    #[test]
    fn a_partition_has_at_most_one_document_per_key() {
        let at = |text: &str| text.parse::<Address>().expect("an address");
        let mut key_index = KeyIndexRow::default();
        assert_eq!(key_index.put(at("b/0@1")), None);
        assert_eq!(key_index.put(at("a/1@5.3")), None);
        assert_eq!(key_index.put(at("b/0@7")), Some(at("b/0@1")));
        assert_eq!(
            key_index.iter().cloned().collect::<Vec<_>>(),
            [at("a/1@5.3"), at("b/0@7")]
        );
        assert_eq!(key_index.take(&Partition::of(&at("a/1@0"))), Some(at("a/1@5.3")));
        assert_eq!(key_index.take(&Partition::of(&at("a/1@0"))), None);
    }
}
