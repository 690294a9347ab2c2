//! Keeps the consumer of one source running: one poll thread, and a sender for each partition.
//!
//! ```text
//! broker ─ librdkafka ─ poll thread ─ PartitionSlot (window) ─┬ sender ══Ingest══> replica on a leaf
//!                           ^                                 └ sender ══Ingest══> replica on another leaf
//!                           └──────── where to continue ────────────┘
//! ```
//!
//! The group assigns the partitions, the leaf determines where each of them starts. The consumer is positioned with one
//! list of explicit offsets, again whenever a partition must be read from another offset. A record that was fetched for
//! an earlier position is never delivered afterwards.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    backoff::Backoff,
    closing::ConsumerCloser,
    reader::Reader,
    status::SourceStatus,
    task::SourceTask,
    windows::{SourceWindows, WindowBudget},
};

/// A source may leave this many consumers behind. Then none is created until one of them is closed.
const CLOSING_MAX: usize = 3;
const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_MAX: Duration = Duration::from_secs(30);
/// A consumer that has run for this long resets the backoff.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// Runs a source until it is stopped. After an error that a consumer cannot survive, a new consumer replaces it.
pub(super) async fn supervise(
    task: Arc<SourceTask>,
    status: Arc<SourceStatus>,
    budget: Arc<WindowBudget>,
    closer: Arc<ConsumerCloser>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(RESTART_FIRST, RESTART_MAX);
    while !stop.is_cancelled() {
        if closer.unfinished() >= CLOSING_MAX {
            status.set_error(Error::ConsumersNotClosed { count: CLOSING_MAX });
            tokio::select! { () = tokio::time::sleep(RESTART_MAX) => continue, () = stop.cancelled() => break }
        }
        let started = Instant::now();
        let reader = Reader::new(
            task.clone(),
            status.clone(),
            SourceWindows::new(budget.clone()),
            closer.clone(),
            stop.child_token(),
        );
        let result = run_on_thread(&task, reader).await;
        status.set_slots(BTreeMap::new());
        let Err(error) = result else { break };
        status.set_error(error);
        status.set_stopped(true);
        if started.elapsed() > HEALTHY_AFTER {
            backoff.reset();
        }
        tokio::select! { () = tokio::time::sleep(backoff.next()) => {}, () = stop.cancelled() => {} }
    }
    status.close();
}

/// Runs the poll loop on its own thread and waits for its result.
pub(super) async fn run_on_thread(task: &SourceTask, reader: Reader) -> Result<(), Error> {
    let (handle, (done, result)) = (Handle::current(), tokio::sync::oneshot::channel());
    std::thread::Builder::new()
        .name(format!("kafka-{}", task.source))
        .spawn(move || {
            let _ = done.send(reader.run(&handle));
        })
        .map_err(|error| Error::Thread {
            reason: error.to_string(),
        })?;
    result.await.unwrap_or(Err(Error::ReaderPanicked))
}
