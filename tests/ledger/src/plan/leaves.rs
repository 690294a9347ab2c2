//! Leaves that join, leave and lose their disks while the load runs, and the answers of each replica at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Plan, READY_WITHIN};
use crate::{Run, http::COLLECTION, questions, server::Role};

/// As many leaves stay, at least and at most.
const LEAVES: std::ops::RangeInclusive<usize> = 3..=5;
/// How long replicas may take to be copied, to catch up and to be removed.
const MOVED_WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);

/// A row with a count.
#[derive(Deserialize)]
struct Count {
    count: u64,
}

impl Plan {
    /// Adds a leaf or drains one. The replicas that move then are still under way when the next step comes.
    pub(super) async fn move_shards(&mut self, run: &Run) -> Result<()> {
        self.remove_drained(run).await?;
        let mut staying = self.server.nodes_of(Role::Leaf);
        staying.retain(|leaf| !self.draining.contains(&self.server.name(*leaf).to_owned()));
        let adds = match staying.len() {
            count if count <= *LEAVES.start() => true,
            count if count >= *LEAVES.end() => false,
            _ => self.rng.random_bool(0.5),
        };
        if adds {
            self.disturbances.add("leaves added");
            self.server.add(Role::Leaf)?;
            self.server.wait_until_ready(READY_WITHIN).await?;
            return change(run, "/v1/rebalance").await;
        }
        let leaf = staying[self.rng.random_range(0..staying.len())];
        let name = self.server.name(leaf).to_owned();
        self.disturbances.add("leaves drained");
        change(run, &format!("/v1/nodes/{name}/drain")).await?;
        self.draining.push(name);
        Ok(())
    }

    /// Stops and removes the drained leaves that hold no shards any more.
    async fn remove_drained(&mut self, run: &Run) -> Result<()> {
        for name in std::mem::take(&mut self.draining) {
            let held = json!({
                "sql": "SELECT count(*) AS count FROM rachis.replicas WHERE leaf = $1", "parameters": [name]
            });
            if count(run, held).await? > 0 {
                self.draining.push(name);
                continue;
            }
            self.server.remove(&name).await?;
            let began = Instant::now();
            // The aggregators may not have noticed yet that it was stopped.
            while let Err(error) = run.client.delete_node(&name).await {
                if began.elapsed() > READY_WITHIN {
                    return Err(error.context(format!("the drained {name} cannot be removed")));
                }
                tokio::time::sleep(POLL).await;
            }
            self.disturbances.add("drained leaves removed");
        }
        Ok(())
    }

    /// Kills a leaf, empties its disk and starts it again, once all it holds is held by another leaf, too.
    pub(super) async fn empty_disk(&mut self, run: &Run) -> Result<()> {
        wait_until_all_serve(run).await?;
        let leaves = self.server.nodes_of(Role::Leaf);
        let leaf = leaves[self.rng.random_range(0..leaves.len())];
        self.disturbances.add("disks emptied");
        self.server.kill(leaf).await?;
        self.server.empty_disk(leaf)?;
        self.server.spawn(leaf, None)?;
        self.server.wait_until_ready(READY_WITHIN).await
    }

    /// Waits until all moves have ended and every drained leaf is removed.
    pub(crate) async fn settle(&mut self, run: &Run) -> Result<()> {
        let began = Instant::now();
        loop {
            // What was planned while a leaf was away, or not planned for want of one, is planned now.
            let plan = run.client.post("/v1/rebalance", json!({})).await?;
            self.remove_drained(run).await?;
            let is_empty = |key: &str| plan[key].as_array().is_none_or(Vec::is_empty);
            let is_planned = ["moves", "retired", "unplaced"].into_iter().all(is_empty);
            if is_planned && self.draining.is_empty() && plan["under_way"] == 0 {
                return wait_until_all_serve(run).await;
            }
            if began.elapsed() > MOVED_WITHIN {
                let moves: Vec<Value> = run.client.rows(json!({ "sql": "SELECT * FROM rachis.moves" })).await?;
                bail!(
                    "the moves did not end within {MOVED_WITHIN:?}: {plan}; {moves:?}; draining: {:?}",
                    self.draining
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the same questions while one leaf after the other is away, so that every replica answers them. All answers
    /// must be the same. Returns those that are not.
    pub(crate) async fn ask_each_replica(&mut self, run: &Run, seed: u64) -> Result<Vec<String>> {
        let expected = questions::ask(run, seed).await?;
        let mut found = Vec::new();
        for leaf in self.server.nodes_of(Role::Leaf) {
            let name = self.server.name(leaf).to_owned();
            self.server.kill(leaf).await?;
            let answers = questions::ask(run, seed)
                .await
                .with_context(|| format!("while {name} is away"))?;
            let different = expected
                .iter()
                .zip(&answers)
                .filter(|(expected, answer)| expected != answer);
            found.extend(different.map(|(expected, answer)| {
                format!("while {name} is away the answer is {answer:?}, with it {expected:?}")
            }));
            self.server.spawn(leaf, None)?;
            self.server.wait_until_ready(READY_WITHIN).await?;
            wait_until_all_serve(run).await?;
        }
        Ok(found)
    }
}

/// Repeats a request that starts moves until it is accepted: after a kill of the broker or of a tailer, no change is accepted
/// for a moment.
async fn change(run: &Run, path: &str) -> Result<()> {
    let began = Instant::now();
    while let Err(error) = run.client.post(path, json!({})).await {
        if began.elapsed() > READY_WITHIN {
            return Err(error);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until every shard has its number of replicas that answer questions.
async fn wait_until_all_serve(run: &Run) -> Result<()> {
    let sql = format!(
        "SELECT count(*) AS count FROM (
            SELECT shard FROM rachis.replicas WHERE collection = '{COLLECTION}' GROUP BY shard
            HAVING count(*) FILTER (WHERE state = 'serving') < {})",
        run.replicas
    );
    let began = Instant::now();
    while count(run, json!({ "sql": sql })).await? > 0 {
        if began.elapsed() > MOVED_WITHIN {
            let replicas: Vec<Value> = run
                .client
                .rows(json!({ "sql": "SELECT * FROM rachis.replicas" }))
                .await?;
            bail!("replicas do not catch up within {MOVED_WITHIN:?}: {replicas:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn count(run: &Run, query: Value) -> Result<u64> {
    let rows: Vec<Count> = run.client.rows(query).await?;
    rows.first().map(|row| row.count).context("no row")
}
