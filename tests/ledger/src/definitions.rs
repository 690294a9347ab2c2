//! Changes definitions while the load runs. Each definer has a field of its own: its value is the number of the
//! document plus a million for each change, so an answer tells with which change it was computed.
//!
//! A definition that was acknowledged is in force for every question that is asked afterwards, at any node. In the end
//! every acknowledged version is there as it was sent, no change is there twice, and all nodes have the same versions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Run,
    http::{COLLECTION, Client},
};

/// Clients that change definitions at once.
const DEFINERS: usize = 2;
/// Changes of each, spread over the run.
const CHANGES: u64 = 150;
/// What one change adds to a value: more than the number of any document.
const STEP: u64 = 1_000_000_000;
const POLL: Duration = Duration::from_millis(5);
/// After a change without an answer.
const PAUSE: Duration = Duration::from_millis(150);

/// What the definers know about their changes.
#[derive(Default)]
pub(crate) struct Changes {
    /// Definer and change -> the version that was acknowledged.
    acknowledged: Mutex<BTreeMap<(usize, u64), u32>>,
    /// Questions that were asked right after an acknowledgement.
    pub(crate) questions: AtomicU64,
}

impl Changes {
    fn acknowledge(&self, definer: usize, change: u64, version: u32) {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.insert((definer, change), version);
    }

    fn acknowledged(&self) -> BTreeMap<(usize, u64), u32> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of changes that were acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.acknowledged().len()
    }
}

pub(crate) struct Definers(Vec<JoinHandle<()>>);

impl Definers {
    pub(crate) fn start(run: &Arc<Run>, seed: u64) -> Self {
        let definer = |number: usize| Definer {
            run: Arc::clone(run),
            number,
            rng: StdRng::seed_from_u64(seed ^ 0xdef1_0000 ^ number as u64),
        };
        Self(
            (0..DEFINERS)
                .map(|number| tokio::spawn(definer(number).run()))
                .collect(),
        )
    }

    pub(crate) async fn finish(self) -> Result<()> {
        for definer in self.0 {
            definer.await?;
        }
        Ok(())
    }
}

struct Definer {
    run: Arc<Run>,
    number: usize,
    rng: StdRng,
}

impl Definer {
    /// Makes each change when its share of the load is done.
    async fn run(mut self) {
        let ledger = &Arc::clone(&self.run).ledger;
        for change in 1..=CHANGES {
            while ledger.done() < change * ledger.records / (CHANGES + 1) {
                if ledger.load_aborted.load(Ordering::Relaxed) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
            self.change(change).await;
        }
    }

    /// Without an answer, the change was made once or not at all. It is not sent again.
    async fn change(&mut self, change: u64) {
        #[derive(Deserialize)]
        struct Changed {
            version: u32,
        }
        let sql = format!(
            "CREATE OR REPLACE FIELD {COLLECTION}.{} AS {}",
            name(self.number),
            text(change)
        );
        let changed: Result<Vec<Changed>> = self.run.client.rows(json!({ "sql": sql })).await;
        match changed.ok().and_then(|rows| rows.into_iter().next()) {
            Some(changed) => {
                self.run.changes.acknowledge(self.number, change, changed.version);
                self.ask(change).await;
            }
            // While a node is down, further changes would all fail.
            None => tokio::time::sleep(PAUSE).await,
        }
    }

    /// Asks for the value at the next node. If that is killed meanwhile, nothing is checked.
    async fn ask(&mut self, change: u64) {
        #[derive(Deserialize)]
        struct Asked {
            low: Option<i64>,
            high: Option<i64>,
        }
        let name = name(self.number);
        let sql = format!("SELECT min({name} - n) AS low, max({name} - n) AS high FROM {COLLECTION}");
        let scan = if self.rng.random_bool(0.5) { "raw" } else { "auto" };
        let asked: Result<Vec<Asked>> = self.run.client.rows(json!({ "sql": sql, "scan": scan })).await;
        let Some(asked) = asked.ok().and_then(|rows| rows.into_iter().next()) else {
            return;
        };
        self.run.changes.questions.fetch_add(1, Ordering::Relaxed);
        let wanted = i64::try_from(change * STEP).ok();
        if asked.low != asked.high || (asked.low.is_some() && asked.low != wanted) {
            self.run.ledger.add_problem(format!(
                "{sql} (scan {scan}) after change {change}: from {:?} to {:?} instead of {wanted:?}",
                asked.low, asked.high
            ));
        }
    }
}

fn name(definer: usize) -> String {
    format!("value_{definer}")
}

fn text(change: u64) -> String {
    format!("n + {}", change * STEP)
}

/// A version of one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Version {
    name: String,
    version: u32,
    tags: Option<String>,
    text: String,
}

/// Compares the versions that each node has with what was acknowledged, and with each other.
pub(crate) async fn check(run: &Run) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut first: Option<Vec<Version>> = None;
    for client in run.client.of_each_node()? {
        let versions = versions(&client).await?;
        found.extend(missing_or_twice(&run.changes.acknowledged(), &versions));
        match &first {
            None => first = Some(versions),
            Some(first) if *first != versions => {
                found.push(format!("definitions: two nodes differ: {first:?} and {versions:?}"));
            }
            Some(_) => {}
        }
    }
    for definer in 0..DEFINERS {
        found.extend(columns_and_raw_differ(&run.client, &name(definer)).await?);
    }
    Ok(found)
}

async fn versions(client: &Client) -> Result<Vec<Version>> {
    let sql = format!(
        "SELECT name, version, tags, text FROM rachis.definitions WHERE collection = '{COLLECTION}' \
         ORDER BY name, version LIMIT 100000"
    );
    client.rows(json!({ "sql": sql })).await
}

fn missing_or_twice(acknowledged: &BTreeMap<(usize, u64), u32>, versions: &[Version]) -> Vec<String> {
    let mut by_text: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for version in versions {
        let key = (version.name.as_str(), version.text.as_str());
        by_text.entry(key).or_default().push(version.version);
    }
    let twice = by_text.iter().filter(|(_, numbers)| numbers.len() > 1);
    let mut found: Vec<String> = twice
        .map(|(text, numbers)| format!("definitions: {text:?} is there as versions {numbers:?}"))
        .collect();
    for ((definer, change), number) in acknowledged {
        let (name, text) = (name(*definer), text(*change));
        let numbers = by_text.get(&(name.as_str(), text.as_str()));
        if !numbers.is_some_and(|numbers| numbers.contains(number)) {
            found.push(format!(
                "definitions: version {number} of {name} was acknowledged as {text}; there is {numbers:?}"
            ));
        }
    }
    found
}

async fn columns_and_raw_differ(client: &Client, name: &str) -> Result<Option<String>> {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Sum {
        total: Option<f64>,
    }
    let sql = format!("SELECT sum({name}) AS total FROM {COLLECTION}");
    let columns: Vec<Sum> = client.rows(json!({ "sql": sql })).await?;
    let raw: Vec<Sum> = client.rows(json!({ "sql": sql, "scan": "raw" })).await?;
    Ok((columns != raw).then(|| format!("{sql}: {columns:?}, from raw documents {raw:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32, change: u64) -> Version {
        Version {
            name: name(0),
            version: number,
            tags: None,
            text: text(change),
        }
    }

    #[test]
    fn a_lost_change_and_one_that_was_made_twice_are_found() {
        let acknowledged = BTreeMap::from([((0, 1), 1), ((0, 3), 2)]);
        // Change 2 was not acknowledged, and may be there.
        let complete = [version(1, 1), version(2, 3), version(3, 2)];
        assert_eq!(missing_or_twice(&acknowledged, &complete), [""; 0]);
        assert_eq!(missing_or_twice(&acknowledged, &complete[..1]).len(), 1);
        let twice = [&complete[..], &[version(4, 2)]].concat();
        assert_eq!(missing_or_twice(&acknowledged, &twice).len(), 1);
    }
}
