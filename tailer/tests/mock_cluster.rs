//! Every record of a topic reaches the leaf once and in order, whatever the leaf and the broker do. The tests use
//! librdkafka's mock broker and a model of the leaf.

mod model;

use std::{sync::Arc, time::Duration};

use model::{Chaos, Fixture, IngestedRange, LeafModel, eventually, name, states, within};
use proto::{
    Code,
    catalog::{Change, Skip, Skips, Start},
    record::{RecordValue, TimeKind},
    status::SourceState,
    tailer::{Changes as _, SourceAdmin as _},
};
use tailer::Tailer;

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_ingested_once_and_in_order_whatever_the_leaf_does() {
    let seed = std::env::var("RACHIS_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    let chaos = Chaos {
        busy: 10,
        unreachable: 5,
        applied_but_unanswered: 10,
        loses_newest: 3,
    };
    let fixture = Fixture::new(LeafModel::new(seed, chaos));
    fixture.cluster.create_topic("t", 4, 1).expect("a topic");
    (0..4).for_each(|partition| fixture.produce("t", partition, 0..500));
    fixture.source("s", fixture.settings("t")).await;
    let tailer = fixture.tailer();
    eventually("the first half is ingested", || {
        (fixture.leaf.count("s") > 500, states(&tailer, "s"))
    })
    .await;
    (0..4).for_each(|partition| fixture.produce("t", partition, 500..1_000));
    eventually("all is ingested", || {
        (
            fixture.leaf.count("s") == 4_000 && (0..4).all(|p| fixture.leaf.ingested("s", p).offset == Some(999)),
            states(&tailer, "s"),
        )
    })
    .await;
    tailer.shutdown().await;
    for partition in 0..4 {
        assert_ingested(&fixture.leaf.ingested("s", partition), partition);
    }
    let outcomes = fixture.leaf.outcomes.lock().clone();
    println!("{outcomes:?}");
    for outcome in ["applied", "already", "busy", "gap", "unreachable", "unanswered"] {
        assert!(
            outcomes.get(outcome).is_some_and(|count| *count > 0),
            "{outcome} did not occur: {outcomes:?}"
        );
    }
}

/// Asserts that a partition has exactly the 1,000 records that [`Fixture::produce`] wrote.
fn assert_ingested(ingested: &IngestedRange, partition: i32) {
    assert_eq!(ingested.records.len(), 1_000);
    for (number, record) in ingested.records.iter().enumerate() {
        assert_eq!(record.offset, number as i64);
        let value = format!("{{\"n\":{number},\"p\":{partition}}}");
        assert_eq!(
            record.value,
            if number % 7 == 0 {
                RecordValue::Null
            } else {
                RecordValue::One(value.into())
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
        ingested.shards.iter().max(),
        ingested.shards.iter().min(),
        "a partition has one shard"
    );
    assert_eq!(ingested.shards[0], proto::routing::shard_of(&name("s"), partition, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_tailer_continues_at_the_last_record_that_the_leaf_has() {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 1, 1).expect("a topic");
    fixture.produce("t", 0, 0..100);
    fixture.source("s", fixture.settings("t")).await;
    for round in 1..4 {
        let tailer = fixture.tailer();
        eventually("all is ingested", || {
            (fixture.leaf.count("s") == round * 100, states(&tailer, "s"))
        })
        .await;
        within(5, tailer.shutdown()).await.expect("an orderly end");
        fixture.produce("t", 0, round * 100..(round + 1) * 100);
    }
    assert_eq!(
        fixture.leaf.ingested("s", 0).compared,
        [99, 199],
        "the record at the position is sent again, so that the leaf can compare it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_outage_is_reported_and_loses_nothing() {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 2, 1).expect("a topic");
    fixture.produce("t", 0, 0..10);
    fixture.source("s", fixture.settings("t")).await;
    let tailer = fixture.tailer();
    eventually("caught up", || {
        (
            tailer.rows().iter().all(|row| row.state == SourceState::CaughtUp),
            states(&tailer, "s"),
        )
    })
    .await;
    fixture.cluster.broker_down(-1).expect("down");
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
    fixture.cluster.broker_up(-1).expect("up");
    eventually("the error is cleared", || {
        (
            tailer.rows().iter().all(|row| row.error.is_none()),
            states(&tailer, "s"),
        )
    })
    .await;
    fixture.produce("t", 1, 0..10);
    eventually("all is ingested", || {
        (fixture.leaf.count("s") == 20, states(&tailer, "s"))
    })
    .await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_reported_and_read_once_it_exists() {
    let fixture = Fixture::new(LeafModel::calm());
    let settings = fixture.settings("later");
    fixture.source("s", settings.clone()).await;
    let tailer = fixture.tailer();
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
    fixture.cluster.create_topic("later", 3, 1).expect("a topic");
    fixture.produce("later", 2, 0..10);
    assert_eq!(tailer.ends(&settings).await, Ok(vec![0, 0, 10]));
    eventually("all is ingested", || {
        (fixture.leaf.count("s") == 10, states(&tailer, "s"))
    })
    .await;
    eventually("no error", || {
        (
            tailer.rows().iter().all(|row| row.error.is_none()),
            states(&tailer, "s"),
        )
    })
    .await;
    tailer.shutdown().await;
}

/// A tailer whose source has one partition, and has ingested its first 100 records.
async fn ingesting() -> (Fixture, Arc<Tailer>) {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 1, 1).expect("a topic");
    fixture.source("s", fixture.settings("t")).await;
    let tailer = fixture.tailer();
    fixture.produce("t", 0, 0..100);
    eventually("the first records are ingested", || {
        (fixture.leaf.ingested("s", 0).records.len() == 100, states(&tailer, "s"))
    })
    .await;
    (fixture, tailer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_too_many_dead_letters_continues_once_they_are_cleared_even_if_its_leaf_was_unreachable() {
    let (fixture, tailer) = ingesting().await;
    *fixture.leaf.too_many_dead.lock() = true;
    *fixture.leaf.unanswered_stored.lock() = 2;
    fixture.produce("t", 0, 100..200);
    eventually("the partition stopped because of its dead letters", || {
        let states = states(&tailer, "s");
        let is_stopped = states.iter().any(|(partition, state, error)| {
            let names_cause = error
                .as_deref()
                .is_some_and(|error| error.contains("rachis.dead_letters"));
            *partition == Some(0) && *state == "stopped" && names_cause
        });
        (is_stopped, states)
    })
    .await;
    assert_eq!(
        *fixture.leaf.unanswered_stored.lock(),
        0,
        "the leaf was unreachable after the refusal"
    );
    *fixture.leaf.too_many_dead.lock() = false;
    eventually("the rest is ingested", || {
        (fixture.leaf.ingested("s", 0).records.len() == 200, states(&tailer, "s"))
    })
    .await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_continues_if_its_dead_letters_were_cleared_while_its_leaf_was_unreachable() {
    const UNANSWERED: u32 = 1_000;
    let (fixture, tailer) = ingesting().await;
    *fixture.leaf.too_many_dead.lock() = true;
    *fixture.leaf.unanswered_stored.lock() = UNANSWERED;
    fixture.produce("t", 0, 100..200);
    eventually("the leaf refused a batch and was unreachable when asked why", || {
        (
            *fixture.leaf.unanswered_stored.lock() < UNANSWERED,
            states(&tailer, "s"),
        )
    })
    .await;
    *fixture.leaf.too_many_dead.lock() = false;
    *fixture.leaf.unanswered_stored.lock() = 0;
    eventually("the rest is ingested", || {
        (fixture.leaf.ingested("s", 0).records.len() == 200, states(&tailer, "s"))
    })
    .await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_partition_stops_and_the_others_continue() {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 2, 1).expect("a topic");
    *fixture.leaf.refused_partition.lock() = Some(1);
    fixture.source("s", fixture.settings("t")).await;
    let tailer = fixture.tailer();
    (0..2).for_each(|partition| fixture.produce("t", partition, 0..100));
    eventually("partition 0 is ingested", || {
        (fixture.leaf.ingested("s", 0).records.len() == 100, states(&tailer, "s"))
    })
    .await;
    let stopped = (Some(1), "stopped", Some("the model refuses".to_owned()));
    eventually("partition 1 stopped", || {
        (states(&tailer, "s").contains(&stopped), states(&tailer, "s"))
    })
    .await;
    fixture.produce("t", 0, 100..200);
    eventually("partition 0 continues", || {
        (fixture.leaf.ingested("s", 0).records.len() == 200, states(&tailer, "s"))
    })
    .await;
    assert!(fixture.leaf.ingested("s", 1).records.is_empty());
    // Any change of the source makes it try again.
    *fixture.leaf.refused_partition.lock() = None;
    fixture
        .change(Change::SuspendSource {
            name: name("s"),
            suspended: false,
        })
        .await;
    eventually("partition 1 is ingested", || {
        (fixture.leaf.ingested("s", 1).records.len() == 100, states(&tailer, "s"))
    })
    .await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_source_ingests_nothing_and_resumes_where_it_stopped() {
    let (fixture, tailer) = ingesting().await;
    for round in 1..3 {
        fixture
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
        fixture.produce("t", 0, round * 100..(round + 1) * 100);
        fixture
            .change(Change::SuspendSource {
                name: name("s"),
                suspended: false,
            })
            .await;
        eventually("all is ingested", || {
            (fixture.leaf.count("s") == (round + 1) * 100, states(&tailer, "s"))
        })
        .await;
    }
    fixture.change(Change::DropSource { name: name("s") }).await;
    eventually("no status", || (tailer.rows().is_empty(), states(&tailer, "s"))).await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_stored_what_is_skipped_stops() {
    let (fixture, tailer) = ingesting().await;
    let skips = Skips([(0, vec![Skip::new(95, 100)])].into());
    fixture.change(Change::SkipSource { name: name("s"), skips }).await;
    let is_stopped = |found: &[(Option<i32>, &str, Option<String>)]| {
        let [(Some(0), "stopped", Some(why))] = found else {
            return false;
        };
        why.contains("has stored the record s/0@99, which is skipped")
    };
    eventually("it is stopped", || {
        let found = states(&tailer, "s");
        (is_stopped(&found), found)
    })
    .await;
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_leaf_makes_the_source_wait_with_a_bounded_window() {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 1, 1).expect("a topic");
    *fixture.leaf.full.lock() = true;
    fixture.produce("t", 0, 0..20_000);
    fixture.source("s", fixture.settings("t")).await;
    let tailer = fixture.tailer();
    let waiting = [(Some(0), "waiting", Some("the model is full".to_owned()))];
    eventually("waiting", || (states(&tailer, "s") == waiting, states(&tailer, "s"))).await;
    *fixture.leaf.full.lock() = false;
    eventually("all is ingested", || {
        (fixture.leaf.count("s") == 20_000, states(&tailer, "s"))
    })
    .await;
    eventually("caught up", || {
        (
            states(&tailer, "s") == [(Some(0), "caught_up", None)],
            states(&tailer, "s"),
        )
    })
    .await;
    let catalog = fixture.changes.catalog().borrow().clone();
    let uid = catalog.collections.values().next().map(|collection| collection.uid);
    let row = &tailer.rows()[0];
    assert_eq!((row.lag, row.uid), (Some(0), uid));
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_at_the_latest_record_still_does_after_a_restart() {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 1, 1).expect("a topic");
    fixture.produce("t", 0, 0..100);
    fixture
        .source(
            "s",
            proto::catalog::SourceSettings {
                start: Start::Latest,
                ..fixture.settings("t")
            },
        )
        .await;
    let tailer = fixture.tailer();
    eventually("the start is stored", || {
        (fixture.leaf.ingested("s", 0).offset == Some(99), states(&tailer, "s"))
    })
    .await;
    tailer.shutdown().await;
    fixture.produce("t", 0, 100..150);
    let tailer = fixture.tailer();
    eventually("the newer records are ingested", || {
        (fixture.leaf.count("s") == 50, states(&tailer, "s"))
    })
    .await;
    assert_eq!(fixture.leaf.ingested("s", 0).records[0].offset, 100);
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_topic_behind_the_same_source_is_detected_and_not_ingested() {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 1, 1).expect("a topic");
    fixture.produce("t", 0, 0..100);
    fixture.source("s", fixture.settings("t")).await;
    let tailer = fixture.tailer();
    eventually("all is ingested", || {
        (fixture.leaf.count("s") == 100, states(&tailer, "s"))
    })
    .await;
    // Another cluster, where the topic of that name has other records.
    let other = Fixture::new(LeafModel::calm());
    other.cluster.create_topic("t", 1, 1).expect("a topic");
    other.produce("t", 0, 1_000..1_300);
    fixture
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
    assert_eq!(fixture.leaf.count("s"), 100);
    tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_the_first_records_and_stores_nothing() {
    let fixture = Fixture::new(LeafModel::calm());
    fixture.cluster.create_topic("t", 2, 1).expect("a topic");
    (0..2).for_each(|partition| fixture.produce("t", partition, 0..5));
    let tailer = fixture.tailer();
    let found = within(15, tailer.preview(&fixture.settings("t"), 100))
        .await
        .expect("in time")
        .expect("records");
    assert_eq!(found.len(), 10);
    let first = within(15, tailer.preview(&fixture.settings("t"), 3))
        .await
        .expect("in time")
        .expect("records");
    assert_eq!(first.len(), 3);
    assert_eq!(fixture.leaf.count("s"), 0);
    let mut settings = fixture.settings("t");
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
async fn unreachable_brokers_are_reported_with_a_hint_in_bounded_time() {
    let fixture = Fixture::new(LeafModel::calm());
    let mut settings = fixture.settings("t");
    // A port on which no process listens any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    settings
        .config
        .insert("bootstrap.servers".into(), format!("127.0.0.1:{port}"));
    let tailer = fixture.tailer();
    let problem = within(15, tailer.ends(&settings))
        .await
        .expect("in time")
        .expect_err("no broker listens");
    assert_eq!(problem.code, Code::Unavailable);
    assert!(
        problem.detail.contains(&port.to_string()) && problem.detail.contains("bootstrap.servers"),
        "{problem}"
    );
    fixture.source("s", settings).await;
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
        .expect("a shutdown that does not wait for brokers");
}
