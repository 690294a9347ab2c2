//! Faults of the change log: nodes keep serving queries, commit no change, delete nothing, report the fault, and
//! recover by themselves once the log is healthy.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{Cluster, Settings, cluster::ClusterSize, eventually, kafka::NewRecord};

/// The topic of the change log.
const TOPIC: &str = "rachis-changes";

async fn start() -> Cluster {
    let cluster = Cluster::start(ClusterSize::ONE_OF_EACH, Settings::default()).await;
    cluster.push("events", "{\"n\":1}").await.expect("a push");
    cluster
}

/// The nodes as `rachis cluster status` reports them: an aggregator knows them also without the log.
fn nodes(cluster: &Cluster) -> Result<Vec<Value>> {
    let status = ["cluster", "status", "-o", "json", "--url", cluster.url()];
    let status: Value = serde_json::from_str(&cluster.command(&status)?)?;
    Ok(status["nodes"].as_array().context("no nodes")?.clone())
}

/// Asserts that queries are answered, that changes are refused, and that the tailer reports `why`.
async fn assert_read_only(cluster: &Cluster, why: &str) {
    eventually(&format!("the tailer reports {why:?}"), || async {
        let nodes = nodes(cluster)?;
        let trouble = nodes
            .iter()
            .find(|node| node["role"] == "tailer")
            .context("no tailer")?["error"]
            .to_string();
        ensure!(trouble.contains(why), "{trouble}");
        Ok(())
    })
    .await;
    assert_eq!(
        *cluster.sql("select count(*) from events").await.single_value(),
        json!(1)
    );
    let refused = cluster
        .json(reqwest::Method::PUT, "/v1/collections/more", json!({}))
        .await
        .expect_err("changes are refused");
    assert!(format!("{refused:#}").contains("503"), "{refused:#}");
    assert!(
        cluster
            .data_dir("leaf-1")
            .join("shards")
            .read_dir()
            .expect("the folder of its shards")
            .count()
            >= 1,
        "nothing is deleted"
    );
}

/// Waits until changes are committed again, which creates the collection `name`.
async fn eventually_writable(cluster: &Cluster, name: &str) {
    eventually("changes are committed again", || async {
        cluster
            .json(reqwest::Method::PUT, &format!("/v1/collections/{name}"), json!({}))
            .await
            .map(drop)
    })
    .await;
    assert_eq!(
        *cluster.sql("select count(*) from events").await.single_value(),
        json!(1)
    );
}

#[tokio::test]
async fn a_deleted_log_is_reported_and_restored_from_a_copy() {
    let mut cluster = start().await;
    cluster.kafka.delete_topic(TOPIC).await;
    assert_read_only(&cluster, "missing").await;
    // Nodes restart without the log.
    for name in ["aggregator-1", "leaf-1"] {
        cluster.kill(name);
        cluster.restart(name).await;
    }
    assert_eq!(
        *cluster.sql("select count(*) from events").await.single_value(),
        json!(1)
    );
    let copy = cluster.data_dir("leaf-1").join("catalog.json");
    cluster
        .command(&["cluster", "restore-changes", "--from", &copy.display().to_string()])
        .expect("the log is restored");
    eventually_writable(&cluster, "afterwards").await;
    let again = cluster.command(&["cluster", "init"]).expect_err("a log exists");
    assert!(format!("{again:#}").contains("already exists"), "{again:#}");
}

#[tokio::test]
async fn nodes_find_a_tailer_that_has_moved_in_a_log_that_was_restored() {
    let mut cluster = start().await;
    let names = ["tailer-1", "leaf-1", "aggregator-1"].map(str::to_owned);
    names.iter().for_each(|name| cluster.kill(name));
    cluster.kafka.delete_topic(TOPIC).await;
    let copy = cluster.data_dir("leaf-1").join("catalog.json");
    cluster
        .command(&["cluster", "restore-changes", "--from", &copy.display().to_string()])
        .expect("the log is restored");
    // Leaf and aggregator know the tailer only where it was, and the log only as it was.
    cluster.change_address("tailer-1");
    cluster.restart_all(&names).await;
    eventually_writable(&cluster, "afterwards").await;
}

#[tokio::test]
async fn a_recreated_empty_log_is_never_accepted() {
    let mut cluster = start().await;
    cluster.kafka.delete_topic(TOPIC).await;
    assert_read_only(&cluster, "missing").await;
    let refused = cluster
        .command(&["cluster", "init"])
        .expect_err("the broker has topics of the cluster");
    assert!(
        format!("{refused:#}").contains("restore-changes --from FILE"),
        "{refused:#}"
    );
    // A topic that the broker or a person has created again has no record.
    cluster.kafka.create_topic(TOPIC, 1, &[]).await;
    let refused = cluster
        .command(&["cluster", "init"])
        .expect_err("the log is lost all the same");
    assert!(format!("{refused:#}").contains("--beside"), "{refused:#}");
    cluster.kafka.delete_topic(TOPIC).await;
    let names: Vec<String> = cluster.nodes().map(|node| node.name.clone()).collect();
    names.iter().for_each(|name| cluster.kill(name));
    cluster
        .command(&["cluster", "init", "--beside"])
        .expect("a cluster beside that one");
    cluster.restart_without_waiting("tailer-1");
    cluster.restart("leaf-1").await;
    cluster.restart("aggregator-1").await;
    assert_read_only(&cluster, "recreated").await;
}

#[tokio::test]
async fn a_log_with_wrong_settings_is_refused_until_they_are_fixed() {
    let cluster = start().await;
    cluster
        .kafka
        .set_topic_config(TOPIC, &[("cleanup.policy", "compact")])
        .await;
    assert_read_only(&cluster, "cleanup.policy=compact").await;
    cluster
        .kafka
        .set_topic_config(TOPIC, &[("cleanup.policy", "delete"), ("retention.ms", "1000000")])
        .await;
    assert_read_only(&cluster, "retention.ms=1000000").await;
    let right = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    cluster.kafka.set_topic_config(TOPIC, &right).await;
    eventually_writable(&cluster, "afterwards").await;
}

#[tokio::test]
async fn an_unknown_record_stops_changes_and_nothing_else() {
    let mut cluster = start().await;
    cluster
        .kafka
        .produce(
            TOPIC,
            vec![NewRecord::value(json!({"level": 99, "future": true}).to_string())],
        )
        .await;
    assert_read_only(&cluster, "upgrade the node").await;
    cluster.kill("tailer-1");
    // It restarts and serves, but it is not ready: it cannot commit changes.
    cluster.restart_without_waiting("tailer-1");
    assert_read_only(&cluster, "upgrade the node").await;
}

#[tokio::test]
async fn nodes_restart_and_answer_while_kafka_is_down() {
    let mut cluster = start().await;
    cluster.kafka.kill();
    for name in ["tailer-1", "leaf-1", "aggregator-1"] {
        cluster.kill(name);
    }
    cluster.restart_without_waiting("tailer-1");
    cluster.restart("leaf-1").await;
    cluster.restart("aggregator-1").await;
    assert_read_only(&cluster, "Kafka").await;
    cluster.kafka.restart().await;
    eventually_writable(&cluster, "afterwards").await;
    let pushed = cluster.push("events", "{\"n\":2}").await.expect("pushes are accepted");
    assert_eq!(pushed["accepted"], 1);
}
