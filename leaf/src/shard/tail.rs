//! Tail: the newest documents of a shard, which are in no segment yet, in address order within each partition.
//!
//! A deleted document leaves an empty slot. The indexer takes a snapshot of the slots; when its segment is ready, the
//! slots show which of its documents were deleted in the meantime.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    Address,
    place_ranges::{Place, PlaceRanges},
};

use crate::{document::Document, store::Partition};

struct Slot {
    offset: i64,
    item: Option<u32>,
    document: Option<Arc<Document>>,
}

impl Slot {
    fn place(&self) -> Place {
        Place {
            offset: self.offset,
            item: self.item.unwrap_or_default(),
        }
    }
}

/// The documents that are in no segment yet.
#[derive(Default)]
pub(crate) struct Tail {
    slots: BTreeMap<Partition, Vec<Slot>>,
    documents: usize,
    bytes: usize,
}

/// A snapshot for the indexer: the number of slots of each partition, and the documents in them.
pub(crate) struct TailSnapshot {
    /// In address order.
    pub documents: Vec<Arc<Document>>,
    counts: BTreeMap<Partition, usize>,
}

impl Tail {
    /// Appends a document, which must have the highest address of its partition.
    pub(crate) fn push(&mut self, document: Arc<Document>) {
        let Address { offset, item, .. } = document.address;
        self.documents += 1;
        self.bytes += document.memory_bytes();
        let slots = self.slots.entry(Partition::of(&document.address)).or_default();
        debug_assert!(
            slots
                .last()
                .is_none_or(|last| (last.offset, last.item) < (offset, item)),
            "documents are appended in address order"
        );
        slots.push(Slot {
            offset,
            item,
            document: Some(document),
        });
    }

    /// Removes a document; false if it is not here.
    pub(crate) fn remove(&mut self, address: &Address) -> bool {
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
        self.bytes -= document.memory_bytes();
        true
    }

    /// The number of documents in these ranges of a partition.
    pub(crate) fn count_in(&self, partition: &Partition, ranges: &PlaceRanges) -> u64 {
        let slots = self.slots.get(partition).map(Vec::as_slice).unwrap_or_default();
        let lives_there = |slot: &&Slot| slot.document.is_some() && ranges.contains(slot.place());
        slots.iter().filter(lives_there).count() as u64
    }

    /// Removes the documents in these ranges of a partition.
    pub(crate) fn remove_in(&mut self, partition: &Partition, ranges: &PlaceRanges) {
        let slots = self.slots.get_mut(partition).map(Vec::as_mut_slice).unwrap_or_default();
        for slot in slots.iter_mut().filter(|slot| ranges.contains(slot.place())) {
            if let Some(document) = slot.document.take() {
                self.documents -= 1;
                self.bytes -= document.memory_bytes();
            }
        }
    }

    /// The number of documents.
    pub(crate) fn documents(&self) -> usize {
        self.documents
    }

    /// The size of the documents in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are no slots, not even empty ones.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All documents in address order.
    pub(crate) fn live(&self) -> Vec<Arc<Document>> {
        self.slots
            .values()
            .flatten()
            .filter_map(|slot| slot.document.clone())
            .collect()
    }

    /// Takes a snapshot of all slots. They stay until [`Self::remove_snapshot`].
    pub(crate) fn snapshot(&self) -> TailSnapshot {
        TailSnapshot {
            documents: self.live(),
            counts: self
                .slots
                .iter()
                .map(|(partition, slots)| (partition.clone(), slots.len()))
                .collect(),
        }
    }

    /// Removes the slots of a snapshot and returns which of its documents were deleted after it was taken.
    pub(crate) fn remove_snapshot(&mut self, snapshot: &TailSnapshot) -> Vec<Address> {
        let mut deleted = Vec::new();
        let mut documents = snapshot.documents.iter().peekable();
        for (partition, count) in &snapshot.counts {
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
                        self.bytes -= document.memory_bytes();
                    }
                    (None, Some(document)) => deleted.push(document.address.clone()),
                    (None, None) => {}
                }
            }
            if slots.is_empty() {
                self.slots.remove(partition);
            }
        }
        deleted
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
    fn documents_deleted_during_a_build_are_returned_when_its_snapshot_is_removed() {
        let mut tail = Tail::default();
        for address in ["b/0@1", "a/0@5", "b/0@2.0", "b/0@2.1", "a/1@0"] {
            tail.push(document(address));
        }
        assert!(tail.remove(&"b/0@1".parse().expect("an address")));
        assert!(
            !tail.remove(&"b/0@1".parse().expect("an address")),
            "a document is removed only once"
        );
        let snapshot = tail.snapshot();
        assert_eq!(addresses(&snapshot.documents), ["a/0@5", "a/1@0", "b/0@2.0", "b/0@2.1"]);
        tail.push(document("b/0@3"));
        tail.push(document("c/0@0"));
        assert!(tail.remove(&"b/0@2.0".parse().expect("an address")));
        assert!(tail.remove(&"c/0@0".parse().expect("an address")));
        assert_eq!(
            tail.remove_snapshot(&snapshot),
            ["b/0@2.0".parse().expect("an address")]
        );
        assert_eq!(addresses(&tail.live()), ["b/0@3"]);
        assert_eq!((tail.documents(), tail.bytes()), (1, document("b/0@3").memory_bytes()));
        let rest = tail.snapshot();
        tail.remove_snapshot(&rest);
        assert_eq!((tail.documents(), tail.bytes(), tail.is_empty()), (0, 0, true));
    }
}
