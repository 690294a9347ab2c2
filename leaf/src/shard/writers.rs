//! The threads that write, shared by all shards of a leaf.
//!
//! A shard whose queue holds jobs stands in line once. A thread takes it out, writes one group of its jobs, and puts it
//! back behind the others while jobs are left. So the jobs of a shard run strictly one after another, no shard keeps
//! another one from its turn, and a shard without jobs costs nothing.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};

use super::Shard;

/// Threads that write. Most of the time they wait for a disk, which serves several at once.
const THREADS: usize = 8;

#[derive(Default)]
struct Line {
    shards: VecDeque<Arc<Shard>>,
    stopped: bool,
}

/// The line of shards that have jobs, and the threads that serve it.
pub struct Writers {
    line: Mutex<Line>,
    wake: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Writers {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Arc<Self>> {
        let writers = Arc::new(Self {
            line: Mutex::default(),
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

    /// Puts a shard in line whose queue was just given a job. Called after the job is in the queue: then it is not
    /// overlooked.
    pub fn enqueue(&self, shard: &Arc<Shard>) {
        if shard.in_line.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut line = self.line.lock();
        if !line.stopped {
            line.shards.push_back(shard.clone());
            self.wake.notify_one();
        }
    }

    /// Ends the threads. What stands in line then is written when its shard is closed.
    pub fn stop(&self) {
        let waiting = {
            let mut line = self.line.lock();
            line.stopped = true;
            std::mem::take(&mut line.shards)
        };
        // Outside of the lock: the last handle of a shard may go with it.
        drop(waiting);
        self.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads
            .into_iter()
            .filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "a writer does not panic");
        }
    }

    fn run(&self) {
        while let Some(shard) = self.next() {
            let written = catch_unwind(AssertUnwindSafe(|| shard.write_group()));
            if let Err(panic) = written {
                // First, so that nothing more is written on what it left in memory.
                shard.stop_writing();
                shard.note_panic(&*panic);
            }
            // In this order: a job that comes in between is seen by one of the two.
            shard.in_line.store(false, Ordering::SeqCst);
            if shard.has_jobs() {
                self.enqueue(&shard);
            }
        }
    }

    fn next(&self) -> Option<Arc<Shard>> {
        let mut line = self.line.lock();
        loop {
            if line.stopped {
                return None;
            }
            match line.shards.pop_front() {
                Some(shard) => return Some(shard),
                None => self.wake.wait(&mut line),
            }
        }
    }
}
