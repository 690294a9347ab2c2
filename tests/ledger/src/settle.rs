//! Waits until the server has taken in what Kafka acknowledged: the table of sources says how far it is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{
    book::{Entry, Fate, Kind},
    http::Client,
    questions::{self, Row},
};

/// The last acknowledged offset of every partition: Kafka's by record, those of pushes as their answers told.
pub fn acknowledged(entries: &[Entry], pushed: BTreeMap<i32, i64>) -> BTreeMap<(&'static str, i32), i64> {
    let mut through: BTreeMap<(&'static str, i32), i64> = pushed
        .into_iter()
        .map(|(partition, offset)| (("push", partition), offset))
        .collect();
    for entry in entries {
        let source = match entry.kind {
            Kind::Plain | Kind::Dead | Kind::Nothing => "plain",
            Kind::Keyed | Kind::Tombstone => "keyed",
            _ => continue,
        };
        if let Fate::Acknowledged { partition, offset } = entry.fate {
            let last = through.entry((source, partition)).or_insert(offset);
            *last = offset.max(*last);
        }
    }
    through
}

/// As a position vector.
pub fn vector(through: &BTreeMap<(&'static str, i32), i64>) -> String {
    let positions: Vec<String> = through
        .iter()
        .map(|((source, partition), offset)| format!("{source}/{partition}@{offset}"))
        .collect();
    positions.join(",")
}

/// Returns the table of sources once every partition is at its last acknowledged record. Fails where none moves for so
/// long.
pub async fn settle(
    client: &Client,
    through: &BTreeMap<(&'static str, i32), i64>,
    standstill: Duration,
) -> Result<Vec<Row>> {
    let (mut last, mut since) = (Vec::new(), Instant::now());
    loop {
        let rows = questions::table(client, "sources").await;
        let behind: Vec<String> = match &rows {
            Ok(rows) => through
                .iter()
                .filter(|((source, partition), offset)| stored(rows, source, *partition) < Some(**offset))
                .map(|((source, partition), offset)| format!("{source}/{partition} is not at {offset}"))
                .collect(),
            Err(error) => vec![format!("{error:#}")],
        };
        let positions: Vec<_> = through
            .keys()
            .map(|(source, partition)| rows.as_ref().ok().and_then(|rows| stored(rows, source, *partition)))
            .collect();
        if positions != last {
            (last, since) = (positions, Instant::now());
        }
        match rows {
            Ok(rows) if behind.is_empty() => return Ok(rows),
            rows if since.elapsed() > standstill => bail!(
                "nothing more is taken in for {standstill:?}: {}; {rows:?}",
                behind.join(", ")
            ),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// How far a partition is.
fn stored(rows: &[Row], source: &str, partition: i32) -> Option<i64> {
    let row = find(rows, source, partition)?;
    row.get("position")?.as_i64()
}

/// A partition's row.
pub fn find<'a>(rows: &'a [Row], source: &str, partition: i32) -> Option<&'a Row> {
    rows.iter().find(|row| {
        row.get("source").and_then(Value::as_str) == Some(source)
            && row.get("partition").and_then(Value::as_i64) == Some(partition.into())
    })
}
