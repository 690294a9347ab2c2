//! Tests of `dead_letters`.

use proto::SourceName;

use super::*;
use crate::tests::support::{Fixture, tail_only};

/// The number of dead letters; asserts that the partition counts exactly their bytes.
async fn count_letters(fixture: &Fixture) -> usize {
    let shard = fixture.leaf.shard(fixture.shard).await.expect("the shard");
    let partition = Partition {
        source: SourceName::push(),
        number: 0,
    };
    let lengths: Vec<u64> = shard
        .store
        .dead_letter_rows(&partition, None)
        .map(|row| row.expect("a row").2)
        .collect();
    assert_eq!(
        shard.with_state(|state| state.rows[&partition].dead_bytes),
        lengths.iter().sum::<u64>()
    );
    lengths.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_clearing_keeps_the_rest_and_its_byte_count() {
    let fixture = Fixture::start(tail_only);
    for _ in 0..2 {
        fixture.push(&vec!["nonsense"; REMOVED_ROWS_MAX]).await;
    }
    fixture.push(&["1", "more nonsense"]).await;
    let all = 2 * REMOVED_ROWS_MAX + 1;
    assert_eq!(count_letters(&fixture).await, all);
    let outcomes = fixture.outcomes(&SourceName::push(), 0).await;

    let shard = fixture.leaf.shard(fixture.shard).await.expect("the shard");
    let (one, now) = (shard.clone(), Instant::now());
    let cleared = tokio::task::spawn_blocking(move || one.clear_dead_letters(None, now))
        .await
        .expect("it ends")
        .expect("it clears");
    assert_eq!(
        cleared,
        ClearedDeadLetters {
            letters: REMOVED_ROWS_MAX as u64,
            complete: false
        }
    );
    drop(shard);
    assert_eq!(count_letters(&fixture).await, REMOVED_ROWS_MAX + 1);
    let crashed = fixture.crashed();
    assert_eq!(count_letters(&crashed).await, REMOVED_ROWS_MAX + 1);
    let fixture = fixture.restart().await;
    assert_eq!(count_letters(&fixture).await, REMOVED_ROWS_MAX + 1);

    let cleared = proto::ingest::Ingest::clear_dead_letters(&*fixture.leaf, fixture.shard.collection, None)
        .await
        .expect("it clears");
    assert_eq!(
        cleared,
        ClearedDeadLetters {
            letters: REMOVED_ROWS_MAX as u64 + 1,
            complete: true
        }
    );
    assert_eq!(count_letters(&fixture).await, 0);
    assert_eq!(
        fixture.outcomes(&SourceName::push(), 0).await,
        outcomes,
        "the outcome counters do not change"
    );
}
