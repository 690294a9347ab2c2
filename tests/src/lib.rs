//! The harness of the whole's tests: a real Apache Kafka, the real server as a process, real event data, an oracle of
//! its own.
//!
//! Everything runs in a temporary folder on ports that the system gives. Where a test fails, the folder is kept and
//! named, with the logs in it. What is waited for is polled here, with a deadline and the last thing seen in the
//! message; tests themselves never sleep.

pub mod client;
pub mod cluster;
pub mod data;
pub mod kafka;
pub mod network;
pub mod oracle;
pub mod process;
pub mod rules;
pub mod server;
pub mod service;
pub mod small_disk;
pub mod statements;
pub mod told;

use std::{future::Future, time::Duration};

pub use client::{Answer, Client};
pub use cluster::Cluster;
pub use kafka::Kafka;
pub use network::Network;
pub use server::{Server, Settings};
pub use service::Service;

/// How long a condition may take to come true, seconds: generous, since it is only waited out where a promise is
/// broken.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Polls until `check` gives a value; fails with the last complaint after [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = anyhow::Result<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let begun = std::time::Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match check().await {
            Ok(value) => return value,
            Err(complaint) if begun.elapsed() > PATIENCE => {
                panic!("{what}: not within {PATIENCE:?}; last: {complaint:#}")
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// The seed of a random test: from `RACHIS_SEED`, else drawn; printed, so that a failure can be run again.
pub fn seed() -> u64 {
    seed_or(rand::random)
}

/// The same, but drawn by the caller: a test that writes its own questions asks the same ones in every short run, and
/// others in a long one.
pub fn seed_or(drawn: impl FnOnce() -> u64) -> u64 {
    let seed = std::env::var("RACHIS_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(drawn);
    eprintln!("seed: RACHIS_SEED={seed}");
    seed
}
