//! Many collections with limited resources: an idle shard is closed, which only its files and memory reveal.

mod limits;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::LeafOptions;
use futures::{StreamExt as _, stream};
use plan::scan::Scan as _;
use proto::{
    Code, SourceName,
    catalog::{Collection, CollectionSettings},
    ingest::{Batch, BatchOutcome, Ingest as _, Push, ShardId},
    record::Record,
};

use super::{
    made_up,
    replay::model,
    support::{Fixture, all_documents, clicks, close_idle_shards, record, small, texts},
    views::stream as records_of,
};

/// At most two shards stay open, and idle ones are closed at once.
fn two_open(options: &mut LeafOptions) {
    small(options);
    options.open_shards_max = 2;
    options.idle_shards_max = 0;
    options.shard_idle = Duration::ZERO;
}

impl Fixture {
    fn add_collections(&self, count: usize) -> Vec<ShardId> {
        let settings = CollectionSettings {
            shards: 1,
            ..CollectionSettings::default()
        };
        let shards: Vec<ShardId> = (0..count)
            .map(|_| ShardId {
                collection: proto::CollectionUid(uuid::Uuid::now_v7()),
                number: 0,
            })
            .collect();
        self.catalog.send_modify(|catalog| {
            let catalog = Arc::make_mut(catalog);
            for (number, shard) in shards.iter().enumerate() {
                let name = format!("many-{number}-{}", catalog.collections.len())
                    .parse()
                    .expect("a name");
                catalog
                    .collections
                    .insert(name, Collection::new(shard.collection, 1, settings.clone()));
            }
        });
        shards
    }

    async fn push_to(&self, shard: ShardId, text: &str) {
        let pushed = self
            .try_push(Push {
                shard,
                ..self.push_request(&[text])
            })
            .await
            .expect("a push");
        assert_eq!((pushed.accepted, pushed.rejected), (1, 0));
    }

    /// Pushes a document to each of these shards, to `at_once` of them at a time.
    async fn push_to_each(&self, shards: &[ShardId], at_once: usize, text: &str) {
        stream::iter(shards)
            .for_each_concurrent(at_once, |shard| self.push_to(*shard, text))
            .await;
    }

    async fn documents_of(&self, shard: ShardId) -> BTreeMap<String, String> {
        texts(&all_documents(&self.view_of(shard).await))
    }
}

/// Records whose keys repeat every seven offsets.
fn keyed_records(offsets: std::ops::RangeInclusive<i64>) -> Vec<Record> {
    offsets
        .map(|at| record(at, Some(&format!("k{}", at % 7)), Some(&format!("{{\"at\":{at}}}"))))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_closed_when_idle_resumes_where_it_was() {
    let fixture = Fixture::start(close_idle_shards);
    assert_eq!(
        fixture.write(fixture.batch(0, -1, 20, keyed_records(0..=20))).await,
        BatchOutcome::Applied { stored: 20 }
    );
    fixture
        .try_push(fixture.keyed_push_request("once", &["1", "{"]))
        .await
        .expect("a push");
    let (before, fields) = (
        fixture.documents().await,
        fixture.leaf.fields(fixture.shard).await.expect("fields"),
    );
    for round in 0..3 {
        fixture.wait_until_closed().await;
        check_metadata(&fixture, before.len() as u64, fields.len()).await;
        assert_eq!(
            fixture.leaf.open_shards(),
            0,
            "round {round}: metadata does not open it"
        );
        // A query of its documents opens it.
        assert_eq!(fixture.documents().await, before, "round {round}");
        assert_eq!(
            fixture
                .leaf
                .dead_letters(fixture.shard, 9)
                .await
                .expect("dead letters")
                .len(),
            1
        );
    }
    fixture.wait_until_closed().await;
    assert!(
        fixture
            .try_push(fixture.keyed_push_request("once", &["1", "{"]))
            .await
            .expect("the answer of the first")
            .repeated
    );
    check_writes_resume(&fixture).await;
    let after = fixture.documents().await;
    assert!(
        after.contains_key("clicks/0@21") && !after.contains_key("clicks/0@14"),
        "the new document replaces the previous one of its key: {after:?}"
    );
    assert_eq!(after.len(), before.len());
}

/// Checks the metadata of a shard, which is available while it is closed.
async fn check_metadata(fixture: &Fixture, documents: u64, fields: usize) {
    let stored = fixture
        .leaf
        .stored(fixture.shard, &clicks(), 0)
        .await
        .expect("a position");
    assert_eq!((stored.offset, stored.topic.as_deref()), (20, Some("topic-1")));
    let outcomes = fixture.outcomes(&SourceName::push(), 0).await;
    assert_eq!((outcomes.events, outcomes.dead_letters), (2, 1));
    let status = fixture.leaf.status(fixture.shard).await.expect("a status");
    assert_eq!(
        (status.positions.to_string(), status.outcomes.documents),
        ("clicks/0@20,push/0@0".into(), documents)
    );
    assert_eq!(fixture.leaf.fields(fixture.shard).await.expect("fields").len(), fields);
    assert_eq!(fixture.leaf.losses(fixture.shard.collection).await.expect("losses"), []);
}

/// Checks that a closed shard refuses repeated batches and gaps and accepts the next batch.
async fn check_writes_resume(fixture: &Fixture) {
    fixture.wait_until_closed().await;
    assert_eq!(
        fixture.write(fixture.batch(0, 4, 20, keyed_records(5..=20))).await,
        BatchOutcome::Already { stored: 20 }
    );
    assert_eq!(
        fixture.write(fixture.batch(0, 22, 23, keyed_records(23..=23))).await,
        BatchOutcome::Gap { stored: 20 }
    );
    fixture.wait_until_closed().await;
    assert_eq!(
        fixture.write(fixture.batch(0, 20, 21, keyed_records(21..=21))).await,
        BatchOutcome::Applied { stored: 21 }
    );
    fixture.wait_until_closed().await;
    assert_eq!(
        fixture
            .leaf
            .stored(fixture.shard, &clicks(), 0)
            .await
            .expect("a position")
            .offset,
        21
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_view_keeps_its_shard_open() {
    let fixture = Fixture::start(close_idle_shards);
    for number in 0..100 {
        fixture
            .push(&[&format!("{{\"_id\":\"a{}\",\"number\":{number}}}", number % 10)])
            .await;
    }
    let (others, views) = (fixture.add_collections(5), fixture.open(fixture.shard).await);
    fixture.push_to(others[0], "1").await;
    let other = fixture.open(others[0]).await;
    let before = all_documents(views.of(fixture.shard).expect("a view"));
    for number in 0..200 {
        fixture
            .push(&[&format!("{{\"_id\":\"a{}\",\"number\":{number}}}", number % 10)])
            .await;
    }
    for other in &others[1..] {
        fixture.push_to(*other, "{}").await;
    }
    fixture
        .eventually("all others are closed", async |fixture| fixture.leaf.open_shards() == 2)
        .await;
    fixture.push_to(others[0], "2").await;
    assert_eq!(all_documents(other.of(others[0]).expect("a view")).len(), 1);
    drop(other);
    let view = views.of(fixture.shard).expect("still open").clone();
    assert_eq!(all_documents(&view), before);
    drop(views);
    // A running scan has a view of its own.
    assert_eq!(all_documents(&view), before);
    assert_eq!(fixture.documents().await.len(), 10);
    drop(view);
    fixture.wait_until_closed().await;
    assert_eq!(fixture.documents().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_a_killed_process_left_unindexed_are_indexed_without_a_request() {
    let fixture = Fixture::start(super::support::tail_only);
    for number in 0..100 {
        fixture.push(&[&format!("{{\"number\":{number}}}")]).await;
    }
    let crashed = fixture.crashed_with_options(close_idle_shards);
    let on_disk =
        async |fixture: &Fixture| std::fs::read_dir(fixture.splits_folder()).is_ok_and(|files| files.count() == 1);
    crashed.eventually("its documents are in a split", on_disk).await;
    crashed.wait_until_closed().await;
    assert_eq!(crashed.documents().await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_closed_shard_are_cleared_and_expire_whatever_their_size_and_timestamp() {
    let fixture = Fixture::start(close_idle_shards);
    let letters = async |fixture: &Fixture| {
        fixture
            .leaf
            .dead_letters(fixture.shard, 9)
            .await
            .expect("dead letters")
            .len()
    };
    // A dead letter without any bytes.
    assert_eq!(
        fixture
            .write(fixture.batch(0, -1, 0, vec![record(0, None, Some(""))]))
            .await,
        BatchOutcome::Applied { stored: 0 }
    );
    assert_eq!(letters(&fixture).await, 1);
    fixture.wait_until_closed().await;
    let cleared = fixture
        .leaf
        .clear_dead_letters(fixture.shard.collection, None)
        .await
        .expect("it clears");
    assert_eq!((cleared.letters, cleared.complete), (1, true));

    // An old dead letter after one with a timestamp in the future.
    for time_ms in [4_102_444_800_000, 1_700_000_000_000] {
        fixture
            .try_push(Push {
                time_ms,
                ..fixture.push_request(&["nonsense"])
            })
            .await
            .expect("a push");
    }
    assert_eq!(letters(&fixture).await, 2);
    fixture.wait_until_closed().await;
    // Reading the dead letters would open the shard. Its summary shows that the leaf opened it by itself.
    let summary = |fixture: &Fixture| std::fs::read(fixture.splits_folder().with_file_name("rows").join("SUMMARY"));
    let before_reopen = summary(&fixture).expect("it closed cleanly");
    let fixture = fixture
        .restart_with_options(|options| {
            close_idle_shards(options);
            options.dead_letters_kept = Duration::from_secs(30 * 24 * 3_600);
        })
        .await;
    fixture
        .eventually("it was opened and closed again", async |fixture| {
            summary(fixture).is_ok_and(|summary| summary != before_reopen)
        })
        .await;
    assert_eq!(letters(&fixture).await, 1, "the old one has expired");
}

/// Whether a limit prevented a shard from opening. A store that is still locked must never cause an error.
fn is_full(problem: &proto::Problem) -> bool {
    problem.code == Code::Busy && problem.detail.contains("open shards are in use")
}

/// Shards and the records of each.
type ShardStreams = Vec<(ShardId, Arc<Vec<Record>>)>;

/// Reads the shards in turn until `done`, and checks that each view holds the documents at its positions. With
/// `retains`, the last view is retained while the next shard is read.
async fn read_in_turn(fixture: Arc<Fixture>, shards: ShardStreams, done: Arc<AtomicBool>, first: usize, retains: bool) {
    let mut _retained = None;
    for (shard, records) in shards.iter().cycle().skip(first) {
        if done.load(Ordering::SeqCst) {
            return;
        }
        let views = match fixture.try_open(*shard).await {
            Err(problem) if is_full(&problem) => continue,
            opened => opened.expect("a view"),
        };
        let view = views.of(*shard).expect("it is open").clone();
        drop(views);
        let at = view.positions.get(&clicks(), 0).unwrap_or(-1);
        assert_eq!(
            texts(&all_documents(&view)),
            model(&records[..(at + 1) as usize]).0,
            "at {at}"
        );
        _retained = retains.then_some(view);
    }
}

/// Checks until `done` that no stored position goes back, whether its shard is open or closed.
async fn watch_positions(fixture: Arc<Fixture>, shards: ShardStreams, done: Arc<AtomicBool>) {
    let mut seen = vec![-1; shards.len()];
    for (number, (shard, _)) in shards.iter().enumerate().cycle() {
        if done.load(Ordering::SeqCst) {
            return;
        }
        match fixture.leaf.stored(*shard, &clicks(), 0).await {
            Ok(stored) => assert!(std::mem::replace(&mut seen[number], stored.offset) <= stored.offset),
            Err(problem) => assert!(is_full(&problem), "{problem:?}"),
        }
    }
}

/// Writes consecutive records to a shard, and repeats the batch until it is applied.
async fn write_until_applied(fixture: &Fixture, shard: ShardId, records: &[Record]) {
    let (after, through) = (records[0].offset - 1, records[records.len() - 1].offset);
    loop {
        let batch = Batch {
            shard,
            ..fixture.batch(0, after, through, records.to_vec())
        };
        match fixture.leaf.write(batch).await {
            Ok(outcome) if outcome == (BatchOutcome::Applied { stored: through }) => return,
            Ok(BatchOutcome::Busy { .. }) => tokio::task::yield_now().await,
            Err(problem) if is_full(&problem) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shards_that_open_and_close_continuously_lose_and_repeat_nothing() {
    const BATCH: usize = 9;
    const ROUNDS: usize = 12;
    let seed = made_up::seed();
    let three_open = |options: &mut LeafOptions| {
        two_open(options);
        options.open_shards_max = 3;
        options.open_files_max = 60;
    };
    let fixture = Arc::new(Fixture::start(three_open));
    let streams = (0..6).map(|number| Arc::new(records_of(seed + number, (BATCH * ROUNDS) as i64)));
    let shards: ShardStreams = fixture.add_collections(6).into_iter().zip(streams).collect();
    let done = Arc::new(AtomicBool::new(false));
    // Few of the shards can be open at once: what one task opens is closed for another.
    let reader = |first, retains| {
        tokio::spawn(read_in_turn(
            fixture.clone(),
            shards.clone(),
            done.clone(),
            first,
            retains,
        ))
    };
    let watcher = tokio::spawn(watch_positions(fixture.clone(), shards.clone(), done.clone()));
    let tasks = [reader(0, true), reader(3, false), watcher];
    for round in 0..ROUNDS {
        for (shard, records) in &shards {
            write_until_applied(&fixture, *shard, &records[round * BATCH..(round + 1) * BATCH]).await;
        }
    }
    done.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("it ends");
    }
    let crashed = fixture.crashed();
    for (shard, records) in &shards {
        assert_eq!(fixture.documents_of(*shard).await, model(records).0);
        assert_eq!(crashed.documents_of(*shard).await, model(records).0, "after kill -9");
    }
}
