//! Scan pool: the leaf's scan threads. A scan runs in steps and has no thread between two steps, so a stream that is
//! not read never blocks another one.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use datafusion::{
    error::DataFusionError,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
};
use parking_lot::{Condvar, Mutex};
use proto::{Code, Problem, problem::panic_text};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::state_cache::{ENCODING_STACK_BYTES, StateCache};

/// Steps that may wait for a thread; above it, scans are refused as busy.
const WAITING_STEPS_MAX: usize = 10_000;

/// Stack of a thread: enough to encode a request on it, and for the step that does so.
const STACK_BYTES: usize = 2 * ENCODING_STACK_BYTES;

/// Memory for the aggregates of all scans of a leaf. If the groups need more, states are emitted early.
const AGGREGATE_BYTES_MAX: usize = 512 << 20;

/// How long [`ScanPool::close`] waits for running steps.
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(5);

/// A fixed number of threads that run scans.
pub(crate) struct ScanPool {
    pub(super) queue: Arc<ScanQueue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) threads_max: usize,
    /// The memory pool that all aggregates share.
    pub(super) memory: Arc<RuntimeEnv>,
    /// The aggregate states of splits.
    pub(super) states: Arc<StateCache>,
}

/// The queue in which steps wait for a thread; also the handle of a pool.
pub(super) struct ScanQueue {
    state: Mutex<QueueState>,
    step_queued: Condvar,
    step_done: Condvar,
}

#[derive(Default)]
struct QueueState {
    steps: VecDeque<Step>,
    /// Threads that run a step.
    running: usize,
    closed: bool,
}

type Step = Box<dyn FnOnce(&Arc<ScanQueue>) + Send>;

/// The memory pool that the aggregates of all scans share.
fn aggregate_memory() -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let memory = Arc::new(GreedyMemoryPool::new(AGGREGATE_BYTES_MAX));
    RuntimeEnvBuilder::new()
        .with_memory_pool(memory)
        .with_disk_manager_builder(no_disk)
        .build_arc()
}

impl ScanPool {
    /// Starts this many threads, at least one, and caches up to this many bytes of aggregate states.
    pub(crate) fn new(threads: usize, cached_states_bytes_max: usize) -> std::io::Result<Self> {
        let queue = Arc::new(ScanQueue {
            state: Mutex::default(),
            step_queued: Condvar::new(),
            step_done: Condvar::new(),
        });
        let start = |number: usize| {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("scan-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || queue.run_steps())
        };
        let threads_max = threads.max(1);
        let threads = (0..threads_max).map(start).collect::<Result<_, _>>()?;
        let memory = aggregate_memory().map_err(std::io::Error::other)?;
        Ok(Self {
            queue,
            threads: Mutex::new(threads),
            threads_max,
            memory,
            states: Arc::new(StateCache::new(cached_states_bytes_max)),
        })
    }

    /// Stops the threads. Queued steps fail with "the leaf is shutting down"; running steps have
    /// [`CLOSING_WAIT_MAX`] to finish.
    pub(crate) fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        let waiting = {
            let mut state = self.queue.state.lock();
            state.closed = true;
            std::mem::take(&mut state.steps)
        };
        // Dropped outside the lock: a step owns a view, and dropping a view may take time.
        drop(waiting);
        self.queue.step_queued.notify_all();
        // This may run on a thread of the pool, if that thread had the last handle of the leaf.
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        let own = usize::from(threads.iter().any(is_own));
        let mut state = self.queue.state.lock();
        if self
            .queue
            .step_done
            .wait_while_for(&mut state, |state| state.running > own, CLOSING_WAIT_MAX)
            .timed_out()
        {
            warn!(
                scans = state.running,
                "scans are still running; closing without waiting for them"
            );
            return;
        }
        drop(state);
        for thread in threads.into_iter().filter(|thread| !is_own(thread)) {
            if thread.join().is_err() {
                error!("a scan thread panicked");
            }
        }
    }
}

impl Drop for ScanPool {
    fn drop(&mut self) {
        self.close();
    }
}

pub(super) enum StepOutcome<T> {
    /// The job needs another step, after all waiting ones.
    Again,
    /// The job has a result.
    Done(T),
}

impl ScanQueue {
    fn run_steps(self: Arc<Self>) {
        while let Some(step) = self.next() {
            step(&self);
            self.state.lock().running -= 1;
            self.step_done.notify_all();
        }
    }

    fn next(&self) -> Option<Step> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.steps.pop_front() {
                Some(step) => {
                    state.running += 1;
                    return Some(step);
                }
                None => self.step_queued.wait(&mut state),
            }
        }
    }

    /// Queues the first step of a scan.
    fn push(&self, step: Step) -> Result<(), Problem> {
        if self.state.lock().steps.len() >= WAITING_STEPS_MAX {
            let detail = "too many scans are waiting for a thread of this leaf";
            return Err(Problem::new(Code::Busy, detail).hint("retry in a moment"));
        }
        self.push_next(step)
    }

    /// Queues a further step of a scan. It is not refused as busy: the scan has begun, and only one of its steps waits.
    fn push_next(&self, step: Step) -> Result<(), Problem> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Problem::new(Code::Unavailable, "the leaf is shutting down"));
        }
        state.steps.push_back(step);
        self.step_queued.notify_one();
        Ok(())
    }

    /// Runs a job step by step until it has a result or fails. It starts at once, even if the result is not awaited
    /// yet. The job is returned with its result, so that it can be continued later.
    pub(super) fn submit<J: Send + 'static, T: Send + 'static>(
        &self,
        job: J,
        step: fn(&mut J) -> Result<StepOutcome<T>, Problem>,
    ) -> impl Future<Output = Result<(J, T), Problem>> + Send + use<J, T> {
        let (sender, receiver) = oneshot::channel();
        let pushed = self.push(Box::new(move |queue| run_step(queue, job, step, sender)));
        async move {
            pushed?;
            receiver
                .await
                .unwrap_or_else(|_| Err(Problem::new(Code::Unavailable, "the leaf is shutting down")))
        }
    }
}

fn run_step<J: Send + 'static, T: Send + 'static>(
    queue: &Arc<ScanQueue>,
    mut job: J,
    step: fn(&mut J) -> Result<StepOutcome<T>, Problem>,
    sender: oneshot::Sender<Result<(J, T), Problem>>,
) {
    let outcome = catch_unwind(AssertUnwindSafe(|| step(&mut job)));
    let result = match outcome {
        Ok(Ok(StepOutcome::Again)) => {
            if !sender.is_closed() {
                // If the pool refuses the next step, the dropped sender fails the receiver.
                let _refused = queue.push_next(Box::new(move |queue| run_step(queue, job, step, sender)));
            }
            return;
        }
        Ok(Ok(StepOutcome::Done(result))) => Ok((job, result)),
        // What the job holds is free when the receiver sees the error.
        Ok(Err(problem)) => {
            drop(job);
            Err(problem)
        }
        Err(panic) => {
            drop(job);
            error!(panic = panic_text(&*panic), "a scan panicked");
            Err(Problem::new(Code::Internal, "the scan failed unexpectedly"))
        }
    };
    // If the receiver is gone, the stream was dropped; that is no error.
    let _ = sender.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_take_turns_and_a_panic_affects_no_other_job() {
        let pool = ScanPool::new(1, 0).expect("threads");
        let queue = pool.queue.clone();
        let count = |n: &mut u32| -> Result<StepOutcome<u32>, Problem> {
            *n += 1;
            Ok(if n.is_multiple_of(100) {
                StepOutcome::Done(*n)
            } else {
                StepOutcome::Again
            })
        };
        let (first, second) = (queue.submit(0, count), queue.submit(100_000, count));
        let broken = queue.submit((), |()| -> Result<StepOutcome<()>, Problem> { panic!("on purpose") });
        let (first, second, broken) = futures::executor::block_on(async { futures::join!(first, second, broken) });
        let (job, result) = first.expect("an answer");
        assert_eq!((job, result), (100, 100));
        assert_eq!(second.expect("an answer").1, 100_100);
        assert_eq!(broken.map(|_| ()).expect_err("a problem").code, Code::Internal);
        let (_, result) = futures::executor::block_on(queue.submit(job, count)).expect("an answer");
        assert_eq!(result, 200, "a job continues where it stopped");
    }

    #[test]
    fn a_full_queue_refuses_new_jobs_and_goes_on_with_those_that_have_begun() {
        let pool = ScanPool::new(1, 0).expect("threads");
        let queue = pool.queue.clone();
        let (has_begun, begun) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let waits = queue.submit((has_begun, goes_on, false), |(has_begun, goes_on, is_next)| {
            if std::mem::replace(is_next, true) {
                return Ok(StepOutcome::Done(()));
            }
            has_begun.send(()).expect("the test waits");
            goes_on.recv().expect("the test goes on");
            Ok(StepOutcome::Again)
        });
        begun.recv().expect("it begins");
        let short = || queue.submit((), |()| Ok(StepOutcome::Done(())));
        let full: Vec<_> = (0..WAITING_STEPS_MAX).map(|_| short()).collect();
        let refused = futures::executor::block_on(short()).expect_err("the queue is full");
        assert_eq!(refused.code, Code::Busy);
        go_on.send(()).expect("the job waits");
        futures::executor::block_on(waits).expect("it goes on");
        futures::executor::block_on(futures::future::try_join_all(full)).expect("all run");
    }

    #[test]
    fn closing_the_pool_fails_waiting_jobs() {
        let pool = ScanPool::new(1, 0).expect("threads");
        let queue = pool.queue.clone();
        drop(pool);
        let answer = futures::executor::block_on(queue.submit((), |()| Ok(StepOutcome::Done(()))));
        assert_eq!(answer.expect_err("a problem").code, Code::Unavailable);
    }
}
