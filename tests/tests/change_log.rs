//! Trouble with the change log: nodes serve what they have, decide nothing, delete nothing, say so, and go on by
//! themselves once it is well.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{Cluster, Settings, cluster::Size, eventually, kafka::Produce};

const TOPIC: &str = "rachis-changes";

fn small() -> Size {
    Size {
        leaves: 1,
        tailers: 1,
        aggregators: 1,
    }
}

async fn start() -> Cluster {
    let cluster = Cluster::start(small(), Settings::default()).await;
    cluster.push("events", "{\"n\":1}").await.expect("a push");
    cluster
}

fn nodes(cluster: &Cluster) -> Result<Vec<Value>> {
    let told: Value = serde_json::from_str(&cluster.command(&["cluster", "status", "-o", "json"])?)?;
    Ok(told["nodes"].as_array().context("no nodes")?.clone())
}

/// What is there is answered, nothing new is decided, and the tailer says why.
async fn serves_and_decides_nothing(cluster: &Cluster, why: &str) {
    eventually(&format!("the tailer says {why:?}"), || async {
        let nodes = nodes(cluster)?;
        let told = nodes
            .iter()
            .find(|node| node["role"] == "tailer")
            .context("no tailer")?["trouble"]
            .to_string();
        ensure!(told.contains(why), "{told}");
        Ok(())
    })
    .await;
    assert_eq!(*cluster.sql("select count(*) from events").await.one(), json!(1));
    let refused = cluster
        .json(reqwest::Method::PUT, "/v1/collections/more", json!({}))
        .await
        .expect_err("nothing is decided");
    assert!(format!("{refused:#}").contains("503"), "{refused:#}");
    assert!(
        cluster
            .data("leaf-1")
            .join("shards")
            .read_dir()
            .expect("its folder")
            .count()
            >= 1,
        "nothing is deleted"
    );
}

async fn decides_again(cluster: &Cluster, name: &str) {
    eventually("changes are agreed on again", || async {
        cluster
            .json(reqwest::Method::PUT, &format!("/v1/collections/{name}"), json!({}))
            .await
            .map(drop)
    })
    .await;
    assert_eq!(*cluster.sql("select count(*) from events").await.one(), json!(1));
}

#[tokio::test]
async fn a_log_that_is_deleted_is_missed_and_restored_from_a_copy() {
    let mut cluster = start().await;
    cluster.kafka.delete_topic(TOPIC).await;
    serves_and_decides_nothing(&cluster, "missing").await;
    // Nobody needs the log to start again.
    for name in ["aggregator-1", "leaf-1"] {
        cluster.kill(name);
        cluster.start_again(name).await;
    }
    assert_eq!(*cluster.sql("select count(*) from events").await.one(), json!(1));
    let copy = cluster.data("leaf-1").join("catalog.json");
    cluster
        .command(&["cluster", "restore-changes", "--from", &copy.display().to_string()])
        .expect("it is made anew");
    decides_again(&cluster, "afterwards").await;
    let again = cluster.command(&["cluster", "init"]).expect_err("there is one");
    assert!(format!("{again:#}").contains("exists already"), "{again:#}");
}

#[tokio::test]
async fn a_log_that_is_made_anew_empty_is_never_taken_for_ours() {
    let mut cluster = start().await;
    cluster.kafka.delete_topic(TOPIC).await;
    serves_and_decides_nothing(&cluster, "missing").await;
    let refused = cluster
        .command(&["cluster", "init"])
        .expect_err("its nodes know a cluster");
    assert!(
        format!("{refused:#}").contains("restore-changes --from FILE"),
        "{refused:#}"
    );
    let names: Vec<String> = cluster.nodes().map(|node| node.name.clone()).collect();
    names.iter().for_each(|name| cluster.kill(name));
    cluster
        .command(&["cluster", "init"])
        .expect("nobody is there to say so");
    cluster.start_unready("tailer-1");
    cluster.start_again("leaf-1").await;
    cluster.start_again("aggregator-1").await;
    serves_and_decides_nothing(&cluster, "made anew").await;
}

#[tokio::test]
async fn a_log_with_other_settings_is_refused_until_they_are_right() {
    let cluster = start().await;
    cluster
        .kafka
        .set_topic_config(TOPIC, &[("cleanup.policy", "compact")])
        .await;
    serves_and_decides_nothing(&cluster, "cleanup.policy=compact").await;
    cluster
        .kafka
        .set_topic_config(TOPIC, &[("cleanup.policy", "delete"), ("retention.ms", "1000000")])
        .await;
    serves_and_decides_nothing(&cluster, "retention.ms=1000000").await;
    let right = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    cluster.kafka.set_topic_config(TOPIC, &right).await;
    decides_again(&cluster, "afterwards").await;
}

#[tokio::test]
async fn a_record_that_nobody_understands_stops_decisions_and_nothing_else() {
    let mut cluster = start().await;
    cluster
        .kafka
        .produce(
            TOPIC,
            vec![Produce::value(json!({"level": 99, "future": true}).to_string())],
        )
        .await;
    serves_and_decides_nothing(&cluster, "update this node").await;
    cluster.kill("tailer-1");
    // It comes up and serves, and it is not ready to decide.
    cluster.start_unready("tailer-1");
    serves_and_decides_nothing(&cluster, "update this node").await;
}

#[tokio::test]
async fn nodes_start_and_answer_while_kafka_is_away() {
    let mut cluster = start().await;
    cluster.kafka.kill();
    for name in ["tailer-1", "leaf-1", "aggregator-1"] {
        cluster.kill(name);
    }
    cluster.start_unready("tailer-1");
    cluster.start_again("leaf-1").await;
    cluster.start_again("aggregator-1").await;
    serves_and_decides_nothing(&cluster, "Kafka").await;
    cluster.kafka.start_again().await;
    decides_again(&cluster, "afterwards").await;
    let pushed = cluster.push("events", "{\"n\":2}").await.expect("pushes go on");
    assert_eq!(pushed["accepted"], 1);
}
