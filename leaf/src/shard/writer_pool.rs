//! Pool of writer threads that all shards of a leaf share.
//!
//! A shard with pending jobs is in the queue once. A thread takes it, writes one group of its jobs, and appends it to
//! the queue again while it has more jobs. So the jobs of a shard run strictly one after another, no shard starves
//! another, and a shard without jobs costs nothing.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};

use super::open_shard::Shard;
use crate::threads;

/// Number of writer threads. They mostly wait for a disk, which serves several requests at once.
const THREADS: usize = 8;

#[derive(Default)]
struct WriterQueue {
    shards: VecDeque<Arc<Shard>>,
    stopped: bool,
}

/// The queue of shards with jobs, and the threads that process it.
pub(crate) struct WriterPool {
    queue: Mutex<WriterQueue>,
    wake: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl WriterPool {
    /// Starts the threads.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let writers = Arc::new(Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            threads: Mutex::default(),
        });
        for number in 0..THREADS {
            let worker = writers.clone();
            let thread = std::thread::Builder::new()
                .name(format!("write-{number}"))
                .spawn(move || worker.run())?;
            writers.threads.lock().push(thread);
        }
        Ok(writers)
    }

    /// Enqueues a shard that has just received a job. Must be called after the job is in the queue of the shard, or the
    /// job could be missed.
    pub(crate) fn enqueue(&self, shard: &Arc<Shard>) {
        if shard.enqueued.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut queue = self.queue.lock();
        if !queue.stopped {
            queue.shards.push_back(shard.clone());
            self.wake.notify_one();
        }
    }

    /// Stops the threads. Jobs of shards that are still enqueued are written when the shard closes.
    pub(crate) fn stop(&self) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.stopped = true;
            std::mem::take(&mut queue.shards)
        };
        // Dropped outside the lock, because this may drop the last handle of a shard.
        drop(waiting);
        self.wake.notify_all();
        threads::join(&self.threads);
    }

    fn run(&self) {
        while let Some(shard) = self.next() {
            let written = catch_unwind(AssertUnwindSafe(|| shard.write_group()));
            if let Err(panic) = written {
                // First, so that nothing more is written from the state it left in memory.
                shard.stop_writing();
                shard.note_panic(&*panic);
            }
            // In this order: a job that arrives in between is seen here or by `enqueue`.
            shard.enqueued.store(false, Ordering::SeqCst);
            if shard.has_jobs() {
                self.enqueue(&shard);
            }
        }
    }

    fn next(&self) -> Option<Arc<Shard>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            match queue.shards.pop_front() {
                Some(shard) => return Some(shard),
                None => self.wake.wait(&mut queue),
            }
        }
    }
}
