//! Scans that begin in the call that pins their views: a query gets them only if it asks for just that scan of just
//! those views.

use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use plan::scan::{ExpectedScan, Scan as _, ScanChunk, ScanRequest, Stage};
use proto::{Code, Position, PositionVector, Problem, ingest::ShardId};

use super::{
    ServedLeaf, batch, clicks, filled,
    scans::{query, request},
    soon,
};

const ALL: Stage = Stage::Rows { limit: None };
/// Documents in the shards of [`filled`].
const DOCUMENTS: usize = 5;

fn ids(served: &ServedLeaf, stage: Stage) -> ScanRequest {
    ScanRequest {
        shards: both_shards(served),
        ..request(served, &["_id"], vec![], stage)
    }
}

/// The shard with documents, and the one without.
fn both_shards(served: &ServedLeaf) -> Vec<ShardId> {
    [served.shard.number, 1 - served.shard.number]
        .map(|number| ShardId { number, ..served.shard })
        .to_vec()
}

/// Pins both shards for query 1. A client has to have pinned them once to know their path tables.
async fn pin_to_scan(served: &ServedLeaf, expected: ExpectedScan<'_>) {
    let wanted: Vec<(ShardId, PositionVector)> = both_shards(served)
        .into_iter()
        .map(|shard| (shard, PositionVector::default()))
        .collect();
    let outcomes = served.scan.pin_and_scan(query(1), &wanted, soon(), expected).await;
    assert_eq!(outcomes.len(), wanted.len());
    let documents: u64 = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("a view").documents)
        .sum();
    assert_eq!(documents, DOCUMENTS as u64);
}

async fn learn_paths(served: &ServedLeaf) {
    for shard in both_shards(served) {
        let pinned = served
            .scan
            .pin(query(2), shard, &PositionVector::default(), soon())
            .await;
        pinned.expect("a view");
    }
}

/// The number of rows in the answers of all shards.
async fn rows(served: &ServedLeaf, request: ScanRequest) -> Result<usize, Problem> {
    let mut rows = 0;
    for answer in served.scan.scan(request) {
        let chunks: Vec<ScanChunk> = answer.try_collect().await?;
        assert!(matches!(chunks.last(), Some(ScanChunk::End(_))), "the answer is whole");
        rows += chunks
            .iter()
            .map(|chunk| match chunk {
                ScanChunk::Rows(batch) => batch.num_rows(),
                ScanChunk::Progress(_) | ScanChunk::End(_) => 0,
            })
            .sum::<usize>();
    }
    Ok(rows)
}

/// The views of query 1 are released, and no scan of them has begun.
async fn expect_no_views(served: &ServedLeaf) {
    let late = rows(served, ids(served, ALL)).await;
    assert_eq!(late.map_err(|problem| problem.code), Err(Code::Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expected_scan_begins_in_the_call_that_pins() {
    let [direct, remote] = filled().await;
    for served in [direct, remote] {
        learn_paths(&served).await;
        pin_to_scan(&served, &|| Some(ids(&served, ALL))).await;
        assert_eq!(rows(&served, ids(&served, ALL)).await, Ok(DOCUMENTS));
        // Its answers are used once: this call is a new one.
        assert_eq!(rows(&served, ids(&served, ALL)).await, Ok(DOCUMENTS));
    }
    let [_, remote] = filled().await;
    learn_paths(&remote).await;
    pin_to_scan(&remote, &|| Some(ids(&remote, ALL))).await;
    // A scan that has not begun would find no view any more.
    remote.leaf.unpin(query(1));
    assert_eq!(rows(&remote, ids(&remote, ALL)).await, Ok(DOCUMENTS));
    expect_no_views(&remote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scan_than_the_expected_one_is_asked_for() {
    for served in filled().await {
        learn_paths(&served).await;
        let first = || Some(ids(&served, Stage::Rows { limit: Some(1) }));
        pin_to_scan(&served, &first).await;
        assert_eq!(rows(&served, ids(&served, ALL)).await, Ok(DOCUMENTS));
        pin_to_scan(&served, &|| Some(ids(&served, ALL))).await;
        let one_shard = ScanRequest {
            shards: vec![served.shard],
            ..ids(&served, ALL)
        };
        assert_eq!(rows(&served, one_shard).await, Ok(DOCUMENTS));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_scan_begins_for_a_caller_who_does_not_know_the_paths() {
    let [_, remote] = filled().await;
    pin_to_scan(&remote, &|| Some(ids(&remote, ALL))).await;
    assert_eq!(rows(&remote, ids(&remote, ALL)).await, Ok(DOCUMENTS));
    let [_, remote] = filled().await;
    pin_to_scan(&remote, &|| Some(ids(&remote, ALL))).await;
    remote.leaf.unpin(query(1));
    expect_no_views(&remote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_an_older_view_is_not_used() {
    for served in filled().await {
        learn_paths(&served).await;
        pin_to_scan(&served, &|| Some(ids(&served, ALL))).await;
        served
            .ingest
            .write(batch(served.shard, 5, &["{}", "{}"]))
            .await
            .expect("it is written");
        let newer: PositionVector = [Position {
            source: clicks(),
            partition: 0,
            offset: 7,
        }]
        .into_iter()
        .collect();
        let pinned = served.scan.pin(query(1), served.shard, &newer, soon()).await;
        assert_eq!(pinned.expect("a newer view").documents, DOCUMENTS as u64 + 2);
        assert_eq!(rows(&served, ids(&served, ALL)).await, Ok(DOCUMENTS + 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begun_scan_that_nobody_asks_for_ends_with_its_query() {
    let [_, remote] = filled().await;
    learn_paths(&remote).await;
    pin_to_scan(&remote, &|| Some(ids(&remote, ALL))).await;
    remote.scan.unpin(query(1));
    let released = tokio::time::timeout(Duration::from_secs(20), async {
        while remote.leaf.pinned(query(1), remote.shard).is_ok() {
            tokio::task::yield_now().await;
        }
    });
    released.await.expect("the view is released");
    expect_no_views(&remote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_have_their_own_views_and_deadlines() {
    for served in filled().await {
        let pin = async |id, through| {
            let wanted = Position {
                source: clicks(),
                partition: 0,
                offset: through,
            };
            let wanted: PositionVector = [wanted].into_iter().collect();
            served.scan.pin(query(id), served.shard, &wanted, soon()).await
        };
        let of_query = |id, deadline| ScanRequest {
            query: query(id),
            deadline,
            ..request(&served, &["_id"], vec![], ALL)
        };
        pin(1, 5).await.expect("a view");
        let soon_over = Instant::now() + Duration::from_millis(200);
        while rows(&served, of_query(1, soon_over)).await == Ok(DOCUMENTS) {}
        let late = rows(&served, of_query(1, soon_over)).await;
        assert_eq!(late.map_err(|problem| problem.code), Err(Code::Timeout));
        let more = batch(served.shard, 5, &["{}", "{}"]);
        served.ingest.write(more).await.expect("it is written");
        pin(2, 7).await.expect("a newer view");
        assert_eq!(rows(&served, of_query(2, soon())).await, Ok(DOCUMENTS + 2));
        assert_eq!(rows(&served, of_query(1, soon())).await, Ok(DOCUMENTS));
    }
}
