//! Searches of views, and `search` in SQL statements.

use proto::Code;
use serde_json::json;

use super::{
    search_support::{sales, search_query, values},
    *,
};
use crate::answer::{QueryOptions, SearchQuery};

#[tokio::test]
async fn rows_of_a_view_are_hits() {
    let bench = bench(sales(40)).await;
    bench
        .sql("create view bought as select _id, _time, cents / 100 as price, user from events where cents < 1000")
        .await;
    let answer = bench
        .run_search(SearchQuery {
            limit: Some(2),
            ..search_query("bought", "user.name:3 AND price:>0")
        })
        .await;
    assert_eq!(answer.total, 5);
    let first: Value = serde_json::from_str(&answer.hits[0].document).expect("JSON");
    assert_eq!(
        first,
        json!({ "_id": answer.hits[0].id, "_time": "1970-01-01T00:00:09Z", "price": 3.0, "user": { "name": "user 3" } })
    );
    assert!(
        answer
            .hits
            .iter()
            .all(|hit| hit.json && hit.id.starts_with("push/") && hit.address.is_empty()),
        "{:?}",
        answer.hits
    );
    bench
        .sql("create view addressed as select _source, _partition, _offset from events")
        .await;
    let answer = bench
        .run_search(SearchQuery {
            limit: Some(1),
            sort: Some("_offset:desc".into()),
            ..search_query("addressed", "")
        })
        .await;
    assert_eq!(
        (answer.hits[0].id.as_str(), answer.hits[0].address.as_str()),
        ("", "push/0@19")
    );
    bench.until_released().await;
}

#[tokio::test]
async fn words_are_searched_in_every_column_of_a_view() {
    let bench = bench(sales(30)).await;
    bench
        .sql("create view names as select upper(user.name) as loud, n * 1000 as big, tags from events")
        .await;
    for (query, expected) in [
        ("user", 30),
        ("gift", 10),
        ("7000", 1),
        ("\"user 3\"", 6),
        ("loud:gift", 0),
        ("gift AND NOT loud:1", 8),
        ("*", 30),
    ] {
        assert_eq!(
            bench.run_search(search_query("names", query)).await.total,
            expected,
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_view_of_paths_matches_like_its_documents_and_uses_the_index() {
    let bench = bench(sales(60)).await;
    bench
        .sql("create view shown as select _id, n, cents, tags, user from events")
        .await;
    let queries = [
        "cents:300",
        "cents:>=300",
        "cents:[100 TO 300}",
        "cents:free",
        "cents:*",
        "-cents:*",
        "tags:new",
        "tags.kind:gift",
        "tags.kind:*",
        "tags:*",
        "user.name:\"user 3\"",
        "user.name:us*",
        "user:*",
        "user:3",
        "NOT user.name:3 AND cents:>0",
        "tags:gift OR n:7",
        "tags[1].kind:gift",
    ];
    for query in queries {
        let (view, documents) = (
            bench.run_search(search_query("shown", query)).await,
            bench.run_search(search_query("events", query)).await,
        );
        assert_eq!(view.total, documents.total, "{query}");
    }
    bench.leaf.requests.lock().clear();
    bench.run_search(search_query("shown", "user.name:3 free")).await;
    let filters = bench.filters();
    assert!(
        filters.contains(r#"?{"in":"user.name","words":"3"}"#) && filters.contains(r#"?{"words":"free"}"#),
        "{filters}"
    );
}

#[tokio::test]
async fn the_index_finds_only_values_that_a_view_has() {
    // A path does not lead into a list, although a search of documents also looks into lists.
    let bench = bench((0..20).map(|n| match n % 4 {
        0 => json!({ "n": n, "a": [{ "b": "red" }, { "b": { "c": "blue" } }] }),
        1 => json!({ "n": n, "a": { "b": ["red", ["blue"], { "c": "blue" }] } }),
        2 => json!({ "n": n, "a": { "b": { "c": [1, null, "blue"] } }, "other": "red" }),
        _ => json!({ "n": n, "a": { "b": null }, "b": "blue" }),
    }))
    .await;
    bench
        .sql("create view inner_values as select n, a.b as b, a.b.c as c from events")
        .await;
    for query in [
        "b:red",
        "b:blue",
        "red",
        "blue",
        "b.c:blue",
        "c:blue",
        "c:1",
        "b:*",
        "c:*",
        "-b:*",
        "NOT red",
        "b:r* OR c:[1 TO 2]",
        "NOT (blue OR n:3)",
    ] {
        let by_index = bench
            .sql(&format!(
                "select n from inner_values where search('{query}') order by n"
            ))
            .await
            .0;
        let by_value = bench
            .sql(&format!(
                "select n from (select * from inner_values limit 1000) v where search('{query}') order by n"
            ))
            .await
            .0;
        assert_eq!(by_index, by_value, "{query}");
    }
    let rows = bench
        .sql("select n from inner_values where search('b:red') order by n")
        .await
        .0;
    assert_eq!(rows, ["1", "5", "9", "13", "17"]);
}

#[tokio::test]
async fn pages_of_any_view_contain_every_row_once() {
    let bench = bench(sales(101)).await;
    bench.sql("create view counted as select cents, count(*) as sales, sum(n) as total, avg(n) as mean from events group by cents").await;
    bench
        .sql("create view alike as select n % 3 as third from events")
        .await;
    bench
        .sql("create view timed as select _time, tags, n from events")
        .await;
    for (view, sort, limit) in [
        ("counted", Some("sales:desc"), 2),
        ("counted", Some("total"), 1),
        ("counted", Some("mean:desc"), 3),
        ("counted", Some("cents"), 4),
        ("counted", None, 5),
        ("alike", Some("third"), 8),
        ("alike", None, 100),
        ("timed", None, 3),
        ("timed", Some("_time:asc"), 10),
        ("timed", Some("tags"), 9),
    ] {
        let mut pages = bench
            .all_pages(SearchQuery {
                sort: sort.map(str::to_owned),
                limit: Some(limit),
                ..search_query(view, "")
            })
            .await;
        let whole = bench
            .run_search(SearchQuery {
                limit: Some(1_000),
                ..search_query(view, "")
            })
            .await;
        let mut all: Vec<String> = whole.hits.into_iter().map(|hit| hit.document).collect();
        pages.sort_unstable();
        all.sort_unstable();
        assert_eq!(pages, all, "{view} by {sort:?}");
        assert_eq!(whole.total, all.len() as u64, "{view}");
    }
}

#[tokio::test]
async fn the_newest_rows_of_a_view_come_first_and_their_keys_are_pushed_down() {
    let bench = bench((0..11_000).map(|n| json!({ "n": n, "at": n }))).await;
    bench.sql("create view timed as select _time, n from events").await;
    bench.leaf.requests.lock().clear();
    let answer = bench
        .run_search(SearchQuery {
            limit: Some(3),
            ..search_query("timed", "")
        })
        .await;
    assert_eq!(
        (values(&answer, "n"), answer.total),
        (vec![json!(10_999), json!(10_998), json!(10_997)], 11_000)
    );
    let requests = bench.leaf.requests.lock();
    assert!(
        requests
            .iter()
            .any(|request| matches!(request.stage, plan::scan::Stage::Top { limit: 3, .. })),
        "{requests:?}"
    );
    assert!(
        requests
            .iter()
            .any(|request| matches!(request.stage, plan::scan::Stage::Partial(_))),
        "{requests:?}"
    );
}

#[tokio::test]
async fn from_and_to_need_a_view_with_time() {
    let bench = bench(sales(10)).await;
    bench.sql("create view plain as select n, tags from events").await;
    let from = bench
        .search_error(SearchQuery {
            from: Some("2026-01-01".into()),
            ..search_query("plain", "")
        })
        .await;
    assert_eq!(
        (from.code, from.detail.contains("_time"), from.hint.is_some()),
        (Code::BadRequest, true, true)
    );
}

#[tokio::test]
async fn unknown_columns_and_unsortable_types_are_errors() {
    let bench = bench(sales(10)).await;
    bench.sql("create view plain as select n, tags from events").await;
    bench
        .sql("create view lists as select array_agg(n) as all_n from events group by user.name")
        .await;
    let sorted = |view: &str, sort: &str| SearchQuery {
        sort: Some(sort.into()),
        ..search_query(view, "")
    };
    for request in [sorted("plain", "nothing"), search_query("plain", "nothing:1")] {
        let unknown = bench.search_error(request).await;
        assert_eq!(
            (unknown.code, unknown.detail.as_str()),
            (Code::BadSql, "column nothing does not exist")
        );
    }
    let list = bench.search_error(sorted("lists", "all_n")).await;
    assert_eq!(list.code, Code::NotSupported);
}

#[tokio::test]
async fn a_cursor_is_valid_only_for_its_sort_order() {
    let bench = bench(sales(10)).await;
    bench.sql("create view plain as select n, tags from events").await;
    let page = bench
        .run_search(SearchQuery {
            limit: Some(2),
            sort: Some("n".into()),
            ..search_query("plain", "")
        })
        .await;
    let other_order = bench
        .search_error(SearchQuery {
            after: page.after,
            sort: Some("n:desc".into()),
            ..search_query("plain", "")
        })
        .await;
    assert_eq!(other_order.code, Code::BadRequest);
    let malformed = bench
        .search_error(SearchQuery {
            after: Some("x".into()),
            ..search_query("plain", "")
        })
        .await;
    assert_eq!(malformed.code, Code::BadRequest);
}

#[tokio::test]
async fn a_missing_shard_makes_a_search_of_a_view_incomplete() {
    let bench = bench(sales(10)).await;
    bench.sql("create view plain as select n from events").await;
    bench.leaf.unavailable.lock().insert(0);
    assert_eq!(
        bench.search_error(search_query("plain", "")).await.code,
        Code::Incomplete
    );
    let partial = bench
        .run_search(SearchQuery {
            options: QueryOptions {
                allow_partial: true,
                ..QueryOptions::default()
            },
            ..search_query("plain", "")
        })
        .await;
    assert_eq!((partial.total, partial.stats.partial), (5, true));
}

#[tokio::test]
async fn search_works_in_statements_over_views_subqueries_and_common_table_expressions() {
    let bench = bench(sales(30)).await;
    bench.sql("create view named as select n, user from events").await;
    let table = [
        ("select count(*) from named where search('user.name:3')", "6"),
        (
            "select count(*) from named v where search(v, 'user.name:3') and n > 10",
            "4",
        ),
        (
            "select count(*) from (select user.name as who from events) t where search('who:3 who:user')",
            "6",
        ),
        (
            "with t as (select user.name as who, count(*) as c from events group by 1) select who from t where search('c:6 AND 2')",
            "\"user 2\"",
        ),
        (
            "select count(*) from events e join named v on e.n = v.n where search(v, 'user.name:3') and search(e, 'gift')",
            "2",
        ),
        (
            "select count(*) from events e join named v on e.n = v.n where search('gift')",
            "10",
        ),
        (
            "select count(*) from rachis.definitions where search('kind:view named')",
            "1",
        ),
    ];
    for (sql, expected) in table {
        assert_eq!(
            bench
                .sql(sql)
                .await
                .0
                .iter()
                .map(|row| row.trim_matches('"'))
                .collect::<Vec<_>>(),
            [expected.trim_matches('"')],
            "{sql}"
        );
    }
    let ambiguous = bench
        .try_sql("select 1 from named a join named b on a.n = b.n where search('x')")
        .await
        .map(|_| ())
        .expect_err("two inputs");
    assert_eq!(
        (ambiguous.code, ambiguous.detail.as_str()),
        (Code::BadSql, "search is ambiguous: it could search several tables")
    );
}

#[tokio::test]
async fn a_version_of_a_view_is_searched_and_described_by_its_number_or_tag() {
    let bench = bench(sales(10)).await;
    for statement in [
        "create view slow as select n from events where n > 7",
        "create or replace view slow as select n, cents from events where n > 5",
        "alter view slow set tag prod to 1",
    ] {
        bench.sql(statement).await;
    }
    for (name, total, columns) in [
        ("slow", 4, vec!["n", "cents"]),
        ("slow@2", 4, vec!["n", "cents"]),
        ("slow@1", 2, vec!["n"]),
        ("slow@prod", 2, vec!["n"]),
    ] {
        assert_eq!(bench.run_search(search_query(name, "")).await.total, total, "{name}");
        let (described, _) = bench.sql(&format!("describe {name}")).await;
        let names: Vec<&str> = described.iter().filter_map(|row| row.split(' ').next()).collect();
        assert_eq!(names, columns, "{name}");
    }
    let problem = bench.search_error(search_query("slow@9", "")).await;
    assert!(problem.detail.contains("has no version 9"), "{problem}");
}
