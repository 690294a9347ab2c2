//! The audit: what the books expect against what the server has, by every way there is to ask.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use anyhow::Result;
use futures::{StreamExt, stream};
use serde_json::Value;

use crate::{
    Run,
    book::{self, Counts, Entry, Expected, Fate, Kind},
    document::GROUP,
    push::{Answer, KEYLESS, Request},
    questions::{self, Row},
    settle,
};

/// Numbers asked for by one statement.
const RANGE: u64 = 5_000;
const PAGE: usize = 190;
const AT_ONCE: usize = 8;
/// Pushes that are repeated with their keys.
const REPEATED: usize = 100;
/// What is acknowledged is taken in: while it is, positions move at least so often.
const STANDSTILL: Duration = Duration::from_secs(30);

/// Number -> id, of what is there by SQL.
type There = HashMap<u64, String>;

/// Everything that is not as it was promised.
pub async fn everything(run: &Run) -> Result<Vec<String>> {
    let entries = run.book.entries();
    let through = settle::acknowledged(&entries, run.book.reached());
    let mut found = Vec::new();
    if let Err(error) = settle::settle(&run.client, &through, STANDSTILL).await {
        return Ok(vec![format!("{error:#}")]);
    }
    found.extend(repeated_pushes_change_nothing(run, &entries).await?);
    let expected = book::expected(&entries);
    let (there, by_sql) = by_sql(run, &entries, &expected, &settle::vector(&through)).await?;
    found.extend(by_sql);
    found.extend(unknown_pushes_are_whole(&entries, &there));
    found.extend(by_search(run, &entries, &there).await?);
    found.extend(by_id(run, &entries, &there).await);
    found.extend(raw_adds_up(run, &there).await?);
    let sources = settle::settle(&run.client, &through, STANDSTILL).await?;
    found.extend(outcomes(run, &entries, &sources, &there).await?);
    found.extend(dead_letters(run, &entries).await?);
    Ok(found)
}

/// The same key and body again: the same answer, and nothing more is there. The same key with another body: refused.
async fn repeated_pushes_change_nothing(run: &Run, entries: &[Entry]) -> Result<Vec<String>> {
    let mut requests: BTreeMap<u32, Request> = BTreeMap::new();
    for (number, entry) in entries.iter().enumerate() {
        if entry.request != 0 && entry.request & KEYLESS == 0 && matches!(entry.fate, Fate::Acknowledged { .. }) {
            let request = requests.entry(entry.request).or_insert_with(|| Request {
                id: entry.request,
                items: Vec::new(),
            });
            request.items.push((number as u64, entry.kind, entry.key));
        }
    }
    let step = (requests.len() / REPEATED).max(1);
    let mut found = Vec::new();
    for request in requests.values().rev().step_by(step) {
        let key = request.key();
        let reply = run.client.push(key.as_deref(), request.body(run)).await?;
        let told = serde_json::from_str::<Answer>(&reply.text)
            .ok()
            .map(|answer| (request.objection(&answer), answer));
        let before = request.items.first().map(|(number, ..)| entries[*number as usize].fate);
        match told {
            Some((None, answer)) => {
                let now = questions::positions("push", &answer.position)
                    .and_then(|all| all.first().copied())
                    .map(|(partition, offset)| Fate::Acknowledged { partition, offset });
                if now != before {
                    found.push(format!(
                        "push {} was at {before:?}; repeated, it is at {}",
                        request.id, answer.position
                    ));
                }
            }
            _ => found.push(format!(
                "push {} repeated: {}: {}",
                request.id, reply.status, reply.text
            )),
        }
        let other = run
            .client
            .push(key.as_deref(), "{\"another\":true}\n".to_owned())
            .await?;
        if other.status != reqwest::StatusCode::CONFLICT {
            found.push(format!(
                "push {} with another body: {} where 409 is promised: {}",
                request.id, other.status, other.text
            ));
        }
    }
    Ok(found)
}

/// Every number exactly as often as the books say, with its id and its bytes.
async fn by_sql(run: &Run, entries: &[Entry], expected: &[Expected], at_least: &str) -> Result<(There, Vec<String>)> {
    let (mut there, mut found) = (There::new(), Vec::new());
    let numbers = entries.len() as u64;
    for from in (0..numbers).step_by(RANGE as usize) {
        for row in questions::documents(&run.client, from, (from + RANGE).min(numbers), at_least).await? {
            let Some(entry) = entries.get(row.n as usize) else {
                found.push(format!("SQL: {} is there, and nobody sent it", row.n));
                continue;
            };
            if row.document != run.documents.bytes(row.n, entry.kind, entry.key) {
                found.push(format!("SQL: {} has other bytes: {}", row.n, row.document));
            }
            if let Some(before) = there.insert(row.n, row.id.clone()) {
                found.push(format!("SQL: {} is there twice, as {before} and {}", row.n, row.id));
            }
        }
    }
    for (number, expected) in expected.iter().enumerate() {
        let id = there.get(&(number as u64));
        let objection = match (expected, id) {
            (Expected::Present { id, .. }, None) => Some(format!("was acknowledged (as {id}) and is not there")),
            (Expected::Present { id: wanted, whole }, Some(id)) => {
                let right = id == wanted
                    || (!whole
                        && id
                            .strip_prefix(wanted.as_str())
                            .is_some_and(|item| item.starts_with('.')));
                (!right).then(|| format!("has the id {id} instead of {wanted}"))
            }
            (Expected::Absent, Some(id)) => Some(format!("is there as {id}, and should not be")),
            (Expected::Absent, None) | (Expected::AtMostOnce, _) => None,
        };
        found.extend(objection.map(|objection| format!("SQL: {number} ({:?}) {objection}", entries[number])));
    }
    Ok((there, found))
}

/// A push without ids is all or nothing, also where its outcome was never told.
fn unknown_pushes_are_whole(entries: &[Entry], there: &There) -> Vec<String> {
    let mut requests: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for (number, entry) in entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.kind == Kind::Pushed)
    {
        let (sent, present) = requests.entry(entry.request).or_default();
        *sent += 1;
        *present += usize::from(there.contains_key(&(number as u64)));
    }
    requests
        .iter()
        .filter(|(_, (sent, present))| *present != 0 && sent != present)
        .map(|(request, (sent, present))| format!("push {request}: {present} of {sent} documents are there"))
        .collect()
}

/// Every group by its word, page by page: the same documents as by SQL, with their bytes.
async fn by_search(run: &Run, entries: &[Entry], there: &There) -> Result<Vec<String>> {
    let groups = (entries.len() as u64).div_ceil(GROUP);
    let found: Vec<Result<Vec<String>>> = stream::iter(0..groups)
        .map(|group| search_group(run, entries, there, group))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut all = Vec::new();
    for found in found {
        all.extend(found?);
    }
    Ok(all)
}

async fn search_group(run: &Run, entries: &[Entry], there: &There, group: u64) -> Result<Vec<String>> {
    let query = format!("words:g{group}");
    let mut wanted: HashMap<String, u64> = (group * GROUP..(group + 1) * GROUP)
        .filter_map(|number| there.get(&number).map(|id| (id.clone(), number)))
        .collect();
    let (mut found, mut after, total) = (Vec::new(), None::<String>, wanted.len() as u64);
    loop {
        let page = run.client.search(&query, PAGE, after.as_deref()).await?;
        if page.total != total {
            found.push(format!("search {query}: {} in all, {total} by SQL", page.total));
        }
        for hit in &page.hits {
            match wanted.remove(&hit.id) {
                Some(number) => {
                    let entry = &entries[number as usize];
                    if hit.document.get() != run.documents.bytes(number, entry.kind, entry.key) {
                        found.push(format!(
                            "search {query}: {number} has other bytes: {}",
                            hit.document.get()
                        ));
                    }
                }
                None => found.push(format!(
                    "search {query}: {} comes twice, or SQL does not have it",
                    hit.id
                )),
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

/// Every document by its id, byte for byte.
async fn by_id(run: &Run, entries: &[Entry], there: &There) -> Vec<String> {
    stream::iter(there)
        .map(|(number, id)| async move {
            let entry = &entries[*number as usize];
            match run.client.document(id).await {
                Ok(Some(bytes)) if bytes == run.documents.bytes(*number, entry.kind, entry.key) => None,
                Ok(Some(bytes)) => Some(format!("by id: {id} ({number}) has other bytes: {bytes}")),
                Ok(None) => Some(format!("by id: {id} ({number}) is missing")),
                Err(error) => Some(format!("by id: {id} ({number}): {error:#}")),
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|objection| async move { objection })
        .collect()
        .await
}

/// The raw documents alone give the same count and sum.
async fn raw_adds_up(run: &Run, there: &There) -> Result<Vec<String>> {
    let wanted = questions::Sums {
        documents: there.len() as u64,
        total: Some(there.keys().map(|number| *number as f64).sum()).filter(|sum| *sum > 0.0),
    };
    let mut found = Vec::new();
    for raw in [false, true] {
        let sums = questions::sums(&run.client, raw).await?;
        if sums != wanted {
            found.push(format!("the sums are {sums:?} (raw: {raw}) instead of {wanted:?}"));
        }
    }
    Ok(found)
}

/// Both equations hold in every partition; those of Kafka are exactly what the books add up to.
async fn outcomes(run: &Run, entries: &[Entry], sources: &[Row], there: &There) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let by_partition = questions::by_partition(&run.client).await?;
    for row in sources
        .iter()
        .filter(|row| row.get("partition").is_some_and(Value::is_i64))
    {
        let of = |name: &str| row.get(name).and_then(Value::as_i64);
        let sum = |names: &[&str]| names.iter().map(|name| of(name)).sum::<Option<i64>>();
        let events = sum(&["accepted", "tombstones", "duplicates", "dead_letters"]);
        let gone = sum(&["superseded", "deleted", "expired"]);
        if of("events").is_none()
            || of("events") != events
            || of("documents").is_none()
            || of("documents") != of("accepted").zip(gone).map(|(a, b)| a - b)
        {
            found.push(format!("the outcomes do not add up: {row:?}"));
        }
        let partition = (
            row.get("source").and_then(Value::as_str).unwrap_or_default().to_owned(),
            of("partition").unwrap_or(-1) as i32,
        );
        let counted = by_partition.get(&partition).copied().unwrap_or(0);
        if of("documents") != Some(counted) {
            found.push(format!(
                "{partition:?} has {counted} documents, and its counters say {row:?}"
            ));
        }
    }
    for ((source, partition), wanted) in book::counts(entries) {
        match settle::find(sources, source, partition).map(counts_of) {
            Some(Some(told))
                if told
                    == Counts {
                        through: told.through,
                        ..wanted
                    } => {}
            told => found.push(format!("{source}/{partition} counts {told:?} instead of {wanted:?}")),
        }
    }
    let rows = sources
        .iter()
        .filter(|row| row.get("source").and_then(Value::as_str) == Some("push"));
    let accepted: i64 = rows.filter_map(|row| row.get("accepted").and_then(Value::as_i64)).sum();
    let (least, most) = pushed(entries, there);
    if accepted < least || accepted > most {
        found.push(format!(
            "push accepted {accepted} documents by its counters, and by the books {least} to {most}"
        ));
    }
    Ok(found)
}

fn counts_of(row: &Row) -> Option<Counts> {
    let of = |name: &str| row.get(name).and_then(Value::as_i64);
    Some(Counts {
        events: of("events")?,
        accepted: of("accepted")?,
        tombstones: of("tombstones")?,
        dead_letters: of("dead_letters")?,
        superseded: of("superseded")?,
        deleted: of("deleted")?,
        documents: of("documents")?,
        through: 0,
    })
}

/// How many pushed documents were accepted at least and at most: those without ids are there or not; of ids whose push
/// was never answered only the last can be seen.
fn pushed(entries: &[Entry], there: &There) -> (i64, i64) {
    let (mut least, mut most) = (0, 0);
    for (number, entry) in entries.iter().enumerate() {
        let (sure, possible) = match (entry.kind, entry.fate) {
            (Kind::Pushed, _) => {
                let present = there.contains_key(&(number as u64));
                (present, present)
            }
            (Kind::Owned, Fate::Acknowledged { .. }) => (true, true),
            (Kind::Owned, _) => (false, true),
            _ => (false, false),
        };
        least += i64::from(sure);
        most += i64::from(possible);
    }
    (least, most)
}

/// Every event that is not JSON is a dead letter with its bytes, once.
async fn dead_letters(run: &Run, entries: &[Entry]) -> Result<Vec<String>> {
    let mut wanted: HashSet<u64> = HashSet::new();
    let mut possible: HashSet<u64> = HashSet::new();
    for (number, entry) in entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| matches!(entry.kind, Kind::Dead | Kind::PushedDead))
    {
        match entry.fate {
            Fate::Acknowledged { .. } => wanted.insert(number as u64),
            _ => possible.insert(number as u64),
        };
    }
    let mut found = Vec::new();
    for row in questions::table(&run.client, "dead_letters").await? {
        let number = row.values().filter_map(Value::as_str).find_map(dead_number);
        match number {
            Some(number) if wanted.remove(&number) || possible.remove(&number) => {}
            Some(number) => found.push(format!(
                "dead letters: {number} is there twice, or was never sent: {row:?}"
            )),
            None => found.push(format!("dead letters: the bytes of one are not there: {row:?}")),
        }
    }
    found.extend(wanted.iter().map(|number| format!("dead letters: {number} is missing")));
    Ok(found)
}

/// The number in the bytes of a dead letter.
fn dead_number(text: &str) -> Option<u64> {
    let rest = text.strip_prefix("{\"n\": ")?;
    rest[..rest.find(',')?].parse().ok()
}
