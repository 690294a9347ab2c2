//! Generated statements have one answer: the same by columns, from raw documents, and from DuckDB over the same events.
//! A predicate partitions all rows into true, false and NULL. No error leaks the planner's words.
//!
//! A run asks [`STATEMENTS`] of them. The long run, and how to repeat a statement that failed:
//!
//!     RACHIS_STATEMENTS=20000 ./tests/run --test differential
//!     RACHIS_SEED=… RACHIS_STATEMENT=17 ./tests/run --test differential

#[path = "differential/judge.rs"]
mod judge;
#[path = "differential/summary.rs"]
mod summary;

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng};
use tests::{
    Client, Server, Settings, data,
    oracle::SETS,
    process::TestDir,
    statements::{DocumentSet, DuckDb, StatementGenerator},
};

use self::{judge::Judge, summary::RunSummary};

/// Statements of one run, unless `RACHIS_STATEMENTS` is set.
const STATEMENTS: u64 = 500;
/// Documents of each set: enough for splits and merges, few enough to be scanned raw again and again.
const DOCUMENTS_MAX: usize = 2_000;
/// Statements in flight at the same time.
const CONCURRENCY: usize = 4;

/// The seed of short runs, which all ask the same statements.
const SHORT_SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_statements_have_one_answer() {
    if data::folder().is_none() {
        return;
    }
    let long = std::env::var_os("RACHIS_STATEMENTS").is_some();
    let seed = tests::seed_or(|| if long { rand::random() } else { SHORT_SEED });
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let numbers = match number("RACHIS_STATEMENT") {
        Some(number) => number..number + 1,
        None => 0..number("RACHIS_STATEMENTS").unwrap_or(STATEMENTS),
    };
    let sets = document_sets(seed);
    let folder = TestDir::new("differential").expect("a folder");
    let duck = Arc::new(DuckDb::start(&sets, &folder.path()).expect("DuckDB starts"));
    let server = Server::start(Settings::default().small_splits()).await;
    load(&server, &sets).await;

    let judge = Judge::new(&server, duck);
    let begun = std::time::Instant::now();
    let pending = numbers.clone().map(|number| {
        let statement = StatementGenerator::new(&sets, statement_seed(seed, number)).statement(number);
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
    summary.print_failures(seed, &folder);
    if numbers.end - numbers.start >= STATEMENTS {
        summary.assert_meaningful();
    }
    assert!(
        summary.failures.is_empty(),
        "{} of {} statements failed; RACHIS_SEED={seed}",
        summary.failures.len(),
        summary.total
    );
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
