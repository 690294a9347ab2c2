//! Where queries run: a runtime of their own, so that a heavy query never holds up a door, on threads with stacks deep
//! enough to plan, optimise, run and drop any statement that the parser lets through.

use std::{future::Future, time::Duration};

use parking_lot::Mutex;
use proto::{Code, Problem};
use tokio::runtime::{Builder, Handle, Runtime};

/// Stack of a thread. Only what is touched takes memory.
const STACK_BYTES: usize = 64 << 20;
/// Threads for what blocks (spilling).
const BLOCKING_THREADS_MAX: usize = 64;
/// How long the end waits for queries to give back what they hold.
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(2);

/// The runtime of queries. It may be dropped anywhere, in async code too: what still runs ends at its next await.
pub(super) struct QueryRuntime {
    handle: Handle,
    running: Mutex<Option<Runtime>>,
}

impl QueryRuntime {
    /// Starts the threads, at least two, so that one long computation leaves room for another query.
    pub fn start() -> Result<Self, Problem> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_stack_size(STACK_BYTES)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|e| Problem::new(Code::Internal, format!("cannot start the threads of queries: {e}")))?;
        Ok(Self {
            handle: runtime.handle().clone(),
            running: Mutex::new(Some(runtime)),
        })
    }

    /// Runs a task there.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// Ends what runs, and waits for it, for two seconds at most.
    pub async fn close(&self) {
        let Some(runtime) = self.running.lock().take() else {
            return;
        };
        let _ended = tokio::task::spawn_blocking(|| runtime.shutdown_timeout(CLOSING_WAIT_MAX)).await;
    }
}

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.running.lock().take() {
            runtime.shutdown_background();
        }
    }
}
