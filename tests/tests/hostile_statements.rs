//! No statement harms the node. A server that may use 4 GiB of address space gets statements that ask for far more
//! memory or time: some that once ended a server, and generated ones of the same kinds. Each gets an answer or an error
//! within its deadline, the server survives, and other clients are served meanwhile.

#[path = "hostile_statements/statements.rs"]
mod statements;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use statements::{generated, known};
use tests::{Server, Settings, eventually};

/// Address space of the server, in bytes.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Memory of one query.
const QUERY_BYTES: u64 = 256 << 20;
/// The deadline of a statement.
const DEADLINE: Duration = Duration::from_secs(2);
/// When an answer must be there: the deadline, the time that a query needs to notice it, and time for a slow machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// How often another client pushes a document and runs a small query.
const OTHERS_EVERY: Duration = Duration::from_millis(200);
/// How much of a long answer is read.
const READ_BYTES_MAX: usize = 64 << 20;
/// Prefix of the ids of statements that are stopped while they run.
const HOSTILE_IDS: &str = "0000000000004000";
/// Error codes that a hostile statement may get.
const ERROR_CODES: [&str; 5] = ["limit_reached", "too_complex", "timeout", "not_supported", "bad_sql"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_ends_the_server_or_outlives_its_deadline() {
    let requested: Option<usize> = std::env::var("RACHIS_STATEMENTS").ok().and_then(|n| n.parse().ok());
    // A short run always generates the same statements, a long one new ones.
    let mut rng = StdRng::seed_from_u64(tests::seed_or(|| if requested.is_some() { rand::random() } else { 1 }));
    let server = server().await;
    let initial_bytes = server.process().resident_bytes().expect("its memory");
    let statements: Vec<String> = known()
        .into_iter()
        .chain((0..requested.unwrap_or(40)).map(|_| generated(&mut rng)))
        .collect();
    let finished = AtomicBool::new(false);
    let begun = Instant::now();
    let (mut failures, served) = tokio::join!(
        async {
            let failures = run_all(&server, &statements).await;
            finished.store(true, Ordering::SeqCst);
            failures
        },
        serve_others(&server, &finished)
    );
    let served = served.unwrap_or_else(|error| {
        failures.push(format!("other clients: {error:#}"));
        0
    });
    assert!(
        failures.is_empty(),
        "{} of {} statements:\n{}\n{}",
        failures.len(),
        statements.len(),
        failures.join("\n"),
        server.log_tail()
    );
    let offered = begun.elapsed().as_secs_f64() / OTHERS_EVERY.as_secs_f64();
    println!(
        "others: {:.0} % of {} pushes and queries a second",
        served as f64 / offered * 100.0,
        1.0 / OTHERS_EVERY.as_secs_f64()
    );
    assert!(served > statements.len() / 10, "other clients were hardly served");
    eventually("no query is left", || async {
        let running = server.query("SELECT count(*) FROM rachis.queries", json!({})).await?;
        ensure!(running.single_value() == 1, "{:?}", running.rows);
        Ok(())
    })
    .await;
    wait_for_free_memory(&server, initial_bytes).await;
}

/// Runs the statements one after another and returns the failures.
async fn run_all(server: &Server, statements: &[String]) -> Vec<String> {
    let mut failures = Vec::new();
    for sql in statements {
        if let Err(error) = run(server, sql).await {
            failures.push(format!("{}: {error:#}", start_of(sql, 300)));
        }
    }
    failures
}

/// Pushes documents and counts them until the statements are finished or a request fails. Returns how often.
async fn serve_others(server: &Server, finished: &AtomicBool) -> Result<usize> {
    let mut pace = tokio::time::interval(OTHERS_EVERY);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut served = 0;
    while !finished.load(Ordering::SeqCst) {
        pace.tick().await;
        server
            .push("others", format!("{{\"n\":{served}}}\n"))
            .await
            .with_context(|| format!("push {served} is not acknowledged"))?;
        served += 1;
        let count = server
            .query("SELECT count(*) FROM others", json!({ "timeout_ms": 30_000 }))
            .await
            .with_context(|| format!("a small query after push {served} is not answered"))?;
        ensure!(
            count.single_value() == served,
            "{served} documents are acknowledged, {} are visible",
            count.single_value()
        );
    }
    Ok(served)
}

async fn wait_for_free_memory(server: &Server, initial_bytes: u64) {
    eventually("its memory is free again", || async {
        // The allocator returns the memory that a thread has freed when the thread runs next.
        ensure!(running(server).await? == 0, "a statement runs");
        let bytes = server.process().resident_bytes()?;
        ensure!(
            bytes < initial_bytes + QUERY_BYTES,
            "{initial_bytes} bytes at first, {bytes} now"
        );
        Ok(())
    })
    .await;
}

fn start_of(sql: &str, chars_max: usize) -> String {
    sql.chars().take(chars_max).collect()
}

/// How a running statement is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopReason {
    Disconnect,
    Cancel,
    Deadline,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_statement_frees_its_memory_soon_however_it_is_stopped() {
    let server = server().await;
    let initial_bytes = server.process().resident_bytes().expect("its memory");
    let (mut stopped_while_running, mut longest) = (0, Duration::ZERO);
    let statements = known();
    for (number, sql) in statements.iter().enumerate() {
        let reason = [StopReason::Disconnect, StopReason::Cancel, StopReason::Deadline][number % 3];
        let was_running = start_and_stop(&server, number, sql, reason).await;
        let stopped = Instant::now();
        eventually(&format!("{sql} holds nothing after {reason:?}"), || async {
            let running = running(&server).await?;
            ensure!(running == 0, "{running} run");
            let reserved = reserved_bytes(&server).await?;
            ensure!(reserved == 0.0, "{reserved} bytes");
            Ok(())
        })
        .await;
        longest = longest.max(stopped.elapsed());
        assert!(
            longest < ANSWERED_WITHIN,
            "{sql} held memory for {longest:?} after {reason:?}"
        );
        if std::env::var_os("RACHIS_VERBOSE").is_some() {
            eprintln!("{:?} after {reason:?}: {}", stopped.elapsed(), start_of(sql, 100));
        }
        stopped_while_running += usize::from(was_running);
    }
    println!(
        "{stopped_while_running} of {} statements were stopped while running; each freed its memory within {longest:?}",
        statements.len()
    );
    assert!(
        stopped_while_running > statements.len() / 3,
        "only {stopped_while_running} were stopped while they ran"
    );
    wait_for_free_memory(&server, initial_bytes).await;
}

/// Starts a statement and stops it while it runs. Returns whether it was seen running.
async fn start_and_stop(server: &Server, number: usize, sql: &str, reason: StopReason) -> bool {
    let id = format!("{HOSTILE_IDS}{number:016}");
    let timeout_ms = if reason == StopReason::Deadline { 300 } else { 60_000 };
    let body = json!({ "sql": sql, "timeout_ms": timeout_ms, "query_id": id });
    let request = server.request(Method::POST, "/v1/sql").json(&body);
    let mut query = tokio::spawn(async move {
        let mut answer = request.send().await?;
        while answer.chunk().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    });
    let runs = || async {
        let running = running(server).await?;
        ensure!(running == 1, "{running} run");
        Ok(())
    };
    let what = format!("{sql} runs");
    let was_running = tokio::select! {
        _ = &mut query => false,
        () = eventually(&what, runs) => true,
    };
    match reason {
        StopReason::Disconnect => query.abort(),
        StopReason::Cancel => {
            // The statement may have ended in the meantime.
            let _cancelled = server
                .request(Method::DELETE, &format!("/v1/queries/{id}"))
                .send()
                .await
                .expect("an answer");
        }
        StopReason::Deadline if was_running => drop((&mut query).await),
        StopReason::Deadline => {}
    }
    was_running
}

/// How many of the stopped statements still run.
async fn running(server: &Server) -> Result<u64> {
    let running = server
        .query(
            &format!("SELECT count(*) FROM rachis.queries WHERE id LIKE '{HOSTILE_IDS}%'"),
            json!({}),
        )
        .await?;
    running.single_value().as_u64().context("a number")
}

/// The memory that queries have reserved, as the server reports it.
async fn reserved_bytes(server: &Server) -> Result<f64> {
    let metrics = server.request(Method::GET, "/metrics").send().await?.text().await?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rachis_queries_memory_bytes "))
        .context("the metric is missing")?;
    Ok(line.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_shuts_down_while_a_hostile_statement_runs() {
    let mut server = server().await;
    let url = server.url().to_owned();
    let query = tokio::spawn(async move {
        let sql = "SELECT count(*) FROM e AS a, e AS b, e AS c, e AS d WHERE a.n + b.n + c.n + d.n = -1";
        let body = json!({ "sql": sql, "timeout_ms": 600_000 });
        reqwest::Client::new()
            .post(format!("{url}/v1/sql"))
            .json(&body)
            .send()
            .await
            .map(|answer| answer.status().as_u16())
    });
    eventually("the statement runs", || async {
        let running = server.query("SELECT count(*) FROM rachis.queries", json!({})).await?;
        ensure!(running.single_value() == 2, "{:?}", running.rows);
        Ok(())
    })
    .await;
    server.stop();
    let status = query.await.expect("no panic");
    assert!(
        !status.is_ok_and(|status| status == 200),
        "the statement must not succeed"
    );
}

/// A server with small limits and 20,020 documents in `e`, the last 20 of them large.
async fn server() -> Server {
    let settings = Settings {
        address_space: Some(ADDRESS_SPACE),
        ..Settings::default()
    };
    let settings = settings
        .with("RACHIS_AGGREGATOR__QUERY_BYTES_MAX", QUERY_BYTES)
        .with("RACHIS_AGGREGATOR__QUERIES_BYTES_MAX", 2 * QUERY_BYTES);
    let server = Server::start(settings).await;
    let words = ["alpha", "beta", "gamma", "delta"];
    let lines = |from: usize, to: usize, text: usize| -> String {
        let line = |n: usize| {
            let list: Vec<usize> = (0..n % 20).collect();
            let pattern = format!("(a{{{}}}){{10}}", n % 500);
            format!(
                "{}\n",
                json!({ "n": n, "w": words[n % 4], "t": "ab ".repeat(text), "l": list, "p": pattern, "o": { "k": n } })
            )
        };
        (from..to).map(line).collect()
    };
    for piece in 0..10 {
        server
            .push("e", lines(piece * 2_000, piece * 2_000 + 2_000, 20))
            .await
            .expect("pushed");
    }
    server.push("e", lines(20_000, 20_020, 100_000)).await.expect("pushed");
    server
}

/// Runs a statement, which must get an answer or a documented error in time.
async fn run(server: &Server, sql: &str) -> Result<()> {
    let begun = Instant::now();
    let body = json!({ "sql": sql, "timeout_ms": DEADLINE.as_millis() as u64 });
    let verbose = std::env::var_os("RACHIS_VERBOSE").is_some();
    if verbose {
        eprintln!("{sql}");
    }
    let mut answer = server
        .request(Method::POST, "/v1/sql")
        .json(&body)
        .timeout(ANSWERED_WITHIN)
        .send()
        .await
        .context("no answer")?;
    let status = answer.status().as_u16();
    let mut read = Vec::new();
    // A long answer is sent for as long as the client reads it. This client stops when it has seen enough.
    while read.len() < READ_BYTES_MAX {
        match answer.chunk().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            Ok(None) => break,
            // An answer that has begun is cut off at the deadline or a limit; the client sees that its end is missing.
            Err(_) if status == 200 && server.log_tail().contains("an answer ended early") => break,
            Err(error) => return Err(error).context("the answer broke off"),
        }
    }
    if verbose {
        let text: String = String::from_utf8_lossy(&read).chars().take(200).collect();
        eprintln!(
            "    {:?} {status} {} MB: {text}",
            begun.elapsed(),
            server.process().resident_bytes()? >> 20
        );
    }
    if status == 200 {
        return Ok(());
    }
    let problem: Value = serde_json::from_slice(&read).context("a problem is JSON")?;
    let code = problem["code"].as_str().unwrap_or_default();
    ensure!(ERROR_CODES.contains(&code), "{status} {problem}");
    Ok(())
}
