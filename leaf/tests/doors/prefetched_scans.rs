//! Scans that begin in the call that opens their views: they are of just those views, and end with them.

use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use plan::{
    scan::{ScanChunk, ScanRequest, ScanStream, Stage},
    views::{OpenRequest, Opened, ReadViews},
};
use proto::{Code, Position, PositionVector, Problem, ingest::ShardId};

use super::{ServedLeaf, batch, clicks, filled, open_request, scans::request, soon};

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

/// Opens both shards for a query that expects this scan. A client has to have opened them once to know their path
/// tables.
async fn open_to_scan(served: &ServedLeaf, expected: ScanRequest) -> Opened {
    let wanted: Vec<(ShardId, PositionVector)> = both_shards(served)
        .into_iter()
        .map(|shard| (shard, PositionVector::default()))
        .collect();
    let opened = served
        .scan
        .open(OpenRequest {
            expected: Some(expected),
            ..open_request(&wanted, soon())
        })
        .await;
    assert_eq!(opened.outcomes.len(), wanted.len());
    let documents = opened.outcomes.iter().map(|outcome| match outcome {
        Ok(view) => view.documents,
        Err(problem) => panic!("{problem}"),
    });
    assert_eq!(documents.sum::<u64>(), DOCUMENTS as u64);
    opened
}

async fn learn_paths(served: &ServedLeaf) {
    drop(served.open(&both_shards(served)).await);
}

/// The number of rows in these answers.
async fn count(answers: Vec<ScanStream>) -> Result<usize, Problem> {
    let mut rows = 0;
    for answer in answers {
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

/// The number of rows in the answers to a request that is sent now.
async fn rows(views: &dyn ReadViews, request: ScanRequest) -> Result<usize, Problem> {
    count(views.scan(request)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expected_scan_begins_in_the_call_that_opens_the_views() {
    let [direct, remote] = filled().await;
    for served in [&direct, &remote] {
        learn_paths(served).await;
        let mut opened = open_to_scan(served, ids(served, ALL)).await;
        if let Some(prefetched) = opened.prefetched.take() {
            assert_eq!(count(prefetched).await, Ok(DOCUMENTS));
        }
        assert_eq!(rows(&*opened.views, ids(served, ALL)).await, Ok(DOCUMENTS));
    }
    let opened = open_to_scan(&remote, ids(&remote, ALL)).await;
    drop(opened.views);
    remote.until_released().await;
    let prefetched = opened.prefetched.expect("the leaf has begun the scan");
    assert_eq!(
        count(prefetched).await,
        Ok(DOCUMENTS),
        "it had begun before the views were released"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scan_than_the_expected_one_is_asked_for() {
    for served in filled().await {
        learn_paths(&served).await;
        let opened = open_to_scan(&served, ids(&served, Stage::Rows { limit: Some(1) })).await;
        assert_eq!(rows(&*opened.views, ids(&served, ALL)).await, Ok(DOCUMENTS));
        let opened = open_to_scan(&served, ids(&served, ALL)).await;
        let one_shard = ScanRequest {
            shards: vec![served.shard],
            ..ids(&served, ALL)
        };
        assert_eq!(rows(&*opened.views, one_shard).await, Ok(DOCUMENTS));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_scan_begins_for_a_caller_who_does_not_know_the_paths() {
    let [_, remote] = filled().await;
    let opened = open_to_scan(&remote, ids(&remote, ALL)).await;
    assert!(opened.prefetched.is_none());
    assert_eq!(rows(&*opened.views, ids(&remote, ALL)).await, Ok(DOCUMENTS));
    let opened = open_to_scan(&remote, ids(&remote, ALL)).await;
    assert!(opened.prefetched.is_some(), "it knows them now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_opened_again_is_newer() {
    for served in filled().await {
        learn_paths(&served).await;
        let mut opened = open_to_scan(&served, ids(&served, ALL)).await;
        served
            .ingest
            .write(batch(served.shard, 5, &["{}", "{}"]))
            .await
            .expect("it is written");
        assert_eq!(
            rows(&*opened.views, ids(&served, ALL)).await,
            Ok(DOCUMENTS),
            "an open view does not change"
        );
        let reopened = opened.views.reopen(&[(served.shard, through(7))], soon()).await;
        let [Ok(view)] = &reopened[..] else {
            panic!("{reopened:?}");
        };
        assert_eq!(view.documents, DOCUMENTS as u64 + 2);
        assert_eq!(rows(&*opened.views, ids(&served, ALL)).await, Ok(DOCUMENTS + 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetched_scan_that_nobody_reads_ends_with_its_query() {
    let [_, remote] = filled().await;
    learn_paths(&remote).await;
    let opened = open_to_scan(&remote, ids(&remote, ALL)).await;
    assert!(opened.prefetched.is_some());
    drop(opened);
    remote.until_released().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_have_their_own_views_and_deadlines() {
    for served in filled().await {
        let first = served.open_at(served.shard, through(5)).await;
        let by = |deadline| ScanRequest {
            deadline,
            ..request(&served, &["_id"], vec![], ALL)
        };
        let soon_over = Instant::now() + Duration::from_millis(200);
        while rows(&*first, by(soon_over)).await == Ok(DOCUMENTS) {}
        let late = rows(&*first, by(soon_over)).await;
        assert_eq!(late.map_err(|problem| problem.code), Err(Code::Timeout));
        let more = batch(served.shard, 5, &["{}", "{}"]);
        served.ingest.write(more).await.expect("it is written");
        let second = served.open_at(served.shard, through(7)).await;
        assert_eq!(rows(&*second, by(soon())).await, Ok(DOCUMENTS + 2));
        assert_eq!(rows(&*first, by(soon())).await, Ok(DOCUMENTS));
    }
}

/// All records of partition 0 through this offset.
fn through(offset: i64) -> PositionVector {
    let position = Position {
        source: clicks(),
        partition: 0,
        offset,
    };
    [position].into_iter().collect()
}
