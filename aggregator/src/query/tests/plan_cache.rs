//! A statement that is asked again uses the plan of the first time, and has the answer that a new plan would give.

use std::{sync::atomic::Ordering, time::Duration};

use proto::{Code, ingest::ShardId};
use serde_json::json;

use super::{super::plan_cache::PLANS_BYTES_MAX, fake::Fault, *};

/// Their physical plans are kept.
const KEPT_PHYSICALLY: [&str; 9] = [
    "SELECT count(*) FROM events WHERE n > 0",
    "SELECT type, min(n), max(n) FROM events GROUP BY type ORDER BY type",
    "SELECT upper(type), count(*) FROM events GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1",
    "SELECT n, type FROM events ORDER BY n DESC, type LIMIT 2",
    "SELECT n FROM events WHERE n IS NOT NULL ORDER BY 1",
    "SELECT count(DISTINCT n), sum(n) / count(*) FROM events",
    // Functions count values without a result, wherever they run.
    "SELECT n, sqrt(n - 3) FROM events ORDER BY 1, 2",
    "SELECT type, sum(sqrt(n - 3)) FROM events GROUP BY type ORDER BY 1",
    "SELECT type, count(*) FROM events GROUP BY type HAVING sqrt(count(*) - 4) >= 0 ORDER BY 1",
];

const KEPT: [&str; 13] = [
    "SELECT count(*) FROM events",
    "SELECT type, count(*), avg(n) FROM events GROUP BY type ORDER BY 1",
    "SELECT type, count(DISTINCT n) FROM events GROUP BY ROLLUP (type) ORDER BY 1",
    "SELECT n, upper(type) FROM events WHERE n > 1 ORDER BY n DESC LIMIT 3",
    "SELECT n FROM events WHERE n IN (SELECT n + 1 FROM events) ORDER BY 1",
    "SELECT n, (SELECT max(n) FROM events b WHERE b.type = a.type) FROM events a ORDER BY 1, 2",
    "SELECT a.n, b.n FROM events a LEFT JOIN events b ON b.n = a.n + 1 ORDER BY 1, 2",
    "SELECT n, sum(n) OVER (PARTITION BY type ORDER BY n) FROM events ORDER BY 1, 2",
    "SELECT n, count(*) FILTER (WHERE upper(type) = 'PUSH') OVER () FROM events ORDER BY 1",
    "WITH t AS (SELECT type, max(n) AS m FROM events GROUP BY 1) SELECT * FROM t ORDER BY 1 LIMIT 10",
    "SELECT n FROM events UNION SELECT n * 2 FROM events ORDER BY 1",
    "SELECT twice, _id IS NOT NULL FROM events WHERE twice >= 2 ORDER BY 1",
    "SELECT m FROM busiest ORDER BY 1",
];

/// Their meaning depends on the time, on a system table, or on values that must be reported; or they are large.
const NOT_KEPT: [&str; 5] = [
    "SELECT count(*) FROM events WHERE _time <= now()",
    "SELECT count(*) FROM rachis.collections",
    "SELECT absent FROM events ORDER BY n",
    "SELECT count(*) FROM events WHERE random() < 0",
    "SELECT count(*) FROM events WHERE type IN (lpad('a', 10000), lpad('b', 10000), lpad('c', 10000), lpad('d', 10000), \
     lpad('e', 10000), lpad('f', 10000), lpad('g', 10000))",
];

#[tokio::test]
async fn a_statement_that_is_asked_again_has_the_answer_that_a_new_plan_would_give() {
    let document = |n: i64| json!({ "n": n, "type": if n % 3 == 0 { "push" } else { "fork" } });
    let bench = bench((0..6).map(document)).await;
    bench.sql("CREATE FIELD events.twice AS n * 2").await;
    bench
        .sql("CREATE VIEW busiest AS SELECT type, max(twice) AS m FROM events GROUP BY type")
        .await;
    bench.check_repetition("at first").await;
    bench.add(document(6));
    bench.check_repetition("with another document").await;
    bench.sql("CREATE OR REPLACE FIELD events.twice AS n * 20").await;
    bench.check_repetition("with another definition").await;
    bench.add(json!({ "n": "seven", "type": 7, "new": true }));
    bench.check_repetition("with other kinds of values").await;
}

#[tokio::test]
async fn a_repeated_statement_with_one_scan_reads_the_scan_that_began_with_its_views() {
    let document = |n: i64| json!({ "n": n, "type": if n % 3 == 0 { "push" } else { "fork" } });
    let bench = bench((0..6).map(document)).await;
    for sql in KEPT_PHYSICALLY {
        let first = bench.sql(sql).await.0;
        let (scans, prefetched) = (bench.leaf.requests.lock().len(), &bench.leaf.prefetched);
        let before = prefetched.swap(0, Ordering::SeqCst);
        assert_eq!(
            before, 0,
            "{sql}: the first run has no plan whose scan could be sent along"
        );
        assert_eq!(bench.sql(sql).await.0, first);
        assert_eq!(prefetched.swap(0, Ordering::SeqCst), 1, "{sql}");
        assert_eq!(
            bench.leaf.requests.lock().len(),
            scans + 1,
            "{sql}: it was read, so no other scan began"
        );
    }
    let sql = "SELECT count(*) FROM events WHERE type = 'push'";
    assert_eq!(bench.sql(sql).await.0, ["2"]);
    assert_eq!(
        bench.sql(&sql.replace("push", "fork")).await.0,
        ["4"],
        "also with another text"
    );
    assert_eq!(bench.leaf.prefetched.swap(0, Ordering::SeqCst), 1);
    bench.add(json!({ "n": "six", "type": "push" }));
    let scans = bench.leaf.requests.lock().len();
    assert_eq!(bench.sql("SELECT count(*) FROM events WHERE n > 0").await.0, ["5"]);
    assert_eq!(bench.leaf.prefetched.swap(0, Ordering::SeqCst), 1);
    assert_eq!(
        bench.leaf.requests.lock().len(),
        scans + 2,
        "a plan for other kinds of values cannot use the scan that was expected"
    );
}

#[tokio::test]
async fn a_plan_is_kept_for_each_list_of_parameters() {
    let bench = bench((0..6).map(|n| json!({ "n": n }))).await;
    let above = async |n: i64| {
        let request = SqlQuery {
            sql: "SELECT count(*) FROM events WHERE n > $1".into(),
            parameters: vec![json!(n)],
            ..SqlQuery::default()
        };
        let answer = bench.engine.query(request).await.expect("an answer");
        lines(&read(answer).await.expect("rows").0)
    };
    for _ in 0..2 {
        assert_eq!(above(1).await, ["4"]);
        assert_eq!(above(4).await, ["1"]);
    }
}

/// Statements with texts for `?`, and whether their plan is used for all texts.
const WITH_TEXTS: [(&str, bool); 18] = [
    ("SELECT n FROM events WHERE type = '?' ORDER BY 1", true),
    (
        "SELECT n, _doc FROM events WHERE type = '?' OR id IN ('?', '?', '?') ORDER BY 1",
        true,
    ),
    (
        "SELECT type, count(*) FROM events WHERE type <> '?' AND id = '?' GROUP BY 1 ORDER BY 1",
        true,
    ),
    ("SELECT n FROM events WHERE id = '?' ORDER BY n DESC LIMIT 1", true),
    ("SELECT n FROM events WHERE n::text = '?' ORDER BY 1", true),
    (
        "SELECT n FROM events WHERE NOT (type = '?') AND _doc->>'id' = '?' ORDER BY 1",
        false,
    ),
    // The text decides how the values are compared, or it is more than a value.
    ("SELECT n FROM events WHERE mixed = '?' ORDER BY 1", false),
    ("SELECT n FROM events WHERE type LIKE '?' ORDER BY 1", false),
    ("SELECT n FROM events WHERE type = lower('?') ORDER BY 1", false),
    ("SELECT n FROM events WHERE type = '?'::text ORDER BY 1", false),
    ("SELECT n AS '?' FROM pushes WHERE n > 1 ORDER BY 1", false),
    ("SELECT _doc->>'?' FROM pushes ORDER BY 1", false),
    // The view compares with one of the texts, too.
    ("SELECT n FROM pushes WHERE type = '?' ORDER BY 1", true),
    ("SELECT n FROM pushes WHERE id = '?' ORDER BY 1", true),
    ("SELECT n FROM events WHERE search('type:x?') ORDER BY 1", false),
    ("SELECT n, type = '?' FROM events ORDER BY 1", false),
    (
        "SELECT n FROM events WHERE type = '?' AND id || '?' = 'i1x' ORDER BY 1",
        false,
    ),
    (
        "SELECT n FROM events WHERE CASE WHEN n > 3 THEN 'push' ELSE type END = '?' ORDER BY 1",
        false,
    ),
];

#[tokio::test]
async fn a_plan_is_used_for_other_texts_only_if_it_means_the_same_for_all() {
    let types = ["push", "fork", "7", "2026-01-31", "it's", "true"];
    let mixed = [
        json!("push"),
        json!(7),
        json!("7"),
        json!(true),
        json!(null),
        json!([1]),
    ];
    let document = |n: usize| json!({ "n": n, "id": format!("i{}", n % 9), "type": types[n % types.len()], "mixed": mixed[n % mixed.len()] });
    let bench = bench((0..40).map(document)).await;
    bench
        .sql("CREATE VIEW pushes AS SELECT *, _doc FROM events WHERE type = 'push'")
        .await;
    let texts = [
        "push",
        "fork",
        "7",
        "7.0",
        "2026-01-31",
        "it''s",
        "true",
        "",
        "i1",
        "i2",
        "é%_\\x",
        "x",
    ];
    for (statement, shared) in WITH_TEXTS {
        bench.engine.plans.clear();
        let mut answers = Vec::new();
        for first in 0..texts.len() {
            let mut next = first;
            let sql: String = statement
                .split_inclusive('?')
                .map(|piece| {
                    next += 5;
                    // No name is empty.
                    let name_or_text = match texts[next % texts.len()] {
                        "" if statement.contains(" AS '?'") => "empty",
                        text => text,
                    };
                    piece.replace('?', name_or_text)
                })
                .collect();
            answers.push((bench.sql(&sql).await, sql));
        }
        let (kept, _) = bench.engine.plans.size();
        assert_eq!(kept == 1, shared, "{statement}: {kept} plans");
        for ((rows, stats), sql) in answers {
            bench.engine.plans.clear();
            let (expected, expected_stats) = bench.sql(&sql).await;
            assert_eq!(rows, expected, "{sql}");
            assert_eq!(stats.warnings, expected_stats.warnings, "{sql}");
        }
    }
}

#[tokio::test]
async fn texts_that_are_equal_by_chance_do_not_share_a_plan_with_others() {
    let bench = bench((0..9).map(|n| json!({ "a": format!("t{}", n % 3), "b": format!("t{}", n % 2), "n": n }))).await;
    let ask = async |a: &str, b: &str| {
        let sql = format!("SELECT n FROM events WHERE a = '{a}' AND b = '{b}' ORDER BY 1");
        bench.sql(&sql).await.0
    };
    assert_eq!(ask("t1", "t1").await, ["1", "7"]);
    assert_eq!(ask("t1", "t0").await, ["4"]);
    assert_eq!(ask("t2", "t1").await, ["5"]);
    assert_eq!(ask("t0", "t0").await, ["0", "6"]);
    assert_eq!(ask("t0", "t1").await, ["3"]);
    let asked_with = async |a: &str, n: i64| {
        let request = SqlQuery {
            sql: "SELECT n FROM events WHERE a = $1 AND n > $2 ORDER BY 1".into(),
            parameters: vec![json!(a), json!(n)],
            ..SqlQuery::default()
        };
        let answer = bench.engine.query(request).await.expect("an answer");
        lines(&read(answer).await.expect("rows").0)
    };
    bench.engine.plans.clear();
    assert_eq!(asked_with("t1", 1).await, ["4", "7"]);
    assert_eq!(asked_with("t2", 1).await, ["2", "5", "8"]);
    assert_eq!(bench.engine.plans.size().0, 1, "one plan for all texts");
    assert_eq!(asked_with("t2", 4).await, ["5", "8"]);
    assert_eq!(bench.engine.plans.size().0, 2, "and another one for another number");
    let texts = [
        "SELECT E'a\\'||E\\'b' AS v FROM events WHERE b = 't0'",
        "SELECT E'a'||E'b' AS v FROM events WHERE a = 't0'",
    ];
    let asked = [bench.sql(texts[0]).await.0, bench.sql(texts[1]).await.0];
    assert_eq!(asked.map(|rows| rows[0].clone()), ["a' |  | E'b", "ab"]);
    let asked_like = async |parameter: Value| {
        let request = SqlQuery {
            sql: "SELECT n FROM events WHERE a = $1 ORDER BY 1".into(),
            parameters: vec![parameter],
            ..SqlQuery::default()
        };
        let answer = bench.engine.query(request).await.expect("an answer");
        lines(&read(answer).await.expect("rows").0)
    };
    for _ in 0..2 {
        assert_eq!(asked_like(json!("t1")).await, ["1", "4", "7"]);
        assert_eq!(asked_like(json!(null)).await, [""; 0], "nothing equals NULL");
        assert_eq!(asked_like(json!("t2")).await, ["2", "5", "8"]);
        bench.engine.plans.clear();
        assert_eq!(asked_like(json!(null)).await, [""; 0], "nothing equals NULL");
    }
}

/// Statements with one text for `?` each, and whether their plan is used for all texts. Their plans are kept before they
/// are physical, or compare the column again.
const WITH_A_TEXT: [(&str, bool); 8] = [
    (
        "SELECT a.n, b.n FROM events a JOIN events b ON b.n = a.n + 1 WHERE a.type = '?' ORDER BY 1, 2",
        true,
    ),
    (
        "SELECT a.n, b.n FROM events a LEFT JOIN events b ON b.n = a.n + 1 AND b.type = '?' ORDER BY 1, 2",
        true,
    ),
    (
        "SELECT a.n, b.n FROM events a JOIN events b ON b.type = a.type AND a.type = '?' ORDER BY 1, 2",
        true,
    ),
    (
        "SELECT n FROM events WHERE n IN (SELECT n + 1 FROM events WHERE type = '?') ORDER BY 1",
        true,
    ),
    (
        "SELECT n, (SELECT max(n) FROM events b WHERE b.n = a.n AND b.type = '?') FROM events a ORDER BY 1",
        true,
    ),
    (
        "SELECT n FROM events WHERE type = '?' UNION SELECT n * 2 FROM events ORDER BY 1",
        false,
    ),
    (
        "SELECT n FROM some_types WHERE type IN ('?', 'none', 'other', 'another') ORDER BY 1",
        true,
    ),
    (
        "SELECT n FROM some_types WHERE type = '?' OR type IN ('gollum', 'none', 'it', 'more') ORDER BY 1",
        true,
    ),
];

#[tokio::test]
async fn a_plan_with_placeholders_has_the_answer_that_a_new_plan_would_give() {
    let types = ["push", "fork", "watch", "gollum"];
    let bench = bench((0..12).map(|n| json!({ "n": n, "type": types[n % types.len()] }))).await;
    bench
        .sql("CREATE VIEW some_types AS SELECT * FROM events WHERE type IN ('push', 'watch', 'gollum', 'more')")
        .await;
    for (statement, shared) in WITH_A_TEXT {
        bench.engine.plans.clear();
        let texts = ["push", "fork", "watch", "absent", ""];
        let ask = async |text: &str| bench.sql(&statement.replace('?', text)).await.0;
        let mut asked = Vec::new();
        for text in texts {
            asked.push(ask(text).await);
        }
        let (plans, _) = bench.engine.plans.size();
        assert_eq!(plans, if shared { 1 } else { texts.len() }, "{statement}");
        for (text, rows) in texts.iter().zip(asked) {
            bench.engine.plans.clear();
            assert_eq!(rows, ask(text).await, "{statement} with {text:?}");
        }
    }
}

#[tokio::test]
async fn explain_shows_the_text_of_the_statement() {
    let bench = bench([json!({ "n": 1, "type": "push" })]).await;
    let sql = "SELECT n FROM events WHERE type = 'push'";
    bench.sql(sql).await;
    let plan = bench.sql(&format!("EXPLAIN {sql}")).await.0.join("\n");
    assert!(plan.contains("where type = 'push'"), "{plan}");
    assert!(!plan.contains("$text"), "{plan}");
}

#[tokio::test]
async fn runs_of_one_statement_at_the_same_time_do_not_disturb_each_other() {
    let bench = bench((0..40).map(|n| json!({ "n": n % 7, "type": format!("t{}", n % 3) }))).await;
    for sql in KEPT_PHYSICALLY {
        let (rows, stats) = bench.sql(sql).await;
        assert_eq!(bench.engine.plans.documents_of_template(sql), Some(40), "{sql}");
        let runs = futures::future::join_all((0..12).map(|_| bench.sql(sql))).await;
        for (again, again_stats) in runs {
            assert_eq!(again, rows, "{sql}");
            assert_eq!(again_stats.warnings, stats.warnings, "{sql}");
            assert_eq!(again_stats.documents_scanned, stats.documents_scanned, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_run_that_was_cancelled_leaves_nothing_for_the_next_one() {
    let bench = bench((0..40).map(|n| json!({ "n": n, "type": format!("t{}", n % 3) }))).await;
    for sql in KEPT_PHYSICALLY {
        let (rows, _) = bench.sql(sql).await;
        for (fault, code) in [(Fault::Hang, Code::Timeout), (Fault::NoTrailer, Code::Incomplete)] {
            *bench.leaf.fault.lock() = Some(fault);
            let mut request = SqlQuery {
                sql: sql.to_owned(),
                ..SqlQuery::default()
            };
            request.options.timeout = Some(Duration::from_millis(50));
            let failed = match bench.engine.query(request).await {
                Ok(answer) => read(answer).await.map(|_| ()),
                Err(problem) => Err(problem),
            };
            assert_eq!(failed.map_err(|problem| problem.code), Err(code), "{sql}");
            *bench.leaf.fault.lock() = None;
            assert_eq!(bench.sql(sql).await.0, rows, "{sql}");
        }
    }
    bench.until_released().await;
}

#[tokio::test]
async fn a_physical_plan_is_made_anew_when_there_are_many_more_documents() {
    let bench = bench((0..40).map(|n| json!({ "n": n }))).await;
    let sql = "SELECT count(*) FROM events WHERE n > 0";
    let documents = async || {
        bench.sql(sql).await;
        bench.engine.plans.documents_of_template(sql)
    };
    assert_eq!(documents().await, Some(40));
    (40..4_000).for_each(|n| bench.add(json!({ "n": n })));
    assert_eq!(documents().await, Some(40));
    (4_000..4_001).for_each(|n| bench.add(json!({ "n": n })));
    assert_eq!(documents().await, Some(4_001));
}

#[tokio::test]
async fn nothing_is_kept_of_a_long_statement() {
    let bench = bench((0..3).map(|n| json!({ "n": n, "type": "push" }))).await;
    let comment = "x".repeat(9_000);
    let list: Vec<String> = (0..2_000).map(|n| format!("'t{n}'")).collect();
    for sql in [
        format!("SELECT count(*) FROM events WHERE type = 'push' /* {comment} */"),
        format!("SELECT count(*) FROM events WHERE type LIKE 'push' /* {comment} */"),
        format!(
            "SELECT count(*) FROM events WHERE type IN ('push', {})",
            list.join(", ")
        ),
    ] {
        assert_eq!(bench.sql(&sql).await.0, ["3"]);
        assert_eq!(bench.engine.plans.size(), (0, 0), "{}…", &sql[..60]);
    }
    let parameters = |texts: Vec<String>| SqlQuery {
        sql: "SELECT count(*) FROM events WHERE type = $1 AND type <> $2".into(),
        parameters: texts.into_iter().map(Value::String).collect(),
        ..SqlQuery::default()
    };
    let request = parameters(vec!["push".into(), comment]);
    let answer = bench.engine.query(request).await.expect("an answer");
    assert_eq!(lines(&read(answer).await.expect("rows").0), ["3"]);
    assert_eq!(bench.engine.plans.size(), (0, 0), "the texts are too long");
}

#[tokio::test]
async fn all_that_is_kept_is_within_one_limit_in_bytes() {
    let bench = bench([json!({ "n": 1, "type": "push" })]).await;
    let comment = "x".repeat(7_900);
    // The first is kept by its shape, the second by itself.
    let statements = |i: usize| {
        [
            format!("SELECT n AS a{i} FROM events WHERE type = 'push' /* {comment} */"),
            format!("SELECT n AS a{i} FROM events WHERE type LIKE 'push' OR type = 'x' /* {comment} */"),
        ]
    };
    let (mut most, mut asked) = ((0, 0), 0);
    while asked < 1_000 {
        for sql in statements(asked) {
            assert_eq!(bench.sql(&sql).await.0, ["1"]);
            let size = bench.engine.plans.size();
            assert!(size.1 <= PLANS_BYTES_MAX, "{size:?}");
            most = most.max(size);
        }
        asked += 1;
    }
    assert!(most.1 > PLANS_BYTES_MAX / 10 * 9, "the limit was not reached: {most:?}");
    let [shared, own] = statements(asked - 1);
    let other_text = shared.replace("'push'", "'fork'");
    let before = bench.engine.plans.size();
    for sql in [shared, own, other_text] {
        bench.sql(&sql).await;
        assert_eq!(bench.engine.plans.size(), before, "the newest are kept: {}", &sql[..60]);
    }
    let [_, first] = statements(0);
    assert!(!bench.engine.plans.has(&first), "the oldest made room");
}

#[tokio::test]
async fn describe_does_not_answer_with_the_rows_of_the_view() {
    let bench = bench([json!({ "n": 1 })]).await;
    bench.sql("CREATE VIEW v AS SELECT n FROM events").await;
    let first = bench.sql("DESCRIBE v").await.0;
    assert_eq!(first, ["n | BIGINT | view"]);
    assert_eq!(bench.sql("DESCRIBE v").await.0, first);
}

impl Bench {
    fn add(&self, document: Value) {
        let collection = self.engine.catalog().collections[&events()].uid;
        self.leaf.add(ShardId { collection, number: 0 }, document);
    }

    /// Compares the answers of kept plans with those of new plans.
    async fn check_repetition(&self, when: &str) {
        for sql in KEPT_PHYSICALLY.into_iter().chain(KEPT) {
            let kept = self.sql(sql).await;
            self.engine.plans.forget(sql);
            let new = self.sql(sql).await;
            let has_plan = self.engine.plans.has(sql);
            let again = self.sql(sql).await;
            for (rows, stats) in [kept, again] {
                assert_eq!(rows, new.0, "{when}: {sql}");
                assert_eq!(stats.warnings, new.1.warnings, "{when}: {sql}");
            }
            // A warning may come from planning or from a value.
            assert!(has_plan || !new.1.warnings.is_empty(), "{when}: {sql}: no plan is kept");
        }
        for sql in NOT_KEPT {
            self.sql(sql).await;
            assert!(!self.engine.plans.has(sql), "{when}: {sql}");
        }
    }
}
