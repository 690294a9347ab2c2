//! Searches over real events find what OpenSearch finds, score it alike, count it alike and mark the same words: from the
//! fresh tail, after merging, after a restart, in one process and in seven, by index and from raw documents.
//!
//! Everything is asked by index in every stage. From raw documents, each search is asked in one of the four stages;
//! `RACHIS_RAW=all` asks it so in each.
//!
//! `tests/searches/record.py` made the searches and kept the answers of OpenSearch in `expected.ndjson`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use chrono::DateTime;
use futures::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Client, Service, Settings, data, eventually,
    stages::{STAGES, is_asked},
};

/// Searches in flight at the same time.
const CONCURRENCY: usize = 3;
/// Bytes of a push.
const PUSH_BYTES: usize = 4 << 20;
/// OpenSearch computes scores as floats.
const SCORE_DIFFERENCE_MAX: f64 = 1e-3;
/// `record.py` keeps the marks of texts with so many characters.
const MARKED_CHARS_MAX: usize = 200;
/// A hit shows marks at so many paths.
const MARKED_PATHS_MAX: usize = 100;
/// Of so many searches that are asked from raw documents, one is also scored from them, which takes long.
const SCORED_RAW: usize = 4;

/// A collection with its searches.
struct Collection {
    name: String,
    /// Its documents by their numbers.
    documents: Vec<(usize, String)>,
    event_time: Option<String>,
    searches: Vec<Value>,
}

fn collections() -> Vec<Collection> {
    let mut collections: Vec<Collection> = Vec::new();
    for line in include_str!("../searches/expected.ndjson").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let Some(name) = line["collection"].as_str() else {
            let collection = collections.last_mut().expect("a collection comes first");
            collection.searches.push(line);
            continue;
        };
        let number = |value: &Value| value.as_u64().expect("a number") as usize;
        let refused: BTreeSet<usize> = line["refused"].as_array().into_iter().flatten().map(number).collect();
        let documents = data::documents(line["file"].as_str().expect("a file")).expect("documents");
        let taken = documents.into_iter().step_by(number(&line["step"])).enumerate();
        collections.push(Collection {
            name: name.to_owned(),
            documents: taken.filter(|(number, _)| !refused.contains(number)).collect(),
            event_time: line["time"].as_str().map(str::to_owned),
            searches: Vec::new(),
        });
    }
    collections
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_finds_what_open_search_finds() {
    if data::folder().is_none() {
        return;
    }
    let collections = collections();
    let searches = || collections.iter().flat_map(|collection| &collection.searches);
    let with_hits = searches().filter(|search| search["answer"]["total"] != 0).count();
    assert!(
        searches().count() >= 300 && with_hits * 10 >= searches().count() * 9,
        "{with_hits} have hits"
    );

    let service = Service::single_process(Settings::default().no_splits()).await;
    push(&service, &collections).await;
    compare(&service, &collections, 0).await;
    drop(service);

    let mut service = Service::single_process(Settings::default().small_splits()).await;
    push(&service, &collections).await;
    eventually_merged(&service, &collections).await;
    compare(&service, &collections, 1).await;
    service.kill_and_restart().await;
    compare(&service, &collections, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_finds_what_open_search_finds() {
    if data::folder().is_none() {
        return;
    }
    let collections = collections();
    let service = Service::cluster(Settings::default().small_splits()).await;
    push(&service, &collections).await;
    compare(&service, &collections, 3).await;
}

async fn push(service: &Service, collections: &[Collection]) {
    for collection in collections {
        let mut body = String::new();
        for (i, (_, document)) in collection.documents.iter().enumerate() {
            body += document;
            body.push('\n');
            if body.len() > PUSH_BYTES || i + 1 == collection.documents.len() {
                let pushed = service
                    .push(&collection.name, std::mem::take(&mut body))
                    .await
                    .expect("a push");
                assert_eq!(pushed["rejected"], 0, "{pushed}");
            }
        }
    }
}

async fn eventually_merged(service: &Service, collections: &[Collection]) {
    let documents: usize = collections.iter().map(|collection| collection.documents.len()).sum();
    eventually("splits of all documents, some of them merged", || async {
        let sql = "select sum(documents)::bigint, max(generation) from rachis.splits where place = 'disk'";
        let splits = service.query(sql, json!({})).await?;
        ensure!(
            splits.rows[0][0] == documents && splits.rows[0][1].as_u64() >= Some(1),
            "{:?}",
            splits.rows
        );
        Ok(())
    })
    .await;
}

async fn compare(service: &Service, collections: &[Collection], stage: usize) {
    let began = std::time::Instant::now();
    let (mut asked, mut complaints) = (0, Vec::new());
    for collection in collections {
        let numbers = numbers(service, collection).await;
        for scan in ["auto", "raw"] {
            let searches = collection.searches.iter().enumerate();
            let searches = searches.filter(|(i, _)| is_asked(*i, stage, scan)).map(|(i, search)| {
                let numbers = &numbers;
                async move {
                    let scores = scan == "auto" || (i / STAGES.len()).is_multiple_of(SCORED_RAW);
                    let compared = ask(service, collection, search, numbers, scan, scores).await;
                    compared.map_err(|e| format!("{}: {} ({scan})\n    {e:#}", collection.name, search["q"]))
                }
            });
            let compared: Vec<_> = stream::iter(searches).buffered(CONCURRENCY).collect().await;
            asked += compared.len();
            complaints.extend(compared.into_iter().filter_map(Result::err));
        }
    }
    let stage = STAGES[stage];
    eprintln!("{stage}: {asked} searches in {:?}", began.elapsed());
    assert!(
        complaints.is_empty(),
        "{stage}: {} of {asked} searches have another answer than OpenSearch:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

/// The numbers of the documents by their ids. Of equal documents, all have the first number.
async fn numbers(service: &Client, collection: &Collection) -> BTreeMap<String, usize> {
    let mut by_text: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, document) in &collection.documents {
        by_text.entry(document).or_insert(*number);
    }
    let sql = format!("select _id, _doc from {} limit 100000", collection.name);
    let rows = service.query(&sql, json!({})).await.expect("documents").rows;
    assert_eq!(rows.len(), collection.documents.len(), "{}", collection.name);
    let number = |row: Vec<Value>| {
        let (id, document) = (row[0].as_str().expect("an id"), row[1].as_str().expect("a document"));
        (id.to_owned(), by_text[document])
    };
    rows.into_iter().map(number).collect()
}

/// Asks a search and compares all that OpenSearch said about it.
async fn ask(
    service: &Client,
    collection: &Collection,
    search: &Value,
    numbers: &BTreeMap<String, usize>,
    scan: &str,
    scores: bool,
) -> Result<()> {
    let answer = &search["answer"];
    let sql = format!("select _id from {} where search($1) limit 100000", collection.name);
    let rows = service
        .query(&sql, json!({ "parameters": [search["q"]], "scan": scan }))
        .await?
        .rows;
    let number = |id: &Value| {
        numbers
            .get(id.as_str().unwrap_or_default())
            .copied()
            .context("an unknown id")
    };
    let found = rows
        .iter()
        .map(|row| number(&row[0]))
        .collect::<Result<BTreeSet<usize>>>()?;
    ensure!(
        answer["total"] == rows.len(),
        "{} hits by SQL, expected {}",
        rows.len(),
        answer["total"]
    );
    match answer["hash"].as_str() {
        None => ensure!(
            json!(found) == answer["numbers"],
            "found {found:?}, expected {}",
            answer["numbers"]
        ),
        Some(expected) => ensure!(hash(&found) == expected, "{} other documents were found", found.len()),
    }

    let mut body = json!({ "q": search["q"], "limit": 20, "scan": scan });
    let scores = scores && search["score"] == true;
    if scores {
        body["sort"] = "_score".into();
    }
    let (facet, ranges) = (&search["facets"][0], &search["ranges"][0]);
    if let (Some(path), Some(size)) = (facet[0].as_str(), facet[1].as_u64()) {
        body["facets"] = format!("{path}:{size}").into();
    }
    if let (Some(path), Some(bounds)) = (ranges[0].as_str(), ranges[1].as_array()) {
        let bounds: Vec<String> = bounds.iter().map(Value::to_string).collect();
        body["facets"] = format!("{path}({})", bounds.join(",")).into();
    }
    if let (Some(interval), Some(time)) = (search["histogram"].as_str(), &collection.event_time) {
        body["histogram"] = format!("{time}:{interval}").into();
    }
    if search["highlight"] == true && scores {
        body["highlight"] = true.into();
    }
    let path = format!("/v1/collections/{}/search", collection.name);
    let page = service.json(Method::POST, &path, body).await?;
    ensure!(
        page["total"] == answer["total"],
        "{} hits, expected {}",
        page["total"],
        answer["total"]
    );
    if scores {
        compare_scores(&page, &answer["best"], number)?;
    }
    if facet.is_array() {
        let path = facet[0].as_str().unwrap_or_default();
        compare_facet(&page["facets"][path], &page["others"][path], &answer["facet"]).context("facet")?;
    }
    if ranges.is_array() {
        let found = &page["facets"][ranges[0].as_str().unwrap_or_default()];
        let counts: Value = found
            .as_array()
            .into_iter()
            .flatten()
            .map(|range| range["count"].clone())
            .collect();
        ensure!(
            counts == answer["ranges"],
            "ranges {counts}, expected {}",
            answer["ranges"]
        );
    }
    if let Some(expected) = answer["histogram"].as_array() {
        let time = |ms: &Value| DateTime::from_timestamp_millis(ms.as_i64()?).map(|time| time.to_rfc3339());
        let bucket = |bucket: &Value| (time(&bucket[0]), bucket[1].as_u64());
        let found = |bucket: &Value| {
            let time = bucket["time"]
                .as_str()
                .and_then(|text| DateTime::parse_from_rfc3339(text).ok());
            (time.map(|time| time.to_utc().to_rfc3339()), bucket["count"].as_u64())
        };
        let found: Vec<_> = page["histogram"].as_array().into_iter().flatten().map(found).collect();
        let expected: Vec<_> = expected.iter().map(bucket).collect();
        ensure!(found == expected, "histogram {found:?}, expected {expected:?}");
    }
    match answer["highlight"].as_object() {
        Some(expected) if search["highlight"] == true && scores => compare_marks(&page, expected, number),
        _ => Ok(()),
    }
}

/// The hash (FNV-1a) that `record.py` keeps of many documents.
fn hash(numbers: &BTreeSet<usize>) -> String {
    let text: Vec<String> = numbers.iter().map(usize::to_string).collect();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.join(",").bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

fn is_close(one: f64, other: f64) -> bool {
    (one - other).abs() <= SCORE_DIFFERENCE_MAX * one.abs().max(1.0)
}

/// Compares the best hits: each rank has the score that it should have, and documents with different scores do not
/// change places.
fn compare_scores(page: &Value, expected: &Value, number: impl Fn(&Value) -> Result<usize>) -> Result<()> {
    let hits = page["hits"].as_array().context("no hits")?;
    let best: Vec<(usize, f64)> = serde_json::from_value(expected.clone())?;
    ensure!(
        hits.len() == best.len(),
        "{} hits by score, expected {}",
        hits.len(),
        best.len()
    );
    let last = best.last().map_or(0.0, |(_, score)| *score);
    for (rank, (hit, (_, expected))) in hits.iter().zip(&best).enumerate() {
        let score = hit["score"].as_f64().context("no score")?;
        ensure!(
            is_close(score, *expected),
            "hit {rank} has score {score}, expected {expected}"
        );
        let number = number(&hit["id"])?;
        let is_known = best
            .iter()
            .any(|(other, of_other)| *other == number && is_close(*of_other, score));
        ensure!(
            is_known || is_close(score, last),
            "hit {rank} should not be document {number}"
        );
    }
    Ok(())
}

/// Compares the most frequent values of a facet. Of values that occur equally often, any may be the last.
fn compare_facet(found: &Value, others: &Value, expected: &Value) -> Result<()> {
    let comparable = |value: &Value| {
        value
            .as_f64()
            .map_or_else(|| value.to_string(), |number| number.to_string())
    };
    let pairs = |values: &Value, value: &dyn Fn(&Value) -> (Value, Value)| -> Vec<(String, u64)> {
        let pairs = values.as_array().into_iter().flatten().map(value);
        pairs
            .map(|(value, count)| (comparable(&value), count.as_u64().unwrap_or_default()))
            .collect()
    };
    let found = pairs(found, &|bucket| (bucket["value"].clone(), bucket["count"].clone()));
    let expected_values = pairs(&expected["values"], &|pair| (pair[0].clone(), pair[1].clone()));
    let counts = |pairs: &[(String, u64)]| -> Vec<u64> { pairs.iter().map(|pair| pair.1).collect() };
    ensure!(
        counts(&found) == counts(&expected_values) && *others == expected["others"],
        "{found:?} and {others} others, expected {expected}"
    );
    let last = expected_values.last().map_or(0, |pair| pair.1);
    let unexpected = found
        .iter()
        .find(|pair| pair.1 > last && !expected_values.contains(pair));
    ensure!(unexpected.is_none(), "{unexpected:?}, expected {expected}");
    Ok(())
}

/// Compares the marked words of the hits that OpenSearch has on its page, too.
fn compare_marks(
    page: &Value,
    expected: &serde_json::Map<String, Value>,
    number: impl Fn(&Value) -> Result<usize>,
) -> Result<()> {
    for hit in page["hits"].as_array().into_iter().flatten() {
        let Some(paths) = expected
            .get(&number(&hit["id"])?.to_string())
            .and_then(Value::as_object)
        else {
            continue;
        };
        if hit["highlight"]
            .as_object()
            .is_some_and(|paths| paths.len() >= MARKED_PATHS_MAX)
        {
            continue;
        }
        // Of longer texts, the marks were not kept.
        let is_short = |texts: &Value| {
            let texts = texts.as_array().into_iter().flatten().filter_map(Value::as_str);
            texts.map(|text| text.chars().count()).sum::<usize>() <= MARKED_CHARS_MAX
        };
        let marked = hit["highlight"].as_object().into_iter().flatten();
        let others: Vec<&String> = marked
            .filter(|(path, texts)| !paths.contains_key(*path) && is_short(texts))
            .map(|(path, _)| path)
            .collect();
        ensure!(others.is_empty(), "{}: {others:?} are marked, too", hit["id"]);
        for (path, words) in paths {
            let texts = hit["highlight"][path]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let marked =
                texts.flat_map(|text| text.split("<em>").skip(1).filter_map(|rest| rest.split("</em>").next()));
            let marked: BTreeSet<String> = marked.map(str::to_lowercase).collect();
            ensure!(
                json!(marked) == *words,
                "{path} of {}: {marked:?}, expected {words}",
                hit["id"]
            );
        }
    }
    Ok(())
}
