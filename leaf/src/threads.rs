//! The threads of a component: how they end, which of them can wait, and where work waits for a disk.

use std::thread::JoinHandle;

use parking_lot::Mutex;
use proto::{Code, Problem};
use thread_priority::{ThreadPriority, set_current_thread_priority};
use tracing::warn;

use crate::error::Error;

/// Which background work goes first where cores are busy, from 0 to 99.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Background {
    /// What ingest waits for once much of it is due: a nice value of 5, a third of the time of another thread.
    Soon = 35,
    /// What ingest does not wait for: merges, rebuilds of damaged splits, erasures. A nice value of 10, a tenth of that time.
    Late = 22,
}

/// Waits until these threads end. The caller has already signalled them to stop. Skips the calling thread: if a
/// background thread drops the last handle of its component, that thread runs the shutdown itself.
pub(crate) fn join(threads: &Mutex<Vec<JoinHandle<()>>>) {
    let threads = std::mem::take(&mut *threads.lock());
    let own = std::thread::current().id();
    for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
        let ended = thread.join();
        debug_assert!(ended.is_ok(), "the threads of a leaf do not panic");
    }
}

/// Lets queries and ingest go before the current thread if all cores are busy.
pub(crate) fn run_in_background(work: Background) {
    let lowered = ThreadPriority::try_from(work as u8)
        .map_err(str::to_owned)
        .and_then(|priority| set_current_thread_priority(priority).map_err(|e| format!("{e:?}")));
    if let Err(error) = lowered {
        warn!(error, "a background thread keeps its priority: queries may wait for it");
    }
}

/// Runs work that may wait for a disk on the runtime's blocking threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Problem::from),
        Err(failure) => Err(Problem::new(
            Code::Internal,
            format!("a task of the leaf did not finish: {failure}"),
        )),
    }
}
