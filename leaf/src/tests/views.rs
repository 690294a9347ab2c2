//! A read view is a snapshot: whatever is written, built, replaced and merged meanwhile, it holds exactly the documents
//! at its positions.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use plan::scan::Scan as _;
use proto::{ingest::BatchOutcome, record::Record};

use super::{
    made_up,
    replay::model,
    support::{Fixture, all_documents, clicks, record, small, texts},
};

/// A random stream with many overwrites and tombstones.
pub(super) fn stream(seed: u64, length: i64) -> Vec<Record> {
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let record_at = |offset: i64| {
        let key = (next(4) != 0).then(|| format!("k{}", next(150)));
        let text = (next(8) != 0).then(|| format!(r#"{{"offset":{offset},"word":"w{}"}}"#, next(1_000)));
        record(offset, key.as_deref(), text.as_deref())
    };
    (0..length).map(record_at).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_view_holds_exactly_the_documents_at_its_positions() {
    let seed = made_up::seed();
    let fixture = Arc::new(Fixture::start(small));
    let records = Arc::new(stream(seed, 30_000));
    let done = Arc::new(AtomicBool::new(false));
    let views = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (fixture, records, done, views) = (fixture.clone(), records.clone(), done.clone(), views.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    let view = fixture.view().await;
                    let at = view.positions.get(&clicks(), 0).unwrap_or(-1);
                    let seen = texts(&all_documents(&view));
                    let (expected, outcomes) = model(&records[..usize::try_from(at + 1).expect("a position")]);
                    assert_eq!(seen, expected, "at {at}");
                    assert_eq!(view.documents(), outcomes.documents);
                    views.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut after = -1;
    while after < 3_000 || !merged(&fixture).await {
        let through = after + 23;
        assert!(through < records.len() as i64, "no merge happened");
        let slice =
            records[usize::try_from(after + 1).expect("small")..=usize::try_from(through).expect("small")].to_vec();
        match fixture.write(fixture.batch(0, after, through, slice)).await {
            BatchOutcome::Applied { .. } => after = through,
            BatchOutcome::Busy { .. } => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.expect("a reader");
    }
    assert!(views.load(Ordering::SeqCst) >= 3);
    let written = usize::try_from(after + 1).expect("a position");
    assert_eq!(fixture.outcomes(&clicks(), 0).await, model(&records[..written]).1);
}

async fn merged(fixture: &Fixture) -> bool {
    let status = fixture.leaf.status(fixture.shard).await.expect("a status");
    status.splits.iter().any(|split| split.on_disk && split.generation > 0)
}
