//! The test harness: a real Apache Kafka, the real server as processes, real event data and an independent oracle.
//!
//! Everything runs in a temporary folder, on ports chosen by the operating system. When a test fails, its folder is
//! kept and its path printed, with the logs inside. Conditions are polled here, with a deadline and the last observed
//! state in the message; the tests themselves never sleep.

pub mod cli;
pub mod client;
pub mod cluster;
pub mod data;
pub mod files;
pub mod kafka;
pub mod machine;
pub mod object_store;
pub mod oracle;
mod outcomes;
pub mod rules;
pub mod server;
pub mod service;
pub mod small_disk;
pub mod sql_response;
pub mod stages;
pub mod statements;

use std::{future::Future, net::TcpListener, path::PathBuf, time::Duration};

pub use child_process::{self as process, network};
pub use client::{Answer, Client, query_both};
pub use cluster::Cluster;
pub use kafka::Kafka;
pub use network::Network;
pub use server::{Server, Settings};
pub use service::Service;

/// How long a condition may take to come true. Generous: it is only waited out when the condition never holds.
pub const WAIT_MAX: Duration = Duration::from_secs(90);

/// Where `tests/run` puts what it downloads: `rachis` in the cache folder. None if there is no home folder.
pub fn cache_dir() -> Option<PathBuf> {
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(caches.join("rachis"))
}

/// Polls `check` until it returns a value; panics with the last error after [`WAIT_MAX`].
pub async fn eventually<T, F: Future<Output = anyhow::Result<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let started = std::time::Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match check().await {
            Ok(value) => return value,
            Err(error) if started.elapsed() > WAIT_MAX => {
                panic!("{what}: did not happen within {WAIT_MAX:?}; last error: {error:#}")
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// An address on which no process listens.
pub fn unused_address() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// The seed of a randomized test: `RACHIS_SEED`, else random. Printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    seed_or(rand::random)
}

/// Like [`seed`], with a default chosen by the caller: a test that generates its statements uses the same ones in every
/// short run, and new ones in a long run.
pub fn seed_or(default: impl FnOnce() -> u64) -> u64 {
    let seed = std::env::var("RACHIS_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(default);
    eprintln!("seed: RACHIS_SEED={seed}");
    seed
}
