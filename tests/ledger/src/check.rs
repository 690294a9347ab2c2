//! The audit: compares what the ledger expects with what the server has, through every interface it can be queried by.

mod outcomes;
mod replicas;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::Result;
use futures::{StreamExt, stream};
use reqwest::StatusCode;

use crate::{
    Run, catch_up, definitions,
    document::GROUP_SIZE,
    ledger::{self, Delivery, Entry, Expected, Kind, Removed},
    push::{Answer, KEYLESS, Request},
    queries, redrives, removals,
};

/// Numbers fetched by one SQL query.
const RANGE: u64 = 5_000;
const PAGE: usize = 190;
const CONCURRENCY: usize = 8;
/// Pushes that are repeated with their idempotency keys.
const REPEATED: usize = 100;
/// Ingest of acknowledged events must advance at least this often.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Number -> id, of the documents that SQL finds.
type Stored = HashMap<u64, String>;

/// Runs all checks and returns what they found.
pub(crate) async fn everything(run: &Run) -> Result<Vec<String>> {
    let entries = run.ledger.entries();
    let through = catch_up::acknowledged_offsets(&entries, run.ledger.pushed_through());
    let mut found = Vec::new();
    if let Err(error) = catch_up::wait(&run.client, &through, STALL_TIMEOUT).await {
        return Ok(vec![format!("{error:#}")]);
    }
    removals::remove_short_lived(run).await?;
    found.extend(repeated_pushes_change_nothing(run, &entries).await?);
    let expected = ledger::expected(&entries);
    let (stored, by_sql) = by_sql(run, &entries, &expected, &catch_up::position_vector(&through)).await?;
    found.extend(by_sql);
    found.extend(pushes_are_atomic(&entries, &stored));
    found.extend(by_search(run, &entries, &stored).await?);
    found.extend(by_id(run, &entries, &stored).await);
    found.extend(raw_scan_agrees(run, &stored).await?);
    let sources = catch_up::wait(&run.client, &through, STALL_TIMEOUT).await?;
    found.extend(outcomes::check(run, &entries, &sources, &stored).await?);
    found.extend(redrives::check(run, &entries).await?);
    found.extend(definitions::check(run).await?);
    found.extend(replicas::check(run).await?);
    Ok(found)
}

/// Repeats pushes. The same key with the same body must get the same answer and store nothing. The same key with
/// another body must be rejected.
async fn repeated_pushes_change_nothing(run: &Run, entries: &[Entry]) -> Result<Vec<String>> {
    let requests = acknowledged_pushes(entries);
    let step = (requests.len() / REPEATED).max(1);
    let mut found = Vec::new();
    for request in requests.values().rev().step_by(step) {
        let key = request.idempotency_key();
        let reply = run.client.push(key.as_deref(), request.body(run)).await?;
        let answer = serde_json::from_str::<Answer>(&reply.text)
            .ok()
            .filter(|answer| request.problem_with(answer).is_none());
        match answer {
            Some(answer) => {
                let before = request
                    .items
                    .first()
                    .map(|(number, ..)| entries[*number as usize].delivery);
                let now = queries::positions("push", &answer.position)
                    .and_then(|all| all.first().copied())
                    .map(|(partition, offset)| Delivery::Acknowledged { partition, offset });
                if now != before {
                    found.push(format!(
                        "push {} was at {before:?}; repeated, it is at {}",
                        request.id, answer.position
                    ));
                }
            }
            None => found.push(format!(
                "push {} repeated: {}: {}",
                request.id, reply.status, reply.text
            )),
        }
        let other = run
            .client
            .push(key.as_deref(), "{\"another\":true}\n".to_owned())
            .await?;
        if other.status != StatusCode::CONFLICT {
            found.push(format!(
                "push {} with another body: got {}, but 409 is promised: {}",
                request.id, other.status, other.text
            ));
        }
    }
    Ok(found)
}

/// The acknowledged pushes that have an idempotency key, by request id.
fn acknowledged_pushes(entries: &[Entry]) -> BTreeMap<u32, Request> {
    let mut requests: BTreeMap<u32, Request> = BTreeMap::new();
    for (number, entry) in entries.iter().enumerate() {
        if entry.request != 0 && entry.request & KEYLESS == 0 && matches!(entry.delivery, Delivery::Acknowledged { .. })
        {
            let request = requests.entry(entry.request).or_insert_with(|| Request {
                id: entry.request,
                items: Vec::new(),
            });
            request.items.push((number as u64, entry.kind, entry.key));
        }
    }
    requests
}

/// Every number is stored as often as the ledger expects, with its id and its bytes.
async fn by_sql(run: &Run, entries: &[Entry], expected: &[Expected], at_least: &str) -> Result<(Stored, Vec<String>)> {
    let (mut stored, mut found) = (Stored::new(), Vec::new());
    let numbers = entries.len() as u64;
    for from in (0..numbers).step_by(RANGE as usize) {
        for row in queries::documents(&run.client, from, (from + RANGE).min(numbers), at_least).await? {
            let Some(entry) = entries.get(row.n as usize) else {
                found.push(format!("SQL: {} is there, but was never sent", row.n));
                continue;
            };
            if row.document != run.documents.bytes(row.n, entry.kind, entry.key) {
                found.push(format!("SQL: {} has other bytes: {}", row.n, row.document));
            }
            if let Some(before) = stored.insert(row.n, row.id.clone()) {
                found.push(format!("SQL: {} is there twice, as {before} and {}", row.n, row.id));
            }
        }
    }
    for (number, expected) in expected.iter().enumerate() {
        let problem = deviation(expected, stored.get(&(number as u64)));
        found.extend(problem.map(|problem| format!("SQL: {number} ({:?}) {problem}", entries[number])));
    }
    Ok((stored, found))
}

/// How the id that is stored, if any, deviates from what is expected.
fn deviation(expected: &Expected, id: Option<&String>) -> Option<String> {
    match (expected, id) {
        (Expected::Present { id, .. }, None) => Some(format!("was acknowledged (as {id}) and is missing")),
        (Expected::Present { id: wanted, whole }, Some(id)) => {
            let is_item = |id: &str| {
                id.strip_prefix(wanted.as_str())
                    .is_some_and(|item| item.starts_with('.'))
            };
            let right = id == wanted || (!whole && is_item(id));
            (!right).then(|| format!("has the id {id} instead of {wanted}"))
        }
        (Expected::Absent, Some(id)) => Some(format!("is there as {id}, and should not be")),
        (Expected::Absent, None) | (Expected::AtMostOnce, _) => None,
    }
}

/// A push without ids is stored all or not at all, also if its outcome is unknown; but for what was removed later.
fn pushes_are_atomic(entries: &[Entry], stored: &Stored) -> Vec<String> {
    let mut requests: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for (number, entry) in entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.kind == Kind::Pushed && entry.removed == Removed::No)
    {
        let (sent, present) = requests.entry(entry.request).or_default();
        *sent += 1;
        *present += usize::from(stored.contains_key(&(number as u64)));
    }
    requests
        .iter()
        .filter(|(_, (sent, present))| *present != 0 && sent != present)
        .map(|(request, (sent, present))| format!("push {request}: {present} of {sent} documents are there"))
        .collect()
}

/// Searches for the word of every group, page by page: finds the same documents as SQL, with their bytes.
async fn by_search(run: &Run, entries: &[Entry], stored: &Stored) -> Result<Vec<String>> {
    let groups = (entries.len() as u64).div_ceil(GROUP_SIZE);
    let found: Vec<Result<Vec<String>>> = stream::iter(0..groups)
        .map(|group| search_group(run, entries, stored, group))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let mut all = Vec::new();
    for found in found {
        all.extend(found?);
    }
    Ok(all)
}

async fn search_group(run: &Run, entries: &[Entry], stored: &Stored, group: u64) -> Result<Vec<String>> {
    let query = format!("words:g{group}");
    let mut wanted: HashMap<String, u64> = (group * GROUP_SIZE..(group + 1) * GROUP_SIZE)
        .filter_map(|number| stored.get(&number).map(|id| (id.clone(), number)))
        .collect();
    let (mut found, mut after, total) = (Vec::new(), None::<String>, wanted.len() as u64);
    loop {
        let page = run.client.search(&query, PAGE, after.as_deref()).await?;
        if page.total != total {
            found.push(format!("search {query}: {} in total, {total} by SQL", page.total));
        }
        for hit in &page.hits {
            let Some(number) = wanted.remove(&hit.id) else {
                found.push(format!(
                    "search {query}: {} was returned twice, or SQL does not find it",
                    hit.id
                ));
                continue;
            };
            let entry = &entries[number as usize];
            if hit.document.get() != run.documents.bytes(number, entry.kind, entry.key) {
                found.push(format!(
                    "search {query}: {number} has other bytes: {}",
                    hit.document.get()
                ));
            }
        }
        match page.after {
            Some(next) if !page.hits.is_empty() && found.len() < 100 => after = Some(next),
            _ => break,
        }
    }
    found.extend(
        wanted
            .iter()
            .map(|(id, number)| format!("search {query}: {number} ({id}) is missing")),
    );
    Ok(found)
}

/// Fetches every document by its id and compares its bytes.
async fn by_id(run: &Run, entries: &[Entry], stored: &Stored) -> Vec<String> {
    stream::iter(stored)
        .map(|(number, id)| async move {
            let entry = &entries[*number as usize];
            match run.client.document(id).await {
                Ok(Some(bytes)) if bytes == run.documents.bytes(*number, entry.kind, entry.key) => None,
                Ok(Some(bytes)) => Some(format!("by id: {id} ({number}) has other bytes: {bytes}")),
                Ok(None) => Some(format!("by id: {id} ({number}) is missing")),
                Err(error) => Some(format!("by id: {id} ({number}): {error:#}")),
            }
        })
        .buffer_unordered(CONCURRENCY)
        .filter_map(|problem| async move { problem })
        .collect()
        .await
}

/// A scan of raw documents gives the same count and sum. Documents that were dead letters have no number.
async fn raw_scan_agrees(run: &Run, stored: &Stored) -> Result<Vec<String>> {
    let wanted = queries::Sums {
        documents: (stored.len() + redrives::documents(run).await?.len()) as u64,
        total: Some(stored.keys().map(|number| *number as f64).sum()).filter(|sum| *sum > 0.0),
    };
    let mut found = Vec::new();
    for raw in [false, true] {
        let sums = queries::sums(&run.client, raw).await?;
        if sums != wanted {
            found.push(format!("the sums are {sums:?} (raw: {raw}) instead of {wanted:?}"));
        }
    }
    Ok(found)
}
