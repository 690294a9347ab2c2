//! Holders row. Family `keys`, key: the id's bytes. Value: the newest document of that id in each partition that has
//! one.
//!
//! One read tells all: what a new document replaces in its own partition, and whether another partition has the key
//! too.

use proto::Address;

use super::{
    codec::{Read, Reader, Unreadable, Writer},
    key::Partition,
};

const VERSION: u8 = 1;

/// The documents of one id, at most one a partition, in the order of partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders(Vec<Address>);

impl Holders {
    /// Puts a document in, and answers what it replaces in its partition.
    pub fn put(&mut self, address: Address) -> Option<Address> {
        let partition = Partition::of(&address);
        match self.0.iter_mut().find(|held| Partition::of(held) == partition) {
            Some(held) => Some(std::mem::replace(held, address)),
            None => {
                self.0.push(address);
                self.0.sort();
                None
            }
        }
    }

    /// Takes the document of a partition out.
    pub fn take(&mut self, partition: &Partition) -> Option<Address> {
        let at = self.0.iter().position(|held| Partition::of(held) == *partition)?;
        Some(self.0.remove(at))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.0.iter()
    }

    /// How many partitions have the key.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no partition has it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the row.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Writer::new(VERSION);
        for held in &self.0 {
            value = value
                .bytes(held.source.as_str().as_bytes())
                .signed(i64::from(held.partition))
                .signed(held.offset);
            value = value.number(held.item.map_or(0, |item| u64::from(item) + 1));
        }
        value.finish()
    }

    /// The row of a value.
    pub fn decode(value: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(value, VERSION)?;
        let mut held = Vec::new();
        while let Ok(source) = reader.text() {
            let source = source
                .parse()
                .map_err(|e: proto::address::Malformed| Unreadable(e.to_string()))?;
            let partition = i32::try_from(reader.signed()?).map_err(|e| Unreadable(e.to_string()))?;
            let offset = reader.signed()?;
            let item = match reader.number()? {
                0 => None,
                item => Some(u32::try_from(item - 1).map_err(|e| Unreadable(e.to_string()))?),
            };
            held.push(Address {
                source,
                partition,
                offset,
                item,
            });
        }
        reader.end()?;
        Ok(Self(held))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::tests::addresses;

    proptest! {
        #[test]
        fn holders_read_back(addresses in proptest::collection::vec(addresses(), 0..5)) {
            let mut holders = Holders::default();
            addresses.into_iter().for_each(|address| drop(holders.put(address)));
            prop_assert_eq!(Holders::decode(&holders.encode())?, holders);
        }
    }

    #[test]
    fn a_partition_holds_one_document_of_a_key() {
        let at = |text: &str| text.parse::<Address>().expect("an address");
        let mut holders = Holders::default();
        assert_eq!(holders.put(at("b/0@1")), None);
        assert_eq!(holders.put(at("a/1@5.3")), None);
        assert_eq!(holders.put(at("b/0@7")), Some(at("b/0@1")));
        assert_eq!(
            holders.iter().cloned().collect::<Vec<_>>(),
            [at("a/1@5.3"), at("b/0@7")]
        );
        assert_eq!(holders.take(&Partition::of(&at("a/1@0"))), Some(at("a/1@5.3")));
        assert_eq!(holders.take(&Partition::of(&at("a/1@0"))), None);
    }
}
