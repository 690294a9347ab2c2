//! A response body whose frames count as unsent until the socket has accepted their bytes.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::registry::RequestGuard;

/// The body of a response. Its request counts as running until all frames are sent.
pub(super) struct CountedBody {
    pub body: Body,
    pub request: Arc<RequestGuard>,
}

/// A frame of a response. Dropped once it is sent.
struct CountedFrame {
    bytes: Bytes,
    number: u64,
    request: Arc<RequestGuard>,
}

impl CountedFrame {
    fn new(bytes: Bytes, request: Arc<RequestGuard>) -> Self {
        let connections = &request.connection.connections;
        let number = connections.next_number.fetch_add(1, Ordering::Relaxed);
        connections.unsent_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        request.connection.unsent.lock().insert(number, Instant::now());
        Self { bytes, number, request }
    }
}

impl AsRef<[u8]> for CountedFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedFrame {
    fn drop(&mut self) {
        let connection = &self.request.connection;
        connection.unsent.lock().remove(&self.number);
        connection
            .connections
            .unsent_bytes
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let request = self.request.clone();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| frame.map_data(|bytes| Bytes::from_owner(CountedFrame::new(bytes, request))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
