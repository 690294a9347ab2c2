//! What a search may say: patterns, similar words, relative times, networks, in documents, fields and views.

use chrono::{Duration, SecondsFormat, Utc};
use proto::Code;
use serde_json::json;

use super::{search_support::search_query, *};
use crate::answer::SearchQuery;

/// Log entries of the last hours. `at` is a text or a number.
fn entries() -> Vec<Value> {
    let hours_ago = |hours: i64| Utc::now() - Duration::hours(hours);
    let text = |hours: i64| json!(hours_ago(hours).to_rfc3339_opts(SecondsFormat::Millis, true));
    let seconds = |hours: i64| json!(hours_ago(hours).timestamp());
    vec![
        json!({ "_id": "a", "when": text(0), "msg": "Disk full on db-1", "ip": "10.0.3.4", "mail": "ann@example.org" }),
        json!({ "_id": "b", "when": seconds(2), "msg": "the disk is nearly full", "ip": "10.1.0.1", "mail": "bob@example.com" }),
        json!({ "_id": "c", "when": text(30), "msg": "dusk fell from 10.0.9.9:80", "ip": "2001:db8::7", "mail": "eve@example.org" }),
        json!({ "_id": "d", "when": seconds(24 * 60), "msg": ["errno 7", "network error"], "ip": "none" }),
    ]
}

const SEARCHES: &[(&str, &[&str])] = &[
    ("msg:d?sk", &["a", "b", "c"]),
    ("*isk", &["a", "b"]),
    ("msg:f*l*", &["a", "b", "c"]),
    ("mail:*@example.org", &["a", "c"]),
    ("mail:???@EXAMPLE.*", &["a", "b", "c"]),
    ("msg:db-*", &[]),
    ("disk~1", &["a", "b", "c"]),
    ("dsik~", &["a", "b"]),
    ("msg:ful~1 NOT dusk", &["a", "b"]),
    ("\"disk full\"~2", &["a", "b"]),
    ("\"disk full\"~1", &["a"]),
    ("msg:\"full disk\"~2", &["a"]),
    ("\"errno error\"~9", &[]),
    ("msg:/err.*/", &["d"]),
    ("msg:/the .* full/", &["b"]),
    ("/[a-z]+ 7/", &["d"]),
    ("when:[now-1h TO now]", &["a"]),
    ("when:>=now-3h", &["a", "b"]),
    ("when:<now-1d", &["c", "d"]),
    ("when:[2020-01-01 TO now-1M]", &["d"]),
    ("ip:10.0.0.0/16", &["a"]),
    ("ip:10.0.0.0/8 OR ip:2001:db8::/32", &["a", "b", "c"]),
    ("msg:10.0.0.0/8", &["c"]),
    ("disk^2 OR (errno)^0.5", &["a", "b", "d"]),
];

async fn found(bench: &Bench, collection: &str, query: &str) -> Vec<String> {
    let answer = bench.run_search(search_query(collection, query)).await;
    let mut ids: Vec<String> = answer.hits.into_iter().map(|hit| hit.id).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_search_finds_the_same_in_documents_fields_and_views() {
    let bench = bench(entries()).await;
    for statement in [
        "create view shown as select _id, _time, \"when\", msg, ip, mail from events",
        "create view computed as select _id, _time, to_json(\"when\") as \"when\", to_json(msg) as msg, ip || '' as ip, \
         mail || '' as mail from events",
    ] {
        bench.sql(statement).await;
    }
    for (query, expected) in SEARCHES {
        for collection in ["events", "shown", "computed"] {
            assert_eq!(
                found(&bench, collection, query).await,
                *expected,
                "{query} in {collection}"
            );
        }
        let statement = format!(
            "select _id from events where search('{}') order by _id",
            query.replace('\'', "''")
        );
        for _ in 0..2 {
            assert_eq!(bench.sql(&statement).await.0, *expected, "{statement}");
        }
    }
    for field in ["text as msg", "shout as upper(mail)"] {
        bench.sql(&format!("create field events.{field}")).await;
    }
    for (query, expected) in [
        ("text:/network/", &["d"][..]),
        ("text:dis?", &["a", "b"]),
        ("shout:*@example.org", &["a", "c"]),
        ("shout:ann~1", &["a"]),
    ] {
        assert_eq!(found(&bench, "events", query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn from_and_to_may_be_relative_to_now() {
    let now = Utc::now().timestamp();
    let bench = bench([0, 2, 30].map(|hours| json!({ "at": now - hours * 3_600 }))).await;
    for (from, to, total) in [
        ("now-3h", "now-1h", 1),
        ("now-2d", "now+1m", 3),
        ("now-3h", "2100-01-01", 2),
    ] {
        let request = SearchQuery {
            from: Some(from.into()),
            to: Some(to.into()),
            ..search_query("events", "")
        };
        assert_eq!(bench.run_search(request).await.total, total, "{from} to {to}");
    }
    let wrong = SearchQuery {
        from: Some("now-3x".into()),
        ..search_query("events", "")
    };
    assert_eq!(bench.search_error(wrong).await.code, Code::BadRequest);
}

#[tokio::test]
async fn a_relative_time_is_read_anew_each_time() {
    let bench = bench(entries()).await;
    let relative = "SELECT count(*) FROM events WHERE search('when:>now-1h')";
    let fixed = "SELECT count(*) FROM events WHERE search('when:>2026-01-31')";
    for statement in [relative, fixed] {
        bench.sql(statement).await;
    }
    assert!(!bench.engine.plans.has(relative) && bench.engine.plans.has(fixed));
}

#[tokio::test]
async fn words_that_may_mean_something_else_are_a_warning() {
    let bench = bench(entries()).await;
    let answer = bench.run_search(search_query("events", "disk and full")).await;
    assert_eq!(answer.stats.warnings.len(), 1, "{:?}", answer.stats.warnings);
    assert!(
        answer.stats.warnings[0].contains("write AND"),
        "{:?}",
        answer.stats.warnings
    );
    let (_, stats) = bench.sql("SELECT count(*) FROM events WHERE search('C++')").await;
    assert!(stats.warnings[0].contains("the word `c`"), "{:?}", stats.warnings);
}
