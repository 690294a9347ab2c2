//! Deferred answers: of a call for several shards, the rest of each answer that is too large for the stream they share.
//!
//! What a client has not read of a shard would hold up all other shards in the stream. So the stream carries the
//! beginning of each answer. Its rest stays here, unread, until the client asks for it or ends the call.

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
pub(super) struct DeferredAnswers(Mutex<HashMap<Uuid, Parts>>);

/// The deferred answers of one call. They are dropped with it.
struct Call {
    deferred: Arc<DeferredAnswers>,
    ids: Mutex<Vec<Uuid>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        // Dropped outside the lock: an answer owns a view, and dropping a view may take time.
        let _unread: Vec<Option<Parts>> = self.ids.get_mut().iter().map(|id| self.deferred.take(id)).collect();
    }
}

impl DeferredAnswers {
    /// Removes and returns the rest of an answer.
    pub(super) fn take(&self, id: &Uuid) -> Option<Parts> {
        self.0.lock().remove(id)
    }

    /// One stream of the beginnings of these answers. It stays open while the rest of one may be asked for.
    pub(super) fn share(self: &Arc<Self>, answers: Vec<Parts>) -> impl Stream<Item = ScanPart> + Send + use<> {
        let call = Arc::new(Call {
            deferred: self.clone(),
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
            call.deferred
                .0
                .lock()
                .insert(id, stream::iter([part]).chain(answer).boxed());
            let deferred = ScanPart {
                shard,
                part: Some(Part::Deferred(Bytes::copy_from_slice(id.as_bytes()))),
            };
            Some((deferred, None))
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
    async fn a_large_answer_is_deferred_and_its_rest_is_returned_in_order() {
        let deferred = Arc::new(DeferredAnswers::default());
        let mut shared = deferred.share(vec![answer(0, 2), answer(1, 7)]).boxed();
        let (mut bytes, mut id) = ([0, 0], None);
        for _ in 0..5 {
            let part = shared.next().await.expect("a part");
            match part.part {
                Some(Part::Arrow(arrow)) => bytes[part.shard as usize] += arrow.len(),
                Some(Part::Deferred(rest)) => id = Some((part.shard, Uuid::from_slice(&rest).expect("an id"))),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bytes, [100 << 10, 100 << 10]);
        assert!(shared.next().now_or_never().is_none(), "the call stays open");
        let (shard, id) = id.expect("the large answer is deferred");
        let rest: Vec<ScanPart> = deferred.take(&id).expect("its rest").collect().await;
        assert_eq!(rest, vec![arrow(shard, 50 << 10); 5]);
        assert!(deferred.take(&id).is_none());
    }

    #[tokio::test]
    async fn deferred_answers_are_dropped_with_their_call() {
        let deferred = Arc::new(DeferredAnswers::default());
        let mut shared = deferred.share(vec![answer(0, 9), answer(1, 9)]).boxed();
        for _ in 0..6 {
            shared.next().await.expect("a part");
        }
        assert_eq!(deferred.0.lock().len(), 2);
        drop(shared);
        assert!(deferred.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_call_without_large_answers_ends() {
        let deferred = Arc::new(DeferredAnswers::default());
        let shared = deferred.share(vec![answer(0, 1), answer(1, 2), answer(2, 0)]);
        assert_eq!(shared.collect::<Vec<_>>().await.len(), 3);
    }
}
