//! How a start depends on how much is stored: it should not. The same server is stopped in order, and killed, with few
//! documents and with many.
//!
//! Every figure is printed as a row of a table, with its unit. Nothing here is a test: a figure cannot fail.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use benches::{
    bluesky::Bluesky,
    measure::{self, mebibytes, row},
};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tests::{Server, Settings};

/// Measures starts.
#[derive(Parser)]
struct Arguments {
    /// Documents that are stored when starts are measured, a smaller number first.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    documents: Vec<u64>,
    /// Starts of each kind; the middle one is shown.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The seed of the documents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Documents of one push.
const PUSH_DOCUMENTS: u64 = 5_000;
/// Pushes at once.
const AT_ONCE: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut server = Server::start(Settings::default()).await;
    let (bluesky, mut stored) = (Bluesky::new(arguments.seed), 0);
    for documents in arguments.documents {
        let body = |from: u64| {
            let mut body = String::new();
            for i in from..(from + PUSH_DOCUMENTS).min(documents) {
                bluesky.document(i, &mut body);
                body.push('\n');
            }
            body
        };
        let begun = Instant::now();
        let pushes = stream::iter((stored..documents).step_by(PUSH_DOCUMENTS as usize))
            .map(|from| server.push("events", body(from)));
        pushes
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        stored = documents;
        measure::settled(&server, "events").await?;
        row(
            &format!("{documents} documents: pushed and settled after"),
            begun.elapsed().as_secs_f64(),
            "s",
        );
        for how in ["stopped in order", "killed"] {
            let (mut ready, mut first, mut read) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..arguments.runs {
                match how {
                    "killed" => server.kill(),
                    _ => server.stop(),
                }
                let begun = Instant::now();
                server.start_again().await;
                ready.push(begun.elapsed());
                read.push(server.process().read_bytes()?);
                let asked = Instant::now();
                let answer = server
                    .ask("select count(*) from events where kind = 'commit'", json!({}))
                    .await?;
                first.push(asked.elapsed());
                ensure!(answer.rows[0][0].as_u64() > Some(0), "{answer:?}");
            }
            let middle = |mut times: Vec<Duration>| {
                times.sort_unstable();
                times[times.len() / 2].as_secs_f64() * 1000.0
            };
            read.sort_unstable();
            row(
                &format!("{documents} documents, {how}: start, until ready"),
                middle(ready),
                "ms",
            );
            row(
                &format!("{documents} documents, {how}: read from files until then"),
                mebibytes(read[read.len() / 2]),
                "MiB",
            );
            row(
                &format!("{documents} documents, {how}: the first question"),
                middle(first),
                "ms",
            );
        }
        row(
            &format!("{documents} documents: resident memory after that"),
            mebibytes(server.process().resident_bytes()?),
            "MiB",
        );
    }
    Ok(())
}
