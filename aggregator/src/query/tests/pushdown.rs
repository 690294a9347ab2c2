//! Which parts of a query are pushed down to the leaf, and what the query returns.

use std::sync::atomic::Ordering;

use plan::scan::Stage;
use proto::CollectionUid;
use serde_json::json;
use tokio::sync::oneshot;

use super::{fake::sent_push, *};

fn clicks(count: i64) -> impl Iterator<Item = Value> {
    (0..count).map(|i| {
        let ms = if i % 4 == 3 { json!("slow") } else { json!(i * 10) };
        json!({ "n": i, "user": { "name": format!("u{}", i % 3) }, "ms": ms, "at": i })
    })
}

#[tokio::test]
async fn a_count_ships_one_state_per_shard() {
    let bench = bench(clicks(10)).await;
    let (rows, stats) = bench
        .rows(r#"SELECT count(*) AS "n" FROM "rachis_0" AS "e""#, &[&[]])
        .await;
    assert_eq!(rows, ["10"]);
    assert_eq!(
        (
            stats.shards_total,
            stats.shards_answered,
            stats.rows_shipped,
            stats.documents_scanned
        ),
        (2, 2, 2, 10)
    );
    assert_eq!(stats.position.to_string(), "push/0@4,push/1@4");
    assert!(stats.query_id.is_some() && !stats.partial && !stats.truncated);
    bench.assert_each_request(|r| matches!(r.stage, Stage::Partial(_)) && r.columns.is_empty());
    bench.until_released().await;
}

#[tokio::test]
async fn groups_and_filters_are_pushed_down() {
    let bench = bench(clicks(12)).await;
    let sql = r#"SELECT "e"."user.name:text" AS "name", count(*) AS "c", sum("e"."n:int") AS "s", avg("e"."n:int") AS "a", min("e"."n:int") AS "lo", max("e"."n:int") AS "hi"
                 FROM "rachis_0" AS "e" WHERE "e"."n:int" >= 3 AND "e"."user.name:text" LIKE 'u%' GROUP BY "e"."user.name:text" ORDER BY "name""#;
    let (rows, stats) = bench.rows(sql, &[&["user.name:text", "n:int"]]).await;
    assert_eq!(
        rows,
        [
            "u0 | 3 | 18 | 6.0 | 3 | 9",
            "u1 | 3 | 21 | 7.0 | 4 | 10",
            "u2 | 3 | 24 | 8.0 | 5 | 11"
        ]
    );
    assert_eq!(stats.rows_shipped, 6, "three groups per shard");
    bench.assert_each_request(|r| matches!(r.stage, Stage::Partial(_)) && r.filter.len() == 2);
}

#[tokio::test]
async fn filtered_aggregates_and_the_groups_of_distinct_values_are_pushed_down() {
    let bench = bench(clicks(12)).await;
    let sql = r#"SELECT count(*) FILTER (WHERE "e"."n:int" > 5) AS "c" FROM "rachis_0" AS "e""#;
    assert_eq!(bench.rows(sql, &[&["n:int"]]).await.0, ["6"]);
    bench.assert_each_request(|r| matches!(r.stage, Stage::Partial(_)) && r.filter.len() == 1);
    let sql = r#"SELECT count(DISTINCT "e"."user.name:text") AS "c" FROM "rachis_0" AS "e""#;
    let (rows, stats) = bench.rows(sql, &[&["user.name:text"]]).await;
    assert_eq!((rows, stats.rows_shipped), (vec!["3".to_owned()], 6));
}

#[tokio::test]
async fn a_filter_of_all_results_is_one_of_the_rows_unless_there_are_groups() {
    let bench = bench(clicks(12)).await;
    for (sql, expected) in [
        (
            "count(*) FILTER (WHERE n > 5), sum(n) FILTER (WHERE n > 5) FROM events",
            &["6 | 51"][..],
        ),
        (
            "count(*) FILTER (WHERE n > 50), sum(n) FILTER (WHERE n > 50) FROM events",
            &["0 | "],
        ),
        ("count(*) FILTER (WHERE n > 5), sum(n) FROM events", &["6 | 66"]),
        (
            "count(*) FILTER (WHERE n > 5), count(*) FILTER (WHERE n > 6) FROM events",
            &["6 | 5"],
        ),
        (
            "count(DISTINCT n % 3) FILTER (WHERE n > 9) AS c FROM events WHERE n <> 10",
            &["1"],
        ),
        (
            "n % 2, count(*) FILTER (WHERE n > 10) FROM events GROUP BY 1 ORDER BY 1",
            &["0 | 0", "1 | 1"],
        ),
        (
            "sum(c) FROM (SELECT count(*) FILTER (WHERE n > 5) AS c FROM events) AS t",
            &["6"],
        ),
    ] {
        assert_eq!(bench.sql(&format!("SELECT {sql}")).await.0, expected, "{sql}");
    }
}

#[tokio::test]
async fn rows_that_no_search_of_any_result_finds_are_left_out_unless_there_are_groups() {
    let few = "count(*) FILTER (WHERE search('n:<3'))";
    let many = "sum(n) FILTER (WHERE search('n:>9'))";
    for (sql, expected, filters) in [
        (format!("{few}, {many}, {few} FROM events"), &["3 | 21 | 3"][..], 1),
        (format!("{few}, {many} FROM events WHERE n <> 10"), &["3 | 11"], 2),
        (
            // Its searches test values, which is no column.
            format!("{few}, {many} FROM (SELECT n, _doc FROM events) AS t"),
            &["3 | 21"],
            0,
        ),
        (
            "count(*) FILTER (WHERE search('n:>50')), count(n) FILTER (WHERE search('n:>60')) FROM events".to_owned(),
            &["0 | 0"],
            1,
        ),
        (format!("{few}, count(*) FROM events"), &["3 | 12"], 0),
        (
            format!("{few}, count(*) FILTER (WHERE n > 5) FROM events"),
            &["3 | 6"],
            0,
        ),
        (
            format!("n % 2, {few}, {many} FROM events GROUP BY 1 ORDER BY 1"),
            &["0 | 2 | 10", "1 | 1 | 11"],
            0,
        ),
    ] {
        let bench = bench(clicks(12)).await;
        assert_eq!(bench.sql(&format!("SELECT {sql}")).await.0, expected, "{sql}");
        let requests = bench.leaf.requests.lock().clone();
        assert!(!requests.is_empty());
        for request in requests {
            assert_eq!(request.filter.len(), filters, "{sql}: {:?}", request.filter);
        }
    }
}

#[tokio::test]
async fn groups_with_a_constant_key_are_unique_and_sorted() {
    let bench = bench(clicks(12)).await;
    let sql = "SELECT w, k, count(*) FROM (SELECT 'a' AS w, n % 2 AS k FROM events) AS t GROUP BY CUBE (w, k) ORDER BY w NULLS FIRST, k NULLS FIRST";
    assert_eq!(
        bench.sql(sql).await.0,
        [
            " |  | 12",
            " | 0 | 6",
            " | 1 | 6",
            "a |  | 12",
            "a | 0 | 6",
            "a | 1 | 6"
        ]
    );
    let sql = "SELECT w, row_number() OVER (PARTITION BY w ORDER BY k) FROM (SELECT 'a' AS w, n % 2 AS k FROM events) AS t GROUP BY ROLLUP (w, k) ORDER BY 1, 2";
    assert_eq!(bench.sql(sql).await.0, ["a | 1", "a | 2", "a | 3", " | 1"]);
}

#[tokio::test]
async fn groups_with_a_constant_key_are_unique_at_any_number() {
    let bench = bench((0..20_000).map(|n| json!({ "n": n }))).await;
    let both = "SELECT 'a' AS w, n FROM events UNION ALL SELECT 'a' AS w, n FROM events";
    let sql = format!(
        "SELECT count(*), sum(c) FROM (SELECT w, n, count(*) AS c FROM ({both}) AS t GROUP BY CUBE (w, n)) AS x"
    );
    assert_eq!(bench.sql(&sql).await.0, ["40002 | 160000"]);
}

#[tokio::test]
async fn unmatched_rows_of_an_outer_join_have_null_instead_of_constants() {
    let bench = bench(clicks(12)).await;
    let few = "(SELECT 'x' AS w, n FROM events WHERE n < 3) AS a";
    for join in [
        format!("{few} RIGHT JOIN events AS b ON a.n = b.n"),
        format!("events AS b LEFT JOIN {few} ON a.n = b.n"),
        format!("{few} FULL JOIN events AS b ON a.n = b.n"),
    ] {
        let sql = format!("SELECT a.w, b.n FROM {join} ORDER BY a.w NULLS FIRST, b.n LIMIT 10");
        assert_eq!(bench.sql(&sql).await.0[..2], [" | 3", " | 4"], "{sql}");
        let sql = format!(
            "SELECT a.w, count(*), max(r) FROM (SELECT a.w, row_number() OVER (PARTITION BY a.w ORDER BY b.n) AS r FROM {join}) AS a GROUP BY a.w ORDER BY 2"
        );
        assert_eq!(bench.sql(&sql).await.0, ["x | 3 | 3", " | 9 | 9"], "{sql}");
    }
}

#[tokio::test]
async fn volatile_expressions_are_not_pushed_down() {
    let bench = bench(clicks(12)).await;
    let (rows, _) = bench
        .rows(
            r#"SELECT count(*) AS "c" FROM "rachis_0" AS "e" WHERE random() < 2 AND "e"."n:int" < 6"#,
            &[&["n:int"]],
        )
        .await;
    assert_eq!(rows, ["6"]);
    bench.assert_each_request(|r| matches!(r.stage, Stage::Rows { .. }) && r.filter.len() == 1);
}

#[tokio::test]
async fn topk_is_pushed_down() {
    let bench = bench(clicks(20)).await;
    let sql =
        r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" WHERE "e"."n:int" <> 18 ORDER BY "e"."_time" DESC LIMIT 3"#;
    let (rows, stats) = bench.rows(sql, &[&["_time", "n:int"]]).await;
    assert_eq!(rows, ["19", "17", "16"]);
    assert_eq!(stats.rows_shipped, 6, "three rows per shard");
    bench.assert_each_request(|r| match &r.stage {
        Stage::Top { keys, limit: 3, .. } => keys[0].descending && keys[0].column.name() == "_time",
        _ => false,
    });
}

#[tokio::test]
async fn keys_that_order_ties_by_address_are_left_to_the_leaves() {
    let bench = bench((0..20).map(|n| json!({ "n": n, "at": n / 4, "third": n % 3 }))).await;
    for (order, keys, numbers) in [
        ("third, _source, _partition, _offset, _item", 1, [0, 6, 12, 18, 3]),
        ("third, _partition, _source, _offset", 2, [0, 6, 12, 18, 3]),
        ("third desc, _source, _partition, _offset", 1, [2, 8, 14, 5, 11]),
        ("_partition desc, _source, _offset", 1, [1, 3, 5, 7, 9]),
        ("third, _source, _partition, _offset desc", 4, [18, 12, 6, 0, 15]),
        ("_source, _partition, _offset", 1, [0, 2, 4, 6, 8]),
    ] {
        bench.leaf.requests.lock().clear();
        let (rows, _) = bench
            .sql(&format!("select n from events order by {order} limit 5"))
            .await;
        assert_eq!(rows, numbers.map(|n| n.to_string()), "{order}");
        bench.assert_each_request(|r| matches!(&r.stage, Stage::Top { keys: sorted, .. } if sorted.len() == keys));
    }
}

#[tokio::test]
async fn a_limit_is_pushed_down() {
    let bench = bench(clicks(50)).await;
    let (rows, stats) = bench
        .rows(r#"SELECT "e"."n:int" FROM "rachis_0" AS "e" LIMIT 4"#, &[&["n:int"]])
        .await;
    assert_eq!(rows.len(), 4);
    assert!(stats.rows_shipped <= 8 && !stats.truncated, "{stats:?}");
    bench.assert_each_request(|r| matches!(r.stage, Stage::Rows { limit: Some(4) }));
}

#[tokio::test]
async fn values_of_another_type_are_null_with_a_warning() {
    let bench = bench(clicks(8)).await;
    let (rows, stats) = bench
        .rows(
            r#"SELECT sum("e"."ms:int") AS "s" FROM "rachis_0" AS "e""#,
            &[&["ms:int"]],
        )
        .await;
    assert_eq!(rows, ["180"]);
    assert_eq!(stats.warnings, ["ms: 2 of 8 values were not numbers"]);
}

#[tokio::test]
async fn a_self_join_reads_one_read_view() {
    let bench = bench(clicks(9)).await;
    let sql = r#"SELECT "a"."user.name:text" AS "name", count(*) AS "c" FROM "rachis_0" AS "a" JOIN "rachis_1" AS "b" ON "a"."user.name:text" = "b"."user.name:text"
                 WHERE "a"."n:int" < "b"."n:int" GROUP BY 1 ORDER BY 1"#;
    let (rows, stats) = bench
        .rows(sql, &[&["user.name:text", "n:int"], &["user.name:text", "n:int"]])
        .await;
    assert_eq!(rows, ["u0 | 3", "u1 | 3", "u2 | 3"]);
    assert_eq!(stats.shards_total, 2, "each shard is opened once");
    let requests = bench.leaf.requests.lock();
    assert_eq!(requests.len(), 2, "one for all shards of each scan");
    assert!(requests.iter().all(|r| r.shards.len() == 2));
    assert_eq!(
        bench.leaf.opened.load(Ordering::SeqCst),
        1,
        "both scans read the same views"
    );
}

#[tokio::test]
async fn a_join_reads_only_documents_that_can_join() {
    for (key, pairs) in [("user.name:text", 9), ("n:int", 1), ("ms:json", 1)] {
        let bench = bench(clicks(27)).await;
        let sql = format!(
            r#"SELECT count(*) AS "c" FROM "rachis_0" AS "a" JOIN "rachis_1" AS "b" ON "a"."{key}" = "b"."{key}"
               WHERE "a"."at:int" = 4"#
        );
        let (rows, stats) = bench.rows(&sql, &[&[key, "at:int"], &[key]]).await;
        assert_eq!(rows, [pairs.to_string()], "{key}");
        assert_eq!(
            stats.rows_shipped,
            1 + pairs,
            "one document, and those that can join: {key}"
        );
    }
    let bench = bench(clicks(27)).await;
    let sql = r#"SELECT count(*) AS "c" FROM "rachis_0" AS "a" LEFT JOIN "rachis_1" AS "b" ON "a"."n:int" = "b"."n:int" + 1
                 WHERE "a"."user.name:text" = 'u0'"#;
    assert_eq!(
        bench.rows(sql, &[&["n:int", "user.name:text"], &["n:int"]]).await.0,
        ["9"]
    );
}

#[tokio::test]
async fn a_join_with_a_join_reads_the_documents_of_the_right_table() {
    let documents = (0..27).map(|i| json!({ "n": i, "next": i + 3, "user": i % 3 }));
    let bench = bench(documents).await;
    // Both keys of c are called n.
    let sql = "SELECT a.n, b.n FROM (SELECT * FROM events WHERE n = 4) c \
               JOIN (events a JOIN events b ON a.user = b.user) ON b.n = c.n AND a.n = c.next";
    let (rows, _) = bench.sql(sql).await;
    assert_eq!(rows, ["7 | 4"], "a key of b is no key of a");
}

#[tokio::test]
async fn subqueries_and_unions_work() {
    let bench = bench(clicks(9)).await;
    let sql = r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" WHERE "e"."n:int" > (SELECT avg("f"."n:int") FROM "rachis_1" AS "f") ORDER BY 1"#;
    assert_eq!(bench.rows(sql, &[&["n:int"], &["n:int"]]).await.0, ["5", "6", "7", "8"]);
    let sql = r#"SELECT count(*) AS "c" FROM "rachis_0" AS "e" UNION ALL SELECT 1 ORDER BY 1"#;
    assert_eq!(bench.rows(sql, &[&[]]).await.0, ["1", "9"]);
    let sql = r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" WHERE "e"."n:int" NOT IN (SELECT "f"."n:int" FROM "rachis_1" AS "f" WHERE "f"."n:int" < 7) ORDER BY 1"#;
    assert_eq!(bench.rows(sql, &[&["n:int"], &["n:int"]]).await.0, ["7", "8"]);
}

#[tokio::test]
async fn json_columns_have_metadata() {
    let bench = bench(clicks(1)).await;
    let sql = r#"SELECT "e"."n:int" AS "x", "e"."user:json" AS "user", "e"."n:int" + 1 AS "y" FROM "rachis_0" AS "e""#;
    let answer = bench
        .run_resolved(SqlQuery::default(), sql, &[&["n:int", "user:json"]])
        .await
        .expect("an answer");
    assert_eq!(
        answer.schema.field(1).metadata().get("rachis").map(String::as_str),
        Some("json")
    );
    let (batches, _) = read(answer).await.expect("rows");
    assert_eq!(lines(&batches), [r#"0 | {"name":"u0"} | 1"#]);
}

#[tokio::test]
async fn each_shard_waits_only_for_the_positions_routed_to_it() {
    let bench = bench(clicks(4)).await;
    let at_least: PositionVector = "push/0@1,push/1@0,push/2@9".parse().expect("a vector");
    let request = SqlQuery {
        options: QueryOptions {
            at_least,
            ..QueryOptions::default()
        },
        ..SqlQuery::default()
    };
    read(
        bench
            .run_resolved(request, r#"SELECT count(*) AS "c" FROM "rachis_0" AS "e""#, &[&[]])
            .await
            .expect("an answer"),
    )
    .await
    .expect("rows");
    let at_least = bench.leaf.at_least.lock();
    let all: Vec<String> = at_least.iter().map(|(_, vector)| vector.to_string()).collect();
    assert_eq!(
        all.iter()
            .filter(|v| v.contains("push/0@1") && v.contains("push/2@9") && !v.contains("push/1"))
            .count(),
        1,
        "{all:?}"
    );
    assert_eq!(all.iter().filter(|v| *v == "push/1@0").count(), 1, "{all:?}");
}

#[tokio::test]
async fn a_query_waits_for_acknowledged_pushes_and_after_a_leaf_restart_for_what_tailers_have_sent() {
    let bench = bench(clicks(2)).await;
    let set_sent = |offset| *bench.tailer.rows.lock() = vec![sent_push(None, offset)];
    // Runs a query. Returns the positions that it waited for, and how often the tailers have been asked.
    let query = || async {
        bench.leaf.at_least.lock().clear();
        bench.sql("SELECT count(*) FROM events").await;
        let mut at_least: Vec<String> = bench
            .leaf
            .at_least
            .lock()
            .iter()
            .map(|(_, vector)| vector.to_string())
            .collect();
        at_least.sort();
        (at_least, bench.tailer.status_calls.load(Ordering::SeqCst))
    };
    let expected = |at_least: &[&str], calls| (at_least.iter().map(|v| v.to_string()).collect::<Vec<_>>(), calls);
    set_sent(7);
    assert_eq!(
        query().await,
        expected(&["", "", "push/0@7"], 1),
        "a shard is opened again once its first answer has shown that the leaf is new"
    );
    set_sent(9);
    assert_eq!(
        query().await,
        expected(&["push/0@7", "push/1@0"], 1),
        "later queries wait at once for what earlier answers covered"
    );
    bench.leaf.boot.store(1, Ordering::SeqCst);
    assert_eq!(query().await, expected(&["push/0@7", "push/0@9", "push/1@0"], 2));
    let collection = bench.engine.catalog().collections[&events()].uid;
    bench.engine.on_push_acknowledged(
        ShardId { collection, number: 1 },
        "push/1@5".parse().expect("a position"),
    );
    assert_eq!(query().await, expected(&["push/0@9", "push/1@5"], 2));
}

#[tokio::test]
async fn a_query_waits_for_what_another_one_learns_from_the_tailers_after_its_own_views_are_open() {
    let bench = bench(clicks(2)).await;
    *bench.tailer.rows.lock() = vec![sent_push(None, 7)];
    let ((opened, are_open), (release, released)) = (oneshot::channel(), oneshot::channel());
    *bench.leaf.hold.lock() = Some((opened, released));
    let first = bench.sql("SELECT count(*) FROM events");
    let second = async {
        are_open.await.expect("the first query");
        bench.sql("SELECT count(*) FROM events").await;
        bench.leaf.at_least.lock().clear();
        release.send(()).expect("the first query");
    };
    tokio::join!(first, second);
    let at_least = bench.leaf.at_least.lock();
    let again: Vec<String> = at_least.iter().map(|(_, vector)| vector.to_string()).collect();
    assert_eq!(again, ["push/0@7"], "it opens this shard again");
}

#[tokio::test]
async fn a_view_that_was_opened_late_lacks_nothing_without_a_warning() {
    let bench = bench(clicks(2)).await;
    *bench.tailer.rows.lock() = vec![sent_push(None, 7)];
    bench.leaf.late_openings.store(2, Ordering::SeqCst);
    let answer = bench.sql("SELECT count(*) FROM events").await;
    let warnings = &answer.1.warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("lacks push/0@7"),
        "the first opening of both shards takes too long: {warnings:?}"
    );
}

#[tokio::test]
async fn what_was_pushed_to_an_earlier_collection_of_this_name_is_not_waited_for() {
    let bench = bench(clicks(2)).await;
    bench.leaf.waits.store(true, Ordering::SeqCst);
    *bench.tailer.rows.lock() = vec![sent_push(Some(CollectionUid(uuid::Uuid::now_v7())), 7)];
    let answer = bench.sql("SELECT count(*) FROM events").await;
    assert_eq!(answer.1.warnings, [""; 0]);
}

#[tokio::test]
async fn aggregates_with_a_common_subexpression_are_pushed_down() {
    let bench = bench(clicks(10)).await;
    let sql = r#"SELECT "e"."user.name:text" || '!' AS "g", min("e"."n:int" * 7 + 1) AS "lo", max("e"."n:int" * 7 + 1) AS "hi", avg("e"."n:int" * 7 + 1) AS "a"
                 FROM "rachis_0" AS "e" GROUP BY 1 ORDER BY 1"#;
    let (rows, stats) = bench.rows(sql, &[&["user.name:text", "n:int"]]).await;
    assert_eq!(
        rows,
        ["u0! | 1 | 64 | 32.5", "u1! | 8 | 50 | 29.0", "u2! | 15 | 57 | 36.0"]
    );
    assert_eq!(stats.rows_shipped, 6);
    bench.assert_each_request(|r| matches!(r.stage, Stage::Partial(_)));
}

#[tokio::test]
async fn an_aggregate_over_a_subquery_is_computed_above_the_scan() {
    let bench = bench(clicks(9)).await;
    let sql = r#"SELECT sum("e"."n:int" - (SELECT min("f"."n:int") + 1 FROM "rachis_1" AS "f")) AS "s" FROM "rachis_0" AS "e""#;
    let (rows, _) = bench.rows(sql, &[&["n:int"], &["n:int"]]).await;
    assert_eq!(rows, ["27"]);
    let requests = bench.leaf.requests.lock();
    assert!(
        requests.iter().any(|r| matches!(r.stage, Stage::Rows { .. }))
            && requests.iter().any(|r| matches!(r.stage, Stage::Partial(_)))
    );
}
