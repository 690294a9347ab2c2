//! A shard has replicas on several leaves. Each answers alike, and none answers without what was acknowledged.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Client, Cluster, Settings,
    cluster::ClusterSize,
    eventually,
    kafka::NewRecord,
    sql_response::{SqlResponse, fetch},
};

const LEAVES: [&str; 2] = ["leaf-1", "leaf-2"];

const SIZE: ClusterSize = ClusterSize {
    leaves: 2,
    tailers: 1,
    aggregators: 1,
};

/// A cluster with two leaves and the collection `events`, whose two shards have a replica on each.
async fn replicated() -> Cluster {
    let cluster = Cluster::start(SIZE, Settings::default()).await;
    create(&cluster).await;
    cluster
}

async fn create(cluster: &Cluster) {
    cluster
        .json(Method::PUT, "/v1/collections/events", json!({ "shards": 2 }))
        .await
        .expect("a collection");
}

/// The states of all replicas, such as `leaf-1 serving, leaf-2 behind`, once for each shard.
async fn states(client: &Client) -> anyhow::Result<Vec<String>> {
    let sql = "select replicas from rachis.shards where collection = 'events' order by shard";
    let rows = client.query(sql, json!({})).await?.rows;
    let state = |row: &Vec<Value>| row[0].as_str().unwrap_or_default().to_owned();
    Ok(rows.iter().map(state).collect())
}

async fn until_states(client: &Client, what: &str, is_expected: impl Fn(&str) -> bool) {
    eventually(what, || async {
        let states = states(client).await?;
        ensure!(
            states.len() == 2 && states.iter().all(|state| is_expected(state)),
            "{states:?}"
        );
        Ok(())
    })
    .await;
}

async fn until_all_serve(client: &Client) {
    until_states(client, "all replicas serve", |state| {
        state.matches("serving").count() == 2
    })
    .await;
}

/// Pushes these numbers, one document each, and returns how long it took.
async fn push(client: &Client, numbers: std::ops::Range<u32>) -> Duration {
    let began = Instant::now();
    let lines: String = numbers.map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n}}}\n")).collect();
    client.push("events", lines).await.expect("a push");
    began.elapsed()
}

async fn count(client: &Client) -> Value {
    client.sql("select count(*) from events").await.single_value().clone()
}

async fn each_leaf_alone_answers_like_both(cluster: &mut Cluster, question: &str) {
    until_all_serve(cluster).await;
    let both = cluster.sql(question).await.rows;
    for alone in LEAVES {
        let other = LEAVES[usize::from(alone == LEAVES[0])];
        until_all_serve(cluster).await;
        cluster.kill(other);
        assert_eq!(cluster.sql(question).await.rows, both, "{alone} alone");
        cluster.restart(other).await;
    }
}

#[tokio::test]
async fn every_replica_has_what_was_acknowledged_and_answers_alike() {
    let mut cluster = replicated().await;
    push(&cluster, 0..1_000).await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    follow_clicks(&cluster, json!({})).await;
    let record = |n: i32| NewRecord {
        partition: Some(n % 2),
        ..NewRecord::value(format!("{{\"click\":{n}}}"))
    };
    cluster.kafka.produce("clicks", (0..500).map(record).collect()).await;
    cluster.eventually("select count(click) from events", json!(500)).await;
    let question = "select count(*), sum(n), sum(click), min(_ingested)::text, max(_ingested)::text from events";
    let both = cluster.sql(question).await.rows;
    assert_eq!(both[0][..3], [json!(1_500), json!(499_500), json!(124_750)]);
    each_leaf_alone_answers_like_both(&mut cluster, question).await;
    cluster.wait_until_replicas_are_equal(2).await;
    let blocks = "select count(*), count(distinct leaf), count(digest) from rachis.digests";
    let rows = cluster.sql(blocks).await.rows;
    assert_eq!(
        rows[0],
        [json!(8), json!(2), json!(8)],
        "two partitions of two sources on each leaf"
    );
}

#[tokio::test]
async fn a_leaf_that_dies_is_not_missed_and_gets_what_it_has_missed() {
    let mut cluster = replicated().await;
    push(&cluster, 0..100).await;
    until_all_serve(&cluster).await;
    assert_eq!(count(&cluster).await, json!(100));
    cluster.kill("leaf-2");
    // No question fails: the other replica answers.
    let began = Instant::now();
    let mut pushed = 100;
    while began.elapsed() < Duration::from_secs(15) {
        assert_eq!(count(&cluster).await, json!(pushed));
        let took = push(&cluster, pushed..pushed + 10).await;
        assert!(took < Duration::from_secs(10), "a push took {took:?}");
        pushed += 10;
    }
    until_states(&cluster, "leaf-2 is behind", |state| state.contains("leaf-2 behind")).await;
    // Without a tailer it cannot catch up. If it were ready, a rolling restart would take down the only serving replicas.
    cluster.stop("tailer-1");
    cluster.restart("leaf-2").await;
    let leaf = cluster.client_of("leaf-2");
    eventually("leaf-2 is not ready", || async {
        let reply = format!("{:?}", leaf.get("/readyz").await);
        ensure!(
            reply.contains("have not caught up: shard 0 of events and 1 more"),
            "{reply}"
        );
        Ok(())
    })
    .await;
    cluster.restart("tailer-1").await;
    until_all_serve(&cluster).await;
    eventually("leaf-2 is ready", || leaf.get("/readyz")).await;
    cluster.kill("leaf-1");
    cluster.eventually("select count(*) from events", json!(pushed)).await;
    push(&cluster, pushed..pushed + 10).await;
    assert_eq!(count(&cluster).await, json!(pushed + 10));
}

#[tokio::test]
async fn a_frozen_replica_never_answers_without_what_was_acknowledged_meanwhile() {
    let size = ClusterSize { aggregators: 2, ..SIZE };
    let network = size.network();
    let cluster = Cluster::start_within(&network, size, Settings::default()).await;
    create(&cluster).await;
    let (pushing, outdated) = (cluster.client_of("aggregator-1"), cluster.client_of("aggregator-2"));
    push(&pushing, 0..100).await;
    until_all_serve(&cluster).await;
    let mut pushed = 100;
    for _ in 0..10 {
        assert_eq!(count(&outdated).await, json!(pushed));
    }
    for frozen in LEAVES {
        let other = LEAVES[usize::from(frozen == LEAVES[0])];
        // This aggregator reaches the frozen leaf alone. Nobody tells it of the pushes, or that the leaf does not serve any more …
        ["kafka", "tailer-1", "aggregator-1", other]
            .iter()
            .for_each(|peer| network.cut("aggregator-2", peer));
        cluster.process(frozen).pause();
        // … nor is there anybody who tells the leaf, and nothing waits in a socket until it goes on and reads it.
        ["kafka", "tailer-1", "aggregator-1", other]
            .iter()
            .for_each(|peer| network.cut(frozen, peer));
        // Another replica is asked as soon as the frozen one is slow.
        for _ in 0..10 {
            let began = Instant::now();
            assert_eq!(count(&pushing).await, json!(pushed));
            let took = began.elapsed();
            assert!(took < Duration::from_secs(5), "a question took {took:?}");
        }
        // The first push waits until the frozen one cannot answer any more.
        let took = push(&pushing, pushed..pushed + 10).await;
        pushed += 10;
        assert!(
            took > Duration::from_secs(1),
            "a frozen replica cannot confirm a push, but it took {took:?}"
        );
        assert_eq!(count(&pushing).await, json!(pushed));
        push(&pushing, pushed..pushed + 10).await;
        pushed += 10;
        cluster.process(frozen).resume();
        let mut refusals = BTreeSet::new();
        // For longer than a leaf that did not answer is asked last.
        let resumed = Instant::now();
        while resumed.elapsed() < Duration::from_secs(6) {
            match fetch(&outdated, "select count(*) from events", "auto").await {
                SqlResponse::Error { status: 503, detail } => refusals.insert(detail),
                response => panic!("{frozen} has missed pushes, but the answer is {response:?}"),
            };
            assert_eq!(count(&pushing).await, json!(pushed));
        }
        let why = format!("on {frozen} cannot answer: it does not hear {other}");
        assert!(refusals.iter().any(|refusal| refusal.contains(&why)), "{refusals:?}");
        network.heal();
        until_all_serve(&pushing).await;
        until_all_serve(&outdated).await;
        // It knows the starts of both leaves: it does not ask the tailers what they may lack.
        for _ in 0..10 {
            outdated.eventually("select count(*) from events", json!(pushed)).await;
        }
    }
}

/// Waits until these leaves serve the only shard, and no others.
async fn until_serving(client: &Client, leaves: &str) {
    let sql = "select string_agg(leaf, ', ' order by leaf) from rachis.replicas where state = 'serving'";
    client.eventually(sql, json!(leaves)).await;
}

#[tokio::test]
async fn a_replica_catches_up_although_another_one_is_cut_off() {
    let size = ClusterSize { leaves: 3, ..SIZE };
    let network = size.network();
    // The window is so small that it is not kept for a replica that is away.
    let settings = Settings::default()
        .with("RACHIS_TAILER__BATCH_RECORDS_MAX", 100)
        .with("RACHIS_TAILER__WINDOW_BYTES_MAX", 200_000);
    let mut cluster = Cluster::start_within(&network, size, settings).await;
    let settings = json!({ "shards": 1, "replicas": 3 });
    let created = cluster.json(Method::PUT, "/v1/collections/events", settings).await;
    created.expect("a collection");
    cluster.kafka.create_topic("events", 1, &[]).await;
    cluster.source_of_topic("events", &cluster.kafka).await;
    let clicks = |numbers: std::ops::Range<u32>| {
        let record = |n| NewRecord::value(format!("{{\"click\":{n}}}"));
        numbers.map(record).collect::<Vec<_>>()
    };
    cluster.kafka.produce("events", clicks(0..100)).await;
    cluster.eventually("select count(click) from events", json!(100)).await;
    cluster.wait_until_replicas_are_equal(3).await;
    ["leaf-1", "leaf-2", "tailer-1", "aggregator-1", "kafka"]
        .iter()
        .for_each(|peer| network.cut("leaf-3", peer));
    cluster.kill("leaf-2");
    until_serving(&cluster, "leaf-1").await;
    // A hundred batches and more, each with records of which the one that is cut off might know when it ingested them.
    cluster.kafka.produce("events", clicks(100..12_000)).await;
    cluster
        .eventually("select count(click) from events", json!(12_000))
        .await;
    cluster.restart("leaf-2").await;
    until_serving(&cluster, "leaf-1, leaf-2").await;
    network.heal();
    until_serving(&cluster, "leaf-1, leaf-2, leaf-3").await;
    cluster.wait_until_replicas_are_equal(3).await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_never_answers_without_what_was_acknowledged_meanwhile() {
    let network = SIZE.network();
    let cluster = Cluster::start_within(&network, SIZE, Settings::default()).await;
    create(&cluster).await;
    push(&cluster, 0..100).await;
    until_all_serve(&cluster).await;
    let mut pushed = 100;
    // The aggregator reaches both leaves all the time, and asks either.
    let cuts: [&[(&str, &str)]; 3] = [
        &[("leaf-2", "leaf-1"), ("leaf-2", "tailer-1"), ("leaf-2", "kafka")],
        &[("leaf-1", "tailer-1"), ("leaf-1", "kafka")],
        &[("leaf-2", "leaf-1")],
    ];
    for cut in cuts {
        cut.iter().for_each(|(one, other)| network.cut(one, other));
        for _ in 0..10 {
            push(&cluster, pushed..pushed + 10).await;
            pushed += 10;
            for _ in 0..4 {
                assert_eq!(count(&cluster).await, json!(pushed), "{cut:?}");
            }
        }
        network.heal();
        until_all_serve(&cluster).await;
        assert_eq!(count(&cluster).await, json!(pushed));
    }
    cluster.wait_until_replicas_are_equal(2).await;
}

/// Creates a source that reads the topic `clicks` into `events`.
async fn follow_clicks(cluster: &Cluster, settings: Value) {
    let bootstrap = cluster.kafka.bootstrap();
    let source = cluster.source("clicks", "events", "clicks", &bootstrap, settings).await;
    source.expect("a source");
}

/// Suspends or resumes the source `clicks`, or skips records of it.
async fn change_clicks(cluster: &Cluster, action: &str, body: Value) -> anyhow::Result<Value> {
    let path = format!("/v1/sources/clicks/{action}");
    cluster.json(Method::POST, &path, body).await
}

/// Creates a source that starts at the latest record of the topic `clicks`, and waits until both partitions are read.
async fn follow_clicks_from_now_on(cluster: &Cluster) {
    follow_clicks(cluster, json!({ "start": "latest" })).await;
    let caught_up = "select count(*) from rachis.sources where source = 'clicks' and state = 'caught_up'";
    cluster.eventually(caught_up, json!(2)).await;
}

#[tokio::test]
async fn a_replica_that_lost_its_disk_begins_where_the_other_began_even_if_no_record_follows() {
    let mut cluster = replicated().await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    let clicks = |numbers: std::ops::Range<u32>| {
        numbers
            .map(|n| NewRecord::value(format!("{{\"click\":{n}}}")))
            .collect()
    };
    cluster.kafka.produce("clicks", clicks(0..100)).await;
    follow_clicks_from_now_on(&cluster).await;
    push(&cluster, 0..10).await;
    cluster.kill("leaf-2");
    std::fs::remove_dir_all(cluster.data_dir("leaf-2")).expect("its disk is lost");
    cluster.restart("leaf-2").await;
    until_states(&cluster, "leaf-2 is behind", |state| state.contains("leaf-2 behind")).await;
    until_all_serve(&cluster).await;
    cluster.kafka.produce("clicks", clicks(100..110)).await;
    cluster.eventually("select count(click) from events", json!(10)).await;
    cluster.wait_until_replicas_are_equal(2).await;
}

#[tokio::test]
async fn a_source_from_the_latest_record_on_has_all_that_came_since_it_was_created() {
    let mut cluster = replicated().await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    let click = |n: i32, partition| NewRecord {
        partition: Some(partition),
        ..NewRecord::value(format!("{{\"click\":{n}}}"))
    };
    cluster.kafka.produce("clicks", vec![click(1, 0)]).await;
    follow_clicks_from_now_on(&cluster).await;
    // So far nothing is stored of partition 1.
    cluster.stop("tailer-1");
    cluster
        .kafka
        .produce("clicks", vec![click(2, 0), click(4, 1), click(8, 1)])
        .await;
    cluster.restart("tailer-1").await;
    cluster.eventually("select sum(click) from events", json!(14)).await;
    // Leaves that have lost their disks get the same again.
    until_all_serve(&cluster).await;
    for leaf in LEAVES {
        cluster.kill(leaf);
        std::fs::remove_dir_all(cluster.data_dir(leaf)).expect("its disk is lost");
    }
    cluster.restart_all(&LEAVES.map(ToOwned::to_owned)).await;
    until_all_serve(&cluster).await;
    cluster.eventually("select sum(click) from events", json!(14)).await;
    cluster.wait_until_replicas_are_equal(2).await;
}

#[tokio::test]
async fn replicas_are_equal_although_a_source_is_suspended_or_dropped_while_its_records_come_in() {
    // In many batches, so that one replica is usually a batch ahead of the other.
    let settings = Settings::default().with("RACHIS_TAILER__BATCH_RECORDS_MAX", 100);
    let mut cluster = Cluster::start(SIZE, settings).await;
    create(&cluster).await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    let clicks = (0..200_000).map(|n| NewRecord::value(format!("{{\"click\":{n}}}")));
    cluster.kafka.produce("clicks", clicks.collect()).await;
    follow_clicks(&cluster, json!({})).await;
    let ingested = async || count(&cluster).await.as_u64().expect("a count");
    for action in ["suspend", "suspend", "suspend", "drop"] {
        let more = format!("select count(*) > {} from events", ingested().await);
        cluster.eventually(&more, json!(true)).await;
        match action {
            "drop" => cluster.json(Method::DELETE, "/v1/sources/clicks", json!({})).await,
            _ => change_clicks(&cluster, action, json!({})).await,
        }
        .unwrap_or_else(|error| panic!("{action}: {error:#}"));
        let read = "select count(*) from rachis.sources where source = 'clicks' and state <> 'suspended'";
        cluster.eventually(read, json!(0)).await;
        cluster.wait_until_replicas_are_equal(2).await;
        assert!(ingested().await < 200_000, "{action} came too late");
        if action == "suspend" {
            change_clicks(&cluster, "resume", json!({})).await.expect("it goes on");
        }
    }
    let times = "select count(*), min(_ingested)::text, max(_ingested)::text from events";
    each_leaf_alone_answers_like_both(&mut cluster, times).await;
}

#[tokio::test]
async fn records_that_are_skipped_while_a_replica_is_frozen_are_skipped_on_all_replicas() {
    let mut cluster = replicated().await;
    cluster.kafka.create_topic("clicks", 1, &[]).await;
    follow_clicks(&cluster, json!({})).await;
    let click = |n: i32| NewRecord::value(format!("{{\"click\":{n}}}"));
    cluster.kafka.produce("clicks", (0..100).map(click).collect()).await;
    cluster.eventually("select count(click) from events", json!(100)).await;
    cluster.process("leaf-2").pause();
    // Only the other replica gets these.
    cluster.kafka.produce("clicks", (100..150).map(click).collect()).await;
    cluster.eventually("select count(click) from events", json!(150)).await;
    change_clicks(&cluster, "suspend", json!({})).await.expect("suspended");
    cluster.kafka.produce("clicks", (150..200).map(click).collect()).await;
    // As long as the frozen one might have more, nothing is skipped.
    eventually("the records are skipped", || {
        change_clicks(&cluster, "skip", json!({ "to": { "0": 180 } }))
    })
    .await;
    cluster.process("leaf-2").resume();
    change_clicks(&cluster, "resume", json!({})).await.expect("resumed");
    cluster.eventually("select count(click) from events", json!(170)).await;
    until_all_serve(&cluster).await;
    cluster.wait_until_replicas_are_equal(2).await;
    assert_eq!(losses(&cluster).await.expect("losses"), [[json!(150), json!(179)]]);
    // Each of them lists it, so that it stays known whichever is lost.
    for lost in LEAVES {
        until_all_serve(&cluster).await;
        cluster.kill(lost);
        eventually("the other one lists what was skipped", || async {
            let losses = losses(&cluster).await?;
            ensure!(losses == [[json!(150), json!(179)]], "{losses:?}");
            Ok(())
        })
        .await;
        cluster.restart(lost).await;
    }
}

/// The distinct ranges of offsets that are lost; those of replicas that do not answer are missing.
async fn losses(client: &Client) -> anyhow::Result<Vec<Vec<Value>>> {
    let sql = "select distinct from_offset, through_offset from rachis.losses where error is null";
    Ok(client.query(sql, json!({})).await?.rows)
}

#[tokio::test]
async fn a_skip_waits_for_a_serving_replica_that_may_have_more() {
    let network = SIZE.network();
    let cluster = Cluster::start_within(&network, SIZE, Settings::default()).await;
    create(&cluster).await;
    cluster.kafka.create_topic("clicks", 1, &[]).await;
    follow_clicks(&cluster, json!({})).await;
    let click = |n: i32| NewRecord::value(format!("{{\"click\":{n}}}"));
    cluster.kafka.produce("clicks", (0..100).map(click).collect()).await;
    cluster.eventually("select count(click) from events", json!(100)).await;
    until_all_serve(&cluster).await;
    network.cut("leaf-1", "tailer-1");
    cluster.kafka.produce("clicks", (100..150).map(click).collect()).await;
    cluster.eventually("select count(click) from events", json!(150)).await;
    cluster.process("leaf-2").pause();
    network.heal();
    eventually("the source is suspended", || {
        change_clicks(&cluster, "suspend", json!({}))
    })
    .await;
    cluster.kafka.produce("clicks", (150..200).map(click).collect()).await;
    let skip = || change_clicks(&cluster, "skip", json!({ "to": { "0": 180 } }));
    let refused = skip().await.expect_err("leaf-2 must answer first").to_string();
    assert!(refused.contains("leaf-2"), "{refused}");
    cluster.process("leaf-2").resume();
    eventually("the records are skipped", skip).await;
    change_clicks(&cluster, "resume", json!({})).await.expect("resumed");
    cluster.eventually("select count(click) from events", json!(170)).await;
    until_all_serve(&cluster).await;
    cluster.wait_until_replicas_are_equal(2).await;
    assert_eq!(losses(&cluster).await.expect("losses"), [[json!(150), json!(179)]]);
}
