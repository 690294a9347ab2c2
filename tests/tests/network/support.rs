//! A cluster on a network with a known layout, and timed requests to it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Network, Settings, cluster::ClusterSize, eventually};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const SIZE: ClusterSize = ClusterSize {
    leaves: 2,
    tailers: 2,
    aggregators: 2,
};
pub(crate) const AGGREGATORS: [&str; 2] = ["aggregator-1", "aggregator-2"];
/// Maximum time until a silent peer is given up: two keepalives of 5 s and a connection attempt of 2 s.
pub(crate) const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// Maximum time until everything works as before once a cut is healed.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(15);
/// Maximum time of a small answer that needs no slow or lost link.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
/// Maximum time from the deadline of a query until it reports the timeout.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_secs(3);
/// Maximum time from the deadline of a query until a leaf releases its view, if the leaf is not told that the query is
/// over.
pub(crate) const VIEW_RELEASED_WITHIN: Duration = Duration::from_secs(35);
/// Maximum time that a leaf holds the view of a query whose end it was not told: ten seconds after the last renewal that
/// arrives, which a cut may delay by ten, and the leaf checks twice a second. The rest is for a slow machine.
const ORPHANED_VIEW_HELD_MAX: Duration = Duration::from_secs(22);
/// The leaf that [`Layout::near`] is on.
pub(crate) const NEAR: &str = "leaf-1";
/// The leaf that [`Layout::far`] is on.
pub(crate) const FAR: &str = "leaf-2";

/// Which leaf holds what.
pub(crate) struct Layout {
    /// A collection whose only shard is on the near leaf.
    pub near: String,
    /// A collection whose only shard is on the far leaf.
    pub far: String,
    /// The push partition of `events` that the near leaf holds.
    pub partition_near: u64,
    /// The number of documents of `events` on the far leaf.
    pub documents_far: u64,
}

/// Starts a cluster on a network, with 200 documents in `events`, which has a shard on each leaf, and one more
/// collection on each leaf.
pub(crate) async fn start() -> (Network, Cluster, Layout) {
    let network = SIZE.network();
    let begun = Instant::now();
    let cluster = Cluster::start_within(&network, SIZE, Settings::default().one_replica()).await;
    create_collection(&cluster, "events", 2).await;
    let lines: String = (0..200).map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n}}}\n")).collect();
    cluster.push("events", lines).await.expect("a push");
    let mut single = BTreeMap::new();
    // Placement is by hash: the only shard of a collection is on one leaf or the other.
    for attempt in 0..64 {
        let name = format!("alone{attempt}");
        create_collection(&cluster, &name, 1).await;
        single.insert(leaf_of(&cluster, &name, 0), name);
        if single.len() == 2 {
            break;
        }
    }
    let shards = cluster
        .sql(
            "select s.shard, s.partition, count(*) from events e \
             join rachis.sources s on e._partition = s.partition and s.collection = 'events' group by 1, 2",
        )
        .await;
    let number = |value: &Value| value.as_u64().expect("a number");
    let shard_on = |leaf: &str| {
        shards
            .rows
            .iter()
            .find(|row| leaf_of(&cluster, "events", number(&row[0])) == leaf)
            .expect("a shard on each leaf")
    };
    let layout = Layout {
        near: single[NEAR].clone(),
        far: single[FAR].clone(),
        partition_near: number(&shard_on(NEAR)[1]),
        documents_far: number(&shard_on(FAR)[2]),
    };
    eprintln!("started within {:?}", begun.elapsed());
    (network, cluster, layout)
}

async fn create_collection(cluster: &Cluster, collection: &str, shards: u32) {
    cluster
        .json(
            Method::PUT,
            &format!("/v1/collections/{collection}"),
            json!({ "shards": shards }),
        )
        .await
        .expect("a collection");
}

fn leaf_of(cluster: &Cluster, collection: &str, shard: u64) -> String {
    let status: Value = serde_json::from_str(
        &cluster
            .command(&["cluster", "status", "-o", "json"])
            .expect("the status"),
    )
    .expect("JSON");
    let row = status["shards"].as_array().and_then(|rows| {
        rows.iter()
            .find(|row| row["collection"] == collection && row["shard"] == shard)
    });
    row.and_then(|row| row["leaf"].as_str())
        .unwrap_or_else(|| panic!("no shard {shard} of {collection}: {status}"))
        .to_owned()
}

/// A response, and how long it took.
#[derive(Debug)]
pub(crate) struct TimedResponse {
    pub status: u16,
    pub body: Value,
    pub took: Duration,
}

async fn send(request: reqwest::RequestBuilder) -> TimedResponse {
    let begun = Instant::now();
    let response = request.send().await.expect("a response");
    let status = response.status().as_u16();
    let body = response.json().await.expect("a complete body of JSON");
    TimedResponse {
        status,
        body,
        took: begun.elapsed(),
    }
}

pub(crate) async fn query(client: &Client, sql: &str, options: Value) -> TimedResponse {
    let mut body = options;
    body["sql"] = json!(sql);
    send(client.request(Method::POST, "/v1/sql").json(&body)).await
}

/// Starts a query that streams its rows, and does not read them.
pub(crate) async fn open_unread_query(cluster: &Cluster, aggregator: &str, sql: &str, timeout_ms: u64) -> TcpStream {
    let url = &cluster
        .nodes()
        .find(|node| node.name == aggregator)
        .expect("a node")
        .url;
    let address = url.trim_start_matches("http://");
    let body = json!({ "sql": sql, "timeout_ms": timeout_ms }).to_string();
    let head = format!(
        "POST /v1/sql HTTP/1.1\r\nhost: {address}\r\naccept: application/x-ndjson\r\ncontent-type: application/json\r\n"
    );
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream
        .write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await
        .expect("it is sent");
    stream
}

/// This many documents, each with this many bytes of text.
pub(crate) fn documents(count: usize, bytes: usize) -> String {
    (0..count)
        .map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(bytes)))
        .collect()
}

/// The query that counts the documents of a collection.
pub(crate) fn count(collection: &str) -> String {
    format!("select count(*) as c from {collection}")
}

pub(crate) async fn push(
    client: &Client,
    collection: &str,
    key: &str,
    body: impl Into<reqwest::Body>,
) -> TimedResponse {
    send(
        client
            .request(Method::POST, &format!("/v1/collections/{collection}/documents"))
            .header("idempotency-key", key)
            .body(body),
    )
    .await
}

/// Waits until a condition holds, and fails if that takes longer than the bound.
pub(crate) async fn eventually_within<F: Future<Output = Result<()>>>(
    what: &str,
    bound: Duration,
    check: impl FnMut() -> F,
) {
    let begun = Instant::now();
    eventually(what, check).await;
    eprintln!("{what}: {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < bound,
        "{what}: {:?}, not within {bound:?}",
        begun.elapsed()
    );
}

/// Asserts that a query failed in time because a shard did not answer.
pub(crate) fn assert_incomplete(answer: &TimedResponse) {
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (503, &json!("incomplete")),
        "{answer:?}"
    );
    assert!(answer.took < NOTICED_WITHIN, "{answer:?}");
}

/// Waits until a write of a tailer has failed, because it noticed that a leaf does not answer.
pub(crate) async fn wait_for_failed_write(cluster: &Cluster, tailer: &str) {
    eventually_within("the tailer notices that a leaf is silent", NOTICED_WITHIN, || async {
        let failed = cluster.metric(tailer, "rachis_tail_busy_total").await?;
        ensure!(failed > 0.0, "no write of {tailer} has failed");
        Ok(())
    })
    .await;
}

/// Waits until no query runs on any aggregator, and no leaf holds a view for one.
pub(crate) async fn wait_for_no_queries(cluster: &Cluster, bound: Duration) {
    for aggregator in AGGREGATORS {
        let client = cluster.client_of(aggregator);
        eventually_within("no query runs", bound, || async {
            let running = client.get("/v1/queries").await?;
            ensure!(running["queries"] == json!([]), "{running}");
            Ok(())
        })
        .await;
    }
    let bound = bound.max(ORPHANED_VIEW_HELD_MAX);
    for leaf in [NEAR, FAR] {
        eventually_within("no view is held", bound, || async {
            let held = cluster.metric(leaf, "rachis_leaf_views").await?;
            ensure!(held == 0.0, "{leaf} holds the views of {held} queries");
            Ok(())
        })
        .await;
    }
}
