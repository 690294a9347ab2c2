//! Faults of topics: aborted transactions, compaction, retention, deletion, recreation and oversized records.

use std::ops::Range;

use anyhow::ensure;
use proto::limits::LISTED_DEAD_LETTER_BYTES_MAX;
use rdkafka::producer::Producer as _;
use reqwest::Method;
use serde_json::json;
use tests::{Cluster, eventually, kafka::NewRecord};

use super::support::{
    LOST_AT_BROKER, SKIPPED, assert_counts, assert_documents, assert_losses, eventually_offsets, eventually_status,
    post_to_source, produce, source, starting_row, status_row, values,
};

pub(super) async fn aborted_transactions_are_skipped_and_an_open_one_delays_what_follows(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "transactions");
    kafka.create_topic(t, 1, &[]).await;
    source(cluster, t, t, json!({})).await;
    for round in 0..6 {
        kafka
            .produce_in_transaction(t, 0, values(round * 10..round * 10 + 10), round % 2 == 0)
            .await;
    }
    // A transaction is ten records and a marker, and the last one was aborted: the last eleven offsets hold no visible
    // record.
    eventually_status(cluster, t, &[status_row(0, "caught_up", 53, 66, 0)]).await;
    let committed: Vec<usize> = [0..10, 20..30, 40..50].into_iter().flatten().collect();
    assert_documents(cluster, t, &committed).await;
    let open = kafka.begin_transaction(t, 0, values(60..70)).await;
    produce(kafka, t, 0, 70..75).await;
    eventually_status(cluster, t, &[status_row(0, "caught_up", 53, 66, 0)]).await;
    assert_documents(cluster, t, &committed).await;
    tokio::task::spawn_blocking(move || open.abort_transaction(tests::WAIT_MAX))
        .await
        .expect("no panic")
        .expect("the transaction is aborted");
    eventually_status(cluster, t, &[status_row(0, "caught_up", 80, 82, 0)]).await;
    assert_documents(cluster, t, &committed.into_iter().chain(70..75).collect::<Vec<_>>()).await;
    assert_counts(cluster, t, [35, 35, 0, 0, 0, 0, 35]).await;
    assert_losses(cluster, t, &[]).await;
}

pub(super) async fn a_compacted_topic_is_read_to_its_end_with_the_latest_record_of_each_key(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "10000"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    kafka.create_topic(t, 1, &settings).await;
    // Only closed segments are compacted. A segment closes when a record is ten seconds newer than its first one.
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()).expect("fits in 64 bits");
    let record = |key: &str, n: Option<i64>, seconds: i64| NewRecord {
        partition: Some(0),
        time_ms: Some(now + seconds * 1_000),
        ..NewRecord::keyed(key, n.map(|n| format!("{{\"n\":{n}}}").into()))
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
    eventually_offsets(kafka, t, 0, &[193, 194, 195, 196, 197, 198, 199, 200, 201, 202]).await;
    source(cluster, t, t, json!({ "key": "record" })).await;
    eventually_status(cluster, t, &[status_row(0, "caught_up", 202, 209, 0)]).await;
    assert_documents(cluster, t, &[193, 194, 195, 196, 197, 198, 199, 202]).await;
    assert_counts(cluster, t, [10, 8, 2, 0, 0, 0, 8]).await;
    // Compaction passes the position and deletes the very record that is compared when the source resumes.
    post_to_source(cluster, t, "suspend", json!({})).await;
    kafka
        .produce(t, (209..309).map(|n| record("k2", Some(n), 50)).collect())
        .await;
    kafka
        .produce(t, vec![record("k3", None, 100), record("k4", Some(310), 100)])
        .await;
    kafka.produce(t, vec![record("k9", Some(311), 150)]).await;
    eventually_offsets(kafka, t, 0, &[195, 196, 197, 198, 199, 200, 201, 308, 309, 310, 311]).await;
    post_to_source(cluster, t, "resume", json!({})).await;
    eventually_status(cluster, t, &[status_row(0, "caught_up", 311, 312, 0)]).await;
    assert_documents(cluster, t, &[195, 196, 197, 198, 308, 310, 311]).await;
    assert_counts(cluster, t, [14, 11, 3, 0, 3, 1, 7]).await;
    assert_losses(cluster, t, &[]).await;
}

pub(super) async fn added_partitions_are_read_from_their_first_record(cluster: &Cluster) {
    let kafka = &cluster.kafka;
    // A source that starts at the latest record skips the records before it, but none of a partition that is added
    // later.
    for (t, start, begin, suspended) in [("grown", "earliest", 0, false), ("grown-meanwhile", "latest", 10, true)] {
        kafka.create_topic(t, 1, &[]).await;
        produce(kafka, t, 0, 0..10).await;
        source(cluster, t, t, json!({ "start": start })).await;
        eventually_status(cluster, t, &[status_row(0, "caught_up", 9, 10, 0)]).await;
        if suspended {
            post_to_source(cluster, t, "suspend", json!({})).await;
        }
        kafka.add_partitions(t, 3).await;
        produce(kafka, t, 2, 10..30).await;
        produce(kafka, t, 0, 30..35).await;
        if suspended {
            post_to_source(cluster, t, "resume", json!({})).await;
        }
        eventually_status(
            cluster,
            t,
            &[
                status_row(0, "caught_up", 14, 15, 0),
                status_row(1, "caught_up", -1, 0, 0),
                status_row(2, "caught_up", 19, 20, 0),
            ],
        )
        .await;
        assert_documents(cluster, t, &(begin..35).collect::<Vec<_>>()).await;
        let all = 35 - begin as i64;
        assert_counts(cluster, t, [all, all, 0, 0, 0, 0, all]).await;
    }
}

/// Suspends a source of three partitions at offset 20 and lets retention delete all their records: 20..50 of the first
/// two, which were not ingested. Adds ten records to each partition and resumes the source.
async fn delete_by_retention(cluster: &Cluster, t: &str) {
    let kafka = &cluster.kafka;
    post_to_source(cluster, t, "suspend", json!({})).await;
    produce(kafka, t, 0, 20..50).await;
    produce(kafka, t, 1, 20..50).await;
    kafka.set_topic_config(t, &[("retention.ms", "1000")]).await;
    for partition in 0..3 {
        eventually_offsets(kafka, t, partition, &[]).await;
    }
    kafka.set_topic_config(t, &[("retention.ms", "-1")]).await;
    for partition in 0..3 {
        produce(kafka, t, partition, 50..60).await;
    }
    post_to_source(cluster, t, "resume", json!({})).await;
}

pub(super) async fn a_range_deleted_by_retention_stops_its_partition_until_it_is_skipped(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "retained");
    kafka.create_topic(t, 3, &[]).await;
    for partition in 0..3 {
        produce(kafka, t, partition, 0..20).await;
    }
    source(cluster, t, t, json!({})).await;
    eventually_status(cluster, t, &[0, 1, 2].map(|p| status_row(p, "caught_up", 19, 20, 0))).await;
    delete_by_retention(cluster, t).await;
    let stopped = |p: i32| {
        let range = format!("{t}/{p}@20 through {t}/{p}@49 no longer exist at the broker");
        status_row(p, "stopped", 19, 60, 40).with_error([
            &range,
            "retention deleted them first",
            "rachis source skip retained",
        ])
    };
    // The third partition lost only records that were ingested, so it continues.
    eventually_status(
        cluster,
        t,
        &[stopped(0), stopped(1), status_row(2, "caught_up", 29, 30, 0)],
    )
    .await;
    assert_losses(cluster, t, &[(0, 20, 49, LOST_AT_BROKER), (1, 20, 49, LOST_AT_BROKER)]).await;
    let ingested = |zero: Range<usize>, one: Range<usize>| {
        let mut all: Vec<usize> = [0..20, 0..20, 0..20, 50..60, zero, one].into_iter().flatten().collect();
        all.sort();
        all
    };
    assert_documents(cluster, t, &ingested(0..0, 0..0)).await;
    post_to_source(cluster, t, "skip", json!({ "to": { "0": 50 } })).await;
    eventually_status(
        cluster,
        t,
        &[
            status_row(0, "caught_up", 59, 60, 0),
            stopped(1),
            status_row(2, "caught_up", 29, 30, 0),
        ],
    )
    .await;
    assert_documents(cluster, t, &ingested(50..60, 0..0)).await;
    post_to_source(cluster, t, "skip", json!({ "to": { "1": "latest" } })).await;
    produce(kafka, t, 1, 60..70).await;
    eventually_status(
        cluster,
        t,
        &[
            status_row(0, "caught_up", 59, 60, 0),
            status_row(1, "caught_up", 69, 70, 0),
            status_row(2, "caught_up", 29, 30, 0),
        ],
    )
    .await;
    assert_documents(cluster, t, &ingested(50..60, 60..70)).await;
    assert_losses(
        cluster,
        t,
        &[
            (0, 20, 49, LOST_AT_BROKER),
            (1, 20, 49, LOST_AT_BROKER),
            (1, 50, 59, SKIPPED),
        ],
    )
    .await;
    assert_counts(cluster, t, [90, 90, 0, 0, 0, 0, 90]).await;
}

pub(super) async fn a_deleted_topic_is_reported_and_its_successor_is_not_read_in_its_place(cluster: &Cluster) {
    let (kafka, t) = (&cluster.kafka, "deleted");
    kafka.create_topic(t, 1, &[]).await;
    produce(kafka, t, 0, 0..100).await;
    source(cluster, t, t, json!({})).await;
    eventually_status(cluster, t, &[status_row(0, "caught_up", 99, 100, 0)]).await;
    kafka.delete_topic(t).await;
    let all: Vec<usize> = (0..100).collect();
    let missing = starting_row(99).with_error(["does not exist", "create it, or check its name"]);
    eventually_status(cluster, t, std::slice::from_ref(&missing)).await;
    // The topic is missing for longer than a consumer waits for its group; the error must still name the topic.
    eventually("a new consumer looks for the topic", || async {
        let logs = cluster.log("tailer-1") + &cluster.log("tailer-2");
        ensure!(
            !logs.contains("source=deleted error=\"the consumer group has assigned no partitions"),
            "the error blames the consumer group"
        );
        ensure!(
            logs.contains("consumer closed source=deleted"),
            "the first consumer is still open"
        );
        Ok(())
    })
    .await;
    eventually_status(cluster, t, &[missing]).await;
    assert_documents(cluster, t, &all).await;
    kafka.create_topic(t, 1, &[]).await;
    produce(kafka, t, 0, 1_000..1_005).await;
    let at = format!("it had {t}/0@99");
    let stopped = status_row(0, "stopped", 99, 5, 0).with_error([
        "offsets only up to 4",
        &at,
        "recreated",
        "create a source with another name",
    ]);
    eventually_status(cluster, t, std::slice::from_ref(&stopped)).await;
    // A skip past the end of the topic, or to before the stored position, is refused and nothing is ingested.
    for (to, message) in [(200, "ends before offset 5"), (3, "stored through offset 99")] {
        let refused = cluster
            .json(
                Method::POST,
                &format!("/v1/sources/{t}/skip"),
                json!({ "to": { "0": to } }),
            )
            .await
            .expect_err(message);
        assert!(format!("{refused:#}").contains(message), "{refused:#}");
    }
    eventually_status(cluster, t, std::slice::from_ref(&stopped)).await;
    assert_documents(cluster, t, &all).await;
    assert_counts(cluster, t, [100, 100, 0, 0, 0, 0, 100]).await;
    assert_losses(cluster, t, &[]).await;
    // The error recommends a source of another name.
    source(cluster, "deleted-2", t, json!({})).await;
    eventually_status(cluster, "deleted-2", &[status_row(0, "caught_up", 4, 5, 0)]).await;
    assert_documents(cluster, "deleted-2", &(1_000..1_005).collect::<Vec<_>>()).await;
}

pub(super) async fn a_recreated_topic_that_grew_past_our_position_is_detected(cluster: &Cluster) {
    let kafka = &cluster.kafka;
    for (t, suspended) in [("anew", true), ("anew-live", false)] {
        kafka.create_topic(t, 1, &[]).await;
        produce(kafka, t, 0, 0..100).await;
        source(cluster, t, t, json!({})).await;
        eventually_status(cluster, t, &[status_row(0, "caught_up", 99, 100, 0)]).await;
        if suspended {
            post_to_source(cluster, t, "suspend", json!({})).await;
        }
        kafka.delete_topic(t).await;
        kafka.create_topic(t, 1, &[]).await;
        produce(kafka, t, 0, 1_000..1_200).await;
        if suspended {
            post_to_source(cluster, t, "resume", json!({})).await;
        }
        let at = format!("{t}/0@99 holds a different record");
        eventually_status(
            cluster,
            t,
            &[status_row(0, "stopped", 99, 200, 100).with_error([
                &at,
                "recreated",
                "create a source with another name",
                "skip",
            ])],
        )
        .await;
        assert_documents(cluster, t, &(0..100).collect::<Vec<_>>()).await;
        assert_losses(cluster, t, &[]).await;
        post_to_source(cluster, t, "skip", json!({ "to": { "0": 150 } })).await;
        eventually_status(cluster, t, &[status_row(0, "caught_up", 199, 200, 0)]).await;
        assert_documents(cluster, t, &(0..100).chain(1_150..1_200).collect::<Vec<_>>()).await;
        assert_counts(cluster, t, [150, 150, 0, 0, 0, 0, 150]).await;
        assert_losses(cluster, t, &[(0, 100, 149, SKIPPED)]).await;
    }
}

pub(super) async fn a_source_of_a_missing_topic_is_refused(cluster: &Cluster) {
    let refused = cluster
        .source("never", "never", "never-was", &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect_err("the topic does not exist");
    let message = format!("{refused:#}");
    assert!(
        message.contains("404") && message.contains("never-was") && message.contains("does not exist"),
        "{message}"
    );
    assert!(
        cluster
            .sql("select * from rachis.sources where source = 'never'")
            .await
            .rows
            .is_empty()
    );
}

pub(super) async fn large_records_are_ingested_and_oversized_ones_block_nothing(cluster: &Cluster) {
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
    kafka
        .produce(t, bodies.into_iter().map(NewRecord::value).collect())
        .await;
    source(cluster, t, t, json!({})).await;
    // Several in a row, each larger than the client's default fetch size and than a batch to the leaf.
    let more = [(103..106).map(|n| padded(n, LARGE_BYTES)).collect(), small(106..107)].concat();
    kafka.produce(t, more.into_iter().map(NewRecord::value).collect()).await;
    eventually_status(cluster, t, &[status_row(0, "caught_up", 106, 107, 0)]).await;
    assert_documents(cluster, t, &(0..107).filter(|n| *n != 2).collect::<Vec<_>>()).await;
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
        [[
            json!("large/0@2"),
            json!("too_big"),
            json!(whole),
            json!(LISTED_DEAD_LETTER_BYTES_MAX)
        ]]
    );
    assert_counts(cluster, t, [107, 106, 0, 1, 0, 0, 106]).await;
}
