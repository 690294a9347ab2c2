//! Right answers: what SQL and search say of real events equals what an independent oracle says, and is the same
//! however it is computed: from the fresh tail, from splits, after merges of merges and after a restart, by index and
//! columns or from raw documents alone.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::{
    Answer, Client, Cluster, Kafka, Server, Settings,
    cluster::Size,
    data,
    kafka::Produce,
    oracle::{self, Oracle, SETS, Search, Statement},
};

/// Questions that are asked at the same time.
const AT_ONCE: usize = 3;

/// Every feature that the statements must show.
const FEATURES: [&str; 24] = [
    "filter",
    "boolean",
    "not",
    "is null",
    "is not null",
    "range",
    "in",
    "like",
    "regular expression",
    "group by",
    "having",
    "order by",
    "limit",
    "offset",
    "distinct",
    "self join",
    "left join",
    "common table expression",
    "sub-query in",
    "exists",
    "window",
    "top-k",
    "search in sql",
    "array index",
];

#[tokio::test]
async fn answers_equal_the_oracles_however_they_are_computed() {
    if data::folder().is_none() {
        return;
    }
    let (statements, searches) = (
        oracle::statements().expect("statements"),
        oracle::searches().expect("searches"),
    );
    the_questions_are_many_and_different(&statements, &searches);
    let documents: BTreeMap<&str, Vec<String>> = SETS
        .iter()
        .map(|(set, file)| (*set, data::documents(file).expect("documents")))
        .collect();
    let asked = (statements.clone(), searches.clone());
    let oracle = tokio::task::spawn_blocking(move || oracle::ask(&asked.0, &asked.1));

    let kafka = Kafka::start().await;
    let mut server = Server::start(Settings::default().no_splits()).await;
    for (set, documents) in &documents {
        kafka.create_topic(set, 2, &[]).await;
        let value = |(i, document): (usize, &String)| Produce {
            partition: Some((i % 2) as i32),
            ..Produce::value(document.as_str())
        };
        kafka
            .produce(set, documents.iter().enumerate().map(value).collect())
            .await;
    }
    read_the_sets(&server, &kafka, &documents).await;
    let oracle = oracle
        .await
        .expect("the oracle does not panic")
        .expect("the oracle answers");
    with_rows(&statements, &oracle);
    let asked = Asked {
        statements: &statements,
        searches: &searches,
        oracle: &oracle,
        documents: &documents,
    };

    let tail = asked.compare(&server, "fresh tail").await;
    assert_eq!(splits_on_disk(&server).await, 0, "nothing is in a split yet");
    assert!(
        tail.columns > 0 && tail.index > 0,
        "micro-splits were really used: {tail:?}"
    );

    server.stop();

    let mut server = Server::start(Settings::default().small_splits()).await;
    read_in_slices(&server, &kafka, &documents).await;
    tests::eventually("merges of merges in every collection", || async {
        let merged = server
            .ask(
                "select collection, max(generation) as g from rachis.splits where place = 'disk' group by collection",
                json!({}),
            )
            .await?;
        ensure!(
            merged.rows.len() == SETS.len() && merged.rows.iter().all(|row| row[1].as_u64() >= Some(2)),
            "{:?}",
            merged.rows
        );
        Ok(())
    })
    .await;
    let merged = asked.compare(&server, "after merging").await;
    assert!(
        merged.columns > 0 && merged.index > 0,
        "splits were really used: {merged:?}"
    );

    server.kill();
    server.start_again().await;
    asked.compare(&server, "after a restart").await;
    aggregates_leave_the_leaf_as_partial_aggregates(&server).await;
    drop(server);

    let cluster = Cluster::start_on(kafka, Size::default(), Settings::default().small_splits()).await;
    read_the_sets(&cluster, &cluster.kafka, &documents).await;
    asked
        .compare(&cluster, "three leaves, two tailers, two aggregators")
        .await;
    aggregates_leave_the_leaf_as_partial_aggregates(&cluster).await;
    println!(
        "{} statements and {} searches: the same in one process and in seven",
        statements.len(),
        searches.len()
    );
}

/// Has a server read every set from Kafka, and waits until all is there.
async fn read_the_sets(server: &Client, kafka: &Kafka, documents: &BTreeMap<&str, Vec<String>>) {
    for set in documents.keys() {
        server
            .source(&format!("{set}-source"), set, set, &kafka.bootstrap(), json!({}))
            .await
            .expect("a source");
    }
    for (set, documents) in documents {
        server
            .eventually(&format!("select count(*) from {set}"), json!(documents.len()))
            .await;
    }
}

/// As above, but slice by slice, each in splits on disk before the next, so that there are enough of them for merges of
/// merges.
async fn read_in_slices(server: &Client, kafka: &Kafka, documents: &BTreeMap<&str, Vec<String>>) {
    const SLICES: usize = 10;
    let topic = |set: &str| format!("{set}-again");
    for set in documents.keys() {
        kafka.create_topic(&topic(set), 2, &[]).await;
        server
            .source(
                &format!("{set}-source"),
                set,
                &topic(set),
                &kafka.bootstrap(),
                json!({}),
            )
            .await
            .expect("a source");
    }
    for slice in 0..SLICES {
        let mut there = 0;
        for (set, documents) in documents {
            let (from, to) = (documents.len() * slice / SLICES, documents.len() * (slice + 1) / SLICES);
            let value = |i: usize| Produce {
                partition: Some((i % 2) as i32),
                ..Produce::value(documents[i].as_str())
            };
            kafka.produce(&topic(set), (from..to).map(value).collect()).await;
            there += to;
        }
        server
            .eventually(
                "select sum(documents)::bigint from rachis.splits where place = 'disk'",
                json!(there),
            )
            .await;
    }
}

fn the_questions_are_many_and_different(statements: &[Statement], searches: &[Search]) {
    let shapes: std::collections::BTreeSet<String> = statements.iter().map(Statement::shape).collect();
    assert!(shapes.len() >= 100, "{} different statements", shapes.len());
    assert!(searches.len() >= 50, "{} searches", searches.len());
    for feature in FEATURES {
        let shown = statements
            .iter()
            .filter(|s| s.features.iter().any(|f| f.starts_with(feature)))
            .count();
        assert!(shown > 0, "no statement shows {feature}");
        eprintln!("{feature}: {shown} statements");
    }
}

fn with_rows(statements: &[Statement], oracle: &Oracle) {
    let nothing = |rows: &Vec<Vec<Value>>| rows.iter().flatten().all(|value| value.is_null() || value == 0);
    let empty = oracle.statements.iter().filter(|rows| nothing(rows)).count();
    assert!(
        empty * 10 <= statements.len(),
        "{empty} of {} statements find nothing",
        statements.len()
    );
}

async fn splits_on_disk(server: &Client) -> u64 {
    server
        .sql("select count(*) from rachis.splits where place = 'disk'")
        .await
        .one()
        .as_u64()
        .expect("a count")
}

async fn aggregates_leave_the_leaf_as_partial_aggregates(server: &Client) {
    let answer = server
        .sql("select type, count(*), sum(actor.id) from github group by type")
        .await;
    let shipped = answer.stats["rows_shipped"].as_u64().expect("a count");
    let groups = answer.rows.len() as u64;
    assert!(
        shipped >= groups && shipped <= groups * 4,
        "{shipped} rows crossed for {groups} groups in at most 4 scans"
    );
    let count = server
        .sql("select count(*) from wiki where channel = '#en.wikipedia'")
        .await;
    assert!(
        count.stats["rows_shipped"].as_u64() <= Some(4),
        "one row a scan: {}",
        count.stats
    );
}

/// What the index and the columns were used for.
#[derive(Debug, Default)]
struct Used {
    index: u64,
    columns: u64,
}

struct Asked<'a> {
    statements: &'a [Statement],
    searches: &'a [Search],
    oracle: &'a Oracle,
    documents: &'a BTreeMap<&'a str, Vec<String>>,
}

impl Asked<'_> {
    /// Asks everything, by index and columns and from raw documents, and compares with the oracle.
    async fn compare(&self, server: &Client, stage: &str) -> Used {
        let begun = std::time::Instant::now();
        let mut used = Used::default();
        let mut complaints = Vec::new();
        for scan in ["auto", "raw"] {
            let statements = self.statements.iter().zip(&self.oracle.statements);
            let asked = statements.map(|(statement, expected)| async move {
                (statement, ask_and_compare(server, statement, expected, scan).await)
            });
            for (statement, answer) in stream::iter(asked).buffered(AT_ONCE).collect::<Vec<_>>().await {
                match answer {
                    Ok(answer) if scan == "auto" => {
                        used.index += answer.stats["read"]["index"].as_u64().unwrap_or_default();
                        used.columns += answer.stats["read"]["columns"].as_u64().unwrap_or_default();
                    }
                    Ok(answer) => {
                        let read = &answer.stats["read"];
                        if read["index"] != 0 || read["columns"] != 0 {
                            complaints.push(format!("{scan}: {}\n    read {read}", statement.sql));
                        }
                    }
                    Err(complaint) => complaints.push(format!("{scan}: {}\n    {complaint:#}", statement.sql)),
                }
            }
            let searches = self.searches.iter().zip(&self.oracle.searches);
            let asked = searches.map(|(search, lines)| async move {
                (search, self.search_and_compare(server, search, lines, scan).await)
            });
            for (search, compared) in stream::iter(asked).buffered(AT_ONCE).collect::<Vec<_>>().await {
                if let Err(complaint) = compared {
                    complaints.push(format!(
                        "{scan}: search {} in {}\n    {complaint:#}",
                        search.query, search.set
                    ));
                }
            }
        }
        eprintln!(
            "{stage}: {} statements and {} searches, each by index and raw, in {:?}",
            self.statements.len(),
            self.searches.len(),
            begun.elapsed()
        );
        assert!(
            complaints.is_empty(),
            "{stage}: {} answers differ\n{}",
            complaints.len(),
            complaints.join("\n")
        );
        used
    }

    async fn search_and_compare(&self, server: &Client, search: &Search, lines: &[usize], scan: &str) -> Result<()> {
        const PAGE: usize = 1000;
        let mut found: Vec<String> = Vec::new();
        let mut after = Value::Null;
        loop {
            let body = json!({ "q": search.query, "limit": PAGE, "after": after, "scan": scan });
            let page = server
                .json(
                    reqwest::Method::POST,
                    &format!("/v1/collections/{}/search", search.set),
                    body,
                )
                .await?;
            ensure!(
                page["total"] == lines.len(),
                "{} documents match, expected {}",
                page["total"],
                lines.len()
            );
            let hits = page["hits"].as_array().context("no hits")?;
            found.extend(hits.iter().map(|hit| hit["document"].to_string()));
            after = page["after"].clone();
            if after.is_null() || hits.is_empty() {
                break;
            }
        }
        let mut expected: Vec<String> = lines
            .iter()
            .map(|line| reread(&self.documents[search.set.as_str()][*line]))
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        ensure!(
            found == expected,
            "the pages hold {} documents, expected {}, and not the same ones",
            found.len(),
            expected.len()
        );
        Ok(())
    }
}

fn reread(document: &str) -> String {
    serde_json::from_str::<Value>(document)
        .expect("real events are JSON")
        .to_string()
}

async fn ask_and_compare(
    server: &Client,
    statement: &Statement,
    expected: &[Vec<Value>],
    scan: &str,
) -> Result<Answer> {
    let answer = server.ask(&statement.sql, json!({ "scan": scan })).await?;
    let mut found: Vec<Vec<String>> = answer
        .rows
        .iter()
        .map(|row| row.iter().map(comparable).collect())
        .collect();
    let mut expected: Vec<Vec<String>> = expected
        .iter()
        .map(|row| row.iter().map(comparable).collect())
        .collect();
    if !statement.ordered() {
        found.sort_unstable();
        expected.sort_unstable();
    }
    ensure!(
        found.len() == expected.len(),
        "{} rows, expected {}; the first is {:?}, expected {:?}",
        found.len(),
        expected.len(),
        found.first(),
        expected.first()
    );
    for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
        ensure!(found == expected, "row {row} is {found:?}, expected {expected:?}");
    }
    Ok(answer)
}

/// A value as text: numbers to twelve digits (sums of doubles depend on their order), times without a fraction of
/// zeros.
fn comparable(value: &Value) -> String {
    if let Some(number) = value.as_f64() {
        return if value.is_i64() || number == number.trunc() && number.abs() < 1e15 {
            format!("{number:.0}")
        } else {
            format!("{number:.11e}")
        };
    }
    match value.as_str() {
        Some(text) => text.trim_end_matches('Z').trim_end_matches(".000").to_owned(),
        None => value.to_string(),
    }
}
