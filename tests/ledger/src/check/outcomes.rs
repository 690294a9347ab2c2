//! Checks the outcome counters of every partition against each other, the stored documents and the ledger.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::Stored;
use crate::{
    Run, catch_up,
    ledger::{self, Delivery, Entry, Kind, PartitionCounts, Removed},
    queries::{self, TableRow},
    topics,
};

pub(super) async fn check(run: &Run, entries: &[Entry], sources: &[TableRow], stored: &Stored) -> Result<Vec<String>> {
    let by_partition = queries::documents_by_partition(&run.client).await?;
    let mut found = counters_add_up(sources, &by_partition);
    found.extend(kafka_counts_match(entries, sources));
    found.extend(push_counts_match(entries, sources, stored));
    Ok(found)
}

fn integer(row: &TableRow, column: &str) -> Option<i64> {
    row.get(column).and_then(Value::as_i64)
}

/// In every partition each event has one outcome, and the documents are those accepted less those removed.
fn counters_add_up(sources: &[TableRow], by_partition: &BTreeMap<(String, i32), i64>) -> Vec<String> {
    let mut found = Vec::new();
    for row in sources
        .iter()
        .filter(|row| row.get("partition").is_some_and(Value::is_i64))
    {
        let sum = |columns: &[&str]| columns.iter().map(|column| integer(row, column)).sum::<Option<i64>>();
        let (events, documents) = (integer(row, "events"), integer(row, "documents"));
        let outcomes = sum(&["accepted", "tombstones", "duplicates", "dead_letters"]);
        let removed = sum(&["superseded", "deleted", "expired"]);
        let remaining = integer(row, "accepted")
            .zip(removed)
            .map(|(accepted, removed)| accepted - removed);
        if events.is_none() || events != outcomes || documents.is_none() || documents != remaining {
            found.push(format!("the outcomes do not add up: {row:?}"));
        }
        let partition = (
            row.get("source").and_then(Value::as_str).unwrap_or_default().to_owned(),
            integer(row, "partition").unwrap_or(-1) as i32,
        );
        let counted = by_partition.get(&partition).copied().unwrap_or(0);
        if documents != Some(counted) {
            found.push(format!(
                "{partition:?} has {counted} documents, but its counters are {row:?}"
            ));
        }
    }
    found
}

/// The counters of Kafka partitions are exactly what the ledger adds up to.
fn kafka_counts_match(entries: &[Entry], sources: &[TableRow]) -> Vec<String> {
    let mut found = Vec::new();
    for ((source, partition), wanted) in ledger::partition_counts(entries) {
        let counts = catch_up::find(sources, source, partition).map(counts_of);
        // `through` is not compared. Of records without keys, any may have been removed; what is left was counted above.
        let (deleted, documents) = match counts.flatten().filter(|_| source == topics::PLAIN) {
            Some(counts) => (counts.deleted, counts.documents),
            None => (wanted.deleted, wanted.documents),
        };
        let wanted = PartitionCounts {
            through: 0,
            deleted,
            documents,
            ..wanted
        };
        if counts != Some(Some(wanted)) {
            found.push(format!("{source}/{partition} counts {counts:?} instead of {wanted:?}"));
        }
    }
    found
}

fn counts_of(row: &TableRow) -> Option<PartitionCounts> {
    Some(PartitionCounts {
        events: integer(row, "events")?,
        accepted: integer(row, "accepted")?,
        tombstones: integer(row, "tombstones")?,
        dead_letters: integer(row, "dead_letters")?,
        superseded: integer(row, "superseded")?,
        deleted: integer(row, "deleted")?,
        documents: integer(row, "documents")?,
        through: 0,
    })
}

/// The number of pushed documents that were accepted is possible by the ledger.
fn push_counts_match(entries: &[Entry], sources: &[TableRow], stored: &Stored) -> Option<String> {
    let accepted: i64 = sources
        .iter()
        .filter(|row| row.get("source").and_then(Value::as_str) == Some("push"))
        .filter_map(|row| integer(row, "accepted"))
        .sum();
    let (min, max) = accepted_pushes(entries, stored);
    (accepted < min || accepted > max)
        .then(|| format!("push counts {accepted} accepted documents; by the ledger there are {min} to {max}"))
}

/// How many pushed documents were accepted, at least and at most. Those without ids are stored or not; of an id whose
/// push got no answer, only the last document can be seen.
fn accepted_pushes(entries: &[Entry], stored: &Stored) -> (i64, i64) {
    let (mut min, mut max) = (0, 0);
    for (number, entry) in entries.iter().enumerate() {
        let (certain, possible) = match (entry.kind, entry.delivery) {
            (Kind::Pushed | Kind::PushedWithId, Delivery::Acknowledged { .. }) => (true, true),
            (Kind::Pushed, _) if entry.removed == Removed::No => {
                let present = stored.contains_key(&(number as u64));
                (present, present)
            }
            (Kind::Pushed | Kind::PushedWithId, _) => (false, true),
            _ => (false, false),
        };
        min += i64::from(certain);
        max += i64::from(possible);
    }
    (min, max)
}
