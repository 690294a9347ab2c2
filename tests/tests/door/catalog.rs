//! Collections and sources over HTTP.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Service, unused_address};

use super::refused;

tests::for_single_process_and_cluster! {
    an_invalid_source_is_not_created: tests::Settings::default(),
    a_collection_is_created_changed_and_dropped: tests::Settings::default(),
}

async fn an_invalid_source_is_not_created(server: Service) {
    let put = |body: Value| server.request(Method::PUT, "/v1/sources/s").json(&body);
    let with = |key: &str, value: &str| {
        let config = json!({"bootstrap.servers": unused_address(), key: value});
        json!({"collection": "c", "topic": "t", "config": config})
    };
    for key in ["plugin.library.paths", "ssl.engine.location", "ssl.providers"] {
        let problem = refused(put(with(key, "/tmp/x.so")), 400).await;
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains(key)),
            "{problem}"
        );
    }
    let problem = refused(put(with("no.such.key", "1")), 400).await;
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("no.such.key")),
        "{problem}"
    );
    let problem = refused(put(with("client.id", "x")), 503).await;
    let (detail, hint) = (
        problem["detail"].as_str().expect("a detail"),
        problem["hint"].as_str().expect("a hint"),
    );
    assert!(
        detail.starts_with("source s was not created: ")
            && detail.contains("bootstrap.servers")
            && !detail.contains("automatically"),
        "{problem}"
    );
    assert!(
        hint.contains("nothing was created or changed") && hint.contains("retry"),
        "{problem}"
    );
    refused(put(json!({"collection": "c", "topic": "t"})), 400).await;
    assert_eq!(server.get("/v1/sources").await.expect("a list"), json!({"sources": []}));
    assert_eq!(
        server.get("/v1/collections").await.expect("a list"),
        json!({"collections": []}),
        "no collection was created for it"
    );
}

async fn a_collection_is_created_changed_and_dropped(server: Service) {
    let put = |body: Value| server.json(Method::PUT, "/v1/collections/c", body);
    let created = put(json!({"shards": 3})).await.expect("created");
    assert_eq!(
        (&created["settings"]["shards"], &created["statistics"]["documents"]),
        (&json!(3), &json!(0))
    );
    let body: String = (0..100)
        .map(|i| format!("{{\"_id\":{i},\"at\":\"2024-01-01T00:00:{:02}Z\"}}\n", i % 60))
        .collect();
    server.push("c", body.clone()).await.expect("a push");
    server.push("c", body).await.expect("a push");
    assert_eq!(
        server.sql("select count(*) from c").await.single_value(),
        &json!(100),
        "an id finds its document in whichever shard it is"
    );
    put(json!({"time_path": "at"})).await.expect("changed");
    assert_eq!(
        server.sql("select max(_time) from c").await.single_value(),
        &json!("2024-01-01T00:00:59Z"),
        "the time path applies to stored documents"
    );
    let fields = server.get("/v1/collections/c/fields").await.expect("fields");
    assert!(
        fields["fields"].as_array().is_some_and(|fields| fields
            .iter()
            .any(|field| field["path"] == "at" && field["type"] == "TEXT")),
        "{fields}"
    );
    assert_eq!(
        (&fields["time_path"], &fields["time_paths"]),
        (&json!("at"), &json!(["at"])),
        "{fields}"
    );
    refused(
        server
            .request(Method::PUT, "/v1/collections/c")
            .json(&json!({"shards": 4})),
        409,
    )
    .await;
    server
        .json(Method::DELETE, "/v1/collections/c", json!({}))
        .await
        .expect("dropped");
    refused(server.request(Method::GET, "/v1/collections/c"), 404).await;
    server.push("c", "{}").await.expect("the name is free again");
    assert_eq!(server.sql("select count(*) from c").await.single_value(), &json!(1));
}
