//! Statements as users write them, run through the resolver.

use proto::Code;
use proto::node::Queries as _;
use serde_json::json;

use super::{definitions::refused, *};

fn orders() -> Vec<Value> {
    vec![
        json!({ "_id": "a", "price": 250, "user": { "name": "ann" }, "tags": ["x"], "ms": 12 }),
        json!({ "_id": "b", "price": 120, "user": { "name": "bob" }, "ms": "slow" }),
        json!({ "_id": "c", "price": 990, "user": { "name": "ann" }, "ms": 30 }),
    ]
}

#[tokio::test]
async fn paths_are_queried_by_their_names() {
    let bench = bench(orders()).await;
    let (rows, stats) = bench
        .sql("SELECT user.name, count(*) AS n, sum(price) FROM events GROUP BY user.name ORDER BY n DESC, 1")
        .await;
    assert_eq!(rows, ["ann | 2 | 1240", "bob | 1 | 120"]);
    assert_eq!(stats.warnings, [] as [&str; 0]);
    let (rows, stats) = bench.sql("SELECT sum(ms) AS s FROM events").await;
    assert_eq!(rows, ["42"]);
    assert_eq!(stats.warnings.len(), 1, "{:?}", stats.warnings);
    let (rows, _) = bench
        .sql("SELECT _id FROM events WHERE user.name LIKE 'a%' AND price BETWEEN 100 AND 500")
        .await;
    assert_eq!(rows, ["a"]);
}

#[tokio::test]
async fn fields_and_views_can_be_defined_replaced_and_dropped() {
    let bench = bench(orders()).await;
    assert_eq!(
        bench.sql("CREATE FIELD events.euro AS price / 100.0").await.0,
        ["field events.euro | 1"]
    );
    assert_eq!(bench.sql("SELECT max(euro) AS m FROM events").await.0, ["9.9"]);
    assert_eq!(
        bench
            .sql("CREATE VIEW expensive AS SELECT _id, euro FROM events WHERE euro > 2")
            .await
            .0,
        ["view expensive | 1"]
    );
    assert_eq!(bench.sql("SELECT count(*) AS c FROM expensive").await.0, ["2"]);
    assert_eq!(
        bench
            .sql("CREATE OR REPLACE FIELD events.euro AS price / 1000.0")
            .await
            .0,
        ["field events.euro | 2"]
    );
    assert_eq!(bench.sql("SELECT count(*) AS c FROM expensive").await.0, ["0"]);
    let error = bench
        .try_sql("DROP FIELD events.euro")
        .await
        .expect_err("the view uses the field");
    assert_eq!(error.code, Code::InUse);
    let definitions = bench.sql("SHOW DEFINITIONS").await.0;
    assert_eq!(definitions.len(), 2, "{definitions:?}");
    assert!(
        bench
            .sql("DESCRIBE expensive")
            .await
            .0
            .iter()
            .any(|line| line.starts_with("euro | "))
    );
    assert_eq!(bench.sql("DROP VIEW expensive").await.0, ["view expensive | 1"]);
    assert_eq!(bench.sql("DROP FIELD events.euro").await.0, ["field events.euro | 2"]);
}

#[tokio::test]
async fn a_field_hides_a_path_of_the_same_name_with_a_warning() {
    let bench = bench(orders()).await;
    let warnings = bench.sql("CREATE FIELD events.price AS 0").await.1.warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("_doc->'price'")),
        "{warnings:?}"
    );
    assert_eq!(
        bench
            .sql("SELECT max(price) AS p, max((_doc->>'price')::int) AS q FROM events")
            .await
            .0,
        ["0 | 990"]
    );
}

#[tokio::test]
async fn explain_shows_the_steps_in_words_of_the_statement_and_runs_nothing() {
    let bench = bench(orders()).await;
    let plan = bench
        .sql("EXPLAIN SELECT user.name, count(*) FROM events WHERE price > 200 AND user.name LIKE 'a%' GROUP BY 1 LIMIT 3")
        .await
        .0;
    let steps = [
        "First 3 rows",
        "Combine partial aggregates: count(*) by user.name",
        "Scan events: 3 documents in 2 shards",
        "- where price > 200",
        "- where user.name LIKE 'a%'",
        "- the leaves compute count(*) by user.name",
        "- reads user.name",
    ];
    assert_eq!(plan[..steps.len()], steps, "{plan:#?}");
    assert!(plan[steps.len()].starts_with("EXPLAIN ANALYZE"), "{plan:#?}");
    assert!(bench.leaf.requests.lock().is_empty(), "nothing ran");
}

#[tokio::test]
async fn explain_analyze_shows_rows_and_how_conditions_were_decided() {
    let bench = bench(orders()).await;
    let explained = async |sql: &str| bench.sql(&format!("EXPLAIN ANALYZE {sql}")).await.0;
    let plan = explained("SELECT price * 2 AS twice FROM events WHERE price >= 200 ORDER BY price DESC LIMIT 4").await;
    let shown = |text: &str| plan.iter().any(|line| line.trim_start().starts_with(text));
    assert!(plan[0].contains("(2 rows"), "{plan:#?}");
    for line in [
        "- where price >= 200: 3 documents decided by evaluating it on values",
        "- the leaves return the first 4 rows by price DESC",
        "- read price: 3 raw, of the newest documents, which are in no split yet",
        "- 2 documents passed; the leaves returned 2 rows within ",
    ] {
        assert!(shown(line), "{line}\n{plan:#?}");
    }
    // Every kind of step has words of its own.
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) \
               SELECT e.user.name, row_number() OVER (ORDER BY e.price), (SELECT max(price) FROM events) \
               FROM events e JOIN n ON e.price = n.i * 10 LEFT JOIN events f ON e.price < f.price \
               UNION ALL SELECT item, 1, 2 FROM events g, unnest(g.tags) AS item LIMIT 5 OFFSET 1";
    let plan = explained(sql).await.join("\n");
    for step in [
        "First the subqueries, each once",
        "Subquery 1: ",
        "Then: ",
        "Skip 1 row, then the first 5 rows",
        "All rows of the parts below",
        "Window functions: row_number()",
        "Left join on ",
        "; every pair of rows is compared",
        "; the first input is kept in memory",
        "Recursive query",
        "i + 1",
        "Unnest lists",
    ] {
        assert!(plan.contains(step), "{step}\n{plan}");
    }
    for word in ["Exec", "Utf8", "Int64", ":json", ":int", "@"] {
        assert!(!plan.contains(word), "{word}\n{plan}");
    }
}

#[tokio::test]
async fn explain_takes_its_options_in_parentheses_and_shows_other_plans_on_request() {
    let bench = bench(orders()).await;
    for (sql, column) in [
        ("EXPLAIN (SELECT 1)", "First 1"),
        (
            "EXPLAIN (ANALYZE FALSE) SELECT _id FROM events",
            "First 10,000 rows, as the statement has no LIMIT",
        ),
        ("EXPLAIN VERBOSE SELECT _id FROM events", "ShardScan: collection=events"),
        ("EXPLAIN (VERBOSE, ANALYZE) SELECT _id FROM events", "output_rows="),
        ("EXPLAIN ANALYZE VERBOSE SELECT _id FROM events", "output_rows="),
    ] {
        let plan = bench.sql(sql).await.0.join("\n");
        assert!(plan.contains(column) || sql.contains("SELECT 1"), "{sql}\n{plan}");
        assert_eq!(plan.contains("logical_plan"), sql.contains("VERBOSE"), "{sql}\n{plan}");
    }
    for (sql, word) in [
        ("EXPLAIN (ANALYZE, FORMAT JSON) SELECT 1", "text"),
        ("EXPLAIN (COSTS OFF) SELECT 1", "COSTS"),
        ("EXPLAIN (ANALYZE SELECT 1", "ANALYZE"),
        ("EXPLAIN (ANALYZE TRUE SELECT 1", "do not end"),
        ("EXPLAIN (", "option"),
        ("EXPLAIN SHOW TABLES", "needs a query"),
    ] {
        let problem = refused(&bench, sql).await;
        assert!(
            problem.detail.contains(word) && problem.hint.is_some(),
            "{sql}: {problem:?}"
        );
    }
}

#[tokio::test]
async fn tables_can_be_listed_and_described() {
    let bench = bench(orders()).await;
    let tables = bench.sql("SHOW TABLES").await.0;
    assert_eq!(tables[0], "events | collection");
    assert!(tables.contains(&"rachis.sources | system table".to_owned()));
    let columns = bench.sql("DESCRIBE events").await.0;
    assert!(
        columns.iter().any(|line| line.starts_with("user.name | TEXT")),
        "{columns:?}"
    );
    assert!(
        columns.iter().any(|line| line.starts_with("_time | TIMESTAMP")),
        "{columns:?}"
    );
}

#[tokio::test]
async fn every_system_table_can_be_queried() {
    let bench = bench(orders()).await;
    for table in super::super::system::tables::TABLES {
        bench
            .sql(&format!("SELECT * FROM {}.{} LIMIT 5", table.schema, table.name))
            .await;
        bench.sql(&format!("DESCRIBE {}.{}", table.schema, table.name)).await;
    }
    assert_eq!(
        bench.sql("SELECT name, shards FROM rachis.collections").await.0,
        ["events | 2"]
    );
    assert_eq!(
        bench
            .sql("SELECT count(*) AS n FROM rachis.shards WHERE collection = 'events'")
            .await
            .0,
        ["2"]
    );
    let fields = bench
        .sql("SELECT path, type FROM rachis.fields WHERE path = 'user.name'")
        .await
        .0;
    assert_eq!(fields, ["user.name | TEXT"]);
    assert_eq!(
        bench.sql("SELECT text FROM rachis.queries").await.0,
        ["SELECT text FROM rachis.queries"]
    );
    assert!(bench.engine.running().is_empty(), "the query has ended");
    assert_eq!(
        bench.sql("SELECT name, role, state FROM rachis.nodes").await.0,
        ["dev | tailer, leaf, aggregator | up"]
    );
}

#[tokio::test]
async fn a_shard_that_does_not_answer_hides_its_own_paths_and_no_others() {
    let bench = bench(orders()).await;
    let named = "FROM rachis.fields WHERE path = 'user.name' AND error IS NULL";
    assert_eq!(bench.sql(&format!("SELECT path {named}")).await.0, ["user.name"]);
    bench.leaf.unavailable.lock().insert(1);
    assert_eq!(bench.sql(&format!("SELECT path {named}")).await.0, ["user.name"]);
    let errors = bench
        .sql("SELECT collection, path, error FROM rachis.fields WHERE error IS NOT NULL")
        .await
        .0;
    assert_eq!(errors, ["events |  | the leaf is unavailable"]);
    let columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'events' AND column_name IN ('_source', 'user.name')";
    assert_eq!(bench.sql(columns).await.0, ["_source", "user.name"]);
}

#[tokio::test]
async fn a_running_query_can_be_cancelled_by_its_id() {
    let bench = bench(orders()).await;
    *bench.leaf.fault.lock() = Some(fake::Fault::Hang);
    let answer = bench
        .engine
        .query(SqlQuery {
            sql: "SELECT _id FROM events".into(),
            ..SqlQuery::default()
        })
        .await
        .expect("columns");
    let running = bench.engine.running();
    assert_eq!(running.len(), 1);
    assert!(bench.engine.cancel(running[0].id));
    assert_eq!(read(answer).await.map(drop).map_err(|p| p.code), Err(Code::Cancelled));
    bench.until_released().await;
}

#[tokio::test]
async fn a_running_query_is_listed_with_its_progress_and_memory() {
    // The answer is larger than what is buffered for a slow reader, so the query runs until it is read.
    let text = "x".repeat(10_000);
    let bench = bench((0..3_000).map(|n| json!({ "n": n, "text": text }))).await;
    let answer = bench.engine.query(SqlQuery {
        // More rows than leaves sort.
        sql: "SELECT n, text FROM events ORDER BY n DESC LIMIT 200000".into(),
        ..SqlQuery::default()
    });
    let mut answer = answer.await.expect("columns");
    let first = answer.chunks.next().await.expect("a chunk").expect("rows");
    assert!(matches!(first, AnswerChunk::Rows(_)), "the rows are sorted");
    let running = bench.engine.running();
    let [query] = running.as_slice() else {
        panic!("{running:?}");
    };
    assert_eq!((query.documents, query.documents_scanned), (3_000, 3_000));
    assert!(query.memory_bytes_most > 30_000_000, "{query:?}");
    assert!(query.memory_bytes <= query.memory_bytes_most, "{query:?}");
    drop(answer);
    let listed = "SELECT memory_bytes <= memory_bytes_most FROM rachis.queries WHERE text LIKE '%itself%'";
    assert_eq!(bench.sql(listed).await.0, ["true"], "it finds itself");
    bench.until_released().await;
}

#[tokio::test]
async fn wrong_statements_are_client_errors_and_end_nothing_else() {
    let bench = bench(orders()).await;
    let wrong = [
        "",
        "SELEC 1",
        "SELECT FROM",
        "SELECT * FROM nowhere",
        "DROP TABLE events",
        "SET a = 1",
        "SELECT 1; SELECT 2",
        "SELECT sum(*) FROM events",
        "SELECT no_such_function(1)",
        "CREATE TABLE t (a INT)",
        "COPY events TO 'x'",
        "SELECT * FROM 'file.csv'",
        "SELECT CAST('x' AS INT)",
        "SELECT count(*) FROM events GROUP BY",
        "INSERT INTO events VALUES (1)",
        "SELECT $1",
        "DESCRIBE nowhere",
        "CREATE VIEW v AS SELECT v.x FROM v",
    ];
    for sql in wrong {
        let problem = bench.try_sql(sql).await.map(|(rows, _)| lines(&rows)).expect_err(sql);
        assert!((400..500).contains(&problem.code.status()), "{sql}: {problem:?}");
    }
    assert_eq!(bench.sql("SELECT count(*) FROM events").await.0, ["3"]);
}

#[tokio::test]
async fn search_in_sql_is_pushed_down() {
    let bench = bench(orders()).await;
    assert_eq!(
        bench
            .sql("SELECT count(*) AS c FROM events WHERE search('ann')")
            .await
            .0,
        ["2"]
    );
    bench.assert_each_request(|request| request.filter.len() == 1);
}

#[tokio::test]
async fn a_path_is_pushed_down_through_views_common_table_expressions_and_subqueries() {
    let bench = bench(orders()).await;
    bench.sql("CREATE VIEW v AS SELECT * FROM events").await;
    bench.sql("CREATE VIEW w AS SELECT user AS who, price FROM v").await;
    for sql in [
        "SELECT count(*) FROM events WHERE user.name = 'ann' AND price > 100",
        "SELECT count(*) FROM v WHERE user.name = 'ann' AND price > 100",
        "SELECT count(*) FROM w WHERE who.name = 'ann' AND price > 100",
        "WITH c AS (SELECT user u, price p FROM events) SELECT count(*) FROM c WHERE c.u.name = 'ann' AND p > 100",
        "SELECT count(*) FROM (SELECT _doc->'user' AS u, price FROM events) s WHERE s.u.name = 'ann' AND price > 100",
    ] {
        bench.leaf.requests.lock().clear();
        assert_eq!(bench.sql(sql).await.0, ["2"], "{sql}");
        for request in bench.leaf.requests.lock().iter() {
            let filter: Vec<String> = request.filter.iter().map(ToString::to_string).collect();
            assert_eq!(
                filter,
                ["user.name:text = Utf8View(\"ann\")", "price:int > Int64(100)"],
                "{sql}"
            );
            assert!(request.columns.is_empty(), "{sql}: {:?}", request.columns);
        }
    }
    bench.leaf.requests.lock().clear();
    assert_eq!(
        bench
            .sql("SELECT w.who.name, sum(price) FROM w GROUP BY 1 ORDER BY 2 DESC")
            .await
            .0,
        ["ann | 1240", "bob | 120"]
    );
    for request in bench.leaf.requests.lock().iter() {
        let columns: Vec<String> = request.columns.iter().map(plan::Column::name).collect();
        assert!(
            columns
                .iter()
                .all(|name| name == "user.name:text" || name == "price:int"),
            "{columns:?}"
        );
    }
}

#[tokio::test]
async fn a_truncated_answer_reports_what_was_read() {
    let bench = bench_with((0..400).map(|n| json!({ "n": n })), |limits| limits.rows_max = 10).await;
    for (sql, shipped_min) in [
        ("SELECT n FROM events", 10),
        ("SELECT n FROM events LIMIT 3", 3),
        ("SELECT a.n FROM events a, events b LIMIT 1", 2),
    ] {
        let stats = bench.sql(sql).await.1;
        // Both shards have 200 documents; at least one of them has reported.
        let whole_shards =
            stats.documents_scanned.is_multiple_of(200) && (200..=800).contains(&stats.documents_scanned);
        assert!(
            whole_shards && (shipped_min..=800).contains(&stats.rows_shipped),
            "{sql}: {stats:?}"
        );
    }
    bench.until_released().await;
}

#[tokio::test]
async fn all_rows_are_returned_if_they_are_asked_for_within_the_longest_timeout() {
    let bench = bench_with((0..30).map(|n| json!({ "n": n })), |limits| {
        limits.timeout = std::time::Duration::ZERO
    })
    .await;
    let export = |all_rows| SqlQuery {
        sql: "SELECT n FROM events".into(),
        all_rows,
        ..SqlQuery::default()
    };
    let timed_out = bench.engine.query(export(false)).await.map(drop).map_err(|p| p.code);
    assert_eq!(timed_out, Err(Code::Timeout));
    assert!(bench.engine.query(export(true)).await.is_ok());
    let bench = bench_with((0..30).map(|n| json!({ "n": n })), |limits| limits.rows_max = 10).await;
    for all_rows in [false, true, false] {
        let request = SqlQuery {
            sql: "SELECT n FROM events ORDER BY n".into(),
            all_rows,
            ..SqlQuery::default()
        };
        let (rows, stats) = read(bench.engine.query(request).await.expect("an answer"))
            .await
            .expect("rows");
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        assert_eq!((count, stats.truncated), (if all_rows { 30 } else { 10 }, !all_rows));
    }
    bench.until_released().await;
}

#[tokio::test]
async fn two_casts_of_one_path_are_two_values() {
    let bench = bench(
        [json!("1.5"), json!(2), json!("x"), json!([1])]
            .into_iter()
            .map(|price| json!({ "price": price })),
    )
    .await;
    for (statement, expected) in [
        (
            "select count(price::double) as a, count(try_cast(price as double)) as b, count(price::text) as c from events",
            "2 | 2 | 4",
        ),
        (
            "select count(*) as n from (select price::double as p from events group by price::double, \
             try_cast(price as double)) as g",
            "3",
        ),
    ] {
        assert_eq!(bench.sql(statement).await.0, [expected], "{statement}");
    }
}
