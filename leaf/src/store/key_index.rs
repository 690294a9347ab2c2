//! Key index row. Family `keys`, key: the bytes of the id. Value: the addresses of the newest documents with this id,
//! one for each partition that has one, with their number in front; then the number of those that were dead letters before,
//! and for each of them: which document it is, the address of its dead letter, and the offset through which the partition
//! of that was read when its change was made.
//!
//! A dead letter that is ingested again follows everything that was read of its partition when its change was made.
//!
//! One point lookup answers both questions of an ingest: which document a new one replaces in its own partition, and
//! whether other partitions have the key, too.

use proto::{Address, place_ranges::Place};

use super::key::Partition;
use crate::codec::{DecodeError, DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// The documents with one id, at most one per partition, ordered by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyIndexRow(Vec<KeyedDocument>);

/// A document with a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyedDocument {
    /// Where it is.
    pub address: Address,
    /// The dead letter that it was before, if it was one.
    pub redriven: Option<RedrivenLetter>,
}

/// A dead letter that was ingested again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RedrivenLetter {
    /// Where it was.
    pub address: Address,
    /// The offset through which its partition was read when the change was made.
    pub read_through: i64,
}

impl KeyedDocument {
    /// The partition in which its key is unique.
    pub(crate) fn partition(&self) -> Partition {
        Partition::of(self.redriven.as_ref().map_or(&self.address, |letter| &letter.address))
    }

    /// Where it is in the order of its key: behind all that was read, if it was a dead letter.
    pub(crate) fn place(&self) -> Place {
        match &self.redriven {
            Some(letter) => Place {
                offset: letter.read_through,
                item: u32::MAX,
            },
            None => Place::of(&self.address),
        }
    }

    /// Where its event was.
    pub(crate) fn event(&self) -> Place {
        Place::of(self.redriven.as_ref().map_or(&self.address, |letter| &letter.address))
    }
}

impl KeyIndexRow {
    /// Inserts a document, unless its partition has a later one. Returns the address of the one that is replaced: that of
    /// the earlier one.
    pub(crate) fn put(&mut self, document: KeyedDocument) -> Option<Address> {
        let partition = document.partition();
        let Some(known) = self.0.iter_mut().find(|known| known.partition() == partition) else {
            self.0.push(document);
            self.0.sort();
            return None;
        };
        if known.place() > document.place() {
            return Some(document.address);
        }
        let replaced = std::mem::replace(known, document).address;
        self.0.sort();
        Some(replaced)
    }

    /// Removes and returns the document of a partition that is before the end of a place.
    pub(crate) fn take_through(&mut self, partition: &Partition, end: Place) -> Option<Address> {
        let is_taken = |known: &KeyedDocument| known.partition() == *partition && known.place() <= end;
        let at = self.0.iter().position(is_taken)?;
        Some(self.0.remove(at).address)
    }

    /// Removes the documents that `keep` is false for.
    pub(crate) fn retain(&mut self, keep: impl Fn(&KeyedDocument) -> bool) {
        self.0.retain(keep);
    }

    /// All documents.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &KeyedDocument> {
        self.0.iter()
    }

    /// The addresses of all documents.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Address> {
        self.0.iter().map(|known| &known.address)
    }

    /// The partitions that have the key.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.0.iter().map(KeyedDocument::partition)
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
        let value = ValueWriter::new(VERSION).number(self.0.len() as u64);
        let value = self
            .0
            .iter()
            .fold(value, |value, known| put_address(value, &known.address));
        let letters = || {
            (0u64..)
                .zip(&self.0)
                .filter_map(|(number, known)| Some((number, known.redriven.as_ref()?)))
        };
        letters()
            .fold(value.number(letters().count() as u64), |value, (number, letter)| {
                put_address(value.number(number), &letter.address).signed(letter.read_through)
            })
            .finish()
    }

    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "key row", VERSION)?;
        let mut documents = Vec::new();
        for _ in 0..reader.number()? {
            documents.push(KeyedDocument {
                address: read_address(&mut reader)?,
                redriven: None,
            });
        }
        let letters = if reader.is_at_end() { 0 } else { reader.number()? };
        for _ in 0..letters {
            let number: usize = reader.small()?;
            let letter = RedrivenLetter {
                address: read_address(&mut reader)?,
                read_through: reader.signed()?,
            };
            let document = documents.get_mut(number);
            document
                .ok_or_else(|| DecodeError::Malformed(format!("it has no document {number}")))?
                .redriven = Some(letter);
        }
        Ok(Self(documents))
    }
}

fn put_address(value: ValueWriter, address: &Address) -> ValueWriter {
    Partition::of(address)
        .encode_into(value)
        .signed(address.offset)
        .number(address.item.map_or(0, |item| u64::from(item) + 1))
}

fn read_address(reader: &mut ValueReader<'_>) -> DecodeResult<Address> {
    let partition = Partition::decode_from(reader)?;
    let offset = reader.signed()?;
    let item = match reader.number()? {
        0 => None,
        item => Some(u32::try_from(item - 1).map_err(|e| DecodeError::Malformed(e.to_string()))?),
    };
    Ok(partition.address(offset, item))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn a_key_index_row_round_trips(
            documents in proptest::collection::vec(
                (addresses(), proptest::option::of((addresses(), any::<i64>()))),
                0..5,
            ),
        ) {
            let mut key_index = KeyIndexRow::default();
            for (address, letter) in documents {
                let redriven = letter.map(|(address, read_through)| RedrivenLetter { address, read_through });
                key_index.put(KeyedDocument { address, redriven });
            }
            prop_assert_eq!(KeyIndexRow::decode(&key_index.encode())?, key_index);
        }
    }

    #[test]
    fn a_partition_has_at_most_one_document_per_key() {
        let mut key_index = KeyIndexRow::default();
        assert_eq!(key_index.put(document("b/0@1")), None);
        assert_eq!(key_index.put(document("a/1@5.3")), None);
        assert_eq!(key_index.put(document("b/0@7")), Some(at("b/0@1")));
        assert_eq!(
            key_index.iter().cloned().collect::<Vec<_>>(),
            [at("a/1@5.3"), at("b/0@7")]
        );
        assert_eq!(take(&mut key_index, "a/1@5.2"), None);
        assert_eq!(take(&mut key_index, "a/1@6"), Some(at("a/1@5.3")));
        assert_eq!(take(&mut key_index, "a/1@6"), None);
    }

    #[test]
    fn a_dead_letter_that_is_ingested_again_follows_what_was_read_before() {
        let again = |letter: &str, read_through: i64, address: &str| KeyedDocument {
            address: at(address),
            redriven: Some(RedrivenLetter {
                address: at(letter),
                read_through,
            }),
        };
        let mut key_index = KeyIndexRow::default();
        assert_eq!(key_index.put(document("b/0@10")), None);
        // It is earlier than what the partition has, and then later.
        assert_eq!(
            key_index.put(again("b/0@8", 9, "_changes/0@1")),
            Some(at("_changes/0@1"))
        );
        assert_eq!(key_index.put(again("b/0@9", 11, "_changes/0@2")), Some(at("b/0@10")));
        // Another partition's key is another document.
        assert_eq!(key_index.put(again("b/1@3", 3, "_changes/0@3")), None);
        assert_eq!(
            key_index
                .partitions()
                .map(|partition| partition.number)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(take(&mut key_index, "b/0@11"), None);
        assert_eq!(key_index.put(document("b/0@12")), Some(at("_changes/0@2")));
        assert_eq!(take(&mut key_index, "b/1@4"), Some(at("_changes/0@3")));
    }

    fn take(key_index: &mut KeyIndexRow, end: &str) -> Option<Address> {
        let end = at(end);
        key_index.take_through(&Partition::of(&end), Place::of(&end))
    }

    fn at(text: &str) -> Address {
        text.parse().expect("an address")
    }

    fn document(address: &str) -> KeyedDocument {
        KeyedDocument {
            address: at(address),
            redriven: None,
        }
    }
}
