//! How startup time depends on the amount of data: it should not. The server is started after an orderly stop and after
//! `kill -9`, with few documents and with many.
//!
//! Every figure is printed as a table row with its unit. These are measurements, not tests: a figure cannot fail.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use benches::{
    bluesky::Bluesky,
    measure::{self, row, row_mib, row_ms},
};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tests::{Server, Settings};

/// Measures starts
#[derive(Parser)]
struct StartBenchArgs {
    /// Numbers of stored documents at which starts are measured, in ascending order
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    documents: Vec<u64>,
    /// Starts of each kind; the median is shown
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Documents in a push.
const PUSH_DOCUMENTS: u64 = 5_000;
/// Concurrent pushes.
const PUSHES_MAX: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = StartBenchArgs::parse();
    let mut server = Server::start(Settings::default()).await;
    let (bluesky, mut stored) = (Bluesky::new(arguments.seed), 0);
    for documents in arguments.documents {
        let started = Instant::now();
        push_documents(&server, &bluesky, stored, documents).await?;
        stored = documents;
        measure::wait_until_settled(&server, "events").await?;
        row(
            &format!("{documents} documents: pushed and settled after"),
            started.elapsed().as_secs_f64(),
            "s",
        );
        for stop in [Stop::Orderly, Stop::Killed] {
            measure_starts(&mut server, documents, stop, arguments.runs).await?;
        }
        row_mib(
            &format!("{documents} documents: resident memory after that"),
            server.process().resident_bytes()?,
        );
    }
    Ok(())
}

async fn push_documents(server: &Server, bluesky: &Bluesky, from: u64, to: u64) -> Result<()> {
    let body = |from: u64| {
        let mut body = String::new();
        for i in from..(from + PUSH_DOCUMENTS).min(to) {
            bluesky.document(i, &mut body);
            body.push('\n');
        }
        body
    };
    let pushes =
        stream::iter((from..to).step_by(PUSH_DOCUMENTS as usize)).map(|from| server.push("events", body(from)));
    pushes
        .buffer_unordered(PUSHES_MAX)
        .try_for_each(|_| async { Ok(()) })
        .await
}

#[derive(Clone, Copy)]
enum Stop {
    Orderly,
    Killed,
}

async fn measure_starts(server: &mut Server, documents: u64, stop: Stop, runs: usize) -> Result<()> {
    let (mut ready, mut first_query, mut read_bytes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        match stop {
            Stop::Orderly => server.stop(),
            Stop::Killed => server.kill(),
        }
        let started = Instant::now();
        server.restart().await;
        ready.push(started.elapsed());
        read_bytes.push(server.process().read_bytes()?);
        let started = Instant::now();
        let answer = server
            .query("select count(*) from events where kind = 'commit'", json!({}))
            .await?;
        first_query.push(started.elapsed());
        ensure!(answer.rows[0][0].as_u64() > Some(0), "{answer:?}");
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    read_bytes.sort_unstable();
    let stopped = match stop {
        Stop::Orderly => "orderly stop",
        Stop::Killed => "kill -9",
    };
    let title = format!("{documents} documents, start after {stopped}");
    row_ms(&format!("{title}: until ready"), median(ready));
    row_mib(
        &format!("{title}: read from files until then"),
        read_bytes[read_bytes.len() / 2],
    );
    row_ms(&format!("{title}: first query"), median(first_query));
    Ok(())
}
