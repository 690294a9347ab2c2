//! Progress of a statement that takes longer than a second: elapsed time, and how many documents it has read.

use std::{
    convert::Infallible,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use serde_json::json;

use super::super::http::Client;

/// What is shown is asked so often.
const INTERVAL: Duration = Duration::from_millis(500);
/// From then on it is shown.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// The query of this text that began last; the server keeps the beginning of a text.
const PROGRESS: &str = "SELECT documents, documents_scanned, memory_bytes FROM rachis.queries \
                        WHERE starts_with($1, text) AND text <> '' ORDER BY started DESC LIMIT 1";

/// Shows progress until it is dropped.
pub(super) async fn show(client: &Client, sql: &str) -> Infallible {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let began = Instant::now();
    tokio::time::sleep(QUIET_MAX).await;
    let _clears = ClearsLine;
    loop {
        let seen = client.sql(&json!({ "sql": PROGRESS, "parameters": [sql] })).await;
        let row = seen.ok().map(|answer| answer["rows"][0].clone()).unwrap_or_default();
        let count = |name: &str| row[name].as_u64();
        let documents = match (count("documents_scanned"), count("documents")) {
            (Some(scanned), Some(all)) if all > 0 => format!(", {scanned} of {all} documents"),
            _ => String::new(),
        };
        let memory = match count("memory_bytes") {
            Some(bytes) if bytes > 1_000_000 => format!(", {} MB of memory", bytes / 1_000_000),
            _ => String::new(),
        };
        let text = format!(
            "{:.1} s{documents}{memory} (Ctrl-C stops it)",
            began.elapsed().as_secs_f64()
        );
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Clears the line of the progress.
struct ClearsLine;

impl Drop for ClearsLine {
    fn drop(&mut self) {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}
