//! Waits until the server has ingested everything that Kafka or a push acknowledged, as its table of sources shows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{
    http::Client,
    ledger::{Delivery, Entry},
    queries::{self, TableRow},
};

/// Source and partition -> offset.
pub(crate) type Offsets = BTreeMap<(&'static str, i32), i64>;

/// The last acknowledged offset of every partition: from Kafka by record, of pushes by the positions of their answers.
pub(crate) fn acknowledged_offsets(entries: &[Entry], pushed: BTreeMap<i32, i64>) -> Offsets {
    let mut through: Offsets = pushed
        .into_iter()
        .map(|(partition, offset)| (("push", partition), offset))
        .collect();
    for entry in entries {
        let Some(source) = entry.kind.topic() else { continue };
        if let Delivery::Acknowledged { partition, offset } = entry.delivery {
            let last = through.entry((source, partition)).or_insert(offset);
            *last = offset.max(*last);
        }
    }
    through
}

/// These offsets as the position vector of a query.
pub(crate) fn position_vector(through: &Offsets) -> String {
    let positions: Vec<String> = through
        .iter()
        .map(|((source, partition), offset)| format!("{source}/{partition}@{offset}"))
        .collect();
    positions.join(",")
}

/// Returns the table of sources once every partition has reached its offset. Fails if no partition advances for
/// `stall_timeout`.
pub(crate) async fn wait(client: &Client, through: &Offsets, stall_timeout: Duration) -> Result<Vec<TableRow>> {
    let (mut last, mut since) = (Vec::new(), Instant::now());
    loop {
        let rows = queries::table(client, "sources").await;
        let behind: Vec<String> = match &rows {
            Ok(rows) => through
                .iter()
                .filter(|((source, partition), offset)| position(rows, source, *partition) < Some(**offset))
                .map(|((source, partition), offset)| format!("{source}/{partition} has not reached {offset}"))
                .collect(),
            Err(error) => vec![format!("{error:#}")],
        };
        let positions: Vec<_> = through
            .keys()
            .map(|(source, partition)| rows.as_ref().ok().and_then(|rows| position(rows, source, *partition)))
            .collect();
        if positions != last {
            (last, since) = (positions, Instant::now());
        }
        match rows {
            Ok(rows) if behind.is_empty() => return Ok(rows),
            rows if since.elapsed() > stall_timeout => bail!(
                "ingest has stalled for {stall_timeout:?}: {}; {rows:?}",
                behind.join(", ")
            ),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn position(rows: &[TableRow], source: &str, partition: i32) -> Option<i64> {
    let row = find(rows, source, partition)?;
    row.get("position")?.as_i64()
}

pub(crate) fn find<'a>(rows: &'a [TableRow], source: &str, partition: i32) -> Option<&'a TableRow> {
    rows.iter().find(|row| {
        row.get("source").and_then(Value::as_str) == Some(source)
            && row.get("partition").and_then(Value::as_i64) == Some(partition.into())
    })
}
