//! A stray value changes its own row and no other: what the first documents answer stays, whatever kinds come behind
//! them, by columns and from raw documents, fresh and in splits; and it is what the rules of values say, by an
//! evaluator that shares no code with the server.
//!
//! A run asks [`CASES`] statements. The long form, and how to repeat a run:
//!
//!     RACHIS_CASES=10000 ./tests/run --test stray_values
//!     RACHIS_SEED=… RACHIS_CASES=… ./tests/run --test stray_values

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::{
    Client, Server, Settings, eventually,
    process::Folder,
    rules::{Documents, Generator, Statement},
    told::{self, Refusal, Told},
};

/// Of the statements that every run asks.
const SHORT_SEED: u64 = 1;
/// Statements of one run, unless `RACHIS_CASES` says more.
const CASES: usize = 640;
/// Statements that are asked of one set of documents.
const CASES_OF_A_SET: usize = 40;
/// Sets that are there at the same time.
const SETS_AT_ONCE: usize = 8;
/// Documents before the strays.
const FIRST: usize = 24;
/// Documents with any kind at any path.
const STRAYS: usize = 24;
/// Cases that are asked at the same time.
const AT_ONCE: usize = 4;
/// Classes of differences that are shown; the file has all.
const SHOWN_MAX: usize = 40;
/// Of a hundred statements, those that the rules must have an answer to.
const SAID_PERCENT_MIN: usize = 50;

/// What is wrong, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// The server failed.
    Broken,
    /// A refusal in the planner's words.
    PlannersWords,
    /// A refusal: every value may stand everywhere.
    Refused,
    /// By columns and from raw documents there are two answers.
    RawDiffers,
    /// A row of the first documents is another one since strays came.
    StrayChanges,
    /// Not what the rules say of documents of few kinds.
    RulesOfFirst,
    /// Not what the rules say of documents of many kinds.
    RulesOfAll,
    /// A value was left out and nobody said so.
    NoWarning,
}

struct Difference {
    wrong: Wrong,
    class: String,
    detail: String,
}

/// Some documents and what is asked of them.
struct Set {
    number: usize,
    documents: Documents,
    statements: Vec<Statement>,
}

impl Set {
    fn new(seed: u64, number: usize, cases: usize) -> Self {
        let mut generator = Generator::new(seed.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let documents = generator.documents(FIRST, STRAYS);
        Self {
            number,
            documents,
            statements: (0..cases).map(|_| generator.statement()).collect(),
        }
    }

    fn first(&self) -> String {
        format!("first_{}", self.number)
    }

    fn all(&self) -> String {
        format!("all_{}", self.number)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_value_changes_its_own_row_and_no_other() {
    let long = std::env::var_os("RACHIS_CASES").is_some();
    let seed = tests::seed_or(|| if long { rand::random() } else { SHORT_SEED });
    let cases = std::env::var("RACHIS_CASES").map_or(CASES, |text| text.parse().expect("a number"));
    let fresh = Server::start(Settings::default().no_splits()).await;
    let split = Server::start(Settings::default().small_splits()).await;
    let begun = std::time::Instant::now();
    let mut found = Found::default();
    let numbers: Vec<usize> = (0..cases.div_ceil(CASES_OF_A_SET)).collect();
    for numbers in numbers.chunks(SETS_AT_ONCE) {
        let sets: Vec<Set> = numbers
            .iter()
            .map(|number| Set::new(seed, *number, CASES_OF_A_SET.min(cases - number * CASES_OF_A_SET)))
            .collect();
        push(&fresh, &sets, Part::First).await;
        push(&fresh, &sets, Part::Strays).await;
        found.ask(&fresh, &sets, "fresh").await;
        push(&split, &sets, Part::First).await;
        on_disk(&split, &sets, Part::First).await;
        push(&split, &sets, Part::Strays).await;
        found.ask(&split, &sets, "strays fresh beside splits").await;
        on_disk(&split, &sets, Part::Strays).await;
        found.ask(&split, &sets, "in splits").await;
        for server in [&fresh, &split] {
            for name in sets.iter().flat_map(|set| [set.first(), set.all()]) {
                server
                    .request(reqwest::Method::DELETE, &format!("/v1/collections/{name}"))
                    .send()
                    .await
                    .expect("an answer");
            }
        }
        eprintln!(
            "{} questions, {} differences, {:?}",
            found.asked,
            found.differences.len(),
            begun.elapsed()
        );
    }
    let folder = Folder::new("stray-values").expect("a folder");
    found.print(&folder);
    eprintln!(
        "{cases} statements, the rules have an answer to {} of {}, {:?}",
        found.said,
        found.said + found.unsaid,
        begun.elapsed()
    );
    assert!(
        cases < CASES || found.said * 100 >= (found.said + found.unsaid) * SAID_PERCENT_MIN,
        "the rules say too little"
    );
    assert!(
        found.differences.is_empty(),
        "{} differences over {cases} statements; RACHIS_SEED={seed} RACHIS_CASES={cases}",
        found.differences.len()
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Strays,
}

/// The first documents go into both collections, the strays into one.
async fn push(server: &Client, sets: &[Set], part: Part) {
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

async fn on_disk(server: &Client, sets: &[Set], part: Part) {
    let more = if part == Part::First { 0 } else { STRAYS };
    eventually("all documents are in splits on disk", || async {
        let answer = server
            .ask(
                "select collection, sum(documents) from rachis.splits where place = 'disk' group by collection",
                json!({}),
            )
            .await?;
        let there: BTreeMap<&str, f64> = answer
            .rows
            .iter()
            .filter_map(|row| Some((row[0].as_str()?, row[1].as_f64()?)))
            .collect();
        for set in sets {
            for (name, documents) in [(set.first(), FIRST), (set.all(), FIRST + more)] {
                anyhow::ensure!(
                    there.get(name.as_str()) == Some(&(documents as f64)),
                    "{name}: {there:?}"
                );
            }
        }
        Ok(())
    })
    .await;
}

#[derive(Default)]
struct Found {
    asked: usize,
    said: usize,
    unsaid: usize,
    differences: Vec<Difference>,
}

impl Found {
    async fn ask(&mut self, server: &Client, sets: &[Set], stage: &str) {
        let asked = sets.iter().flat_map(|set| {
            set.statements
                .iter()
                .map(move |statement| judge(server, set, statement, stage))
        });
        let verdicts: Vec<(usize, bool, Vec<Difference>)> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        for (asked, said, differences) in verdicts {
            self.asked += asked;
            *(if said { &mut self.said } else { &mut self.unsaid }) += 1;
            self.differences.extend(differences);
        }
    }

    /// One of each class, the most frequent first.
    fn print(&self, folder: &Folder) {
        let mut classes: BTreeMap<(Wrong, &str), Vec<&Difference>> = BTreeMap::new();
        for difference in &self.differences {
            classes
                .entry((difference.wrong, &difference.class))
                .or_default()
                .push(difference);
        }
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, differences)| std::cmp::Reverse(differences.len()));
        for ((wrong, class), differences) in classes.iter().take(SHOWN_MAX) {
            eprintln!(
                "\n{} × {wrong:?}: {class}\n{}",
                differences.len(),
                differences[0].detail
            );
        }
        if !classes.is_empty() {
            let text = |((wrong, class), differences): &((Wrong, &str), Vec<&Difference>)| {
                let all: Vec<&str> = differences
                    .iter()
                    .map(|difference| difference.detail.as_str())
                    .collect();
                format!("{} × {wrong:?}: {class}\n{}\n", differences.len(), all.join("\n"))
            };
            let file = folder.path().join("differences.txt");
            std::fs::write(&file, classes.iter().map(text).collect::<Vec<_>>().join("\n"))
                .expect("a file of differences");
            eprintln!("\n{} classes; all differences: {}", classes.len(), file.display());
        }
    }
}

/// Asks one statement in every way: how many questions that were, whether the rules have an answer, and what is wrong.
async fn judge(server: &Client, set: &Set, statement: &Statement, stage: &str) -> (usize, bool, Vec<Difference>) {
    let (first, all) = (set.first(), set.all());
    let rows = &set.documents.rows;
    let said = (statement.answer(&rows[..FIRST]), statement.answer(rows));
    // Where a row is of one document, its answer among all is looked at; elsewhere the statement names the first
    // documents.
    let limited = statement.text(&all, if statement.is_by_row() { None } else { Some(FIRST) });
    let questions = [
        (statement.text(&first, None), said.0.ok()),
        (limited, None),
        (statement.text(&all, None), said.1.ok()),
    ];
    let is_said = questions[2].1.is_some();
    let mut case = Case {
        statement,
        set,
        stage,
        differences: Vec::new(),
    };
    let mut answers: Vec<Option<Vec<Vec<Value>>>> = Vec::new();
    let mut asked = 0;
    for (at, (sql, expected)) in questions.iter().enumerate() {
        if at == 2 && statement.is_by_row() {
            // It was asked just now.
            case.rules(at, sql, expected.as_ref(), answers[1].as_deref());
            continue;
        }
        asked += 2;
        let (auto, raw) = (
            told::ask(server, sql, "auto").await,
            told::ask(server, sql, "raw").await,
        );
        let rows = case.one_of(sql, auto, raw, at == 2 || statement.is_by_row() && at == 1);
        case.rules(at, sql, expected.as_ref(), rows.as_deref());
        answers.push(rows);
    }
    let beyond = statement.computes() && !(questions[0].1.is_some() && is_said);
    if let (Some(before), Some(after), false) = (&answers[0], &answers[1], beyond) {
        let is_first = |row: &&Vec<Value>| !statement.is_by_row() || row[0].as_u64() < Some(FIRST as u64);
        let after: Vec<Vec<Value>> = after.iter().filter(is_first).cloned().collect();
        if let Some(apart) = statement.apart(before, &after) {
            case.differ(
                Wrong::StrayChanges,
                statement.shape(),
                &questions[1].0,
                &format!("since strays came: {apart}"),
            );
        }
    }
    (asked, is_said, case.differences)
}

struct Case<'a> {
    statement: &'a Statement,
    set: &'a Set,
    stage: &'a str,
    differences: Vec<Difference>,
}

impl Case<'_> {
    fn differ(&mut self, wrong: Wrong, class: String, sql: &str, what: &str) {
        let documents = shown_documents(self.set, what);
        let detail = format!(
            "    {sql}\n    set {}, {}: {what}{documents}",
            self.set.number, self.stage
        );
        self.differences.push(Difference { wrong, class, detail });
    }

    /// The one answer of two scans, if there is one.
    fn one_of(&mut self, sql: &str, auto: Told, raw: Told, with_strays: bool) -> Option<Vec<Vec<Value>>> {
        match (auto, raw) {
            (Told::Rows { rows, warnings }, Told::Rows { rows: raw, .. }) => {
                if let Some(apart) = self.statement.apart(&raw, &rows) {
                    self.differ(
                        Wrong::RawDiffers,
                        self.statement.shape(),
                        sql,
                        &format!("by columns, and expected as from raw documents: {apart}"),
                    );
                }
                if with_strays
                    && self.statement.leaves_out(&self.set.documents.rows)
                    && warnings.as_array().is_none_or(Vec::is_empty)
                {
                    self.differ(
                        Wrong::NoWarning,
                        self.statement.shape(),
                        sql,
                        "a value that is no number was left out, and no warning says so",
                    );
                }
                Some(rows)
            }
            (Told::Cut, _) | (_, Told::Cut) => panic!("a statement of a generator has few rows: {sql}"),
            (Told::Refused { status, detail }, _) | (_, Told::Refused { status, detail }) => {
                let wrong = match told::refusal(status, &detail) {
                    Refusal::Failed => Wrong::Broken,
                    Refusal::PlannersWord(_) => Wrong::PlannersWords,
                    Refusal::Ours => Wrong::Refused,
                };
                self.differ(wrong, told::class(&detail), sql, &format!("{status} {detail}"));
                None
            }
        }
    }

    fn rules(&mut self, at: usize, sql: &str, expected: Option<&tests::rules::Answer>, rows: Option<&[Vec<Value>]>) {
        let (Some(expected), Some(rows)) = (expected, rows) else {
            return;
        };
        if let Some(apart) = self.statement.difference(expected, rows) {
            let wrong = if at == 0 {
                Wrong::RulesOfFirst
            } else {
                Wrong::RulesOfAll
            };
            self.differ(wrong, self.statement.shape(), sql, &apart);
        }
    }
}

/// The documents whose numbers stand first in a difference.
fn shown_documents(set: &Set, what: &str) -> String {
    /// Documents that are shown of one difference.
    const SHOWN_DOCUMENTS_MAX: usize = 3;
    let mut numbers: Vec<usize> = what
        .split('[')
        .skip(1)
        .filter_map(|row| row.split([',', ']']).next()?.parse().ok())
        .filter(|number| *number < set.documents.texts.len())
        .collect();
    numbers.dedup();
    numbers.truncate(SHOWN_DOCUMENTS_MAX);
    numbers
        .iter()
        .map(|number| format!("\n      {}", set.documents.texts[*number]))
        .collect()
}
