//! Pushes that the log has lost stop their partition until they are skipped.

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Settings, eventually, kafka::NewRecord};

use super::SMALL;

#[tokio::test]
async fn a_lost_range_of_pushes_stops_its_partition_until_it_is_skipped() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    cluster
        .json(Method::PUT, "/v1/collections/events", json!({ "shards": 2 }))
        .await
        .expect("a collection");
    for _ in 0..2 {
        cluster.push("events", "{\"n\":1}").await.expect("a push");
    }
    // One aggregator for all keyed pushes.
    let url = cluster.url().to_owned();
    let partition = push_with_key(&url).await;
    let end = lose_records(&mut cluster, partition).await;

    wait_until_stopped(&cluster, partition, end).await;
    check_unknown_collection(&cluster).await;
    check_pushes_while_stopped(&cluster, &url, partition).await;
    check_skip(&cluster, partition, end).await;

    eventually(
        "the partition is read again: the key is known with another body",
        || async {
            let status = keyed_push(&url, 3).send().await?.status();
            ensure!(status == 409, "{status}");
            Ok(())
        },
    )
    .await;
    cluster.eventually("select count(*) from events", json!(7)).await;
    let losses = cluster
        .sql(
            "select \"partition\", from_offset, through_offset, reason from rachis.losses \
             where source = 'push' order by 2, 4",
        )
        .await;
    assert!(
        !losses.rows.is_empty() && losses.rows.iter().all(|row| row[0] == partition && row[2] == end - 1),
        "{losses:?}"
    );
}

/// A push of `n` whose key, always the same, assigns it to a partition.
fn keyed_push(url: &str, n: i32) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(format!("{url}/v1/collections/events/documents"))
        .header("idempotency-key", "k")
        .body(format!("{{\"n\":{n}}}"))
}

/// Returns the partition of the key.
async fn push_with_key(url: &str) -> i32 {
    let pushed: Value = keyed_push(url, 2)
        .send()
        .await
        .expect("a push")
        .json()
        .await
        .expect("JSON");
    let position = pushed["position"].as_str().expect("a position");
    position
        .split(['/', '@'])
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("push/PARTITION@OFFSET")
}

/// Lets the log lose records that were not ingested yet. Returns the offset after them.
async fn lose_records(cluster: &mut Cluster, partition: i32) -> i64 {
    let topics = cluster.kafka.topics().expect("topics");
    let topic = topics
        .iter()
        .find(|topic| topic.contains("push"))
        .unwrap_or_else(|| panic!("a topic of pushes in {topics:?}"))
        .clone();
    cluster.kill("tailer-1");
    let lost = || NewRecord {
        partition: Some(partition),
        ..NewRecord::value("lost")
    };
    let offsets = cluster.kafka.produce(&topic, vec![lost(), lost()]).await;
    let end = offsets.last().expect("an offset").1 + 1;
    cluster.kafka.delete_records_before(&topic, partition, end).await;
    cluster.restart("tailer-1").await;
    end
}

async fn wait_until_stopped(cluster: &Cluster, partition: i32, end: i64) {
    let sql = format!("select state, error from rachis.sources where source = 'push' and \"partition\" = {partition}");
    let error = eventually("the partition stops with an error", || async {
        let source = cluster.query(&sql, json!({})).await?;
        ensure!(source.rows.len() == 1 && source.rows[0][0] == "stopped", "{source:?}");
        Ok(source.rows[0][1].as_str().unwrap_or_default().to_owned())
    })
    .await;
    assert!(
        error.contains("no longer exist at the broker")
            && error.contains(&format!("rachis collection skip events {partition}={end}")),
        "{error}"
    );
}

async fn check_unknown_collection(cluster: &Cluster) {
    let error = cluster
        .json(Method::POST, "/v1/collections/nothing/skip", json!({ "to": {} }))
        .await
        .expect_err("the collection does not exist");
    assert!(format!("{error:#}").contains("404"), "{error:#}");
}

/// A push that belongs to the stopped partition fails at once instead of queueing behind it. A push without a key goes
/// to another partition.
async fn check_pushes_while_stopped(cluster: &Cluster, url: &str, partition: i32) {
    let error = eventually("a push with this key fails", || async {
        let response = keyed_push(url, 3).send().await?;
        ensure!(response.status() == 503, "{}", response.status());
        Ok(response.text().await?)
    })
    .await;
    assert!(
        error.contains(&format!("the pushes of events, partition {partition}, are stopped"))
            && error.contains("no longer exist at the broker"),
        "{error}"
    );
    for _ in 0..4 {
        cluster.push("events", "{\"n\":1}").await.expect("a push");
    }
}

async fn check_skip(cluster: &Cluster, partition: i32, end: i64) {
    let skip = |partition: i32, to: Value| {
        let to = json!({ "to": { partition.to_string(): to } });
        cluster.json(Method::POST, "/v1/collections/events/skip", to)
    };
    for (partition, to, reason) in [
        (partition, json!(0), "is stored through"),
        (partition, json!(end + 1), "ends before offset"),
        (2, json!(end), "does not exist"),
        (partition, json!("end"), "is not an offset"),
    ] {
        let error = format!("{:#}", skip(partition, to).await.expect_err(reason));
        assert!(error.contains("400") && error.contains(reason), "{error}");
    }
    let skipped = skip(partition, json!(end)).await.expect("a skip");
    assert_eq!(skipped["skips"][partition.to_string()][0]["to"], end, "{skipped}");
}
