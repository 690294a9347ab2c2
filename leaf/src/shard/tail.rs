//! The newest documents of a shard, in no segment yet, in address order within each partition.
//!
//! A document that goes away leaves an empty slot: the indexer takes the slots as they stand, and when its segment is
//! ready the slots tell which of its documents went away meanwhile.

use std::{collections::BTreeMap, sync::Arc};

use proto::Address;

use crate::{document::Document, store::Partition};

struct Slot {
    offset: i64,
    item: Option<u32>,
    document: Option<Arc<Document>>,
}

/// The newest documents.
#[derive(Default)]
pub struct Tail {
    slots: BTreeMap<Partition, Vec<Slot>>,
    documents: usize,
    bytes: usize,
}

/// What the indexer took: so many slots of each partition, and the documents in them.
pub struct Taken {
    /// In address order.
    pub documents: Vec<Arc<Document>>,
    counts: BTreeMap<Partition, usize>,
}

impl Tail {
    /// Puts a document in, farther than all others of its partition.
    pub fn push(&mut self, document: Arc<Document>) {
        let Address { offset, item, .. } = document.address;
        self.documents += 1;
        self.bytes += document.weight();
        let slots = self.slots.entry(Partition::of(&document.address)).or_default();
        debug_assert!(
            slots
                .last()
                .is_none_or(|last| (last.offset, last.item) < (offset, item)),
            "the tail grows at its end"
        );
        slots.push(Slot {
            offset,
            item,
            document: Some(document),
        });
    }

    /// Takes a document out, if it is here.
    pub fn remove(&mut self, address: &Address) -> bool {
        let Some(slots) = self.slots.get_mut(&Partition::of(address)) else {
            return false;
        };
        let Ok(at) = slots.binary_search_by(|slot| (slot.offset, slot.item).cmp(&(address.offset, address.item)))
        else {
            return false;
        };
        let Some(document) = slots[at].document.take() else {
            return false;
        };
        self.documents -= 1;
        self.bytes -= document.weight();
        true
    }

    /// Documents in it.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// What they weigh, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is not even an empty slot.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All documents in address order.
    pub fn live(&self) -> Vec<Arc<Document>> {
        self.slots
            .values()
            .flatten()
            .filter_map(|slot| slot.document.clone())
            .collect()
    }

    /// Takes note of all slots there are; they stay until they are settled.
    pub fn take(&self) -> Taken {
        Taken {
            documents: self.live(),
            counts: self
                .slots
                .iter()
                .map(|(partition, slots)| (partition.clone(), slots.len()))
                .collect(),
        }
    }

    /// Lets go of what was taken, and answers which of its documents are gone by now.
    pub fn settle(&mut self, taken: &Taken) -> Vec<Address> {
        let mut gone = Vec::new();
        let mut documents = taken.documents.iter().peekable();
        for (partition, count) in &taken.counts {
            let Some(slots) = self.slots.get_mut(partition) else {
                continue;
            };
            for slot in slots.drain(..*count) {
                let was_live = documents.next_if(|d| {
                    (d.address.offset, d.address.item) == (slot.offset, slot.item)
                        && Partition::of(&d.address) == *partition
                });
                match (slot.document, was_live) {
                    (Some(document), _) => {
                        self.documents -= 1;
                        self.bytes -= document.weight();
                    }
                    (None, Some(document)) => gone.push(document.address.clone()),
                    (None, None) => {}
                }
            }
            if slots.is_empty() {
                self.slots.remove(partition);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Header;

    fn document(address: &str) -> Arc<Document> {
        Arc::new(Document {
            address: address.parse().expect("an address"),
            header: Header::default(),
            bytes: "{}".into(),
        })
    }

    fn addresses(documents: &[Arc<Document>]) -> Vec<String> {
        documents.iter().map(|d| d.address.to_string()).collect()
    }

    #[test]
    fn what_goes_away_during_a_build_is_told_when_it_settles() {
        let mut tail = Tail::default();
        for address in ["b/0@1", "a/0@5", "b/0@2.0", "b/0@2.1", "a/1@0"] {
            tail.push(document(address));
        }
        assert!(tail.remove(&"b/0@1".parse().expect("an address")));
        assert!(!tail.remove(&"b/0@1".parse().expect("an address")), "only once");
        let taken = tail.take();
        assert_eq!(addresses(&taken.documents), ["a/0@5", "a/1@0", "b/0@2.0", "b/0@2.1"]);
        tail.push(document("b/0@3"));
        tail.push(document("c/0@0"));
        assert!(tail.remove(&"b/0@2.0".parse().expect("an address")));
        assert!(tail.remove(&"c/0@0".parse().expect("an address")));
        assert_eq!(tail.settle(&taken), ["b/0@2.0".parse().expect("an address")]);
        assert_eq!(addresses(&tail.live()), ["b/0@3"]);
        assert_eq!((tail.documents(), tail.bytes()), (1, document("b/0@3").weight()));
        let rest = tail.take();
        tail.settle(&rest);
        assert_eq!((tail.documents(), tail.bytes(), tail.is_empty()), (0, 0, true));
    }
}
