//! A node can join, move or leave while the cluster runs. The other nodes need no restart and no new settings.

use std::process::Command;

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Settings, cluster::ClusterSize, eventually, server};

/// Role, state, zone and capacity of a node, as an aggregator sees it; none if it is no member.
async fn member(cluster: &Cluster, name: &str) -> anyhow::Result<Option<Vec<Value>>> {
    let sql = format!("select role, state, zone, capacity from rachis.nodes where name = '{name}'");
    Ok(cluster.query(&sql, json!({})).await?.rows.into_iter().next())
}

async fn until_member(cluster: &Cluster, name: &str, expected: Option<Value>) {
    eventually(&format!("{name} is {expected:?}"), || async {
        let found = member(cluster, name).await?.map(Value::from);
        ensure!(found == expected, "{name} is {found:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn nodes_join_by_their_name_and_serve_at_once() {
    let mut cluster = Cluster::start(ClusterSize::ONE_OF_EACH, Settings::default().one_replica()).await;
    cluster.push("before", "{\"n\":1}").await.expect("a push");
    // Its settings file has the broker and nothing else.
    let config = std::fs::read_to_string(cluster.config()).expect("the settings");
    assert!(!config.contains("leaf"), "{config}");
    let zone = [("RACHIS_NODE__ZONE", "east"), ("RACHIS_NODE__CAPACITY", "3")];
    cluster.add("leaf", "leaf-2", &zone).await;
    cluster.add("tailer", "tailer-2", &[]).await;
    cluster.add("aggregator", "aggregator-2", &[]).await;
    until_member(&cluster, "leaf-2", Some(json!(["leaf", "up", "east", 3]))).await;
    until_member(&cluster, "leaf-1", Some(json!(["leaf", "up", null, 1]))).await;
    for name in ["tailer-2", "aggregator-2"] {
        let role = name.split_once('-').expect("a number").0;
        until_member(&cluster, name, Some(json!([role, "up", null, null]))).await;
    }
    let asked = cluster.client_of("aggregator-2");
    asked
        .json(Method::PUT, "/v1/collections/after", json!({ "shards": 4 }))
        .await
        .expect("a collection");
    let lines: String = (0..100).map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n}}}\n")).collect();
    asked.push("after", lines).await.expect("a push");
    let leaves = asked
        .sql("select leaf, count(*) from rachis.shards where collection = 'after' group by 1 order by 1")
        .await;
    assert_eq!(
        leaves.rows,
        [[json!("leaf-1"), json!(1)], [json!("leaf-2"), json!(3)]],
        "by capacity"
    );
    for client in ["aggregator-1", "aggregator-2"].map(|name| cluster.client_of(name)) {
        assert_eq!(
            *client.sql("select count(*) from after").await.single_value(),
            json!(100)
        );
        assert_eq!(
            *client.sql("select count(*) from before").await.single_value(),
            json!(1)
        );
    }
    // The first tailer is not needed any more.
    cluster.kill("tailer-1");
    cluster
        .push("after", "{\"n\":100}")
        .await
        .expect("a push through the tailer that joined");
    assert_eq!(
        *asked.sql("select count(*) from after").await.single_value(),
        json!(101)
    );
}

#[tokio::test]
async fn a_node_that_moves_is_found_again_although_no_other_node_is_up() {
    let mut cluster = Cluster::start(ClusterSize::ONE_OF_EACH, Settings::default()).await;
    cluster.push("events", "{\"n\":1}").await.expect("a push");
    let names = ["tailer-1", "leaf-1", "aggregator-1"].map(str::to_owned);
    names.iter().for_each(|name| cluster.kill(name));
    names.iter().for_each(|name| cluster.change_address(name));
    cluster.restart_all(&names).await;
    cluster.push("events", "{\"n\":2}").await.expect("a push");
    assert_eq!(
        *cluster.sql("select count(*) from events").await.single_value(),
        json!(2)
    );
}

#[tokio::test]
async fn the_later_of_two_nodes_with_one_name_is_refused_with_the_reason() {
    let mut cluster = Cluster::start(ClusterSize::ONE_OF_EACH, Settings::default()).await;
    cluster.push("events", "{\"n\":1}").await.expect("a push");
    for role in ["leaf", "tailer", "aggregator"] {
        let name = format!("{role}-1");
        let refused = cluster.start_double(role, &name, None).await;
        assert!(
            refused.contains(&format!("the name {name} is taken by the")) && refused.contains("choose another --name"),
            "{refused}"
        );
    }
    let copy = tempfile::tempdir().expect("a folder");
    for file in ["node", "catalog.json"] {
        std::fs::copy(cluster.data_dir("leaf-1").join(file), copy.path().join(file)).expect("a copy");
    }
    let refused = cluster.start_double("leaf", "leaf-1", Some(copy.path())).await;
    assert!(refused.contains("runs with a copy of this data folder"), "{refused}");
    let refused = cluster.start_double("aggregator", "leaf-1", None).await;
    assert!(refused.contains("is taken by the leaf at"), "{refused}");
    // Also while it does not run: an empty folder must not pass for the documents of another.
    cluster.kill("leaf-1");
    let refused = cluster.start_double("leaf", "leaf-1", None).await;
    assert!(refused.contains("rachis cluster remove leaf-1 --lost"), "{refused}");
    cluster.restart("leaf-1").await;
    assert_eq!(
        *cluster.sql("select count(*) from events").await.single_value(),
        json!(1)
    );
}

#[tokio::test]
async fn a_node_is_removed_once_it_does_not_run_and_a_leaf_with_shards_only_if_its_disk_is_lost() {
    let mut cluster = Cluster::start(ClusterSize::default(), Settings::default().one_replica()).await;
    cluster
        .json(Method::PUT, "/v1/collections/events", json!({ "shards": 3 }))
        .await
        .expect("a collection");
    let lines: String = (0..300).map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n}}}\n")).collect();
    cluster.push("events", lines).await.expect("a push");
    let remove = |cluster: &Cluster, arguments: &[&str]| {
        let output = Command::new(server::binary())
            .args(["cluster", "remove"])
            .args(arguments)
            .args(["--url", cluster.client_of("aggregator-1").url()])
            .output()
            .expect("the program exits");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(error),
            false => Err(error),
        }
    };
    let runs = remove(&cluster, &["tailer-2"]).expect_err("it runs");
    assert!(runs.contains("tailer-2 cannot be removed: it runs at"), "{runs}");
    let unknown = remove(&cluster, &["tailer-9"]).expect_err("it does not exist");
    assert!(unknown.contains("the cluster has no node tailer-9"), "{unknown}");
    for name in ["tailer-2", "leaf-3"] {
        cluster.kill(name);
    }
    remove(&cluster, &["tailer-2"]).expect("it is removed");
    until_member(&cluster, "tailer-2", None).await;
    let holds = remove(&cluster, &["leaf-3"]).expect_err("it holds a shard");
    assert!(
        holds.contains("it holds 1 shard") && holds.contains("--lost"),
        "{holds}"
    );
    let removed = remove(&cluster, &["leaf-3", "--lost"]).expect("it is removed");
    assert!(
        removed.contains("no other leaf has shard ") && removed.contains("start a new leaf with the name leaf-3"),
        "{removed}"
    );
    until_member(&cluster, "leaf-3", None).await;
    let refused = cluster
        .query("select count(*) from events", json!({}))
        .await
        .expect_err("a shard is missing");
    assert!(
        format!("{refused:#}").contains("leaf-3 is not a member of the cluster"),
        "{refused:#}"
    );
    // A new leaf of that name has an empty disk and another address. It fills the shard again from Kafka.
    std::fs::remove_dir_all(cluster.data_dir("leaf-3")).expect("the folder is removed");
    cluster.change_address("leaf-3");
    cluster.restart("leaf-3").await;
    cluster.eventually("select count(*) from events", json!(300)).await;
    // A node that was removed joins again by itself.
    cluster.restart("tailer-2").await;
    until_member(&cluster, "tailer-2", Some(json!(["tailer", "up", null, null]))).await;
}

#[tokio::test]
async fn tailers_and_aggregators_that_are_away_for_long_are_removed_and_join_again() {
    let settings = Settings::default().with("RACHIS_TAILER__ABSENT_KEPT_MS", "1500");
    let mut cluster = Cluster::start(ClusterSize::default(), settings).await;
    cluster.push("events", "{\"n\":1}").await.expect("a push");
    let away = ["tailer-2", "aggregator-2", "leaf-2"];
    away.iter().for_each(|name| cluster.kill(name));
    let asked = cluster.client_of("aggregator-1");
    let sql = "select name, state from rachis.nodes where name like '%-2'";
    eventually("all but the leaf are removed", || async {
        let rows = asked.query(sql, json!({})).await?.rows;
        ensure!(rows == [[json!("leaf-2"), json!("away")]], "{rows:?}");
        Ok(())
    })
    .await;
    for name in away {
        cluster.restart(name).await;
    }
    asked
        .eventually("select count(*) from rachis.nodes where state = 'up'", json!(7))
        .await;
    // Nodes that answer stay, for as long as it takes to remove one that does not.
    cluster.kill("aggregator-2");
    until_member(&cluster, "aggregator-2", None).await;
    let up = asked.sql("select count(*) from rachis.nodes where state = 'up'").await;
    assert_eq!(*up.single_value(), json!(6));
}

#[tokio::test]
async fn a_node_at_the_address_of_another_does_not_pass_for_it() {
    let mut cluster = Cluster::start(ClusterSize::default(), Settings::default()).await;
    cluster.kill("tailer-2");
    cluster.add_at("aggregator", "aggregator-3", "tailer-2").await;
    let asked = cluster.client_of("aggregator-1");
    eventually("tailer-2 is away", || async {
        let sql = "select state, error from rachis.nodes where name = 'tailer-2'";
        let row = asked.query(sql, json!({})).await?.rows.remove(0);
        ensure!(
            row[0] == "away" && row[1].to_string().contains("another node has its address"),
            "{row:?}"
        );
        Ok(())
    })
    .await;
    // Changes and pushes whose turn is tailer-2 go to the other tailer.
    for n in 0..6 {
        let path = format!("/v1/collections/c{n}");
        asked.json(Method::PUT, &path, json!({})).await.expect("a collection");
        asked.push(&format!("c{n}"), "{\"n\":1}").await.expect("a push");
    }
    assert_eq!(
        *asked
            .sql("select count(*) from rachis.nodes where state = 'up'")
            .await
            .single_value(),
        json!(7)
    );
}

#[tokio::test]
async fn a_frozen_node_that_was_replaced_ends_and_stays_out() {
    let mut cluster = Cluster::start(ClusterSize::default(), Settings::default()).await;
    cluster.push("events", "{\"n\":1}").await.expect("a push");
    let asked = cluster.client_of("aggregator-1");
    let old_url = cluster.client_of("aggregator-2").url().to_owned();
    cluster.process("aggregator-2").pause();
    let rival = cluster.start_rival("aggregator-2");
    let is_replaced = format!("select state, url <> '{old_url}' from rachis.nodes where name = 'aggregator-2'");
    eventually("the frozen aggregator is replaced", || async {
        let rows = asked.query(&is_replaced, json!({})).await?.rows;
        ensure!(rows == [[json!("up"), json!(true)]], "{rows:?}");
        Ok(())
    })
    .await;
    cluster.process("aggregator-2").resume();
    cluster.wait_until_ended("aggregator-2").await;
    // Not even if the other one is gone: two that do not see each other would take turns.
    drop(rival);
    cluster.restart_without_waiting("aggregator-2");
    cluster.wait_until_ended("aggregator-2").await;
    let log = cluster.log("aggregator-2");
    assert!(
        log.contains("this node left its cluster: another aggregator at") && log.contains("has taken the name"),
        "{log}"
    );
    assert_eq!(*asked.sql("select count(*) from events").await.single_value(), json!(1));
}
