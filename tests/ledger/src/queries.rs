//! The SQL queries that the ledger sends, and the types of their rows.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{COLLECTION, Client};

/// A document found by its number.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DocumentRow {
    pub n: u64,
    #[serde(rename = "_id")]
    pub id: String,
    #[serde(rename = "_doc")]
    pub document: String,
}

/// Documents in a range of numbers, with their exact bytes.
pub(crate) async fn documents(client: &Client, from: u64, to: u64, at_least: &str) -> Result<Vec<DocumentRow>> {
    let sql = format!("SELECT n, _id, _doc FROM {COLLECTION} WHERE n >= {from} AND n < {to} LIMIT 1000000");
    client.rows(json!({"sql": sql, "at_least": at_least})).await
}

/// The numbers of the documents that meet a condition.
pub(crate) async fn numbers_where(client: &Client, condition: &str) -> Result<HashSet<u64>> {
    #[derive(Deserialize)]
    struct NumberRow {
        n: u64,
    }
    let sql = format!("SELECT n FROM {COLLECTION} WHERE {condition} LIMIT 1000000");
    Ok(client
        .rows::<NumberRow>(json!({"sql": sql}))
        .await?
        .into_iter()
        .map(|row| row.n)
        .collect())
}

/// Count and sum over the whole collection.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Sums {
    pub documents: u64,
    pub total: Option<f64>,
}

/// Computed from index and columns, or from raw documents only.
pub(crate) async fn sums(client: &Client, raw: bool) -> Result<Sums> {
    let sql = format!("SELECT count(*) AS documents, sum(n) AS total FROM {COLLECTION}");
    let query = if raw {
        json!({"sql": sql, "scan": "raw"})
    } else {
        json!({"sql": sql})
    };
    let rows: Vec<Sums> = client.rows(query).await?;
    rows.into_iter().next().ok_or_else(|| anyhow::anyhow!("{sql}: no row"))
}

/// Document counts by source and partition.
pub(crate) async fn documents_by_partition(client: &Client) -> Result<BTreeMap<(String, i32), i64>> {
    #[derive(Deserialize)]
    struct PartitionRow {
        source: String,
        partition: i32,
        documents: i64,
    }
    let sql = format!(
        "SELECT _source AS source, _partition AS partition, count(*) AS documents FROM {COLLECTION} \
         GROUP BY _source, _partition"
    );
    let rows: Vec<PartitionRow> = client.rows(json!({"sql": sql})).await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.source, row.partition), row.documents))
        .collect())
}

/// A row of a system table, by column.
pub(crate) type TableRow = BTreeMap<String, Value>;

/// The rows of a system table that are about the collection.
pub(crate) async fn table(client: &Client, name: &str) -> Result<Vec<TableRow>> {
    client
        .rows(json!({"sql": format!("SELECT * FROM rachis.{name} WHERE collection = '{COLLECTION}' LIMIT 1000000")}))
        .await
}

/// Parses a position vector such as `push/0@12,push/1@7` into partitions and offsets. `None` if it is malformed or
/// names another source.
pub(crate) fn positions(source: &str, text: &str) -> Option<Vec<(i32, i64)>> {
    let one = |text: &str| -> Option<(i32, i64)> {
        let (partition, offset) = text.strip_prefix(source)?.strip_prefix('/')?.split_once('@')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    text.split(',').map(one).collect()
}
