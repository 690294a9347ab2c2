//! Read-your-writes: every query that starts after an acknowledgement sees the acknowledged document, also under
//! concurrent ingest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Server, Settings};
use tokio_util::sync::CancellationToken;

/// Concurrent clients that push and query.
const CLIENTS: u64 = 4;

/// 1,000 rounds by default; `RACHIS_FRESH_ROUNDS=10000` for the long run.
fn rounds() -> u64 {
    std::env::var("RACHIS_FRESH_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_starts_after_an_acknowledgement_sees_the_document() {
    let server = Arc::new(Server::start(Settings::default().small_splits()).await);
    server
        .push("events", "{\"round\":-1,\"word\":\"first\"}")
        .await
        .expect("a collection");
    let done = CancellationToken::new();
    let background = tokio::spawn(ingest_in_background(server.clone(), done.clone()));
    let next = Arc::new(AtomicU64::new(0));
    let rounds = rounds();
    let clients = (0..CLIENTS).map(|_| {
        let (server, next) = (server.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let round = next.fetch_add(1, Ordering::Relaxed);
                if round >= rounds {
                    return;
                }
                push_then_query(&server, round)
                    .await
                    .unwrap_or_else(|miss| panic!("round {round}: {miss:#}"));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("every round sees what it pushed");
    }
    done.cancel();
    let pushed = background
        .await
        .expect("background ingest does not panic")
        .expect("every push is accepted");
    assert!(
        pushed >= rounds / 4,
        "only {pushed} documents were ingested during {rounds} rounds"
    );
    println!("{rounds} rounds, {pushed} documents in the background, 0 misses");
}

/// Pushes one document, then reads it back; the kind of read rotates with the round.
async fn push_then_query(server: &Server, round: u64) -> Result<()> {
    let document = format!(
        "{{\"round\": {round}, \"word\":\"round r{round} seen\", \"even\":{}}}",
        round.is_multiple_of(2)
    );
    let answer = server.push("events", document.clone()).await?;
    ensure!(answer["accepted"] == json!(1), "{answer}");
    match round % 4 {
        0 => {
            let count = server
                .query(
                    &format!("SELECT count(*) AS c FROM events WHERE round = {round}"),
                    json!({}),
                )
                .await?;
            ensure!(count.rows == [[json!(1)]], "{count:?}");
        }
        1 => {
            let hits = server
                .get(&format!("/v1/collections/events/search?q=word:r{round}"))
                .await?;
            ensure!(
                hits["total"] == json!(1) && hits["hits"][0]["document"]["round"] == json!(round),
                "{hits}"
            );
        }
        2 => {
            let at = answer["position"].as_str().unwrap_or_default();
            let found = server.document("events", at).await?;
            ensure!(found.as_deref() == Some(document.as_bytes()), "{at}: {found:?}");
        }
        _ => {
            let newest = server
                .query("SELECT max(round) AS newest FROM events", json!({}))
                .await?;
            ensure!(newest.rows[0][0].as_u64() >= Some(round), "{newest:?}");
        }
    }
    Ok(())
}

/// Pushes arrays of documents, one request at a time, until cancelled. Returns the number of documents.
async fn ingest_in_background(server: Arc<Server>, done: CancellationToken) -> Result<u64> {
    let mut pushed = 0;
    while !done.is_cancelled() {
        let list: Vec<Value> = (0..50)
            .map(|item| json!({"beside": pushed + item, "word": "other things go on", "list": [item]}))
            .collect();
        let answer = server.push("events", json!(list).to_string()).await?;
        ensure!(answer["accepted"] == json!(50), "{answer}");
        pushed += 50;
    }
    Ok(pushed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queries_over_a_trickle_of_writes_do_not_saturate_the_indexer() {
    const QUERIES_PER_SECOND: u64 = 200;
    const WRITES_PER_SECOND: u64 = 10;
    const SECONDS: u64 = 8;
    let server = Arc::new(Server::start(Settings::default()).await);
    server
        .push("events", "{\"n\":-1,\"word\":\"first\"}")
        .await
        .expect("a collection");
    let (began, before) = (Instant::now(), indexing_time(&server));
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / QUERIES_PER_SECOND));
    let mut queries = tokio::task::JoinSet::new();
    // Fewer than the server admits: on a slow machine queries are delayed instead of refused.
    let concurrency = Arc::new(tokio::sync::Semaphore::new(64));
    for query in 0..QUERIES_PER_SECOND * SECONDS {
        tick.tick().await;
        let (server, permit) = (server.clone(), concurrency.clone().acquire_owned().await);
        queries.spawn(async move {
            let _held_until_answered = permit;
            if query % (QUERIES_PER_SECOND / WRITES_PER_SECOND) == 0 {
                server
                    .push("events", format!("{{\"n\":{query},\"word\":\"a trickle w{query}\"}}"))
                    .await?;
            }
            server
                .query("SELECT count(*) AS c FROM events WHERE n >= 0", json!({}))
                .await
                .map(|_| ())
        });
    }
    while let Some(query) = queries.join_next().await {
        query.expect("no panic").expect("every query is answered");
    }
    let (elapsed, indexing) = (began.elapsed(), indexing_time(&server) - before);
    let share = indexing.as_secs_f64() / elapsed.as_secs_f64();
    println!("indexer: {share:.3} of a core over {elapsed:?}");
    assert!(share < 0.2, "the indexer took {share:.2} of a core");
    // On a busy machine the queries may take longer and the share means less; if they stall, it means nothing.
    assert!(
        elapsed < Duration::from_secs(SECONDS * 5),
        "{SECONDS} seconds of queries took {elapsed:?}"
    );
}

/// Names of the threads that publish micro-splits, build splits and compact them.
const INDEXER_THREADS: [&str; 3] = ["publish", "split", "compact"];

/// CPU time of the server's indexing threads, which are recognised by name.
fn indexing_time(server: &Server) -> Duration {
    let tasks = format!("/proc/{}/task", server.process().pid());
    let mut ticks = 0;
    let mut threads = 0;
    for task in std::fs::read_dir(&tasks)
        .expect("the server runs")
        .filter_map(Result::ok)
    {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") ")) else {
            continue;
        };
        if INDEXER_THREADS.contains(&name) {
            threads += 1;
            // `utime` and `stime` are fields 14 and 15 of `stat`; `rest` begins with field 3.
            ticks += rest
                .split(' ')
                .skip(11)
                .take(2)
                .filter_map(|value| value.parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    assert!(
        threads >= INDEXER_THREADS.len(),
        "only {threads} server threads are named one of {INDEXER_THREADS:?}"
    );
    // Linux counts in ticks of 10 ms.
    Duration::from_millis(ticks * 10)
}
