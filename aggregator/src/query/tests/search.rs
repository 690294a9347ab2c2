//! Searches of a collection: pages, sort orders, totals, errors.

use std::collections::BTreeSet;

use proto::Code;
use serde_json::json;

use super::*;
use crate::answer::{QueryOptions, SearchAnswer, SearchQuery};

fn notes(count: i64) -> impl Iterator<Item = Value> {
    (0..count).map(|n| {
        let size = if n % 5 == 0 { json!("big") } else { json!(n % 3) };
        let level = if n % 2 == 0 { "error" } else { "info" };
        json!({ "n": n, "at": n / 4, "size": size, "level": level })
    })
}

impl Bench {
    async fn search(&self, request: SearchQuery) -> Result<SearchAnswer, Problem> {
        self.engine
            .search(SearchQuery {
                collection: "events".into(),
                ..request
            })
            .await
    }

    /// The ids of the hits of all pages.
    async fn pages(&self, request: SearchQuery) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self
                .search(SearchQuery {
                    after: after.clone(),
                    ..request.clone()
                })
                .await
                .expect("a page");
            ids.extend(page.hits.iter().map(|hit| hit.id.clone()));
            match page.after {
                Some(next) => after = Some(next),
                None => return ids,
            }
        }
    }
}

#[tokio::test]
async fn the_newest_hits_come_first_and_the_total_is_exact() {
    let bench = bench(notes(50)).await;
    let answer = bench
        .search(SearchQuery {
            query: "error".into(),
            ..SearchQuery::default()
        })
        .await
        .expect("hits");
    assert_eq!((answer.hits.len(), answer.total), (20, 25));
    let times: Vec<i64> = answer
        .hits
        .iter()
        .map(|hit| {
            serde_json::from_str::<Value>(&hit.document).expect("JSON")["at"]
                .as_i64()
                .expect("a time")
        })
        .collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    assert!(answer.hits.iter().all(|hit| hit.json && hit.id == hit.address));
    assert_eq!((answer.stats.shards_answered, answer.stats.documents_scanned), (2, 50));
    bench.until_released().await;
}

#[tokio::test]
async fn pages_contain_every_match_once() {
    let bench = bench(notes(101)).await;
    for (sort, limit) in [
        (None, 7),
        (Some("_time:asc"), 10),
        (Some("size"), 9),
        (Some("size:desc"), 1),
        (Some("n:desc"), 100),
        (Some("level"), 101),
        (Some("nowhere"), 13),
        (Some("_offset:desc"), 8),
        (Some("_source:desc"), 20),
        (Some("_id"), 30),
    ] {
        let ids = bench
            .pages(SearchQuery {
                sort: sort.map(str::to_owned),
                limit: Some(limit),
                ..SearchQuery::default()
            })
            .await;
        assert_eq!(ids.len(), 101, "{sort:?}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 101, "{sort:?}");
    }
}

#[tokio::test]
async fn from_and_to_limit_the_time() {
    let bench = bench(notes(40)).await;
    let request = SearchQuery {
        from: Some("1970-01-01T00:00:02Z".into()),
        to: Some("5".into()),
        ..SearchQuery::default()
    };
    assert_eq!(bench.search(request).await.expect("hits").total, 12);
}

#[tokio::test]
async fn a_limit_of_zero_returns_only_the_total() {
    let bench = bench(notes(40)).await;
    let answer = bench
        .search(SearchQuery {
            query: "info".into(),
            limit: Some(0),
            ..SearchQuery::default()
        })
        .await
        .expect("a total");
    assert_eq!((answer.hits.len(), answer.total, answer.after), (0, 20, None));
}

#[tokio::test]
async fn wrong_searches_are_client_errors() {
    let bench = bench(notes(3)).await;
    let wrong = [
        SearchQuery {
            query: "(".into(),
            ..SearchQuery::default()
        },
        SearchQuery {
            limit: Some(10_001),
            ..SearchQuery::default()
        },
        SearchQuery {
            after: Some("x".into()),
            ..SearchQuery::default()
        },
        SearchQuery {
            from: Some("yesterday".into()),
            ..SearchQuery::default()
        },
        SearchQuery {
            sort: Some("a..b".into()),
            ..SearchQuery::default()
        },
        SearchQuery {
            sort: Some("_score".into()),
            ..SearchQuery::default()
        },
    ];
    for request in wrong {
        let problem = bench
            .search(request.clone())
            .await
            .map(|answer| answer.total)
            .expect_err(&format!("{request:?}"));
        assert!(
            matches!(problem.code, Code::BadRequest | Code::BadSql | Code::NotSupported),
            "{request:?}: {problem:?}"
        );
    }
    let nowhere = bench
        .engine
        .search(SearchQuery {
            collection: "nowhere".into(),
            ..SearchQuery::default()
        })
        .await;
    assert_eq!(
        nowhere.map(|answer| answer.total).map_err(|p| p.code),
        Err(Code::NotFound)
    );
}

#[tokio::test]
async fn a_missing_shard_makes_a_search_incomplete() {
    let bench = bench(notes(10)).await;
    bench.leaf.unavailable.lock().insert(0);
    assert_eq!(
        bench
            .search(SearchQuery::default())
            .await
            .map(|answer| answer.total)
            .map_err(|p| p.code),
        Err(Code::Incomplete)
    );
    let partial = bench
        .search(SearchQuery {
            options: QueryOptions {
                allow_partial: true,
                ..QueryOptions::default()
            },
            ..SearchQuery::default()
        })
        .await
        .expect("hits");
    assert_eq!((partial.total, partial.stats.partial), (5, true));
}

#[tokio::test]
async fn a_document_is_found_by_its_key_and_by_its_address() {
    let bench = bench([json!({ "_id": "k" }), json!({ "n": 1 })]).await;
    let document = bench
        .engine
        .document(&events(), "k")
        .await
        .expect("a lookup")
        .expect("a document");
    assert_eq!(&document.bytes[..], br#"{"_id":"k"}"#);
    assert_eq!(
        bench.engine.document(&events(), "unknown").await.expect("a lookup"),
        None
    );
    let paths: Vec<String> = bench
        .engine
        .fields(&events())
        .await
        .expect("fields")
        .fields
        .into_iter()
        .map(|field| field.path.to_string())
        .collect();
    assert!(
        paths.contains(&"n".to_owned()) && paths.contains(&"_id".to_owned()),
        "{paths:?}"
    );
}
