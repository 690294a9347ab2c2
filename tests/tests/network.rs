//! Cut, one-way and slow links between processes, each in its own network namespace: deadlines hold, nothing hangs, and
//! an answer is complete or reports that it is not.

#[path = "network/support.rs"]
mod support;
#[path = "network/writers.rs"]
mod writers;

use std::{net::UdpSocket, time::Duration};

use anyhow::ensure;
use serde_json::json;
use support::{
    AGGREGATORS, AT_ONCE, DEADLINE_GRACE, FAR, HEALED_WITHIN, Layout, NEAR, TimedResponse, VIEW_RELEASED_WITHIN,
    assert_incomplete, count, documents, eventually_within, open_unread_query, push, query, start, wait_for_no_queries,
};
use tests::{Client, Cluster, Network, kafka::NewRecord, network::TEST_HOST};

#[tokio::test]
async fn a_one_way_cut_silently_drops_one_direction_only() {
    let network = Network::new(&["far".to_owned()]).expect("a network");
    let socket = UdpSocket::bind((network.host(TEST_HOST).address, 0)).expect("a local address");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a socket");
    // No process listens on the UDP port, so the host answers each packet that arrives with an ICMP error.
    socket.connect(network.host("far").socket_addr(9)).expect("a route");
    let arrives_and_is_answered = || {
        let before = network.received("far").expect("a counter");
        socket.send(b"anybody there?").expect("it is sent");
        let error = socket.recv(&mut [0; 64]).expect_err("no process answers").kind();
        (
            network.received("far").expect("a counter") > before,
            error == std::io::ErrorKind::ConnectionRefused,
        )
    };
    assert_eq!(arrives_and_is_answered(), (true, true));
    network.cut_one_way(TEST_HOST, "far");
    assert_eq!(arrives_and_is_answered(), (false, false));
    network.heal();
    network.cut_one_way("far", TEST_HOST);
    assert_eq!(arrives_and_is_answered(), (true, false));
    network.heal();
    assert_eq!(arrives_and_is_answered(), (true, true));
}

#[tokio::test]
async fn a_leaf_cut_off_from_the_aggregators_is_reported_in_seconds_and_recovers_by_itself() {
    let (network, cluster, layout) = start().await;
    let complete = cluster.sql("select count(*), sum(n)::bigint from events").await;
    assert_eq!(complete.rows, [[json!(200), json!(19_900)]]);

    let abandoned = start_waiting_query(&cluster, &layout).await;
    AGGREGATORS.iter().for_each(|aggregator| network.cut(aggregator, FAR));
    check_incomplete_answers(&cluster, &layout).await;
    let abandoned = abandoned.await.expect("it ends");
    assert!(
        [422, 503].contains(&abandoned.status) && abandoned.took < Duration::from_secs(3) + DEADLINE_GRACE,
        "{abandoned:?}"
    );
    // From now on the aggregators know that the leaf is away.
    let clients = AGGREGATORS.map(|aggregator| cluster.client_of(aggregator));
    for client in &clients {
        check_partial_answer(client, 200 - layout.documents_far).await;
    }

    network.heal();
    for client in &clients {
        eventually_within("answers are complete", HEALED_WITHIN, || async {
            let sql = "select count(*) as c, sum(n)::bigint as s from events";
            let answer = query(client, sql, json!({})).await;
            ensure!(
                answer.status == 200 && answer.body["stats"]["partial"] == false,
                "{answer:?}"
            );
            assert_eq!(answer.body["stats"]["shards"], json!({ "total": 2, "answered": 2 }));
            assert_eq!(answer.body["rows"][0], json!({ "c": 200, "s": 19_900 }));
            Ok(())
        })
        .await;
    }
    // The leaf was not told that the query is over, but the lease of its view expires.
    wait_for_no_queries(&cluster, Duration::from_secs(3) + VIEW_RELEASED_WITHIN).await;
}

/// Starts a query that waits for a position which the near leaf never reaches, so that it holds a view on the far leaf
/// which no aggregator can release after the cut.
async fn start_waiting_query(cluster: &Cluster, layout: &Layout) -> tokio::task::JoinHandle<TimedResponse> {
    let options = json!({ "at_least": format!("push/{}@1000000", layout.partition_near), "timeout_ms": 3_000 });
    let client = cluster.client_of(AGGREGATORS[0]);
    let waiting = tokio::spawn(async move { query(&client, &count("events"), options).await });
    eventually_within("a view is held", Duration::from_secs(3), || async {
        let held = cluster.metric(FAR, "rachis_leaf_views").await?;
        ensure!(held == 1.0, "the views of {held} queries are held");
        Ok(())
    })
    .await;
    waiting
}

/// Queries that need the lost leaf fail in time; a query that does not is unaffected.
async fn check_incomplete_answers(cluster: &Cluster, layout: &Layout) {
    let [first, second] = AGGREGATORS.map(|aggregator| cluster.client_of(aggregator));
    let (all, near) = (count("events"), count(&layout.near));
    let answers = tokio::join!(
        query(&first, &all, json!({})),
        query(&second, &all, json!({})),
        query(&first, &near, json!({}))
    );
    for answer in [&answers.0, &answers.1] {
        assert_incomplete(answer);
    }
    assert!(
        answers.2.status == 200 && answers.2.took < AT_ONCE,
        "a query that does not need the leaf is unaffected: {:?}",
        answers.2
    );
}

async fn check_partial_answer(client: &Client, documents: u64) {
    let partial = query(client, &count("events"), json!({ "allow_partial": true })).await;
    assert_eq!(partial.body["rows"][0], json!({ "c": documents }), "{partial:?}");
    let stats = &partial.body["stats"];
    assert_eq!(
        (&stats["partial"], &stats["shards"]),
        (&json!(true), &json!({ "total": 2, "answered": 1 }))
    );
    assert!(partial.took < Duration::from_secs(5), "{partial:?}");
}

#[tokio::test]
async fn a_tailer_cut_off_from_kafka_hands_over_and_one_cut_off_from_leaves_waits() {
    let (network, cluster, _) = start().await;
    cluster.kafka.create_topic("clicks", 4, &[]).await;
    cluster.source_of_topic("clicks", &cluster.kafka).await;
    produce(&cluster, 0).await;
    wait_for_clicks(&cluster, "both tailers read", 100, HEALED_WITHIN).await;
    let [first, second] = AGGREGATORS.map(|aggregator| cluster.client_of(aggregator));
    assert_eq!(push(&first, "pushed", "0", "{}").await.status, 200);

    network.cut("tailer-1", "kafka");
    produce(&cluster, 100).await;
    let pushed = push(&first, "pushed", "1", "{}").await;
    assert!(
        pushed.status == 200 && pushed.took < Duration::from_secs(30),
        "{pushed:?}"
    );
    eprintln!("a push while a tailer is cut off from Kafka: {:?}", pushed.took);
    // The group evicts a silent member after 10 s.
    wait_for_clicks(&cluster, "the other tailer takes over", 200, Duration::from_secs(30)).await;

    network.cut("tailer-2", NEAR);
    network.cut("tailer-2", FAR);
    produce(&cluster, 200).await;
    // It sends a batch, or asks where to go on: the group may be giving it the partitions of the other tailer just now.
    let silent = "select count(*) > 0 from rachis.sources where source = 'clicks' and error like '%does not respond%'";
    cluster.eventually(silent, json!(true)).await;
    assert_eq!(
        *cluster.sql("select count(*) from clicks").await.single_value(),
        json!(200),
        "queries still work, but nothing is ingested"
    );

    network.heal();
    produce(&cluster, 300).await;
    wait_for_clicks(&cluster, "everything is ingested", 400, Duration::from_secs(30)).await;
    let repeated = push(&second, "pushed", "1", "{}").await;
    let same = |key: &str| repeated.body[key] == pushed.body[key];
    assert!(
        repeated.status == 200 && same("accepted") && same("position") && repeated.body["repeated"] == true,
        "a repeated push has the same answer: {repeated:?}"
    );
    assert_eq!(
        *cluster.sql("select count(*) from pushed").await.single_value(),
        json!(2)
    );
    wait_for_no_queries(&cluster, HEALED_WITHIN).await;
}

/// Produces 100 records with numbers from `from`.
async fn produce(cluster: &Cluster, from: usize) {
    let record = |n: usize| NewRecord {
        partition: Some((n % 4) as i32),
        ..NewRecord::value(format!("{{\"n\":{n}}}"))
    };
    cluster
        .kafka
        .produce("clicks", (from..from + 100).map(record).collect())
        .await;
}

async fn wait_for_clicks(cluster: &Cluster, what: &str, documents: usize, bound: Duration) {
    eventually_within(what, bound, || async {
        let answer = cluster
            .query("select count(*), count(distinct n) from clicks", json!({}))
            .await?;
        ensure!(
            answer.rows == [[json!(documents), json!(documents)]],
            "{:?}",
            answer.rows
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_slow_link_and_an_unread_answer_hold_up_no_other_query() {
    let (network, cluster, layout) = start().await;
    let client = cluster.client_of(AGGREGATORS[0]);
    fill(&client, &layout).await;
    let far = format!("select n, pad from {}", layout.far);

    // 32 MB that the client does not read fill every buffer on the way.
    let sql = format!("select pad from {}", layout.near);
    let unread = open_unread_query(&cluster, AGGREGATORS[0], &sql, 5_000).await;
    eventually_within("it runs", AT_ONCE, || async {
        let running = client.get("/v1/queries").await?;
        ensure!(
            running["queries"].as_array().is_some_and(|queries| queries.len() == 1),
            "{running}"
        );
        Ok(())
    })
    .await;
    network.throttle(FAR, 1_000);
    let cut_short = query(&client, &far, json!({ "timeout_ms": 1_500 })).await;
    assert_eq!(
        (cut_short.status, &cut_short.body["code"]),
        (422, &json!("timeout")),
        "{cut_short:?}"
    );
    assert!(
        cut_short.took < Duration::from_millis(1_500) + DEADLINE_GRACE,
        "{cut_short:?}"
    );
    check_large_transfers(&client, &layout, &far).await;
    network.unthrottle();
    let answer = query(&client, &far, json!({})).await;
    assert_eq!(answer.body["rows"].as_array().map(Vec::len), Some(600));
    // The client that does not read is still connected, but its query has ended.
    wait_for_no_queries(&cluster, HEALED_WITHIN).await;
    drop(unread);
}

/// Pushes 2,000 documents of 16 KiB to the near leaf and 350 of 1 KiB to the far leaf.
async fn fill(client: &Client, layout: &Layout) {
    for number in 0..4 {
        let pushed = push(
            client,
            &layout.near,
            &format!("near {number}"),
            documents(500, 16 << 10),
        )
        .await;
        assert_eq!(pushed.status, 200, "{pushed:?}");
    }
    let pushed = push(client, &layout.far, "far", documents(350, 1 << 10)).await;
    assert_eq!(pushed.status, 200);
}

/// A query and a push over the slow link take long but complete, while small queries of the near leaf are answered at
/// once.
async fn check_large_transfers(client: &Client, layout: &Layout, far: &str) {
    let near = count(&layout.near);
    let large = async {
        tokio::join!(
            query(client, far, json!({})),
            push(client, &layout.far, "more", documents(250, 1 << 10))
        )
    };
    let mut large = std::pin::pin!(large);
    let mut slowest = Duration::ZERO;
    let (answer, pushed) = loop {
        tokio::select! {
            ended = &mut large => break ended,
            other = query(client, &near, json!({})) => {
                assert_eq!((other.status, &other.body["rows"][0]["c"]), (200, &json!(2_000)), "{other:?}");
                slowest = slowest.max(other.took);
            }
        }
    };
    eprintln!(
        "an answer of 0.35 MB: {:?}, a push of 0.25 MB: {:?}, other queries: {slowest:?} at most",
        answer.took, pushed.took
    );
    assert_eq!(
        (answer.status, answer.body["rows"].as_array().map(Vec::len)),
        (200, Some(350)),
        "a slow answer is complete"
    );
    assert_eq!(
        (pushed.status, &pushed.body["accepted"]),
        (200, &json!(250)),
        "{pushed:?}"
    );
    assert!(
        answer.took > AT_ONCE && answer.took < Duration::from_secs(30) && pushed.took < Duration::from_secs(30),
        "the link was slow, and both ended"
    );
    assert!(
        slowest > Duration::ZERO && slowest < AT_ONCE,
        "other queries were answered at once: {slowest:?}"
    );
}
