//! Searches that are sorted by a field, which leaves cannot compute.

use std::collections::BTreeSet;

use proto::Code;
use serde_json::json;

use super::{
    search_support::{sales, search_query, values},
    *,
};
use crate::answer::SearchQuery;

#[tokio::test]
async fn a_search_sorts_by_a_field() {
    let bench = bench(sales(40)).await;
    bench.sql("create field events.price as cents / 100").await;
    let sorted = |sort: &str| SearchQuery {
        sort: Some(sort.into()),
        limit: Some(3),
        ..search_query("events", "gift")
    };
    let answer = bench.run_search(sorted("price:desc")).await;
    assert_eq!(
        (values(&answer, "cents"), answer.total),
        (vec![json!(400), json!(400), json!(300)], 14)
    );
    assert!(
        answer
            .hits
            .iter()
            .all(|hit| hit.json && !hit.id.is_empty() && hit.id == hit.address),
        "{:?}",
        answer.hits
    );
    assert_eq!(
        values(&bench.run_search(sorted("price")).await, "cents"),
        [json!(0), json!(0), json!(100)]
    );
    assert_eq!(
        values(&bench.run_search(sorted("PRICE:desc")).await, "cents"),
        [json!(400), json!(400), json!(300)]
    );
    bench.until_released().await;
}

#[tokio::test]
async fn pages_sorted_by_a_field_contain_every_match_once() {
    let bench = bench(sales(101)).await;
    for field in [
        "price as cents / 100",
        "label as cents",
        "bought as to_timestamp_seconds(n / 10)",
        "name as upper(user.name)",
        "one as 1",
        "none as null",
    ] {
        bench.sql(&format!("create field events.{field}")).await;
    }
    for (sort, limit) in [
        ("price", 7),
        ("price:desc", 9),
        ("label", 4),
        ("label:desc", 50),
        ("bought:desc", 10),
        ("name", 101),
        ("name:desc", 1),
        ("one", 8),
        ("none:desc", 30),
    ] {
        let documents = bench
            .all_pages(SearchQuery {
                sort: Some(sort.into()),
                limit: Some(limit),
                ..search_query("events", "")
            })
            .await;
        assert_eq!(
            (documents.len(), documents.iter().collect::<BTreeSet<_>>().len()),
            (101, 101),
            "{sort}"
        );
    }
}

#[tokio::test]
async fn hits_sorted_by_a_field_have_the_order_of_order_by() {
    let bench = bench(sales(60)).await;
    bench.sql("create field events.label as cents").await;
    for (sort, order) in [("label", "label"), ("label:desc", "label desc nulls last")] {
        let answer = bench
            .run_search(SearchQuery {
                sort: Some(sort.into()),
                limit: Some(60),
                ..search_query("events", "")
            })
            .await;
        let values: Vec<String> = values(&answer, "n").iter().map(ToString::to_string).collect();
        let (rows, _) = bench
            .sql(&format!(
                "select n from events order by {order}, _source, _partition, _offset"
            ))
            .await;
        assert_eq!(values, rows, "{sort}");
    }
}

#[tokio::test]
async fn a_page_of_many_matches_reads_few_documents_in_full() {
    let bench = bench((0..12_000).map(|n| json!({ "n": n, "text": "x".repeat(100) }))).await;
    bench.sql("create field events.minus as 0 - n").await;
    let answer = bench
        .run_search(SearchQuery {
            sort: Some("minus".into()),
            limit: Some(5),
            ..search_query("events", "")
        })
        .await;
    assert_eq!(
        (values(&answer, "n"), answer.total),
        (
            vec![
                json!(11_999),
                json!(11_998),
                json!(11_997),
                json!(11_996),
                json!(11_995)
            ],
            12_000
        )
    );
    let reads_documents =
        |request: &&plan::scan::ScanRequest| request.columns.iter().any(|column| column.name() == "_doc");
    let requests = bench.leaf.requests.lock().clone();
    assert!(
        requests
            .iter()
            .filter(reads_documents)
            .all(|request| !request.filter.is_empty()),
        "documents are read in full only up to the last key"
    );
}

#[tokio::test]
async fn from_and_to_limit_a_search_sorted_by_a_field() {
    let bench = bench(sales(40)).await;
    bench.sql("create field events.price as cents / 100").await;
    let bounded = SearchQuery {
        from: Some("1970-01-01T00:00:02Z".into()),
        to: Some("5".into()),
        sort: Some("price".into()),
        ..search_query("events", "")
    };
    assert_eq!(bench.run_search(bounded).await.total, 12);
    assert!(bench.filters().contains("_time >= "), "{}", bench.filters());
}

#[tokio::test]
async fn a_cursor_ends_with_the_definitions_that_its_search_uses() {
    let bench = bench(sales(40)).await;
    for statement in [
        "create field events.price as cents / 100",
        "create field events.amount as cents",
        "create field events.other as n",
        "create view gifts as select _time, n, price from events where search('gift')",
    ] {
        bench.sql(statement).await;
    }
    let page = |collection: &str, sort: &str, after: Option<&String>| SearchQuery {
        sort: Some(sort.into()),
        limit: Some(3),
        after: after.cloned(),
        ..search_query(collection, "")
    };
    let searches = [
        ("events", "price"),
        ("events", "amount"),
        ("gifts", "price"),
        ("events", "n"),
    ];
    let mut cursors = Vec::new();
    for (collection, sort) in searches {
        cursors.push(bench.run_search(page(collection, sort, None)).await.after.expect(sort));
    }
    bench.sql("create or replace field events.other as n + 1").await;
    for ((collection, sort), after) in searches.into_iter().zip(&cursors) {
        bench.run_search(page(collection, sort, Some(after))).await;
    }

    bench.sql("create or replace field events.price as cents / 50").await;
    bench.sql("drop field events.amount").await;
    bench.sql("create field events.amount as cents + 1").await;
    for ((collection, sort), after) in searches.into_iter().zip(&cursors) {
        if sort == "n" {
            bench.run_search(page(collection, sort, Some(after))).await;
            continue;
        }
        let problem = bench.search_error(page(collection, sort, Some(after))).await;
        assert_eq!(
            (problem.code, problem.hint.as_deref()),
            (Code::BadRequest, Some("start again without `after`")),
            "{collection} by {sort}: {problem}"
        );
    }
    bench.sql("revert field events.price to 1").await;
    bench.run_search(page("events", "price", cursors.first())).await;
}
