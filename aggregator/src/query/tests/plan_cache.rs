//! A statement that is asked again uses the plan of the first time, and has the answer that a new plan would give.

use proto::ingest::ShardId;
use serde_json::json;

use super::*;

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
        for sql in KEPT {
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
