//! Every record of a topic reaches the leaf once and in order, whatever the leaf and the broker do. Against
//! librdkafka's own mock broker, and a model of the leaf.

mod model;

use std::time::Duration;

use model::{Chaos, Model, World, eventually, name, states, within};
use proto::{
    Code,
    catalog::{Change, Start},
    record::{TimeKind, Value},
    status::SourceState,
    tailer::Tailing as _,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_arrives_once_and_in_order_whatever_the_leaf_does() {
    let seed = std::env::var("RACHIS_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    let chaos = Chaos {
        busy: 10,
        unreachable: 5,
        applied_but_unanswered: 10,
        loses_its_newest: 3,
    };
    let world = World::new(Model::new(seed, chaos));
    world.cluster.create_topic("t", 4, 1).expect("a topic");
    (0..4).for_each(|partition| world.produce("t", partition, 0..500));
    world.source("s", world.settings("t")).await;
    let tailer = world.tailer();
    eventually("the first half is in", || {
        (world.leaf.count("s") > 500, states(&tailer, "s"))
    })
    .await;
    (0..4).for_each(|partition| world.produce("t", partition, 500..1_000));
    eventually("all is in", || {
        (
            world.leaf.count("s") == 4_000 && (0..4).all(|p| world.leaf.taken("s", p).offset == Some(999)),
            states(&tailer, "s"),
        )
    })
    .await;
    tailer.shutdown().await;
    for partition in 0..4 {
        let taken = world.leaf.taken("s", partition);
        assert_eq!(taken.records.len(), 1_000);
        for (number, record) in taken.records.iter().enumerate() {
            assert_eq!(record.offset, number as i64);
            let value = format!("{{\"n\":{number},\"p\":{partition}}}");
            assert_eq!(
                record.value,
                if number % 7 == 0 {
                    Value::Null
                } else {
                    Value::One(value.into())
                }
            );
            assert_eq!(
                record.key,
                (number % 3 != 0).then(|| format!("k{}", number % 10).into())
            );
            assert_eq!(
                (record.time_ms, record.time_kind),
                (1_000 + number as i64, TimeKind::Create)
            );
            assert_eq!(
                record.headers,
                [
                    ("n".to_owned(), Some(number.to_string().into())),
                    ("null".to_owned(), None)
                ]
            );
        }
        assert_eq!(
            taken.shards.iter().max(),
            taken.shards.iter().min(),
            "a partition has one shard"
        );
        assert_eq!(taken.shards[0], proto::routing::shard_of(&name("s"), partition, 3));
    }
    let seen = world.leaf.seen.lock().clone();
    println!("{seen:?}");
    for what in ["applied", "already", "busy", "gap", "unreachable", "unanswered"] {
        assert!(
            seen.get(what).is_some_and(|count| *count > 0),
            "{what} was to happen: {seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_tailer_goes_on_at_the_last_record_that_the_leaf_has() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 1, 1).expect("a topic");
    world.produce("t", 0, 0..100);
    world.source("s", world.settings("t")).await;
    for round in 1..4 {
        let tailer = world.tailer();
        eventually("all is in", || {
            (world.leaf.count("s") == round * 100, states(&tailer, "s"))
        })
        .await;
        within(5, tailer.shutdown()).await.expect("an orderly end");
        world.produce("t", 0, round * 100..(round + 1) * 100);
    }
    assert_eq!(
        world.leaf.taken("s", 0).compared,
        [99, 199],
        "the record at the position comes along, so that the leaf can compare it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_shows_and_nothing_is_lost() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 2, 1).expect("a topic");
    world.produce("t", 0, 0..10);
    world.source("s", world.settings("t")).await;
    let tailer = world.tailer();
    eventually("caught up", || {
        (
            tailer.rows().iter().all(|row| row.state == SourceState::CaughtUp),
            states(&tailer, "s"),
        )
    })
    .await;
    world.cluster.broker_down(-1).expect("down");
    eventually("the error shows", || {
        (
            tailer
                .rows()
                .iter()
                .all(|row| row.error.as_ref().is_some_and(|e| e.contains("bootstrap.servers"))),
            states(&tailer, "s"),
        )
    })
    .await;
    world.cluster.broker_up(-1).expect("up");
    eventually("the error is gone", || {
        (
            tailer.rows().iter().all(|row| row.error.is_none()),
            states(&tailer, "s"),
        )
    })
    .await;
    world.produce("t", 1, 0..10);
    eventually("all is in", || (world.leaf.count("s") == 20, states(&tailer, "s"))).await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_said_and_read_once_it_does() {
    let world = World::new(Model::calm());
    let settings = world.settings("later");
    world.source("s", settings.clone()).await;
    let tailer = world.tailer();
    let problem = tailer.ends(&settings).await.expect_err("there is no such topic");
    assert_eq!(problem.code, Code::NotFound, "{problem}");
    eventually("the error shows", || {
        (
            tailer.rows()[0]
                .error
                .as_ref()
                .is_some_and(|e| e.contains("does not exist")),
            states(&tailer, "s"),
        )
    })
    .await;
    world.cluster.create_topic("later", 3, 1).expect("a topic");
    world.produce("later", 2, 0..10);
    assert_eq!(tailer.ends(&settings).await, Ok(vec![0, 0, 10]));
    eventually("all is in", || (world.leaf.count("s") == 10, states(&tailer, "s"))).await;
    eventually("no error", || {
        (
            tailer.rows().iter().all(|row| row.error.is_none()),
            states(&tailer, "s"),
        )
    })
    .await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_partition_stops_and_the_others_go_on() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 2, 1).expect("a topic");
    *world.leaf.refuses.lock() = Some(1);
    world.source("s", world.settings("t")).await;
    let tailer = world.tailer();
    (0..2).for_each(|partition| world.produce("t", partition, 0..100));
    eventually("partition 0 is in", || {
        (world.leaf.taken("s", 0).records.len() == 100, states(&tailer, "s"))
    })
    .await;
    let stopped = (Some(1), "stopped", Some("the model refuses".to_owned()));
    eventually("partition 1 stopped", || {
        (states(&tailer, "s").contains(&stopped), states(&tailer, "s"))
    })
    .await;
    world.produce("t", 0, 100..200);
    eventually("partition 0 goes on", || {
        (world.leaf.taken("s", 0).records.len() == 200, states(&tailer, "s"))
    })
    .await;
    assert!(world.leaf.taken("s", 1).records.is_empty());
    // Whatever changes the source gives it another chance.
    *world.leaf.refuses.lock() = None;
    world
        .change(Change::SuspendSource {
            name: name("s"),
            suspended: false,
        })
        .await;
    eventually("partition 1 is in", || {
        (world.leaf.taken("s", 1).records.len() == 100, states(&tailer, "s"))
    })
    .await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_source_takes_nothing_and_resumes_where_it_was() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 1, 1).expect("a topic");
    world.produce("t", 0, 0..100);
    world.source("s", world.settings("t")).await;
    let tailer = world.tailer();
    eventually("all is in", || (world.leaf.count("s") == 100, states(&tailer, "s"))).await;
    for round in 1..3 {
        world
            .change(Change::SuspendSource {
                name: name("s"),
                suspended: true,
            })
            .await;
        eventually("suspended", || {
            (
                states(&tailer, "s") == [(None, "suspended", None)],
                states(&tailer, "s"),
            )
        })
        .await;
        world.produce("t", 0, round * 100..(round + 1) * 100);
        world
            .change(Change::SuspendSource {
                name: name("s"),
                suspended: false,
            })
            .await;
        eventually("all is in", || {
            (world.leaf.count("s") == (round + 1) * 100, states(&tailer, "s"))
        })
        .await;
    }
    world.change(Change::DropSource { name: name("s") }).await;
    eventually("no status", || (tailer.rows().is_empty(), states(&tailer, "s"))).await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_leaf_makes_the_source_wait_with_its_window_bounded() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 1, 1).expect("a topic");
    *world.leaf.full.lock() = true;
    world.produce("t", 0, 0..20_000);
    world.source("s", world.settings("t")).await;
    let tailer = world.tailer();
    let waiting = [(Some(0), "waiting", Some("the model is full".to_owned()))];
    eventually("waiting", || (states(&tailer, "s") == waiting, states(&tailer, "s"))).await;
    *world.leaf.full.lock() = false;
    eventually("all is in", || (world.leaf.count("s") == 20_000, states(&tailer, "s"))).await;
    eventually("caught up", || {
        (
            states(&tailer, "s") == [(Some(0), "caught_up", None)],
            states(&tailer, "s"),
        )
    })
    .await;
    assert_eq!(tailer.rows()[0].lag, Some(0));
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_at_the_latest_stays_there_over_a_restart() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 1, 1).expect("a topic");
    world.produce("t", 0, 0..100);
    world
        .source(
            "s",
            proto::catalog::SourceSettings {
                start: Start::Latest,
                ..world.settings("t")
            },
        )
        .await;
    let tailer = world.tailer();
    eventually("the start is stored", || {
        (world.leaf.taken("s", 0).offset == Some(99), states(&tailer, "s"))
    })
    .await;
    tailer.shutdown().await;
    world.produce("t", 0, 100..150);
    let tailer = world.tailer();
    eventually("what came since is in", || {
        (world.leaf.count("s") == 50, states(&tailer, "s"))
    })
    .await;
    assert_eq!(world.leaf.taken("s", 0).records[0].offset, 100);
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_topic_behind_the_same_source_is_found_and_nothing_is_taken() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 1, 1).expect("a topic");
    world.produce("t", 0, 0..100);
    world.source("s", world.settings("t")).await;
    let tailer = world.tailer();
    eventually("all is in", || (world.leaf.count("s") == 100, states(&tailer, "s"))).await;
    // Another cluster, where the topic of that name has other records.
    let other = World::new(Model::calm());
    other.cluster.create_topic("t", 1, 1).expect("a topic");
    other.produce("t", 0, 1_000..1_300);
    world
        .change(Change::PutSource {
            name: name("s"),
            settings: other.settings("t"),
        })
        .await;
    eventually("stopped", || {
        (
            states(&tailer, "s")
                .iter()
                .any(|(_, state, error)| *state == "stopped" && error.as_ref().is_some_and(|e| e.contains("another"))),
            states(&tailer, "s"),
        )
    })
    .await;
    assert_eq!(world.leaf.count("s"), 100);
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_the_first_records_and_stores_nothing() {
    let world = World::new(Model::calm());
    world.cluster.create_topic("t", 2, 1).expect("a topic");
    (0..2).for_each(|partition| world.produce("t", partition, 0..5));
    let tailer = world.tailer();
    let found = within(15, tailer.preview(&world.settings("t"), 100))
        .await
        .expect("in time")
        .expect("records");
    assert_eq!(found.len(), 10);
    let first = within(15, tailer.preview(&world.settings("t"), 3))
        .await
        .expect("in time")
        .expect("records");
    assert_eq!(first.len(), 3);
    assert_eq!(world.leaf.count("s"), 0);
    let mut settings = world.settings("t");
    settings.config.insert("fetch.mim.bytes".into(), "1".into());
    assert!(
        tailer
            .preview(&settings, 3)
            .await
            .expect_err("no such key")
            .detail
            .contains("fetch.mim.bytes")
    );
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_cannot_be_reached_are_said_with_a_hint_in_bounded_time() {
    let world = World::new(Model::calm());
    let mut settings = world.settings("t");
    // A port of our own on which nobody listens any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    settings
        .config
        .insert("bootstrap.servers".into(), format!("127.0.0.1:{port}"));
    let tailer = world.tailer();
    let problem = within(15, tailer.ends(&settings))
        .await
        .expect("in time")
        .expect_err("nobody there");
    assert_eq!(problem.code, Code::Unavailable);
    assert!(
        problem.detail.contains(&port.to_string()) && problem.detail.contains("bootstrap.servers"),
        "{problem}"
    );
    world.source("s", settings).await;
    eventually("the error shows", || {
        (
            tailer.rows()[0]
                .error
                .as_ref()
                .is_some_and(|e| e.contains("bootstrap.servers")),
            states(&tailer, "s"),
        )
    })
    .await;
    tokio::time::timeout(Duration::from_secs(15), tailer.shutdown())
        .await
        .expect("a shutdown does not wait for brokers");
}
