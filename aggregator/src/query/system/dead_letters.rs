//! `rachis.dead_letters`: the newest dead letters of all shards, within a limit that no collection uses up alone.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use futures::{StreamExt as _, stream};
use plan::scan::DeadLetter;
use proto::{
    Address, Code, CollectionName, Problem,
    ingest::ShardId,
    limits::{LISTED_DEAD_LETTER_BYTES_MAX, LISTED_DEAD_LETTERS_BYTES_MAX},
};
use serde_json::{Value, json};

use super::{super::Engine, shards::error_row};

/// Limit on the rows.
const ROWS_MAX: usize = 10_000;
/// Shards that are asked at once: each may answer with as many bytes as the table has at most.
const ASKED_AT_ONCE: usize = 2;

/// The dead letters that are listed.
struct Listed {
    rows_max: usize,
    bytes_max: usize,
    rows: usize,
    bytes: usize,
    by_collection: BTreeMap<CollectionName, OfCollection>,
    /// The collections of which older ones are left out.
    left_out: BTreeSet<CollectionName>,
}

#[derive(Default)]
struct OfCollection {
    /// By age, the oldest first.
    letters: BTreeMap<(i64, u32, Address), DeadLetter>,
    bytes: usize,
}

impl Listed {
    fn new(rows_max: usize, bytes_max: usize) -> Self {
        Self {
            rows_max,
            bytes_max,
            rows: 0,
            bytes: 0,
            by_collection: BTreeMap::new(),
            left_out: BTreeSet::new(),
        }
    }

    /// Adds those of a shard. If there are too many then, the oldest ones are left out of the collection that has most.
    fn add(&mut self, name: &CollectionName, shard: u32, letters: Vec<DeadLetter>) {
        for letter in letters {
            let of = self.by_collection.entry(name.clone()).or_default();
            self.rows += 1;
            self.bytes += letter.bytes.len();
            of.bytes += letter.bytes.len();
            of.letters
                .insert((letter.ingested_ms, shard, letter.address.clone()), letter);
        }
        while self.rows > self.rows_max || self.bytes > self.bytes_max {
            let by_bytes = self.bytes > self.bytes_max;
            let size = |of: &OfCollection| if by_bytes { of.bytes } else { of.letters.len() };
            let mut by_size: Vec<_> = self.by_collection.iter_mut().collect();
            by_size.sort_by_key(|(_, of)| Reverse(size(of)));
            let second = by_size.get(1).map_or(0, |(_, of)| size(of));
            let Some((name, largest)) = by_size.into_iter().next() else {
                return;
            };
            self.left_out.insert(name.clone());
            // At least one, and until another one has more.
            while let Some((_, oldest)) = largest.letters.pop_first() {
                largest.bytes -= oldest.bytes.len();
                self.rows -= 1;
                self.bytes -= oldest.bytes.len();
                let is_over = if by_bytes {
                    self.bytes > self.bytes_max
                } else {
                    self.rows > self.rows_max
                };
                if !is_over || size(largest) < second {
                    break;
                }
            }
        }
    }

    fn rows(self) -> impl Iterator<Item = Value> {
        let of = |(name, of): (CollectionName, OfCollection)| {
            let newest_first = of.letters.into_iter().rev();
            newest_first.map(move |((_, shard, _), letter)| row(&name, shard, &letter))
        };
        let note = |name: CollectionName| {
            let detail = format!(
                "older dead letters are left out: the table has at most {ROWS_MAX} rows and {} MiB of values",
                LISTED_DEAD_LETTERS_BYTES_MAX >> 20
            );
            let problem = Problem::new(Code::LimitReached, detail)
                .hint("ingest those that are listed again, or clear them: `rachis dead-letters --help`");
            json!({ "collection": name, "error": problem.to_string() })
        };
        let left_out = self.left_out.into_iter().map(note);
        self.by_collection.into_iter().flat_map(of).chain(left_out)
    }
}

/// The newest dead letters. A shard that does not answer has a row with the error, and so has a collection of which older
/// ones are left out.
pub(super) async fn dead_letters(engine: &Engine, deadline: Instant) -> Vec<Value> {
    let catalog = engine.catalog();
    let shards = catalog.collections.iter().flat_map(|(name, collection)| {
        let shards = collection.shards();
        shards.map(move |shard| (name.clone(), shard))
    });
    let ask = async |(name, shard): (CollectionName, ShardId)| {
        let letters = tokio::time::timeout_at(deadline.into(), engine.roles.leaf.dead_letters(shard, ROWS_MAX)).await;
        let timeout = |_| Err(Problem::new(Code::Timeout, "reading the dead letters took too long"));
        (name, shard, letters.unwrap_or_else(timeout))
    };
    let mut answers = stream::iter(shards.collect::<Vec<_>>())
        .map(ask)
        .buffered(ASKED_AT_ONCE);
    let (mut listed, mut errors) = (Listed::new(ROWS_MAX, LISTED_DEAD_LETTERS_BYTES_MAX), Vec::new());
    while let Some((name, shard, letters)) = answers.next().await {
        match letters {
            Ok(letters) => {
                // The leaf has left out older ones, or might have.
                let bytes: usize = letters.iter().map(|letter| letter.bytes.len()).sum();
                let is_cut =
                    letters.len() >= ROWS_MAX || bytes + LISTED_DEAD_LETTER_BYTES_MAX > LISTED_DEAD_LETTERS_BYTES_MAX;
                listed.left_out.extend(is_cut.then(|| name.clone()));
                listed.add(&name, shard.number, letters);
                tokio::task::yield_now().await;
            }
            Err(problem) => errors.push(error_row(&name, shard, &problem)),
        }
    }
    listed.rows().chain(errors).collect()
}

fn row(name: &CollectionName, shard: u32, letter: &DeadLetter) -> Value {
    json!({
        "collection": name,
        "source": letter.address.source,
        "partition": letter.address.partition,
        "offset": letter.address.offset,
        "address": letter.address.to_string(),
        "ingested": letter.ingested_ms,
        "code": letter.code,
        "detail": letter.detail,
        "bytes": String::from_utf8_lossy(&letter.bytes),
        "length": letter.length,
        "shard": shard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(numbers: std::ops::Range<i64>, bytes: usize) -> Vec<DeadLetter> {
        let letter = |number: i64| DeadLetter {
            address: format!("clicks/0@{number}").parse().expect("an address"),
            ingested_ms: number,
            code: "not_json".to_owned(),
            detail: String::new(),
            bytes: vec![b'x'; bytes].into(),
            length: bytes as u64,
        };
        numbers.map(letter).collect()
    }

    fn name(name: &str) -> CollectionName {
        name.parse().expect("a name")
    }

    fn listed_of(rows: &[Value], collection: &str) -> Vec<i64> {
        let of = rows.iter().filter(|row| row["collection"] == collection);
        of.filter_map(|row| row["ingested"].as_i64()).collect()
    }

    #[test]
    fn a_collection_with_many_dead_letters_hides_those_of_no_other_one() {
        let mut listed = Listed::new(10, 1_000);
        listed.add(&name("a"), 0, letters(0..10, 1));
        listed.add(&name("a"), 1, letters(100..110, 1));
        listed.add(&name("b"), 0, letters(3..6, 1));
        let rows: Vec<Value> = listed.rows().collect();
        assert_eq!(listed_of(&rows, "a"), (103..110).rev().collect::<Vec<_>>());
        assert_eq!(listed_of(&rows, "b"), [5, 4, 3]);
        let errors: Vec<&Value> = rows.iter().filter(|row| !row["error"].is_null()).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0]["collection"], "a");
    }

    #[test]
    fn the_bytes_are_limited_in_all() {
        let mut listed = Listed::new(1_000, 1_000);
        for collection in ["a", "b", "c"] {
            listed.add(&name(collection), 0, letters(0..8, 100));
        }
        let rows: Vec<Value> = listed.rows().collect();
        let values = rows
            .iter()
            .filter_map(|row| row["bytes"].as_str())
            .map(str::len)
            .sum::<usize>();
        assert_eq!(values, 1_000);
        for collection in ["a", "b", "c"] {
            let listed = listed_of(&rows, collection).len();
            assert!((3..=4).contains(&listed), "{collection}: {listed}");
        }
    }
}
