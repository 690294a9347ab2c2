//! A statement that is asked again uses the plan of the first time, and has the answer that a new plan would give.

use std::time::Duration;

use proto::{Code, ingest::ShardId};
use serde_json::json;

use super::{fake::Fault, *};

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

const KEPT: [&str; 12] = [
    "SELECT count(*) FROM events",
    "SELECT type, count(*), avg(n) FROM events GROUP BY type ORDER BY 1",
    "SELECT type, count(DISTINCT n) FROM events GROUP BY ROLLUP (type) ORDER BY 1",
    "SELECT n, upper(type) FROM events WHERE n > 1 ORDER BY n DESC LIMIT 3",
    "SELECT n FROM events WHERE n IN (SELECT n + 1 FROM events) ORDER BY 1",
    "SELECT n, (SELECT max(n) FROM events b WHERE b.type = a.type) FROM events a ORDER BY 1, 2",
    "SELECT a.n, b.n FROM events a LEFT JOIN events b ON b.n = a.n + 1 ORDER BY 1, 2",
    "SELECT n, sum(n) OVER (PARTITION BY type ORDER BY n) FROM events ORDER BY 1, 2",
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
