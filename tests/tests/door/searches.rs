//! Searches over HTTP: sorting, paging, fields and views.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Service};

use super::{refused, send};

tests::for_single_process_and_cluster! {
    every_key_of_a_very_wide_document_is_searchable: tests::Settings::default(),
    a_search_sorts_by_a_field_and_reads_views: tests::Settings::default(),
}

async fn every_key_of_a_very_wide_document_is_searchable(server: Service) {
    let wide: serde_json::Map<String, Value> = (0..12_000)
        .map(|key| (format!("k{key}"), json!(format!("v{key}"))))
        .collect();
    server
        .push("wide", Value::Object(wide).to_string())
        .await
        .expect("pushed");
    for key in [0, 4_000, 6_000, 9_999, 10_001, 11_999] {
        let found = server
            .json(
                Method::POST,
                "/v1/collections/wide/search",
                json!({ "q": format!("k{key}:v{key}") }),
            )
            .await
            .expect("an answer");
        assert_eq!(found["total"], 1, "k{key}");
        assert_eq!(
            server
                .sql(&format!("select count(*) from wide where k{key} = 'v{key}'"))
                .await
                .single_value(),
            &json!(1),
            "k{key}"
        );
    }
    let fields = server.get("/v1/collections/wide/fields").await.expect("fields");
    assert_eq!(fields["fields"].as_array().map(Vec::len), Some(10_000));
    assert!(
        fields["warnings"][0]
            .as_str()
            .is_some_and(|warning| warning.contains("at most 10000 paths")),
        "{}",
        fields["warnings"]
    );
}

async fn a_search_sorts_by_a_field_and_reads_views(server: Service) {
    let sale = |n: u32| {
        json!({ "n": n, "cents": n % 10 * 50, "note": format!("sale {n}"), "tags": ["new", format!("t{}", n % 3)] })
            .to_string()
    };
    let pushed = server
        .push("sales", (0..100).map(sale).collect::<Vec<_>>().join("\n"))
        .await
        .expect("accepted");
    server.sql("create field sales.price as cents / 100").await;
    server
        .sql("create view expensive as select _id, _time, price, note, tags from sales where cents >= 300")
        .await;
    server
        .sql("create view totals as select cents, count(*) as sold from sales group by cents")
        .await;
    let position = pushed["position"].as_str().expect("a position");
    hits_are_sorted_by_a_field(&server, position).await;
    hits_of_a_view_are_paged(&server, position).await;

    let totals = search(
        &server,
        position,
        "totals",
        json!({ "q": "sold:10", "sort": "cents", "limit": 1 }),
    )
    .await;
    assert_eq!(
        totals["hits"],
        json!([{ "id": null, "score": null, "document": { "cents": 0, "sold": 10 } }])
    );
    let unbounded = server.request(Method::GET, "/v1/collections/totals/search?from=2026-01-01");
    assert!(
        refused(unbounded, 400).await["hint"]
            .as_str()
            .expect("a hint")
            .contains("_time")
    );
    refused(
        server.request(Method::GET, "/v1/collections/expensive/documents/x"),
        404,
    )
    .await;
}

/// Searches a collection or view at least at this position.
async fn search(server: &Client, position: &str, target: &str, mut body: Value) -> Value {
    body["at_least"] = position.into();
    let request = server
        .request(Method::POST, &format!("/v1/collections/{target}/search"))
        .json(&body);
    let (status, _, response) = send(request).await;
    let answer: Value = serde_json::from_slice(&response).expect("JSON");
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn hits_are_sorted_by_a_field(server: &Client, position: &str) {
    let by_price = search(
        server,
        position,
        "sales",
        json!({ "q": "tags:t1", "sort": "price:desc", "limit": 3 }),
    )
    .await;
    let cents: Vec<&Value> = by_price["hits"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|hit| &hit["document"]["cents"])
        .collect();
    assert_eq!(
        (cents, &by_price["total"]),
        (vec![&json!(450); 3], &json!(33)),
        "{by_price}"
    );
}

async fn hits_of_a_view_are_paged(server: &Client, position: &str) {
    let (mut ids, mut after) = (BTreeSet::new(), Value::Null);
    loop {
        let page = search(
            server,
            position,
            "expensive",
            json!({ "q": "sale tags:t1 price:>3", "limit": 4, "after": after }),
        )
        .await;
        assert_eq!(page["total"], 10, "{page}");
        for hit in page["hits"].as_array().expect("hits") {
            assert!(
                ids.insert(hit["id"].as_str().expect("an id").to_owned()),
                "{hit} is on two pages"
            );
            assert!(hit["document"]["price"].as_f64().expect("a number") > 3.0, "{hit}");
        }
        after = page["after"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(ids.len(), 10);
}
