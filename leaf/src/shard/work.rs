//! When what is built: three queues by time (publish, split, compact), each with its own threads, shared by all shards
//! of a leaf.
//!
//! A shard stands at most once in a queue: with the earliest time it was asked for. So asking is cheap, and asking
//! twice costs nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use proto::ingest::ShardId;
use tracing::error;

use super::{Shard, publish, rebuild};
use crate::error::Error;

/// After a failure a task waits so long.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What can be done for a shard beside its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Tail -> micro-split.
    Publish,
    /// Micro-splits -> split.
    Split,
    /// Splits -> bigger split.
    Compact,
}

#[derive(Default)]
struct Queue {
    times: BinaryHeap<Reverse<(Instant, ShardId)>>,
    /// The time that counts, for each shard in the queue.
    asked: HashMap<ShardId, (Instant, Weak<Shard>)>,
}

#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The queues and their threads.
pub struct Work {
    lanes: BTreeMap<Task, Lane>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopped: std::sync::atomic::AtomicBool,
}

impl Work {
    /// Starts the threads: `publishers` for micro-splits, one for splits, one for compaction.
    pub fn start(publishers: usize) -> std::io::Result<Arc<Self>> {
        let lanes = [Task::Publish, Task::Split, Task::Compact].map(|task| (task, Lane::default()));
        let work = Arc::new(Self {
            lanes: lanes.into(),
            threads: Mutex::default(),
            stopped: false.into(),
        });
        let publishers = std::iter::repeat_n((Task::Publish, "publish"), publishers.max(1));
        for (task, name) in publishers.chain([(Task::Split, "split"), (Task::Compact, "compact")]) {
            let worker = work.clone();
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || worker.run(task))?;
            work.threads.lock().push(thread);
        }
        Ok(work)
    }

    /// Asks for a task at a time, or earlier if it was asked for earlier.
    pub fn schedule(&self, task: Task, shard: &Arc<Shard>, at: Instant) {
        let lane = &self.lanes[&task];
        let mut queue = lane.queue.lock();
        if queue
            .asked
            .get(&shard.id)
            .is_some_and(|(asked, known)| *asked <= at && known.ptr_eq(&Arc::downgrade(shard)))
        {
            return;
        }
        queue.asked.insert(shard.id, (at, Arc::downgrade(shard)));
        queue.times.push(Reverse((at, shard.id)));
        drop(queue);
        lane.wake.notify_one();
    }

    /// Ends the threads; what they are doing is finished first.
    pub fn stop(&self) {
        self.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
        for lane in self.lanes.values() {
            let _no_thread_between_look_and_wait = lane.queue.lock();
            lane.wake.notify_all();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads
            .into_iter()
            .filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "a worker does not panic");
        }
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn run(&self, task: Task) {
        while let Some(shard) = self.next(&self.lanes[&task]) {
            let run = || match task {
                Task::Publish => publish::publish(&shard),
                Task::Split => rebuild::split(&shard),
                Task::Compact => rebuild::compact(&shard),
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            let failure: Option<String> = match done {
                Ok(Ok(next)) => {
                    next.into_iter().for_each(|at| self.schedule(task, &shard, at));
                    None
                }
                Ok(Err(error)) => Some(Error::to_string(&error)),
                Err(_) => Some("a build panicked".into()),
            };
            if let Some(failure) = failure {
                error!(shard = %shard.id, ?task, error = failure, "a build failed; queries read raw documents, and it is tried again");
                shard.look(|state| state.unindexable |= task == Task::Publish);
                shard.changed.send_modify(|count| *count += 1);
                self.schedule(task, &shard, Instant::now() + RETRY_AFTER);
            }
        }
    }

    /// The next shard whose time has come; none when the threads end.
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
            let current = queue.asked.get(&id).is_some_and(|(asked, _)| *asked == at);
            if !current {
                continue;
            }
            if let Some(shard) = queue.asked.remove(&id).and_then(|(_, shard)| shard.upgrade()) {
                return Some(shard);
            }
        }
    }
}
