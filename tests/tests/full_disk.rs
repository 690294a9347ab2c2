//! A full disk stops what comes in and nothing else: what was acknowledged is there, questions go on, and with room it
//! goes on by itself.

use std::{cell::Cell, fs, process::Command};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Server, Settings, cluster::Size, eventually, kafka::Produce, small_disk::SmallDisk};

const DISK_BYTES: u64 = 192 << 20;
const DOCUMENTS: usize = 2_000;

fn body(push: usize) -> String {
    (0..DOCUMENTS)
        .map(|n| format!("{{\"push\":{push},\"n\":{n},\"text\":\"all is well\"}}\n"))
        .collect()
}

async fn push(server: &Server, number: usize) -> (u16, Value) {
    let request = server
        .request(Method::POST, "/v1/collections/events/documents")
        .header("idempotency-key", format!("push {number}"));
    let answer = request.body(body(number)).send().await.expect("the process lives");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_full_disk_stops_what_comes_in_and_with_room_it_goes_on_by_itself() {
    let disk = SmallDisk::mount(DISK_BYTES).expect("a small disk");
    let server = Server::start(Settings {
        place: Some(disk.path().to_owned()),
        ..Settings::default().small_splits()
    })
    .await;
    assert_eq!(push(&server, 0).await.0, 200);

    disk.fill().expect("it is filled");
    // What is sent before the leaf notices may still be taken, or fail; then it is refused and told why.
    let taken = Cell::new(1);
    eventually("pushes are refused", async || {
        let (status, said) = push(&server, 1).await;
        taken.set(taken.get().max(1 + usize::from(status == 200)));
        anyhow::ensure!(
            status == 429 && said["detail"].as_str().is_some_and(|detail| detail.contains("% full")),
            "{status} {said}"
        );
        assert!(said["hint"].is_string(), "{said}");
        Ok(())
    })
    .await;
    for _ in 0..20 {
        let answer = server.sql("select count(*), count(distinct push) from events").await;
        assert_eq!(
            answer.rows,
            [[json!(taken.get() * DOCUMENTS), json!(taken.get())]],
            "questions go on"
        );
    }
    assert!(
        !server
            .sql("select * from events where search('well') limit 5")
            .await
            .rows
            .is_empty()
    );

    disk.empty().expect("there is room");
    eventually("pushes are taken", async || {
        let (status, said) = push(&server, 1).await;
        anyhow::ensure!(status == 200, "{status} {said}");
        Ok(())
    })
    .await;
    assert_eq!(push(&server, 2).await.0, 200);
    assert_eq!(
        server
            .sql("select count(*), count(distinct push) from events")
            .await
            .rows,
        [[json!(3 * DOCUMENTS), json!(3)]]
    );
}

/// Moves the shards of a server that does not run to another disk.
fn move_shards(server: &Server, disk: &SmallDisk) {
    let (here, there) = (server.data().join("shards"), disk.path().join("shards"));
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&here)
        .arg(&there)
        .status()
        .expect("cp runs");
    assert!(copied.success());
    fs::remove_dir_all(&here).expect("the shards were copied");
    std::os::unix::fs::symlink(&there, &here).expect("a link");
}

#[tokio::test]
async fn a_disk_without_a_byte_left_answers_what_it_has_also_after_a_restart_and_goes_on_with_room() {
    let disk = SmallDisk::mount(DISK_BYTES).expect("a small disk");
    let settings = Settings::default()
        .small_splits()
        .with("RACHIS_LEAF__DISK_USED_PERCENT_MAX", 100);
    let mut server = Server::start(settings).await;
    assert_eq!(push(&server, 0).await.0, 200);
    server.stop();
    move_shards(&server, &disk);
    server.start_again().await;
    assert_eq!(push(&server, 1).await.0, 200);

    disk.fill().expect("it is filled");
    let next = Cell::new(2);
    let refused = async || {
        let (status, said) = push(&server, next.get()).await;
        next.set(next.get() + usize::from(status == 200));
        anyhow::ensure!(
            status == 429
                && said["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains("100 % full")),
            "{status} {said}"
        );
        assert!(said["hint"].is_string(), "{said}");
        Ok(())
    };
    eventually("pushes are refused", refused).await;
    // The outcome of a push whose write failed is unknown, so the test sends it again below with the same key.
    let stored = server
        .sql("select count(distinct push) from events")
        .await
        .one()
        .as_u64()
        .expect("a number") as usize;
    assert!(
        stored == next.get() || stored == next.get() + 1,
        "{stored} of {}",
        next.get()
    );
    let all = [[json!(stored * DOCUMENTS), json!(stored)]];
    for _ in 0..20 {
        assert_eq!(
            server
                .sql("select count(*), count(distinct push) from events")
                .await
                .rows,
            all,
            "questions go on"
        );
    }
    assert!(
        !server
            .sql("select * from events where search('well') limit 5")
            .await
            .rows
            .is_empty()
    );

    server.kill();
    // Not even the ballast is left.
    fs::remove_file(disk.path().join("shards/ballast")).expect("the ballast");
    disk.fill().expect("it is filled");
    server.start_again().await;
    for _ in 0..20 {
        assert_eq!(
            server
                .sql("select count(*), count(distinct push) from events")
                .await
                .rows,
            all,
            "after a restart, too"
        );
    }
    assert!(
        !server
            .sql("select * from events where search('well') limit 5")
            .await
            .rows
            .is_empty()
    );
    assert_eq!(push(&server, next.get()).await.0, 429);
    eventually("the metrics say so", async || {
        let metrics = server.request(Method::GET, "/metrics").send().await?.text().await?;
        anyhow::ensure!(metrics.contains("rachis_leaf_read_only_shards 1"), "{metrics}");
        Ok(())
    })
    .await;

    disk.empty().expect("there is room");
    let last = next.get();
    eventually("pushes are taken", async || {
        let (status, said) = push(&server, last).await;
        anyhow::ensure!(status == 200, "{status} {said}");
        Ok(())
    })
    .await;
    let all = [[json!((last + 1) * DOCUMENTS), json!(last + 1)]];
    assert_eq!(
        server
            .sql("select count(*), count(distinct push) from events")
            .await
            .rows,
        all,
        "nothing is lost, and nothing is there twice"
    );
}

#[tokio::test]
async fn a_leaf_with_a_full_disk_holds_back_its_partitions_says_so_and_goes_on_with_room() {
    let disk = SmallDisk::mount(DISK_BYTES).expect("a small disk");
    let size = Size {
        leaves: 1,
        tailers: 1,
        aggregators: 1,
    };
    let cluster = Cluster::start_with_place(
        size,
        Settings::default().small_splits(),
        "leaf-1",
        disk.path().join("leaf-1"),
    )
    .await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    cluster
        .source("clicks", "clicks", "clicks", &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    let records = |from: usize| {
        (from..from + DOCUMENTS)
            .map(|n| Produce::value(format!("{{\"n\":{n},\"text\":\"all is well\"}}")))
            .collect()
    };
    cluster.kafka.produce("clicks", records(0)).await;
    cluster
        .eventually("select count(*) from clicks", json!(DOCUMENTS))
        .await;

    disk.fill().expect("it is filled");
    eventually("the sources wait, and say why", async || {
        cluster.kafka.produce("clicks", records(DOCUMENTS)).await;
        let rows = cluster
            .ask(
                "select state, error from rachis.sources where source = 'clicks'",
                json!({}),
            )
            .await?
            .rows;
        let waits = |row: &Vec<Value>| row[0] == "waiting" && row[1].as_str().is_some_and(|why| why.contains("% full"));
        anyhow::ensure!(rows.iter().any(waits), "{rows:?}");
        Ok(())
    })
    .await;
    for _ in 0..20 {
        let there = cluster
            .sql("select count(*), count(distinct n) from clicks where search('well')")
            .await;
        assert!(
            there.rows[0][0].as_u64() >= Some(DOCUMENTS as u64),
            "questions go on: {there:?}"
        );
    }
    disk.empty().expect("there is room");
    eventually("all that was produced is there", async || {
        let rows = cluster
            .ask(
                "select sum(lag)::bigint, count(*) from rachis.sources where source = 'clicks' and state = 'caught_up'",
                json!({}),
            )
            .await?
            .rows;
        anyhow::ensure!(rows == [[json!(0), json!(2)]], "{rows:?}");
        Ok(())
    })
    .await;
    let there = cluster.sql("select count(distinct n), count(*) from clicks").await;
    assert_eq!(there.rows[0][0], json!(2 * DOCUMENTS), "nothing is lost");
    let taken = cluster
        .sql("select sum(events)::bigint, sum(position + 1)::bigint from rachis.sources where source = 'clicks'")
        .await;
    assert_eq!(taken.rows[0][0], taken.rows[0][1], "and nothing was taken twice");
    assert_eq!(there.rows[0][1], taken.rows[0][0]);
}
