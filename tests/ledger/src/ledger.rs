//! The ledger: what was sent under each number, and what its sender knows about it.
//!
//! Each number belongs to one event and is used once. The acknowledgements alone decide what must be there at the end:
//! of each key the last acknowledged event by position, every acknowledged event without a key, and at most one copy of
//! an event that was never acknowledged.

mod expected;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub(crate) use expected::{Expected, PartitionCounts, expected, partition_counts};

use crate::topics;

/// What kind of event a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A Kafka record with a document and no key.
    Plain,
    /// A Kafka record that is not JSON.
    DeadLetter,
    /// A Kafka record with neither value nor key.
    Empty,
    /// A Kafka record with a document and a key.
    Keyed,
    /// A Kafka record with a key and no value.
    Tombstone,
    /// A pushed document without an id.
    Pushed,
    /// A pushed line that is not JSON.
    PushedDeadLetter,
    /// A pushed document with its own `_id`.
    PushedWithId,
}

impl Kind {
    /// The value of a document's `kind`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::DeadLetter => "dead",
            Self::Empty => "nothing",
            Self::Keyed => "keyed",
            Self::Tombstone => "tombstone",
            Self::Pushed => "pushed",
            Self::PushedDeadLetter => "pusheddead",
            Self::PushedWithId => "owned",
        }
    }

    /// The topic, and source, that a produced record goes through; `None` for what is pushed.
    pub(crate) fn topic(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::DeadLetter | Self::Empty => Some(topics::PLAIN),
            Self::Keyed | Self::Tombstone => Some(topics::KEYED),
            Self::Pushed | Self::PushedDeadLetter | Self::PushedWithId => None,
        }
    }
}

/// What the sender knows about the delivery of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Not answered yet.
    Pending,
    /// Acknowledged at this position; for a push with ids, the first position of its answer.
    Acknowledged { partition: i32, offset: i64 },
    /// Never answered, or answered with an unknown outcome: stored at most once.
    Unknown,
    /// Given up, and not in the log: must not be stored.
    NotInLog,
}

/// One event of the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub kind: Kind,
    /// The key, for kinds that have one.
    pub key: u32,
    /// The push, for pushed kinds. The events of a push are stored all or not at all.
    pub request: u32,
    pub delivery: Delivery,
    pub removed: Removed,
}

/// Whether an event was deleted on request, or because of its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Removed {
    #[default]
    No,
    /// It may or may not have been there when it was deleted, or the outcome is unknown.
    Possibly,
    Certainly,
}

impl Entry {
    fn is_unknown_record(&self) -> bool {
        self.delivery == Delivery::Unknown && self.kind.topic().is_some()
    }
}

pub(crate) struct Ledger {
    entries: Mutex<Vec<Entry>>,
    /// Events of the run, pushed and produced together.
    pub records: u64,
    /// Pushed events that were acknowledged or given up.
    pub pushed: AtomicU64,
    /// Produced records that were acknowledged or given up.
    pub produced: AtomicU64,
    /// Pushes sent and not yet answered.
    pub pushes_in_flight: AtomicU64,
    /// Records handed to the producer and not yet answered.
    pub records_in_flight: AtomicU64,
    /// Queries sent right after an acknowledgement.
    pub reads_after_push: AtomicU64,
    /// Those of them that missed the acknowledged documents.
    pub stale_reads: AtomicU64,
    /// Pushes that were sent more than once.
    pub retried_pushes: AtomicU64,
    /// The load ended before it had used up its records.
    pub load_aborted: AtomicBool,
    /// Partition -> last acknowledged offset of pushes.
    pushed_through: Mutex<BTreeMap<i32, i64>>,
    problems: Mutex<Vec<String>>,
}

impl Ledger {
    pub(crate) fn new(records: u64) -> Self {
        Self {
            entries: Mutex::default(),
            records,
            pushed: AtomicU64::default(),
            produced: AtomicU64::default(),
            pushes_in_flight: AtomicU64::default(),
            records_in_flight: AtomicU64::default(),
            reads_after_push: AtomicU64::default(),
            stale_reads: AtomicU64::default(),
            retried_pushes: AtomicU64::default(),
            load_aborted: AtomicBool::default(),
            pushed_through: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event and returns its number.
    pub(crate) fn add(&self, kind: Kind, key: u32, request: u32) -> u64 {
        let mut entries = self.lock();
        entries.push(Entry {
            kind,
            key,
            request,
            delivery: Delivery::Pending,
            removed: Removed::No,
        });
        entries.len() as u64 - 1
    }

    /// Records the delivery of an event, once.
    pub(crate) fn set_delivery(&self, number: u64, delivery: Delivery) {
        let mut entries = self.lock();
        if let Some(entry) = usize::try_from(number).ok().and_then(|at| entries.get_mut(at)) {
            entry.delivery = delivery;
        }
    }

    /// Records that events were removed. What is known for certain stays so.
    pub(crate) fn set_removed(&self, numbers: &[u64], removed: Removed) {
        let mut entries = self.lock();
        for number in numbers {
            if let Some(entry) = usize::try_from(*number).ok().and_then(|at| entries.get_mut(at)) {
                entry.removed = entry.removed.max(removed);
            }
        }
    }

    /// Whether the producer got no acknowledgement for some of its records.
    pub(crate) fn has_unknown_records(&self) -> bool {
        self.lock().iter().any(Entry::is_unknown_record)
    }

    /// Settles the unknown deliveries of produced records by what the log contains. Returns how many there were.
    pub(crate) fn resolve_unknown_records(&self, log: &HashMap<u64, (i32, i64)>) -> usize {
        let mut entries = self.lock();
        let unknown = entries
            .iter_mut()
            .enumerate()
            .filter(|(_, entry)| entry.is_unknown_record());
        let mut resolved = 0;
        for (number, entry) in unknown {
            entry.delivery = match log.get(&(number as u64)) {
                Some((partition, offset)) => Delivery::Acknowledged {
                    partition: *partition,
                    offset: *offset,
                },
                None => Delivery::NotInLog,
            };
            resolved += 1;
        }
        resolved
    }

    /// Notes the positions at which a push was acknowledged.
    pub(crate) fn note_pushed_through(&self, positions: &[(i32, i64)]) {
        let mut through = self.pushed_through.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, offset) in positions {
            let last = through.entry(*partition).or_insert(*offset);
            *last = (*last).max(*offset);
        }
    }

    pub(crate) fn pushed_through(&self) -> BTreeMap<i32, i64> {
        self.pushed_through
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reports something that is wrong while the load still runs.
    pub(crate) fn add_problem(&self, problem: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < 100 {
            eprintln!("ledger: {problem}");
            problems.push(problem);
        }
    }

    /// Ends the load early, so that the plan does not wait for it.
    pub(crate) fn abort_load(&self, reason: String) {
        self.add_problem(reason);
        self.load_aborted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.lock()
            .iter()
            .filter(|entry| matches!(entry.delivery, Delivery::Acknowledged { .. }))
            .count() as u64
    }

    /// The progress of the load, for a message.
    pub(crate) fn progress(&self) -> String {
        let [pushed, pushes, produced, records] = [
            &self.pushed,
            &self.pushes_in_flight,
            &self.produced,
            &self.records_in_flight,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        format!("{pushed} pushed and {pushes} pushes in flight, {produced} produced and {records} records in flight")
    }

    /// Events that were acknowledged or given up.
    pub(crate) fn done(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed) + self.produced.load(Ordering::Relaxed)
    }
}

/// A key as records and documents contain it.
pub(crate) fn key_text(kind: Kind, key: u32) -> String {
    match kind {
        Kind::PushedWithId => format!("own {key}/ü"),
        _ => format!("k{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, key: u32, partition: i32, offset: i64) -> Entry {
        Entry {
            kind,
            key,
            request: 0,
            delivery: Delivery::Acknowledged { partition, offset },
            removed: Removed::No,
        }
    }

    #[test]
    fn the_last_event_of_a_key_by_offset_is_expected() {
        let entries = [
            entry(Kind::Keyed, 1, 0, 5),
            entry(Kind::Keyed, 1, 0, 4),
            entry(Kind::Keyed, 2, 0, 6),
            entry(Kind::Tombstone, 2, 0, 7),
        ];
        let present = Expected::Present {
            id: "k1".into(),
            whole: true,
        };
        assert_eq!(
            expected(&entries),
            [present, Expected::Absent, Expected::Absent, Expected::Absent]
        );
        let counts = partition_counts(&entries)[&("keyed", 0)];
        assert_eq!(
            (
                counts.events,
                counts.accepted,
                counts.superseded,
                counts.deleted,
                counts.documents,
                counts.through
            ),
            (4, 3, 1, 1, 1, 7)
        );
    }

    #[test]
    fn a_removed_event_is_expected_no_more_and_no_older_one_of_its_key_comes_back() {
        let mut entries = [
            entry(Kind::PushedWithId, 1, 0, 5),
            entry(Kind::PushedWithId, 1, 0, 6),
            entry(Kind::Plain, 0, 1, 3),
            entry(Kind::Plain, 0, 1, 4),
        ];
        entries[1].removed = Removed::Certainly;
        entries[2].removed = Removed::Possibly;
        assert_eq!(
            expected(&entries)[..3],
            [Expected::Absent, Expected::Absent, Expected::AtMostOnce]
        );
        assert!(matches!(expected(&entries)[3], Expected::Present { .. }));
    }

    #[test]
    fn the_log_decides_what_happened_to_records_that_were_given_up() {
        let ledger = Ledger::new(10);
        for _ in 0..2 {
            let number = ledger.add(Kind::Plain, 0, 0);
            ledger.set_delivery(number, Delivery::Unknown);
        }
        assert!(ledger.has_unknown_records());
        assert_eq!(ledger.resolve_unknown_records(&HashMap::from([(1, (2, 7))])), 2);
        assert!(!ledger.has_unknown_records());
        let present = Expected::Present {
            id: "plain/2@7".into(),
            whole: true,
        };
        assert_eq!(expected(&ledger.entries()), [Expected::Absent, present]);
    }

    #[test]
    fn an_unacknowledged_event_is_expected_at_most_once() {
        let mut entries = [
            entry(Kind::Keyed, 1, 0, 5),
            entry(Kind::Keyed, 1, 0, 6),
            entry(Kind::Plain, 0, 1, 3),
        ];
        entries[1].delivery = Delivery::Unknown;
        assert_eq!(expected(&entries)[..2], [Expected::AtMostOnce, Expected::AtMostOnce]);
        assert_eq!(
            expected(&entries)[2],
            Expected::Present {
                id: "plain/1@3".into(),
                whole: true
            }
        );
        assert!(partition_counts(&entries).is_empty());
    }
}
