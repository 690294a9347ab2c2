//! Joins the threads of a component when it stops.

use std::thread::JoinHandle;

use parking_lot::Mutex;

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
