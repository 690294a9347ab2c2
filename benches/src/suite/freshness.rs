//! `benches freshness`: how long until a question finds a record that comes in at a constant rate, while dashboards
//! ask; and how long a push of 100 documents takes, with the question that finds them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tests::{Client, Cluster, Kafka, Settings, cluster::ClusterSize, kafka::NewRecord};

use super::{PARTITIONS, SuiteReport, SystemArgs, SystemName};
use crate::{
    documents::{DocumentFile, DocumentSet},
    feed::{Fed, FeedPlan, Mark, Marks, feed_kafka, feed_push},
    footprint::usage,
    question::{JSONBENCH, Question},
    report::{P50_MS, P99_MS, guarded, percentiles_ms},
    system::{
        self, RachisServer, System as _,
        rachis::{ask_sql, marks_from, wait_for_documents},
    },
};

/// Systems that take documents as they come.
pub(super) const SERVERS: [SystemName; 3] = [SystemName::Rachis, SystemName::VictoriaLogs, SystemName::OpenSearch];
pub(super) const FRESHNESS: &str = "until a question finds it";
pub(super) const PUSH_100: &str = "a push of 100 documents";
pub(super) const VIA_KAFKA: &str = "rachis, from Kafka";
/// The time between two questions of the dashboards, and between two looks for marks.
const DASHBOARD_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long the last mark may take after the feed has ended.
const FIND_MAX: Duration = Duration::from_secs(60);
/// What everything is warmed up with.
const FIRST_DOCUMENT: &str = r#"{"kind":"first","time_us":1732206349000000}"#;
/// The first of so many parts of the marks are not counted: until then, everything warms up.
const WARMUP_PART: usize = 4;
/// Documents of a small push.
const PUSH_DOCUMENTS: usize = 100;

/// What `benches freshness` measures.
#[derive(Debug, Args)]
pub struct FreshnessArgs {
    /// Rates in MB/s
    #[arg(long, value_delimiter = ',', default_values_t = [1, 5, 10, 20])]
    rates: Vec<u64>,
    /// Seconds of each rate
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Pushes of 100 documents
    #[arg(long, default_value_t = 200)]
    pushes: usize,
    /// Measures a cluster of seven processes, too
    #[arg(long)]
    cluster: bool,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    systems: SystemArgs,
}

/// Measures Rachis from Kafka, and all servers by push.
pub async fn freshness(arguments: &FreshnessArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("freshness")?;
    let chosen = arguments.systems.chosen(&SERVERS, &mut report)?;
    report.note("DuckDB, chdb and tantivy are libraries: n/a");
    for megabytes_per_second in arguments.rates.iter().copied() {
        let plan = FeedPlan {
            megabytes_per_second,
            time: Duration::from_secs(arguments.seconds),
        };
        let documents = DocumentFile::bluesky(plan.documents(), arguments.seed)?;
        if chosen.contains(&SystemName::Rachis) {
            let result = guarded(one_process(&documents, plan, &mut report)).await;
            result.unwrap_or_else(|error| report.fail(&format!("{VIA_KAFKA} at {megabytes_per_second} MB/s"), &error));
        }
        if arguments.cluster {
            let result = guarded(seven_processes(&documents, plan, &mut report)).await;
            result.unwrap_or_else(|error| report.fail(&format!("a cluster at {megabytes_per_second} MB/s"), &error));
        }
        for &system in &chosen {
            eprintln!("{system}: pushes at {megabytes_per_second} MB/s");
            let result = guarded(by_push(system, &documents, plan, &mut report)).await;
            result.unwrap_or_else(|error| report.fail(&format!("{system} at {megabytes_per_second} MB/s"), &error));
        }
    }
    for system in chosen {
        let result = guarded(small_pushes(system, arguments, &mut report)).await;
        result.unwrap_or_else(|error| report.fail(&format!("{system}: {PUSH_100}"), &error));
    }
    report.finish(arguments.systems.json())
}

/// What is asked beside: JSONBench's first question.
fn dashboard() -> &'static Question {
    &JSONBENCH[0]
}

async fn one_process(documents: &DocumentFile, plan: FeedPlan, report: &mut SuiteReport) -> Result<()> {
    eprintln!("{VIA_KAFKA}: {} MB/s", plan.megabytes_per_second);
    let (kafka, server) = (Kafka::start().await, RachisServer::start().await);
    let before = usage(server.process_id())?;
    from_kafka(VIA_KAFKA, server.client(), &kafka, documents, plan, report).await?;
    let what = rate_name(plan);
    report.add_usage(FRESHNESS, &what, VIA_KAFKA, before, usage(server.process_id())?);
    Ok(())
}

async fn seven_processes(documents: &DocumentFile, plan: FeedPlan, report: &mut SuiteReport) -> Result<()> {
    let title = "rachis, seven processes";
    eprintln!("{title}: {} MB/s", plan.megabytes_per_second);
    let cluster = Cluster::start(ClusterSize::default(), Settings::default()).await;
    from_kafka(title, &cluster, &cluster.kafka, documents, plan, report).await
}

/// The name of a row.
pub(super) fn rate_name(plan: FeedPlan) -> String {
    format!("{} MB/s", plan.megabytes_per_second)
}

async fn from_kafka(
    title: &str,
    client: &Client,
    kafka: &Kafka,
    documents: &DocumentFile,
    plan: FeedPlan,
    report: &mut SuiteReport,
) -> Result<()> {
    let set = documents.set.name();
    follow_topic(client, kafka, set).await?;
    // A new consumer takes a second until its first record.
    let first = (0..PARTITIONS).map(|partition| NewRecord {
        partition: Some(partition),
        ..NewRecord::value(FIRST_DOCUMENT)
    });
    kafka.produce(set, first.collect()).await;
    wait_for_documents(client, set, PARTITIONS as u64).await?;
    let marks = Marks::default();
    let bootstrap = kafka.bootstrap();
    let feed = feed_kafka(&bootstrap, documents, plan, marks.clone());
    let look = |from| marks_from(client, set, from);
    let ask = || async { ask_sql(client, dashboard().rachis).await.map(|answer| answer.time) };
    let (fed, found, asked) = watch(feed, &marks, look, ask).await?;
    wait_for_documents(client, set, fed.documents + PARTITIONS as u64).await?;
    add_figures(title, plan, &fed, &marks.all(), &found, asked, report)
}

/// Creates a topic and a source that reads it.
pub(super) async fn follow_topic(client: &Client, kafka: &Kafka, topic: &str) -> Result<()> {
    kafka.create_topic(topic, PARTITIONS, &[]).await;
    let options = serde_json::json!({});
    client
        .source(&format!("{topic}-source"), topic, topic, &kafka.bootstrap(), options)
        .await
        .map(drop)
}

async fn by_push(system: SystemName, documents: &DocumentFile, plan: FeedPlan, report: &mut SuiteReport) -> Result<()> {
    let mut server = system.start_server().await?.context("no server")?;
    let set = documents.set;
    server.create(set).await?;
    server.push(set, format!("{FIRST_DOCUMENT}\n").into_bytes()).await?;
    system::wait_for_count(server.as_ref(), set, 1).await?;
    let (before, marks) = (usage(server.process_id())?, Marks::default());
    let running = server.as_ref();
    let feed = feed_push(running, documents, plan, marks.clone());
    let look = |from| running.marks_from(set, from);
    let ask = || async { running.ask(dashboard()).await.map(|answer| answer.time) };
    let (fed, found, asked) = watch(feed, &marks, look, ask).await?;
    let used = usage(server.process_id())?;
    system::wait_for_count(server.as_ref(), set, fed.documents - fed.refused + 1).await?;
    if fed.refused > 0 {
        report.note(format!(
            "{system}: {} of {} documents were refused at {}",
            fed.refused,
            fed.documents,
            rate_name(plan)
        ));
    }
    add_figures(system.as_str(), plan, &fed, &marks.all(), &found, asked, report)?;
    report.add_usage(FRESHNESS, &rate_name(plan), system, before, used);
    Ok(())
}

/// Runs a feed, looks for its marks and asks beside. Returns what was fed, when each mark was found, and how long the
/// dashboard's questions took.
async fn watch<F, L, A>(
    feed: F,
    marks: &Marks,
    look: impl Fn(u64) -> L,
    ask: impl Fn() -> A,
) -> Result<(Fed, Vec<Instant>, Vec<Duration>)>
where
    F: Future<Output = Result<Fed>>,
    L: Future<Output = Result<Vec<u64>>>,
    A: Future<Output = Result<Duration>>,
{
    let find = async {
        let mut found: Vec<Option<Instant>> = Vec::new();
        let mut last_progress = Instant::now();
        loop {
            let first_missing = found.iter().position(Option::is_none).unwrap_or(found.len());
            let visible = look(first_missing as u64).await?;
            let now = Instant::now();
            for number in visible.into_iter().map(|number| number as usize) {
                found.resize(found.len().max(number + 1), None);
                last_progress = now;
                found[number].get_or_insert(now);
            }
            ensure!(
                last_progress.elapsed() < FIND_MAX,
                "mark {first_missing} is not visible after {FIND_MAX:?}"
            );
            if marks.is_complete(found.iter().flatten().count()) {
                return anyhow::Ok(found.into_iter().flatten().collect::<Vec<Instant>>());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let fed = async {
        let fed = feed.await;
        marks.end();
        fed
    };
    let mut times = Vec::new();
    let asked = async {
        let mut ticks = tokio::time::interval(DASHBOARD_EVERY);
        loop {
            ticks.tick().await;
            times.push(ask().await?);
        }
    };
    let both = async { futures::try_join!(fed, find) };
    let result = tokio::select! {
        biased;
        result = both => result,
        // It only ends with an error.
        result = asked => {
            let result: Result<()> = result;
            return Err(result.err().context("the dashboard ended")?);
        }
    };
    let (fed, found) = result?;
    Ok((fed, found, times))
}

fn add_figures(
    title: &str,
    plan: FeedPlan,
    fed: &Fed,
    marks: &[Mark],
    found: &[Instant],
    asked: Vec<Duration>,
    report: &mut SuiteReport,
) -> Result<()> {
    ensure!(!marks.is_empty() && marks.len() == found.len(), "marks are missing");
    let warmup = marks.len() / WARMUP_PART;
    let (marks, found) = (&marks[warmup..], &found[warmup..]);
    let since_sent = marks.iter().zip(found).map(|(mark, found)| *found - mark.sent);
    let (p50, p99) = percentiles_ms(since_sent.collect());
    let acknowledged = marks
        .iter()
        .map(|mark| mark.acknowledged.context("a mark was not acknowledged"));
    let acknowledged: Vec<Instant> = acknowledged.collect::<Result<_>>()?;
    let since = acknowledged
        .iter()
        .zip(found)
        .map(|(at, found)| found.saturating_duration_since(*at));
    let (p50_acknowledged, p99_acknowledged) = percentiles_ms(since.collect());
    let (_, dashboard_p99) = percentiles_ms(asked);
    let figures = [
        ("MB/s reached", fed.megabytes_per_second),
        (P50_MS, p50),
        (P99_MS, p99),
        ("p50 ms after acknowledgement", p50_acknowledged),
        ("p99 ms after acknowledgement", p99_acknowledged),
        ("dashboard p99 ms", dashboard_p99),
    ];
    report.add(FRESHNESS, &rate_name(plan), title, &figures);
    Ok(())
}

/// Pushes 100 documents at a time and asks until a question finds them.
async fn small_pushes(system: SystemName, arguments: &FreshnessArgs, report: &mut SuiteReport) -> Result<()> {
    eprintln!("{system}: {PUSH_100}");
    let set = DocumentSet::Bluesky;
    let documents = DocumentFile::bluesky((arguments.pushes * PUSH_DOCUMENTS) as u64, arguments.seed)?;
    let mut server = system.start_server().await?.context("no server")?;
    server.create(set).await?;
    let before = usage(server.process_id())?;
    let mut lines = documents.lines()?;
    let (mut acknowledged, mut visible) = (Vec::new(), Vec::new());
    for number in 0..arguments.pushes {
        let mut body = format!("{{\"kind\":\"mark\",\"time_us\":1732206349000000,\"marker\":{number}}}\n");
        for line in lines.by_ref().take(PUSH_DOCUMENTS - 1) {
            body.push_str(&line?);
            body.push('\n');
        }
        let started = Instant::now();
        server.push(set, body.into_bytes()).await?;
        acknowledged.push(started.elapsed());
        while !server.marks_from(set, number as u64).await?.contains(&(number as u64)) {
            ensure!(
                started.elapsed() < FIND_MAX,
                "push {number} is not visible after {FIND_MAX:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        visible.push(started.elapsed());
    }
    let (p50, p99) = percentiles_ms(acknowledged);
    report.add(PUSH_100, "until acknowledged", system, &[(P50_MS, p50), (P99_MS, p99)]);
    report.add_times(PUSH_100, "acknowledged and found", system, visible);
    report.add_usage(
        PUSH_100,
        "acknowledged and found",
        system,
        before,
        usage(server.process_id())?,
    );
    Ok(())
}
