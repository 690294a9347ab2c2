//! A leaf that loses its disk, or gets an older one back, is filled again.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Settings, cluster::ClusterSize, eventually, kafka::NewRecord};

use super::SMALL;

#[tokio::test]
async fn a_leaf_with_an_older_disk_gets_what_it_lacks_and_no_answer_is_older_than_an_earlier_one() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    let (first, second) = (cluster.client_of("aggregator-1"), cluster.client_of("aggregator-2"));
    let older = fill_and_copy_disk(&mut cluster, &first).await;

    restore_disk(&mut cluster, &older).await;
    check_with_tailer(&cluster, &first, &second).await;
    check_without_tailer(&mut cluster, &first, &older).await;
    check_other_aggregator(&mut cluster, &first, &second, &older).await;
}

/// Fills `clicks` from Kafka and `events` by push, and copies the disk of the leaf halfway.
async fn fill_and_copy_disk(cluster: &mut Cluster, client: &Client) -> PathBuf {
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    cluster.source_of_topic("clicks", &cluster.kafka).await;
    let records = |range: Range<i32>| {
        range
            .map(|n| NewRecord {
                partition: Some(n % 2),
                ..NewRecord::value(format!("{{\"n\":{n}}}"))
            })
            .collect()
    };
    cluster.kafka.produce("clicks", records(0..100)).await;
    client.push("events", "{\"n\":1}").await.expect("a push");
    client.eventually("select count(*) from clicks", json!(100)).await;
    let older = cluster.data_dir("older");
    cluster.stop("leaf-1");
    copy(&cluster.data_dir("leaf-1"), &older);
    cluster.restart("leaf-1").await;
    cluster.kafka.produce("clicks", records(100..200)).await;
    client.eventually("select count(*) from clicks", json!(200)).await;
    client
        .push("events", "{\"n\":2}")
        .await
        .expect("a push that no query follows");
    older
}

/// The tailer knows what was acknowledged, and tells even the aggregator that was never queried.
async fn check_with_tailer(cluster: &Cluster, first: &Client, second: &Client) {
    for (client, sql, expected) in [
        (second, "select count(*), sum(n)::bigint from events", json!([2, 3])),
        (
            first,
            "select count(*), sum(n)::bigint from clicks",
            json!([200, 19_900]),
        ),
        (first, "select count(*), sum(n)::bigint from events", json!([2, 3])),
    ] {
        let answer = eventually("the leaf answers", || client.query(sql, json!({}))).await;
        assert_eq!(
            (json!(answer.rows[0]), &answer.stats["warnings"]),
            (expected, &json!([])),
            "the first answer: {answer:?}"
        );
    }
    let counters = cluster
        .sql("select sum(documents)::bigint, sum(events)::bigint from rachis.sources where source = 'clicks'")
        .await;
    assert_eq!(counters.rows, [[json!(200), json!(200)]], "nothing is counted twice");
}

/// Without a tailer the missing push cannot be restored. The aggregator that acknowledged it warns until it can.
async fn check_without_tailer(cluster: &mut Cluster, client: &Client, older: &Path) {
    let pushed = client.push("events", "{\"n\":3}").await.expect("a push");
    cluster.kill("tailer-1");
    restore_disk(cluster, older).await;
    let behind = eventually("the leaf answers", || {
        client.query("select count(*) from events", json!({}))
    })
    .await;
    let warnings = behind.stats["warnings"].to_string();
    let position = pushed["position"].as_str().expect("a position");
    assert!(
        behind.rows[0][0] == 1
            && warnings.contains("earlier answers or the pushes in Kafka")
            && warnings.contains(position),
        "{behind:?}"
    );
    let again = client.sql("select count(*) from events").await;
    assert_eq!(
        (&again.rows[0][0], &again.stats["warnings"]),
        (&json!(1), &behind.stats["warnings"]),
        "the warning is repeated"
    );
    cluster.restart("tailer-1").await;
    eventually("the push is restored and the warning has cleared", || async {
        let answer = client.query("select count(*) from events", json!({})).await?;
        anyhow::ensure!(
            answer.rows[0][0] == 3 && answer.stats["warnings"] == json!([]),
            "{answer:?}"
        );
        Ok(())
    })
    .await;
}

/// Only the log knows of a push that did not pass through the second aggregator. Its answer waits until tailers have
/// read the log.
async fn check_other_aggregator(cluster: &mut Cluster, first: &Client, second: &Client, older: &Path) {
    first.push("events", "{\"n\":4}").await.expect("a push");
    cluster.kill("tailer-1");
    cluster.restart_without_waiting("tailer-1");
    restore_disk(cluster, older).await;
    let answer = eventually("the leaf answers", || {
        second.query("select count(*) from events", json!({}))
    })
    .await;
    assert!(
        answer.rows[0][0] == 4 || answer.stats["warnings"] != json!([]),
        "{answer:?}"
    );
    second.eventually("select count(*) from events", json!(4)).await;
}

/// Kills the leaf and restarts it on a copy of this disk.
async fn restore_disk(cluster: &mut Cluster, disk: &Path) {
    let data = cluster.data_dir("leaf-1");
    cluster.kill("leaf-1");
    std::fs::remove_dir_all(&data).expect("the disk is lost");
    copy(disk, &data);
    cluster.restart("leaf-1").await;
}

fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()
            .expect("cp runs")
            .success()
    );
}

#[tokio::test]
async fn a_refilled_leaf_leaves_out_what_was_skipped_and_nothing_else() {
    let mut cluster = Cluster::start(ClusterSize::ONE_OF_EACH, Settings::default()).await;
    cluster.kafka.create_topic("clicks", 1, &[]).await;
    cluster.source_of_topic("clicks", &cluster.kafka).await;
    let records = |range: Range<i32>| range.map(|n| NewRecord::value(format!("{{\"n\":{n}}}"))).collect();
    let client = cluster.client_of("aggregator-1");
    let post = async |action: &str, body: Value| {
        client
            .json(Method::POST, &format!("/v1/sources/clicks/{action}"), body)
            .await
    };
    cluster.kafka.produce("clicks", records(0..20)).await;
    cluster.eventually("select count(*) from clicks", json!(20)).await;
    let active = post("skip", json!({ "to": { "0": 20 } }))
        .await
        .expect_err("the source is active");
    assert!(
        format!("{active:#}").contains("409") && format!("{active:#}").contains("suspend the source first"),
        "{active:#}"
    );
    for (from, skip, to) in [(20, 30, 40), (40, 45, 50)] {
        post("suspend", json!({})).await.expect("suspended");
        cluster.kafka.produce("clicks", records(from..to)).await;
        post("skip", json!({ "to": { "0": skip } })).await.expect("skipped");
        post("resume", json!({})).await.expect("resumed");
        cluster.eventually("select max(n) from clicks", json!(to - 1)).await;
    }
    let expected = [[json!(35), json!((0..20).chain(30..40).chain(45..50).sum::<i32>())]];
    let sql = "select count(*), sum(n)::bigint from clicks";
    assert_eq!(cluster.sql(sql).await.rows, expected);
    cluster.stop("leaf-1");
    std::fs::remove_dir_all(cluster.data_dir("leaf-1")).expect("the disk is lost");
    cluster.restart("leaf-1").await;
    cluster.eventually("select max(n) from clicks", json!(49)).await;
    assert_eq!(cluster.sql(sql).await.rows, expected);
    let losses = cluster
        .sql("select from_offset, through_offset, reason from rachis.losses order by 1")
        .await;
    assert_eq!(
        losses.rows,
        [(20, 29), (40, 44)].map(|(from, through)| [json!(from), json!(through), json!("skipped on request")])
    );
}

#[tokio::test]
async fn pushes_that_the_log_has_no_more_are_a_loss_even_for_a_tailer_that_has_read_none_of_them() {
    let mut cluster = Cluster::start(ClusterSize::ONE_OF_EACH, Settings::default()).await;
    let created = cluster.json(Method::PUT, "/v1/collections/events", json!({ "shards": 1 }));
    created.await.expect("a collection");
    for n in 0..10 {
        cluster.push("events", format!("{{\"n\":{n}}}")).await.expect("a push");
    }
    cluster.stop("leaf-1");
    cluster.stop("tailer-1");
    std::fs::remove_dir_all(cluster.data_dir("leaf-1")).expect("the disk is lost");
    let topics = cluster.kafka.topics().expect("topics");
    let pushes = topics.iter().find(|topic| topic.starts_with("rachis-push"));
    cluster
        .kafka
        .delete_records_before(pushes.expect("a topic of pushes"), 0, 4)
        .await;
    cluster
        .restart_all(&["leaf-1", "tailer-1"].map(ToOwned::to_owned))
        .await;
    let stopped = "select count(*) from rachis.sources where state = 'stopped' \
                   and error like '%@0 through push/0@3 no longer exist%rachis collection skip%'";
    cluster.eventually(stopped, json!(1)).await;
    cluster
        .json(Method::POST, "/v1/collections/events/skip", json!({ "to": { "0": 4 } }))
        .await
        .expect("skipped");
    cluster
        .eventually("select sum(n)::bigint from events", json!((4..10).sum::<i32>()))
        .await;
    let losses = "select from_offset, through_offset from rachis.losses";
    assert_eq!(cluster.sql(losses).await.rows, [[json!(0), json!(3)]]);
}
