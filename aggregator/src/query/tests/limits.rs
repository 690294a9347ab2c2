//! Queries that end early: limits, deadlines, cancellation, faults, missing shards.

use std::time::Duration;

use proto::Code;
use serde_json::json;

use super::{fake::Fault, *};

const ALL: &str = r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e""#;

fn numbers(count: i64) -> impl Iterator<Item = Value> {
    (0..count).map(|n| json!({ "n": n }))
}

/// The answer to [`ALL`].
async fn answer_all(bench: &Bench) -> Answer {
    bench
        .run_resolved(SqlQuery::default(), ALL, &[&["n:int"]])
        .await
        .expect("columns")
}

#[tokio::test]
async fn without_a_limit_clause_the_answer_is_truncated() {
    let bench = bench_with(numbers(30), |options| options.rows_max = 10).await;
    let (rows, stats) = bench.rows(ALL, &[&["n:int"]]).await;
    assert_eq!((rows.len(), stats.truncated, stats.warnings.len()), (10, true, 1));
    let (rows, stats) = bench.rows(&format!("{ALL} ORDER BY 1"), &[&["n:int"]]).await;
    assert_eq!(
        (rows, stats.truncated),
        ((0..10).map(|n| n.to_string()).collect(), true),
        "the first rows in the sort order"
    );
    let (rows, stats) = bench.rows(&format!("{ALL} LIMIT 20"), &[&["n:int"]]).await;
    assert_eq!(
        (rows.len(), stats.truncated),
        (20, false),
        "with LIMIT an answer may be longer"
    );
    let (rows, stats) = bench
        .rows(&format!("{ALL} WHERE \"e\".\"n:int\" < 10"), &[&["n:int"]])
        .await;
    assert_eq!(
        (rows.len(), stats.truncated),
        (10, false),
        "an answer of exactly the limit is complete"
    );
}

#[tokio::test]
async fn a_deadline_ends_a_query_and_its_scans() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Hang);
    let request = SqlQuery {
        options: QueryOptions {
            timeout: Some(Duration::from_millis(50)),
            ..QueryOptions::default()
        },
        ..SqlQuery::default()
    };
    let problem = match bench.run_resolved(request, ALL, &[&["n:int"]]).await {
        Ok(answer) => read(answer).await.map(drop).expect_err("the scan hangs"),
        Err(problem) => problem,
    };
    assert_eq!(problem.code, Code::Timeout);
    bench.until_released().await;
}

#[tokio::test]
async fn the_views_of_a_query_are_open_for_as_long_as_it_runs() {
    let bench = bench(numbers(3)).await;
    let context = bench.engine.context(&QueryOptions::default(), Instant::now());
    let context = context.expect("a context");
    let (catalog, names) = (bench.engine.catalog(), BTreeSet::from([events()]));
    let read_views = QueryViews::open(&context, &catalog, &names, &PositionVector::default()).await;
    let read_views = read_views.expect("read views");
    assert_eq!(bench.leaf.open.lock().len(), 2, "one for each shard");
    drop(context);
    assert_eq!(bench.leaf.open.lock().len(), 2);
    drop(read_views);
    assert!(bench.leaf.open.lock().is_empty(), "they are released with the query");
}

#[tokio::test]
async fn planning_ends_at_cancellation_or_deadline() {
    let bench = bench(numbers(3)).await;
    let sql = r#"SELECT count(*) FROM "rachis_0" AS "e" WHERE "e"."n:int" > 1"#;
    for code in [Code::Cancelled, Code::Timeout] {
        let timeout = Some(Duration::from_secs(if code == Code::Timeout { 0 } else { 20 }));
        let context = bench
            .engine
            .context(
                &QueryOptions {
                    timeout,
                    ..QueryOptions::default()
                },
                Instant::now(),
            )
            .expect("a context");
        let enough_time = QueryOptions {
            timeout: Some(Duration::from_secs(20)),
            ..QueryOptions::default()
        };
        let opening = bench.engine.context(&enough_time, Instant::now()).expect("a context");
        let read_views = QueryViews::open(
            &opening,
            &bench.engine.catalog(),
            &BTreeSet::from([events()]),
            &PositionVector::default(),
        )
        .await
        .expect("read views");
        if code == Code::Cancelled {
            context.cancel.cancel();
        }
        // Planning never waits, so only the planner's rules can notice.
        let planned = planner::plan(
            &bench.engine,
            &context,
            &read_views,
            resolved(sql, &[&["n:int"]]),
            StatementValues::default(),
            None,
        )
        .await;
        assert_eq!(planned.map(|_| ()).map_err(|problem| problem.code), Err(code));
        let planned = planner::plan(
            &bench.engine,
            &opening,
            &read_views,
            resolved(sql, &[&["n:int"]]),
            StatementValues::default(),
            None,
        )
        .await;
        assert!(planned.is_ok(), "with enough time the same query is planned");
    }
}

#[tokio::test]
async fn waiting_for_the_reader_does_not_count_towards_the_deadline() {
    let bench = bench_with(numbers(300), |options| options.queries_max = 1).await;
    let timeout = Duration::from_secs(2);
    let mut answer = long_answer(&bench, timeout).await;
    let (begun, mut rows) = (Instant::now(), 0);
    let mut pace = tokio::time::interval(timeout / 5);
    let stats = loop {
        match answer
            .chunks
            .next()
            .await
            .expect("a part")
            .expect("the deadline limits only the work of the query")
        {
            AnswerChunk::Rows(batch) => rows += batch.num_rows(),
            AnswerChunk::End(stats) => break stats,
        }
        // Reads slowly at first, until the timeout has long passed.
        if begun.elapsed() < timeout * 3 / 2 {
            // While this query computes nothing, another one can use its slot.
            assert_eq!(bench.sql("SELECT count(*) FROM events").await.0, ["300"]);
            pace.tick().await;
        }
    };
    assert!(
        rows == 90_000 && stats.elapsed_ms > 2_000 && begun.elapsed() > timeout,
        "{rows} rows, {stats:?}"
    );
}

/// An answer with more parts than are buffered for a reader, from 300 numbers.
async fn long_answer(bench: &Bench, timeout: Duration) -> Answer {
    let sql = "SELECT a.n FROM events a CROSS JOIN events b LIMIT 90000".to_owned();
    let request = SqlQuery {
        sql,
        options: QueryOptions {
            timeout: Some(timeout),
            ..QueryOptions::default()
        },
        ..SqlQuery::default()
    };
    bench.engine.query(request).await.expect("columns")
}

#[tokio::test]
async fn an_unread_answer_times_out() {
    let bench = bench(numbers(300)).await;
    let mut answer = long_answer(&bench, Duration::from_millis(500)).await;
    bench.until_released().await;
    let mut last = None;
    while let Some(part) = answer.chunks.next().await {
        last = Some(part.map(|_| ()).map_err(|problem| problem.code));
    }
    assert_eq!(last, Some(Err(Code::Timeout)), "the client learns the reason");
}

#[tokio::test]
async fn a_row_of_an_answer_has_a_size_limit() {
    let bench = bench([json!({ "t": "x".repeat(1 << 20) })].into_iter()).await;
    let columns = |count: usize| (0..count).map(|n| format!("t AS c{n}")).collect::<Vec<_>>().join(", ");
    let query = async |count: usize| {
        let request = SqlQuery {
            sql: format!("SELECT {} FROM events", columns(count)),
            ..SqlQuery::default()
        };
        read(bench.engine.query(request).await?)
            .await
            .map(|(rows, _)| rows.len())
    };
    assert_eq!(query(60).await.map_err(|problem| problem.code), Ok(1));
    let problem = query(70).await.expect_err("the row is too wide");
    assert!(
        problem.code == Code::LimitReached && problem.detail.contains("a row of the answer has 73"),
        "{problem}"
    );
}

#[tokio::test]
async fn the_buffered_parts_of_an_abandoned_answer_are_dropped() {
    let bench = bench(numbers(300)).await;
    let mut answer = long_answer(&bench, Duration::from_millis(100)).await;
    let abandoned = Duration::from_secs(12);
    tokio::time::interval_at(tokio::time::Instant::now() + abandoned, abandoned)
        .tick()
        .await;
    let first = answer
        .chunks
        .next()
        .await
        .expect("an error")
        .map(|_| ())
        .map_err(|problem| problem.code);
    assert_eq!(first, Err(Code::Timeout), "the buffered parts are dropped");
}

#[tokio::test]
async fn a_client_may_choose_the_query_id_and_cancel_with_it() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Hang);
    let id = QueryOptions::parse_query_id("018f6f1e-6b1c-7c11-8a3c-2f4a5b6c7d8e").expect("a UUID");
    let request = || SqlQuery {
        sql: "SELECT n FROM events".into(),
        options: QueryOptions {
            id: Some(id),
            ..QueryOptions::default()
        },
        ..SqlQuery::default()
    };
    let answer = bench.engine.query(request()).await.expect("columns");
    let running = bench.engine.queries().await.remove(0).queries.expect("the queries");
    assert_eq!(running.iter().map(|query| query.id).collect::<Vec<_>>(), [id]);
    let second = bench
        .engine
        .query(request())
        .await
        .map(|_| ())
        .expect_err("the id is in use");
    assert_eq!(second.code, Code::Conflict, "{second}");
    assert!(bench.engine.cancel_anywhere(id).await);
    assert_eq!(read(answer).await.map(drop).map_err(|p| p.code), Err(Code::Cancelled));
    *bench.leaf.fault.lock() = None;
    let (_, stats) = read(bench.engine.query(request()).await.expect("the id is free again"))
        .await
        .expect("rows");
    assert_eq!(stats.query_id, Some(id));
    for text in ["", "mine", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(
            QueryOptions::parse_query_id(text).map_err(|p| p.code),
            Err(Code::BadRequest),
            "{text}"
        );
    }
}

#[tokio::test]
async fn dropping_an_answer_stops_its_scans() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Hang);
    let answer = answer_all(&bench).await;
    while bench.leaf.hanging_scans.load(std::sync::atomic::Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    drop(answer);
    bench.until_released().await;
}

#[tokio::test]
async fn a_scan_without_an_end_makes_the_answer_incomplete() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::NoTrailer);
    let answer = answer_all(&bench).await;
    assert_eq!(read(answer).await.map(drop).map_err(|p| p.code), Err(Code::Incomplete));
}

#[tokio::test]
async fn a_panic_ends_its_query_and_nothing_else() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Panic);
    let answer = answer_all(&bench).await;
    assert_eq!(read(answer).await.map(drop).map_err(|p| p.code), Err(Code::Internal));
    *bench.leaf.fault.lock() = None;
    assert_eq!(bench.rows(ALL, &[&["n:int"]]).await.0.len(), 3);
}

#[tokio::test]
async fn a_missing_shard_is_an_error_unless_partial_answers_are_allowed() {
    let bench = bench(numbers(10)).await;
    bench.leaf.unavailable.lock().insert(1);
    let error = bench
        .run_resolved(SqlQuery::default(), ALL, &[&["n:int"]])
        .await
        .map(drop)
        .expect_err("incomplete");
    assert_eq!(error.code, Code::Incomplete);
    let partial = || SqlQuery {
        options: QueryOptions {
            allow_partial: true,
            ..QueryOptions::default()
        },
        ..SqlQuery::default()
    };
    let (batches, stats) = read(
        bench
            .run_resolved(partial(), ALL, &[&["n:int"]])
            .await
            .expect("an answer"),
    )
    .await
    .expect("rows");
    assert_eq!(
        (
            lines(&batches).len(),
            stats.partial,
            stats.shards_total,
            stats.shards_answered
        ),
        (5, true, 2, 1)
    );
    let rows_by_absence = [
        r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" WHERE "e"."n:int" NOT IN (SELECT "f"."n:int" FROM "rachis_1" AS "f")"#,
        r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" LEFT JOIN "rachis_1" AS "f" ON "e"."n:int" = "f"."n:int" + 1"#,
        r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" EXCEPT SELECT "f"."n:int" FROM "rachis_1" AS "f" WHERE "f"."n:int" > 3"#,
    ];
    for sql in rows_by_absence {
        let error = bench
            .run_resolved(partial(), sql, &[&["n:int"], &["n:int"]])
            .await
            .map(drop)
            .expect_err(sql);
        assert_eq!(error.code, Code::Incomplete, "{sql}");
    }
    bench.until_released().await;
}

#[tokio::test]
async fn the_memory_of_a_query_is_limited() {
    let bench = bench_with(
        (0..2_000).map(|n| json!({ "n": n, "t": "x".repeat(2_000) })),
        |options| options.query_bytes_max = 1 << 20,
    )
    .await;
    let sql = r#"SELECT count(*) AS "c" FROM "rachis_0" AS "a" JOIN "rachis_1" AS "b" ON "a"."n:int" = "b"."n:int" WHERE "a"."t:text" <> "b"."t:text" || 'x'"#;
    let problem = match bench
        .run_resolved(SqlQuery::default(), sql, &[&["n:int", "t:text"], &["n:int", "t:text"]])
        .await
    {
        Ok(answer) => read(answer).await.map(drop).expect_err("too much memory"),
        Err(problem) => problem,
    };
    assert_eq!(problem.code, Code::LimitReached, "{problem}");
}

#[tokio::test]
async fn an_engine_may_be_dropped_in_async_code() {
    let bench = bench(numbers(1)).await;
    assert_eq!(bench.rows(ALL, &[&["n:int"]]).await.0, ["0"]);
    drop(bench);
}
