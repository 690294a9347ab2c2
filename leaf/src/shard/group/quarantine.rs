//! Quarantine: the items of one record that become dead letters because the writer panicked on them.

use std::{cell::Cell, collections::BTreeSet};

use crate::shard::event::Event;

/// The maximum number of items of one record that are quarantined one by one; above it, all of its items are.
const QUARANTINED_ITEMS_MAX: usize = 16;

/// The quarantined items of one record.
#[derive(Default)]
pub(crate) struct QuarantinedItems {
    items: BTreeSet<u32>,
    all: bool,
    panic: String,
    /// The item being processed.
    current: Cell<u32>,
}

impl QuarantinedItems {
    /// Adds the current item, on which the writer panicked with this message; above the limit adds all items. False if
    /// all items were already quarantined.
    pub(crate) fn add(&mut self, panic: String) -> bool {
        let before = std::mem::replace(
            &mut self.all,
            !self.items.insert(self.current.get()) || self.items.len() > QUARANTINED_ITEMS_MAX,
        );
        self.panic = panic;
        !before
    }

    /// Starts an item and returns its dead letter if it is quarantined.
    pub(super) fn dead_letter<'e>(&self, item: Option<u32>) -> Option<Event<'e>> {
        let item = item.unwrap_or_default();
        self.current.set(item);
        (self.all || self.items.contains(&item)).then(|| Event::DeadLetter {
            code: "panicked",
            detail: self.detail(),
        })
    }

    fn detail(&self) -> String {
        format!(
            "a bug in Rachis: it panicked while it ingested this item ({}); report it, and ingest the item again with \
             a version that has the fix",
            self.panic
        )
    }
}
