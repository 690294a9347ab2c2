//! What a node of a cluster knows about the others, and what it remembers: which nodes are up, which queries run, what
//! was acknowledged, and what went wrong.

#[path = "nodes/bundle.rs"]
mod bundle;
#[path = "nodes/lost_pushes.rs"]
mod lost_pushes;
#[path = "nodes/older_disk.rs"]
mod older_disk;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Settings, cluster::ClusterSize, eventually};

const SMALL: ClusterSize = ClusterSize {
    aggregators: 2,
    ..ClusterSize::ONE_OF_EACH
};

/// Far less than the minute for which an aggregator waits for the outcome of something that was sent.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_aggregator_shows_all_nodes_and_all_queries_and_can_cancel_any_of_them() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    let lines: String = (0..400).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    cluster.push("events", lines).await.expect("a push");
    let (first, second) = (cluster.client_of("aggregator-1"), cluster.client_of("aggregator-2"));
    check_all_nodes_are_up(&first).await;

    let long = "select count(*) from events a, events b, events c, events d where a.n + b.n + c.n + d.n < 0";
    let query = tokio::spawn(async move { first.query(long, json!({})).await.map(|answer| answer.rows) });
    let running = wait_for_query(&second, long).await;
    assert_eq!(running["node"], "aggregator-1");
    let by_sql = second
        .sql(
            "select node, count(*) from rachis.queries \
             where text like '%events d%' and text not like '%rachis%' group by 1",
        )
        .await;
    assert_eq!(by_sql.rows, [[json!("aggregator-1"), json!(1)]]);
    let id = running["id"].as_str().expect("an id");
    let cancelled = second
        .json(Method::DELETE, &format!("/v1/queries/{id}"), json!(null))
        .await
        .expect("it is cancelled");
    assert_eq!(cancelled["cancelled"], id);
    let error = query.await.expect("a task").expect_err("it was cancelled");
    assert!(format!("{error:#}").contains("cancelled"), "{error:#}");
    let again = second
        .json(Method::DELETE, &format!("/v1/queries/{id}"), json!(null))
        .await
        .expect_err("it has ended");
    assert!(format!("{again:#}").contains("404"), "{again:#}");

    cluster.kill("aggregator-1");
    let unknown = second
        .sql("select node, error from rachis.queries where error is not null")
        .await;
    assert!(
        unknown.rows.len() == 1 && unknown.rows[0][0] == "aggregator-1",
        "{unknown:?}"
    );
    let listed = second.get("/v1/queries").await.expect("the queries");
    assert_eq!(listed["away"][0]["node"], "aggregator-1", "{listed}");
    cluster.kill("leaf-1");
    let away = second
        .sql("select state, error from rachis.nodes where name = 'leaf-1'")
        .await;
    assert!(
        away.rows[0][0] == "away"
            && away.rows[0][1]
                .as_str()
                .is_some_and(|error| error.contains("leaf-1 does not respond")),
        "{away:?}"
    );
}

async fn check_all_nodes_are_up(client: &Client) {
    let sql = "select name, role, state, error from rachis.nodes \
               where version is not null and started is not null order by name";
    let up = |name: &str, role: &str| vec![json!(name), json!(role), json!("up"), json!(null)];
    let all = [
        up("aggregator-1", "aggregator"),
        up("aggregator-2", "aggregator"),
        up("leaf-1", "leaf"),
        up("tailer-1", "tailer"),
    ];
    assert_eq!(client.sql(sql).await.rows, all);
}

/// Waits until an aggregator lists the query, and returns its entry.
async fn wait_for_query(client: &Client, sql: &str) -> Value {
    eventually("the other aggregator shows the query", || async {
        let listed = client.get("/v1/queries").await?;
        let found = listed["queries"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|query| query["text"] == sql)
            .cloned();
        found.ok_or_else(|| anyhow::anyhow!("{listed}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_cannot_be_stored_fails_soon_with_the_reason_and_leaves_nothing() {
    let mut cluster = Cluster::start(ClusterSize::ONE_OF_EACH, Settings::default()).await;
    cluster.push("events", "{\"n\":0}").await.expect("a push");
    let url = cluster.url().to_owned();
    cluster.kill("leaf-1");
    wait_until_away(&cluster, "leaf-1").await;
    check_push_fails(&url, "leaf-1").await;
    cluster.restart("leaf-1").await;
    cluster.kafka.pause();
    check_push_fails(&url, "Kafka").await;
    push_while_kafka_is_paused(&cluster, &url);
    cluster.kill("tailer-1");
    wait_until_away(&cluster, "tailer-1").await;
    check_push_fails(&url, "tailer-1").await;
    cluster.restart("tailer-1").await;
    let pushed: Value = push(&url).send().await.expect("an answer").json().await.expect("JSON");
    assert!(
        pushed["accepted"] == 1 && pushed["repeated"].is_null(),
        "nothing of the failed pushes was stored: {pushed}"
    );
    assert_eq!(
        cluster.sql("select count(*), sum(n)::bigint from events").await.rows,
        [[json!(3), json!(3)]]
    );
}

/// Waits until the aggregator has noticed that a node is gone. The outcome of a push that is sent over a connection
/// whose other end has just died is unknown.
async fn wait_until_away(cluster: &Cluster, name: &str) {
    eventually("the aggregator notices that the node is gone", || async {
        let nodes = cluster.sql("select name, state from rachis.nodes").await;
        match nodes.rows.contains(&vec![json!(name), json!("away")]) {
            true => Ok(()),
            false => Err(anyhow::anyhow!("{nodes:?}")),
        }
    })
    .await;
}

/// The same push each time, with the same idempotency key.
fn push(url: &str) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(format!("{url}/v1/collections/events/documents"))
        .header("idempotency-key", "k")
        .body("{\"n\":1}")
}

async fn check_push_fails(url: &str, unreachable: &str) {
    let begun = Instant::now();
    let answer = push(url).send().await.expect("an answer");
    let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a text"));
    assert!(
        status == 503 && text.contains(unreachable) && text.contains("nothing of this request was stored"),
        "{unreachable}: {status}: {text}"
    );
    assert!(begun.elapsed() < SOON, "{unreachable}: {:?}", begun.elapsed());
}

/// The client reports what it waits for, and continues when Kafka answers again.
fn push_while_kafka_is_paused(cluster: &Cluster, url: &str) {
    let mut command = Command::new(tests::server::binary());
    command
        .args(["push", "events", "-", "--url", url])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut client = command.spawn().expect("it starts");
    client
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"{\"n\":2}\n")
        .expect("it reads");
    let mut lines = BufReader::new(client.stderr.take().expect("a pipe"))
        .lines()
        .map(|line| line.expect("a line"));
    // The first line, before the server itself gives up: the user must soon see why nothing happens.
    assert_eq!(
        lines.next().as_deref(),
        Some("waiting: the server has not yet acknowledged the documents")
    );
    assert!(lines.any(|line| line.contains("Kafka does not respond")));
    cluster.kafka.resume();
    assert!(lines.any(|line| line.contains("1 new documents accepted")) && client.wait().expect("it ends").success());
}
