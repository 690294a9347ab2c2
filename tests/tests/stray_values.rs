//! A stray value changes only its own row. Whatever kinds of values later documents bring, the first documents keep
//! their answers: by columns and from raw documents, before and after splits are written. And the answers are those of
//! an evaluator that shares no code with the server.
//!
//! A run generates [`CASES`] statements. The long form, and how to repeat a run:
//!
//!     RACHIS_CASES=10000 ./tests/run --test stray_values
//!     RACHIS_SEED=… RACHIS_CASES=… ./tests/run --test stray_values

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::{
    Client, Server, Settings, eventually,
    process::TestDir,
    rules::{Documents, EvalStatement, MixedGenerator},
    sql_response::{self, ErrorWording, SqlResponse},
};

/// The seed of every short run.
const SHORT_SEED: u64 = 1;
/// Statements of one run, unless `RACHIS_CASES` is set.
const CASES: usize = 640;
/// Statements per set of documents.
const CASES_PER_SET: usize = 40;
/// Sets that are in the servers at the same time.
const SETS_AT_ONCE: usize = 8;
/// Documents before the strays.
const FIRST: usize = 24;
/// Documents with any kind of value at any path.
const STRAYS: usize = 24;
/// Cases that run concurrently.
const CASES_AT_ONCE: usize = 4;
/// Classes of differences that are printed; the file contains all.
const PRINTED_CLASSES_MAX: usize = 40;
/// Share of the statements that the evaluator must have an answer to.
const EVALUATED_PERCENT_MIN: usize = 50;

/// What is wrong with an answer, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DifferenceKind {
    ServerFailed,
    /// An error in the words of the planner.
    PlannerWords,
    /// An error, although any value may occur anywhere.
    Refused,
    /// The answers by columns and from raw documents differ.
    RawDiffers,
    /// A row of the first documents has changed since the strays arrived.
    ChangedByStrays,
    /// Not the answer of the evaluator for the first documents.
    FirstNotAsEvaluated,
    /// Not the answer of the evaluator for all documents.
    AllNotAsEvaluated,
    /// A value was left out without a warning.
    NoWarning,
}

struct Difference {
    kind: DifferenceKind,
    class: String,
    detail: String,
}

/// Documents and the statements that are run on them.
struct CaseSet {
    number: usize,
    documents: Documents,
    statements: Vec<EvalStatement>,
}

impl CaseSet {
    fn new(seed: u64, number: usize, cases: usize) -> Self {
        let mut generator = MixedGenerator::new(seed.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let documents = generator.documents(FIRST, STRAYS);
        Self {
            number,
            documents,
            statements: (0..cases).map(|_| generator.statement()).collect(),
        }
    }

    /// The collection with the first documents only.
    fn first(&self) -> String {
        format!("first_{}", self.number)
    }

    /// The collection with all documents.
    fn all(&self) -> String {
        format!("all_{}", self.number)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_value_changes_only_its_own_row() {
    let long = std::env::var_os("RACHIS_CASES").is_some();
    let seed = tests::seed_or(|| if long { rand::random() } else { SHORT_SEED });
    let cases = std::env::var("RACHIS_CASES").map_or(CASES, |text| text.parse().expect("a number"));
    let fresh = Server::start(Settings::default().no_splits()).await;
    let split = Server::start(Settings::default().small_splits()).await;
    let begun = std::time::Instant::now();
    let mut results = Results::default();
    let numbers: Vec<usize> = (0..cases.div_ceil(CASES_PER_SET)).collect();
    for numbers in numbers.chunks(SETS_AT_ONCE) {
        let sets: Vec<CaseSet> = numbers
            .iter()
            .map(|number| CaseSet::new(seed, *number, CASES_PER_SET.min(cases - number * CASES_PER_SET)))
            .collect();
        run_sets(&fresh, &split, &sets, &mut results).await;
        eprintln!(
            "{} queries, {} differences, {:?}",
            results.queries,
            results.differences.len(),
            begun.elapsed()
        );
    }
    let folder = TestDir::new("stray-values").expect("a folder");
    results.print(&folder);
    let statements = results.evaluated + results.not_evaluated;
    eprintln!(
        "{cases} statements, the evaluator has an answer to {} of {statements}, {:?}",
        results.evaluated,
        begun.elapsed()
    );
    assert!(
        cases < CASES || results.evaluated * 100 >= statements * EVALUATED_PERCENT_MIN,
        "the evaluator has too few answers"
    );
    assert!(
        results.differences.is_empty(),
        "{} differences over {cases} statements; RACHIS_SEED={seed} RACHIS_CASES={cases}",
        results.differences.len()
    );
}

/// Runs all statements of these sets on fresh documents, on strays beside splits, and on splits.
async fn run_sets(fresh: &Client, split: &Client, sets: &[CaseSet], results: &mut Results) {
    push(fresh, sets, Part::First).await;
    push(fresh, sets, Part::Strays).await;
    results.run(fresh, sets, "fresh").await;
    push(split, sets, Part::First).await;
    wait_for_splits(split, sets, Part::First).await;
    push(split, sets, Part::Strays).await;
    results.run(split, sets, "fresh strays beside splits").await;
    wait_for_splits(split, sets, Part::Strays).await;
    results.run(split, sets, "in splits").await;
    for server in [fresh, split] {
        for name in sets.iter().flat_map(|set| [set.first(), set.all()]) {
            server
                .request(reqwest::Method::DELETE, &format!("/v1/collections/{name}"))
                .send()
                .await
                .expect("an answer");
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Strays,
}

/// Pushes the first documents into both collections of a set, or the strays into one of them.
async fn push(server: &Client, sets: &[CaseSet], part: Part) {
    for set in sets {
        let texts = &set.documents.texts;
        let pushes = match part {
            Part::First => vec![(set.first(), &texts[..FIRST]), (set.all(), &texts[..FIRST])],
            Part::Strays => vec![(set.all(), &texts[FIRST..])],
        };
        for (name, texts) in pushes {
            server.push(&name, texts.join("\n")).await.expect("a push");
        }
    }
}

/// Waits until the documents of the sets, with or without strays, are in splits on disk.
async fn wait_for_splits(server: &Client, sets: &[CaseSet], part: Part) {
    let more = if part == Part::First { 0 } else { STRAYS };
    eventually("all documents are in splits on disk", || async {
        let answer = server
            .query(
                "select collection, sum(documents) from rachis.splits where place = 'disk' group by collection",
                json!({}),
            )
            .await?;
        let stored: BTreeMap<&str, f64> = answer
            .rows
            .iter()
            .filter_map(|row| Some((row[0].as_str()?, row[1].as_f64()?)))
            .collect();
        for set in sets {
            for (name, documents) in [(set.first(), FIRST), (set.all(), FIRST + more)] {
                anyhow::ensure!(
                    stored.get(name.as_str()) == Some(&(documents as f64)),
                    "{name}: {stored:?}"
                );
            }
        }
        Ok(())
    })
    .await;
}

#[derive(Default)]
struct Results {
    queries: usize,
    evaluated: usize,
    not_evaluated: usize,
    differences: Vec<Difference>,
}

impl Results {
    async fn run(&mut self, server: &Client, sets: &[CaseSet], stage: &str) {
        let cases = sets.iter().flat_map(|set| {
            set.statements
                .iter()
                .map(move |statement| run_case(server, set, statement, stage))
        });
        let outcomes: Vec<CaseOutcome> = stream::iter(cases).buffered(CASES_AT_ONCE).collect().await;
        for outcome in outcomes {
            self.queries += outcome.queries;
            *(if outcome.is_evaluated {
                &mut self.evaluated
            } else {
                &mut self.not_evaluated
            }) += 1;
            self.differences.extend(outcome.differences);
        }
    }

    /// Prints one difference of each class, the most frequent first, and writes all of them to a file.
    fn print(&self, folder: &TestDir) {
        let mut classes: BTreeMap<(DifferenceKind, &str), Vec<&Difference>> = BTreeMap::new();
        for difference in &self.differences {
            classes
                .entry((difference.kind, &difference.class))
                .or_default()
                .push(difference);
        }
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, differences)| std::cmp::Reverse(differences.len()));
        for ((kind, class), differences) in classes.iter().take(PRINTED_CLASSES_MAX) {
            eprintln!("\n{} × {kind:?}: {class}\n{}", differences.len(), differences[0].detail);
        }
        if !classes.is_empty() {
            let text = |((kind, class), differences): &((DifferenceKind, &str), Vec<&Difference>)| {
                let all: Vec<&str> = differences
                    .iter()
                    .map(|difference| difference.detail.as_str())
                    .collect();
                format!("{} × {kind:?}: {class}\n{}\n", differences.len(), all.join("\n"))
            };
            let file = folder.path().join("differences.txt");
            std::fs::write(&file, classes.iter().map(text).collect::<Vec<_>>().join("\n"))
                .expect("a file of differences");
            eprintln!("\n{} classes; all differences: {}", classes.len(), file.display());
        }
    }
}

struct CaseOutcome {
    /// Queries that were sent.
    queries: usize,
    /// The evaluator has an answer for all documents.
    is_evaluated: bool,
    differences: Vec<Difference>,
}

/// Runs one statement: on the first documents, on the first documents among all, and on all documents.
async fn run_case(server: &Client, set: &CaseSet, statement: &EvalStatement, stage: &str) -> CaseOutcome {
    let (first, all) = (set.first(), set.all());
    let rows = &set.documents.rows;
    // If each row comes from one document, those of the first documents are selected from the answer for all.
    // Otherwise the statement itself is limited to the first documents.
    let by_document = statement.is_per_document();
    let limited = statement.text(&all, if by_document { None } else { Some(FIRST) });
    let statements = [
        (statement.text(&first, None), statement.answer(&rows[..FIRST]).ok()),
        (limited, None),
        (statement.text(&all, None), statement.answer(rows).ok()),
    ];
    let is_evaluated = statements[2].1.is_some();
    let mut case = Case {
        statement,
        set,
        stage,
        differences: Vec::new(),
    };
    let mut answers: Vec<Option<Vec<Vec<Value>>>> = Vec::new();
    let mut queries = 0;
    for (at, (sql, expected)) in statements.iter().enumerate() {
        if at == 2 && by_document {
            // The same statement as the one before.
            case.compare_with_evaluator(at, sql, expected.as_ref(), answers[1].as_deref());
            continue;
        }
        queries += 2;
        let (auto, raw) = (
            sql_response::fetch(server, sql, "auto").await,
            sql_response::fetch(server, sql, "raw").await,
        );
        let rows = case.common_answer(sql, auto, raw, at == 2 || by_document && at == 1);
        case.compare_with_evaluator(at, sql, expected.as_ref(), rows.as_deref());
        answers.push(rows);
    }
    // Arithmetic is compared only if the evaluator has an answer both times.
    let is_comparable = !statement.has_arithmetic() || statements[0].1.is_some() && is_evaluated;
    if let (Some(before), Some(after), true) = (&answers[0], &answers[1], is_comparable) {
        case.compare_before_and_after(&statements[1].0, before, after);
    }
    CaseOutcome {
        queries,
        is_evaluated,
        differences: case.differences,
    }
}

struct Case<'a> {
    statement: &'a EvalStatement,
    set: &'a CaseSet,
    stage: &'a str,
    differences: Vec<Difference>,
}

impl Case<'_> {
    fn add_difference(&mut self, kind: DifferenceKind, class: String, sql: &str, what: &str) {
        let documents = mentioned_documents(self.set, what);
        let detail = format!(
            "    {sql}\n    set {}, {}: {what}{documents}",
            self.set.number, self.stage
        );
        self.differences.push(Difference { kind, class, detail });
    }

    /// The answer by columns, if both scans returned rows.
    fn common_answer(
        &mut self,
        sql: &str,
        auto: SqlResponse,
        raw: SqlResponse,
        with_strays: bool,
    ) -> Option<Vec<Vec<Value>>> {
        match (auto, raw) {
            (SqlResponse::Rows { rows, warnings }, SqlResponse::Rows { rows: raw, .. }) => {
                if let Some(difference) = self.statement.diff_answers(&raw, &rows) {
                    self.add_difference(
                        DifferenceKind::RawDiffers,
                        self.statement.shape(),
                        sql,
                        &format!("by columns, expected as from raw documents: {difference}"),
                    );
                }
                if with_strays
                    && self.statement.skips_values(&self.set.documents.rows)
                    && warnings.as_array().is_none_or(Vec::is_empty)
                {
                    self.add_difference(
                        DifferenceKind::NoWarning,
                        self.statement.shape(),
                        sql,
                        "a value that is not a number was left out without a warning",
                    );
                }
                Some(rows)
            }
            (SqlResponse::Truncated, _) | (_, SqlResponse::Truncated) => {
                panic!("a generated statement must not reach the row limit: {sql}")
            }
            (SqlResponse::Error { status, detail }, _) | (_, SqlResponse::Error { status, detail }) => {
                let kind = match sql_response::error_wording(status, &detail) {
                    ErrorWording::ServerError => DifferenceKind::ServerFailed,
                    ErrorWording::Internal(_) => DifferenceKind::PlannerWords,
                    ErrorWording::Plain => DifferenceKind::Refused,
                };
                self.add_difference(
                    kind,
                    sql_response::error_class(&detail),
                    sql,
                    &format!("{status} {detail}"),
                );
                None
            }
        }
    }

    fn compare_with_evaluator(
        &mut self,
        at: usize,
        sql: &str,
        expected: Option<&tests::rules::ExpectedRows>,
        rows: Option<&[Vec<Value>]>,
    ) {
        let (Some(expected), Some(rows)) = (expected, rows) else {
            return;
        };
        if let Some(difference) = self.statement.diff_expected(expected, rows) {
            let kind = if at == 0 {
                DifferenceKind::FirstNotAsEvaluated
            } else {
                DifferenceKind::AllNotAsEvaluated
            };
            self.add_difference(kind, self.statement.shape(), sql, &difference);
        }
    }

    /// The rows of the first documents must be the same without and with strays.
    fn compare_before_and_after(&mut self, sql: &str, before: &[Vec<Value>], after: &[Vec<Value>]) {
        let is_first = |row: &&Vec<Value>| !self.statement.is_per_document() || row[0].as_u64() < Some(FIRST as u64);
        let after: Vec<Vec<Value>> = after.iter().filter(is_first).cloned().collect();
        if let Some(difference) = self.statement.diff_answers(before, &after) {
            self.add_difference(
                DifferenceKind::ChangedByStrays,
                self.statement.shape(),
                sql,
                &format!("since the strays arrived: {difference}"),
            );
        }
    }
}

/// The documents whose numbers are at the start of the rows in a difference.
fn mentioned_documents(set: &CaseSet, difference: &str) -> String {
    const DOCUMENTS_MAX: usize = 3;
    let mut numbers: Vec<usize> = difference
        .split('[')
        .skip(1)
        .filter_map(|row| row.split([',', ']']).next()?.parse().ok())
        .filter(|number| *number < set.documents.texts.len())
        .collect();
    numbers.dedup();
    numbers.truncate(DOCUMENTS_MAX);
    numbers
        .iter()
        .map(|number| format!("\n      {}", set.documents.texts[*number]))
        .collect()
}
