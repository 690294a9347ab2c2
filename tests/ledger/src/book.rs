//! The books: what became of every number, as far as its sender was told.
//!
//! A number is handed out once and belongs to one event. What should be there at the end follows from the
//! acknowledgements alone: the last one of a key by position, everything without a key, and of what was never
//! acknowledged at most one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What kind of event a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A document without a key, through Kafka.
    Plain,
    /// Not JSON, through Kafka.
    Dead,
    /// A record without a value and without a key.
    Nothing,
    /// A document with a record key.
    Keyed,
    /// A record with a key and without a value.
    Tombstone,
    /// A document of a push, without an id.
    Pushed,
    /// A line of a push that is not JSON.
    PushedDead,
    /// A document of a push with its own `_id`.
    Owned,
}

impl Kind {
    /// As documents say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Dead => "dead",
            Self::Nothing => "nothing",
            Self::Keyed => "keyed",
            Self::Tombstone => "tombstone",
            Self::Pushed => "pushed",
            Self::PushedDead => "pusheddead",
            Self::Owned => "owned",
        }
    }
}

impl Kind {
    /// Whether it goes to Kafka.
    pub fn is_produced(self) -> bool {
        !matches!(self, Self::Pushed | Self::PushedDead | Self::Owned)
    }
}

/// What its sender knows of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not answered yet.
    Pending,
    /// Acknowledged at this position: for a push with ids, the first that its answer tells.
    Acknowledged { partition: i32, offset: i64 },
    /// Never answered, or answered with an unknown outcome: at most once.
    Unknown,
    /// Given up, and not in the log: must not be there.
    Never,
}

/// A line of the books.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Which key, for kinds that have one.
    pub key: u32,
    /// Which push, for kinds of a push: its numbers are there all or not at all.
    pub request: u32,
    /// What is known.
    pub fate: Fate,
}

/// What should be there of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Exactly once; with this id, or with an id that begins so.
    Present { id: String, whole: bool },
    /// Replaced, removed, or never a document.
    Absent,
    /// Nobody was told: at most once.
    AtMostOnce,
}

/// What a Kafka partition's outcome counters must be, by the acknowledgements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
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

/// The books of one run.
pub struct Book {
    entries: Mutex<Vec<Entry>>,
    /// Numbers to hand out, pushed and produced together.
    pub records: u64,
    /// Pushed numbers that were acknowledged or given up.
    pub pushed: AtomicU64,
    /// Produced numbers that were acknowledged or given up.
    pub produced: AtomicU64,
    /// Pushes sent and not answered.
    pub pushes_in_flight: AtomicU64,
    /// Records handed to the producer and not answered.
    pub records_in_flight: AtomicU64,
    /// Questions asked right after an acknowledgement, and those that missed it.
    pub asked: AtomicU64,
    /// See `asked`.
    pub missed: AtomicU64,
    /// Pushes that were sent more than once.
    pub retried: AtomicU64,
    /// Whether the load ended before its records were used up.
    pub ended: AtomicBool,
    /// How far acknowledged pushes went, by partition.
    reached: Mutex<BTreeMap<i32, i64>>,
    complaints: Mutex<Vec<String>>,
}

impl Book {
    pub fn new(records: u64) -> Self {
        Self {
            entries: Mutex::default(),
            records,
            pushed: AtomicU64::default(),
            produced: AtomicU64::default(),
            pushes_in_flight: AtomicU64::default(),
            records_in_flight: AtomicU64::default(),
            asked: AtomicU64::default(),
            missed: AtomicU64::default(),
            retried: AtomicU64::default(),
            ended: AtomicBool::default(),
            reached: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number.
    pub fn open(&self, kind: Kind, key: u32, request: u32) -> u64 {
        let mut entries = self.lock();
        entries.push(Entry {
            kind,
            key,
            request,
            fate: Fate::Pending,
        });
        entries.len() as u64 - 1
    }

    /// Acknowledged or unknown, once.
    pub fn close(&self, number: u64, fate: Fate) {
        let mut entries = self.lock();
        if let Some(entry) = usize::try_from(number).ok().and_then(|at| entries.get_mut(at)) {
            entry.fate = fate;
        }
    }

    /// Whether the producer was not told of some of its records.
    pub fn has_unknown_records(&self) -> bool {
        self.lock()
            .iter()
            .any(|entry| entry.fate == Fate::Unknown && entry.kind.is_produced())
    }

    /// What the log says of records whose producer was not told.
    pub fn learn(&self, log: &HashMap<u64, (i32, i64)>) -> usize {
        let mut entries = self.lock();
        let unknown = entries
            .iter_mut()
            .enumerate()
            .filter(|(_, entry)| entry.fate == Fate::Unknown && entry.kind.is_produced());
        let mut learnt = 0;
        for (number, entry) in unknown {
            entry.fate = match log.get(&(number as u64)) {
                Some((partition, offset)) => Fate::Acknowledged {
                    partition: *partition,
                    offset: *offset,
                },
                None => Fate::Never,
            };
            learnt += 1;
        }
        learnt
    }

    /// A push was acknowledged at these positions.
    pub fn reach(&self, positions: &[(i32, i64)]) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, offset) in positions {
            let last = reached.entry(*partition).or_insert(*offset);
            *last = (*last).max(*offset);
        }
    }

    pub fn reached(&self) -> BTreeMap<i32, i64> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something that is wrong already while the load runs.
    pub fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < 100 {
            eprintln!("ledger: {complaint}");
            complaints.push(complaint);
        }
    }

    /// The load cannot go on: the plan must not wait for it.
    pub fn end_load(&self, why: String) {
        self.complain(why);
        self.ended.store(true, Ordering::Relaxed);
    }

    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// Where the load stands, for a message.
    pub fn standing(&self) -> String {
        let [pushed, pushes, produced, records] = [
            &self.pushed,
            &self.pushes_in_flight,
            &self.produced,
            &self.records_in_flight,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        format!("{pushed} pushed and {pushes} pushes in flight, {produced} produced and {records} records in flight")
    }

    pub fn done(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed) + self.produced.load(Ordering::Relaxed)
    }
}

/// Events that were acknowledged.
pub fn acknowledged(entries: &[Entry]) -> u64 {
    entries
        .iter()
        .filter(|entry| matches!(entry.fate, Fate::Acknowledged { .. }))
        .count() as u64
}

/// What should be there of every number.
pub fn expected(entries: &[Entry]) -> Vec<Expected> {
    let last = last_of_keys(entries);
    entries
        .iter()
        .enumerate()
        .map(|(number, entry)| match (entry.kind, entry.fate) {
            (Kind::Dead | Kind::Nothing | Kind::Tombstone | Kind::PushedDead, _) | (_, Fate::Never) => Expected::Absent,
            (Kind::Plain, Fate::Acknowledged { partition, offset }) => Expected::Present {
                id: format!("plain/{partition}@{offset}"),
                whole: true,
            },
            (Kind::Pushed, Fate::Acknowledged { partition, offset }) => Expected::Present {
                id: format!("push/{partition}@{offset}"),
                whole: false,
            },
            (Kind::Keyed | Kind::Owned, Fate::Acknowledged { .. }) => {
                match last.get(&(entry.kind == Kind::Owned, entry.key)) {
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

/// A key as records and documents spell it.
pub fn key_text(kind: Kind, key: u32) -> String {
    match kind {
        Kind::Owned => format!("own {key}/ü"),
        _ => format!("k{key}"),
    }
}

/// Key -> the number that won it; `None` where something unknown may have. Kafka orders by offset; a pushed id has one
/// pusher, which waits for each answer, so its numbers are in order.
fn last_of_keys(entries: &[Entry]) -> HashMap<(bool, u32), Option<usize>> {
    let mut last: HashMap<(bool, u32), (Option<usize>, i64)> = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        if !matches!(entry.kind, Kind::Keyed | Kind::Tombstone | Kind::Owned) || entry.fate == Fate::Never {
            continue;
        }
        let owned = entry.kind == Kind::Owned;
        let slot = last.entry((owned, entry.key)).or_insert((Some(number), i64::MIN));
        match entry.fate {
            Fate::Acknowledged { offset, .. } => {
                let order = if owned { number as i64 } else { offset };
                if slot.0.is_some() && order >= slot.1 {
                    *slot = (Some(number), order);
                }
            }
            _ => slot.0 = None,
        }
    }
    last.into_iter().map(|(key, (winner, _))| (key, winner)).collect()
}

/// What the counters of each Kafka partition must be; nothing for a partition with something unknown in it.
pub fn counts(entries: &[Entry]) -> BTreeMap<(&'static str, i32), Counts> {
    let unknown = entries
        .iter()
        .any(|entry| entry.fate == Fate::Unknown && entry.kind.is_produced());
    if unknown {
        return BTreeMap::new();
    }
    let mut ordered: BTreeMap<(&'static str, i32), Vec<(i64, &Entry)>> = BTreeMap::new();
    for entry in entries {
        let source = match entry.kind {
            Kind::Plain | Kind::Dead | Kind::Nothing => "plain",
            Kind::Keyed | Kind::Tombstone => "keyed",
            Kind::Pushed | Kind::PushedDead | Kind::Owned => continue,
        };
        if let Fate::Acknowledged { partition, offset } = entry.fate {
            ordered.entry((source, partition)).or_default().push((offset, entry));
        }
    }
    ordered
        .into_iter()
        .map(|(partition, mut events)| (partition, count(&mut events)))
        .collect()
}

fn count(events: &mut [(i64, &Entry)]) -> Counts {
    events.sort_by_key(|(offset, _)| *offset);
    let mut counts = Counts::default();
    let mut live: HashMap<u32, ()> = HashMap::new();
    for (offset, entry) in events {
        counts.events += 1;
        counts.through = *offset;
        match entry.kind {
            Kind::Dead => counts.dead_letters += 1,
            Kind::Nothing => counts.tombstones += 1,
            Kind::Tombstone => {
                counts.tombstones += 1;
                counts.deleted += i64::from(live.remove(&entry.key).is_some());
            }
            Kind::Keyed => {
                counts.accepted += 1;
                counts.superseded += i64::from(live.insert(entry.key, ()).is_some());
            }
            _ => counts.accepted += 1,
        }
    }
    counts.documents = counts.accepted - counts.superseded - counts.deleted;
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, key: u32, partition: i32, offset: i64) -> Entry {
        Entry {
            kind,
            key,
            request: 0,
            fate: Fate::Acknowledged { partition, offset },
        }
    }

    #[test]
    fn the_last_of_a_key_by_offset_is_expected() {
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
        let counts = counts(&entries)[&("keyed", 0)];
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
    fn the_log_tells_what_became_of_records_that_were_given_up() {
        let book = Book::new(10);
        for _ in 0..2 {
            let number = book.open(Kind::Plain, 0, 0);
            book.close(number, Fate::Unknown);
        }
        assert!(book.has_unknown_records());
        assert_eq!(book.learn(&HashMap::from([(1, (2, 7))])), 2);
        assert!(!book.has_unknown_records());
        let present = Expected::Present {
            id: "plain/2@7".into(),
            whole: true,
        };
        assert_eq!(expected(&book.entries()), [Expected::Absent, present]);
    }

    #[test]
    fn what_nobody_was_told_is_expected_at_most_once() {
        let mut entries = [
            entry(Kind::Keyed, 1, 0, 5),
            entry(Kind::Keyed, 1, 0, 6),
            entry(Kind::Plain, 0, 1, 3),
        ];
        entries[1].fate = Fate::Unknown;
        assert_eq!(expected(&entries)[..2], [Expected::AtMostOnce, Expected::AtMostOnce]);
        assert_eq!(
            expected(&entries)[2],
            Expected::Present {
                id: "plain/1@3".into(),
                whole: true
            }
        );
        assert!(counts(&entries).is_empty());
    }
}
