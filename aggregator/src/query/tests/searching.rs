//! Searches: pages, order, totals.

use std::collections::BTreeSet;

use proto::Code;
use serde_json::json;

use super::*;
use crate::answer::{How, SearchAnswer, SearchQuestion};

fn notes(count: i64) -> impl Iterator<Item = Value> {
    (0..count).map(|n| json!({ "n": n, "at": n / 4, "size": if n % 5 == 0 { json!("big") } else { json!(n % 3) }, "level": if n % 2 == 0 { "error" } else { "info" } }))
}

impl Bench {
    async fn search(&self, question: SearchQuestion) -> Result<SearchAnswer, Problem> {
        self.engine
            .search(SearchQuestion {
                collection: "events".into(),
                ..question
            })
            .await
    }

    /// All pages, hit by hit.
    async fn pages(&self, question: SearchQuestion) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self
                .search(SearchQuestion {
                    after: after.clone(),
                    ..question.clone()
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
async fn the_newest_come_first_and_the_total_is_exact() {
    let bench = bench(notes(50)).await;
    let found = bench
        .search(SearchQuestion {
            query: "error".into(),
            ..SearchQuestion::default()
        })
        .await
        .expect("hits");
    assert_eq!((found.hits.len(), found.total), (20, 25));
    let times: Vec<i64> = found
        .hits
        .iter()
        .map(|hit| {
            serde_json::from_str::<Value>(&hit.document).expect("JSON")["at"]
                .as_i64()
                .expect("a time")
        })
        .collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    assert!(found.hits.iter().all(|hit| hit.json && hit.id == hit.address));
    assert_eq!((found.stats.shards_answered, found.stats.documents_scanned), (2, 50));
    bench.until_let_go().await;
}

#[tokio::test]
async fn pages_hold_every_match_exactly_once() {
    let bench = bench(notes(101)).await;
    for (sort, limit) in [
        (None, 7),
        (Some("_time:asc"), 10),
        (Some("size"), 9),
        (Some("size:desc"), 1),
        (Some("n:desc"), 100),
        (Some("level"), 101),
        (Some("nowhere"), 13),
    ] {
        let ids = bench
            .pages(SearchQuestion {
                sort: sort.map(str::to_owned),
                limit: Some(limit),
                ..SearchQuestion::default()
            })
            .await;
        assert_eq!(ids.len(), 101, "{sort:?}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 101, "{sort:?}");
    }
}

#[tokio::test]
async fn from_and_to_bound_the_time() {
    let bench = bench(notes(40)).await;
    let question = SearchQuestion {
        from: Some("1970-01-01T00:00:02Z".into()),
        to: Some("5".into()),
        ..SearchQuestion::default()
    };
    assert_eq!(bench.search(question).await.expect("hits").total, 12);
}

#[tokio::test]
async fn a_total_needs_no_hits() {
    let bench = bench(notes(40)).await;
    let found = bench
        .search(SearchQuestion {
            query: "info".into(),
            limit: Some(0),
            ..SearchQuestion::default()
        })
        .await
        .expect("a total");
    assert_eq!((found.hits.len(), found.total, found.after), (0, 20, None));
}

#[tokio::test]
async fn what_cannot_be_searched_is_told() {
    let bench = bench(notes(3)).await;
    let wrong = [
        SearchQuestion {
            query: "(".into(),
            ..SearchQuestion::default()
        },
        SearchQuestion {
            limit: Some(10_001),
            ..SearchQuestion::default()
        },
        SearchQuestion {
            after: Some("x".into()),
            ..SearchQuestion::default()
        },
        SearchQuestion {
            from: Some("yesterday".into()),
            ..SearchQuestion::default()
        },
        SearchQuestion {
            sort: Some("a..b".into()),
            ..SearchQuestion::default()
        },
        SearchQuestion {
            sort: Some("_score".into()),
            ..SearchQuestion::default()
        },
    ];
    for question in wrong {
        let problem = bench
            .search(question.clone())
            .await
            .map(|found| found.total)
            .expect_err(&format!("{question:?}"));
        assert!(
            matches!(problem.code, Code::BadRequest | Code::BadSql | Code::NotSupported),
            "{question:?}: {problem:?}"
        );
    }
    let nowhere = bench
        .engine
        .search(SearchQuestion {
            collection: "nowhere".into(),
            ..SearchQuestion::default()
        })
        .await;
    assert_eq!(
        nowhere.map(|found| found.total).map_err(|p| p.code),
        Err(Code::NotFound)
    );
}

#[tokio::test]
async fn a_missing_shard_is_told_in_a_search_too() {
    let bench = bench(notes(10)).await;
    bench.leaf.away.lock().insert(0);
    assert_eq!(
        bench
            .search(SearchQuestion::default())
            .await
            .map(|found| found.total)
            .map_err(|p| p.code),
        Err(Code::Incomplete)
    );
    let partial = bench
        .search(SearchQuestion {
            how: How {
                allow_partial: true,
                ..How::default()
            },
            ..SearchQuestion::default()
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
        .expect("asked")
        .expect("there");
    assert_eq!(&document.bytes[..], br#"{"_id":"k"}"#);
    assert_eq!(bench.engine.document(&events(), "nobody").await.expect("asked"), None);
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
