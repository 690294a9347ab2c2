//! Questions that every replica must answer alike, and a query that is repeated while the load runs to find out for how
//! long there is no complete answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// How long the probe waits for an answer before it asks the next aggregator, as a client would: one that is cut off from
/// all replicas of a shard cannot answer.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// The longest gap between two complete answers that is no finding.
const GAP_MAX: Duration = Duration::from_secs(10);

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

/// Repeats a query, and measures the longest gap between two complete answers.
pub(crate) struct Probe {
    task: JoinHandle<Option<(Duration, String)>>,
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
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
        let (ends, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let task = tokio::spawn(probe(aggregators, Arc::clone(&ends), Arc::clone(&asked)));
        Ok(Self { task, ends, asked })
    }

    pub(crate) async fn finish(self) -> Result<Probed> {
        self.ends.store(true, Ordering::Relaxed);
        let longest = self.task.await.context("the probe ended early")?;
        let (gap, why) = longest.unwrap_or_default();
        let findings = match gap > GAP_MAX {
            true => vec![format!(
                "there was no complete answer for {gap:?}; the last error: {why}"
            )],
            false => Vec::new(),
        };
        Ok(Probed {
            queries: self.asked.load(Ordering::Relaxed),
            gap,
            findings,
        })
    }
}

/// Repeats the query until `ends` is set. Returns the longest gap between two complete answers with the last error in it.
async fn probe(aggregators: Vec<Client>, ends: Arc<AtomicBool>, asked: Arc<AtomicU64>) -> Option<(Duration, String)> {
    let question = json!({ "sql": format!("SELECT count(*) AS documents, sum(n) AS n FROM {COLLECTION}") });
    let mut longest = None;
    let (mut answered, mut failure) = (Instant::now(), None);
    for aggregator in aggregators.iter().cycle() {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let rows = tokio::time::timeout(PROBE_WAIT, aggregator.rows::<Value>(question.clone())).await;
        asked.fetch_add(1, Ordering::Relaxed);
        match rows.unwrap_or_else(|_| Err(anyhow!("no answer within {PROBE_WAIT:?}"))) {
            Ok(_) => {
                longest = longest.max(Some(gap_since(answered, failure.take())));
                answered = Instant::now();
            }
            Err(error) => failure = Some(format!("{error:#}")),
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
    longest.max(Some(gap_since(answered, failure)))
}

fn gap_since(answered: Instant, failure: Option<String>) -> (Duration, String) {
    let why = failure.unwrap_or_else(|| "none, the answer was slow".to_owned());
    (answered.elapsed(), why)
}
