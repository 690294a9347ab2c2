//! `benches deletes`: what it costs to delete half of all documents, and to let the first day of thirty expire: until it
//! is acknowledged, until the bytes are gone from the disk, and for questions that are asked beside it.

use std::{
    path::PathBuf,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use reqwest::Method;
use serde_json::json;
use tests::Client;

use super::SuiteReport;
use crate::{
    documents::{DocumentFile, DocumentSet},
    report::{P50_MS, guarded},
    system::{
        self, PushServer as _, RachisServer,
        rachis::{ask_sql, count_documents},
    },
};

const REMOVAL: &str = "a removal, beside a count of the same documents";
const BESIDE: &str = "questions beside a removal";
const ERASED_S: &str = "s until erased";
const OVER_IDLE: &str = "over idle";
const OVER_COUNT: &str = "over the count";
/// How long what was deleted is kept: an erasure that began before the questions beside the delete would blur both.
const KEPT: Duration = Duration::from_secs(5);
const ERASED_WITHIN: Duration = Duration::from_secs(600);
/// Questions that are asked before each removal.
const IDLE_QUESTIONS: usize = 30;
/// Asked again and again; its text differs each time, so that no answer is kept.
const QUESTION: &str = "select kind, count(*) as n from bluesky where time_us > {} group by 1 order by n desc, kind";

/// What `benches deletes` measures.
#[derive(Debug, Args)]
pub struct DeletesArgs {
    /// Bluesky-like documents
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures Rachis alone.
pub async fn deletes(arguments: &DeletesArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("deletes")?;
    let result = guarded(measure(arguments, &mut report)).await;
    result.unwrap_or_else(|error| report.fail("deletes", &error));
    report.finish(arguments.json.as_deref())
}

async fn measure(arguments: &DeletesArgs, report: &mut SuiteReport) -> Result<()> {
    let documents = DocumentFile::generate(DocumentSet::Bluesky, arguments.documents, arguments.seed)?;
    let mut server = RachisServer::start_with_erasure_after(KEPT).await;
    server.create(documents.set).await?;
    server.push_all(&documents).await?;
    system::settle(&server).await?;
    let client = server.client();
    let half = Removal {
        name: "half of all, every second one",
        condition: "time_us % 2 = 0".to_owned(),
        expires_before_ms: None,
    };
    measure_removal(client, &half, report).await?;
    system::settle(&server).await?;
    let day = first_day(client).await?;
    measure_removal(client, &day, report).await
}

struct Removal {
    name: &'static str,
    condition: String,
    /// The time before which they expire, in milliseconds since 1970; otherwise they are deleted.
    expires_before_ms: Option<i64>,
}

/// The documents of the first thirtieth of all time.
async fn first_day(client: &Client) -> Result<Removal> {
    let span = ask_sql(
        client,
        "select min(time_us) as first, max(time_us) as last from bluesky",
    )
    .await?;
    let of = |column: usize| span.rows[0][column].as_i64().context("a time");
    let before_ms = (of(0)? + (of(1)? - of(0)?) / 30) / 1_000;
    Ok(Removal {
        name: "a day of 30, by event time",
        condition: format!("time_us < {}", before_ms * 1_000),
        expires_before_ms: Some(before_ms),
    })
}

async fn measure_removal(client: &Client, removal: &Removal, report: &mut SuiteReport) -> Result<()> {
    let Removal { name, condition, .. } = removal;
    let count = format!("select count(*) as n from bluesky where {condition}");
    let mut counting = Vec::new();
    for _ in 0..5 {
        counting.push(ask_sql(client, &count).await?.time);
    }
    let before = count_documents(client, "bluesky").await?;
    let doomed = ask_sql(client, &count).await?.rows[0][0].as_u64().context("a count")?;
    let mut idle = Vec::new();
    for _ in 0..IDLE_QUESTIONS {
        idle.push(ask(client).await?);
    }
    let (acknowledged, until_acknowledged) = asking_beside(client, remove(client, removal)).await?;
    let left = count_documents(client, "bluesky").await?;
    // The clock goes on, so a few more may have expired.
    ensure!(
        doomed > 0 && before - left >= doomed && before - left <= doomed + doomed / 100,
        "{doomed} documents of {before} were to be removed, {left} are left"
    );
    tokio::time::sleep(KEPT).await;
    let (erased, until_erased) = asking_beside(client, until_erased(client)).await?;
    report.add_times(REMOVAL, name, "count", counting);
    report.add(
        REMOVAL,
        name,
        "removal",
        &[
            (P50_MS, acknowledged.as_secs_f64() * 1e3),
            (ERASED_S, erased.as_secs_f64()),
        ],
    );
    report.add_times(BESIDE, name, "idle", idle);
    report.add_times(BESIDE, name, "until it is acknowledged", until_acknowledged);
    report.add_times(BESIDE, name, "until it is erased", until_erased);
    let ratio =
        |table, system, to| Some(report.value(table, name, system, P50_MS)? / report.value(table, name, to, P50_MS)?);
    let ratios = [
        (REMOVAL, "removal", OVER_COUNT, ratio(REMOVAL, "removal", "count")),
        (
            BESIDE,
            "until it is acknowledged",
            OVER_IDLE,
            ratio(BESIDE, "until it is acknowledged", "idle"),
        ),
        (
            BESIDE,
            "until it is erased",
            OVER_IDLE,
            ratio(BESIDE, "until it is erased", "idle"),
        ),
    ];
    for (table, system, figure, ratio) in ratios {
        ratio
            .iter()
            .for_each(|ratio| report.add(table, name, system, &[(figure, *ratio)]));
    }
    Ok(())
}

/// A question that is asked anew each time. Returns how long its answer took.
async fn ask(client: &Client) -> Result<Duration> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    Ok(ask_sql(client, &QUESTION.replace("{}", &number.to_string()))
        .await?
        .time)
}

async fn remove(client: &Client, removal: &Removal) -> Result<Duration> {
    let started = Instant::now();
    match removal.expires_before_ms {
        Some(before_ms) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let kept_ms = i64::try_from(now.as_millis())? - before_ms;
            let settings = json!({ "time_path": "time_us", "retention": format!("{kept_ms}ms by event") });
            let answer = client.json(Method::PUT, "/v1/collections/bluesky", settings).await?;
            ensure!(answer["warnings"].is_null(), "{answer}");
        }
        None => {
            let body = json!({ "where": removal.condition });
            client
                .json(Method::POST, "/v1/collections/bluesky/delete", body)
                .await?;
        }
    }
    Ok(started.elapsed())
}

async fn until_erased(client: &Client) -> Result<Duration> {
    const POLL: Duration = Duration::from_millis(100);
    let started = Instant::now();
    loop {
        let left = "select count(*) from rachis.deletes where erased is distinct from true";
        let answer = client.query(left, json!({})).await?;
        if *answer.single_value() == json!(0) {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < ERASED_WITHIN, "not erased within {ERASED_WITHIN:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Asks questions until some work is done. Returns its result, and how long each question took.
async fn asking_beside<T>(client: &Client, work: impl Future<Output = Result<T>>) -> Result<(T, Vec<Duration>)> {
    let mut work = pin!(work);
    let mut times = Vec::new();
    loop {
        let mut question = pin!(ask(client));
        tokio::select! {
            result = &mut work => {
                // The last question began beside the work, too.
                times.push(question.await?);
                return Ok((result?, times));
            }
            time = &mut question => times.push(time?),
        }
    }
}
