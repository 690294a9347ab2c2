//! `benches distribution`: a join, a sort and groups of many rows on one aggregator and on two, each of which has one core.

use std::{
    fmt::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Settings, cluster::ClusterSize};

use super::{RunArgs, SuiteReport};
use crate::{
    report::{P50_MS, P99_MS, guarded, percentiles_ms},
    system::rachis::{ask_sql, wait_for_documents},
};

/// Documents of one push.
const PUSHED_AT_ONCE: u64 = 20_000;
const PUSHES_AT_ONCE: usize = 4;

/// What `benches distribution` measures.
#[derive(Debug, Args)]
pub struct DistributionArgs {
    /// Rows of the larger collection; the other one has a tenth
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Lets all processes use all cores
    #[arg(long)]
    all_cores: bool,
    #[command(flatten)]
    runs: RunArgs,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// Measures Rachis alone.
pub async fn distribution(arguments: &DistributionArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("distribution")?;
    report.note("2 leaves, 1 tailer, 2 aggregators; `two aggregators` compute together what they can, `one` alone");
    if !arguments.all_cores {
        report.note("each aggregator has one core, the other processes have both");
    }
    let result = guarded(measure(arguments, &mut report)).await;
    result.unwrap_or_else(|error| report.fail("distribution", &error));
    report.finish(arguments.json.as_deref())
}

async fn measure(arguments: &DistributionArgs, report: &mut SuiteReport) -> Result<()> {
    let size = ClusterSize {
        leaves: 2,
        tailers: 1,
        aggregators: 1,
    };
    let settings = Settings::default().one_replica();
    let settings = settings.with("RACHIS_AGGREGATOR__DISTRIBUTE_DOCUMENTS_MIN", 1);
    let mut cluster = Cluster::start(size, settings).await;
    for (name, rows) in [("facts", arguments.rows), ("parts", arguments.rows / 10)] {
        let path = format!("/v1/collections/{name}");
        cluster.json(Method::PUT, &path, json!({ "shards": 4 })).await?;
        load(&cluster, name, rows, arguments.rows / 10).await?;
        wait_for_documents(&cluster, name, rows).await?;
    }
    let mut answers: Vec<Vec<Vec<Value>>> = Vec::new();
    for (aggregators, how) in ["one", "two aggregators"].into_iter().enumerate() {
        let name = format!("aggregator-{}", aggregators + 1);
        if aggregators > 0 {
            cluster.add("aggregator", &name, &[]).await;
        }
        if !arguments.all_cores {
            pin(cluster.process(&name).pid(), aggregators)?;
        }
        for (question, (what, sql)) in questions(arguments.rows).into_iter().enumerate() {
            until_computed_by(&cluster, &sql, aggregators as u64 + 1).await?;
            let mut times = Vec::new();
            for _ in 0..arguments.runs.repetitions {
                let answer = ask_sql(&cluster, &sql).await?;
                times.push(answer.time);
                if answers.len() == question {
                    answers.push(answer.rows.clone());
                }
                ensure!(answers[question] == answer.rows, "{what}: the answers differ");
            }
            let (p50, p99) = percentiles_ms(times);
            report.add(what, how, "rachis", &[(P50_MS, p50), (P99_MS, p99)]);
        }
    }
    Ok(())
}

fn questions(rows: u64) -> [(&'static str, String); 3] {
    let (offset, limit) = (rows / 2, rows / 10);
    [
        (
            "a join",
            "select count(*) as n, sum(f.n) as s from facts f join parts p on f.k = p.k where f.n % 2 = 0".to_owned(),
        ),
        (
            "a sort",
            format!(
                "select count(*) as n, sum(n) as s from (select n, row_number() over (order by v, n) as r from facts) t
                 where r > {offset} and r <= {offset} + {limit}"
            ),
        ),
        (
            "groups",
            "select count(*) as n, max(c) as c from (select k, count(*) as c, min(v) as v from facts group by k) t"
                .to_owned(),
        ),
    ]
}

/// Pushes so many rows, each with one of so many keys, and with a value in no order.
async fn load(client: &Client, name: &str, rows: u64, keys: u64) -> Result<()> {
    let pushes = (0..rows).step_by(PUSHED_AT_ONCE as usize).map(|from| async move {
        let mut lines = String::new();
        for n in from..rows.min(from + PUSHED_AT_ONCE) {
            let (key, value) = (
                n.wrapping_mul(7_919) % keys.max(1),
                n.wrapping_mul(2_654_435_761) % 1_000_003,
            );
            writeln!(lines, r#"{{"n":{n},"k":{key},"v":"value {value}"}}"#)?;
        }
        client.push(name, lines).await.map(drop)
    });
    stream::iter(pushes)
        .buffer_unordered(PUSHES_AT_ONCE)
        .try_collect::<()>()
        .await
}

/// Asks until so many aggregators compute the answer: they look for each other every few seconds.
async fn until_computed_by(client: &Client, sql: &str, aggregators: u64) -> Result<()> {
    const WAIT_MAX: Duration = Duration::from_secs(60);
    let began = Instant::now();
    loop {
        let answer = client.query(sql, json!({})).await?;
        if answer.stats["aggregators"] == json!(aggregators) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < WAIT_MAX,
            "{} aggregators compute {sql}",
            answer.stats["aggregators"]
        );
    }
}

fn pin(process: u32, core: usize) -> Result<()> {
    let pinned = Command::new("taskset")
        .args([
            "--all-tasks",
            "--pid",
            "--cpu-list",
            &core.to_string(),
            &process.to_string(),
        ])
        .output()?;
    ensure!(
        pinned.status.success(),
        "taskset failed: {}",
        String::from_utf8_lossy(&pinned.stderr)
    );
    Ok(())
}
