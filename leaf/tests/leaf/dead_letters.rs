//! Dead letters go when they are old or when somebody says so, and a partition that they stopped goes on.

use std::time::Duration;

use plan::scan::Scan as _;
use proto::{
    SourceName,
    ingest::{Ingest as _, Verdict},
    record::Record,
};

use super::support::{Fixture, clicks, none_idle, record, tail_only};

/// Records of which so many of every ten are no JSON.
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

async fn stopped(fixture: &Fixture) -> Option<i64> {
    let stored = fixture
        .leaf
        .stored(fixture.shard, &clicks(), 0)
        .await
        .expect("what is stored");
    stored.dead.then_some(stored.offset)
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
async fn a_partition_that_stopped_names_the_call_with_which_it_goes_on() {
    let fixture = Fixture::start(tail_only);
    let Verdict::Refused { reason } = fixture.write(fixture.batch(0, -1, 999, records(-1, 999, 9))).await else {
        panic!("it does not stop")
    };
    assert!(
        reason.contains("DELETE /v1/collections/{collection}/dead-letters?source=clicks"),
        "{reason}"
    );
    let at = stopped(&fixture).await.expect("it is stopped");
    fixture.push(&["also nonsense"]).await;
    let before = fixture.outcomes(&clicks(), 0).await;

    assert_eq!(clear(&fixture, Some("another")).await, 0);
    assert_eq!(
        stopped(&fixture).await,
        Some(at),
        "what is cleared of another source changes nothing here"
    );
    assert_eq!(clear(&fixture, Some("clicks")).await, 501);
    assert_eq!(
        (stopped(&fixture).await, letters(&fixture).await),
        (None, 1),
        "those of pushes stay"
    );
    assert_eq!(
        fixture.outcomes(&clicks(), 0).await,
        before,
        "what became of the events stays counted"
    );

    let fixture = fixture.restart().await;
    assert_eq!(
        fixture
            .write(fixture.batch(0, at, at + 900, records(at, at + 900, 5)))
            .await,
        Verdict::Applied { stored: at + 900 }
    );
    let after = fixture.outcomes(&clicks(), 0).await;
    assert_eq!(after.events, before.events + 900);
    let worse = records(at + 900, at + 2_000, 10);
    assert!(
        matches!(
            fixture.write(fixture.batch(0, at + 900, at + 2_000, worse)).await,
            Verdict::Refused { .. }
        ),
        "it is tried anew, and no more"
    );
    assert!(clear(&fixture, None).await > 501);
    assert_eq!((stopped(&fixture).await, letters(&fixture).await), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_stopped_and_has_no_dead_letters_left_goes_on_too() {
    let fixture = Fixture::start(|options| {
        tail_only(options);
        options.dead_letters_kept = Duration::from_millis(1);
    });
    assert!(matches!(
        fixture.write(fixture.batch(0, -1, 999, records(-1, 999, 9))).await,
        Verdict::Refused { .. }
    ));
    fixture
        .eventually("they are too old to be kept", async |fixture| {
            letters(fixture).await == 0
        })
        .await;
    assert!(
        stopped(&fixture).await.is_some(),
        "how much was unusable at the beginning does not become better with age"
    );
    clear(&fixture, Some("clicks")).await;
    assert_eq!(stopped(&fixture).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dead_letters_go_by_themselves_and_their_bytes_count_no_more() {
    let fixture = Fixture::start(|options| {
        tail_only(options);
        options.dead_letter_bytes_max = 1_000;
        options.dead_letters_kept = Duration::from_millis(200);
    });
    let mut stored = -1;
    while stopped(&fixture).await.is_none() {
        if let Verdict::Applied { stored: now } = fixture
            .write(fixture.batch(0, stored, stored + 100, records(stored, stored + 100, 3)))
            .await
        {
            stored = now;
        }
    }
    let at = stopped(&fixture).await.expect("it is stopped");
    let before = fixture.outcomes(&clicks(), 0).await;
    assert!(before.dead_letters * 8 > 1_000, "{before:?}");
    fixture
        .eventually("it goes on", async |fixture| stopped(fixture).await.is_none())
        .await;
    fixture
        .eventually("the old ones are gone", async |fixture| letters(fixture).await == 0)
        .await;
    assert_eq!(fixture.outcomes(&clicks(), 0).await, before);
    assert_eq!(
        fixture
            .write(fixture.batch(0, at, at + 100, records(at, at + 100, 3)))
            .await,
        Verdict::Applied { stored: at + 100 }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dead_letters_of_a_shard_that_nobody_uses_go_too() {
    let fixture = Fixture::start(none_idle);
    fixture.write(fixture.batch(0, -1, 99, records(-1, 99, 3))).await;
    let before = fixture.outcomes(&clicks(), 0).await;
    fixture.all_closed().await;
    // What a shard leaves behind says from which opening on it is right.
    let left = |fixture: &Fixture| std::fs::read(fixture.splits_folder().with_file_name("rows").join("SUMMARY"));
    let closed = left(&fixture).expect("it closed in order");
    let fixture = fixture.crashed_as(|options| {
        none_idle(options);
        options.dead_letters_kept = Duration::from_millis(1);
    });
    fixture
        .eventually("it was opened, and closed again", async |fixture| {
            left(fixture).is_ok_and(|left| left != closed)
        })
        .await;
    fixture.all_closed().await;
    assert_eq!(
        (letters(&fixture).await, fixture.outcomes(&clicks(), 0).await),
        (0, before)
    );
    assert_eq!(
        fixture.leaf.open_shards(),
        0,
        "and it stays closed: there is nothing more to do"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_opens_a_shard_that_has_something_to_clear_and_no_other() {
    let fixture = Fixture::start(none_idle);
    assert!(matches!(
        fixture.write(fixture.batch(0, -1, 999, records(-1, 999, 9))).await,
        Verdict::Refused { .. }
    ));
    fixture.all_closed().await;
    assert!(stopped(&fixture).await.is_some());
    assert_eq!(clear(&fixture, Some("another")).await, 0);
    assert_eq!(fixture.leaf.open_shards(), 0);
    assert_eq!(clear(&fixture, Some("clicks")).await, 501);
    assert_eq!(stopped(&fixture).await, None);
    fixture.all_closed().await;
    assert_eq!((stopped(&fixture).await, letters(&fixture).await), (None, 0));
}
