//! Distinct counts are computed by groups.

use plan::scan::Stage;
use serde_json::json;

use super::*;

fn documents() -> Vec<Value> {
    vec![
        json!({ "type": "push", "user": "ann", "n": 1 }),
        json!({ "type": "push", "user": "bob", "n": 2 }),
        json!({ "type": "push", "user": "ann", "n": 2 }),
        json!({ "type": "fork", "user": "ann" }),
        json!({ "type": "fork", "n": 5 }),
        json!({ "user": "" }),
    ]
}

#[tokio::test]
async fn distinct_counts_beside_other_aggregates_are_right() {
    let bench = bench(documents()).await;
    for (sql, rows) in [
        ("SELECT count(DISTINCT user) FROM events", &["3"][..]),
        (
            "SELECT count(DISTINCT user), count(*), count(n), sum(n), min(n), max(user) FROM events",
            &["3 | 6 | 4 | 10 | 1 | bob"],
        ),
        (
            "SELECT type, count(DISTINCT user) AS users, count(*), count(user), sum(n) FROM events GROUP BY type ORDER BY 1",
            &["fork | 1 | 2 | 1 | 5", "push | 2 | 3 | 3 | 5", " | 1 | 1 | 1 | "],
        ),
        (
            "SELECT count(DISTINCT user), count(*), count(user), sum(n), max(n) FROM events WHERE n > 100",
            &["0 | 0 | 0 |  | "],
        ),
        (
            "SELECT count(DISTINCT user), count(*), count(user), max(user) FROM events WHERE n > 100",
            &["0 | 0 | 0 | "],
        ),
        // Both keys of the subquery count, although one of them determines the other columns of its table.
        (
            "SELECT avg(users) FROM (SELECT count(DISTINCT e.n) AS users, count(*) FROM \
             (SELECT user, count(*) AS c FROM events GROUP BY 1) d JOIN events e ON e.user = d.user \
             GROUP BY d.user, e.type) x",
            &["0.75"],
        ),
        (
            "SELECT rachis_distinct, count(DISTINCT u) FROM (SELECT type AS rachis_distinct, user AS u FROM events) t \
             GROUP BY 1 ORDER BY 1",
            &["fork | 1", "push | 2", " | 1"],
        ),
        ("SELECT count(DISTINCT user), avg(n) FROM events", &["3 | 2.5"]),
        (
            "SELECT count(DISTINCT user), count(DISTINCT type) FROM events",
            &["3 | 2"],
        ),
        (
            "SELECT count(DISTINCT user) FILTER (WHERE n > 1), count(*) FROM events",
            &["2 | 6"],
        ),
        (
            "SELECT type, count(DISTINCT user) FROM events GROUP BY type HAVING count(DISTINCT user) > 1",
            &["push | 2"],
        ),
        (
            "SELECT type, count(DISTINCT user) FROM events GROUP BY ROLLUP (type) ORDER BY 1, 2",
            &["fork | 1", "push | 2", " | 1", " | 3"],
        ),
        (
            "SELECT user, count(DISTINCT user) FROM events GROUP BY user ORDER BY 1",
            &[" | 1", "ann | 1", "bob | 1", " | 0"],
        ),
    ] {
        assert_eq!(bench.sql(sql).await.0, rows, "{sql}");
    }
}

#[tokio::test]
async fn leaves_group_by_the_values_that_are_counted() {
    let bench = bench(documents()).await;
    bench.sql("SELECT count(DISTINCT user), count(*) FROM events").await;
    bench.assert_each_request(|request| matches!(&request.stage, Stage::Partial(_)));
}
