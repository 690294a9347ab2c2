//! Consumers that are being closed. The Kafka client closes a consumer without a limit of time, so each is closed on a
//! thread of its own, and the source goes on without it after a while. Whoever makes consumers counts those that are
//! not closed yet.

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

/// Counts what is being closed.
#[derive(Default)]
pub(super) struct Closing(AtomicUsize);

impl Closing {
    /// How many closings have not ended.
    pub(super) fn unfinished(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Runs `close` on a new thread and waits for it at most so long. Answers whether it has ended; if not, it goes on
    /// and counts until it ends.
    pub(super) fn run(
        self: &Arc<Self>,
        thread: &str,
        wait_max: Duration,
        close: impl FnOnce() + Send + 'static,
    ) -> io::Result<bool> {
        let (end, ended) = mpsc::sync_channel(1);
        let unfinished = Unfinished::new(self.clone());
        thread::Builder::new().name(thread.to_owned()).spawn(move || {
            close();
            drop(unfinished);
            let _ = end.send(());
        })?;
        Ok(ended.recv_timeout(wait_max).is_ok())
    }
}

/// Counts as long as it lives: also where no thread could be made, or closing panics.
struct Unfinished(Arc<Closing>);

impl Unfinished {
    fn new(closing: Arc<Closing>) -> Self {
        closing.0.fetch_add(1, Ordering::SeqCst);
        Self(closing)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_close_is_left_behind_and_counted_until_it_is_closed() {
        let closing = Arc::new(Closing::default());
        assert!(
            closing.run("closes", Duration::from_secs(60), || {}).expect("a thread"),
            "it closes in time"
        );
        assert_eq!(closing.unfinished(), 0);

        let (release, released) = mpsc::sync_channel::<()>(0);
        let hangs = move || assert!(released.recv().is_err(), "nothing is sent");
        assert!(
            !closing
                .run("hangs", Duration::from_millis(10), hangs)
                .expect("a thread"),
            "it does not close in time"
        );
        assert_eq!(closing.unfinished(), 1);
        assert!(
            closing.run("closes", Duration::from_secs(60), || {}).expect("a thread"),
            "one that hangs does not hold up the next"
        );
        assert_eq!(closing.unfinished(), 1, "and still counts");

        drop(release);
        while closing.unfinished() > 0 {
            thread::yield_now();
        }
    }
}
