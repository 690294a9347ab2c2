//! Fresh on ack: what is acknowledged is in the answer to every question that begins then, with ingest beside.

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

const ASKERS: u64 = 4;

/// 1,000 rounds in every run; `RACHIS_FRESH_ROUNDS=10000` for the long way.
fn rounds() -> u64 {
    std::env::var("RACHIS_FRESH_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_begun_after_the_acknowledgement_sees_the_document() {
    let server = Arc::new(Server::start(Settings::default().small_splits()).await);
    server
        .push("events", "{\"round\":-1,\"word\":\"first\"}")
        .await
        .expect("a collection");
    let done = CancellationToken::new();
    let beside = tokio::spawn(ingest_beside(server.clone(), done.clone()));
    let next = Arc::new(AtomicU64::new(0));
    let rounds = rounds();
    let askers = (0..ASKERS).map(|_| {
        let (server, next) = (server.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let round = next.fetch_add(1, Ordering::Relaxed);
                if round >= rounds {
                    return;
                }
                push_then_ask(&server, round)
                    .await
                    .unwrap_or_else(|miss| panic!("round {round}: {miss:#}"));
            }
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        asker.await.expect("every round sees what it pushed");
    }
    done.cancel();
    let pushed = beside
        .await
        .expect("ingest beside goes on")
        .expect("every push is accepted");
    assert!(
        pushed >= rounds / 4,
        "only {pushed} documents came in beside {rounds} rounds"
    );
    println!("{rounds} rounds, {pushed} documents beside, 0 misses");
}

/// One document in; then one question, each time another kind.
async fn push_then_ask(server: &Server, round: u64) -> Result<()> {
    let document = format!(
        "{{\"round\": {round}, \"word\":\"round r{round} seen\", \"even\":{}}}",
        round.is_multiple_of(2)
    );
    let answer = server.push("events", document.clone()).await?;
    ensure!(answer["accepted"] == json!(1), "{answer}");
    match round % 4 {
        0 => {
            let count = server
                .ask(
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
            let newest = server.ask("SELECT max(round) AS newest FROM events", json!({})).await?;
            ensure!(newest.rows[0][0].as_u64() >= Some(round), "{newest:?}");
        }
    }
    Ok(())
}

/// Pushes lists of documents, one after the other, until told to stop.
async fn ingest_beside(server: Arc<Server>, done: CancellationToken) -> Result<u64> {
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
async fn many_questions_over_a_trickle_of_writes_do_not_occupy_the_indexer() {
    const QUESTIONS_PER_SECOND: u64 = 200;
    const WRITES_PER_SECOND: u64 = 10;
    const SECONDS: u64 = 8;
    let server = Arc::new(Server::start(Settings::default()).await);
    server
        .push("events", "{\"n\":-1,\"word\":\"first\"}")
        .await
        .expect("a collection");
    let (began, before) = (Instant::now(), indexing_time(&server));
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / QUESTIONS_PER_SECOND));
    let mut questions = tokio::task::JoinSet::new();
    // Fewer than are let in: on a slow machine questions come later instead of being refused.
    let at_once = Arc::new(tokio::sync::Semaphore::new(64));
    for question in 0..QUESTIONS_PER_SECOND * SECONDS {
        tick.tick().await;
        let (server, turn) = (server.clone(), at_once.clone().acquire_owned().await);
        questions.spawn(async move {
            let _until_it_is_answered = turn;
            if question % (QUESTIONS_PER_SECOND / WRITES_PER_SECOND) == 0 {
                server
                    .push(
                        "events",
                        format!("{{\"n\":{question},\"word\":\"a trickle w{question}\"}}"),
                    )
                    .await?;
            }
            server
                .ask("SELECT count(*) AS c FROM events WHERE n >= 0", json!({}))
                .await
                .map(|_| ())
        });
    }
    while let Some(question) = questions.join_next().await {
        question.expect("no panic").expect("every question is answered");
    }
    let (elapsed, indexing) = (began.elapsed(), indexing_time(&server) - before);
    let share = indexing.as_secs_f64() / elapsed.as_secs_f64();
    println!("indexer: {share:.3} of a core over {elapsed:?}");
    assert!(share < 0.2, "the indexer took {share:.2} of a core");
    // On a machine with other work the questions may come slower; then the figure says less, but a standstill would say
    // nothing.
    assert!(
        elapsed < Duration::from_secs(SECONDS * 5),
        "{SECONDS} seconds of questions took {elapsed:?}"
    );
}

/// The threads that make micro-splits, splits and bigger splits.
const INDEXERS: [&str; 3] = ["publish", "split", "compact"];

/// Processor time of the server's threads that build indexes, by their names.
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
        if INDEXERS.contains(&name) {
            threads += 1;
            // User and system time are the 14th and 15th value, counted from before the name.
            ticks += rest
                .split(' ')
                .skip(11)
                .take(2)
                .filter_map(|value| value.parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    assert!(
        threads >= INDEXERS.len(),
        "only {threads} threads of the server are called one of {INDEXERS:?}"
    );
    // Linux counts in hundredths of a second.
    Duration::from_millis(ticks * 10)
}
