//! Waiting answers: of a call for several shards, the rest of each answer that is too large for the stream they share.
//!
//! What a client has not read of a shard would hold up all other shards in the stream. So the stream carries the
//! beginning of each answer, and its rest waits here, unread, until the client asks for it or ends the call.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use parking_lot::Mutex;
use proto::wire::leaf::{ScanPart, scan_part::Part};
use uuid::Uuid;

/// Bytes of an answer that the shared stream carries.
const SHARED_BYTES_MAX: usize = 128 << 10;

/// The parts of the answer of one shard.
pub(super) type Parts = BoxStream<'static, ScanPart>;

/// The rests of answers, by random ids.
#[derive(Default)]
pub(super) struct WaitingAnswers(Mutex<HashMap<Uuid, Parts>>);

/// The answers of one call that wait. They are dropped with it.
struct Call {
    waiting: Arc<WaitingAnswers>,
    ids: Mutex<Vec<Uuid>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        // Dropped outside the lock: an answer owns a view, and dropping a view may take time.
        let _unread: Vec<Option<Parts>> = self.ids.get_mut().iter().map(|id| self.waiting.take(id)).collect();
    }
}

impl WaitingAnswers {
    /// Removes and returns the rest of an answer.
    pub(super) fn take(&self, id: &Uuid) -> Option<Parts> {
        self.0.lock().remove(id)
    }

    /// One stream of the beginnings of these answers. It stays open while some of them may wait.
    pub(super) fn share(self: &Arc<Self>, answers: Vec<Parts>) -> impl Stream<Item = ScanPart> + Send + use<> {
        let call = Arc::new(Call {
            waiting: self.clone(),
            ids: Mutex::default(),
        });
        let beginnings = stream::select_all(
            answers
                .into_iter()
                .map(|answer| beginning(answer, call.clone()).boxed()),
        );
        let end = stream::poll_fn(move |_| match call.ids.lock().is_empty() {
            true => std::task::Poll::Ready(None),
            // The client ends the call when it has read all answers.
            false => std::task::Poll::Pending,
        });
        beginnings.chain(end)
    }
}

/// The parts of an answer, while they are small.
fn beginning(answer: Parts, call: Arc<Call>) -> impl Stream<Item = ScanPart> + Send {
    stream::unfold(Some((answer, 0)), move |state| {
        let call = call.clone();
        async move {
            let (mut answer, sent) = state?;
            let part = answer.next().await?;
            let sent = sent + bytes_of(&part);
            if sent <= SHARED_BYTES_MAX {
                return Some((part, Some((answer, sent))));
            }
            let (id, shard) = (Uuid::new_v4(), part.shard);
            call.ids.lock().push(id);
            call.waiting
                .0
                .lock()
                .insert(id, stream::iter([part]).chain(answer).boxed());
            let waiting = ScanPart {
                shard,
                part: Some(Part::Waiting(Bytes::copy_from_slice(id.as_bytes()))),
            };
            Some((waiting, None))
        }
    })
}

/// What a part counts: its bytes, or a little for the smallest, which bounds their number.
fn bytes_of(part: &ScanPart) -> usize {
    const SMALLEST: usize = 256;
    match &part.part {
        Some(Part::Arrow(bytes)) => bytes.len().max(SMALLEST),
        _ => SMALLEST,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn arrow(shard: u32, bytes: usize) -> ScanPart {
        ScanPart {
            shard,
            part: Some(Part::Arrow(vec![shard as u8; bytes].into())),
        }
    }

    fn answer(shard: u32, parts: usize) -> Parts {
        stream::iter((0..parts).map(move |_| arrow(shard, 50 << 10))).boxed()
    }

    #[tokio::test]
    async fn a_large_answer_waits_and_its_rest_is_returned_in_order() {
        let waiting = Arc::new(WaitingAnswers::default());
        let mut shared = waiting.share(vec![answer(0, 2), answer(1, 7)]).boxed();
        let (mut bytes, mut id) = ([0, 0], None);
        for _ in 0..5 {
            let part = shared.next().await.expect("a part");
            match part.part {
                Some(Part::Arrow(arrow)) => bytes[part.shard as usize] += arrow.len(),
                Some(Part::Waiting(waits)) => id = Some((part.shard, Uuid::from_slice(&waits).expect("an id"))),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bytes, [100 << 10, 100 << 10]);
        assert!(shared.next().now_or_never().is_none(), "the call stays open");
        let (shard, id) = id.expect("the large answer waits");
        let rest: Vec<ScanPart> = waiting.take(&id).expect("it waits").collect().await;
        assert_eq!(rest, vec![arrow(shard, 50 << 10); 5]);
        assert!(waiting.take(&id).is_none());
    }

    #[tokio::test]
    async fn answers_that_wait_are_dropped_with_their_call() {
        let waiting = Arc::new(WaitingAnswers::default());
        let mut shared = waiting.share(vec![answer(0, 9), answer(1, 9)]).boxed();
        for _ in 0..6 {
            shared.next().await.expect("a part");
        }
        assert_eq!(waiting.0.lock().len(), 2);
        drop(shared);
        assert!(waiting.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_call_without_large_answers_ends() {
        let waiting = Arc::new(WaitingAnswers::default());
        let shared = waiting.share(vec![answer(0, 1), answer(1, 2), answer(2, 0)]);
        assert_eq!(shared.collect::<Vec<_>>().await.len(), 3);
    }
}
