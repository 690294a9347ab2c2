//! A statement costs what its length says, whatever it is made of: 1 MB takes about a hundred times as long as 10 KB, or
//! it is refused in that time. A deadline and a cancel end it while it is still read or planned, and its memory returns.
//!
//! The same holds for statements of a few lines that nest a construct thirty times.
//!
//! Costs are the server's CPU time. A limit in seconds grows with how slow the machine is at that moment.

#[path = "growing_statements/nestings.rs"]
mod nestings;
#[path = "growing_statements/shapes.rs"]
mod shapes;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nestings::nestings;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use shapes::{SHAPES, Shape, list};
use tests::{Server, Settings, eventually, machine};

/// Lengths of statements, in bytes.
const LENGTHS: [usize; 3] = [10_000, 100_000, LONG_BYTES];
const LONG_BYTES: usize = 1_000_000;
/// A byte of a longer statement may cost this many times as much as a byte of the shortest one.
const GROWTH_MAX: f64 = 4.0;
/// A statement is run until it has taken this much CPU time, which is measured in hundredths of a second.
const MEASURED: Duration = Duration::from_millis(100);
/// Runs of one statement at the most.
const RUNS_MAX: u32 = 100;
/// The deadline of a long statement that is stopped, in milliseconds.
const DEADLINE_MS: u64 = 50;
/// CPU time of a statement after it was stopped.
const STOPPED_WITHIN: Duration = Duration::from_secs(1);
/// How many times a construct is nested.
const DEPTHS: [usize; 3] = [2, 9, 30];
/// CPU time of a nested statement, answered or refused.
const NESTED_WITHIN: Duration = Duration::from_secs(2);
/// Memory that may remain: plans, and what the allocator keeps.
const REMAINING_BYTES_MAX: u64 = 160 << 20;
/// Errors that a statement may get for its length.
const ERROR_CODES: [&str; 3] = ["limit_reached", "too_complex", "bad_sql"];
/// The error of a construct that exists, but not inside another one.
const NOT_SUPPORTED: &str = "not_supported";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_of_a_long_statement_costs_what_a_byte_of_a_short_one_costs() {
    let mut rng = StdRng::seed_from_u64(tests::seed());
    let server = server().await;
    let initial_bytes = server.process().anonymous_bytes().expect("its memory");
    let mut failures = Vec::new();
    let only = std::env::var("RACHIS_SHAPE").unwrap_or_default();
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(&only)) {
        match compare(&server, shape, &mut rng).await {
            Ok(line) => println!("{line}"),
            Err(error) => failures.push(format!("{}: {error:#}", shape.name)),
        }
    }
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), server.log_tail());
    println!("{}", wait_for_free_memory(&server, initial_bytes).await);
}

/// Runs statements of a shape, each longer than the one before, and compares what their bytes cost.
async fn compare(server: &Server, shape: &Shape, rng: &mut StdRng) -> Result<String> {
    let (mut line, mut shortest, mut growth_most) = (format!("{:<30}", shape.name), None, 0.0_f64);
    for bytes in LENGTHS {
        let sql = (shape.write)(bytes, rng);
        let (cost, outcome) = cost(server, &sql).await?;
        ensure!(outcome != NOT_SUPPORTED, "{line}: it is not supported");
        let byte = cost.as_secs_f64() / sql.len() as f64;
        growth_most = growth_most.max(byte / *shortest.get_or_insert(byte));
        line += &format!(" {:.1} ms ({outcome})", cost.as_secs_f64() * 1e3);
    }
    line += &format!("; at most {growth_most:.1} times a byte of the shortest");
    ensure!(growth_most <= GROWTH_MAX, "{line}");
    Ok(line)
}

/// The CPU time of a statement, and its outcome.
async fn cost(server: &Server, sql: &str) -> Result<(Duration, String)> {
    let (before, mut runs) = (server.process().cpu_time()?, 0);
    loop {
        let outcome = ask(server, sql, 60_000).await?;
        runs += 1;
        let cost = server.process().cpu_time()?.saturating_sub(before);
        if cost >= MEASURED || runs == RUNS_MAX {
            // Less than the clock shows is counted as half of its step.
            return Ok((cost.max(Duration::from_millis(5)) / runs, outcome));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_statement_ends_at_its_deadline_and_when_it_is_cancelled() {
    let mut rng = StdRng::seed_from_u64(tests::seed());
    let server = server().await;
    let mut longest = Duration::ZERO;
    for (number, shape) in SHAPES.iter().enumerate() {
        for (bytes, cancel) in [
            (100_000, false),
            (100_000, true),
            (LONG_BYTES, false),
            (LONG_BYTES, true),
        ] {
            let sql = (shape.write)(bytes, &mut rng);
            let cost = stopped(&server, &sql, number, cancel).await.expect(shape.name);
            longest = longest.max(cost);
            if let Some(cost) = beyond(STOPPED_WITHIN, cost) {
                let why = if cancel { "cancelled" } else { "due" };
                panic!("{}: {cost} after it was {why}", shape.name);
            }
        }
    }
    println!(
        "{} statements: at most {longest:?} of CPU time after they were stopped",
        4 * SHAPES.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_nests_a_construct_thirty_times_is_answered_or_refused_at_once() {
    let server = server().await;
    let (mut failures, mut longest, mut statements, mut answered) = (Vec::new(), Duration::ZERO, 0, 0);
    for nesting in nestings() {
        for depth in DEPTHS {
            let before = server.process().cpu_time().expect("its CPU time");
            let outcome = ask(&server, &nesting.write(depth), 60_000).await;
            let cost = server
                .process()
                .cpu_time()
                .expect("its CPU time")
                .saturating_sub(before);
            longest = longest.max(cost);
            statements += 1;
            answered += usize::from(matches!(outcome.as_deref(), Ok("answered")));
            let beyond = beyond(NESTED_WITHIN, cost);
            if outcome.is_err() || beyond.is_some() {
                failures.push(format!(
                    "{depth} times {} in {}: {beyond:?}, {outcome:?}",
                    nesting.construct, nesting.statement
                ));
                break;
            }
        }
    }
    println!("{statements} statements, {answered} answered, at most {longest:?} of CPU time");
    assert!(answered > statements / 2, "{answered} of {statements} were answered");
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), server.log_tail());
}

/// What a statement took, if that is more than the limit on a machine as slow as this one is now.
fn beyond(limit: Duration, cost: Duration) -> Option<String> {
    if cost <= limit {
        return None;
    }
    let slowness = machine::slowness();
    (cost > limit.mul_f64(slowness))
        .then(|| format!("{cost:?} of CPU time while the machine is {slowness:.1} times as slow"))
}

/// Starts a statement and stops it at once. Returns how much CPU time it took.
async fn stopped(server: &Server, sql: &str, number: usize, cancel: bool) -> Result<Duration> {
    let id = format!("00000000000050{:02}{:08}{number:08}", u8::from(cancel), sql.len());
    let timeout_ms = if cancel { 120_000 } else { DEADLINE_MS };
    let body = json!({ "sql": sql, "timeout_ms": timeout_ms, "query_id": id });
    let request = server.request(Method::POST, "/v1/sql").json(&body);
    let before = server.process().cpu_time()?;
    let query = tokio::spawn(async move {
        let answer = request.send().await?;
        // A long answer that has begun is cut off, as documented.
        let _ = answer.bytes().await;
        anyhow::Ok(())
    });
    let path = format!("/v1/queries/{id}");
    while cancel && !query.is_finished() {
        // It is not listed until its whole text has arrived.
        let cancelled = server.request(Method::DELETE, &path).send().await?;
        if cancelled.status().is_success() {
            break;
        }
    }
    query.await??;
    eventually("the statement is gone", || async {
        let sql = format!("SELECT count(*) FROM rachis.queries WHERE id = '{id}'");
        let listed = server.query(&sql, json!({})).await?;
        ensure!(listed.single_value() == 0, "it is still listed");
        Ok(())
    })
    .await;
    Ok(server.process().cpu_time()?.saturating_sub(before))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_plans_stay_within_their_limit_whatever_is_asked() {
    let mut rng = StdRng::seed_from_u64(tests::seed());
    let server = server().await;
    for _ in 0..5 {
        ask(&server, "SELECT count(*) FROM e", 60_000).await.expect("an answer");
    }
    let initial_bytes = server.process().anonymous_bytes().expect("its memory");
    for n in 0..1_500 {
        // Few of them are kept twice, as themselves and by their shape; all are as long as what is kept may be.
        let column = rng.random_range(0..1_000_000);
        let sql = match n % 3 {
            0 => format!(
                "SELECT {} FROM e WHERE w = 'x{column}'",
                list(150, |i| format!("n + {} AS c{i}", i + column))
            ),
            1 => format!(
                "SELECT count(*) AS c{column} FROM e WHERE w IN ({})",
                list(700, |i| format!("'t{i:05}'"))
            ),
            _ => format!(
                "SELECT /* {column} {} */ w FROM e WHERE w = 'a' AND id = 'b'",
                "x".repeat(8_000)
            ),
        };
        ask(&server, &sql, 60_000).await.expect("an answer");
    }
    println!("{}", wait_for_free_memory(&server, initial_bytes).await);
}

async fn wait_for_free_memory(server: &Server, initial_bytes: u64) -> String {
    let bytes = eventually("its memory is free again", || async {
        // The allocator returns the memory that a thread has freed when the thread runs next.
        ask(server, "SELECT count(*) FROM e", 60_000).await?;
        let bytes = server.process().anonymous_bytes()?;
        ensure!(
            bytes < initial_bytes + REMAINING_BYTES_MAX,
            "{initial_bytes} bytes at first, {bytes} now"
        );
        Ok(bytes)
    })
    .await;
    format!("memory: {} MB at first, {} MB now", initial_bytes >> 20, bytes >> 20)
}

/// Runs a statement. Returns how it ended: answered, or the code of an error that it may get.
async fn ask(server: &Server, sql: &str, timeout_ms: u64) -> Result<String> {
    let body = json!({ "sql": sql, "timeout_ms": timeout_ms });
    let answer = server.request(Method::POST, "/v1/sql").json(&body).send().await?;
    let (status, text) = (answer.status().as_u16(), answer.bytes().await?);
    let answer: Value = serde_json::from_slice(&text).context("an answer is JSON")?;
    if status == 200 {
        return Ok("answered".into());
    }
    let code = answer["code"].as_str().unwrap_or_default();
    ensure!(
        ERROR_CODES.contains(&code) || code == NOT_SUPPORTED,
        "{status} {answer}"
    );
    Ok(code.into())
}

/// A server with a few documents in `e`.
async fn server() -> Server {
    let server = Server::start(Settings::default()).await;
    let document = |n: usize| {
        format!(
            "{}\n",
            json!({ "n": n, "w": format!("w{n}"), "id": format!("i{n}"), "o": { "k": n } })
        )
    };
    server
        .push("e", (0..20).map(document).collect::<String>())
        .await
        .expect("pushed");
    server
}
