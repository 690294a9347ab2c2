//! What the ledger asks by SQL, and how it reads the rows.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{COLLECTION, Client};

/// A document as a question by number finds it.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    pub n: u64,
    #[serde(rename = "_id")]
    pub id: String,
    #[serde(rename = "_doc")]
    pub document: String,
}

/// Documents of a range of numbers, with their exact text.
pub async fn documents(client: &Client, from: u64, to: u64, at_least: &str) -> Result<Vec<Found>> {
    let sql = format!("SELECT n, _id, _doc FROM {COLLECTION} WHERE n >= {from} AND n < {to} LIMIT 1000000");
    client.rows(json!({"sql": sql, "at_least": at_least})).await
}

/// The numbers that are there in a range.
pub async fn numbers(client: &Client, from: u64, to: u64) -> Result<HashSet<u64>> {
    #[derive(Deserialize)]
    struct Row {
        n: u64,
    }
    let sql = format!("SELECT n FROM {COLLECTION} WHERE n >= {from} AND n < {to} LIMIT 1000000");
    Ok(client
        .rows::<Row>(json!({"sql": sql}))
        .await?
        .into_iter()
        .map(|row| row.n)
        .collect())
}

/// What the whole collection adds up to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sums {
    pub documents: u64,
    pub total: Option<f64>,
}

/// From index and columns, or from the raw documents alone.
pub async fn sums(client: &Client, raw: bool) -> Result<Sums> {
    let sql = format!("SELECT count(*) AS documents, sum(n) AS total FROM {COLLECTION}");
    let question = if raw {
        json!({"sql": sql, "scan": "raw"})
    } else {
        json!({"sql": sql})
    };
    let rows: Vec<Sums> = client.rows(question).await?;
    rows.into_iter().next().ok_or_else(|| anyhow::anyhow!("{sql}: no row"))
}

/// Documents by source and partition.
pub async fn by_partition(client: &Client) -> Result<BTreeMap<(String, i32), i64>> {
    #[derive(Deserialize)]
    struct Row {
        source: String,
        partition: i32,
        documents: i64,
    }
    let sql = format!(
        "SELECT _source AS source, _partition AS partition, count(*) AS documents FROM {COLLECTION} GROUP BY _source, _partition"
    );
    let rows: Vec<Row> = client.rows(json!({"sql": sql})).await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.source, row.partition), row.documents))
        .collect())
}

/// A row of a system table, by column.
pub type Row = BTreeMap<String, Value>;

/// A system table's rows for the collection.
pub async fn table(client: &Client, name: &str) -> Result<Vec<Row>> {
    client
        .rows(json!({"sql": format!("SELECT * FROM rachis.{name} WHERE collection = '{COLLECTION}' LIMIT 1000000")}))
        .await
}

/// `push/0@12,push/1@7` or the like, all of this source: partitions and offsets.
pub fn positions(source: &str, text: &str) -> Option<Vec<(i32, i64)>> {
    let one = |text: &str| -> Option<(i32, i64)> {
        let (partition, offset) = text.strip_prefix(source)?.strip_prefix('/')?.split_once('@')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    text.split(',').map(one).collect()
}
