//! The runtime of queries. It is separate, so that a heavy query never delays the HTTP and gRPC servers, and its
//! threads have stacks deep enough to plan, optimize, run and drop any statement that the parser accepts.

use std::{future::Future, time::Duration};

use parking_lot::Mutex;
use proto::{Code, Problem};
use tokio::runtime::{Builder, Handle, Runtime};

/// The stack of each thread. Only touched pages take memory.
const STACK_BYTES: usize = 64 << 20;
/// Threads for blocking work, which is spilling.
const BLOCKING_THREADS_MAX: usize = 64;
/// How long a shutdown waits for queries to release their resources.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(2);

/// The runtime of queries. It may be dropped anywhere, even in async code: running tasks end at their next await.
pub(super) struct QueryRuntime {
    handle: Handle,
    running: Mutex<Option<Runtime>>,
}

impl QueryRuntime {
    /// Starts the threads: at least two, so that one long computation does not block all other queries.
    pub(super) fn start() -> Result<Self, Problem> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_stack_size(STACK_BYTES)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|e| Problem::new(Code::Internal, format!("cannot start the query threads: {e}")))?;
        Ok(Self {
            handle: runtime.handle().clone(),
            running: Mutex::new(Some(runtime)),
        })
    }

    /// Spawns a task on this runtime.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// Where its tasks are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends all tasks, and waits up to two seconds for them.
    pub(super) async fn close(&self) {
        let Some(runtime) = self.running.lock().take() else {
            return;
        };
        let _joined = tokio::task::spawn_blocking(|| runtime.shutdown_timeout(SHUTDOWN_WAIT_MAX)).await;
    }
}

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.running.lock().take() {
            runtime.shutdown_background();
        }
    }
}
