//! Questions that every replica must answer alike, and a query that is repeated while the load runs to find out for how
//! long there is no complete answer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    Run,
    http::{COLLECTION, Client},
};

/// Rounds of the questions of [`round`].
const ROUNDS: usize = 10;
/// Questions that must have rows: equal answers without any say nothing.
const WITH_ROWS_MIN: usize = 40;
/// The pause between two queries of the probe, after an answer and after a failure.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// How long the probe waits for an answer before it asks the aggregator again.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// The longest gap between two complete answers that is no finding.
const GAP_MAX: Duration = Duration::from_secs(10);
/// The shortest gap that is written to the log.
const GAP_NOTED: Duration = Duration::from_secs(3);

/// Asks fifty questions, which a seed repeats, and returns each with its answer.
pub(crate) async fn ask(run: &Run, seed: u64) -> Result<Vec<(String, Vec<Value>)>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut answers = Vec::new();
    for _ in 0..ROUNDS {
        for sql in round(&mut rng, run.ledger.records) {
            let scan = if rng.random_bool(0.5) { "raw" } else { "auto" };
            let rows = run.client.rows(json!({ "sql": sql, "scan": scan })).await?;
            answers.push((sql, rows));
        }
    }
    let with_rows = answers.iter().filter(|(_, rows)| !rows.is_empty()).count();
    ensure!(
        with_rows >= WITH_ROWS_MIN,
        "only {with_rows} of {} questions have rows",
        answers.len()
    );
    Ok(answers)
}

/// Questions over some of the documents: counts, groups, documents, and conditions on text and on nested values.
fn round(rng: &mut StdRng, records: u64) -> [String; 5] {
    let from = rng.random_range(0..records);
    let through = rng.random_range(from..records + 1);
    let (part, rest) = (rng.random_range(2..9), rng.random_range(0..2));
    let word = ["stem", "disk", "rachis", "tip"][rng.random_range(0..4)];
    let list = rng.random_range(0..97);
    [
        format!(
            "SELECT kind, count(*) AS documents, sum(n) AS n, sum(ratio) AS ratio FROM {COLLECTION} \
             WHERE n >= {from} AND n <= {through} GROUP BY kind ORDER BY kind"
        ),
        format!(
            "SELECT CAST(mixed AS VARCHAR) AS mixed, count(*) AS documents, min(n) AS low, max(n) AS high \
             FROM {COLLECTION} WHERE n % {part} = {rest} GROUP BY 1 ORDER BY 1"
        ),
        format!("SELECT _id, _doc FROM {COLLECTION} WHERE n >= {from} ORDER BY n LIMIT 20"),
        format!("SELECT count(*) AS documents, sum(n) AS n FROM {COLLECTION} WHERE words LIKE '%{word}%'"),
        format!("SELECT n, \"when\" FROM {COLLECTION} WHERE nested.list[0] = {list} ORDER BY n LIMIT 50"),
    ]
}

/// Repeats a query at every aggregator, and measures the longest gap between two complete answers of any of them.
pub(crate) struct Probe {
    tasks: Vec<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
    answers: Arc<Mutex<Answers>>,
}

/// What a probe found.
pub(crate) struct Probed {
    /// The number of queries.
    pub queries: u64,
    /// The longest gap between two complete answers.
    pub gap: Duration,
    /// Says so if that gap is too long.
    pub findings: Vec<String>,
}

impl Probe {
    pub(crate) fn start(run: &Run) -> Result<Self> {
        let aggregators = run.client.of_each_node()?;
        let (ends, answers) = (Arc::<AtomicBool>::default(), Arc::new(Mutex::new(Answers::new())));
        let probe = |(number, aggregator)| tokio::spawn(probe(aggregator, number, ends.clone(), answers.clone()));
        let tasks = (1..).zip(aggregators).map(probe).collect();
        Ok(Self { tasks, ends, answers })
    }

    pub(crate) async fn finish(self) -> Result<Probed> {
        self.ends.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.context("the probe ended early")?;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.note_gap();
        let (gap, why) = std::mem::take(&mut answers.longest);
        let findings = match gap > GAP_MAX {
            true => vec![format!(
                "there was no complete answer for {gap:?}; the last errors: {why}"
            )],
            false => Vec::new(),
        };
        Ok(Probed {
            queries: answers.asked,
            gap,
            findings,
        })
    }
}

/// The answers to a query that is repeated.
struct Answers {
    began: Instant,
    asked: u64,
    /// When the last complete one came.
    answered: Instant,
    /// The last failure of each aggregator since then.
    failures: BTreeMap<usize, String>,
    /// The longest gap, and the failures in it.
    longest: (Duration, String),
}

impl Answers {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            asked: 0,
            answered: Instant::now(),
            failures: BTreeMap::new(),
            longest: Default::default(),
        }
    }

    fn add(&mut self, aggregator: usize, answer: Result<Vec<Value>>) {
        self.asked += 1;
        match answer {
            Ok(_) => self.note_gap(),
            Err(error) => drop(self.failures.insert(aggregator, format!("{error:#}"))),
        }
    }

    fn note_gap(&mut self) {
        let (gap, failures) = (self.answered.elapsed(), std::mem::take(&mut self.failures));
        self.answered = Instant::now();
        let failures: Vec<String> = failures
            .iter()
            .map(|(number, why)| format!("aggregator {number}: {why}"))
            .collect();
        if gap > GAP_NOTED {
            eprintln!(
                "ledger: {:5.1} s, there was no complete answer for {gap:?}: {}",
                self.began.elapsed().as_secs_f64(),
                failures.join("; ")
            );
        }
        if gap > self.longest.0 {
            self.longest = (gap, failures.join("; "));
        }
    }
}

/// Repeats the query at an aggregator until `ends` is set.
async fn probe(aggregator: Client, number: usize, ends: Arc<AtomicBool>, answers: Arc<Mutex<Answers>>) {
    let question = json!({ "sql": format!("SELECT count(*) AS documents, sum(n) AS n FROM {COLLECTION}") });
    while !ends.load(Ordering::Relaxed) {
        let rows = tokio::time::timeout(PROBE_WAIT, aggregator.rows::<Value>(question.clone())).await;
        let rows = rows.unwrap_or_else(|_| Err(anyhow!("no answer within {PROBE_WAIT:?}")));
        answers.lock().unwrap_or_else(PoisonError::into_inner).add(number, rows);
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
