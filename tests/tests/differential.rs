//! Generated statements have one answer: the same by columns, from raw documents, and from DuckDB over the same events.
//! A predicate partitions all rows into true, false and NULL. No error leaks the planner's words.
//!
//! A run asks [`STATEMENTS`] of them over small splits, [`LARGE_STATEMENTS`] over a large one, and [`CLUSTER_STATEMENTS`] of two
//! aggregators. The long run, and how to repeat a statement that failed:
//!
//!     RACHIS_STATEMENTS=20000 ./tests/run --test differential
//!     RACHIS_SEED=… RACHIS_STATEMENT=17 ./tests/run --test differential

#[path = "differential/judge.rs"]
mod judge;
#[path = "differential/summary.rs"]
mod summary;

use std::{ops::Range, sync::Arc};

use futures::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tests::{
    Client, Cluster, Server, Settings,
    cluster::ClusterSize,
    data,
    oracle::SETS,
    process::TestDir,
    statements::{DocumentSet, DuckDb, StatementGenerator},
};

use self::{judge::Judge, summary::RunSummary};

/// Statements of one run over small splits, unless `RACHIS_STATEMENTS` is set.
const STATEMENTS: u64 = 300;
/// Statements of one run over a large split, unless `RACHIS_STATEMENTS` is set.
const LARGE_STATEMENTS: u64 = 80;
/// Statements of one run that two aggregators answer, unless `RACHIS_STATEMENTS` is set.
const CLUSTER_STATEMENTS: u64 = 150;
/// Documents of each set: enough for splits and merges, few enough to be scanned raw again and again.
const DOCUMENTS_MAX: usize = 2_000;
/// A split with more documents is large: bitmaps of its document numbers have several containers.
const LARGE_SPLIT_DOCUMENTS: usize = 1 << 16;
/// Documents of the large set that are in no split on disk.
const LARGE_TAIL_DOCUMENTS: usize = 2_000;
/// Statements in flight at the same time.
const CONCURRENCY: usize = 4;

/// The seed of short runs, which all ask the same statements.
const SHORT_SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_statements_have_one_answer() {
    if data::folder().is_none() {
        return;
    }
    let run = Run::new(STATEMENTS);
    let sets = document_sets(run.seed);
    let server = Server::start(Settings::default().small_splits()).await;
    load(&server, &sets).await;
    let summary = run.judge(&server, &sets).await;
    if run.numbers.end - run.numbers.start >= STATEMENTS {
        summary.assert_meaningful();
    }
}

/// Two aggregators compute together what joins, sorts or groups.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_statements_have_one_answer_from_two_aggregators() {
    if data::folder().is_none() {
        return;
    }
    let run = Run::new(CLUSTER_STATEMENTS);
    let sets = document_sets(run.seed);
    let size = ClusterSize {
        leaves: 1,
        tailers: 1,
        aggregators: 2,
    };
    let settings = Settings::default().small_splits().one_replica().distributed();
    let cluster = Cluster::start(size, settings).await;
    load(&cluster, &sets).await;
    let summary = run.judge(&cluster, &sets).await;
    let count = async |name: &str| {
        let mut count = 0.0;
        for node in ["aggregator-1", "aggregator-2"] {
            count += cluster.metric(node, name).await.expect("a count of queries");
        }
        count
    };
    let together = count("rachis_queries_distributed_total").await;
    assert_eq!(
        count("rachis_queries_distributed_failed_total").await,
        0.0,
        "queries that one has computed again"
    );
    eprintln!("two aggregators have computed {together} queries together");
    if run.numbers.end - run.numbers.start >= CLUSTER_STATEMENTS {
        summary.assert_meaningful();
        assert!(
            together * 5.0 > CLUSTER_STATEMENTS as f64,
            "only {together} of {CLUSTER_STATEMENTS}"
        );
    }
}

/// What a scan does with more than 65,536 documents of one split, small splits do not show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_statements_have_one_answer_over_a_large_split() {
    if data::folder().is_none() {
        return;
    }
    let run = Run::new(LARGE_STATEMENTS);
    let set = large_set(run.seed);
    let settings = Settings::default()
        .with("RACHIS_LEAF__SPLIT_DOCUMENTS", set.documents.len())
        .with("RACHIS_LEAF__SPLIT_BYTES", 1_u64 << 40)
        .with("RACHIS_LEAF__SPLIT_IDLE_MS", 1_000);
    let server = Server::start(settings).await;
    let shards = server
        .json(
            reqwest::Method::PUT,
            &format!("/v1/collections/{}", set.name),
            json!({ "shards": 1 }),
        )
        .await;
    shards.expect("a collection of one shard");
    let (split, tail) = set.documents.split_at(set.documents.len() - LARGE_TAIL_DOCUMENTS);
    server.push(&set.name, split.join("\n")).await.expect("a push");
    server.wait_for_splits(split.len()).await;
    server.push(&set.name, tail.join("\n")).await.expect("a push");
    let largest = "SELECT max(documents) FROM rachis.splits WHERE place = 'disk'";
    let largest = server.query(largest, json!({})).await.expect("the splits").rows[0][0].as_u64();
    assert!(largest > Some(LARGE_SPLIT_DOCUMENTS as u64), "{largest:?} documents");
    run.judge(&server, &[set]).await;
}

/// The statements of a run, and their seed.
struct Run {
    seed: u64,
    numbers: Range<u64>,
}

impl Run {
    /// As many statements as `RACHIS_STATEMENTS` says, else `statements`; or the one that `RACHIS_STATEMENT` names.
    fn new(statements: u64) -> Self {
        let long = std::env::var_os("RACHIS_STATEMENTS").is_some();
        let number = |name: &str| {
            std::env::var(name)
                .ok()
                .map(|text| text.parse::<u64>().expect("a number"))
        };
        Self {
            seed: tests::seed_or(|| if long { rand::random() } else { SHORT_SEED }),
            numbers: match number("RACHIS_STATEMENT") {
                Some(number) => number..number + 1,
                None => 0..number("RACHIS_STATEMENTS").unwrap_or(statements),
            },
        }
    }

    /// Asks all statements over these sets, and asserts that all answers are right.
    async fn judge(&self, server: &Client, sets: &[DocumentSet]) -> RunSummary {
        let folder = TestDir::new("differential").expect("a folder");
        let duck = Arc::new(DuckDb::start(sets, &folder.path()).expect("DuckDB starts"));
        let judge = Judge::new(server, duck);
        let begun = std::time::Instant::now();
        let pending = self.numbers.clone().map(|number| {
            let statement = StatementGenerator::new(sets, statement_seed(self.seed, number)).statement(number);
            judge.judge(statement)
        });
        let mut summary = RunSummary::default();
        let mut judged = stream::iter(pending).buffer_unordered(CONCURRENCY);
        while let Some(statement) = judged.next().await {
            summary.add(statement);
            if summary.total.is_multiple_of(1_000) {
                eprintln!(
                    "{} statements, {} failures, {:?}",
                    summary.total,
                    summary.failures.len(),
                    begun.elapsed()
                );
            }
        }
        eprintln!("{}, in {:?}", summary.text(), begun.elapsed());
        summary.print_failures(self.seed, &folder);
        assert!(
            summary.failures.is_empty(),
            "{} of {} statements failed; RACHIS_SEED={}",
            summary.failures.len(),
            summary.total,
            self.seed
        );
        summary
    }
}

/// Mixes the seed of the run and a statement's number, so that each statement can be generated alone.
fn statement_seed(seed: u64, number: u64) -> u64 {
    (seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .rotate_left(17)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn document_sets(seed: u64) -> Vec<DocumentSet> {
    let mut random = StdRng::seed_from_u64(seed);
    let set = |(name, file): &(&str, &str)| {
        let mut documents = data::documents(file).expect("documents");
        documents.truncate(DOCUMENTS_MAX);
        DocumentSet::new(name, &documents, &mut random)
    };
    SETS.iter().map(set).collect()
}

/// The documents of a file, again and again until they fill a large split and more.
fn large_set(seed: u64) -> DocumentSet {
    let documents = data::documents("wikiticker_2015.ndjson.gz").expect("documents");
    let count = LARGE_SPLIT_DOCUMENTS + LARGE_SPLIT_DOCUMENTS / 4 + LARGE_TAIL_DOCUMENTS;
    let documents: Vec<String> = documents.into_iter().cycle().take(count).collect();
    DocumentSet::new("large", &documents, &mut StdRng::seed_from_u64(seed))
}

/// Pushes all sets. The first two thirds of each are in splits on disk before the rest is pushed.
async fn load(server: &Client, sets: &[DocumentSet]) {
    let first_part = |set: &DocumentSet| set.documents.len() * 2 / 3;
    for set in sets {
        server
            .push(&set.name, set.documents[..first_part(set)].join("\n"))
            .await
            .expect("a push");
    }
    let stored: usize = sets.iter().map(first_part).sum();
    server.wait_for_splits(stored).await;
    for set in sets {
        server
            .push(&set.name, set.documents[first_part(set)..].join("\n"))
            .await
            .expect("a push");
    }
}
