//! Many collections on few resources: a shard that nobody uses is closed, and nobody can tell but by its files and
//! memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use leaf::LeafOptions;
use plan::scan::{QueryId, Scan as _};
use proto::{
    Code, PositionVector, SourceName,
    catalog::{Collection, CollectionSettings},
    ingest::{Batch, Ingest as _, Push, ShardId, Verdict},
    record::Record,
};

use super::{
    replay::model,
    support::{Fixture, clicks, everything, none_idle, query, record, small, texts},
    views::stream as records_of,
};

/// Two shards stay open at most, and none for nothing.
fn two_open(options: &mut LeafOptions) {
    small(options);
    options.open_shards_max = 2;
    options.idle_shards_max = 0;
    options.shard_idle = Duration::ZERO;
}

impl Fixture {
    /// Further collections of one shard each.
    fn collections(&self, count: usize) -> Vec<ShardId> {
        let settings = CollectionSettings {
            shards: 1,
            ..CollectionSettings::default()
        };
        let made: Vec<ShardId> = (0..count)
            .map(|_| ShardId {
                collection: proto::CollectionUid(uuid::Uuid::now_v7()),
                number: 0,
            })
            .collect();
        self.catalog.send_modify(|catalog| {
            let catalog = Arc::make_mut(catalog);
            for (number, shard) in made.iter().enumerate() {
                let name = format!("many-{number}-{}", catalog.collections.len())
                    .parse()
                    .expect("a name");
                catalog
                    .collections
                    .insert(name, Collection::new(shard.collection, 1, settings.clone()));
            }
        });
        made
    }

    async fn push_to(&self, shard: ShardId, text: &str) {
        let pushed = self
            .try_push(Push {
                shard,
                ..self.pushing(&[text])
            })
            .await
            .expect("a push");
        assert_eq!((pushed.accepted, pushed.rejected), (1, 0));
    }

    async fn documents_of(&self, shard: ShardId) -> BTreeMap<String, String> {
        let query = self.pin(shard).await;
        let view = self.leaf.pinned(query, shard).expect("it is pinned");
        self.leaf.unpin(query);
        texts(&everything(&view))
    }

    async fn pin(&self, shard: ShardId) -> QueryId {
        let query = query();
        self.leaf
            .pin(
                query,
                shard,
                &PositionVector::default(),
                Instant::now() + Duration::from_secs(20),
            )
            .await
            .expect("a view");
        query
    }
}

/// Files below the fixture's folder that this process has open.
fn files_open(fixture: &Fixture) -> usize {
    let open = std::fs::read_dir("/proc/self/fd")
        .expect("this process")
        .filter_map(Result::ok);
    open.filter(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(fixture.folder.path())))
        .count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("this process").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_was_closed_for_idleness_goes_on_where_it_was() {
    let fixture = Fixture::start(none_idle);
    let records = |range: std::ops::RangeInclusive<i64>| {
        range
            .map(|at| record(at, Some(&format!("k{}", at % 7)), Some(&format!("{{\"at\":{at}}}"))))
            .collect()
    };
    assert_eq!(
        fixture.write(fixture.batch(0, -1, 20, records(0..=20))).await,
        Verdict::Applied { stored: 20 }
    );
    fixture
        .try_push(fixture.pushing_as("once", &["1", "{"]))
        .await
        .expect("a push");
    let (before, fields) = (
        fixture.documents().await,
        fixture.leaf.fields(fixture.shard).await.expect("fields"),
    );
    for round in 0..3 {
        fixture.all_closed().await;
        // What is asked about it is answered without its store …
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
            ("clicks/0@20,push/0@0".into(), before.len() as u64)
        );
        assert_eq!(
            fixture.leaf.fields(fixture.shard).await.expect("fields").len(),
            fields.len()
        );
        assert_eq!(fixture.leaf.losses(fixture.shard.collection).await.expect("losses"), []);
        assert_eq!(fixture.leaf.open_shards(), 0, "round {round}: it stays closed");
        // … and what is asked of its documents opens it.
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
    fixture.all_closed().await;
    assert!(
        fixture
            .try_push(fixture.pushing_as("once", &["1", "{"]))
            .await
            .expect("the answer of the first")
            .repeated
    );
    fixture.all_closed().await;
    assert_eq!(
        fixture.write(fixture.batch(0, 4, 20, records(5..=20))).await,
        Verdict::Already { stored: 20 }
    );
    assert_eq!(
        fixture.write(fixture.batch(0, 22, 23, records(23..=23))).await,
        Verdict::Gap { stored: 20 }
    );
    fixture.all_closed().await;
    assert_eq!(
        fixture.write(fixture.batch(0, 20, 21, records(21..=21))).await,
        Verdict::Applied { stored: 21 }
    );
    fixture.all_closed().await;
    assert_eq!(
        fixture
            .leaf
            .stored(fixture.shard, &clicks(), 0)
            .await
            .expect("a position")
            .offset,
        21
    );
    let after = fixture.documents().await;
    assert!(
        after.contains_key("clicks/0@21") && !after.contains_key("clicks/0@14"),
        "the key's newest document is the new one: {after:?}"
    );
    assert_eq!(after.len(), before.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_held_keeps_its_shard_open() {
    let fixture = Fixture::start(none_idle);
    for number in 0..100 {
        fixture
            .push(&[&format!("{{\"_id\":\"a{}\",\"number\":{number}}}", number % 10)])
            .await;
    }
    let (others, query) = (fixture.collections(5), fixture.pin(fixture.shard).await);
    fixture.push_to(others[0], "1").await;
    let other = fixture.pin(others[0]).await;
    let before = everything(&fixture.leaf.pinned(query, fixture.shard).expect("a view"));
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
    assert_eq!(
        everything(&fixture.leaf.pinned(other, others[0]).expect("a view")).len(),
        1
    );
    fixture.leaf.unpin(other);
    let view = fixture.leaf.pinned(query, fixture.shard).expect("still pinned");
    assert_eq!(everything(&view), before);
    fixture.leaf.unpin(query);
    // Whoever scans has a view without a pin.
    assert_eq!(everything(&view), before);
    assert_eq!(fixture.documents().await.len(), 10);
    drop(view);
    fixture.all_closed().await;
    assert_eq!(fixture.documents().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_collections_than_may_be_open_take_and_answer() {
    let fixture = Fixture::start(two_open);
    let shards = fixture.collections(30);
    for round in 0..3 {
        let pushed = stream::iter(&shards)
            .map(|shard| fixture.push_to(*shard, r#"{"a":1}"#))
            .buffer_unordered(16);
        assert_eq!(pushed.count().await, shards.len());
        let asked = stream::iter(&shards)
            .map(|shard| fixture.documents_of(*shard))
            .buffer_unordered(16);
        let counts: BTreeSet<usize> = asked.map(|documents| documents.len()).collect().await;
        assert_eq!(counts, [round + 1].into(), "each has as many as it was sent");
        fixture
            .eventually("no more are open than may be", async |fixture| {
                fixture.leaf.open_shards() <= 2
            })
            .await;
    }
    for shard in &shards {
        assert_eq!(
            fixture.leaf.status(*shard).await.expect("a status").outcomes.documents,
            3
        );
    }
    let fixture = fixture.restart().await;
    for shard in &shards {
        assert_eq!(
            fixture.leaf.status(*shard).await.expect("a status").outcomes.documents,
            3
        );
    }
    assert_eq!(
        fixture.leaf.open_shards(),
        0,
        "what closed in order is not opened to say how it is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_shards_are_open_than_may_be_while_the_disk_takes_nothing_new() {
    let fixture = Fixture::start(two_open);
    let shards = fixture.collections(30);
    for shard in &shards {
        fixture.push_to(*shard, "1").await;
    }
    // There is space, and it is kept for others.
    let full = fixture
        .restart_as(|options| {
            two_open(options);
            options.disk_used_percent_max = 0;
        })
        .await;
    let refused = full
        .try_push(Push {
            shard: shards[0],
            ..full.pushing(&["2"])
        })
        .await
        .expect_err("the disk is full");
    assert!(
        refused.code == Code::Busy && refused.detail.contains("full"),
        "{refused}"
    );
    for shard in &shards {
        assert_eq!(full.documents_of(*shard).await.len(), 1);
    }
    full.eventually("no more are open than may be", async |fixture| {
        fixture.leaf.open_shards() <= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_question_may_need_more_shards_than_stay_open() {
    let fixture = Fixture::start(two_open);
    let shards = fixture.collections(30);
    stream::iter(&shards)
        .for_each_concurrent(8, |shard| fixture.push_to(*shard, "1"))
        .await;
    let query = query();
    for shard in &shards {
        fixture
            .leaf
            .pin(
                query,
                *shard,
                &PositionVector::default(),
                Instant::now() + Duration::from_secs(20),
            )
            .await
            .expect("a view");
    }
    for shard in &shards {
        assert_eq!(
            everything(&fixture.leaf.pinned(query, *shard).expect("it is pinned")).len(),
            1
        );
    }
    fixture.leaf.unpin(query);
    fixture.all_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_finds_no_room_says_so_and_open_ones_go_on_meanwhile() {
    let fixture = Fixture::start(|options| {
        two_open(options);
        options.open_files_max = 60;
    });
    let shards = fixture.collections(12);
    for shard in &shards {
        fixture.push_to(*shard, "1").await;
    }
    let deadline = || Instant::now() + Duration::from_secs(20);
    let all = query();
    let mut held = 0;
    let refused = loop {
        match fixture
            .leaf
            .pin(all, shards[held], &PositionVector::default(), deadline())
            .await
        {
            Ok(_) => held += 1,
            Err(refused) => break refused,
        }
    };
    assert!(
        refused.code == Code::Busy && refused.detail.contains(&format!("{held} are open")),
        "{held}: {refused:?}"
    );
    assert!((2..10).contains(&held), "{held}");

    // Many wait for room, one after another; those that are open take and answer as if nobody did.
    let one = query();
    let waits = stream::iter(&shards[held..]).map(async |shard| {
        fixture
            .leaf
            .pin(one, *shard, &PositionVector::default(), deadline())
            .await
    });
    let mut waits = Box::pin(waits.buffer_unordered(12));
    let goes_on = async {
        for round in 0..100 {
            fixture.push_to(shards[round % held], "2").await;
            fixture.documents_of(shards[round % held]).await;
        }
    };
    tokio::select! {
        waited = waits.next() => panic!("who waits for room holds up who does not need any: {waited:?}"),
        () = goes_on => {}
    }
    fixture.leaf.unpin(all);
    let opened = waits.next().await.expect("one that waited");
    assert!(opened.is_ok(), "there is room now: {opened:?}");
    drop(waits);
    fixture.leaf.unpin(one);
    for shard in &shards[held..] {
        assert_eq!(fixture.documents_of(*shard).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_do_not_grow_with_collections() {
    let fixture = Fixture::start(small);
    let few = fixture.collections(5);
    stream::iter(&few)
        .for_each_concurrent(16, |shard| fixture.push_to(*shard, "1"))
        .await;
    let before = threads();
    let many = fixture.collections(120);
    stream::iter(&many)
        .for_each_concurrent(16, |shard| fixture.push_to(*shard, "1"))
        .await;
    assert!(
        fixture.leaf.open_shards() > 100,
        "{} are open",
        fixture.leaf.open_shards()
    );
    let grown = threads().saturating_sub(before);
    assert!(grown < 60, "{grown} threads for 120 collections");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_to_index_is_indexed_without_being_asked_for() {
    let fixture = Fixture::start(super::support::tail_only);
    for number in 0..100 {
        fixture.push(&[&format!("{{\"number\":{number}}}")]).await;
    }
    let crashed = fixture.crashed_as(none_idle);
    let on_disk =
        async |fixture: &Fixture| std::fs::read_dir(fixture.splits_folder()).is_ok_and(|files| files.count() == 1);
    crashed.eventually("its documents are in a split", on_disk).await;
    crashed.all_closed().await;
    assert_eq!(crashed.documents().await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_files_stay_within_their_budget() {
    let few = |options: &mut LeafOptions| {
        small(options);
        options.open_files_max = 100;
    };
    let fixture = Fixture::start(few);
    let shards = fixture.collections(30);
    for _ in 0..4 {
        stream::iter(&shards)
            .for_each_concurrent(8, |shard| fixture.push_to(*shard, r#"{"a":1}"#))
            .await;
        assert!(
            (1..100).contains(&files_open(&fixture)),
            "{} files are open",
            files_open(&fixture)
        );
    }
    assert!(
        (2..20).contains(&fixture.leaf.open_shards()),
        "{} are open",
        fixture.leaf.open_shards()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_shards_together_hold_no_more_in_memory_than_their_budget() {
    // None goes to disk by itself, and none is over a limit of its own.
    let tight = |options: &mut LeafOptions| {
        super::support::tail_only(options);
        options.unsplit_bytes_max = 1 << 20;
    };
    let fixture = Fixture::start(tight);
    let shards = fixture.collections(8);
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(2_000));
    let held = || fixture.leaf.unsplit_bytes();
    for _ in 0..200 {
        stream::iter(&shards)
            .for_each_concurrent(8, |shard| fixture.push_to(*shard, &text))
            .await;
        assert!(held() <= 1 << 20, "{} bytes are held", held());
    }
    let mut on_disk = 0;
    for shard in &shards {
        assert_eq!(fixture.documents_of(*shard).await.len(), 200);
        on_disk += fixture
            .leaf
            .status(*shard)
            .await
            .expect("a status")
            .splits
            .iter()
            .filter(|split| split.place == "disk")
            .count();
    }
    assert!(on_disk > 0, "the largest went to disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_closed_shard_are_cleared_and_expire_whatever_they_weigh_and_say_of_their_time() {
    let fixture = Fixture::start(none_idle);
    let letters = async |fixture: &Fixture| {
        fixture
            .leaf
            .dead_letters(fixture.shard, 9)
            .await
            .expect("dead letters")
            .len()
    };
    // One without a byte.
    assert_eq!(
        fixture
            .write(fixture.batch(0, -1, 0, vec![record(0, None, Some(""))]))
            .await,
        Verdict::Applied { stored: 0 }
    );
    assert_eq!(letters(&fixture).await, 1);
    fixture.all_closed().await;
    let cleared = fixture
        .leaf
        .clear_dead_letters(fixture.shard.collection, None)
        .await
        .expect("it clears");
    assert_eq!((cleared.letters, cleared.complete), (1, true));

    // An old one behind one that a clock which ran ahead has stamped.
    for time_ms in [4_102_444_800_000, 1_700_000_000_000] {
        fixture
            .try_push(Push {
                time_ms,
                ..fixture.pushing(&["nonsense"])
            })
            .await
            .expect("a push");
    }
    assert_eq!(letters(&fixture).await, 2);
    fixture.all_closed().await;
    // Asking for the letters would open the shard: its summary tells that the leaf did so by itself.
    let left = |fixture: &Fixture| std::fs::read(fixture.splits_folder().with_file_name("rows").join("SUMMARY"));
    let closed = left(&fixture).expect("it closed in order");
    let fixture = fixture
        .restart_as(|options| {
            none_idle(options);
            options.dead_letters_kept = Duration::from_secs(30 * 24 * 3_600);
        })
        .await;
    fixture
        .eventually("it was opened, and closed again", async |fixture| {
            left(fixture).is_ok_and(|left| left != closed)
        })
        .await;
    assert_eq!(letters(&fixture).await, 1, "the old one is gone");
}

/// Whether there was no room to open a shard: a store that is still held by somebody is never met.
fn is_full(problem: &proto::Problem) -> bool {
    problem.code == Code::Busy && problem.detail.contains("are open")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shards_that_open_and_close_all_the_time_lose_nothing_and_repeat_nothing() {
    const BATCH: usize = 9;
    const ROUNDS: usize = 12;
    let seed: u64 = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::process::id().into());
    eprintln!("SEED={seed}");
    let three_open = |options: &mut LeafOptions| {
        two_open(options);
        options.open_shards_max = 3;
        options.open_files_max = 60;
    };
    let fixture = Arc::new(Fixture::start(three_open));
    let streams = (0..6).map(|number| Arc::new(records_of(seed + number, (BATCH * ROUNDS) as i64)));
    let shards: Vec<(ShardId, Arc<Vec<Record>>)> = fixture.collections(6).into_iter().zip(streams).collect();
    let done = Arc::new(AtomicBool::new(false));
    // Each goes round all shards, of which few can be open: what one has opened is closed for another.
    let reader = |first: usize, holds: bool| {
        let (fixture, shards, done) = (fixture.clone(), shards.clone(), done.clone());
        tokio::spawn(async move {
            let mut _held = None;
            for (shard, records) in shards.iter().cycle().skip(first) {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                let query = query();
                let pinned = fixture
                    .leaf
                    .pin(
                        query,
                        *shard,
                        &PositionVector::default(),
                        Instant::now() + Duration::from_secs(20),
                    )
                    .await;
                if pinned.as_ref().is_err_and(is_full) {
                    continue;
                }
                pinned.expect("a view");
                let view = fixture.leaf.pinned(query, *shard).expect("it is pinned");
                fixture.leaf.unpin(query);
                let at = view.positions.get(&clicks(), 0).unwrap_or(-1);
                assert_eq!(
                    texts(&everything(&view)),
                    model(&records[..(at + 1) as usize]).0,
                    "at {at}"
                );
                _held = holds.then_some(view);
            }
        })
    };
    // Whether it is open or closed, a position never goes back.
    let watcher = || {
        let (fixture, shards, done) = (fixture.clone(), shards.clone(), done.clone());
        tokio::spawn(async move {
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
        })
    };
    let others = [reader(0, true), reader(3, false), watcher()];
    for round in 0..ROUNDS {
        for (shard, records) in &shards {
            let slice = &records[round * BATCH..(round + 1) * BATCH];
            let (after, through) = (slice[0].offset - 1, slice[BATCH - 1].offset);
            loop {
                match fixture
                    .leaf
                    .write(Batch {
                        shard: *shard,
                        ..fixture.batch(0, after, through, slice.to_vec())
                    })
                    .await
                {
                    Ok(verdict) if verdict == (Verdict::Applied { stored: through }) => break,
                    Ok(Verdict::Busy { .. }) => tokio::task::yield_now().await,
                    Err(problem) if is_full(&problem) => tokio::task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    done.store(true, Ordering::SeqCst);
    for other in others {
        other.await.expect("it ends");
    }
    let crashed = fixture.crashed();
    for (shard, records) in &shards {
        assert_eq!(fixture.documents_of(*shard).await, model(records).0);
        assert_eq!(crashed.documents_of(*shard).await, model(records).0, "after kill -9");
    }
}
