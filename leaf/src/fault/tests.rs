//! What happens to everything else when one record cannot be taken in, or cannot be indexed.

use std::collections::BTreeMap;

use plan::scan::Scan as _;
use proto::{
    ingest::{Ingest as _, Outcomes, Verdict},
    record::Record,
};

use crate::{
    store::Partition,
    support::{Fixture, clicks, none_idle, record, small, tail_only},
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

/// Everything that is stored of the partition: documents, what became of the events, the digest, dead letters.
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

#[tokio::test(flavor = "multi_thread")]
async fn a_record_on_which_the_writer_panics_becomes_a_dead_letter_however_the_batches_are_cut() {
    let all = records(60);
    let mut ends = Vec::new();
    for step in [1, 7, 60] {
        let fixture = Fixture::start(tail_only);
        for piece in all.chunks(step) {
            let (after, through) = (piece[0].offset - 1, piece[piece.len() - 1].offset);
            let batch = fixture.batch(0, after, through, piece.to_vec());
            assert_eq!(fixture.write(batch.clone()).await, Verdict::Applied { stored: through });
            assert_eq!(
                fixture.write(batch).await,
                Verdict::Already { stored: through },
                "nothing comes back"
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
        assert_eq!(paths, ["offset"], "nothing is left of what panicked");
        let fixture = fixture.restart().await;
        assert_eq!(everything(&fixture).await, end);
        ends.push(end);
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_on_which_the_writer_panics_costs_the_others_nothing() {
    let fixture = Fixture::start(tail_only);
    let pushed = fixture
        .try_push(fixture.pushing_as("once", &["1", PANICS, "3"]))
        .await
        .expect("an answer");
    assert_eq!((pushed.accepted, pushed.rejected), (2, 1));
    assert_eq!((pushed.errors[0].index, &*pushed.errors[0].code), (1, "panicked"));
    assert!(pushed.errors[0].detail.contains("report it"), "{pushed:?}");
    let again = fixture
        .try_push(fixture.pushing_as("once", &["1", PANICS, "3"]))
        .await
        .expect("an answer");
    assert!(again.repeated, "its request is known");

    let many: Vec<&str> = std::iter::repeat_n(PANICS, 30).chain(["1"; 30]).collect();
    let pushed = fixture.push(&many).await;
    assert_eq!(
        (pushed.accepted, pushed.rejected),
        (0, 60),
        "of a push full of them nothing is taken"
    );
    assert_eq!(fixture.push(&["4"]).await.accepted, 1, "and the next goes in");
    assert_eq!(
        fixture.documents().await.into_values().collect::<Vec<_>>(),
        ["1", "3", "4"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_indexed_does_not_stop_the_others_from_getting_to_disk() {
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
            Verdict::Applied { .. }
        ) {
            tokio::task::yield_now().await;
        }
    }
    fixture
        .eventually("everything is in splits on disk", async |fixture| {
            let status = fixture.leaf.status(fixture.shard).await.expect("a status");
            status.tail == 0 && status.splits.iter().all(|split| split.place == "disk")
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
async fn a_shard_that_finds_no_room_answers_and_takes_nothing_until_there_is_some() {
    let fixture = Fixture::start(small);
    let batch = |fixture: &Fixture, after: i64| {
        let records = (after + 1..=after + 90)
            .map(|offset| record(offset, Some(&format!("k{}", offset % 50)), Some(&offset.to_string())));
        fixture.batch(0, after, after + 90, records.collect())
    };
    assert_eq!(
        fixture.write(batch(&fixture, -1)).await,
        Verdict::Applied { stored: 89 }
    );
    fixture.push(&["1", "nonsense"]).await;
    let before = fixture.documents().await;
    let rows = fixture.splits_folder().with_file_name("rows");
    let fixture = fixture
        .restart_changed(|_| std::fs::write(rows.join("no-room"), "").expect("written"))
        .await;
    assert_eq!(fixture.documents().await, before);
    assert!(
        fixture
            .leaf
            .shard(fixture.shard)
            .await
            .expect("the shard")
            .store()
            .is_read_only()
    );
    let Verdict::Busy { reason } = fixture.write(batch(&fixture, 89)).await else {
        panic!("it was taken")
    };
    assert!(reason.contains("no room on the disk"), "{reason}");
    let refused = fixture
        .leaf
        .clear_dead_letters(fixture.shard.collection, None)
        .await
        .expect_err("nothing is written");
    assert_eq!(refused.code, proto::Code::Busy, "{refused:?}");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.documents().await, before, "it opens so again and again");

    std::fs::remove_file(rows.join("no-room")).expect("removed");
    fixture
        .eventually("it takes more", async |fixture| {
            matches!(
                fixture.leaf.write(batch(fixture, 89)).await,
                Ok(Verdict::Applied { .. })
            )
        })
        .await;
    assert_eq!(fixture.documents().await.len(), 51);
    assert_eq!(fixture.outcomes(&clicks(), 0).await.events, 180);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_finds_no_room_closes_again_as_it_was_and_is_known_without_being_opened() {
    let fixture = Fixture::start(none_idle);
    for text in ["1", "nonsense", "{}"] {
        fixture.push(&[text]).await;
    }
    let before = fixture.documents().await;
    fixture.all_closed().await;
    let rows = fixture.splits_folder().with_file_name("rows");
    let summary = std::fs::read(rows.join("SUMMARY")).expect("it closed in order");
    std::fs::write(rows.join("no-room"), "").expect("written");
    for _ in 0..2 {
        assert_eq!(fixture.documents().await, before);
        assert!(
            fixture
                .leaf
                .shard(fixture.shard)
                .await
                .expect("the shard")
                .store()
                .is_read_only()
        );
        fixture.all_closed().await;
        assert_eq!(std::fs::read(rows.join("SUMMARY")).ok().as_ref(), Some(&summary));
        assert_eq!(
            fixture
                .leaf
                .status(fixture.shard)
                .await
                .expect("a status")
                .outcomes
                .documents,
            2
        );
        assert_eq!(fixture.leaf.open_shards(), 0);
    }
    std::fs::remove_file(rows.join("no-room")).expect("removed");
    fixture.push(&["2"]).await;
    fixture.all_closed().await;
    assert_eq!(
        fixture
            .leaf
            .status(fixture.shard)
            .await
            .expect("a status")
            .outcomes
            .documents,
        3
    );
    assert_eq!(fixture.documents().await.len(), 3);
}
