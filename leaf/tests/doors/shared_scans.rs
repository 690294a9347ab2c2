//! Scans of several shards in one call: the answers can be read in any order, and dropping one does not fail another.

use futures::{StreamExt as _, TryStreamExt as _, future::join_all};
use plan::{
    scan::{ScanChunk, ScanStream, Stage},
    views::ReadViews,
};
use proto::ingest::ShardId;

use super::{ServedLeaf, batch, scans::request, serve_both};

/// Bytes of each answer: far more than a shared call carries.
const ANSWER_BYTES: usize = 3 << 20;

/// Both leaves with so many documents of 10 kB.
async fn large() -> [ServedLeaf; 2] {
    let leaves = serve_both().await;
    for served in &leaves {
        let texts: Vec<String> = (0..ANSWER_BYTES / 10_000)
            .map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(10_000)))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        served
            .ingest
            .write(batch(served.shard, -1, &texts))
            .await
            .expect("it is written");
    }
    leaves
}

/// The answers of one call for this many shards; all are the same shard.
fn answers(served: &ServedLeaf, views: &dyn ReadViews, shards: usize, stage: Stage) -> Vec<ScanStream> {
    let mut request = request(served, &["_doc"], vec![], stage);
    request.shards = vec![served.shard; shards];
    views.scan(request)
}

async fn rows(answer: ScanStream) -> usize {
    let chunks: Vec<ScanChunk> = answer.try_collect().await.expect("an answer");
    assert!(matches!(chunks.last(), Some(ScanChunk::End(_))), "the answer is whole");
    let rows = chunks.iter().map(|chunk| match chunk {
        ScanChunk::Rows(batch) => batch.num_rows(),
        ScanChunk::Progress(_) | ScanChunk::End(_) => 0,
    });
    rows.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_of_one_call_are_read_in_any_order() {
    const ALL: Stage = Stage::Rows { limit: None };
    for served in large().await {
        let (documents, views) = (ANSWER_BYTES / 10_000, served.open(&[served.shard]).await);
        let answers = |shards, stage| answers(&served, &*views, shards, stage);
        let mut unread = answers(3, ALL);
        let (third, second) = (unread.pop().expect("an answer"), unread.pop().expect("an answer"));
        assert_eq!(rows(third).await, documents);
        assert_eq!(rows(second).await, documents);
        let again = answers(2, ALL);
        assert_eq!(join_all(again.into_iter().map(rows)).await, [documents; 2]);
        assert_eq!(rows(unread.pop().expect("an answer")).await, documents);
        let small = answers(3, Stage::Rows { limit: Some(2) });
        assert_eq!(join_all(small.into_iter().map(rows)).await, [2; 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_answer_ends_while_a_large_one_is_not_read() {
    for served in large().await {
        let empty = ShardId {
            number: 1 - served.shard.number,
            ..served.shard
        };
        let views = served.open(&[empty, served.shard]).await;
        let mut request = request(&served, &["_doc"], vec![], Stage::Rows { limit: None });
        request.shards = vec![empty, served.shard];
        let mut answers = views.scan(request);
        let large = answers.pop().expect("an answer");
        assert_eq!(rows(answers.pop().expect("an answer")).await, 0);
        assert_eq!(rows(large).await, ANSWER_BYTES / 10_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_answers_that_are_dropped_early_leave_the_others_alone() {
    const ROUNDS: usize = 12;
    const AT_ONCE: usize = 100;
    for served in large().await {
        let views = served.open(&[served.shard]).await;
        let answers = |shards, stage| answers(&served, &*views, shards, stage);
        let mut slow = answers(1, Stage::Rows { limit: None }).remove(0);
        slow.next().await.expect("a chunk").expect("no problem");
        for _ in 0..ROUNDS {
            let started = (0..AT_ONCE).map(|_| async {
                let mut answer = answers(1, Stage::Rows { limit: None }).remove(0);
                answer.next().await.expect("a chunk").expect("no problem");
                answer
            });
            drop(join_all(started).await);
        }
        let rest: Vec<ScanChunk> = slow.try_collect().await.expect("the slow reader is left alone");
        assert!(matches!(rest.last(), Some(ScanChunk::End(_))));
    }
}
