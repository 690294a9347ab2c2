//! Ends the threads of a component.

use std::thread::JoinHandle;

use parking_lot::Mutex;

/// Waits for threads that were told to stop. Leaves out the calling thread: it may be one of them, if it had the last
/// handle of what stops.
pub(crate) fn join(threads: &Mutex<Vec<JoinHandle<()>>>) {
    let threads = std::mem::take(&mut *threads.lock());
    let own = std::thread::current().id();
    for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
        let ended = thread.join();
        debug_assert!(ended.is_ok(), "the threads of a leaf do not panic");
    }
}
