//! How queries end early.

use std::time::Duration;

use proto::Code;
use serde_json::json;

use super::{fake::Fault, *};

const ALL: &str = r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e""#;

fn numbers(count: i64) -> impl Iterator<Item = Value> {
    (0..count).map(|n| json!({ "n": n }))
}

#[tokio::test]
async fn without_a_limit_a_result_is_cut_and_says_so() {
    let bench = bench_with(numbers(30), |options| options.rows_max = 10).await;
    let (rows, stats) = bench.rows(ALL, &[&["n:int"]]).await;
    assert_eq!((rows.len(), stats.truncated, stats.warnings.len()), (10, true, 1));
    let (rows, stats) = bench.rows(&format!("{ALL} ORDER BY 1"), &[&["n:int"]]).await;
    assert_eq!(
        (rows, stats.truncated),
        ((0..10).map(|n| n.to_string()).collect(), true),
        "the first by the order"
    );
    let (rows, stats) = bench.rows(&format!("{ALL} LIMIT 20"), &[&["n:int"]]).await;
    assert_eq!(
        (rows.len(), stats.truncated),
        (20, false),
        "with LIMIT a result may be longer"
    );
    let (rows, stats) = bench
        .rows(&format!("{ALL} WHERE \"e\".\"n:int\" < 10"), &[&["n:int"]])
        .await;
    assert_eq!((rows.len(), stats.truncated), (10, false), "exactly the limit is whole");
}

#[tokio::test]
async fn a_deadline_ends_a_query_and_its_scans() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Hang);
    let question = Question {
        how: How {
            timeout: Some(Duration::from_millis(50)),
            ..How::default()
        },
        ..Question::default()
    };
    let problem = match bench.ask_resolved(question, ALL, &[&["n:int"]]).await {
        Ok(answer) => read(answer).await.map(drop).expect_err("it hangs"),
        Err(problem) => problem,
    };
    assert_eq!(problem.code, Code::Timeout);
    bench.until_let_go().await;
}

#[tokio::test]
async fn planning_ends_when_the_query_is_cancelled_or_its_time_is_over() {
    let bench = bench(numbers(3)).await;
    let sql = r#"SELECT count(*) FROM "rachis_0" AS "e" WHERE "e"."n:int" > 1"#;
    for code in [Code::Cancelled, Code::Timeout] {
        let timeout = Some(Duration::from_secs(if code == Code::Timeout { 0 } else { 20 }));
        let context = bench
            .engine
            .context(
                &How {
                    timeout,
                    ..How::default()
                },
                Instant::now(),
            )
            .expect("a context");
        let leaf_time = How {
            timeout: Some(Duration::from_secs(20)),
            ..How::default()
        };
        let pinning = bench.engine.context(&leaf_time, Instant::now()).expect("a context");
        let pins = Pins::take(
            &pinning,
            &bench.engine.catalog(),
            &BTreeSet::from([events()]),
            &PositionVector::default(),
        )
        .await
        .expect("views");
        if code == Code::Cancelled {
            context.cancel.cancel();
        }
        // Nothing but the planner's own rules looks: it never waits.
        let planned = planner::plan(&bench.engine, &context, &pins, resolved(sql, &[&["n:int"]]), &[], None).await;
        assert_eq!(planned.map(|_| ()).map_err(|problem| problem.code), Err(code));
        let planned = planner::plan(&bench.engine, &pinning, &pins, resolved(sql, &[&["n:int"]]), &[], None).await;
        assert!(planned.is_ok(), "the same is planned with time");
    }
}

#[tokio::test]
async fn the_time_a_reader_takes_does_not_count() {
    let bench = bench_with(numbers(300), |options| options.queries_max = 1).await;
    let timeout = Duration::from_secs(2);
    let sql = "SELECT a.n FROM events a CROSS JOIN events b LIMIT 90000".to_owned();
    let slow = Question {
        sql,
        how: How {
            timeout: Some(timeout),
            ..How::default()
        },
        ..Question::default()
    };
    let mut answer = bench.engine.ask(slow).await.expect("columns");
    let (begun, mut rows) = (Instant::now(), 0);
    let mut pace = tokio::time::interval(timeout / 5);
    let stats = loop {
        match answer
            .parts
            .next()
            .await
            .expect("a part")
            .expect("the deadline is for the question's work")
        {
            Part::Rows(batch) => rows += batch.num_rows(),
            Part::End(stats) => break stats,
        }
        // Slowly at first, until the question's time is long over.
        if begun.elapsed() < timeout * 3 / 2 {
            // Another query has its place meanwhile, for this one computes nothing.
            assert_eq!(bench.sql("SELECT count(*) FROM events").await.0, ["300"]);
            pace.tick().await;
        }
    };
    assert!(
        rows == 90_000 && stats.elapsed_ms > 2_000 && begun.elapsed() > timeout,
        "{rows} rows, {stats:?}"
    );
}

/// An answer of more parts than wait for a reader, over 300 numbers.
async fn long_answer(bench: &Bench, timeout: Duration) -> Answer {
    let sql = "SELECT a.n FROM events a CROSS JOIN events b LIMIT 90000".to_owned();
    let question = Question {
        sql,
        how: How {
            timeout: Some(timeout),
            ..How::default()
        },
        ..Question::default()
    };
    bench.engine.ask(question).await.expect("columns")
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let bench = bench(numbers(300)).await;
    let mut answer = long_answer(&bench, Duration::from_millis(500)).await;
    bench.until_let_go().await;
    let mut last = None;
    while let Some(part) = answer.parts.next().await {
        last = Some(part.map(|_| ()).map_err(|problem| problem.code));
    }
    assert_eq!(last, Some(Err(Code::Timeout)), "the client learns the reason");
}

#[tokio::test]
async fn a_row_of_an_answer_has_a_limit() {
    let bench = bench([json!({ "t": "x".repeat(1 << 20) })].into_iter()).await;
    let columns = |count: usize| (0..count).map(|n| format!("t AS c{n}")).collect::<Vec<_>>().join(", ");
    let ask = async |count: usize| {
        let question = Question {
            sql: format!("SELECT {} FROM events", columns(count)),
            ..Question::default()
        };
        read(bench.engine.ask(question).await?)
            .await
            .map(|(rows, _)| rows.len())
    };
    assert_eq!(ask(60).await.map_err(|problem| problem.code), Ok(1));
    let problem = ask(70).await.expect_err("it is too wide");
    assert!(
        problem.code == Code::LimitReached && problem.detail.contains("a row of the answer has 73"),
        "{problem}"
    );
}

#[tokio::test]
async fn what_nobody_reads_does_not_stay_in_memory_when_its_query_was_given_up() {
    let bench = bench(numbers(300)).await;
    let mut answer = long_answer(&bench, Duration::from_millis(100)).await;
    let given_up = Duration::from_secs(12);
    tokio::time::interval_at(tokio::time::Instant::now() + given_up, given_up)
        .tick()
        .await;
    let first = answer
        .parts
        .next()
        .await
        .expect("a word")
        .map(|_| ())
        .map_err(|problem| problem.code);
    assert_eq!(first, Err(Code::Timeout), "the parts that were ready are gone");
}

#[tokio::test]
async fn an_asker_may_choose_the_id_by_which_a_query_is_cancelled() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Hang);
    let id = How::chosen_id("018f6f1e-6b1c-7c11-8a3c-2f4a5b6c7d8e").expect("a UUID");
    let question = || Question {
        sql: "SELECT n FROM events".into(),
        how: How {
            id: Some(id),
            ..How::default()
        },
        ..Question::default()
    };
    let answer = bench.engine.ask(question()).await.expect("columns");
    assert_eq!(
        bench
            .engine
            .queries()
            .await
            .iter()
            .map(|(_, query)| query.id)
            .collect::<Vec<_>>(),
        [id]
    );
    let second = bench
        .engine
        .ask(question())
        .await
        .map(|_| ())
        .expect_err("its id is in use");
    assert_eq!(second.code, Code::Conflict, "{second}");
    assert!(bench.engine.cancel_anywhere(id).await);
    assert_eq!(read(answer).await.map(drop).map_err(|p| p.code), Err(Code::Cancelled));
    *bench.leaf.fault.lock() = None;
    let (_, stats) = read(bench.engine.ask(question()).await.expect("it is free again"))
        .await
        .expect("rows");
    assert_eq!(stats.query_id, Some(id));
    for text in ["", "mine", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(
            How::chosen_id(text).map_err(|p| p.code),
            Err(Code::BadRequest),
            "{text}"
        );
    }
}

#[tokio::test]
async fn dropping_an_answer_stops_its_scans() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Hang);
    let answer = bench
        .ask_resolved(Question::default(), ALL, &[&["n:int"]])
        .await
        .expect("columns");
    while bench.leaf.hanging.load(std::sync::atomic::Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    drop(answer);
    bench.until_let_go().await;
}

#[tokio::test]
async fn a_scan_without_its_end_is_no_answer() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::NoTrailer);
    let answer = bench
        .ask_resolved(Question::default(), ALL, &[&["n:int"]])
        .await
        .expect("columns");
    assert_eq!(read(answer).await.map(drop).map_err(|p| p.code), Err(Code::Incomplete));
}

#[tokio::test]
async fn a_panic_ends_its_query_and_nothing_else() {
    let bench = bench(numbers(3)).await;
    *bench.leaf.fault.lock() = Some(Fault::Panic);
    let answer = bench
        .ask_resolved(Question::default(), ALL, &[&["n:int"]])
        .await
        .expect("columns");
    assert_eq!(read(answer).await.map(drop).map_err(|p| p.code), Err(Code::Internal));
    *bench.leaf.fault.lock() = None;
    assert_eq!(bench.rows(ALL, &[&["n:int"]]).await.0.len(), 3);
}

#[tokio::test]
async fn a_missing_shard_is_an_error_unless_partial_answers_will_do() {
    let bench = bench(numbers(10)).await;
    bench.leaf.away.lock().insert(1);
    let refused = bench
        .ask_resolved(Question::default(), ALL, &[&["n:int"]])
        .await
        .map(drop)
        .expect_err("incomplete");
    assert_eq!(refused.code, Code::Incomplete);
    let partial = || Question {
        how: How {
            allow_partial: true,
            ..How::default()
        },
        ..Question::default()
    };
    let (batches, stats) = read(
        bench
            .ask_resolved(partial(), ALL, &[&["n:int"]])
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
    let absence = [
        r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" WHERE "e"."n:int" NOT IN (SELECT "f"."n:int" FROM "rachis_1" AS "f")"#,
        r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" LEFT JOIN "rachis_1" AS "f" ON "e"."n:int" = "f"."n:int" + 1"#,
        r#"SELECT "e"."n:int" AS "n" FROM "rachis_0" AS "e" EXCEPT SELECT "f"."n:int" FROM "rachis_1" AS "f" WHERE "f"."n:int" > 3"#,
    ];
    for sql in absence {
        let refused = bench
            .ask_resolved(partial(), sql, &[&["n:int"], &["n:int"]])
            .await
            .map(drop)
            .expect_err(sql);
        assert_eq!(refused.code, Code::Incomplete, "{sql}");
    }
    bench.until_let_go().await;
}

#[tokio::test]
async fn memory_is_bounded() {
    let bench = bench_with(
        (0..2_000).map(|n| json!({ "n": n, "t": "x".repeat(2_000) })),
        |options| options.query_bytes_max = 1 << 20,
    )
    .await;
    let sql = r#"SELECT count(*) AS "c" FROM "rachis_0" AS "a" JOIN "rachis_1" AS "b" ON "a"."n:int" = "b"."n:int" WHERE "a"."t:text" <> "b"."t:text" || 'x'"#;
    let problem = match bench
        .ask_resolved(Question::default(), sql, &[&["n:int", "t:text"], &["n:int", "t:text"]])
        .await
    {
        Ok(answer) => read(answer).await.map(drop).expect_err("too much"),
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
