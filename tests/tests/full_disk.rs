//! A full disk stops ingest and nothing else: acknowledged documents stay, queries are answered, and ingest resumes by
//! itself once there is space.

use std::{cell::Cell, fs, process::Command};

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Server, Settings, cluster::ClusterSize, eventually, kafka::NewRecord, small_disk::SmallDisk};

const DISK_BYTES: u64 = 192 << 20;
const DOCUMENTS: usize = 2_000;

/// Queries asked in a row where each must be answered.
const QUERIES: usize = 20;

fn body(push: usize) -> String {
    (0..DOCUMENTS)
        .map(|n| format!("{{\"push\":{push},\"n\":{n},\"text\":\"all is well\"}}\n"))
        .collect()
}

async fn push(server: &Server, number: usize) -> (u16, Value) {
    let request = server
        .request(Method::POST, "/v1/collections/events/documents")
        .header("idempotency-key", format!("push {number}"));
    let answer = request.body(body(number)).send().await.expect("the server responds");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Retries a push, under the same key, until it is accepted.
async fn eventually_accepted(server: &Server, number: usize) {
    eventually("pushes are accepted", || async {
        let (status, response) = push(server, number).await;
        ensure!(status == 200, "{status} {response}");
        Ok(())
    })
    .await;
}

/// Checks that a push was refused because the disk is full, with a detail that contains `detail` and a hint.
fn ensure_refused(status: u16, response: &Value, detail: &str) -> Result<()> {
    ensure!(
        status == 429 && response["detail"].as_str().is_some_and(|text| text.contains(detail)),
        "{status} {response}"
    );
    assert!(response["hint"].is_string(), "{response}");
    Ok(())
}

/// Asserts that exactly these pushes are stored, each once and whole.
async fn assert_pushes(server: &Server, pushes: usize, message: &str) {
    let counts = server.sql("select count(*), count(distinct push) from events").await;
    assert_eq!(counts.rows, [[json!(pushes * DOCUMENTS), json!(pushes)]], "{message}");
}

/// Asserts that queries, by columns and by the index, see exactly this number of pushes.
async fn assert_queries_see(server: &Server, pushes: usize, message: &str) {
    for _ in 0..QUERIES {
        assert_pushes(server, pushes, message).await;
    }
    assert!(
        !server
            .sql("select * from events where search('well') limit 5")
            .await
            .rows
            .is_empty()
    );
}

#[tokio::test]
async fn a_full_disk_stops_ingest_which_resumes_once_there_is_space() {
    let disk = SmallDisk::mount(DISK_BYTES).expect("a small disk");
    let server = Server::start(Settings {
        parent_dir: Some(disk.path().to_owned()),
        ..Settings::default().small_splits()
    })
    .await;
    assert_eq!(push(&server, 0).await.0, 200);

    disk.fill().expect("the disk is filled");
    // Until the leaf notices the full disk, a push may be accepted or fail; after that it is refused with a reason.
    let accepted = Cell::new(1);
    eventually("pushes are refused", async || {
        let (status, response) = push(&server, 1).await;
        accepted.set(accepted.get().max(1 + usize::from(status == 200)));
        ensure_refused(status, &response, "% full")
    })
    .await;
    assert_queries_see(&server, accepted.get(), "queries are answered").await;

    disk.empty().expect("space is freed");
    eventually_accepted(&server, 1).await;
    assert_eq!(push(&server, 2).await.0, 200);
    assert_pushes(&server, 3, "every push is stored once").await;
}

/// Moves the shards of a stopped server to another disk.
fn move_shards(server: &Server, disk: &SmallDisk) {
    let (from, to) = (server.data_dir().join("shards"), disk.path().join("shards"));
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&from)
        .arg(&to)
        .status()
        .expect("cp runs");
    assert!(copied.success());
    fs::remove_dir_all(&from).expect("the shards were copied");
    std::os::unix::fs::symlink(&to, &from).expect("a link");
}

/// Starts a server whose shards, and only they, are on this disk, which it may fill to the last byte. Pushes 0 and 1
/// are stored.
async fn start_with_shards_on(disk: &SmallDisk) -> Server {
    let settings = Settings::default()
        .small_splits()
        .with("RACHIS_LEAF__DISK_USED_PERCENT_MAX", 100);
    let mut server = Server::start(settings).await;
    assert_eq!(push(&server, 0).await.0, 200);
    server.stop();
    move_shards(&server, disk);
    server.restart().await;
    assert_eq!(push(&server, 1).await.0, 200);
    server
}

/// Pushes one number after the other, beginning with 2, until a push is refused. Returns the number that was refused.
async fn push_until_refused(server: &Server) -> usize {
    let next = Cell::new(2);
    eventually("pushes are refused", async || {
        let (status, response) = push(server, next.get()).await;
        next.set(next.get() + usize::from(status == 200));
        ensure_refused(status, &response, "100 % full")
    })
    .await;
    next.get()
}

#[tokio::test]
async fn a_disk_full_to_the_last_byte_answers_queries_also_after_a_restart_and_recovers_with_space() {
    let disk = SmallDisk::mount(DISK_BYTES).expect("a small disk");
    let mut server = start_with_shards_on(&disk).await;

    disk.fill().expect("the disk is filled");
    let next = push_until_refused(&server).await;
    // The outcome of a push whose write failed is unknown, so the test sends it again below with the same key.
    let stored = server
        .sql("select count(distinct push) from events")
        .await
        .single_value()
        .as_u64()
        .expect("a number") as usize;
    assert!(stored == next || stored == next + 1, "{stored} of {next}");
    assert_queries_see(&server, stored, "queries are answered").await;

    server.kill();
    // Removed so that the leaf restarts without even its ballast.
    fs::remove_file(disk.path().join("shards/ballast")).expect("the ballast");
    disk.fill().expect("the disk is filled");
    server.restart().await;
    assert_queries_see(&server, stored, "after a restart, too").await;
    assert_eq!(push(&server, next).await.0, 429);
    eventually("the metrics show the read-only shard", async || {
        let metrics = server.request(Method::GET, "/metrics").send().await?.text().await?;
        ensure!(metrics.contains("rachis_leaf_read_only_shards 1"), "{metrics}");
        Ok(())
    })
    .await;

    disk.empty().expect("space is freed");
    eventually_accepted(&server, next).await;
    assert_pushes(&server, next + 1, "no loss and no duplicates").await;
}

/// Starts a cluster of one node of each role whose leaf keeps its data on this disk, with a source for topic `clicks`.
async fn start_cluster_on(disk: &SmallDisk) -> Cluster {
    let cluster = Cluster::start_with_data_dir(
        ClusterSize::ONE_OF_EACH,
        Settings::default().small_splits(),
        "leaf-1",
        disk.path().join("leaf-1"),
    )
    .await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    cluster.source_of_topic("clicks", &cluster.kafka).await;
    cluster
}

#[tokio::test]
async fn a_leaf_with_a_full_disk_pauses_its_partitions_with_a_reason_and_resumes_with_space() {
    let disk = SmallDisk::mount(DISK_BYTES).expect("a small disk");
    let cluster = start_cluster_on(&disk).await;
    let records = |from: usize| {
        (from..from + DOCUMENTS)
            .map(|n| NewRecord::value(format!("{{\"n\":{n},\"text\":\"all is well\"}}")))
            .collect()
    };
    cluster.kafka.produce("clicks", records(0)).await;
    cluster
        .eventually("select count(*) from clicks", json!(DOCUMENTS))
        .await;

    disk.fill().expect("the disk is filled");
    eventually("the sources wait and show why", async || {
        cluster.kafka.produce("clicks", records(DOCUMENTS)).await;
        let sql = "select state, error from rachis.sources where source = 'clicks'";
        let rows = cluster.query(sql, json!({})).await?.rows;
        let waits = |row: &Vec<Value>| row[0] == "waiting" && row[1].as_str().is_some_and(|why| why.contains("% full"));
        ensure!(rows.iter().any(waits), "{rows:?}");
        Ok(())
    })
    .await;
    for _ in 0..QUERIES {
        let counts = cluster
            .sql("select count(*), count(distinct n) from clicks where search('well')")
            .await;
        assert!(
            counts.rows[0][0].as_u64() >= Some(DOCUMENTS as u64),
            "queries are answered: {counts:?}"
        );
    }

    disk.empty().expect("space is freed");
    eventually("the sources have caught up", async || {
        let sql =
            "select sum(lag)::bigint, count(*) from rachis.sources where source = 'clicks' and state = 'caught_up'";
        let rows = cluster.query(sql, json!({})).await?.rows;
        ensure!(rows == [[json!(0), json!(2)]], "{rows:?}");
        Ok(())
    })
    .await;
    let stored = cluster.sql("select count(distinct n), count(*) from clicks").await;
    assert_eq!(stored.rows[0][0], json!(2 * DOCUMENTS), "nothing is lost");
    let ingested = cluster
        .sql("select sum(events)::bigint, sum(position + 1)::bigint from rachis.sources where source = 'clicks'")
        .await;
    assert_eq!(ingested.rows[0][0], ingested.rows[0][1], "no record was ingested twice");
    assert_eq!(stored.rows[0][1], ingested.rows[0][0]);
}
