//! Closes a connection whose client has stopped reading. Otherwise a client that is alive but never reads its response
//! would occupy a connection, and the memory of the unsent bytes, forever.

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

/// The progress of writes to one stream, for the code that watches over connections.
#[derive(Default)]
pub(super) struct WriteProgress {
    written: AtomicU64,
    blocked: AtomicBool,
}

impl WriteProgress {
    /// Bytes that the socket has accepted so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether a write is waiting for the socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }
}

/// A stream whose writes fail once the other side has accepted nothing for the timeout.
pub(super) struct StalledWriteTimeout<S> {
    stream: S,
    timeout: Duration,
    progress: Arc<WriteProgress>,
    /// Runs while a write is pending.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> StalledWriteTimeout<S> {
    pub(super) fn new(stream: S, timeout: Duration, progress: Arc<WriteProgress>) -> Self {
        Self {
            stream,
            timeout,
            progress,
            timer: None,
        }
    }

    /// Passes on the result of a write, or an error if writes have been pending for too long.
    fn check(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.progress.blocked.store(written.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(result) = &written {
            self.progress
                .written
                .fetch_add(result.as_ref().map_or(0, |bytes| *bytes as u64), Ordering::Relaxed);
            self.timer = None;
            return written;
        }
        let timeout = self.timeout;
        self.timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)))
            .as_mut()
            .poll(context)
            .map(|()| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client has stopped reading",
                ))
            })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StalledWriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StalledWriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check(context, written)
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
    async fn a_stalled_client_times_out_and_a_slow_one_does_not() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut near = StalledWriteTimeout::new(near, Duration::from_millis(200), Arc::default());
        let begun = std::time::Instant::now();
        // Ten bytes, 50 ms apart, take longer than the timeout for one write.
        let slow = async {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for _ in 0..10 {
                pace.tick().await;
                far.read_u8().await.expect("a byte");
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[7; 10]), slow);
        written.expect("the other side reads slowly, but it reads");
        assert!(begun.elapsed() > Duration::from_millis(400));
        let stalled = tokio::time::timeout(Duration::from_secs(10), near.write_all(&[7; 10]))
            .await
            .expect("the write ends");
        let stalled = stalled.expect_err("the other side has stopped reading");
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }
}
