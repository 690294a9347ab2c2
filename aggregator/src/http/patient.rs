//! A connection whose other side takes nothing is given up after a while: else a client that is alive and never reads
//! its answer would keep its place, and what waits to be sent, for ever.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// How the writing goes.
#[derive(Default)]
pub(super) struct Progress {
    /// Bytes that were taken.
    written: AtomicU64,
    /// Whether something waits to be taken.
    blocked: AtomicBool,
}

impl Progress {
    /// Bytes that were taken so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether something waits to be taken.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }
}

/// A stream that fails once it could not write anything for so long.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    progress: Arc<Progress>,
    /// Runs while something waits to be written.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// Over a stream.
    pub fn new(stream: S, patience: Duration, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            patience,
            progress,
            blocked: None,
        }
    }

    /// What a write gives: an error, if nothing was taken for too long.
    fn judge(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.progress.blocked.store(written.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(result) = &written {
            self.progress
                .written
                .fetch_add(result.as_ref().map_or(0, |bytes| *bytes as u64), Ordering::Relaxed);
            self.blocked = None;
            return written;
        }
        let patience = self.patience;
        let blocked = self
            .blocked
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        blocked
            .as_mut()
            .poll(context)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_is_slow_is_not() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut near = Patient::new(near, Duration::from_millis(200), Arc::default());
        let begun = std::time::Instant::now();
        // A byte at a time, 50 ms apart, takes longer than the patience for one.
        let slow = async {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for _ in 0..10 {
                pace.tick().await;
                far.read_u8().await.expect("a byte");
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[7; 10]), slow);
        written.expect("the other side is slow, and takes it");
        assert!(begun.elapsed() > Duration::from_millis(400));
        let given_up = tokio::time::timeout(Duration::from_secs(10), near.write_all(&[7; 10]))
            .await
            .expect("it ends");
        let given_up = given_up.expect_err("nobody reads any more");
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
    }
}
