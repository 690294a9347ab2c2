//! Fault tests: one record that cannot be ingested or indexed, or a full disk, does not affect anything else.

use std::collections::BTreeMap;

use plan::scan::Scan as _;
use proto::{
    ingest::{Backpressure, BatchOutcome, Ingest as _, Outcomes},
    record::Record,
};

use crate::{
    store::Partition,
    tests::support::{Fixture, clicks, close_idle_shards, record, small, tail_only},
};

const PANICS: &str = r#"{"name":"panic-in-writer"}"#;

/// Every fifth record panics, in the middle of others of the same keys.
fn records(count: i64) -> Vec<Record> {
    let text = |offset: i64| match offset % 5 {
        2 => PANICS.to_owned(),
        4 => "nonsense".to_owned(),
        _ => format!(r#"{{"offset":{offset}}}"#),
    };
    (0..count)
        .map(|offset| record(offset, Some(&format!("k{}", offset % 7)), Some(&text(offset))))
        .collect()
}

/// Everything stored about the partition: documents, outcomes, digest, dead letters.
async fn everything(fixture: &Fixture) -> (BTreeMap<String, String>, Outcomes, u128, Vec<(String, String)>) {
    let shard = fixture.leaf.shard(fixture.shard).await.expect("the shard");
    let digest = shard
        .store()
        .digest(
            &Partition {
                source: clicks(),
                number: 0,
            },
            0,
        )
        .expect("a digest");
    let letters = fixture
        .leaf
        .dead_letters(fixture.shard, 1_000)
        .await
        .expect("dead letters");
    let mut letters: Vec<_> = letters
        .into_iter()
        .map(|letter| (letter.address.to_string(), letter.code))
        .collect();
    letters.sort();
    (
        fixture.documents().await,
        fixture.outcomes(&clicks(), 0).await,
        digest,
        letters,
    )
}

async fn is_read_only(fixture: &Fixture) -> bool {
    let shard = fixture.leaf.shard(fixture.shard).await.expect("the shard");
    shard.store().is_read_only()
}

/// The number of documents according to the shard's status.
async fn stored_documents(fixture: &Fixture) -> u64 {
    let status = fixture.leaf.status(fixture.shard).await.expect("a status");
    status.outcomes.documents
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_panics_the_writer_becomes_a_dead_letter_whatever_the_batch_size() {
    let all = records(60);
    let mut ends = Vec::new();
    for step in [1, 7, 60] {
        let fixture = Fixture::start(tail_only);
        for piece in all.chunks(step) {
            let (after, through) = (piece[0].offset - 1, piece[piece.len() - 1].offset);
            let batch = fixture.batch(0, after, through, piece.to_vec());
            assert_eq!(
                fixture.write(batch.clone()).await,
                BatchOutcome::Applied { stored: through }
            );
            assert_eq!(
                fixture.write(batch).await,
                BatchOutcome::Already { stored: through },
                "a redelivered batch changes nothing"
            );
        }
        let end = everything(&fixture).await;
        assert_eq!((end.1.events, end.1.accepted, end.1.dead_letters), (60, 36, 24));
        assert_eq!(end.3.iter().filter(|(_, code)| code == "panicked").count(), 12);
        let paths = fixture
            .view()
            .await
            .paths
            .paths
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        assert_eq!(paths, ["offset"], "a record that panicked leaves no paths");
        let fixture = fixture.restart().await;
        assert_eq!(everything(&fixture).await, end);
        ends.push(end);
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_panics_the_writer_does_not_affect_the_others() {
    let fixture = Fixture::start(tail_only);
    let pushed = fixture
        .try_push(fixture.keyed_push_request("once", &["1", PANICS, "3"]))
        .await
        .expect("an answer");
    assert_eq!((pushed.accepted, pushed.rejected), (2, 1));
    assert_eq!((pushed.errors[0].index, &*pushed.errors[0].code), (1, "panicked"));
    assert!(pushed.errors[0].detail.contains("report it"), "{pushed:?}");
    let again = fixture
        .try_push(fixture.keyed_push_request("once", &["1", PANICS, "3"]))
        .await
        .expect("an answer");
    assert!(again.repeated, "the request is deduplicated");

    let many: Vec<&str> = std::iter::repeat_n(PANICS, 30).chain(["1"; 30]).collect();
    let pushed = fixture.push(&many).await;
    assert_eq!(
        (pushed.accepted, pushed.rejected),
        (0, 60),
        "a push with many such items is rejected whole"
    );
    assert_eq!(fixture.push(&["4"]).await.accepted, 1, "the next push is accepted");
    assert_eq!(
        fixture.documents().await.into_values().collect::<Vec<_>>(),
        ["1", "3", "4"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_indexed_does_not_keep_the_others_off_the_disk() {
    let fixture = Fixture::start(small);
    let text = |offset: i64| match offset {
        10 | 500 => format!(r#"{{"offset":{offset},"name":"unbuildable"}}"#),
        77 => format!(r#"{{"offset":{offset},"name":"panic-in-build"}}"#),
        _ => format!(r#"{{"offset":{offset},"name":"fine"}}"#),
    };
    let mut expected = BTreeMap::new();
    for after in (-1..599).step_by(30) {
        let records: Vec<Record> = (after + 1..=after + 30)
            .map(|offset| record(offset, None, Some(&text(offset))))
            .collect();
        expected.extend(
            records
                .iter()
                .map(|record| (format!("clicks/0@{}", record.offset), text(record.offset))),
        );
        while !matches!(
            fixture
                .write(fixture.batch(0, after, after + 30, records.clone()))
                .await,
            BatchOutcome::Applied { .. }
        ) {
            tokio::task::yield_now().await;
        }
    }
    fixture
        .eventually("everything is in splits on disk", async |fixture| {
            let status = fixture.leaf.status(fixture.shard).await.expect("a status");
            status.tail == 0 && status.splits.iter().all(|split| split.on_disk)
        })
        .await;
    assert_eq!(fixture.documents().await, expected);
    let unindexed = async |fixture: &Fixture| {
        fixture
            .view()
            .await
            .segments
            .iter()
            .map(|segment| segment.segment.unindexed())
            .sum::<u64>()
    };
    assert_eq!(unindexed(&fixture).await, 3, "all others are indexed");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.documents().await, expected);
    assert_eq!(unindexed(&fixture).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_disk_space_answers_but_ingests_nothing_until_there_is_space() {
    let fixture = Fixture::start(small);
    let batch = |fixture: &Fixture, after: i64| {
        let records = (after + 1..=after + 90)
            .map(|offset| record(offset, Some(&format!("k{}", offset % 50)), Some(&offset.to_string())));
        fixture.batch(0, after, after + 90, records.collect())
    };
    assert_eq!(
        fixture.write(batch(&fixture, -1)).await,
        BatchOutcome::Applied { stored: 89 }
    );
    fixture.push(&["1", "nonsense"]).await;
    let before = fixture.documents().await;
    let rows = fixture.splits_folder().with_file_name("rows");
    let fixture = fixture
        .restart_with_files(|_| std::fs::write(rows.join("no-room"), "").expect("written"))
        .await;
    assert_eq!(fixture.documents().await, before);
    assert!(is_read_only(&fixture).await);
    let BatchOutcome::Busy(Backpressure { reason, passes: false }) = fixture.write(batch(&fixture, 89)).await else {
        panic!("the batch was applied")
    };
    assert!(reason.contains("the disk was full"), "{reason}");
    let refused = fixture
        .leaf
        .clear_dead_letters(fixture.shard.collection, None)
        .await
        .expect_err("nothing is written");
    assert_eq!(refused.code, proto::Code::Busy, "{refused:?}");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.documents().await, before, "it opens read-only every time");

    std::fs::remove_file(rows.join("no-room")).expect("removed");
    fixture
        .eventually("the shard ingests again", async |fixture| {
            matches!(
                fixture.leaf.write(batch(fixture, 89)).await,
                Ok(BatchOutcome::Applied { .. })
            )
        })
        .await;
    assert_eq!(fixture.documents().await.len(), 51);
    assert_eq!(fixture.outcomes(&clicks(), 0).await.events, 180);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_disk_space_closes_unchanged_and_keeps_its_summary() {
    let fixture = Fixture::start(close_idle_shards);
    for text in ["1", "nonsense", "{}"] {
        fixture.push(&[text]).await;
    }
    let before = fixture.documents().await;
    fixture.wait_until_closed().await;
    let rows = fixture.splits_folder().with_file_name("rows");
    let summary = std::fs::read(rows.join("SUMMARY")).expect("it closed cleanly");
    std::fs::write(rows.join("no-room"), "").expect("written");
    for _ in 0..2 {
        assert_eq!(fixture.documents().await, before);
        assert!(is_read_only(&fixture).await);
        fixture.wait_until_closed().await;
        assert_eq!(std::fs::read(rows.join("SUMMARY")).ok().as_ref(), Some(&summary));
        assert_eq!(stored_documents(&fixture).await, 2);
        assert_eq!(fixture.leaf.open_shards(), 0);
    }
    std::fs::remove_file(rows.join("no-room")).expect("removed");
    fixture.push(&["2"]).await;
    fixture.wait_until_closed().await;
    assert_eq!(stored_documents(&fixture).await, 3);
    assert_eq!(fixture.documents().await.len(), 3);
}
