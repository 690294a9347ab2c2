//! Shards move between leaves while events arrive and questions are asked: to a leaf that joins, from one that leaves, to
//! one that lost its disk, and from one that is away for long.

use std::{
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Settings, cluster::ClusterSize, eventually, kafka::NewRecord, server};

const TWO_LEAVES: ClusterSize = ClusterSize {
    leaves: 2,
    tailers: 1,
    aggregators: 1,
};

/// Runs a command of the binary that asks an aggregator, and returns what it says.
fn command(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(server::binary())
        .args(arguments)
        .args(["--url", cluster.client_of("aggregator-1").url()])
        .output();
    said(output.expect("the program exits"))
}

/// What a process said, as an error if it failed.
fn said(output: Output) -> Result<String, String> {
    let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if output.status.success() {
        Ok(texts.concat())
    } else {
        Err(texts.concat())
    }
}

/// Starts what Kubernetes runs before the pod of a leaf stops.
fn before_a_pod_stops(cluster: &Cluster, leaf: &str) -> Child {
    let manifest = std::fs::read_to_string("../deploy/kustomize/base/leaf.yaml").expect("the manifest");
    let hook = manifest.lines().find_map(|line| line.trim().strip_prefix("- timeout "));
    let url = cluster.client_of("aggregator-1").url().to_owned();
    let binaries = server::binary().parent().expect("a folder").display().to_string();
    Command::new("bash")
        .args(["-c", &format!("timeout {}", hook.expect("the hook"))])
        .env(
            "PATH",
            format!("{binaries}:{}", std::env::var("PATH").unwrap_or_default()),
        )
        .env("POD_NAME", leaf)
        .env("RACHIS_URL", url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash")
}

async fn create(cluster: &Cluster, shards: u32, replicas: u32) {
    let settings = json!({ "shards": shards, "replicas": replicas });
    let created = cluster.json(Method::PUT, "/v1/collections/events", settings).await;
    created.expect("a collection");
}

/// How many replicas each leaf has that serve, by name.
async fn serving(cluster: &Cluster) -> anyhow::Result<Vec<(String, i64)>> {
    let sql = "select leaf, count(*) from rachis.replicas where state = 'serving' group by 1 order by 1";
    let rows = cluster.query(sql, json!({})).await?.rows;
    let row = |row: Vec<Value>| {
        (
            row[0].as_str().unwrap_or_default().to_owned(),
            row[1].as_i64().unwrap_or(0),
        )
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The documents that were pushed so far. Each push is asked for at once.
struct Pushes(u32);

impl Pushes {
    async fn push(&mut self, cluster: &Cluster) {
        let lines: String = (self.0..self.0 + 20)
            .map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(200)))
            .collect();
        cluster.push("events", lines).await.expect("a push");
        self.0 += 20;
        self.check(cluster).await;
    }

    async fn check(&self, cluster: &Cluster) {
        let sum = i64::from(self.0) * i64::from(self.0 - 1) / 2;
        let answer = cluster.sql("select count(*), sum(n) from events").await;
        assert_eq!(answer.rows[0], [json!(self.0), json!(sum)]);
    }

    /// Pushes and asks until the cluster is as expected. No push and no question fails.
    async fn until(&mut self, cluster: &Cluster, what: &str, is_so: impl AsyncFn() -> anyhow::Result<bool>) {
        let began = Instant::now();
        loop {
            self.push(cluster).await;
            let is_now = is_so().await;
            if is_now.as_ref().is_ok_and(|is_so| *is_so) {
                return;
            }
            assert!(
                began.elapsed() < tests::WAIT_MAX,
                "{what}: {is_now:?}, {:?}",
                serving(cluster).await
            );
        }
    }

    /// Until these leaves have a replica of each of six shards, and no other one has any.
    async fn until_all_are_on(&mut self, cluster: &Cluster, leaves: [&str; 2]) {
        let expected: Vec<_> = leaves.map(|leaf| (leaf.to_owned(), 6)).into();
        let have_all = async || Ok(serving(cluster).await? == expected);
        self.until(cluster, "all replicas have been placed anew", have_all)
            .await;
    }

    async fn until_moved(&mut self, cluster: &Cluster) {
        let is_over = async || {
            Ok(cluster
                .query("select * from rachis.moves", json!({}))
                .await?
                .rows
                .is_empty())
        };
        self.until(cluster, "all moves have ended", is_over).await;
    }
}

#[tokio::test]
async fn a_leaf_that_joins_takes_its_share_and_a_drained_one_gives_everything_away() {
    let settings = Settings::default().with("RACHIS_LEAF__MOVED_KEPT_MS", 1);
    let mut cluster = Cluster::start(TWO_LEAVES, settings).await;
    create(&cluster, 6, 2).await;
    let mut pushes = Pushes(0);
    for _ in 0..20 {
        pushes.push(&cluster).await;
    }
    assert!(
        command(&cluster, &["rebalance"])
            .expect("a plan")
            .contains("nothing to move")
    );
    cluster.add("leaf", "leaf-3", &[]).await;
    let planned = command(&cluster, &["rebalance", "--dry-run"]).expect("a plan");
    assert!(
        planned.contains("leaf-3") && planned.contains("to be moved"),
        "{planned}"
    );
    pushes.push(&cluster).await;
    let all_on_two: Vec<_> = [("leaf-1".to_owned(), 6), ("leaf-2".to_owned(), 6)].into();
    assert_eq!(
        serving(&cluster).await.expect("replicas"),
        all_on_two,
        "a dry run moves nothing"
    );
    let started = command(&cluster, &["rebalance"]).expect("moves");
    assert!(started.contains("4 replicas on their way"), "{started}");
    pushes.until_moved(&cluster).await;
    let even: Vec<_> = ["leaf-1", "leaf-2", "leaf-3"].map(|leaf| (leaf.to_owned(), 4)).into();
    assert_eq!(serving(&cluster).await.expect("replicas"), even);
    cluster.wait_until_replicas_are_equal(2).await;

    let refused = command(&cluster, &["cluster", "drain", "tailer-1"]).expect_err("it holds no shards");
    assert!(refused.contains("tailer-1 is not a leaf"), "{refused}");
    let stopped = before_a_pod_stops(&cluster, "leaf-1").wait_with_output();
    let restarted = said(stopped.expect("the hook ends")).expect("a pod that is restarted");
    assert!(restarted.contains("leaf-1 is not being drained"), "{restarted}");
    let started = command(&cluster, &["cluster", "drain", "leaf-1"]).expect("moves");
    assert!(started.contains("4 replicas on their way"), "{started}");
    let stopping = before_a_pod_stops(&cluster, "leaf-1");
    pushes.until_moved(&cluster).await;
    let drained = said(stopping.wait_with_output().expect("the hook ends")).expect("it is drained");
    assert!(drained.contains("leaf-1 has no shards left"), "{drained}");
    let drained = command(&cluster, &["cluster", "drain", "leaf-1", "--wait"]).expect("it is drained");
    assert!(drained.contains("leaf-1 has no shards left"), "{drained}");
    let of_others: Vec<_> = ["leaf-2", "leaf-3"].map(|leaf| (leaf.to_owned(), 6)).into();
    assert_eq!(serving(&cluster).await.expect("replicas"), of_others);
    eventually("the disk of leaf-1 has no shard left", || async {
        let folders = std::fs::read_dir(cluster.data_dir("leaf-1").join("shards"))?;
        let shards = folders.flat_map(|folder| std::fs::read_dir(folder?.path())).flatten();
        ensure!(shards.count() == 0);
        Ok(())
    })
    .await;
    // Nothing was placed on it meanwhile, and it can go.
    let created = cluster
        .json(Method::PUT, "/v1/collections/later", json!({ "shards": 6 }))
        .await;
    created.expect("a collection");
    cluster.stop("leaf-1");
    let removed = command(&cluster, &["cluster", "remove", "leaf-1"]).expect("it holds nothing");
    assert!(removed.contains("removed leaf-1"), "{removed}");
    pushes.push(&cluster).await;
    cluster.wait_until_replicas_are_equal(2).await;
}

#[tokio::test]
async fn the_only_replica_of_a_shard_moves_and_a_copy_survives_kills_on_both_sides() {
    let settings = Settings::default().with("RACHIS_LEAF__COPY_BYTES_PER_SECOND", 40_000);
    let mut cluster = Cluster::start(TWO_LEAVES, settings.small_splits()).await;
    create(&cluster, 1, 1).await;
    let mut pushes = Pushes(0);
    for _ in 0..30 {
        pushes.push(&cluster).await;
    }
    let holder = serving(&cluster).await.expect("replicas").remove(0).0;
    let other = if holder == "leaf-1" { "leaf-2" } else { "leaf-1" };
    // So that there is something to copy for some seconds.
    let text: String = (0..3_000)
        .map(|n| {
            format!(
                "{{\"noise\":\"{:x}\"}}\n",
                u128::from(n * 7919u64).pow(3) * 0x9E37_79B9_7F4A_7C15
            )
        })
        .collect();
    cluster
        .json(
            Method::PUT,
            "/v1/collections/noise",
            json!({ "shards": 1, "replicas": 1 }),
        )
        .await
        .expect("a collection");
    cluster.push("noise", text).await.expect("a push");
    command(&cluster, &["cluster", "drain", &holder]).expect("moves");
    let status = command(&cluster, &["cluster", "status", "-o", "json"]).expect("the status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    let draining: Vec<&Value> = nodes
        .filter(|node| node["draining"] == true)
        .map(|node| &node["name"])
        .collect();
    assert_eq!(draining, [holder.as_str()], "{status}");
    assert!(status["moving"].as_u64() >= Some(1), "{status}");
    let is_copying = async || {
        let sql = "select count(*) from rachis.moves \
                   where state = 'copying' and bytes > 0 and bytes <= bytes_total and seconds_left >= 0";
        Ok(cluster.query(sql, json!({})).await?.rows[0][0] != json!(0))
    };
    pushes.until(&cluster, "it is being copied", is_copying).await;
    let status = command(&cluster, &["status", "-o", "json"]).expect("the status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let waiting = status["replicas_that_do_not_serve"].as_array().expect("replicas");
    assert!(waiting.iter().any(|replica| replica["leaf"] == *other), "{status}");
    let bytes_total = &status["moves"][0]["bytes_total"];
    assert!(bytes_total.as_u64() > Some(0), "{status}");
    let ready = cluster.client_of(other).get("/readyz").await;
    ready.expect("a leaf is ready while a replica is copied to it");
    for killed in [other, holder.as_str()] {
        cluster.kill(killed);
        cluster.restart(killed).await;
        eventually("the holder answers again", || async {
            ensure!(cluster.query("select count(*) from events", json!({})).await.is_ok());
            Ok(())
        })
        .await;
        pushes.check(&cluster).await;
    }
    pushes.until_moved(&cluster).await;
    let moved = serving(&cluster).await.expect("replicas");
    assert_eq!(moved, [(other.to_owned(), 2)]);
    let undone = command(&cluster, &["cluster", "drain", &holder, "--undo"]).expect("it is undone");
    assert!(undone.contains(&format!("{holder} takes shards again")), "{undone}");
    let planned = command(&cluster, &["rebalance", "--dry-run"]).expect("a plan");
    assert!(
        planned.contains(&holder) && planned.contains("to be moved"),
        "{planned}"
    );
    cluster.kill(&holder);
    pushes.push(&cluster).await;
}

#[tokio::test]
async fn the_number_of_replicas_can_be_changed() {
    let mut cluster = Cluster::start(TWO_LEAVES, Settings::default()).await;
    create(&cluster, 2, 1).await;
    let mut pushes = Pushes(0);
    for _ in 0..5 {
        pushes.push(&cluster).await;
    }
    for (replicas, serve) in [(2, 4), (1, 2), (2, 4)] {
        create(&cluster, 2, replicas).await;
        command(&cluster, &["rebalance"]).expect("moves");
        pushes.until_moved(&cluster).await;
        let serving = serving(&cluster).await.expect("replicas");
        assert_eq!(
            serving.iter().map(|(_, count)| count).sum::<i64>(),
            serve,
            "{serving:?}"
        );
    }
    cluster.wait_until_replicas_are_equal(2).await;
    cluster.kill("leaf-1");
    pushes.push(&cluster).await;
    cluster.restart("leaf-1").await;
    // More than there are leaves.
    create(&cluster, 2, 3).await;
    let refused = command(&cluster, &["rebalance"]).expect_err("there are two leaves");
    assert!(refused.contains("there is no leaf for 2 replicas"), "{refused}");
}

#[tokio::test]
async fn a_leaf_that_lost_its_disk_copies_what_kafka_no_longer_has() {
    let mut cluster = Cluster::start(TWO_LEAVES, Settings::default()).await;
    create(&cluster, 2, 2).await;
    cluster.kafka.create_topic("clicks", 1, &[]).await;
    let clicks = |numbers: std::ops::Range<u32>| {
        let record = |n| NewRecord::value(format!("{{\"click\":{n}}}"));
        numbers.map(record).collect::<Vec<_>>()
    };
    cluster.kafka.produce("clicks", clicks(0..400)).await;
    let bootstrap = cluster.kafka.bootstrap();
    let source = cluster
        .source("clicks", "events", "clicks", &bootstrap, json!({}))
        .await;
    source.expect("a source");
    cluster.eventually("select count(click) from events", json!(400)).await;
    cluster.wait_until_replicas_are_equal(2).await;
    cluster.kafka.delete_records_before("clicks", 0, 150).await;
    cluster.kill("leaf-2");
    std::fs::remove_dir_all(cluster.data_dir("leaf-2")).expect("its disk is lost");
    cluster.restart("leaf-2").await;
    cluster.kafka.produce("clicks", clicks(400..500)).await;
    cluster.eventually("select count(click) from events", json!(500)).await;
    eventually("all replicas serve", || async {
        let serving = serving(&cluster).await?;
        ensure!(serving.iter().map(|(_, count)| count).sum::<i64>() == 4, "{serving:?}");
        Ok(())
    })
    .await;
    cluster.wait_until_replicas_are_equal(2).await;
    cluster.kill("leaf-1");
    cluster.eventually("select count(click) from events", json!(500)).await;
}

/// The controller, its epoch, and whether replacements are held.
async fn controller(cluster: &Cluster, asked: &str) -> anyhow::Result<(String, i64, bool)> {
    let sql = json!({ "sql": "select node, epoch, held from rachis.controller" });
    let answer = cluster.client_of(asked).json(Method::POST, "/v1/sql", sql).await?;
    let row = &answer["rows"][0];
    ensure!(row["node"].is_string(), "no aggregator is the controller: {row}");
    let node = row["node"].as_str().unwrap_or_default().to_owned();
    Ok((node, row["epoch"].as_i64().unwrap_or(0), row["held"] == true))
}

#[tokio::test]
async fn a_leaf_that_is_away_for_long_is_replaced_unless_replacements_are_held() {
    const REPLACED_AFTER: Duration = Duration::from_millis(1_500);
    let size = ClusterSize {
        leaves: 3,
        tailers: 1,
        aggregators: 2,
    };
    let settings = Settings::default().with("RACHIS_AGGREGATOR__REPLACE_AFTER_MS", REPLACED_AFTER.as_millis());
    let mut cluster = Cluster::start(size, settings).await;
    create(&cluster, 6, 2).await;
    let mut pushes = Pushes(0);
    pushes.push(&cluster).await;
    eventually("an aggregator is the controller", async || {
        controller(&cluster, "aggregator-1").await
    })
    .await;

    let said = command(&cluster, &["cluster", "hold"]).expect("they are held");
    assert!(said.contains("not replaced until"), "{said}");
    cluster.kill("leaf-3");
    let killed = Instant::now();
    while killed.elapsed() < 4 * REPLACED_AFTER {
        pushes.push(&cluster).await;
    }
    let moves = cluster.sql("select * from rachis.moves").await;
    assert!(moves.rows.is_empty(), "replacements are held: {:?}", moves.rows);
    command(&cluster, &["cluster", "hold", "--release"]).expect("they are not held");
    pushes.until_all_are_on(&cluster, ["leaf-1", "leaf-2"]).await;
    cluster.wait_until_replicas_are_equal(2).await;
    cluster.restart("leaf-3").await;
    command(&cluster, &["rebalance"]).expect("moves");
    pushes.until_moved(&cluster).await;

    // The next one to replace a leaf is another aggregator, if the controller dies.
    let (node, epoch, held) = controller(&cluster, "aggregator-1").await.expect("a controller");
    assert!(!held);
    let (dead, other) = match node.as_str() {
        "aggregator-1" => ("aggregator-1", "aggregator-2"),
        _ => ("aggregator-2", "aggregator-1"),
    };
    cluster.kill(dead);
    cluster.kill("leaf-1");
    eventually("the other aggregator is the controller", async || {
        let (node, next, _) = controller(&cluster, other).await?;
        ensure!(node == other && next > epoch, "{node} in epoch {next}");
        Ok(())
    })
    .await;
    cluster.restart(dead).await;
    pushes.until_all_are_on(&cluster, ["leaf-2", "leaf-3"]).await;
    cluster.wait_until_replicas_are_equal(2).await;
}
