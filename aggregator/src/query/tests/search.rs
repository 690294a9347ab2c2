//! Searches of a collection: pages, sort orders, totals, errors.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use plan::scan::Stage;
use proto::Code;
use serde_json::json;

use super::{fake::sent_push, *};
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
async fn a_page_takes_one_scan_and_the_next_one_has_the_same_plan() {
    let bench = bench(notes(101)).await;
    let pages = [
        (None, 30),
        (Some("size:desc"), 20),
        (Some("n"), 25),
        (Some("level"), 40),
    ];
    for (sort, limit) in pages {
        bench.leaf.requests.lock().clear();
        let ids = bench
            .pages(SearchQuery {
                query: "error".into(),
                sort: sort.map(str::to_owned),
                limit: Some(limit),
                ..SearchQuery::default()
            })
            .await;
        let requests = bench.leaf.requests.lock().clone();
        assert_eq!((ids.len(), requests.len()), (51, 51 / limit + 1), "{sort:?}");
        for request in requests {
            assert!(
                matches!(&request.stage, Stage::Top { keys, limit: top, counts_all: true, .. } if (keys.len(), *top) == (1, limit)),
                "{request:?}"
            );
        }
    }
    assert_eq!(bench.engine.plans.size().0, pages.len());
}

/// Searches with the same template in each row.
const WITH_A_PLAN_EACH: [&[&str]; 9] = [
    &["", ""],
    &["error", "info", "\"error\"", "inf*", "7", "nothing"],
    &["level:error", "level:inf*", "level:*", "level:x"],
    &["n:>50", "n:[3 TO 9}", "n:7", "n:x"],
    &[
        "NOT size:big level:error",
        "NOT size:2 level:info",
        "NOT size:2 level:x",
    ],
    &["twice:8", "twice:>100", "twice:x"],
    &["_source:push", "_source:x"],
    &["one:1", "one:2"],
    &["error OR (n:3 twice:8)", "info OR (n:4 twice:8)", "x OR (n:* twice:*)"],
];

#[tokio::test]
async fn searches_that_differ_in_their_values_share_a_plan_and_find_what_a_new_one_would() {
    let bench = bench(notes(60)).await;
    bench.sql("create field events.twice as n * 2").await;
    bench.sql("create field events.one as 1").await;
    let found = async |query: &str, limit, from: Option<&str>, after| {
        let request = SearchQuery {
            query: query.into(),
            limit: Some(limit),
            from: from.map(str::to_owned),
            after,
            ..SearchQuery::default()
        };
        let answer = bench.search(request).await.unwrap_or_else(|e| panic!("{query}: {e}"));
        let ids: Vec<String> = answer.hits.into_iter().map(|hit| hit.id).collect();
        (ids, answer.total, answer.after, answer.stats.warnings)
    };
    let mut shared = Vec::new();
    for queries in WITH_A_PLAN_EACH {
        bench.engine.plans.clear();
        for query in queries {
            for (limit, from) in [(7, None), (0, None), (100, Some("3")), (3, Some("7"))] {
                let page = found(query, limit, from, None).await;
                let next = found(query, 5, from, page.2.clone()).await;
                shared.push((query, limit, from, page, next));
            }
        }
        let is_constant = queries[0].starts_with("one");
        assert!(
            is_constant || bench.engine.plans.size().0 == 1,
            "{queries:?}: {} plans",
            bench.engine.plans.size().0
        );
    }
    for (query, limit, from, page, next) in shared {
        bench.engine.plans.clear();
        assert_eq!(found(query, limit, from, None).await, page, "{query} {limit} {from:?}");
        bench.engine.plans.clear();
        assert_eq!(found(query, 5, from, page.2).await, next, "{query} {limit} {from:?}");
    }
}

#[tokio::test]
async fn a_search_with_a_plan_reads_the_scan_that_began_with_its_views() {
    let bench = bench(notes(20)).await;
    for (query, prefetched) in [("level:error", 0), ("level:info", 1)] {
        let request = SearchQuery {
            query: query.into(),
            ..SearchQuery::default()
        };
        assert_eq!(bench.search(request).await.expect("hits").total, 10, "{query}");
        let began = bench.leaf.prefetched.swap(0, Ordering::SeqCst);
        assert_eq!(began, prefetched, "{query}");
    }
    assert_eq!(bench.leaf.requests.lock().len(), 2);
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
async fn a_document_is_found_although_a_replica_that_is_behind_lacks_it() {
    let bench = bench([json!({ "_id": "k" })]).await;
    bench.leaf.is_replica_behind.store(true, Ordering::SeqCst);
    let found = async || bench.engine.document(&events(), "k").await.expect("a lookup").is_some();
    assert!(found().await, "it asks again for what a query would be answered from");
    let opened = bench.leaf.opened.load(Ordering::SeqCst);
    assert!(found().await, "it asks for what earlier answers had");
    assert_eq!(bench.leaf.opened.load(Ordering::SeqCst), opened, "no view is needed");
    bench.leaf.boot.store(1, Ordering::SeqCst);
    assert!(found().await, "the leaf may have lost what replaced the document");
    assert_eq!(
        bench.leaf.opened.load(Ordering::SeqCst),
        opened + 1,
        "as a query would find it"
    );
    assert!(found().await);
    assert_eq!(
        bench.leaf.opened.load(Ordering::SeqCst),
        opened + 1,
        "no view is needed"
    );
}

#[tokio::test]
async fn a_document_is_found_although_a_shard_without_it_is_away() {
    let bench = bench([json!({ "_id": "k" })]).await;
    bench.leaf.unavailable.lock().insert(1);
    let found = bench.engine.document(&events(), "k").await.expect("a lookup");
    assert!(found.is_some());
    let problem = bench.engine.document(&events(), "unknown").await;
    assert_eq!(
        problem.expect_err("it may be in the other shard").code,
        Code::Incomplete
    );
}

#[tokio::test]
async fn a_document_that_may_have_been_replaced_is_found_by_its_address_only() {
    let bench = bench([json!({ "_id": "k" }), json!({ "n": 1 }), json!({ "n": 2 })]).await;
    bench.leaf.waits.store(true, Ordering::SeqCst);
    *bench.tailer.rows.lock() = vec![sent_push(None, 99)];
    for _ in 0..2 {
        let problem = bench.engine.document(&events(), "k").await.expect_err("it is behind");
        assert_eq!(problem.code, Code::Incomplete, "{problem:?}");
        assert!(problem.detail.contains("lacks push/0@99"), "{problem:?}");
    }
    let at_address = bench.engine.document(&events(), "push/0@1").await;
    assert!(at_address.expect("a lookup").is_some());
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
