//! Trouble with a broker and its topics, seen by a whole cluster: whatever happens there, what is stored is right,
//! `rachis.sources` says plainly what is wrong and what to do, nothing is skipped silently, and `rachis.losses` names
//! what is gone.
//!
//! A cluster takes seconds to start, so promises that leave the broker and the nodes alone share one, each with topics
//! of its own.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proto::wire::tailer::{StatusRequest, sources_client::SourcesClient};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use rdkafka::producer::Producer as _;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Cluster, Kafka, Settings,
    cluster::Size,
    eventually,
    kafka::{Produce, Writer},
};
use tokio_util::sync::CancellationToken;

/// Looks for what a broker does by itself (retention, compaction) soon rather than after minutes.
const BUSY_BROKER: [&str; 4] = [
    "log.retention.check.interval.ms=200",
    "log.initial.task.delay.ms=200",
    "log.segment.delete.delay.ms=100",
    "log.cleaner.backoff.ms=200",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_topic_what_is_stored_is_right_and_said() {
    let cluster = start(2, &BUSY_BROKER).await;
    tokio::join!(
        aborted_transactions_leave_nothing_and_an_open_one_holds_back_what_follows(&cluster),
        a_compacted_topic_leaves_the_latest_of_each_key_and_its_empty_tail_is_its_end(&cluster),
        partitions_that_are_added_are_read_from_their_first_record(&cluster),
        a_range_that_retention_took_stops_its_partition_until_it_is_skipped(&cluster),
        a_topic_that_is_deleted_is_missed_and_not_mistaken_for_its_successor(&cluster),
        a_topic_made_anew_beyond_our_position_is_found(&cluster),
        a_topic_that_never_was_becomes_no_source(&cluster),
        large_records_arrive_and_too_large_ones_hold_nobody_up(&cluster),
    );
}

async fn aborted_transactions_leave_nothing_and_an_open_one_holds_back_what_follows(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "transactions");
    kafka.create_topic(t, 1, &[]).await;
    source(cluster, t, t, json!({})).await;
    for round in 0..6 {
        kafka
            .produce_in_transaction(t, 0, values(round * 10..round * 10 + 10), round % 2 == 0)
            .await;
    }
    // A transaction is ten records and a marker: the last eleven offsets hold no record that anybody is to see.
    stands(cluster, t, &[line(0, "caught_up", 53, 66, 0)]).await;
    let committed: Vec<usize> = [0..10, 20..30, 40..50].into_iter().flatten().collect();
    documents(cluster, t, &committed).await;
    let open = kafka.begin_transaction(t, 0, values(60..70)).await;
    produce(kafka, t, 0, 70..75).await;
    stands(cluster, t, &[line(0, "caught_up", 53, 66, 0)]).await;
    documents(cluster, t, &committed).await;
    tokio::task::spawn_blocking(move || open.abort_transaction(tests::PATIENCE))
        .await
        .expect("no panic")
        .expect("aborted");
    stands(cluster, t, &[line(0, "caught_up", 80, 82, 0)]).await;
    documents(cluster, t, &committed.into_iter().chain(70..75).collect::<Vec<_>>()).await;
    outcomes(cluster, t, [35, 35, 0, 0, 0, 0, 35]).await;
    losses(cluster, t, &[]).await;
}

async fn a_compacted_topic_leaves_the_latest_of_each_key_and_its_empty_tail_is_its_end(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "10000"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    kafka.create_topic(t, 1, &settings).await;
    // A segment ends where a record is ten seconds younger than its first, and only ended segments are compacted.
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()).expect("in this age");
    let record = |key: &str, n: Option<i64>, seconds: i64| Produce {
        partition: Some(0),
        time_ms: Some(now + seconds * 1_000),
        ..Produce::keyed(key, n.map(|n| format!("{{\"n\":{n}}}").into()))
    };
    let rounds = |from: i64, to: i64| {
        (from..to)
            .map(|n| record(&format!("k{}", n % 10), Some(n), -100))
            .collect::<Vec<_>>()
    };
    kafka.produce(t, rounds(0, 200)).await;
    kafka
        .produce(
            t,
            vec![
                record("k0", None, -50),
                record("k1", None, -50),
                record("k2", Some(202), -50),
            ],
        )
        .await;
    kafka.produce_in_transaction(t, 0, values(0..5), false).await;
    holds(kafka, t, 0, &[193, 194, 195, 196, 197, 198, 199, 200, 201, 202]).await;
    source(cluster, t, t, json!({ "key": "record" })).await;
    stands(cluster, t, &[line(0, "caught_up", 202, 209, 0)]).await;
    documents(cluster, t, &[193, 194, 195, 196, 197, 198, 199, 202]).await;
    outcomes(cluster, t, [10, 8, 2, 0, 0, 0, 8]).await;
    // Compaction overtakes the position, and takes the very record that is compared after a pause.
    change(cluster, t, "suspend", json!({})).await;
    kafka
        .produce(t, (209..309).map(|n| record("k2", Some(n), 50)).collect())
        .await;
    kafka
        .produce(t, vec![record("k3", None, 100), record("k4", Some(310), 100)])
        .await;
    kafka.produce(t, vec![record("k9", Some(311), 150)]).await;
    holds(kafka, t, 0, &[195, 196, 197, 198, 199, 200, 201, 308, 309, 310, 311]).await;
    change(cluster, t, "resume", json!({})).await;
    stands(cluster, t, &[line(0, "caught_up", 311, 312, 0)]).await;
    documents(cluster, t, &[195, 196, 197, 198, 308, 310, 311]).await;
    outcomes(cluster, t, [14, 11, 3, 0, 3, 1, 7]).await;
    losses(cluster, t, &[]).await;
}

async fn partitions_that_are_added_are_read_from_their_first_record(cluster: &Cluster) {
    let kafka = &cluster.kafka;
    // A source that starts at the latest record leaves out what was there before it, and that is none of a partition
    // that came later.
    for (t, start, begin, suspended) in [("grown", "earliest", 0, false), ("grown-meanwhile", "latest", 10, true)] {
        kafka.create_topic(t, 1, &[]).await;
        produce(kafka, t, 0, 0..10).await;
        source(cluster, t, t, json!({ "start": start })).await;
        stands(cluster, t, &[line(0, "caught_up", 9, 10, 0)]).await;
        if suspended {
            change(cluster, t, "suspend", json!({})).await;
        }
        kafka.add_partitions(t, 3).await;
        produce(kafka, t, 2, 10..30).await;
        produce(kafka, t, 0, 30..35).await;
        if suspended {
            change(cluster, t, "resume", json!({})).await;
        }
        stands(
            cluster,
            t,
            &[
                line(0, "caught_up", 14, 15, 0),
                line(1, "caught_up", -1, 0, 0),
                line(2, "caught_up", 19, 20, 0),
            ],
        )
        .await;
        documents(cluster, t, &(begin..35).collect::<Vec<_>>()).await;
        let all = 35 - begin as i64;
        outcomes(cluster, t, [all, all, 0, 0, 0, 0, all]).await;
    }
}

async fn a_range_that_retention_took_stops_its_partition_until_it_is_skipped(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "retained");
    kafka.create_topic(t, 3, &[]).await;
    for partition in 0..3 {
        produce(kafka, t, partition, 0..20).await;
    }
    source(cluster, t, t, json!({})).await;
    stands(cluster, t, &[0, 1, 2].map(|p| line(p, "caught_up", 19, 20, 0))).await;
    change(cluster, t, "suspend", json!({})).await;
    produce(kafka, t, 0, 20..50).await;
    produce(kafka, t, 1, 20..50).await;
    kafka.set_topic_config(t, &[("retention.ms", "1000")]).await;
    for partition in 0..3 {
        holds(kafka, t, partition, &[]).await;
    }
    kafka.set_topic_config(t, &[("retention.ms", "-1")]).await;
    for partition in 0..3 {
        produce(kafka, t, partition, 50..60).await;
    }
    change(cluster, t, "resume", json!({})).await;
    let stopped = |p: i32| {
        let range = format!("{t}/{p}@20 through {t}/{p}@49 are gone at the broker");
        line(p, "stopped", 19, 60, 40).saying([&range, "retention was faster", "rachis source skip retained"])
    };
    // The third lost nothing that was not taken in, and goes on.
    stands(cluster, t, &[stopped(0), stopped(1), line(2, "caught_up", 29, 30, 0)]).await;
    losses(cluster, t, &[(0, 20, 49, GONE), (1, 20, 49, GONE)]).await;
    let there = |zero: Range<usize>, one: Range<usize>| {
        let mut all: Vec<usize> = [0..20, 0..20, 0..20, 50..60, zero, one].into_iter().flatten().collect();
        all.sort();
        all
    };
    documents(cluster, t, &there(0..0, 0..0)).await;
    change(cluster, t, "skip", json!({ "to": { "0": 50 } })).await;
    stands(
        cluster,
        t,
        &[
            line(0, "caught_up", 59, 60, 0),
            stopped(1),
            line(2, "caught_up", 29, 30, 0),
        ],
    )
    .await;
    documents(cluster, t, &there(50..60, 0..0)).await;
    change(cluster, t, "skip", json!({ "to": { "1": "latest" } })).await;
    produce(kafka, t, 1, 60..70).await;
    stands(
        cluster,
        t,
        &[
            line(0, "caught_up", 59, 60, 0),
            line(1, "caught_up", 69, 70, 0),
            line(2, "caught_up", 29, 30, 0),
        ],
    )
    .await;
    documents(cluster, t, &there(50..60, 60..70)).await;
    losses(
        cluster,
        t,
        &[(0, 20, 49, GONE), (1, 20, 49, GONE), (1, 50, 59, SKIPPED)],
    )
    .await;
    outcomes(cluster, t, [90, 90, 0, 0, 0, 0, 90]).await;
}

async fn a_topic_that_is_deleted_is_missed_and_not_mistaken_for_its_successor(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "deleted");
    kafka.create_topic(t, 1, &[]).await;
    produce(kafka, t, 0, 0..100).await;
    source(cluster, t, t, json!({})).await;
    stands(cluster, t, &[line(0, "caught_up", 99, 100, 0)]).await;
    kafka.delete_topic(t).await;
    let all: Vec<usize> = (0..100).collect();
    let missed = Line {
        place: json!([0, "starting", 99, null, null]),
        said: Vec::new(),
    }
    .saying(["does not exist", "create it, or check its name"]);
    stands(cluster, t, std::slice::from_ref(&missed)).await;
    // It stays away for longer than a consumer waits for its group; what is said is still that the topic is missing.
    eventually("another consumer looks for it", || async {
        let logs = cluster.log("tailer-1") + &cluster.log("tailer-2");
        ensure!(
            !logs.contains("source=deleted error=\"the consumer group has not said"),
            "the silence of the group is blamed"
        );
        ensure!(
            logs.contains("consumer closed source=deleted"),
            "the first one is still there"
        );
        Ok(())
    })
    .await;
    stands(cluster, t, &[missed]).await;
    documents(cluster, t, &all).await;
    kafka.create_topic(t, 1, &[]).await;
    produce(kafka, t, 0, 1_000..1_005).await;
    let at = format!("{t}/0@99 is stored");
    let stopped = line(0, "stopped", 99, 5, 0).saying([
        "offsets up to 4 only",
        &at,
        "made anew",
        "create a source of another name",
    ]);
    stands(cluster, t, std::slice::from_ref(&stopped)).await;
    // Somebody who goes on beyond what is there, or before what is stored, is told so, and nothing is taken.
    for (to, said) in [(200, "ends before offset 5"), (3, "stored through offset 99")] {
        let refused = cluster
            .json(
                Method::POST,
                &format!("/v1/sources/{t}/skip"),
                json!({ "to": { "0": to } }),
            )
            .await
            .expect_err(said);
        assert!(format!("{refused:#}").contains(said), "{refused:#}");
    }
    stands(cluster, t, std::slice::from_ref(&stopped)).await;
    documents(cluster, t, &all).await;
    outcomes(cluster, t, [100, 100, 0, 0, 0, 0, 100]).await;
    losses(cluster, t, &[]).await;
    // As the error says.
    source(cluster, "deleted-2", t, json!({})).await;
    stands(cluster, "deleted-2", &[line(0, "caught_up", 4, 5, 0)]).await;
    documents(cluster, "deleted-2", &(1_000..1_005).collect::<Vec<_>>()).await;
}

async fn a_topic_made_anew_beyond_our_position_is_found(cluster: &Cluster) {
    let kafka = &cluster.kafka;
    for (t, suspended) in [("anew", true), ("anew-live", false)] {
        kafka.create_topic(t, 1, &[]).await;
        produce(kafka, t, 0, 0..100).await;
        source(cluster, t, t, json!({})).await;
        stands(cluster, t, &[line(0, "caught_up", 99, 100, 0)]).await;
        if suspended {
            change(cluster, t, "suspend", json!({})).await;
        }
        kafka.delete_topic(t).await;
        kafka.create_topic(t, 1, &[]).await;
        produce(kafka, t, 0, 1_000..1_200).await;
        if suspended {
            change(cluster, t, "resume", json!({})).await;
        }
        let at = format!("{t}/0@99 holds another record");
        stands(
            cluster,
            t,
            &[line(0, "stopped", 99, 200, 100).saying([&at, "made anew", "create a source of another name", "skip"])],
        )
        .await;
        documents(cluster, t, &(0..100).collect::<Vec<_>>()).await;
        losses(cluster, t, &[]).await;
        change(cluster, t, "skip", json!({ "to": { "0": 150 } })).await;
        stands(cluster, t, &[line(0, "caught_up", 199, 200, 0)]).await;
        documents(cluster, t, &(0..100).chain(1_150..1_200).collect::<Vec<_>>()).await;
        outcomes(cluster, t, [150, 150, 0, 0, 0, 0, 150]).await;
        losses(cluster, t, &[(0, 100, 149, SKIPPED)]).await;
    }
}

async fn a_topic_that_never_was_becomes_no_source(cluster: &Cluster) {
    let refused = cluster
        .source("never", "never", "never-was", &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect_err("there is no such topic");
    let told = format!("{refused:#}");
    assert!(
        told.contains("404") && told.contains("never-was") && told.contains("does not exist"),
        "{told}"
    );
    assert!(
        cluster
            .sql("select * from rachis.sources where source = 'never'")
            .await
            .rows
            .is_empty()
    );
}

async fn large_records_arrive_and_too_large_ones_hold_nobody_up(cluster: &Cluster) {
    const LARGE_BYTES: usize = 10_000_000;
    const TOO_LARGE_BYTES: usize = 17_000_000;
    let (kafka, t) = (&cluster.kafka, "large");
    kafka.create_topic(t, 1, &[("max.message.bytes", "20000000")]).await;
    let padded = |n: usize, bytes: usize| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(bytes));
    let small = |numbers: Range<usize>| numbers.map(|n| padded(n, 1)).collect::<Vec<_>>();
    let bodies = [
        small(0..1),
        vec![padded(1, LARGE_BYTES), padded(2, TOO_LARGE_BYTES)],
        small(3..103),
    ]
    .concat();
    kafka.produce(t, bodies.into_iter().map(Produce::value).collect()).await;
    source(cluster, t, t, json!({})).await;
    // One after the other, each larger than the client fetches by default, and than a batch to the leaf.
    let more = [(103..106).map(|n| padded(n, LARGE_BYTES)).collect(), small(106..107)].concat();
    kafka.produce(t, more.into_iter().map(Produce::value).collect()).await;
    stands(cluster, t, &[line(0, "caught_up", 106, 107, 0)]).await;
    documents(cluster, t, &(0..107).filter(|n| *n != 2).collect::<Vec<_>>()).await;
    let large = cluster
        .sql(&format!(
            "select n, length(pad) from {t} where length(pad) > 1 order by n"
        ))
        .await;
    assert_eq!(
        large.rows,
        [1, 103, 104, 105].map(|n| vec![json!(n), json!(LARGE_BYTES)])
    );
    let bytes = cluster
        .document(t, "large/0@104")
        .await
        .expect("an answer")
        .expect("a document");
    assert!(bytes == padded(104, LARGE_BYTES).into_bytes(), "byte for byte");
    let dead = cluster
        .sql(&format!(
            "select address, code, length, length(bytes) from rachis.dead_letters where collection = '{t}'"
        ))
        .await;
    let whole = padded(2, TOO_LARGE_BYTES).len();
    assert_eq!(
        dead.rows,
        [[json!("large/0@2"), json!("too_big"), json!(whole), json!(1 << 20)]]
    );
    outcomes(cluster, t, [107, 106, 0, 1, 0, 0, 106]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_frozen_or_loses_records_loses_nothing_of_ours_and_hides_nothing() {
    let mut cluster = start(1, &[]).await;
    a_killed_broker_shows_and_loses_and_doubles_nothing(&mut cluster).await;
    a_broker_frozen_beyond_the_session_shows_and_loses_and_doubles_nothing(&mut cluster).await;
    a_log_that_lost_its_newest_records_is_found_and_never_taken_for_ours(&mut cluster).await;
    what_happens_while_a_tailer_stands_still_is_found_when_it_goes_on(&cluster).await;
}

async fn a_killed_broker_shows_and_loses_and_doubles_nothing(cluster: &mut Cluster) {
    let t = "killed";
    cluster.kafka.create_topic(t, 3, &[]).await;
    source(cluster, t, t, json!({})).await;
    let (stop, partitions) = (CancellationToken::new(), Arc::new(AtomicUsize::new(3)));
    let writing = tokio::spawn(write_until(stop.clone(), cluster.kafka.writer(), t, partitions));
    eventually("some are taken in", || async {
        ensure!(count(cluster, t).await? > 0);
        Ok(())
    })
    .await;
    cluster.kafka.kill();
    let sql = format!("select position, error from rachis.sources where source = '{t}'");
    let rows = eventually("the error shows", || async {
        let rows = cluster.ask(&sql, json!({})).await?.rows;
        let says = |row: &Vec<Value>| {
            row[1]
                .as_str()
                .is_some_and(|error| error.contains("check bootstrap.servers"))
        };
        ensure!(rows.len() == 3 && rows.iter().all(says), "{rows:?}");
        Ok(rows)
    })
    .await;
    let positions: i64 = rows
        .iter()
        .map(|row| row[0].as_i64().map_or(0, |position| position + 1))
        .sum();
    assert_eq!(
        count(cluster, t).await.expect("questions are answered"),
        positions as u64,
        "and the positions are what they hold"
    );
    cluster.kafka.start_again().await;
    stop.cancel();
    let written = writing.await.expect("all are acknowledged");
    all_is_in(cluster, t, &written).await;
}

async fn a_broker_frozen_beyond_the_session_shows_and_loses_and_doubles_nothing(cluster: &mut Cluster) {
    let t = "frozen";
    cluster.kafka.create_topic(t, 2, &[]).await;
    source(
        cluster,
        t,
        t,
        json!({ "config": { "session.timeout.ms": 1_500, "heartbeat.interval.ms": 300 } }),
    )
    .await;
    produce(&cluster.kafka, t, 0, 0..500).await;
    stands(
        cluster,
        t,
        &[line(0, "caught_up", 499, 500, 0), line(1, "caught_up", -1, 0, 0)],
    )
    .await;
    cluster.kafka.pause();
    // Beyond the session the client gives its partitions back, and somebody is to know why nothing comes.
    let silent = Line {
        place: json!([0, "starting", 499, null, null]),
        said: Vec::new(),
    }
    .saying(["the consumer group has not said", "another consumer is made"]);
    stands(cluster, t, &[silent]).await;
    documents(cluster, t, &(0..500).collect::<Vec<_>>()).await;
    cluster.kafka.resume();
    produce(&cluster.kafka, t, 0, 500..600).await;
    produce(&cluster.kafka, t, 1, 600..700).await;
    stands(
        cluster,
        t,
        &[line(0, "caught_up", 599, 600, 0), line(1, "caught_up", 99, 100, 0)],
    )
    .await;
    documents(cluster, t, &(0..700).collect::<Vec<_>>()).await;
    outcomes(cluster, t, [700, 700, 0, 0, 0, 0, 700]).await;
    losses(cluster, t, &[]).await;
}

async fn a_log_that_lost_its_newest_records_is_found_and_never_taken_for_ours(cluster: &mut Cluster) {
    // Cut below our position; and written beyond it before we look, or while we look.
    let (cut, suspended, live) = ("cut", "cut-suspended", "cut-live");
    for t in [cut, suspended, live] {
        cluster.kafka.create_topic(t, 1, &[]).await;
        produce(&cluster.kafka, t, 0, 0..50).await;
        produce(&cluster.kafka, t, 0, 50..100).await;
        source(cluster, t, t, json!({})).await;
        stands(cluster, t, &[line(0, "caught_up", 99, 100, 0)]).await;
    }
    change(cluster, suspended, "suspend", json!({})).await;
    cluster.kafka.kill();
    for t in [cut, suspended, live] {
        cluster.kafka.cut_log(t, 0, 50);
    }
    cluster.kafka.start_again().await;
    for t in [suspended, live] {
        produce(&cluster.kafka, t, 0, 1_050..1_150).await;
    }
    assert_eq!(
        cluster.kafka.offsets(cut, 0).await.expect("its offsets"),
        (0..50).collect::<Vec<_>>()
    );
    change(cluster, suspended, "resume", json!({})).await;
    let at = |t: &str| format!("{t}/0@99");
    stands(
        cluster,
        cut,
        &[line(0, "stopped", 99, 50, 0).saying([
            "offsets up to 49 only",
            &at(cut),
            "truncated",
            "create a source of another name",
        ])],
    )
    .await;
    for t in [suspended, live] {
        stands(
            cluster,
            t,
            &[line(0, "stopped", 99, 150, 50).saying([
                "another record",
                &at(t),
                "truncated",
                "create a source of another name",
                "skip",
            ])],
        )
        .await;
    }
    for t in [cut, suspended, live] {
        documents(cluster, t, &(0..100).collect::<Vec<_>>()).await;
        outcomes(cluster, t, [100, 100, 0, 0, 0, 0, 100]).await;
        losses(cluster, t, &[]).await;
    }
    // To go on right behind what is stored is a place to go on at, too; further on, what is left out is remembered.
    change(cluster, suspended, "skip", json!({ "to": { "0": 100 } })).await;
    change(cluster, live, "skip", json!({ "to": { "0": 120 } })).await;
    for (t, from) in [(suspended, 1_100), (live, 1_120)] {
        stands(cluster, t, &[line(0, "caught_up", 149, 150, 0)]).await;
        documents(cluster, t, &(0..100).chain(from..1_150).collect::<Vec<_>>()).await;
    }
    losses(cluster, suspended, &[]).await;
    losses(cluster, live, &[(0, 100, 119, SKIPPED)]).await;
    // Once the cut topic has grown beyond what is stored, it is still not ours. Whatever changes a source has it looked
    // at at once.
    produce(&cluster.kafka, cut, 0, 2_000..2_100).await;
    for what in ["suspend", "resume"] {
        change(cluster, cut, what, json!({})).await;
    }
    stands(
        cluster,
        cut,
        &[line(0, "stopped", 99, 150, 50).saying(["another record", &at(cut)])],
    )
    .await;
    documents(cluster, cut, &(0..100).collect::<Vec<_>>()).await;
}

async fn what_happens_while_a_tailer_stands_still_is_found_when_it_goes_on(cluster: &Cluster) {
    let (kafka, overtaken, anew) = (&cluster.kafka, "overtaken", "anew-meanwhile");
    kafka.create_topic(overtaken, 2, &[]).await;
    kafka.create_topic(anew, 1, &[]).await;
    for (t, partition) in [(overtaken, 0), (overtaken, 1), (anew, 0)] {
        produce(kafka, t, partition, 0..20).await;
    }
    // The group does not give the tailer up meanwhile: it goes on where it was, and nobody tells it to look.
    for t in [overtaken, anew] {
        source(cluster, t, t, json!({ "config": { "session.timeout.ms": 60_000 } })).await;
    }
    stands(cluster, overtaken, &[0, 1].map(|p| line(p, "caught_up", 19, 20, 0))).await;
    stands(cluster, anew, &[line(0, "caught_up", 19, 20, 0)]).await;
    cluster.process("tailer-1").pause();
    // A request of the tailer may still wait at the broker, and is answered with the first records that come: with
    // those that stay.
    for partition in [1, 0] {
        produce(kafka, overtaken, partition, 20..100).await;
    }
    kafka.delete_records_before(overtaken, 0, 60).await;
    kafka.delete_topic(anew).await;
    kafka.create_topic(anew, 1, &[]).await;
    produce(kafka, anew, 0, 1_000..1_100).await;
    cluster.process("tailer-1").resume();
    let range = format!("{overtaken}/0@20 through {overtaken}/0@59 are gone");
    stands(
        cluster,
        overtaken,
        &[
            line(0, "stopped", 19, 100, 80).saying([&range, "rachis source skip overtaken 0=60"]),
            line(1, "caught_up", 99, 100, 0),
        ],
    )
    .await;
    losses(cluster, overtaken, &[(0, 20, 59, GONE)]).await;
    change(cluster, overtaken, "skip", json!({ "to": { "0": 60 } })).await;
    stands(cluster, overtaken, &[0, 1].map(|p| line(p, "caught_up", 99, 100, 0))).await;
    losses(cluster, overtaken, &[(0, 20, 59, GONE)]).await;
    outcomes(cluster, overtaken, [160, 160, 0, 0, 0, 0, 160]).await;
    stands(
        cluster,
        anew,
        &[line(0, "stopped", 19, 100, 80).saying(["anew-meanwhile/0@19 holds another record", "made anew"])],
    )
    .await;
    documents(cluster, anew, &(0..20).collect::<Vec<_>>()).await;
    outcomes(cluster, anew, [20, 20, 0, 0, 0, 0, 20]).await;
}

/// How a tailer leaves the consumer group.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Kill,
    Stop,
    Freeze,
}

const STORM_ROUNDS: usize = 10;
const STORM_OVER_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_rebalances_loses_and_doubles_nothing_and_each_partition_ends_with_one_tailer() {
    let mut cluster = start(3, &[]).await;
    let t = "storm";
    cluster.kafka.create_topic(t, 6, &[]).await;
    source(
        &cluster,
        t,
        t,
        json!({ "config": { "session.timeout.ms": 1_500, "heartbeat.interval.ms": 300 } }),
    )
    .await;
    let (stop, partitions) = (CancellationToken::new(), Arc::new(AtomicUsize::new(6)));
    let writing = tokio::spawn(write_until(stop.clone(), cluster.kafka.writer(), t, partitions.clone()));
    let mut rng = StdRng::seed_from_u64(tests::seed());
    let tailers = ["tailer-1", "tailer-2", "tailer-3"];
    let mut moves = 0;
    for round in 0..STORM_ROUNDS {
        let mut leaving = tailers;
        leaving.shuffle(&mut rng);
        // Two of three leave in every third round; one of them may be back before the group has given it up.
        let leaving = &leaving[..1 + usize::from(round % 3 == 2)];
        let way = [Leave::Kill, Leave::Stop, Leave::Freeze][round % 3];
        for tailer in leaving {
            match way {
                Leave::Kill => cluster.kill(tailer),
                Leave::Stop => cluster.stop(tailer),
                Leave::Freeze => cluster.process(tailer).pause(),
            }
        }
        if round == STORM_ROUNDS / 2 {
            cluster.kafka.add_partitions(t, 9).await;
            partitions.store(9, Ordering::Relaxed);
        }
        let given_up = matches!(way, Leave::Freeze) || rng.random_bool(0.5);
        if given_up {
            let others: Vec<&str> = tailers.into_iter().filter(|tailer| !leaving.contains(tailer)).collect();
            read_by_one_of(&cluster, t, partitions.load(Ordering::Relaxed), &others).await;
        }
        for tailer in leaving {
            match way {
                Leave::Kill | Leave::Stop => cluster.start_again(tailer).await,
                Leave::Freeze => cluster.process(tailer).resume(),
            }
        }
        moves += 2 * leaving.len();
    }
    let over = Instant::now();
    stop.cancel();
    let written = writing.await.expect("all are acknowledged");
    all_is_in(&cluster, t, &written).await;
    let shares = read_by_one_of(&cluster, t, 9, &tailers).await;
    let calm_after = over.elapsed();
    let total: usize = written.iter().sum();
    eprintln!(
        "{moves} leavings and joinings, {total} records, calm after {calm_after:?}, partitions of each tailer: {shares:?}"
    );
    assert!(calm_after < STORM_OVER_WITHIN, "{calm_after:?}");
    assert!(moves >= 20, "{moves} leavings and joinings are a storm");
}

/// Waits until each of so many partitions is read by exactly one of these tailers; how many each reads.
async fn read_by_one_of(cluster: &Cluster, source: &str, partitions: usize, tailers: &[&str]) -> Vec<usize> {
    eventually(
        &format!("each partition of {source} is read by one of {tailers:?}"),
        || async {
            let (mut read, mut shares) = (Vec::new(), Vec::new());
            for tailer in tailers {
                let url = cluster
                    .nodes()
                    .find(|node| node.name == *tailer)
                    .context("a node")?
                    .url
                    .clone();
                let channel = tonic::transport::Endpoint::from_shared(url)?.connect().await?;
                let rows = SourcesClient::new(channel)
                    .status(StatusRequest {})
                    .await?
                    .into_inner()
                    .rows;
                let of_it = rows
                    .iter()
                    .filter(|row| row.source == source && row.state != "starting")
                    .filter_map(|row| row.partition);
                let before = read.len();
                read.extend(of_it);
                shares.push(read.len() - before);
            }
            read.sort();
            ensure!(
                read.iter().copied().eq(0..partitions as i32),
                "{read:?}, shares {shares:?}"
            );
            Ok(shares)
        },
    )
    .await
}

/// A cluster whose broker has these further settings.
async fn start(tailers: usize, broker: &[&str]) -> Cluster {
    Cluster::start_on(
        Kafka::start_with(broker).await,
        Size {
            leaves: 2,
            tailers,
            aggregators: 1,
        },
        Settings::default(),
    )
    .await
}

/// A source of the collection of its name; what changes about its topic is noticed soon.
async fn source(cluster: &Cluster, name: &str, topic: &str, further: Value) {
    let mut config = json!({ "bootstrap.servers": cluster.kafka.bootstrap(), "topic.metadata.refresh.interval.ms": 500, "session.timeout.ms": 3000 });
    for (key, value) in further["config"].as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let mut body = json!({ "collection": name, "topic": topic });
    for (key, value) in further.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body["config"] = config;
    cluster
        .json(Method::PUT, &format!("/v1/sources/{name}"), body)
        .await
        .expect("a source");
}

fn values(numbers: Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("{{\"n\":{n}}}")).collect()
}

async fn produce(kafka: &Kafka, topic: &str, partition: i32, numbers: Range<usize>) {
    let record = |value| Produce {
        partition: Some(partition),
        ..Produce::value(value)
    };
    kafka
        .produce(topic, values(numbers).into_iter().map(record).collect())
        .await;
}

/// Waits until a plain consumer is given these offsets.
async fn holds(kafka: &Kafka, topic: &str, partition: i32, offsets: &[i64]) {
    eventually(&format!("{topic}/{partition} holds {offsets:?}"), || async {
        let held = kafka.offsets(topic, partition).await?;
        ensure!(held == offsets, "{held:?}");
        Ok(())
    })
    .await;
}

/// Writes numbers, two hundred at a time, to each of so many partitions in turn; how many went to each.
async fn write_until(stop: CancellationToken, writer: Writer, topic: &str, partitions: Arc<AtomicUsize>) -> Vec<usize> {
    const CHUNK: usize = 200;
    let mut written = Vec::new();
    for chunk in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let partition = chunk % partitions.load(Ordering::Relaxed);
        let record = |value| Produce {
            partition: Some(partition as i32),
            ..Produce::value(value)
        };
        writer
            .produce(
                topic,
                values(chunk * CHUNK..(chunk + 1) * CHUNK)
                    .into_iter()
                    .map(record)
                    .collect(),
            )
            .await;
        written.resize(written.len().max(partitions.load(Ordering::Relaxed)), 0);
        written[partition] += CHUNK;
    }
    written
}

/// Waits until everything written (so many to each partition, numbered from 0) is in, once.
async fn all_is_in(cluster: &Cluster, source: &str, written: &[usize]) {
    let lines: Vec<Line> = written
        .iter()
        .zip(0..)
        .map(|(count, p)| line(p, "caught_up", *count as i64 - 1, *count as i64, 0))
        .collect();
    stands(cluster, source, &lines).await;
    let total: usize = written.iter().sum();
    documents(cluster, source, &(0..total).collect::<Vec<_>>()).await;
    outcomes(cluster, source, [total as i64, total as i64, 0, 0, 0, 0, total as i64]).await;
    losses(cluster, source, &[]).await;
}

async fn count(cluster: &Cluster, collection: &str) -> Result<u64> {
    cluster
        .ask(&format!("select count(*) from {collection}"), json!({}))
        .await?
        .one()
        .as_u64()
        .context("a count")
}

/// What a row of `rachis.sources` is to say.
#[derive(Debug, Clone)]
struct Line {
    place: Value,
    said: Vec<String>,
}

/// Partition, state, position (none below 0), end and lag; no error.
fn line(partition: i32, state: &str, position: i64, end: i64, lag: i64) -> Line {
    let position = (position >= 0).then_some(position);
    Line {
        place: json!([partition, state, position, end, lag]),
        said: Vec::new(),
    }
}

impl Line {
    /// With an error that says all of this.
    fn saying<const N: usize>(mut self, said: [&str; N]) -> Self {
        self.said = said.map(str::to_owned).to_vec();
        self
    }

    fn is(&self, row: &[Value]) -> bool {
        let (place, error) = (json!(row[..5]), row[5].as_str());
        place == self.place
            && error.is_some() != self.said.is_empty()
            && self
                .said
                .iter()
                .all(|said| error.is_some_and(|error| error.contains(said)))
    }
}

/// Waits until these are the rows of a source.
async fn stands(cluster: &Cluster, source: &str, lines: &[Line]) {
    let sql = format!(
        "select partition, state, position, \"end\", lag, error from rachis.sources where source = '{source}' order by partition"
    );
    eventually(&format!("{source} stands as it should, {lines:?}"), || async {
        let rows = cluster.ask(&sql, json!({})).await?.rows;
        ensure!(
            rows.len() == lines.len() && lines.iter().zip(&rows).all(|(line, row)| line.is(row)),
            "{rows:?}"
        );
        Ok(())
    })
    .await;
}

/// The documents of a collection are these numbers, each once.
async fn documents(cluster: &Cluster, collection: &str, numbers: &[usize]) {
    let rows = cluster
        .sql(&format!("select n from \"{collection}\" order by n limit 100000"))
        .await
        .rows;
    let expected: Vec<Vec<Value>> = numbers.iter().map(|n| vec![json!(n)]).collect();
    assert_eq!(rows, expected, "the documents of {collection}");
}

/// events, accepted, tombstones, dead letters, superseded, deleted, documents of a source; both equations hold of each
/// partition.
async fn outcomes(cluster: &Cluster, source: &str, expected: [i64; 7]) {
    let columns = [
        "events",
        "accepted",
        "tombstones",
        "dead_letters",
        "superseded",
        "deleted",
        "documents",
    ];
    let sums: Vec<String> = columns
        .iter()
        .map(|column| format!("sum({column})::bigint as {column}"))
        .collect();
    let answer = cluster
        .sql(&format!(
            "select {} from rachis.sources where source = '{source}'",
            sums.join(", ")
        ))
        .await;
    assert_eq!(
        answer.rows,
        [expected.map(|count| json!(count)).to_vec()],
        "{columns:?} of {source}"
    );
    let wrong = "events <> accepted + tombstones + duplicates + dead_letters or documents <> accepted - superseded - deleted - expired";
    let wrong = cluster
        .sql(&format!(
            "select * from rachis.sources where source = '{source}' and ({wrong})"
        ))
        .await;
    assert!(wrong.rows.is_empty(), "an event without an outcome: {wrong:?}");
}

/// What `rachis.losses` says of a source: partition, first and last offset, reason.
async fn losses(cluster: &Cluster, source: &str, expected: &[(i32, i64, i64, &str)]) {
    let sql = format!(
        "select partition, from_offset, through_offset, reason from rachis.losses where source = '{source}' order by 1, 2"
    );
    let expected: Vec<Vec<Value>> = expected
        .iter()
        .map(|(partition, from, through, why)| vec![json!(partition), json!(from), json!(through), json!(why)])
        .collect();
    assert_eq!(cluster.sql(&sql).await.rows, expected, "the losses of {source}");
}

const GONE: &str = "gone at the broker before they were taken in";
const SKIPPED: &str = "skipped on request";

async fn change(cluster: &Cluster, source: &str, what: &str, body: Value) {
    cluster
        .json(Method::POST, &format!("/v1/sources/{source}/{what}"), body)
        .await
        .unwrap_or_else(|error| panic!("{what} of {source}: {error:#}"));
}
