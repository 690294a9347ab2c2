//! Closes consumers without waiting forever. The Kafka client may take any time to close one, so each is closed on its
//! own thread, and after a time limit the source continues without it. The consumers that are not closed yet are
//! counted, to limit how many a source may leave behind.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Closes the consumers of a source, and counts those that are not closed yet.
#[derive(Default)]
pub(super) struct ConsumerCloser(AtomicUsize);

impl ConsumerCloser {
    /// The number of consumers that are not closed yet.
    pub(super) fn unfinished(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Runs `close` on a new thread, waits for it at most `wait_max`, and returns whether it has finished. If not, it
    /// continues in the background and is counted until it finishes.
    pub(super) fn run(
        self: &Arc<Self>,
        thread: &str,
        wait_max: Duration,
        close: impl FnOnce() + Send + 'static,
    ) -> io::Result<bool> {
        let (finished, wait) = mpsc::sync_channel(1);
        let unfinished = ClosingGuard::new(self.clone());
        thread::Builder::new().name(thread.to_owned()).spawn(move || {
            close();
            drop(unfinished);
            let _ = finished.send(());
        })?;
        Ok(wait.recv_timeout(wait_max).is_ok())
    }
}

/// Counts a consumer until it is dropped, so the count is right even if the thread cannot start or the close panics.
struct ClosingGuard(Arc<ConsumerCloser>);

impl ClosingGuard {
    fn new(closer: Arc<ConsumerCloser>) -> Self {
        closer.0.fetch_add(1, Ordering::SeqCst);
        Self(closer)
    }
}

impl Drop for ClosingGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_hangs_is_left_behind_and_counted_until_it_is_closed() {
        let closer = Arc::new(ConsumerCloser::default());
        assert!(
            closer.run("closes", Duration::from_secs(60), || {}).expect("a thread"),
            "it closes in time"
        );
        assert_eq!(closer.unfinished(), 0);

        let (release, released) = mpsc::sync_channel::<()>(0);
        let hangs = move || assert!(released.recv().is_err(), "nothing is sent");
        assert!(
            !closer.run("hangs", Duration::from_millis(10), hangs).expect("a thread"),
            "it does not close in time"
        );
        assert_eq!(closer.unfinished(), 1);
        assert!(
            closer.run("closes", Duration::from_secs(60), || {}).expect("a thread"),
            "one that hangs does not delay the next"
        );
        assert_eq!(closer.unfinished(), 1, "and is still counted");

        drop(release);
        while closer.unfinished() > 0 {
            thread::yield_now();
        }
    }
}
