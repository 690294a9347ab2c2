//! `benches rebalance`: what dashboards notice while documents come in, a leaf joins and takes its share, and is drained
//! again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tests::{Client, Cluster, Settings, cluster::ClusterSize};

use super::SuiteReport;
use crate::{
    documents::DocumentFile,
    feed::{FeedPlan, Marks, feed_kafka},
    github,
    report::{P50_MS, P99_MS, guarded, percentiles_ms},
    system::rachis::{ask_sql, wait_for_documents},
};

const BESIDE: &str = "dashboards";
const MOVES: &str = "moves";
const ALONE: &str = "no documents come in";
const WARM_UP: &str = "warm-up";
const BEFORE: &str = "before";
const JOINS: &str = "a leaf joins";
const BALANCED: &str = "balanced";
const DRAINED: &str = "it is drained";
const LEAVES: usize = 3;
/// Divided among three leaves and among four.
const SHARDS: usize = 12;
/// Documents come in for this long at least, and for a multiple of it.
const ROUND: Duration = Duration::from_secs(5);
/// The time that dashboards ask about. Documents come in for this long before each phase, so that all phases have as much to
/// answer about.
const ASKED_ABOUT: Duration = Duration::from_secs(30);
const ABOUT_BLUESKY: Questions = [
    (
        "events by collection",
        "select commit.collection as event, count(*) as n from bluesky \
         where _ingested > now() - interval '30 seconds' group by event order by n desc",
    ),
    (
        "users by collection",
        "select commit.collection as event, count(distinct did) as users from bluesky \
         where _ingested > now() - interval '30 seconds' group by event order by users desc",
    ),
    (
        "the newest posts",
        "select did, commit.record.text from bluesky where _ingested > now() - interval '30 seconds' \
         and commit.collection = 'app.bsky.feed.post' order by _ingested desc limit 50",
    ),
];
const ABOUT_GITHUB: Questions = [
    (
        "events by type",
        "select type as event, count(*) as n from gh \
         where _ingested > now() - interval '30 seconds' group by event order by n desc",
    ),
    (
        "users by type",
        "select type as event, count(distinct actor.login) as users from gh \
         where _ingested > now() - interval '30 seconds' group by event order by users desc",
    ),
    (
        "the newest pushes",
        "select actor.login, payload.commits[0].message from gh where _ingested > now() - interval '30 seconds' \
         and type = 'PushEvent' order by _ingested desc limit 50",
    ),
];
const WAIT_MAX: Duration = Duration::from_mins(15);

/// The name and the SQL of each question.
type Questions = [(&'static str, &'static str); 3];

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Events {
    /// Generated events of 370 bytes
    Bluesky,
    /// Real events of 2,300 bytes, copied
    Github,
}

impl Events {
    fn questions(self) -> &'static Questions {
        match self {
            Self::Bluesky => &ABOUT_BLUESKY,
            Self::Github => &ABOUT_GITHUB,
        }
    }

    /// So many documents, or slightly more if whole copies of the real events are needed.
    fn file(self, documents: u64, seed: u64) -> Result<DocumentFile> {
        match self {
            Self::Bluesky => DocumentFile::bluesky(documents, seed),
            Self::Github => {
                let events = tests::data::documents(github::FILE)?.len() as u64;
                DocumentFile::gh(documents.div_ceil(events))
            }
        }
    }
}

/// What `benches rebalance` measures.
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// What comes in
    #[arg(long, value_enum, default_value_t = Events::Bluesky)]
    events: Events,
    /// Documents that are there before
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// MB/s that come in from Kafka
    #[arg(long, default_value_t = 10)]
    rate: u64,
    /// Dashboards, which ask one question after the other
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    dashboards: u64,
    /// How often each dashboard asks its next question, in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    asks_every: u64,
    /// Seconds of what does not end by itself
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How often a leaf joins and is drained again, another one each time; the questions of all rounds count together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Bytes per second that each leaf copies at most
    #[arg(long, default_value_t = 64 << 20)]
    copy_bytes_per_second: u64,
    /// Shards that each leaf copies at once
    #[arg(long, default_value_t = 2)]
    copies_at_once: usize,
    /// Seconds for which documents come in before the first round: until leaves merge splits, too
    #[arg(long, default_value_t = 0)]
    warm_up: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// Measures Rachis alone.
pub async fn rebalance(arguments: &RebalanceArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("rebalance")?;
    report.note(format!(
        "{LEAVES} leaves, 1 tailer, 1 aggregator; {SHARDS} shards, each with 2 replicas; dashboards: {}, \
         each asks about the last half minute every {} ms",
        arguments.dashboards, arguments.asks_every
    ));
    let result = guarded(measure(arguments, &mut report)).await;
    result.unwrap_or_else(|error| report.fail("rebalance", &error));
    report.finish(arguments.json.as_deref())
}

/// What dashboards noticed, and what came in.
#[derive(Default)]
struct Noticed {
    times: Vec<Duration>,
    errors: Vec<String>,
    documents: u64,
    megabytes_per_second: Vec<f64>,
    /// Documents that were not in all shards yet at the end, at most.
    lag: u64,
}

impl Noticed {
    fn merge(&mut self, other: Self) {
        self.lag = self.lag.max(other.lag);
        self.times.extend(other.times);
        self.errors.extend(other.errors);
        self.documents += other.documents;
        self.megabytes_per_second.extend(other.megabytes_per_second);
    }
}

/// How long moves took, and how many replicas they were of.
#[derive(Default)]
struct Moved {
    time: Duration,
    replicas: usize,
}

impl Moved {
    fn merge(&mut self, other: &Self) {
        self.time += other.time;
        self.replicas += other.replicas;
    }
}

/// What is fed, and to whom dashboards talk.
struct Load<'a> {
    client: Client,
    bootstrap: String,
    documents: &'a DocumentFile,
    plan: FeedPlan,
    questions: &'static Questions,
    dashboards: u64,
    asks_every: Duration,
}

async fn measure(arguments: &RebalanceArgs, report: &mut SuiteReport) -> Result<()> {
    let plan = FeedPlan {
        megabytes_per_second: arguments.rate,
        time: ROUND,
    };
    let documents = arguments.events.file(arguments.documents, arguments.seed)?;
    let fed = arguments.events.file(plan.documents(), arguments.seed + 1)?;
    let size = ClusterSize {
        leaves: LEAVES,
        tailers: 1,
        aggregators: 1,
    };
    let settings = Settings::default()
        .with("RACHIS_LEAF__COPY_BYTES_PER_SECOND", arguments.copy_bytes_per_second)
        .with("RACHIS_LEAF__COPIES_AT_ONCE", arguments.copies_at_once);
    let mut cluster = Cluster::start(size, settings).await;
    let name = documents.set.name();
    let created = json!({ "shards": SHARDS, "replicas": 2 });
    cluster
        .json(Method::PUT, &format!("/v1/collections/{name}"), created)
        .await?;
    documents.produce(&cluster.kafka, i32::try_from(SHARDS)?).await?;
    let bootstrap = cluster.kafka.bootstrap();
    cluster.source("topic", name, name, &bootstrap, json!({})).await?;
    wait_for_documents(&cluster, name, documents.documents).await?;
    until_balanced(&cluster, LEAVES).await?;

    let load = Load {
        client: cluster.client_of("aggregator-1"),
        bootstrap,
        documents: &fed,
        plan,
        questions: arguments.events.questions(),
        dashboards: arguments.dashboards,
        asks_every: Duration::from_millis(arguments.asks_every),
    };
    let mut warmed_up = 0;
    let wait = async |seconds| {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(())
    };
    let (noticed, ()) = load.beside(false, wait(arguments.seconds)).await?;
    add(report, ALONE, &noticed, None);
    if arguments.warm_up > 0 {
        let (noticed, ()) = load.beside(true, wait(arguments.warm_up)).await?;
        tell(0, WARM_UP, &noticed, None);
        warmed_up = noticed.documents;
    }
    let [mut before, mut joining, mut balanced, mut draining] = std::array::from_fn(|_| Noticed::default());
    let [mut joined, mut drained] = std::array::from_fn(|_| Moved::default());
    for round in 1..=arguments.rounds {
        let (noticed, ()) = load.beside(true, wait(arguments.seconds)).await?;
        tell(round, BEFORE, &noticed, None);
        before.merge(noticed);

        let leaf = format!("leaf-{}", LEAVES as u64 + round);
        let (noticed, moved) = load
            .beside(true, async {
                cluster.add("leaf", &leaf, &[]).await;
                move_shards(&cluster, "/v1/rebalance").await
            })
            .await?;
        tell(round, JOINS, &noticed, Some(&moved));
        joining.merge(noticed);
        joined.merge(&moved);
        until_balanced(&cluster, LEAVES + 1).await?;
        let (noticed, ()) = load.beside(true, wait(arguments.seconds)).await?;
        tell(round, BALANCED, &noticed, None);
        balanced.merge(noticed);

        let drain = format!("/v1/nodes/{leaf}/drain");
        let (noticed, moved) = load.beside(true, move_shards(&cluster, &drain)).await?;
        tell(round, DRAINED, &noticed, Some(&moved));
        draining.merge(noticed);
        drained.merge(&moved);
        until_balanced(&cluster, LEAVES).await?;
    }
    let phases = [
        (BEFORE, &before, None),
        (JOINS, &joining, Some(&joined)),
        (BALANCED, &balanced, None),
        (DRAINED, &draining, Some(&drained)),
    ];
    for (what, noticed, moved) in phases {
        add(report, what, noticed, Some(&before));
        if let Some(moved) = moved {
            add_moves(report, what, moved);
        }
    }
    let fed: u64 = phases.iter().map(|(_, noticed, _)| noticed.documents).sum();
    wait_for_documents(&cluster, name, documents.documents + warmed_up + fed).await
}

impl Load<'_> {
    /// Does something while dashboards ask and, if so, documents come in.
    async fn beside<T>(&self, is_fed: bool, work: impl Future<Output = Result<T>>) -> Result<(Noticed, T)> {
        let ended = AtomicBool::new(false);
        let fed_before = match is_fed {
            true => ASKED_ABOUT,
            false => Duration::ZERO,
        };
        let asking = (0..self.dashboards as usize).map(async |number| {
            tokio::time::sleep(fed_before).await;
            self.ask_until(number, &ended).await
        });
        let feeding = async {
            let (mut documents, mut rates) = (0, Vec::new());
            while is_fed && !ended.load(Ordering::Relaxed) {
                let fed = feed_kafka(&self.bootstrap, self.documents, self.plan, Marks::default()).await?;
                documents += fed.documents;
                rates.push(fed.megabytes_per_second);
            }
            anyhow::Ok((documents, rates))
        };
        let working = async {
            tokio::time::sleep(fed_before).await;
            let done = work.await;
            ended.store(true, Ordering::Relaxed);
            done
        };
        let (asked, fed, done) = futures::join!(join_all(asking), feeding, working);
        let (documents, rates) = fed?;
        let mut noticed = Noticed {
            documents,
            megabytes_per_second: rates,
            lag: self.lag().await?,
            ..Noticed::default()
        };
        for (times, errors) in asked {
            noticed.times.extend(times);
            noticed.errors.extend(errors);
        }
        Ok((noticed, done?))
    }

    /// The documents that are in Kafka and not in all shards yet.
    async fn lag(&self) -> Result<u64> {
        let answer = ask_sql(&self.client, "select sum(lag) from rachis.sources").await?;
        answer.rows[0][0].as_u64().context("no tailer says how much it lags")
    }

    /// A dashboard: asks one question after the other, each at its time.
    async fn ask_until(&self, number: usize, ended: &AtomicBool) -> (Vec<Duration>, Vec<String>) {
        let (mut times, mut errors) = (Vec::new(), Vec::new());
        let mut ticks = tokio::time::interval(self.asks_every);
        for (name, sql) in self.questions.iter().cycle().skip(number) {
            ticks.tick().await;
            if ended.load(Ordering::Relaxed) {
                break;
            }
            match ask_sql(&self.client, sql).await {
                Ok(answer) => times.push(answer.time),
                Err(error) => errors.push(format!("{name}: {error:#}")),
            }
        }
        (times, errors)
    }
}

/// Says what a phase has shown: all of them together take long.
fn tell(round: u64, what: &str, noticed: &Noticed, moved: Option<&Moved>) {
    let (p50, p99) = percentiles_ms(noticed.times.clone());
    let (questions, errors, lag) = (noticed.times.len(), noticed.errors.len(), noticed.lag);
    let moved = moved.map_or(String::new(), |moved| {
        format!(", {} replicas in {:.0} s", moved.replicas, moved.time.as_secs_f64())
    });
    eprintln!(
        "rebalance: round {round}: {what}: p50 {p50:.0} ms, p99 {p99:.0} ms, {questions} questions, {errors} errors, \
         lag {lag}{moved}"
    );
}

/// Starts moves, and waits until they have ended.
async fn move_shards(cluster: &Cluster, path: &str) -> Result<Moved> {
    let began = Instant::now();
    let started = cluster.json(Method::POST, path, json!({})).await?;
    let replicas = started["moves"].as_array().map_or(0, Vec::len);
    ensure!(replicas > 0, "nothing moves: {started}");
    while ask_sql(cluster, "select count(*) from rachis.moves").await?.rows != [[json!(0)]] {
        ensure!(began.elapsed() < WAIT_MAX, "the moves do not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(Moved {
        time: began.elapsed(),
        replicas,
    })
}

/// Waits until the replicas are spread evenly over so many leaves, and all of them serve.
async fn until_balanced(client: &Client, leaves: usize) -> Result<()> {
    let sql = "select leaf, count(*) from rachis.replicas where state = 'serving' group by leaf";
    let (began, each) = (Instant::now(), json!(2 * SHARDS / leaves));
    loop {
        let rows = ask_sql(client, sql).await?.rows;
        if rows.len() == leaves && rows.iter().all(|row| row[1] == each) {
            return Ok(());
        }
        ensure!(began.elapsed() < WAIT_MAX, "{rows:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn add(report: &mut SuiteReport, what: &str, noticed: &Noticed, before: Option<&Noticed>) {
    for error in &noticed.errors {
        report.fail(what, &anyhow::anyhow!("{error}"));
    }
    let (p50, p99) = percentiles_ms(noticed.times.clone());
    let rates = &noticed.megabytes_per_second;
    let rate = rates.iter().fold(0.0, |sum, rate| sum + rate) / rates.len().max(1) as f64;
    let mut figures = vec![
        (P50_MS, p50),
        (P99_MS, p99),
        ("questions", noticed.times.len() as f64),
        ("errors", noticed.errors.len() as f64),
        ("MB/s in", rate),
        ("lag at the end", noticed.lag as f64),
    ];
    if let Some(before) = before {
        figures.push(("p99 over before", p99 / percentiles_ms(before.times.clone()).1));
    }
    report.add(BESIDE, what, "rachis", &figures);
}

fn add_moves(report: &mut SuiteReport, what: &str, moved: &Moved) {
    report.add(
        MOVES,
        what,
        "rachis",
        &[
            ("replicas", moved.replicas as f64),
            ("seconds", moved.time.as_secs_f64()),
        ],
    );
}
