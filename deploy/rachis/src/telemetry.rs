//! Starts the log on standard error and the metrics recorder.

use std::{
    io::IsTerminal,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aggregator::doors::MetricsText;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

use crate::{
    client::Failure,
    settings::{LogFormat, LogSettings},
};

/// Upper bounds of the histogram buckets, in seconds.
const BUCKETS_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// How often recorded values are moved into buckets, even without a scrape. It bounds the memory of pending values.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Starts logging. `RUST_LOG` overrides the filter in the settings.
pub(crate) fn start_log(log: &LogSettings) -> Result<(), Failure> {
    let directives = std::env::var("RUST_LOG")
        .ok()
        .filter(|value| !value.is_empty())
        .or(log.filter.clone())
        .unwrap_or_else(|| "info".into());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|e| Failure::usage(format!("invalid log filter {directives:?}: {e}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|e| Failure::new(format!("cannot start the log: {e}")))
}

/// Resident memory of this process; `None` if the system does not report it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix("kB")?;
    kibibytes.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

/// Starts recording metrics and returns what renders `/metrics`. Must be called within a Tokio runtime.
pub(crate) fn start_metrics() -> Result<MetricsText, Failure> {
    let failed = |e: metrics_exporter_prometheus::BuildError| Failure::new(format!("cannot record metrics: {e}"));
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS_SECONDS)
        .map_err(failed)?;
    let handle = builder.install_recorder().map_err(failed)?;
    let upkeep = handle.clone();
    metrics::gauge!("process_start_time_seconds").set(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64(),
    );
    metrics::gauge!("rachis_build_info", "version" => proto::node::VERSION).set(1.0);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
            if let Some(bytes) = resident_bytes() {
                metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
            }
        }
    });
    Ok(Arc::new(move || handle.render()))
}
