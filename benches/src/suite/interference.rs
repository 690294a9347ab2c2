//! `benches interference`: what documents that come in do to questions, and what point questions a system answers
//! meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tests::Kafka;

use super::{PARTITIONS, SuiteReport, SystemArgs, SystemName, freshness::rate_name};
use crate::{
    documents::{DocumentFile, DocumentSet},
    feed::{Fed, FeedPlan, Marks, feed_kafka, feed_push},
    footprint::{reset_peaks, usage},
    question::{JSONBENCH, Question},
    report::{P99_MS, guarded, percentiles_ms},
    system::{
        self, PushServer, RachisServer, System,
        http::timed,
        rachis::{ask_sql, sql_request},
    },
};

pub(super) const BESIDE: &str = "questions beside ingest";
pub(super) const OVER_IDLE: &str = "p99 over idle";
pub(super) const ALL_QUESTIONS: &str = "all";
pub(super) const POINT: &str = "point questions beside ingest";
pub(super) const BY_ID: &str = "a document by id";
pub(super) const BY_FIELD: &str = "a document by a field's value";
pub(super) const PER_SECOND: &str = "questions / s";
/// The limit: a request that computes nothing.
const NOTHING: &str = "nothing (the limit of the client)";
/// The field by which documents are looked up; nearly all have one, and it is unique.
const FIELD: &str = "commit.cid";
/// Documents that are looked up.
const LOOKED_UP: usize = 2_000;

/// What `benches interference` measures.
#[derive(Debug, Args)]
pub struct InterferenceArgs {
    /// Documents that are there before
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// MB/s beside questions
    #[arg(long, default_value_t = 20)]
    rate: u64,
    /// MB/s beside point questions
    #[arg(long, default_value_t = 5)]
    point_rate: u64,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Clients that ask point questions at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    systems: SystemArgs,
}

impl InterferenceArgs {
    fn plan(&self, megabytes_per_second: u64) -> FeedPlan {
        FeedPlan {
            megabytes_per_second,
            time: Duration::from_secs(self.seconds),
        }
    }
}

/// Measures Rachis, from Kafka, and VictoriaLogs, by push.
pub async fn interference(arguments: &InterferenceArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("interference")?;
    let systems = [SystemName::Rachis, SystemName::VictoriaLogs];
    let chosen = arguments.systems.chosen(&systems, &mut report)?;
    report.note("OpenSearch refuses a third of these documents: n/a");
    let plans = [arguments.plan(arguments.rate), arguments.plan(arguments.point_rate)];
    let documents = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    let most = plans.iter().map(FeedPlan::documents).max().unwrap_or_default();
    let fed = DocumentFile::bluesky(most, arguments.seed + 1)?;
    for system in chosen {
        let result = match system {
            SystemName::Rachis => guarded(measure_rachis(arguments, &documents, &fed, &mut report)).await,
            _ => guarded(measure_rival(system, arguments, &documents, &fed, &mut report)).await,
        };
        result.unwrap_or_else(|error| report.fail(system.as_str(), &error));
    }
    report.finish(arguments.systems.json())
}

async fn measure_rachis(
    arguments: &InterferenceArgs,
    documents: &DocumentFile,
    fed: &DocumentFile,
    report: &mut SuiteReport,
) -> Result<()> {
    let (kafka, server) = (Kafka::start().await, RachisServer::start().await);
    let set = documents.set;
    documents.produce(&kafka, PARTITIONS).await?;
    server.load_from_kafka(&kafka, documents).await?;
    system::settle(&server).await?;
    let feed = async |plan| feed_kafka(&kafka.bootstrap(), fed, plan, Marks::default()).await;
    measure_beside(SystemName::Rachis, &server, arguments, feed, report).await?;
    let ids = ask_sql(server.client(), &format!("select _id from bluesky limit {LOOKED_UP}"))
        .await?
        .rows;
    let by_id = ids.iter().filter_map(|row| {
        let id = row.first()?.as_str()?;
        let path = format!("/v1/collections/{}/documents/{}", set.name(), id.replace('/', "%2F"));
        Some((server.client().request(Method::GET, &path), String::new()))
    });
    let nothing = (sql_request(server.client(), "select 1 as one"), "1".to_owned());
    let lookups = [
        (
            NOTHING,
            vec![(server.client().request(Method::GET, "/readyz"), String::new())],
        ),
        ("a statement without documents", vec![nothing]),
        (BY_ID, by_id.collect()),
        (BY_FIELD, lookups(&server, documents)?),
    ];
    measure_points(SystemName::Rachis, &server, arguments, lookups, feed, report).await
}

async fn measure_rival(
    system: SystemName,
    arguments: &InterferenceArgs,
    documents: &DocumentFile,
    fed: &DocumentFile,
    report: &mut SuiteReport,
) -> Result<()> {
    let mut server = system.start_server().await?.context("no server")?;
    let loaded = server.load(documents).await?;
    ensure!(loaded.refused == 0, "it refused {} documents", loaded.refused);
    let running = server.as_ref();
    system::settle(running).await?;
    let feed = async |plan| feed_push(running, fed, plan, Marks::default()).await;
    measure_beside(system, running, arguments, feed, report).await?;
    let lookups = [(BY_FIELD, lookups(running, documents)?)];
    measure_points(system, running, arguments, lookups, feed, report).await
}

/// Asks JSONBench's questions one after the other: idle, beside a feed into the same documents, and idle again. What is
/// beside is compared with idle afterwards, when there are most documents.
async fn measure_beside(
    system: SystemName,
    running: &dyn PushServer,
    arguments: &InterferenceArgs,
    feed: impl AsyncFn(FeedPlan) -> Result<Fed>,
    report: &mut SuiteReport,
) -> Result<()> {
    let plan = arguments.plan(arguments.rate);
    eprintln!("{system}: questions, idle and beside {}", rate_name(plan));
    ask_in_turn(running, async { tokio::time::sleep(plan.time / 4).await }).await?;
    let (_, before) = ask_in_turn(running, tokio::time::sleep(plan.time)).await?;
    let count = running.count(DocumentSet::Bluesky).await?;
    reset_peaks(running.process_id())?;
    let used = usage(running.process_id())?;
    let (fed, beside) = ask_in_turn(running, feed(plan)).await?;
    let used_after = usage(running.process_id())?;
    let fed = fed?;
    system::wait_for_count(running, DocumentSet::Bluesky, count + fed.documents).await?;
    system::settle(running).await?;
    let (_, after) = ask_in_turn(running, tokio::time::sleep(plan.time)).await?;
    let rate = rate_name(plan);
    let all = |times: &[Vec<Duration>]| times.iter().flatten().copied().collect::<Vec<Duration>>();
    let totals = (ALL_QUESTIONS, [all(&before), all(&beside), all(&after)]);
    let each = JSONBENCH.iter().zip(before.into_iter().zip(beside).zip(after));
    let each = each.map(|(question, ((before, beside), after))| (question.name, [before, beside, after]));
    for (name, times) in each.chain([totals]) {
        if times.iter().any(Vec::is_empty) {
            report.note(format!("{system}: {name} was not answered in time beside {rate}"));
            continue;
        }
        let [(p50_before, p99_before), (p50_beside, p99_beside), (_, p99_after)] = times.map(percentiles_ms);
        let figures = [
            ("idle p50 ms", p50_before),
            ("idle p99 ms", p99_before),
            ("beside p50 ms", p50_beside),
            ("beside p99 ms", p99_beside),
            ("idle after p99 ms", p99_after),
            (OVER_IDLE, p99_beside / p99_after),
        ];
        report.add(BESIDE, name, system, &figures);
    }
    report.add(
        BESIDE,
        ALL_QUESTIONS,
        system,
        &[("MB/s reached", fed.megabytes_per_second)],
    );
    report.add_usage(BESIDE, ALL_QUESTIONS, system, used, used_after);
    Ok(())
}

/// Asks the questions in turn until the future is ready. Returns its output and the times of each question.
async fn ask_in_turn<F: Future>(running: &dyn System, until: F) -> Result<(F::Output, Vec<Vec<Duration>>)> {
    let mut times = vec![Vec::new(); JSONBENCH.len()];
    let asking = async {
        loop {
            for (question, times) in JSONBENCH.iter().zip(&mut times) {
                times.push(ask(running, question).await?);
            }
        }
    };
    let output = tokio::select! {
        output = until => output,
        result = asking => {
            let result: Result<()> = result;
            return Err(result.err().context("asking ended")?);
        }
    };
    Ok((output, times))
}

async fn ask(running: &dyn System, question: &Question) -> Result<Duration> {
    let answer = running.ask(question).await.context(question.name)?;
    ensure!(!answer.rows.is_empty(), "{} has no answer", question.name);
    Ok(answer.time)
}

/// A request for a document, and a text that its answer must contain.
type Lookup = (RequestBuilder, String);

fn lookups(running: &dyn PushServer, documents: &DocumentFile) -> Result<Vec<Lookup>> {
    let mut lookups = Vec::new();
    let step = (documents.documents as usize / LOOKED_UP).max(1);
    for line in documents.lines()?.step_by(step) {
        let document: Value = serde_json::from_str(&line?)?;
        if let Some(cid) = document["commit"]["cid"].as_str() {
            lookups.push((running.lookup(documents.set, FIELD, cid), cid.to_owned()));
        }
    }
    Ok(lookups)
}

/// Several clients look documents up, idle and beside a feed.
async fn measure_points<const N: usize>(
    system: SystemName,
    running: &dyn PushServer,
    arguments: &InterferenceArgs,
    lookups: [(&str, Vec<Lookup>); N],
    feed: impl AsyncFn(FeedPlan) -> Result<Fed>,
    report: &mut SuiteReport,
) -> Result<()> {
    let plan = arguments.plan(arguments.point_rate);
    for (name, lookups) in lookups {
        eprintln!("{system}: {name}, beside {}", rate_name(plan));
        let before = usage(running.process_id())?;
        let asked = ask_clients(&lookups, arguments.clients, plan.time);
        let (asked, fed) = futures::try_join!(asked, feed(plan))?;
        let rate = asked.len() as f64 / plan.time.as_secs_f64();
        let (p50, p99) = percentiles_ms(asked);
        let figures = [
            ("MB/s reached", fed.megabytes_per_second),
            (PER_SECOND, rate),
            ("p50 ms", p50),
            (P99_MS, p99),
        ];
        report.add(POINT, name, system, &figures);
        report.add_usage(POINT, name, system, before, usage(running.process_id())?);
    }
    Ok(())
}

/// Sends requests from several clients at once for so long. Returns the time of each.
async fn ask_clients(lookups: &[Lookup], clients: u64, time: Duration) -> Result<Vec<Duration>> {
    ensure!(!lookups.is_empty(), "there is nothing to look up");
    let started = Instant::now();
    let client = |number: u64| {
        let skip = (number as usize * lookups.len()) / clients as usize;
        let own: Vec<Lookup> = lookups
            .iter()
            .cycle()
            .skip(skip)
            .take(lookups.len())
            .filter_map(|(request, text)| Some((request.try_clone()?, text.clone())))
            .collect();
        tokio::spawn(async move {
            let mut times = Vec::new();
            for (request, text) in own.iter().cycle() {
                if started.elapsed() >= time {
                    break;
                }
                let request = request.try_clone().context("the request cannot be sent twice")?;
                let (body, time) = timed(request).await?;
                let is_right = body
                    .windows(text.len().max(1))
                    .any(|part| text.is_empty() || part == text.as_bytes());
                ensure!(is_right, "no {text} in {}", String::from_utf8_lossy(&body));
                times.push(time);
            }
            anyhow::Ok(times)
        })
    };
    let mut times = Vec::new();
    for client in (0..clients).map(client).collect::<Vec<_>>() {
        times.extend(client.await??);
    }
    ensure!(!times.is_empty(), "no answer within {time:?}");
    Ok(times)
}
