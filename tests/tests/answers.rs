//! Correct answers: SQL and search over real events return what an independent oracle returns, however the answer is
//! computed: from the fresh tail, from splits, after merges of merges, after a restart and by a cluster, and by index and
//! columns or from raw documents alone.
//!
//! Everything is asked by index and columns in every stage. From raw documents alone, each question is asked in one of
//! the four stages; `RACHIS_RAW=all` asks it so in each.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::{
    Answer, Client, Cluster, Kafka, Server, Settings,
    cluster::ClusterSize,
    data, eventually,
    kafka::NewRecord,
    oracle::{self, OracleAnswers, OracleMatches, OracleSearch, OracleStatement, SETS, SummaryQuestions},
    stages::{STAGES, is_asked},
};

/// The matches that a search reads for its fields, at most.
const DOCUMENTS_READ_MAX: usize = 2_000;

/// Statements or searches in flight at the same time.
const CONCURRENCY: usize = 3;

/// Every feature that the statements must cover.
const FEATURES: [&str; 38] = [
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
    "subquery in",
    "exists",
    "window",
    "top-k",
    "search in sql",
    "array index",
    "unnest with ordinality",
    "left join unnest",
    "unnest in step",
    "generate_series",
    "gap filling",
    "mode",
    "approx_top_k",
    "histogram",
    "asof join",
    "asof join of numbers",
    "correlated scalar",
    "exists in two levels",
    "at time zone",
    "tablesample",
];

#[tokio::test]
async fn answers_equal_the_oracle_however_they_are_computed() {
    if data::folder().is_none() {
        return;
    }
    let (statements, searches) = (
        oracle::statements().expect("statements"),
        oracle::searches().expect("searches"),
    );
    assert_coverage(&statements, &searches);
    let documents: BTreeMap<&str, Vec<String>> = SETS
        .iter()
        .map(|(set, file)| (*set, data::documents(file).expect("documents")))
        .collect();
    let oracle = {
        let (statements, searches) = (statements.clone(), searches.clone());
        tokio::task::spawn_blocking(move || oracle::compute(&statements, &searches))
    };

    let kafka = Kafka::start().await;
    let mut server = Server::start(Settings::default().no_splits()).await;
    produce_sets(&kafka, &documents).await;
    ingest_sets(&server, &kafka, &documents).await;
    let oracle = oracle
        .await
        .expect("the oracle does not panic")
        .expect("the oracle answers");
    assert_most_find_rows(&statements, &oracle);
    let summaries = oracle::summaries().expect("questions");
    let comparison = Comparison {
        summaries: &summaries,
        statements: &statements,
        searches: &searches,
        oracle: &oracle,
        documents: &documents,
    };

    let tail = comparison.run(&server, 0).await;
    assert_eq!(splits_on_disk(&server).await, 0, "no document is in a split yet");
    assert!(tail.columns > 0 && tail.index > 0, "micro-splits were used: {tail:?}");

    server.stop();

    let mut server = Server::start(Settings::default().small_splits()).await;
    ingest_in_slices(&server, &kafka, &documents).await;
    eventually_merged_twice(&server).await;
    let merged = comparison.run(&server, 1).await;
    assert!(merged.columns > 0 && merged.index > 0, "splits were used: {merged:?}");
    assert!(merged.index_us > 0, "their time is counted: {merged:?}");

    server.kill();
    server.restart().await;
    comparison.run(&server, 2).await;
    assert_aggregates_are_pushed_down(&server).await;
    drop(server);

    // Both aggregators compute what can be computed by several.
    let settings = Settings::default().small_splits().distributed();
    let cluster = Cluster::start_on(kafka, ClusterSize::default(), settings).await;
    ingest_sets(&cluster, &cluster.kafka, &documents).await;
    // Any replica answers, and one may get a record later than another.
    cluster.wait_until_replicas_are_equal(2).await;
    let both = comparison.run(&cluster, 3).await;
    assert!(
        both.distributed > 20,
        "several aggregators have computed some: {both:?}"
    );
    assert_aggregates_are_pushed_down(&cluster).await;
    println!(
        "{} statements and {} searches: same answers from one process and from seven",
        statements.len(),
        searches.len()
    );
}

/// Produces each set to a topic of its name with two partitions.
async fn produce_sets(kafka: &Kafka, documents: &BTreeMap<&str, Vec<String>>) {
    for (set, documents) in documents {
        kafka.create_topic(set, 2, &[]).await;
        let value = |(i, document): (usize, &String)| NewRecord {
            partition: Some((i % 2) as i32),
            ..NewRecord::value(document.as_str())
        };
        kafka
            .produce(set, documents.iter().enumerate().map(value).collect())
            .await;
    }
}

/// Creates a source for each set and waits until all documents are ingested.
async fn ingest_sets(server: &Client, kafka: &Kafka, documents: &BTreeMap<&str, Vec<String>>) {
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

/// Ingests each set in slices from a new topic. Each slice is in splits on disk before the next is produced, so that
/// there are enough splits for merges of merges.
async fn ingest_in_slices(server: &Client, kafka: &Kafka, documents: &BTreeMap<&str, Vec<String>>) {
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
        let mut stored = 0;
        for (set, documents) in documents {
            let (from, to) = (documents.len() * slice / SLICES, documents.len() * (slice + 1) / SLICES);
            let value = |i: usize| NewRecord {
                partition: Some((i % 2) as i32),
                ..NewRecord::value(documents[i].as_str())
            };
            kafka.produce(&topic(set), (from..to).map(value).collect()).await;
            stored += to;
        }
        server
            .eventually(
                "select sum(documents)::bigint from rachis.splits where place = 'disk'",
                json!(stored),
            )
            .await;
    }
}

async fn eventually_merged_twice(server: &Client) {
    let sql = "select collection, max(generation) as g from rachis.splits where place = 'disk' group by collection";
    eventually("merges of merges in every collection", || async {
        let merged = server.query(sql, json!({})).await?;
        ensure!(
            merged.rows.len() == SETS.len() && merged.rows.iter().all(|row| row[1].as_u64() >= Some(2)),
            "{:?}",
            merged.rows
        );
        Ok(())
    })
    .await;
}

/// Asserts that there are enough different statements and searches, and that they cover every feature.
fn assert_coverage(statements: &[OracleStatement], searches: &[OracleSearch]) {
    let shapes: BTreeSet<String> = statements.iter().map(OracleStatement::shape).collect();
    assert!(shapes.len() >= 100, "{} different statements", shapes.len());
    assert!(searches.len() >= 50, "{} searches", searches.len());
    for feature in FEATURES {
        let covering = statements
            .iter()
            .filter(|s| s.features.iter().any(|f| f.starts_with(feature)))
            .count();
        assert!(covering > 0, "no statement covers {feature}");
        eprintln!("{feature}: {covering} statements");
    }
}

/// Asserts that at most a tenth of the statements find nothing.
fn assert_most_find_rows(statements: &[OracleStatement], oracle: &OracleAnswers) {
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
        .single_value()
        .as_u64()
        .expect("a count")
}

/// Asserts that leaves ship partial aggregates and not the rows below them.
async fn assert_aggregates_are_pushed_down(server: &Client) {
    // Two shards with two scans each; and splits are aggregated one by one when a question is asked again. Of two replicas,
    // one has merged more of its splits than the other.
    let states_max = 4 + 2 * splits_on_disk(server).await;
    let answer = server
        .sql("select type, count(*), sum(actor.id) from github group by type")
        .await;
    let shipped = answer.stats["rows_shipped"].as_u64().expect("a count");
    let groups = answer.rows.len() as u64;
    assert!(
        shipped >= groups && shipped <= groups * states_max,
        "{shipped} rows shipped for {groups} groups from at most {states_max} scans"
    );
    let count = server
        .sql("select count(*) from wiki where channel = '#en.wikipedia'")
        .await;
    assert!(
        count.stats["rows_shipped"].as_u64() <= Some(states_max),
        "one row per scan, at most {states_max}: {}",
        count.stats
    );
}

/// How often queries read the index and the columns.
#[derive(Debug, Default)]
struct ReadCounts {
    index: u64,
    columns: u64,
    index_us: u64,
    /// Answers that several aggregators have computed.
    distributed: u64,
}

/// Everything that is asked, with the oracle's answers.
struct Comparison<'a> {
    summaries: &'a BTreeMap<String, SummaryQuestions>,
    statements: &'a [OracleStatement],
    searches: &'a [OracleSearch],
    oracle: &'a OracleAnswers,
    documents: &'a BTreeMap<&'a str, Vec<String>>,
}

impl Comparison<'_> {
    /// Asks everything by index and columns, and what this stage has to ask from raw documents, and compares the answers
    /// with the oracle's.
    async fn run(&self, server: &Client, stage: usize) -> ReadCounts {
        let begun = std::time::Instant::now();
        let mut reads = ReadCounts::default();
        let mut complaints = Vec::new();
        for scan in ["auto", "raw"] {
            complaints.extend(self.compare_statements(server, stage, scan, &mut reads).await);
            complaints.extend(self.compare_searches(server, stage, scan).await);
        }
        let stage = STAGES[stage];
        eprintln!(
            "{stage}: {} statements and {} searches in {:?}",
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
        reads
    }

    /// Asks the statements of a stage; returns the complaints. A raw scan must not read the index or columns.
    async fn compare_statements(
        &self,
        server: &Client,
        stage: usize,
        scan: &str,
        reads: &mut ReadCounts,
    ) -> Vec<String> {
        let statements = self.statements.iter().zip(&self.oracle.statements).enumerate();
        let statements = statements.filter(|(number, _)| is_asked(*number, stage, scan));
        let pending = statements.map(|(_, (statement, expected))| async move {
            (statement, query_and_compare(server, statement, expected, scan).await)
        });
        let mut complaints = Vec::new();
        for (statement, answer) in stream::iter(pending).buffered(CONCURRENCY).collect::<Vec<_>>().await {
            match answer {
                Ok(answer) if scan == "auto" => {
                    reads.index += answer.stats["read"]["index"].as_u64().unwrap_or_default();
                    reads.columns += answer.stats["read"]["columns"].as_u64().unwrap_or_default();
                    reads.index_us += answer.stats["index_us"].as_u64().unwrap_or_default();
                    reads.distributed += u64::from(answer.stats["aggregators"].as_u64() > Some(1));
                }
                Ok(answer) => {
                    let read = &answer.stats["read"];
                    if read["index"] != 0 || read["columns"] != 0 || answer.stats["index_us"] != 0 {
                        complaints.push(format!("{scan}: {}\n    read {read}", statement.sql));
                    }
                }
                Err(complaint) => complaints.push(format!("{scan}: {}\n    {complaint:#}", statement.sql)),
            }
        }
        complaints
    }

    /// Runs the searches of a stage; returns the complaints.
    async fn compare_searches(&self, server: &Client, stage: usize, scan: &str) -> Vec<String> {
        let searches = self.searches.iter().zip(&self.oracle.searches).enumerate();
        let searches = searches.filter(|(number, _)| is_asked(*number, stage, scan));
        let share = if scan == "raw" { STAGES.len() } else { 2 };
        let pending = searches.map(|(number, (search, expected))| async move {
            let hits = self.search_and_compare(server, search, &expected.lines, scan).await;
            let compared = match hits {
                // Of the four stages, each search is summarized in two by index and columns, in one from raw documents.
                Ok(()) if number % share == stage % share => {
                    self.summarize_and_compare(server, search, expected, scan).await
                }
                Ok(()) => Ok(()),
                Err(complaint) => Err(complaint),
            };
            (search, compared)
        });
        let mut complaints = Vec::new();
        for (search, compared) in stream::iter(pending).buffered(CONCURRENCY).collect::<Vec<_>>().await {
            if let Err(complaint) = compared {
                complaints.push(format!(
                    "{scan}: search {} in {}\n    {complaint:#}",
                    search.query, search.set
                ));
            }
        }
        complaints
    }

    /// Compares what is said about all matches of a search.
    async fn summarize_and_compare(
        &self,
        server: &Client,
        search: &OracleSearch,
        expected: &OracleMatches,
        scan: &str,
    ) -> Result<()> {
        let wanted = &self.summaries[&search.set];
        let in_ranges = |(path, bounds): (&String, &Vec<i64>)| {
            let bounds: Vec<String> = bounds.iter().map(i64::to_string).collect();
            format!("{path}({})", bounds.join(","))
        };
        let facets: Vec<String> = wanted
            .facets
            .iter()
            .cloned()
            .chain(wanted.ranges.iter().map(in_ranges))
            .collect();
        let (time, interval) = &wanted.histogram;
        let body = json!({
            "q": search.query,
            "limit": 0,
            "scan": scan,
            "facets": facets,
            "histogram": format!("{time}:{interval}"),
            "fields": DOCUMENTS_READ_MAX,
        });
        let answer = ask(server, search, body).await?;
        for (path, values) in &expected.facets {
            compare_facet(&answer["facets"][path], &answer["others"][path], values).with_context(|| path.clone())?;
        }
        for (path, counts) in &expected.ranges {
            let found = answer["facets"][path].as_array().context("no ranges")?;
            let found: Vec<Option<u64>> = found.iter().map(|range| range["count"].as_u64()).collect();
            let counts: Vec<Option<u64>> = counts.iter().copied().map(Some).collect();
            ensure!(found == counts, "{path}: {found:?}, expected {counts:?}");
        }
        let bucket = |(time, count): &(String, u64)| json!({ "time": time, "count": count });
        let histogram: Value = expected.histogram.iter().map(bucket).collect();
        ensure!(
            answer["histogram"] == histogram,
            "{}, expected {histogram}",
            answer["histogram"]
        );
        // Of more matches, only the newest are read.
        if expected.lines.len() <= DOCUMENTS_READ_MAX {
            compare_fields(&answer["fields"], &expected.fields)?;
        }
        self.compare_scores(server, search, expected, scan).await
    }

    /// Compares the best hits and their scores.
    async fn compare_scores(
        &self,
        server: &Client,
        search: &OracleSearch,
        expected: &OracleMatches,
        scan: &str,
    ) -> Result<()> {
        const BEST: usize = 50;
        // Python counts a few vowel signs as spaces, which makes the mean text a little longer.
        const DIFFERENCE_MAX: f64 = 5e-4;
        let body = json!({ "q": search.query, "limit": BEST, "sort": "_score", "scan": scan });
        let answer = ask(server, search, body).await?;
        let documents = &self.documents[search.set.as_str()];
        let lines = expected.lines.iter().map(|line| normalized(&documents[*line]));
        let mut best: Vec<(f64, String)> = expected.scores.iter().copied().zip(lines).collect();
        best.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let hits = answer["hits"].as_array().context("no hits")?;
        ensure!(hits.len() == best.len().min(BEST), "{} hits by score", hits.len());
        let is_close = |one: f64, other: f64| (one - other).abs() <= DIFFERENCE_MAX * one.abs().max(1.0);
        for (rank, (hit, (expected, _))) in hits.iter().zip(&best).enumerate() {
            let score = hit["score"].as_f64().context("no score")?;
            ensure!(
                is_close(score, *expected),
                "hit {rank} has score {score}, expected {expected}"
            );
            let document = hit["document"].to_string();
            ensure!(
                best.iter()
                    .any(|(score, other)| is_close(*score, *expected) && *other == document),
                "hit {rank} has another score: {document}"
            );
        }
        Ok(())
    }

    async fn search_and_compare(
        &self,
        server: &Client,
        search: &OracleSearch,
        lines: &[usize],
        scan: &str,
    ) -> Result<()> {
        const PAGE: usize = 1000;
        let mut found: Vec<String> = Vec::new();
        let mut after = Value::Null;
        loop {
            let body = json!({ "q": search.query, "limit": PAGE, "after": after, "scan": scan });
            let page = ask(server, search, body).await?;
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
            .map(|line| normalized(&self.documents[search.set.as_str()][*line]))
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        ensure!(
            found == expected,
            "the pages have {} documents, expected {}, and they differ",
            found.len(),
            expected.len()
        );
        Ok(())
    }
}

/// The answer to a search.
async fn ask(server: &Client, search: &OracleSearch, body: Value) -> Result<Value> {
    let path = format!("/v1/collections/{}/search", search.set);
    server.json(reqwest::Method::POST, &path, body).await
}

/// Compares the paths of the matches, each with the number of matches that have it. Quotes around keys do not matter.
fn compare_fields(found: &Value, expected: &[(Vec<String>, u64)]) -> Result<()> {
    let expected: BTreeSet<(String, u64)> = expected.iter().map(|(keys, count)| (keys.join("."), *count)).collect();
    let field = |field: &Value| Some((field["path"].as_str()?.replace('"', ""), field["documents"].as_u64()?));
    let fields = found.as_array().into_iter().flatten();
    let found: BTreeSet<(String, u64)> = fields.filter_map(field).filter(|(_, count)| *count > 0).collect();
    let differing: Vec<_> = found.symmetric_difference(&expected).collect();
    ensure!(differing.is_empty(), "fields differ: {differing:?}");
    Ok(())
}

/// Compares the most frequent values of a facet. Values that occur equally often may come in any order.
fn compare_facet(found: &Value, others: &Value, expected: &[(Value, u64)]) -> Result<()> {
    let counts = |path: &str| -> Vec<u64> {
        found
            .as_array()
            .into_iter()
            .flatten()
            .map(|v| v[path].as_u64().unwrap_or(0))
            .collect()
    };
    let (top, rest) = expected.split_at(expected.len().min(10));
    let top_counts: Vec<u64> = top.iter().map(|(_, count)| *count).collect();
    ensure!(counts("count") == top_counts, "{found}, expected {top:?}");
    for bucket in found.as_array().into_iter().flatten() {
        let value = comparable(&bucket["value"]);
        let same = expected
            .iter()
            .find(|(other, _)| other.is_string() == bucket["value"].is_string() && comparable(other) == value);
        ensure!(
            same.is_some_and(|(_, count)| bucket["count"] == *count),
            "{bucket}, expected {same:?}"
        );
    }
    let rest: u64 = rest.iter().map(|(_, count)| count).sum();
    ensure!(*others == rest, "{others} others, expected {rest}");
    Ok(())
}

/// A document as `serde_json` writes it, so that equal documents have equal texts.
fn normalized(document: &str) -> String {
    serde_json::from_str::<Value>(document)
        .expect("real events are JSON")
        .to_string()
}

async fn query_and_compare(
    server: &Client,
    statement: &OracleStatement,
    expected: &[Vec<Value>],
    scan: &str,
) -> Result<Answer> {
    let answer = server.query(&statement.sql, json!({ "scan": scan })).await?;
    let mut found: Vec<Vec<String>> = answer
        .rows
        .iter()
        .map(|row| row.iter().map(comparable).collect())
        .collect();
    let mut expected: Vec<Vec<String>> = expected
        .iter()
        .map(|row| row.iter().map(comparable).collect())
        .collect();
    if !statement.is_ordered() {
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

/// A value as comparable text: numbers to twelve digits, because a sum of doubles depends on the order of its terms;
/// times without a zero fraction.
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
