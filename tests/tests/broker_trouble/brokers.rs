//! Faults of brokers: killed, frozen, or restarted with a truncated log; also topics that change during a tailer's
//! freeze.

use std::sync::{Arc, atomic::AtomicUsize};

use anyhow::ensure;
use serde_json::{Value, json};
use tests::{Cluster, eventually};
use tokio_util::sync::CancellationToken;

use super::support::{
    LOST_AT_BROKER, SKIPPED, assert_all_ingested, assert_counts, assert_documents, assert_losses, count,
    eventually_status, post_to_source, produce, produce_until_cancelled, source, starting_row, status_row,
};

pub(super) async fn a_killed_broker_is_reported_without_loss_or_duplicates(cluster: &mut Cluster) {
    let t = "killed";
    cluster.kafka.create_topic(t, 3, &[]).await;
    source(cluster, t, t, json!({})).await;
    let (stop, partitions) = (CancellationToken::new(), Arc::new(AtomicUsize::new(3)));
    let writing = tokio::spawn(produce_until_cancelled(
        stop.clone(),
        cluster.kafka.producer(),
        t,
        partitions,
    ));
    eventually("some records are ingested", || async {
        ensure!(count(cluster, t).await? > 0);
        Ok(())
    })
    .await;
    cluster.kafka.kill();
    let sql = format!("select position, error from rachis.sources where source = '{t}'");
    let rows = eventually("every partition shows the error", || async {
        let rows = cluster.query(&sql, json!({})).await?.rows;
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
        count(cluster, t).await.expect("queries are answered"),
        positions as u64,
        "the positions match the documents"
    );
    cluster.kafka.restart().await;
    stop.cancel();
    let written = writing.await.expect("all records are acknowledged");
    assert_all_ingested(cluster, t, &written).await;
}

pub(super) async fn a_broker_frozen_past_the_session_timeout_is_reported_without_loss_or_duplicates(
    cluster: &mut Cluster,
) {
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
    eventually_status(
        cluster,
        t,
        &[
            status_row(0, "caught_up", 499, 500, 0),
            status_row(1, "caught_up", -1, 0, 0),
        ],
    )
    .await;
    cluster.kafka.pause();
    // After the session timeout the client gives up its partitions, and the error must say why nothing is ingested.
    let silent = starting_row(499).with_error([
        "the consumer group has assigned no partitions",
        "a new consumer replaces this one",
    ]);
    eventually_status(cluster, t, &[silent]).await;
    assert_documents(cluster, t, &(0..500).collect::<Vec<_>>()).await;
    cluster.kafka.resume();
    produce(&cluster.kafka, t, 0, 500..600).await;
    produce(&cluster.kafka, t, 1, 600..700).await;
    eventually_status(
        cluster,
        t,
        &[
            status_row(0, "caught_up", 599, 600, 0),
            status_row(1, "caught_up", 99, 100, 0),
        ],
    )
    .await;
    assert_documents(cluster, t, &(0..700).collect::<Vec<_>>()).await;
    assert_counts(cluster, t, [700, 700, 0, 0, 0, 0, 700]).await;
    assert_losses(cluster, t, &[]).await;
}

/// Truncates three ingested topics from offset 100 to 50 while the broker is down, and produces to all but the first.
async fn truncate_logs(cluster: &mut Cluster, cut: &str, suspended: &str, live: &str) {
    for t in [cut, suspended, live] {
        cluster.kafka.create_topic(t, 1, &[]).await;
        produce(&cluster.kafka, t, 0, 0..50).await;
        produce(&cluster.kafka, t, 0, 50..100).await;
        source(cluster, t, t, json!({})).await;
        eventually_status(cluster, t, &[status_row(0, "caught_up", 99, 100, 0)]).await;
    }
    post_to_source(cluster, suspended, "suspend", json!({})).await;
    cluster.kafka.kill();
    for t in [cut, suspended, live] {
        cluster.kafka.truncate_log(t, 0, 50);
    }
    cluster.kafka.restart().await;
    for t in [suspended, live] {
        produce(&cluster.kafka, t, 0, 1_050..1_150).await;
    }
    assert_eq!(
        cluster.kafka.offsets(cut, 0).await.expect("the offsets"),
        (0..50).collect::<Vec<_>>()
    );
}

pub(super) async fn a_truncated_log_is_detected_and_never_read_as_the_old_one(cluster: &mut Cluster) {
    // All three topics are truncated below our position. Two of them then grow past it: one while its source is
    // suspended, one while it is read.
    let (cut, suspended, live) = ("cut", "cut-suspended", "cut-live");
    truncate_logs(cluster, cut, suspended, live).await;
    post_to_source(cluster, suspended, "resume", json!({})).await;
    let at = |t: &str| format!("{t}/0@99");
    eventually_status(
        cluster,
        cut,
        &[status_row(0, "stopped", 99, 50, 0).with_error([
            "offsets only up to 49",
            &at(cut),
            "truncated",
            "create a source with another name",
        ])],
    )
    .await;
    for t in [suspended, live] {
        eventually_status(
            cluster,
            t,
            &[status_row(0, "stopped", 99, 150, 50).with_error([
                "different record",
                &at(t),
                "truncated",
                "create a source with another name",
                "skip",
            ])],
        )
        .await;
    }
    for t in [cut, suspended, live] {
        assert_documents(cluster, t, &(0..100).collect::<Vec<_>>()).await;
        assert_counts(cluster, t, [100, 100, 0, 0, 0, 0, 100]).await;
        assert_losses(cluster, t, &[]).await;
    }
    skips_of_a_truncated_log_are_recorded(cluster, suspended, live).await;
    // The truncated topic is still not ours once it has grown past the stored position. A change of the source triggers
    // the check at once.
    produce(&cluster.kafka, cut, 0, 2_000..2_100).await;
    for action in ["suspend", "resume"] {
        post_to_source(cluster, cut, action, json!({})).await;
    }
    eventually_status(
        cluster,
        cut,
        &[status_row(0, "stopped", 99, 150, 50).with_error(["different record", &at(cut)])],
    )
    .await;
    assert_documents(cluster, cut, &(0..100).collect::<Vec<_>>()).await;
}

async fn skips_of_a_truncated_log_are_recorded(cluster: &Cluster, suspended: &str, live: &str) {
    // A skip to the offset right after the stored one loses nothing; a skip past it is recorded as a loss.
    post_to_source(cluster, suspended, "skip", json!({ "to": { "0": 100 } })).await;
    post_to_source(cluster, live, "skip", json!({ "to": { "0": 120 } })).await;
    for (t, from) in [(suspended, 1_100), (live, 1_120)] {
        eventually_status(cluster, t, &[status_row(0, "caught_up", 149, 150, 0)]).await;
        assert_documents(cluster, t, &(0..100).chain(from..1_150).collect::<Vec<_>>()).await;
    }
    assert_losses(cluster, suspended, &[]).await;
    assert_losses(cluster, live, &[(0, 100, 119, SKIPPED)]).await;
}

pub(super) async fn changes_of_a_topic_during_a_tailer_freeze_are_detected_after_it(cluster: &Cluster) {
    let (kafka, overtaken, recreated) = (&cluster.kafka, "overtaken", "anew-meanwhile");
    kafka.create_topic(overtaken, 2, &[]).await;
    kafka.create_topic(recreated, 1, &[]).await;
    for (t, partition) in [(overtaken, 0), (overtaken, 1), (recreated, 0)] {
        produce(kafka, t, partition, 0..20).await;
    }
    // The long session timeout keeps the tailer in its group: it continues where it was, with no rebalance that would
    // make it check.
    for t in [overtaken, recreated] {
        source(cluster, t, t, json!({ "config": { "session.timeout.ms": 60_000 } })).await;
    }
    eventually_status(
        cluster,
        overtaken,
        &[0, 1].map(|p| status_row(p, "caught_up", 19, 20, 0)),
    )
    .await;
    eventually_status(cluster, recreated, &[status_row(0, "caught_up", 19, 20, 0)]).await;
    cluster.process("tailer-1").pause();
    // A fetch of the tailer may still be pending at the broker, which answers it with the next records. So these must
    // be records that stay.
    for partition in [1, 0] {
        produce(kafka, overtaken, partition, 20..100).await;
    }
    kafka.delete_records_before(overtaken, 0, 60).await;
    kafka.delete_topic(recreated).await;
    kafka.create_topic(recreated, 1, &[]).await;
    produce(kafka, recreated, 0, 1_000..1_100).await;
    cluster.process("tailer-1").resume();
    let range = format!("{overtaken}/0@20 through {overtaken}/0@59 no longer exist");
    eventually_status(
        cluster,
        overtaken,
        &[
            status_row(0, "stopped", 19, 100, 80).with_error([&range, "rachis source skip overtaken 0=60"]),
            status_row(1, "caught_up", 99, 100, 0),
        ],
    )
    .await;
    assert_losses(cluster, overtaken, &[(0, 20, 59, LOST_AT_BROKER)]).await;
    post_to_source(cluster, overtaken, "skip", json!({ "to": { "0": 60 } })).await;
    eventually_status(
        cluster,
        overtaken,
        &[0, 1].map(|p| status_row(p, "caught_up", 99, 100, 0)),
    )
    .await;
    assert_losses(cluster, overtaken, &[(0, 20, 59, LOST_AT_BROKER)]).await;
    assert_counts(cluster, overtaken, [160, 160, 0, 0, 0, 0, 160]).await;
    eventually_status(
        cluster,
        recreated,
        &[status_row(0, "stopped", 19, 100, 80)
            .with_error(["anew-meanwhile/0@19 holds a different record", "recreated"])],
    )
    .await;
    assert_documents(cluster, recreated, &(0..20).collect::<Vec<_>>()).await;
    assert_counts(cluster, recreated, [20, 20, 0, 0, 0, 0, 20]).await;
}
