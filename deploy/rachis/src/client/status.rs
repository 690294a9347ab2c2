//! `rachis status`: the state of a service at a glance, from its system tables.

use serde_json::{Value, json};

use super::{Failure, http::Client, output};
use crate::cli::{ListOutput, StatusArgs};

/// A part of the status: its name, its statement, and what is said if it has no rows; none: nothing is said.
const PARTS: [(&str, &str, Option<&str>); 11] = [
    (
        "nodes",
        "SELECT name, role, state, version, started, error FROM rachis.nodes ORDER BY role, name LIMIT 1000",
        None,
    ),
    (
        "collections",
        "SELECT c.name, c.documents, c.bytes, c.shards, max(s.last_ingested) AS last_ingested \
         FROM rachis.collections c LEFT JOIN rachis.sources s ON s.collection = c.name \
         GROUP BY ALL ORDER BY c.name LIMIT 1000",
        Some("no collections yet: push documents with `rachis push`, or add a topic with `rachis source put`"),
    ),
    (
        "sources",
        "SELECT source, collection, state, count(*) AS partitions, sum(lag) AS lag, max(last_record) AS last_record, \
         sum(dead_letters) AS dead_letters, max(error) AS error \
         FROM rachis.sources WHERE source <> 'push' GROUP BY source, collection, state ORDER BY 1, 3 LIMIT 1000",
        None,
    ),
    (
        "queries",
        "SELECT id, elapsed_ms, documents_scanned, left(text, 60) AS text FROM rachis.queries \
         WHERE NOT contains(text, 'FROM rachis.queries') ORDER BY elapsed_ms DESC LIMIT 100",
        None,
    ),
    (
        "dead letters",
        "SELECT collection, source, code, count(*) AS events, max(ingested) AS last FROM rachis.dead_letters \
         WHERE error IS NULL GROUP BY ALL ORDER BY events DESC LIMIT 100",
        None,
    ),
    (
        "losses",
        "SELECT collection, source, partition, from_offset, through_offset, noticed, reason FROM rachis.losses \
         WHERE error IS NULL ORDER BY noticed DESC LIMIT 100",
        None,
    ),
    (
        "errors of shards",
        "SELECT collection, shard, leaf, error FROM rachis.shards WHERE error IS NOT NULL ORDER BY 1, 2 LIMIT 1000",
        None,
    ),
    (
        "replicas that do not serve",
        "SELECT collection, leaf, state, count(*) AS shards FROM rachis.replicas WHERE state <> 'serving' \
         GROUP BY ALL ORDER BY 1, 2, 3 LIMIT 1000",
        None,
    ),
    (
        "moves",
        "SELECT leaf, state, count(*) AS shards, sum(bytes) AS bytes, sum(bytes_total) AS bytes_total, \
         max(seconds_left) AS seconds_left, max(error) AS error FROM rachis.moves GROUP BY ALL ORDER BY 1, 2 LIMIT 1000",
        None,
    ),
    (
        "controller on hold",
        "SELECT node, epoch FROM rachis.controller WHERE held",
        None,
    ),
    (
        "last snapshot failed",
        "SELECT id, began, error FROM (SELECT * FROM rachis.snapshots ORDER BY began DESC LIMIT 1) WHERE error IS NOT NULL",
        None,
    ),
];

/// Shows each part that has something to say.
pub(crate) async fn run(arguments: StatusArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let mut status = serde_json::Map::new();
    let (mut warnings, mut failed): (Vec<Value>, Option<Failure>) = (Vec::new(), None);
    for (name, sql, hint) in PARTS {
        let answer = match client.sql(&json!({ "sql": sql, "allow_partial": true })).await {
            Ok(answer) => answer,
            Err(failure) => {
                let text = failure.to_string();
                // The same reason for each part, for example that no server is there.
                if failed.as_ref().is_none_or(|earlier| earlier.to_string() != text) {
                    output::note(&format!("{name}: {text}"));
                }
                failed = Some(failure);
                continue;
            }
        };
        warnings.extend(answer["stats"]["warnings"].as_array().into_iter().flatten().cloned());
        let names: Vec<&str> = columns(&answer);
        let rows = &answer["rows"];
        if arguments.output == ListOutput::Table {
            let is_empty = rows.as_array().is_none_or(Vec::is_empty);
            match hint {
                _ if !is_empty => output::write(format!("{name}\n{}\n", output::objects(rows, &names)).as_bytes())?,
                Some(hint) => output::write(format!("{name}\n{hint}\n\n").as_bytes())?,
                None => {}
            }
        }
        status.insert(name.replace(' ', "_"), rows.clone());
    }
    output::note_warnings(&json!({ "warnings": warnings }));
    match arguments.output {
        ListOutput::Table => {}
        ListOutput::Json => output::pretty(&Value::Object(status))?,
        ListOutput::Ndjson => {
            let lines = status.iter().map(|(name, rows)| format!("{}\n", json!({ name: rows })));
            output::write(lines.collect::<String>().as_bytes())?;
        }
    }
    failed.map_or(Ok(()), Err)
}

fn columns(answer: &Value) -> Vec<&str> {
    let columns = answer["columns"].as_array().into_iter().flatten();
    columns.filter_map(|column| column["name"].as_str()).collect()
}
