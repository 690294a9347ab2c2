//! What the interface says of itself.

use std::process::Command;

use reqwest::Method;
use tests::{Kafka, Server, Settings, kafka::NewRecord, oracle};

use super::send;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_described_and_answers_as_its_description_says() {
    let kafka = Kafka::start().await;
    kafka.create_topic("clicks", 1, &[]).await;
    kafka.produce("clicks", vec![NewRecord::value("{\"n\":3}")]).await;
    let server = Server::start(Settings::default()).await;
    let output = Command::new(oracle::python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/openapi.py"))
        .args([server.url(), &kafka.bootstrap()])
        .output()
        .expect("python runs");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.ends_with("calls answer as the description says\n"), "{stdout}");
}

#[tokio::test]
async fn the_page_at_the_root_lists_every_call() {
    let server = Server::start(Settings::default()).await;
    let page = |accept: &'static str| send(server.request(Method::GET, "/").header("accept", accept));
    let description = server.get("/openapi.json").await.expect("a description");
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() > 20, "{} paths", paths.len());
    for (accept, expected) in [("*/*", "text/plain"), ("text/html,*/*;q=0.8", "text/html")] {
        let (status, content_type, body) = page(accept).await;
        let text = String::from_utf8(body).expect("UTF-8");
        assert!(status == 200 && content_type.starts_with(expected), "{content_type}");
        assert!(
            text.contains("/openapi.json") && text.contains("rachis sql --url"),
            "{text}"
        );
        let calls = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flat_map(|item| item.keys());
            methods.map(move |method| (method.to_uppercase(), path))
        });
        let is_listed = |method: &str, path: &str| {
            let has = |line: &str| line.contains(method) && line.split([' ', '<', '>']).any(|word| word == path);
            text.lines().any(has)
        };
        let missing: Vec<_> = calls.filter(|(method, path)| !is_listed(method, path)).collect();
        assert!(missing.is_empty(), "{missing:?} in\n{text}");
    }
}
