//! The HTTP interface: valid requests get the requested format, invalid ones a reason, and no query outlives its
//! client.

#[path = "door/answers.rs"]
mod answers;
#[path = "door/catalog.rs"]
mod catalog;
#[path = "door/description.rs"]
mod description;
#[path = "door/pushes.rs"]
mod pushes;
#[path = "door/searches.rs"]
mod searches;

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Client, Server, eventually};

/// Sends a request. Returns the status, the content type and the body.
async fn send(request: reqwest::RequestBuilder) -> (StatusCode, String, Vec<u8>) {
    let answer = request.send().await.expect("an answer");
    let content_type = answer
        .headers()
        .get("content-type")
        .map_or("", |value| value.to_str().expect("ASCII"))
        .to_owned();
    (
        answer.status(),
        content_type,
        answer.bytes().await.expect("a body").to_vec(),
    )
}

/// Sends a request that must fail with this status. Returns the problem document.
async fn refused(request: reqwest::RequestBuilder, status: u16) -> Value {
    let (actual, content_type, body) = send(request).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(
        (actual.as_u16(), content_type.as_str()),
        (status, "application/problem+json"),
        "{text}"
    );
    let problem: Value = serde_json::from_slice(&body).expect("JSON");
    assert!(
        problem["code"].is_string()
            && problem["detail"].is_string()
            && problem["status"] == status
            && problem["title"].is_string(),
        "{problem}"
    );
    problem
}

fn push(server: &Client, collection: &str) -> reqwest::RequestBuilder {
    server.request(Method::POST, &format!("/v1/collections/{collection}/documents"))
}

/// A query over the collection `many` that runs until it is cancelled.
const ENDLESS: &str = "select count(*) from many a, many b, many c, many d where a.n + b.n + c.n + d.n = -1";

/// Starts a server with 3,000 documents in the collection `many`.
async fn start_with_many() -> Server {
    let server = Server::start(tests::Settings::default()).await;
    let lines: String = (0..3_000).map(|i| format!("{{\"n\":{i}}}\n")).collect();
    server.push("many", lines).await.expect("a push");
    server
}

/// The queries that are running.
async fn running(server: &Client) -> anyhow::Result<Vec<Value>> {
    Ok(server.get("/v1/queries").await?["queries"]
        .as_array()
        .cloned()
        .unwrap_or_default())
}

/// Waits until exactly one query runs. Returns its id.
async fn eventually_running(server: &Client) -> String {
    eventually("the query runs", || async {
        let running = running(server).await?;
        anyhow::ensure!(running.len() == 1, "{running:?}");
        Ok(running[0]["id"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Waits until no query runs.
async fn eventually_idle(server: &Client) {
    eventually("the query has ended", || async {
        let running = running(server).await?;
        anyhow::ensure!(running.is_empty(), "{running:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_query_is_cancelled_when_its_client_disconnects() {
    let server = start_with_many().await;
    let request = server
        .request(Method::POST, "/v1/sql")
        .json(&json!({ "sql": ENDLESS }))
        .send();
    let request = tokio::spawn(request);
    eventually_running(&server).await;
    request.abort();
    eventually_idle(&server).await;
    assert_eq!(
        server.sql("select count(*) from many").await.single_value(),
        &json!(3_000)
    );
}

#[tokio::test]
async fn a_query_ends_at_its_deadline_or_when_it_is_cancelled() {
    let server = start_with_many().await;
    let endless = |timeout_ms: u64| {
        server
            .request(Method::POST, "/v1/sql")
            .json(&json!({ "sql": ENDLESS, "timeout_ms": timeout_ms }))
    };
    let problem = refused(endless(200), 422).await;
    assert_eq!(problem["code"], "timeout");
    eventually_idle(&server).await;
    let request = tokio::spawn(endless(60_000).send());
    let id = eventually_running(&server).await;
    server
        .json(Method::DELETE, &format!("/v1/queries/{id}"), json!({}))
        .await
        .expect("cancelled");
    assert_cancelled(request.await.expect("the request ends").expect("an answer")).await;
    eventually_idle(&server).await;
    // The client has chosen the id, as UUIDs are written.
    let digits = format!("{:032x}", rand::random::<u128>());
    let id = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ]
    .join("-");
    let chosen = server
        .request(Method::POST, "/v1/sql")
        .json(&json!({ "sql": ENDLESS, "query_id": id }));
    let request = tokio::spawn(chosen.send());
    eventually_running(&server).await;
    server
        .json(Method::DELETE, &format!("/v1/queries/{id}"), json!({}))
        .await
        .expect("cancelled");
    assert_cancelled(request.await.expect("the request ends").expect("an answer")).await;
}

async fn assert_cancelled(answer: reqwest::Response) {
    let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap_or_default());
    assert_eq!(status, 499, "{body}");
}

#[tokio::test]
async fn stored_files_are_private_to_the_user_of_the_server() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start(tests::Settings::default()).await;
    server.push("mixed", "{\"a\":1}").await.expect("a push");
    let mut folders = vec![server.data_dir()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            // Files that the server removes meanwhile are skipped.
            let Ok((path, metadata)) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) else {
                continue;
            };
            let mode = metadata.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", path.display());
            files += usize::from(metadata.is_file());
            folders.extend(metadata.is_dir().then_some(path));
        }
    }
    assert!(files > 5, "{files} files");
}

#[tokio::test]
async fn a_server_shuts_down_cleanly_and_keeps_acknowledged_documents() {
    let mut server = start_with_many().await;
    assert_eq!(server.get("/healthz").await.expect("health")["status"], "ok");
    let (_, _, metrics) = send(server.request(Method::GET, "/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(
        metrics.contains("rachis_push_items_total{outcome=\"accepted\"} 3000"),
        "{metrics}"
    );
    assert!(
        metrics.contains("route=\"/v1/collections/{collection}/documents\""),
        "{metrics}"
    );
    let request = tokio::spawn(
        server
            .request(Method::POST, "/v1/sql")
            .json(&json!({ "sql": ENDLESS }))
            .timeout(Duration::from_secs(60))
            .send(),
    );
    eventually_running(&server).await;
    server.stop();
    let _ = request.await;
    assert!(
        !server.data_dir().join("listening").exists(),
        "the file with its address is removed"
    );
    server.restart().await;
    assert_eq!(
        server.sql("select count(*) from many").await.single_value(),
        &json!(3_000)
    );
}
