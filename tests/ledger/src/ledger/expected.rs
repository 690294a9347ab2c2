//! What must be stored at the end, derived from the acknowledgements alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Delivery, Entry, Kind, Removed, key_text};

/// What must be stored of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Exactly one document; with this id if `whole`, otherwise with an id that starts with it.
    Present { id: String, whole: bool },
    /// Nothing: it was replaced or removed, or was never a document.
    Absent,
    /// At most one document: it was never acknowledged.
    AtMostOnce,
}

/// What the outcome counters of a Kafka partition must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PartitionCounts {
    pub events: i64,
    pub accepted: i64,
    pub tombstones: i64,
    pub dead_letters: i64,
    pub superseded: i64,
    pub deleted: i64,
    pub documents: i64,
    /// The last acknowledged offset.
    pub through: i64,
}

/// What must be stored of every event, by number.
pub(crate) fn expected(entries: &[Entry]) -> Vec<Expected> {
    let unless_removed = |(entry, expected): (&Entry, Expected)| match (entry.removed, &expected) {
        (Removed::Certainly, _) => Expected::Absent,
        (Removed::Possibly, Expected::Present { .. }) => Expected::AtMostOnce,
        _ => expected,
    };
    entries
        .iter()
        .zip(without_removals(entries))
        .map(unless_removed)
        .collect()
}

/// The same, if nothing was removed.
fn without_removals(entries: &[Entry]) -> Vec<Expected> {
    let last = last_of_keys(entries);
    entries
        .iter()
        .enumerate()
        .map(|(number, entry)| match (entry.kind, entry.delivery) {
            (Kind::DeadLetter | Kind::Empty | Kind::Tombstone | Kind::PushedDeadLetter, _)
            | (_, Delivery::NotInLog) => Expected::Absent,
            (Kind::Plain, Delivery::Acknowledged { partition, offset }) => Expected::Present {
                id: format!("plain/{partition}@{offset}"),
                whole: true,
            },
            (Kind::Pushed, Delivery::Acknowledged { partition, offset }) => Expected::Present {
                id: format!("push/{partition}@{offset}"),
                whole: false,
            },
            (Kind::Keyed | Kind::PushedWithId, Delivery::Acknowledged { .. }) => {
                match last.get(&(entry.kind == Kind::PushedWithId, entry.key)) {
                    Some(Some(winner)) if *winner == number => Expected::Present {
                        id: key_text(entry.kind, entry.key),
                        whole: true,
                    },
                    Some(Some(_)) => Expected::Absent,
                    _ => Expected::AtMostOnce,
                }
            }
            _ => Expected::AtMostOnce,
        })
        .collect()
}

/// Pushed or not, and key -> the number of the last event of this key; `None` if that may be an event whose delivery is
/// unknown.
///
/// Kafka orders records by offset. Each pushed id belongs to one pusher, which waits for each answer, so the numbers of
/// an id are in order.
fn last_of_keys(entries: &[Entry]) -> HashMap<(bool, u32), Option<usize>> {
    let mut last: HashMap<(bool, u32), (Option<usize>, i64)> = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        if !matches!(entry.kind, Kind::Keyed | Kind::Tombstone | Kind::PushedWithId)
            || entry.delivery == Delivery::NotInLog
        {
            continue;
        }
        let pushed = entry.kind == Kind::PushedWithId;
        let slot = last.entry((pushed, entry.key)).or_insert((Some(number), i64::MIN));
        match entry.delivery {
            Delivery::Acknowledged { offset, .. } => {
                let order = if pushed { number as i64 } else { offset };
                if slot.0.is_some() && order >= slot.1 {
                    *slot = (Some(number), order);
                }
            }
            _ => slot.0 = None,
        }
    }
    last.into_iter().map(|(key, (winner, _))| (key, winner)).collect()
}

/// What the counters of each Kafka partition must be; empty if the delivery of any produced record is unknown.
pub(crate) fn partition_counts(entries: &[Entry]) -> BTreeMap<(&'static str, i32), PartitionCounts> {
    if entries.iter().any(Entry::is_unknown_record) {
        return BTreeMap::new();
    }
    let mut by_partition: BTreeMap<(&'static str, i32), Vec<(i64, &Entry)>> = BTreeMap::new();
    for entry in entries {
        let Some(source) = entry.kind.topic() else { continue };
        if let Delivery::Acknowledged { partition, offset } = entry.delivery {
            by_partition
                .entry((source, partition))
                .or_default()
                .push((offset, entry));
        }
    }
    by_partition
        .into_iter()
        .map(|(partition, mut events)| (partition, count(&mut events)))
        .collect()
}

fn count(events: &mut [(i64, &Entry)]) -> PartitionCounts {
    events.sort_by_key(|(offset, _)| *offset);
    let mut counts = PartitionCounts::default();
    let mut live: HashSet<u32> = HashSet::new();
    for (offset, entry) in events {
        counts.events += 1;
        counts.through = *offset;
        match entry.kind {
            Kind::DeadLetter => counts.dead_letters += 1,
            Kind::Empty => counts.tombstones += 1,
            Kind::Tombstone => {
                counts.tombstones += 1;
                counts.deleted += i64::from(live.remove(&entry.key));
            }
            Kind::Keyed => {
                counts.accepted += 1;
                counts.superseded += i64::from(!live.insert(entry.key));
            }
            _ => counts.accepted += 1,
        }
    }
    counts.documents = counts.accepted - counts.superseded - counts.deleted;
    counts
}
