//! Searches that a leaf does not order itself: by a field, and of views.

use std::collections::BTreeSet;

use proto::Code;
use serde_json::json;

use super::*;
use crate::answer::{How, SearchAnswer, SearchQuestion};

/// Sales: an amount that repeats, some without one, one that is a text; tags in a list.
fn sales(count: i64) -> impl Iterator<Item = Value> {
    (0..count).map(|n| {
        let cents = match n % 7 {
            5 => Value::Null,
            6 => json!("free"),
            rest => json!(rest * 100 + n / 50),
        };
        let tags = if n % 3 == 0 {
            json!(["new", { "kind": "gift" }])
        } else {
            json!("old")
        };
        json!({ "n": n, "at": n / 4, "cents": cents, "tags": tags, "user": { "name": format!("user {}", n % 5) } })
    })
}

fn question(of: &str, query: &str) -> SearchQuestion {
    SearchQuestion {
        collection: of.into(),
        query: query.into(),
        ..SearchQuestion::default()
    }
}

/// A value of each hit's document.
fn shown(found: &SearchAnswer, key: &str) -> Vec<Value> {
    found
        .hits
        .iter()
        .map(|hit| serde_json::from_str::<Value>(&hit.document).expect("JSON")[key].clone())
        .collect()
}

impl Bench {
    async fn found(&self, question: SearchQuestion) -> SearchAnswer {
        self.engine
            .search(question.clone())
            .await
            .unwrap_or_else(|problem| panic!("{question:?}: {problem}"))
    }

    async fn refused(&self, question: SearchQuestion) -> Problem {
        self.engine
            .search(question.clone())
            .await
            .map(|found| found.total)
            .expect_err(&format!("{question:?}"))
    }

    /// The documents of all pages.
    async fn all_pages(&self, question: SearchQuestion) -> Vec<String> {
        let (mut documents, mut after) = (Vec::new(), None);
        loop {
            let page = self
                .found(SearchQuestion {
                    after,
                    ..question.clone()
                })
                .await;
            assert!(
                page.hits.len() <= question.limit.unwrap_or(20),
                "a page is no longer than asked"
            );
            assert!(documents.len() as u64 <= page.total, "the pages of {question:?} end");
            documents.extend(page.hits.into_iter().map(|hit| hit.document));
            match page.after {
                Some(next) => after = Some(next),
                None => return documents,
            }
        }
    }

    /// The conditions that the leaf was given.
    fn conditions(&self) -> String {
        let requests = self.leaf.requests.lock();
        requests
            .iter()
            .flat_map(|request| &request.filter)
            .map(|condition| format!("{condition}\n"))
            .collect()
    }
}

#[tokio::test]
async fn a_search_sorts_by_a_field() {
    let bench = bench(sales(40)).await;
    bench.sql("create field events.price as cents / 100").await;
    let sorted = |sort: &str| SearchQuestion {
        sort: Some(sort.into()),
        limit: Some(3),
        ..question("events", "gift")
    };
    let found = bench.found(sorted("price:desc")).await;
    assert_eq!(
        (shown(&found, "cents"), found.total),
        (vec![json!(400), json!(400), json!(300)], 14)
    );
    assert!(
        found
            .hits
            .iter()
            .all(|hit| hit.json && !hit.id.is_empty() && hit.id == hit.address),
        "{:?}",
        found.hits
    );
    assert_eq!(
        shown(&bench.found(sorted("price")).await, "cents"),
        [json!(0), json!(0), json!(100)]
    );
    assert_eq!(
        shown(&bench.found(sorted("PRICE:desc")).await, "cents"),
        [json!(400), json!(400), json!(300)]
    );
    bench.until_let_go().await;
}

#[tokio::test]
async fn pages_by_a_field_hold_every_match_exactly_once() {
    let bench = bench(sales(101)).await;
    for field in [
        "price as cents / 100",
        "label as cents",
        "bought as to_timestamp_seconds(n / 10)",
        "name as upper(user.name)",
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
    ] {
        let documents = bench
            .all_pages(SearchQuestion {
                sort: Some(sort.into()),
                limit: Some(limit),
                ..question("events", "")
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
async fn hits_by_a_field_come_in_the_order_of_order_by() {
    let bench = bench(sales(60)).await;
    bench.sql("create field events.label as cents").await;
    for (sort, order) in [("label", "label"), ("label:desc", "label desc nulls last")] {
        let found = bench
            .found(SearchQuestion {
                sort: Some(sort.into()),
                limit: Some(60),
                ..question("events", "")
            })
            .await;
        let shown: Vec<String> = shown(&found, "n").iter().map(ToString::to_string).collect();
        let (rows, _) = bench
            .sql(&format!(
                "select n from events order by {order}, _source, _partition, _offset"
            ))
            .await;
        assert_eq!(shown, rows, "{sort}");
    }
}

#[tokio::test]
async fn a_page_of_many_matches_reads_few_whole_documents() {
    let bench = bench((0..12_000).map(|n| json!({ "n": n, "text": "x".repeat(100) }))).await;
    bench.sql("create field events.minus as 0 - n").await;
    let found = bench
        .found(SearchQuestion {
            sort: Some("minus".into()),
            limit: Some(5),
            ..question("events", "")
        })
        .await;
    assert_eq!(
        (shown(&found, "n"), found.total),
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
    let whole = |request: &&plan::scan::ScanRequest| request.columns.iter().any(|column| column.name() == "_doc");
    let requests = bench.leaf.requests.lock().clone();
    assert!(
        requests.iter().filter(whole).all(|request| !request.filter.is_empty()),
        "whole documents are read up to the last key"
    );
}

#[tokio::test]
async fn from_and_to_bound_a_search_by_a_field_too() {
    let bench = bench(sales(40)).await;
    bench.sql("create field events.price as cents / 100").await;
    let bounded = SearchQuestion {
        from: Some("1970-01-01T00:00:02Z".into()),
        to: Some("5".into()),
        sort: Some("price".into()),
        ..question("events", "")
    };
    assert_eq!(bench.found(bounded).await.total, 12);
    assert!(bench.conditions().contains("_time >= "), "{}", bench.conditions());
}

#[tokio::test]
async fn rows_of_a_view_are_hits() {
    let bench = bench(sales(40)).await;
    bench
        .sql("create view bought as select _id, _time, cents / 100 as price, user from events where cents < 1000")
        .await;
    let found = bench
        .found(SearchQuestion {
            limit: Some(2),
            ..question("bought", "user.name:3 AND price:>0")
        })
        .await;
    assert_eq!(found.total, 5);
    let first: Value = serde_json::from_str(&found.hits[0].document).expect("JSON");
    assert_eq!(
        first,
        json!({ "_id": found.hits[0].id, "_time": "1970-01-01T00:00:09Z", "price": 3.0, "user": { "name": "user 3" } })
    );
    assert!(
        found
            .hits
            .iter()
            .all(|hit| hit.json && hit.id.starts_with("push/") && hit.address.is_empty()),
        "{:?}",
        found.hits
    );
    bench
        .sql("create view addressed as select _source, _partition, _offset from events")
        .await;
    let found = bench
        .found(SearchQuestion {
            limit: Some(1),
            sort: Some("_offset:desc".into()),
            ..question("addressed", "")
        })
        .await;
    assert_eq!(
        (found.hits[0].id.as_str(), found.hits[0].address.as_str()),
        ("", "push/0@19")
    );
    bench.until_let_go().await;
}

#[tokio::test]
async fn words_are_looked_for_in_every_column_of_a_view() {
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
        assert_eq!(bench.found(question("names", query)).await.total, expected, "{query}");
    }
}

#[tokio::test]
async fn a_view_of_paths_is_searched_as_its_documents_are_and_by_the_index() {
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
        let (of_view, of_documents) = (
            bench.found(question("shown", query)).await,
            bench.found(question("events", query)).await,
        );
        assert_eq!(of_view.total, of_documents.total, "{query}");
    }
    bench.leaf.requests.lock().clear();
    bench.found(question("shown", "user.name:3 free")).await;
    let asked = bench.conditions();
    assert!(
        asked.contains(r#"?{"in":"user.name","words":"3"}"#) && asked.contains(r#"?{"words":"free"}"#),
        "{asked}"
    );
}

#[tokio::test]
async fn the_index_never_finds_what_a_view_does_not_show() {
    // Behind a list there is no value at this path, though a search of documents looks there.
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
    let found = bench
        .sql("select n from inner_values where search('b:red') order by n")
        .await
        .0;
    assert_eq!(found, ["1", "5", "9", "13", "17"]);
}

#[tokio::test]
async fn a_view_is_paged_whatever_its_rows_are() {
    let bench = bench(sales(101)).await;
    bench.sql("create view counted as select cents, count(*) as sales, sum(n) as total, avg(n) as mean from events group by cents").await;
    bench
        .sql("create view alike as select n % 3 as third from events")
        .await;
    bench
        .sql("create view timed as select _time, tags, n from events")
        .await;
    for (of, sort, limit) in [
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
            .all_pages(SearchQuestion {
                sort: sort.map(str::to_owned),
                limit: Some(limit),
                ..question(of, "")
            })
            .await;
        let whole = bench
            .found(SearchQuestion {
                limit: Some(1_000),
                ..question(of, "")
            })
            .await;
        let mut all: Vec<String> = whole.hits.into_iter().map(|hit| hit.document).collect();
        pages.sort_unstable();
        all.sort_unstable();
        assert_eq!(pages, all, "{of} by {sort:?}");
        assert_eq!(whole.total, all.len() as u64, "{of}");
    }
}

#[tokio::test]
async fn the_newest_rows_of_a_view_come_first_and_the_leaf_chooses_their_keys() {
    let bench = bench((0..11_000).map(|n| json!({ "n": n, "at": n }))).await;
    bench.sql("create view timed as select _time, n from events").await;
    bench.leaf.requests.lock().clear();
    let found = bench
        .found(SearchQuestion {
            limit: Some(3),
            ..question("timed", "")
        })
        .await;
    assert_eq!(
        (shown(&found, "n"), found.total),
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
async fn what_a_view_cannot_be_asked_is_told() {
    let bench = bench(sales(10)).await;
    bench.sql("create view plain as select n, tags from events").await;
    bench
        .sql("create view lists as select array_agg(n) as all_n from events group by user.name")
        .await;
    let from = bench
        .refused(SearchQuestion {
            from: Some("2026-01-01".into()),
            ..question("plain", "")
        })
        .await;
    assert_eq!(
        (from.code, from.detail.contains("_time"), from.hint.is_some()),
        (Code::BadRequest, true, true)
    );
    let sort = bench
        .refused(SearchQuestion {
            sort: Some("nothing".into()),
            ..question("plain", "")
        })
        .await;
    assert_eq!(
        (sort.code, sort.detail.as_str()),
        (Code::BadSql, "there is no column nothing")
    );
    let name = bench.refused(question("plain", "nothing:1")).await;
    assert_eq!(
        (name.code, name.detail.as_str()),
        (Code::BadSql, "there is no column nothing")
    );
    let list = bench
        .refused(SearchQuestion {
            sort: Some("all_n".into()),
            ..question("lists", "")
        })
        .await;
    assert_eq!(list.code, Code::NotSupported);
    let page = bench
        .found(SearchQuestion {
            limit: Some(2),
            sort: Some("n".into()),
            ..question("plain", "")
        })
        .await;
    let other = bench
        .refused(SearchQuestion {
            after: page.after,
            sort: Some("n:desc".into()),
            ..question("plain", "")
        })
        .await;
    assert_eq!(other.code, Code::BadRequest);
    assert_eq!(
        bench
            .refused(SearchQuestion {
                after: Some("x".into()),
                ..question("plain", "")
            })
            .await
            .code,
        Code::BadRequest
    );
}

#[tokio::test]
async fn a_missing_shard_is_told_in_a_search_of_a_view_too() {
    let bench = bench(sales(10)).await;
    bench.sql("create view plain as select n from events").await;
    bench.leaf.away.lock().insert(0);
    assert_eq!(bench.refused(question("plain", "")).await.code, Code::Incomplete);
    let partial = bench
        .found(SearchQuestion {
            how: How {
                allow_partial: true,
                ..How::default()
            },
            ..question("plain", "")
        })
        .await;
    assert_eq!((partial.total, partial.stats.partial), (5, true));
}

#[tokio::test]
async fn search_stands_in_statements_over_views_sub_queries_and_with_queries() {
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
    let unsaid = bench
        .try_sql("select 1 from named a join named b on a.n = b.n where search('x')")
        .await
        .map(|_| ())
        .expect_err("two inputs");
    assert_eq!(
        (unsaid.code, unsaid.detail.as_str()),
        (Code::BadSql, "search does not say where")
    );
}
