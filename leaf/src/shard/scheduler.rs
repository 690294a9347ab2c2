//! Scheduler of index builds: one queue per [`Task`], ordered by time. Each queue has its own threads, shared by all
//! shards of a leaf.
//!
//! Each queue has at most one due time per shard, the earliest that was requested. So scheduling is cheap, and
//! scheduling twice costs nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use proto::ingest::ShardId;
use tracing::error;

use super::open_shard::Shard;
use crate::{
    error::Error,
    threads::{self, Background},
};

/// Delay before a failed task runs again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Threads that write splits, and threads that merge them, on a machine with many cores: each build takes memory.
const WRITERS_MAX: usize = 4;

/// A background task that builds an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Indexes the tail as a micro-split, in memory.
    IndexTail,
    /// Writes the micro-splits to one split, on disk.
    Split,
    /// Merges splits, and rebuilds one that is damaged or mostly deleted.
    Merge,
}

#[derive(Default)]
struct TaskQueue {
    times: BinaryHeap<Reverse<(Instant, ShardId)>>,
    /// The effective time of each shard in the queue; other entries of `times` are stale.
    due: HashMap<ShardId, (Instant, Weak<Shard>)>,
    /// The shards whose task runs. It runs only once at a time for each shard.
    running: HashSet<ShardId>,
}

#[derive(Default)]
struct Lane {
    queue: Mutex<TaskQueue>,
    wake: Condvar,
}

/// Schedules and runs index builds.
pub(crate) struct BuildScheduler {
    lanes: BTreeMap<Task, Lane>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopped: std::sync::atomic::AtomicBool,
}

impl BuildScheduler {
    /// Starts the threads: `indexers` for tails, and a quarter as many, one to four, each for splits and for merges and
    /// rebuilds.
    pub(crate) fn start(indexers: usize) -> std::io::Result<Arc<Self>> {
        let lanes = [Task::IndexTail, Task::Split, Task::Merge].map(|task| (task, Lane::default()));
        let scheduler = Arc::new(Self {
            lanes: lanes.into(),
            threads: Mutex::default(),
            stopped: false.into(),
        });
        // `tests/tests/fresh.rs` finds the threads by these names.
        let threads = [
            (Task::IndexTail, "publish", indexers),
            (Task::Split, "split", (indexers / 4).min(WRITERS_MAX)),
            (Task::Merge, "compact", (indexers / 4).min(WRITERS_MAX)),
        ];
        let threads = threads
            .into_iter()
            .flat_map(|(task, name, count)| std::iter::repeat_n((task, name), count.max(1)));
        for (task, name) in threads {
            let worker = scheduler.clone();
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                match task {
                    // Queries wait for the index of a tail, but not for a larger part.
                    Task::IndexTail => {}
                    Task::Split => threads::run_in_background(Background::Soon),
                    Task::Merge => threads::run_in_background(Background::Late),
                }
                worker.run(task);
            })?;
            scheduler.threads.lock().push(thread);
        }
        Ok(scheduler)
    }

    /// Schedules a task at a time; an earlier time that is already scheduled stays.
    pub(crate) fn schedule(&self, task: Task, shard: &Arc<Shard>, at: Instant) {
        let lane = &self.lanes[&task];
        let mut queue = lane.queue.lock();
        if queue
            .due
            .get(&shard.id)
            .is_some_and(|(due, known)| *due <= at && known.ptr_eq(&Arc::downgrade(shard)))
        {
            return;
        }
        queue.due.insert(shard.id, (at, Arc::downgrade(shard)));
        queue.times.push(Reverse((at, shard.id)));
        drop(queue);
        lane.wake.notify_one();
    }

    /// Stops the threads; running tasks complete first.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
        for lane in self.lanes.values() {
            // Under the lock, so that no thread is between its check and its wait.
            let _queue = lane.queue.lock();
            lane.wake.notify_all();
        }
        threads::join(&self.threads);
    }

    /// Whether [`Self::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn run(&self, task: Task) {
        let lane = &self.lanes[&task];
        while let Some(shard) = self.next(lane) {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shard.run(task)));
            let failure: Option<String> = match done {
                Ok(Ok(next)) => {
                    next.into_iter().for_each(|at| self.schedule(task, &shard, at));
                    None
                }
                Ok(Err(error)) => Some(Error::to_string(&error)),
                Err(_) => Some("a build panicked".into()),
            };
            if let Some(failure) = failure {
                error!(
                    shard = %shard.id, ?task, error = failure,
                    "a build failed and will be retried; until then, queries read raw documents"
                );
                shard.with_state(|state| state.unindexable |= task == Task::IndexTail);
                shard.changed.send_modify(|count| *count += 1);
                self.schedule(task, &shard, Instant::now() + RETRY_AFTER);
            }
            lane.end(shard.id);
        }
    }

    /// Waits for the next shard that is due; none when the scheduler stops.
    fn next(&self, lane: &Lane) -> Option<Arc<Shard>> {
        let mut queue = lane.queue.lock();
        loop {
            if self.is_stopped() {
                return None;
            }
            let Some(Reverse((at, id))) = queue.times.peek().copied() else {
                lane.wake.wait(&mut queue);
                continue;
            };
            if at > Instant::now() {
                lane.wake.wait_until(&mut queue, at);
                continue;
            }
            queue.times.pop();
            let current = queue.due.get(&id).is_some_and(|(due, _)| *due == at);
            if !current || queue.running.contains(&id) {
                continue;
            }
            if let Some(shard) = queue.due.remove(&id).and_then(|(_, shard)| shard.upgrade()) {
                queue.running.insert(id);
                return Some(shard);
            }
        }
    }
}

impl Lane {
    /// The task of a shard no longer runs. What was due meanwhile is found again.
    fn end(&self, shard: ShardId) {
        let mut queue = self.queue.lock();
        queue.running.remove(&shard);
        if let Some((at, _)) = queue.due.get(&shard) {
            let at = *at;
            queue.times.push(Reverse((at, shard)));
            drop(queue);
            self.wake.notify_one();
        }
    }
}
