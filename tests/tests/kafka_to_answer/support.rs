//! What the tests of sources share: waiting for offsets, checks of documents and settings, and records.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, eventually, kafka::NewRecord};

/// Documents of each set that are fetched by id.
const DOCUMENTS_FETCHED: usize = 150;

/// Waits until the source has reached the offsets that the producer got.
pub(crate) async fn wait_for_offsets(server: &Client, source: &str, offsets: &[(i32, i64)]) {
    let mut last = BTreeMap::new();
    for (partition, offset) in offsets {
        last.insert(*partition, *offset);
    }
    eventually(&format!("{source} is ingested"), || async {
        let rows = server
            .query(
                &format!("select partition, position from rachis.sources where source = '{source}'"),
                json!({}),
            )
            .await?
            .rows;
        for (partition, offset) in &last {
            let row = rows.iter().find(|row| row[0] == json!(partition));
            ensure!(row.is_some_and(|row| row[1].as_i64() >= Some(*offset)), "{rows:?}");
        }
        Ok(())
    })
    .await;
}

/// Fails unless every partition of the source has caught up without an error.
pub(crate) async fn check_caught_up(server: &Client, source: &str) -> Result<()> {
    let rows = server
        .query(
            &format!("select state, lag, error from rachis.sources where source = '{source}'"),
            json!({}),
        )
        .await?
        .rows;
    ensure!(
        !rows.is_empty()
            && rows
                .iter()
                .all(|row| *row == [json!("caught_up"), json!(0), Value::Null]),
        "{rows:?}"
    );
    Ok(())
}

/// Fetches documents by the addresses that follow from the producer's offsets, and compares their bytes.
pub(crate) async fn check_by_id(
    server: &Client,
    set: &str,
    documents: &[String],
    offsets: &[(i32, i64)],
) -> Result<()> {
    let step = (documents.len() / DOCUMENTS_FETCHED).max(1);
    for (document, (partition, offset)) in documents.iter().zip(offsets).step_by(step) {
        let address = format!("{set}/{partition}@{offset}");
        let found = server
            .document(set, &address)
            .await?
            .with_context(|| format!("{address} is missing"))?;
        ensure!(
            found == document.as_bytes(),
            "{address}: {}",
            String::from_utf8_lossy(&found)
        );
    }
    Ok(())
}

/// Checks that the settings of a source are rejected with an error that names the cause.
pub(crate) async fn check_rejected(server: &Client, body: Value, status: u16, cause: &str) {
    let answer = server
        .request(Method::PUT, "/v1/sources/orders")
        .json(&body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), status);
    let problem: Value = answer.json().await.expect("a problem");
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.contains(cause)),
        "{problem}"
    );
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<NewRecord> {
    range.map(|n| NewRecord::value(format!("{{\"n\":{n}}}"))).collect()
}

pub(crate) fn numbers_in(partition: i32, range: std::ops::Range<usize>) -> Vec<NewRecord> {
    numbers(range)
        .into_iter()
        .map(|record| NewRecord {
            partition: Some(partition),
            ..record
        })
        .collect()
}
