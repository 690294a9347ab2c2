//! Ingests dead letters again while the load runs, as text: each becomes one document, however often it is asked for and
//! whatever is killed meanwhile.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    Run,
    http::COLLECTION,
    ledger::{Delivery, Entry, Kind},
    queries,
};

/// Redrives, spread over the first part of the run: so some dead letters are left.
const REDRIVES: u64 = 12;
const SPREAD: u64 = 16;
/// Tries of one redrive. All together take longer than a node is down.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(150);
const POLL: Duration = Duration::from_millis(5);

/// What was ingested again.
#[derive(Default)]
pub(crate) struct Redrives {
    pub(crate) answers: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
}

pub(crate) struct Redriver(JoinHandle<()>);

impl Redriver {
    pub(crate) fn start(run: &Arc<Run>) -> Self {
        Self(tokio::spawn(redrive_again_and_again(Arc::clone(run))))
    }

    pub(crate) async fn finish(self) -> Result<()> {
        Ok(self.0.await?)
    }
}

async fn redrive_again_and_again(run: Arc<Run>) {
    let ledger = &run.ledger;
    for turn in 1..=REDRIVES {
        while ledger.done() < turn * ledger.records / SPREAD {
            if ledger.load_aborted.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        let mut tries = 0;
        while let Err(error) = redrive(&run).await {
            tries += 1;
            if tries == TRIES {
                ledger.add_problem(format!("dead letters could not be ingested again: {error:#}"));
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Ingests all dead letters again. Returns how many there were.
async fn redrive(run: &Run) -> Result<u64> {
    let path = format!("/v1/collections/{COLLECTION}/dead-letters/redrive");
    let (mut body, mut redriven) = (json!({ "format": "text" }), 0);
    loop {
        let answer = run.client.post(&path, body.clone()).await?;
        if answer["rejected"] != 0 {
            run.ledger
                .add_problem(format!("a dead letter does not become a text: {answer}"));
        }
        redriven += answer["redriven"].as_u64().unwrap_or_default();
        if answer["next"].is_null() {
            break;
        }
        body["from"] = answer["next"].clone();
    }
    run.redrives.answers.fetch_add(1, Ordering::Relaxed);
    run.redrives.dead_letters.fetch_add(redriven, Ordering::Relaxed);
    Ok(redriven)
}

/// Ingests all dead letters again while nothing else happens: the answer says how many there were, and none is left.
pub(crate) async fn redrive_exactly(run: &Run) -> Result<Vec<String>> {
    let before = (
        dead_letters(run).await?.len() as u64,
        documents(run).await?.len() as u64,
    );
    let redriven = redrive(run).await?;
    let after = (
        dead_letters(run).await?.len() as u64,
        documents(run).await?.len() as u64,
    );
    let is_exact = redriven == before.0 && after == (0, before.1 + redriven);
    let mut found = Vec::new();
    // A slow run may leave none for the end.
    if !is_exact || run.redrives.dead_letters.load(Ordering::Relaxed) == 0 {
        found.push(format!(
            "dead letters and documents that were such: {before:?}; {redriven} were ingested again; then {after:?}"
        ));
    }
    Ok(found)
}

/// The texts of the documents that were dead letters.
pub(crate) async fn documents(run: &Run) -> Result<Vec<String>> {
    let sql = format!("SELECT _doc FROM {COLLECTION} WHERE _source = '_changes' LIMIT 1000000");
    let rows: Vec<HashMap<String, String>> = run.client.rows(json!({ "sql": sql })).await?;
    Ok(rows.into_iter().flat_map(HashMap::into_values).collect())
}

async fn dead_letters(run: &Run) -> Result<Vec<String>> {
    let bytes = |row: queries::TableRow| row.get("bytes").and_then(Value::as_str).map(str::to_owned);
    let rows = queries::table(&run.client, "dead_letters").await?;
    Ok(rows.into_iter().filter_map(bytes).collect())
}

/// Every event that is not JSON is a dead letter with its bytes, or a document with them, exactly once.
pub(crate) async fn check(run: &Run, entries: &[Entry]) -> Result<Vec<String>> {
    let (mut certain, mut possible) = (HashMap::new(), HashMap::new());
    for (number, entry) in (0u64..).zip(entries) {
        if matches!(entry.kind, Kind::DeadLetter | Kind::PushedDeadLetter) {
            let text = run.documents.bytes(number, entry.kind, entry.key);
            match entry.delivery {
                Delivery::Acknowledged { .. } => certain.insert(text, number),
                _ => possible.insert(text, number),
            };
        }
    }
    let mut found = Vec::new();
    let letters = dead_letters(run).await?.into_iter().map(|text| ("dead letter", text));
    let documents = documents(run).await?.into_iter().map(|text| ("document", text));
    for (what, text) in letters.chain(documents) {
        if certain.remove(&text).or_else(|| possible.remove(&text)).is_none() {
            found.push(format!("a {what} is there twice, or was never sent: {text:?}"));
        }
    }
    let missing = certain.into_values();
    found.extend(missing.map(|number| format!("{number} is neither a dead letter nor a document")));
    Ok(found)
}
