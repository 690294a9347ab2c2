//! Marks around what a search found, in hits and in SQL.

use proto::Code;
use serde_json::json;

use super::{definitions::refused, search_support::search_query, *};
use crate::answer::SearchQuery;

fn messages() -> [Value; 4] {
    [
        json!({ "n": 1, "msg": "Disk full", "host": { "name": "web-1" }, "tags": ["disk", "Disk-2"] }),
        json!({ "n": 2, "msg": "disk is ok", "host": { "name": "disk" } }),
        json!({ "n": 3, "msg": 12, "host": { "name": "web-2" }, "size": 12 }),
        json!({ "n": 4, "msg": null, "tags": "full disk" }),
    ]
}

impl Bench {
    /// What was marked in each hit: `msg: <em>Disk</em> full; tags: <em>disk</em> | <em>Disk</em>-2`, by number.
    async fn marks(&self, name: &str, query: &str, highlight: &str) -> Vec<String> {
        let request = SearchQuery {
            highlight: Some(highlight.into()),
            sort: Some("n".into()),
            ..search_query(name, query)
        };
        let hits = self.run_search(request).await.hits;
        hits.iter()
            .map(|hit| {
                let found = hit.highlights.iter();
                let found = found.map(|found| format!("{}: {}", found.path, found.fragments.join(" | ")));
                found.collect::<Vec<_>>().join("; ")
            })
            .collect()
    }
}

#[tokio::test]
async fn hits_show_what_was_found_in_paths_fields_and_views() {
    let bench = bench(messages()).await;
    bench.sql("create field events.loud as upper(msg)").await;
    bench
        .sql("create view shown as select n, msg as text, host, loud from events")
        .await;
    for (name, query, highlight, expected) in [
        (
            "events",
            "disk",
            "*",
            vec![
                "msg: <em>Disk</em> full; tags: <em>disk</em> | <em>Disk</em>-2",
                "host.name: <em>disk</em>; msg: <em>disk</em> is ok",
                "tags: full <em>disk</em>",
            ],
        ),
        (
            "events",
            "disk",
            "host,tags",
            vec![
                "tags: <em>disk</em> | <em>Disk</em>-2",
                "host.name: <em>disk</em>",
                "tags: full <em>disk</em>",
            ],
        ),
        ("events", "msg:(disk -ok)", "*", vec!["msg: <em>Disk</em> full"]),
        (
            "events",
            "loud:d* OR 12",
            "*",
            vec![
                "loud: <em>DISK</em> FULL",
                "loud: <em>DISK</em> IS OK",
                "msg: <em>12</em>; size: <em>12</em>",
            ],
        ),
        (
            "events",
            "loud:disk AND msg:disk",
            "loud",
            vec!["loud: <em>DISK</em> FULL", "loud: <em>DISK</em> IS OK"],
        ),
        (
            "events",
            "loud:disk AND msg:disk",
            "msg",
            vec!["msg: <em>Disk</em> full", "msg: <em>disk</em> is ok"],
        ),
        ("events", "n:>3", "*", vec!["n: <em>4</em>"]),
        ("events", "-disk", "*", vec![""]),
        (
            "shown",
            "host.name:disk OR loud:full",
            "*",
            vec!["loud: DISK <em>FULL</em>", "host.name: <em>disk</em>"],
        ),
    ] {
        assert_eq!(
            bench.marks(name, query, highlight).await,
            expected,
            "{query} in {name}, {highlight}"
        );
    }
    bench.until_released().await;
}

#[tokio::test]
async fn highlight_in_sql_marks_what_where_or_its_own_search_looks_for() {
    let bench = bench(messages()).await;
    bench.sql("create field events.loud as upper(msg)").await;
    for (sql, expected) in [
        (
            "select highlight(msg), highlight(host.name), highlight(tags) from events where search('disk') order by n",
            vec![
                "<em>Disk</em> full | web-1 | <em>disk</em>",
                "<em>disk</em> is ok | <em>disk</em> | ",
                " |  | full <em>disk</em>",
            ],
        ),
        (
            "select highlight(loud), highlight(msg) from events where search('loud:disk') and n = 1",
            vec!["<em>DISK</em> FULL | Disk full"],
        ),
        (
            "select highlight(msg, 'msg:disk OR tags:full OR is') from events where n < 3 order by n",
            vec!["<em>Disk</em> full", "<em>disk</em> <em>is</em> ok"],
        ),
        (
            "select highlight(e.msg) as m, count(*) from events e where search(e, 'disk OR 12') group by m order by m",
            vec![
                "<em>12</em> | 1",
                "<em>Disk</em> full | 1",
                "<em>disk</em> is ok | 1",
                " | 1",
            ],
        ),
        (
            "select highlight(t.m, 'full') from (select upper(msg) as m, n from events) t where n = 1",
            vec!["DISK <em>FULL</em>"],
        ),
    ] {
        assert_eq!(bench.sql(sql).await.0, expected, "{sql}");
    }
}

#[tokio::test]
async fn names_are_marked_as_they_are_found() {
    let bench = bench(messages()).await;
    bench.sql("create field events.loud as upper(msg)").await;
    for (query, highlight, expected) in [
        ("MSG:full", "*", vec!["msg: Disk <em>full</em>"]),
        ("_doc.msg:full", "*", vec!["msg: Disk <em>full</em>"]),
        (
            "_doc:full",
            "_doc",
            vec!["msg: Disk <em>full</em>", "tags: <em>full</em> disk"],
        ),
        ("loud@1:full", "*", vec!["loud@1: DISK <em>FULL</em>"]),
    ] {
        assert_eq!(bench.marks("events", query, highlight).await, expected, "{query}");
    }
    let sql = "select highlight(b.msg), highlight(a.msg) from events a join events b on a.n = b.n where search(a, 'full') and a.n = 1";
    assert_eq!(bench.sql(sql).await.0, ["Disk full | Disk <em>full</em>"]);
}

#[tokio::test]
async fn a_document_of_many_paths_is_highlighted_up_to_a_limit() {
    let long = "k".repeat(20_000);
    let members = (0..5_000)
        .map(|n| (format!("k{n}"), json!("disk")))
        .collect::<serde_json::Map<_, _>>();
    let bench = bench([json!({ "n": 1, long: { "a": members } })]).await;
    let request = SearchQuery {
        highlight: Some("*".into()),
        fields: Some(None),
        ..search_query("events", "disk")
    };
    let answer = bench.run_search(request).await;
    assert_eq!(answer.hits[0].highlights.len(), 100);
    let fields = answer.fields.expect("fields").fields;
    assert_eq!(
        fields.iter().map(|field| field.path.as_str()).collect::<Vec<_>>(),
        ["n"]
    );
    assert!(
        answer.stats.warnings.iter().any(|warning| warning.contains("left out")),
        "{:?}",
        answer.stats.warnings
    );
}

#[tokio::test]
async fn a_highlight_without_a_search_or_a_path_is_an_error_with_a_hint() {
    let bench = bench(messages()).await;
    for sql in [
        "select highlight(msg) from events",
        "select highlight(msg) from events where search('*')",
        "select highlight() from events where search('disk')",
        "select highlight(msg, n) from events",
        "select highlight(msg, 'a', 'b') from events",
    ] {
        let problem = refused(&bench, sql).await;
        assert!(
            problem.code == Code::BadSql && problem.hint.is_some(),
            "{sql}: {problem:?}"
        );
    }
    for highlight in ["a..b", ",", "msg,"] {
        let request = SearchQuery {
            highlight: Some(highlight.into()),
            ..search_query("events", "disk")
        };
        let problem = bench.search_error(request).await;
        assert!(
            problem.code == Code::BadRequest && problem.hint.is_some(),
            "{highlight}: {problem:?}"
        );
    }
}
