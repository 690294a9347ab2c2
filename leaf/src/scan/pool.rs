//! The leaf's own scan threads. A scan is cut into steps; between two steps it holds no thread, so a stream that nobody
//! reads never keeps another one from its turn.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use datafusion::execution::runtime_env::RuntimeEnv;
use parking_lot::{Condvar, Mutex};
use proto::{Code, Problem};
use tokio::sync::oneshot;
use tracing::{error, warn};

/// Steps that may wait for a thread; above it a scan is refused as busy.
const WAITING_STEPS_MAX: usize = 10_000;

/// How long `close` waits for running steps.
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(5);

/// A bounded number of threads that work on scans.
pub struct ScanPool {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    threads_max: usize,
    memory: Arc<RuntimeEnv>,
}

/// Where steps wait for a thread: the handle of a pool.
pub struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    left: Condvar,
}

#[derive(Default)]
struct State {
    steps: VecDeque<Step>,
    /// Threads at a step.
    working: usize,
    closed: bool,
}

type Step = Box<dyn FnOnce(&Arc<Queue>) + Send>;

impl ScanPool {
    /// Starts so many threads, at least one.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            left: Condvar::new(),
        });
        let start = |number: usize| {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("scan-{number}"))
                .spawn(move || queue.serve())
        };
        let threads_max = threads.max(1);
        let threads = (0..threads_max).map(start).collect::<Result<_, _>>()?;
        let memory = super::partial::memory().map_err(std::io::Error::other)?;
        Ok(Self {
            queue,
            threads: Mutex::new(threads),
            threads_max,
            memory,
        })
    }

    /// The memory that all aggregates share.
    pub(super) fn memory(&self) -> Arc<RuntimeEnv> {
        self.memory.clone()
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    pub(super) fn threads(&self) -> usize {
        self.threads_max
    }

    /// Stops the threads. Queued steps fail with "the leaf is closing"; running steps get [`CLOSING_WAIT_MAX`] to
    /// finish.
    pub fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        let waiting = {
            let mut state = self.queue.state.lock();
            state.closed = true;
            std::mem::take(&mut state.steps)
        };
        // Dropped outside of the lock: a step owns a view, whose end may do work.
        drop(waiting);
        self.queue.filled.notify_all();
        // A thread of the pool may itself hold the last handle of the leaf.
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        let own = usize::from(threads.iter().any(is_own));
        let mut state = self.queue.state.lock();
        if self
            .queue
            .left
            .wait_while_for(&mut state, |state| state.working > own, CLOSING_WAIT_MAX)
            .timed_out()
        {
            warn!(
                scans = state.working,
                "closing without waiting longer for running scans"
            );
            return;
        }
        drop(state);
        for thread in threads.into_iter().filter(|thread| !is_own(thread)) {
            if thread.join().is_err() {
                error!("a scan thread ended by a panic");
            }
        }
    }
}

impl Drop for ScanPool {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a piece of work says after a step.
pub enum Turn<T> {
    /// It wants another step, behind those who wait.
    Again,
    /// It has something to tell.
    Done(T),
}

impl Queue {
    fn serve(self: Arc<Self>) {
        while let Some(step) = self.next() {
            step(&self);
            self.state.lock().working -= 1;
            self.left.notify_all();
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
                    state.working += 1;
                    return Some(step);
                }
                None => self.filled.wait(&mut state),
            }
        }
    }

    fn push(&self, step: Step) -> Result<(), Problem> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Problem::new(Code::Unavailable, "the leaf is closing"));
        }
        if state.steps.len() >= WAITING_STEPS_MAX {
            return Err(
                Problem::new(Code::Busy, "too many scans wait for a thread of this leaf").hint("try again in a moment"),
            );
        }
        state.steps.push_back(step);
        self.filled.notify_one();
        Ok(())
    }

    /// Has the pool take turns at a work until it has something to tell. The work begins at once, whether or not the
    /// answer is awaited. The work comes back with its answer, so that it can go on later.
    pub(super) fn work<W: Send + 'static, T: Send + 'static>(
        &self,
        work: W,
        turn: fn(&mut W) -> Turn<T>,
    ) -> impl Future<Output = Result<(W, T), Problem>> + Send + use<W, T> {
        let (tell, told) = oneshot::channel();
        let pushed = self.push(Box::new(move |queue| take_turn(queue, work, turn, tell)));
        async move {
            pushed?;
            told.await
                .unwrap_or_else(|_| Err(Problem::new(Code::Unavailable, "the leaf is closing")))
        }
    }
}

fn take_turn<W: Send + 'static, T: Send + 'static>(
    queue: &Arc<Queue>,
    mut work: W,
    turn: fn(&mut W) -> Turn<T>,
    tell: oneshot::Sender<Result<(W, T), Problem>>,
) {
    let outcome = catch_unwind(AssertUnwindSafe(|| turn(&mut work)));
    // That nobody listens any more is no error: the stream was dropped.
    let answer = match outcome {
        Ok(Turn::Again) if tell.is_closed() => return,
        Ok(Turn::Again) => match queue.push(Box::new(move |queue| take_turn(queue, work, turn, tell))) {
            Ok(()) => return,
            Err(_) => return,
        },
        Ok(Turn::Done(told)) => Ok((work, told)),
        Err(panic) => {
            let detail = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned());
            error!(panic = detail.as_deref().unwrap_or("unknown"), "a scan panicked");
            Err(Problem::new(Code::Internal, "a scan failed unexpectedly"))
        }
    };
    let _ = tell.send(answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_take_turns_and_a_panic_harms_nobody() {
        let pool = ScanPool::new(1).expect("threads");
        let queue = pool.queue();
        let count = |n: &mut u32| {
            *n += 1;
            if n.is_multiple_of(100) {
                Turn::Done(*n)
            } else {
                Turn::Again
            }
        };
        let (first, second) = (queue.work(0, count), queue.work(100_000, count));
        let broken = queue.work((), |()| -> Turn<()> { panic!("on purpose") });
        let (first, second, broken) = futures::executor::block_on(async { futures::join!(first, second, broken) });
        let (work, told) = first.expect("an answer");
        assert_eq!((work, told), (100, 100));
        assert_eq!(second.expect("an answer").1, 100_100);
        assert_eq!(broken.map(|_| ()).expect_err("a problem").code, Code::Internal);
        let (_, told) = futures::executor::block_on(queue.work(work, count)).expect("an answer");
        assert_eq!(told, 200, "a work goes on where it was");
    }

    #[test]
    fn a_closed_pool_tells_those_who_wait() {
        let pool = ScanPool::new(1).expect("threads");
        let queue = pool.queue();
        drop(pool);
        let answer = futures::executor::block_on(queue.work((), |()| Turn::Done(())));
        assert_eq!(answer.expect_err("a problem").code, Code::Unavailable);
    }
}
