//! Dead letters expire or are cleared on request, and a partition that they stopped resumes.

use std::time::Duration;

use plan::scan::Scan as _;
use proto::{
    SourceName,
    ingest::{BatchOutcome, Ingest as _},
    record::Record,
};

use super::support::{Fixture, clicks, close_idle_shards, record, tail_only};

/// Records of which `bad` in ten are not JSON.
fn records(after: i64, through: i64, bad: i64) -> Vec<Record> {
    (after + 1..=through)
        .map(|offset| record(offset, None, Some(if offset % 10 < bad { "nonsense" } else { "{}" })))
        .collect()
}

async fn letters(fixture: &Fixture) -> usize {
    fixture
        .leaf
        .dead_letters(fixture.shard, 10_000)
        .await
        .expect("dead letters")
        .len()
}

async fn stopped_at(fixture: &Fixture) -> Option<i64> {
    let stored = fixture
        .leaf
        .stored(fixture.shard, &clicks(), 0)
        .await
        .expect("the stored range");
    stored.stopped_by_dead_letters.then_some(stored.offset)
}

async fn clear(fixture: &Fixture, source: Option<&str>) -> u64 {
    let source: Option<SourceName> = source.map(|source| source.parse().expect("a name"));
    let cleared = fixture
        .leaf
        .clear_dead_letters(fixture.shard.collection, source.as_ref())
        .await
        .expect("it clears");
    assert!(cleared.complete);
    cleared.letters
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_partition_names_the_request_that_resumes_it() {
    let fixture = Fixture::start(tail_only);
    let BatchOutcome::Refused { reason } = fixture.write(fixture.batch(0, -1, 999, records(-1, 999, 9))).await else {
        panic!("the partition did not stop")
    };
    assert!(
        reason.contains("DELETE /v1/collections/{collection}/dead-letters?source=clicks"),
        "{reason}"
    );
    let at = stopped_at(&fixture).await.expect("it is stopped");
    fixture.push(&["also nonsense"]).await;
    let before = fixture.outcomes(&clicks(), 0).await;

    assert_eq!(clear(&fixture, Some("another")).await, 0);
    assert_eq!(
        stopped_at(&fixture).await,
        Some(at),
        "clearing another source changes nothing here"
    );
    assert_eq!(clear(&fixture, Some("clicks")).await, 501);
    assert_eq!(
        (stopped_at(&fixture).await, letters(&fixture).await),
        (None, 1),
        "dead letters of pushes are not cleared"
    );
    assert_eq!(
        fixture.outcomes(&clicks(), 0).await,
        before,
        "the outcomes of the events are still counted"
    );

    let fixture = fixture.restart().await;
    assert_eq!(
        fixture
            .write(fixture.batch(0, at, at + 900, records(at, at + 900, 5)))
            .await,
        BatchOutcome::Applied { stored: at + 900 }
    );
    let after = fixture.outcomes(&clicks(), 0).await;
    assert_eq!(after.events, before.events + 900);
    let worse = records(at + 900, at + 2_000, 10);
    assert!(
        matches!(
            fixture.write(fixture.batch(0, at + 900, at + 2_000, worse)).await,
            BatchOutcome::Refused { .. }
        ),
        "the dead-letter limit starts over and still applies"
    );
    assert!(clear(&fixture, None).await > 501);
    assert_eq!((stopped_at(&fixture).await, letters(&fixture).await), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_partition_without_dead_letters_resumes_after_clearing() {
    let fixture = Fixture::start(|options| {
        tail_only(options);
        options.dead_letters_kept = Duration::from_millis(1);
    });
    assert!(matches!(
        fixture.write(fixture.batch(0, -1, 999, records(-1, 999, 9))).await,
        BatchOutcome::Refused { .. }
    ));
    fixture
        .eventually("its dead letters have expired", async |fixture| {
            letters(fixture).await == 0
        })
        .await;
    assert!(
        stopped_at(&fixture).await.is_some(),
        "expiry does not improve the share of bad records at the start"
    );
    clear(&fixture, Some("clicks")).await;
    assert_eq!(stopped_at(&fixture).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dead_letters_expire_and_no_longer_count_towards_the_byte_limit() {
    let fixture = Fixture::start(|options| {
        tail_only(options);
        options.dead_letter_bytes_max = 1_000;
        options.dead_letters_kept = Duration::from_millis(200);
    });
    let mut stored = -1;
    while stopped_at(&fixture).await.is_none() {
        if let BatchOutcome::Applied { stored: now } = fixture
            .write(fixture.batch(0, stored, stored + 100, records(stored, stored + 100, 3)))
            .await
        {
            stored = now;
        }
    }
    let at = stopped_at(&fixture).await.expect("it is stopped");
    let before = fixture.outcomes(&clicks(), 0).await;
    // Each counts its eight bytes, and the time of its record.
    assert!((1_000 / 30..1_000 / 16).contains(&before.dead_letters), "{before:?}");
    fixture
        .eventually("it resumes", async |fixture| stopped_at(fixture).await.is_none())
        .await;
    fixture
        .eventually("the old dead letters have expired", async |fixture| {
            letters(fixture).await == 0
        })
        .await;
    assert_eq!(fixture.outcomes(&clicks(), 0).await, before);
    assert_eq!(
        fixture
            .write(fixture.batch(0, at, at + 100, records(at, at + 100, 3)))
            .await,
        BatchOutcome::Applied { stored: at + 100 }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dead_letters_of_an_idle_shard_expire() {
    let fixture = Fixture::start(close_idle_shards);
    fixture.write(fixture.batch(0, -1, 99, records(-1, 99, 3))).await;
    let before = fixture.outcomes(&clicks(), 0).await;
    fixture.wait_until_closed().await;
    // The summary that a shard leaves says since which opening it is valid, so every opening changes it.
    let summary = |fixture: &Fixture| std::fs::read(fixture.splits_folder().with_file_name("rows").join("SUMMARY"));
    let before_reopen = summary(&fixture).expect("it closed cleanly");
    let fixture = fixture.crashed_with_options(|options| {
        close_idle_shards(options);
        options.dead_letters_kept = Duration::from_millis(1);
    });
    fixture
        .eventually("it was opened and closed again", async |fixture| {
            summary(fixture).is_ok_and(|summary| summary != before_reopen)
        })
        .await;
    fixture.wait_until_closed().await;
    assert_eq!(
        (letters(&fixture).await, fixture.outcomes(&clicks(), 0).await),
        (0, before)
    );
    assert_eq!(
        fixture.leaf.open_shards(),
        0,
        "it stays closed: nothing is left to expire"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_opens_only_shards_with_dead_letters_to_clear() {
    let fixture = Fixture::start(close_idle_shards);
    assert!(matches!(
        fixture.write(fixture.batch(0, -1, 999, records(-1, 999, 9))).await,
        BatchOutcome::Refused { .. }
    ));
    fixture.wait_until_closed().await;
    assert!(stopped_at(&fixture).await.is_some());
    assert_eq!(clear(&fixture, Some("another")).await, 0);
    assert_eq!(fixture.leaf.open_shards(), 0);
    assert_eq!(clear(&fixture, Some("clicks")).await, 501);
    assert_eq!(stopped_at(&fixture).await, None);
    fixture.wait_until_closed().await;
    assert_eq!((stopped_at(&fixture).await, letters(&fixture).await), (None, 0));
}
