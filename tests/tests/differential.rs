//! Statements that write themselves have one answer: by columns, from raw documents, and by DuckDB over the same
//! events; a predicate parts all rows; and nothing is refused in the planner's own words.
//!
//! A run asks [`STATEMENTS`] of them. The long form, and how to repeat one that failed:
//!
//!     RACHIS_STATEMENTS=20000 ./tests/run --test differential
//!     RACHIS_SEED=… RACHIS_STATEMENT=17 ./tests/run --test differential

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tests::{
    Client, Server, Settings, data, eventually,
    oracle::SETS,
    process::Folder,
    statements::{Duck, Family, Generator, Query, Set, Spelling, Statement, difference, smaller},
    told::{self, Refusal, Told},
};

/// Statements of one run, unless `RACHIS_STATEMENTS` says more.
const STATEMENTS: u64 = 500;
/// Documents of each set: enough for splits and merges, few enough to be read raw again and again.
const DOCUMENTS_MAX: usize = 2_000;
/// Statements asked at the same time.
const AT_ONCE: usize = 4;
/// Failures that are cut down to what is needed.
const SHRUNK_MAX: usize = 120;
/// Smaller statements that are tried for one failure.
const SHRINK_ASKS_MAX: usize = 80;
/// Failures that are shown; the file has all of them.
const SHOWN_MAX: usize = 25;
/// Of a hundred statements, those that DuckDB may have no answer for (an integer too large for it).
const SILENT_PERCENT_MAX: u64 = 8;
/// Of a hundred statements, those that may have more rows than an answer.
const CUT_PERCENT_MAX: u64 = 1;
/// Of a hundred statements, those that must find something.
const FOUND_PERCENT_MIN: u64 = 50;

/// Of the statements that every run asks.
const SHORT_SEED: u64 = 1;

/// What is not there yet, said in our own words: a part of what the server says, and what it is.
const NOT_THERE: [(&str, &str); 3] = [
    (
        "over a constant column of DISTINCT",
        "a window, EXCEPT ALL or INTERSECT ALL over a constant column",
    ),
    (
        "a sub-query in this place",
        "a sub-query inside of an aggregate, or one that compares otherwise than by =",
    ),
    ("a sub-query in GROUP BY", "a sub-query in GROUP BY"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_write_themselves_have_one_answer() {
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
    let sets = the_sets(seed);
    let folder = Folder::new("differential").expect("a folder");
    let duck = Arc::new(Duck::start(&sets, &folder.path()).expect("DuckDB starts"));
    let server = Server::start(Settings::default().small_splits()).await;
    fill(&server, &sets).await;

    let court = Court {
        server: &server,
        duck,
        shrunk: AtomicUsize::new(0),
    };
    let begun = std::time::Instant::now();
    let asked = numbers.clone().map(|number| {
        let statement = Generator::new(&sets, mixed(seed, number)).statement(number);
        court.judge(statement)
    });
    let mut seen = Seen::default();
    let mut verdicts = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some(verdict) = verdicts.next().await {
        seen.take(verdict);
        if seen.asked.is_multiple_of(1_000) {
            eprintln!(
                "{} statements, {} differences, {:?}",
                seen.asked,
                seen.failures.len(),
                begun.elapsed()
            );
        }
    }
    eprintln!("{}, in {:?}", seen.summary(), begun.elapsed());
    seen.print_differences(seed, &folder);
    if numbers.end - numbers.start >= STATEMENTS {
        seen.shows_something();
    }
    assert!(
        seen.failures.is_empty(),
        "{} of {} statements have not one answer; RACHIS_SEED={seed}",
        seen.failures.len(),
        seen.asked
    );
}

/// One number of two, so that each statement can be written without those before it.
fn mixed(seed: u64, number: u64) -> u64 {
    (seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .rotate_left(17)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn the_sets(seed: u64) -> Vec<Set> {
    let mut random = StdRng::seed_from_u64(seed);
    let set = |(name, file): &(&str, &str)| {
        let mut documents = data::documents(file).expect("documents");
        documents.truncate(DOCUMENTS_MAX);
        Set::new(name, &documents, &mut random)
    };
    SETS.iter().map(set).collect()
}

/// Two thirds of each set are in splits on disk before the rest comes.
async fn fill(server: &Client, sets: &[Set]) {
    let parts = |set: &Set| set.documents.len() * 2 / 3;
    for set in sets {
        server
            .push(&set.name, set.documents[..parts(set)].join("\n"))
            .await
            .expect("a push");
    }
    let there: usize = sets.iter().map(parts).sum();
    eventually("all documents are in splits on disk", || async {
        let answer = server
            .ask(
                "select sum(documents) from rachis.splits where place = 'disk'",
                json!({}),
            )
            .await?;
        anyhow::ensure!(answer.rows[0][0].as_f64() >= Some(there as f64), "{answer:?}");
        Ok(())
    })
    .await;
    for set in sets {
        server
            .push(&set.name, set.documents[parts(set)..].join("\n"))
            .await
            .expect("a push");
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Broken,
    PlannersWords,
    Refused,
    RawDiffers,
    OracleDiffers,
    PartsDiffer,
}

#[derive(Debug)]
enum Verdict {
    /// One answer, and whether it is anything.
    Right {
        found: bool,
    },
    /// DuckDB has none.
    Silent(String),
    /// It has more rows than an answer.
    Cut,
    /// Not there yet, and said so.
    NotThere(&'static str),
    /// A mistake of the statement, refused in our own words.
    Mistaken,
    Wrong(Wrong, String),
}

/// What became of a statement.
struct Judged {
    family: Family,
    text: String,
    verdict: Verdict,
    failure: Option<Failure>,
}

struct Failure {
    wrong: Wrong,
    detail: String,
    statement: Statement,
    whole: String,
}

struct Court<'a> {
    server: &'a Client,
    duck: Arc<Duck>,
    shrunk: AtomicUsize,
}

impl Court<'_> {
    async fn judge(&self, statement: Statement) -> Judged {
        let (family, text) = (statement.family, statement.text(Spelling::Ours));
        let verdict = self.verdict(&statement).await;
        let Verdict::Wrong(wrong, detail) = &verdict else {
            return Judged {
                family,
                text,
                verdict,
                failure: None,
            };
        };
        let mut failure = Failure {
            wrong: *wrong,
            detail: detail.clone(),
            whole: text.clone(),
            statement,
        };
        if self.shrunk.fetch_add(1, Ordering::Relaxed) < SHRUNK_MAX {
            self.shrink(&mut failure).await;
        }
        Judged {
            family,
            text,
            verdict,
            failure: Some(failure),
        }
    }

    /// Leaves out what can be left out while the same is wrong.
    async fn shrink(&self, failure: &mut Failure) {
        let mut asks = 0;
        let class = failure.words();
        'smaller: loop {
            for query in smaller(&failure.statement.query) {
                if asks >= SHRINK_ASKS_MAX {
                    return;
                }
                if failure.statement.family == Family::Parted && query.filter.is_none() {
                    continue;
                }
                asks += 1;
                let statement = Statement {
                    query,
                    ..failure.statement.clone()
                };
                if let Verdict::Wrong(wrong, detail) = self.verdict(&statement).await
                    && wrong == failure.wrong
                {
                    let smaller = Failure {
                        wrong,
                        detail,
                        statement,
                        whole: failure.whole.clone(),
                    };
                    if smaller.words() == class {
                        *failure = smaller;
                        continue 'smaller;
                    }
                }
            }
            return;
        }
    }

    async fn verdict(&self, statement: &Statement) -> Verdict {
        match statement.family {
            Family::Parted => self.parts(statement).await,
            family => self.answers(&statement.query, family == Family::Careless).await,
        }
    }

    /// By columns, raw and by DuckDB.
    async fn answers(&self, query: &Query, careless: bool) -> Verdict {
        let sql = query.text(Spelling::Ours);
        let auto = self.told(&sql, "auto").await;
        let raw = self.told(&sql, "raw").await;
        let rows = match (auto, raw) {
            (Told::Rows { rows: auto, .. }, Told::Rows { rows: raw, .. }) => {
                match difference(&auto, &raw, query.ordered()) {
                    Some(different) => {
                        return Verdict::Wrong(
                            Wrong::RawDiffers,
                            format!("by columns, and expected as from raw documents: {different}"),
                        );
                    }
                    None => auto,
                }
            }
            (Told::Cut, Told::Cut) => return Verdict::Cut,
            (Told::Cut, other) | (other, Told::Cut) => {
                return Verdict::Wrong(
                    Wrong::RawDiffers,
                    format!("one of columns and raw has more rows than an answer, the other {other:?}"),
                );
            }
            (Told::Refused { status, detail }, Told::Refused { .. }) => {
                return match refusal(status, &detail) {
                    // DuckDB refuses it, too: a mistake of the statement's.
                    Verdict::Wrong(Wrong::Refused, _) if careless || self.theirs(query).await.is_err() => {
                        Verdict::Mistaken
                    }
                    verdict => verdict,
                };
            }
            (Told::Refused { status, detail }, Told::Rows { .. })
            | (Told::Rows { .. }, Told::Refused { status, detail }) => {
                return match refusal(status, &detail) {
                    Verdict::Wrong(Wrong::Refused, _) => Verdict::Wrong(
                        Wrong::RawDiffers,
                        format!("one of columns and raw refuses: {status} {detail}"),
                    ),
                    verdict => verdict,
                };
            }
        };
        let found = rows.iter().flatten().any(|value| !value.is_null() && *value != 0);
        if careless {
            return Verdict::Right { found };
        }
        match self.theirs(query).await {
            Err(error) => Verdict::Silent(error),
            Ok(theirs) => match difference(&rows, &theirs, query.ordered()) {
                Some(different) => Verdict::Wrong(Wrong::OracleDiffers, different),
                None => Verdict::Right { found },
            },
        }
    }

    async fn theirs(&self, query: &Query) -> Result<Vec<Vec<Value>>, String> {
        let (duck, sql) = (self.duck.clone(), query.text(Spelling::Theirs));
        tokio::task::spawn_blocking(move || duck.ask(&sql))
            .await
            .expect("DuckDB is asked without a panic")
            .expect("DuckDB lives")
    }

    /// Where a predicate holds, does not, and is NULL is every row, once.
    async fn parts(&self, statement: &Statement) -> Verdict {
        let mut all = Vec::new();
        for part in statement.parts() {
            match self.told(&part.text(Spelling::Ours), "auto").await {
                Told::Rows { rows, .. } => all.extend(rows),
                Told::Cut => return Verdict::Cut,
                Told::Refused { status, detail } => return refusal(status, &detail),
            }
            match self.answers(&part, false).await {
                Verdict::Right { .. } => {}
                Verdict::Wrong(wrong, detail) => {
                    return Verdict::Wrong(wrong, format!("{}: {detail}", part.text(Spelling::Ours)));
                }
                verdict => return verdict,
            }
        }
        let whole = Query {
            filter: None,
            ..statement.query.clone()
        };
        match self.told(&whole.text(Spelling::Ours), "auto").await {
            Told::Rows { rows, .. } => match difference(&all, &rows, false) {
                Some(different) => Verdict::Wrong(
                    Wrong::PartsDiffer,
                    format!("where it holds, does not, and is NULL: {different}"),
                ),
                None => Verdict::Right { found: true },
            },
            Told::Cut => Verdict::Cut,
            Told::Refused { status, detail } => refusal(status, &detail),
        }
    }

    async fn told(&self, sql: &str, scan: &str) -> Told {
        told::ask(self.server, sql, scan).await
    }
}

/// What to make of a refusal.
fn refusal(status: u16, detail: &str) -> Verdict {
    match told::refusal(status, detail) {
        Refusal::Failed => Verdict::Wrong(Wrong::Broken, format!("{status} {detail}")),
        Refusal::PlannersWord(word) => Verdict::Wrong(Wrong::PlannersWords, format!("{word:?} in: {status} {detail}")),
        Refusal::Ours => match NOT_THERE.iter().find(|(part, _)| detail.contains(part)) {
            Some((_, feature)) => Verdict::NotThere(feature),
            None => Verdict::Wrong(Wrong::Refused, format!("{status} {detail}")),
        },
    }
}

#[derive(Default)]
struct Seen {
    asked: u64,
    found: u64,
    mistaken: u64,
    cut: u64,
    families: BTreeMap<Family, u64>,
    silent: Vec<String>,
    not_there: BTreeMap<&'static str, u64>,
    failures: Vec<Failure>,
}

impl Seen {
    fn take(&mut self, judged: Judged) {
        let Judged {
            family,
            text,
            verdict,
            failure,
        } = judged;
        self.asked += 1;
        *self.families.entry(family).or_default() += 1;
        match verdict {
            Verdict::Right { found } => self.found += u64::from(found),
            Verdict::Silent(error) => self.silent.push(error),
            Verdict::NotThere(feature) => {
                let statements = self.not_there.entry(feature).or_default();
                if *statements == 0 {
                    eprintln!("not there yet, {feature}: {text}");
                }
                *statements += 1;
            }
            Verdict::Mistaken => self.mistaken += 1,
            Verdict::Cut => self.cut += 1,
            Verdict::Wrong(..) => {}
        }
        self.failures.extend(failure);
    }

    fn summary(&self) -> String {
        let errors: BTreeSet<String> = self
            .silent
            .iter()
            .map(|error| error.lines().next().unwrap_or_default().chars().take(100).collect())
            .collect();
        format!(
            "{} statements: {} found something, {} mistakes were refused, {} have more rows than an answer, DuckDB had no answer to {} {errors:?}, not there yet {:?}, {} differ; {:?}",
            self.asked,
            self.found,
            self.mistaken,
            self.cut,
            self.silent.len(),
            self.not_there,
            self.failures.len(),
            self.families
        )
    }

    /// A test that asks for nothing shows nothing.
    fn shows_something(&self) {
        let right = self.asked - self.failures.len() as u64;
        assert!(
            self.silent.len() as u64 * 100 <= self.asked * SILENT_PERCENT_MAX,
            "DuckDB was silent {} times",
            self.silent.len()
        );
        assert!(
            self.cut * 100 <= self.asked * CUT_PERCENT_MAX,
            "{} statements have more rows than an answer",
            self.cut
        );
        assert!(
            self.found * 100 >= right * FOUND_PERCENT_MIN,
            "only {} of {right} statements found something",
            self.found
        );
    }

    /// One of each class, the most frequent first; all of them into a file.
    fn print_differences(&self, seed: u64, folder: &Folder) {
        let mut classes: BTreeMap<(Wrong, String), Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            classes
                .entry((failure.wrong, failure.class()))
                .or_default()
                .push(failure);
        }
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, failures)| std::cmp::Reverse(failures.len()));
        for ((wrong, class), failures) in classes.iter().take(SHOWN_MAX) {
            eprintln!("\n{} × {wrong:?}: {class}\n{}", failures.len(), failures[0].text(seed));
        }
        if !classes.is_empty() {
            let all: Vec<String> = classes
                .iter()
                .flat_map(|(_, failures)| failures)
                .map(|failure| failure.text(seed))
                .collect();
            let file = folder.path().join("differences.txt");
            std::fs::write(&file, all.join("\n")).expect("a file of differences");
            eprintln!("\n{} classes; all differences: {}", classes.len(), file.display());
        }
    }
}

impl Failure {
    /// What makes it another one: the words of a refusal, or the shape of the statement.
    fn class(&self) -> String {
        let words = self.words();
        if words.is_empty() {
            self.statement.text(Spelling::Shape)
        } else {
            words
        }
    }

    /// What a refusal says, without what it says it of.
    fn words(&self) -> String {
        if !matches!(self.wrong, Wrong::Broken | Wrong::PlannersWords | Wrong::Refused) {
            return String::new();
        }
        let said = self
            .detail
            .split_once(" in: ")
            .map_or(self.detail.as_str(), |(_, said)| said);
        told::class(said)
    }

    fn text(&self, seed: u64) -> String {
        let number = self.statement.number;
        format!(
            "RACHIS_SEED={seed} RACHIS_STATEMENT={number}: {:?} in {:?}\n    ours:   {}\n    DuckDB: {}\n    {}\n    before it was cut down: {}\n",
            self.wrong,
            self.statement.family,
            self.statement.text(Spelling::Ours),
            self.statement.text(Spelling::Theirs),
            self.detail,
            self.whole
        )
    }
}
