//! Statements that look around in data: SUMMARIZE, TABLESAMPLE, and rows matched with the nearest in time.

use std::collections::BTreeSet;

use serde_json::json;

use super::{definitions::refused, *};

fn numbered(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|n| json!({ "_id": format!("d{n}"), "n": n, "kind": format!("k{}", n % 3), "at": n }))
}

#[tokio::test]
async fn a_sample_is_the_same_every_time_and_grows_with_the_percentage() {
    let bench = bench(numbered(1_000)).await;
    let ids = async |from: &str| {
        let rows = bench.sql(&format!("SELECT _id FROM {from} LIMIT 2000")).await.0;
        rows.into_iter().collect::<BTreeSet<_>>()
    };
    let tenth = ids("events TABLESAMPLE (10)").await;
    assert!((60..=140).contains(&tenth.len()), "{}", tenth.len());
    for same in [
        "events TABLESAMPLE BERNOULLI (10)",
        "events AS e TABLESAMPLE SYSTEM (10 PERCENT)",
    ] {
        assert_eq!(ids(same).await, tenth, "{same}");
    }
    let third = ids("events TABLESAMPLE (30.5)").await;
    assert!(third.is_superset(&tenth) && third.len() < 400, "{}", third.len());
    assert_eq!(ids("events TABLESAMPLE (100)").await.len(), 1_000);
    assert_eq!(ids("events TABLESAMPLE (0)").await.len(), 0);
    let other = ids("events TABLESAMPLE (10) REPEATABLE (1)").await;
    assert_eq!(other, ids("events e TABLESAMPLE (10) REPEATABLE (1)").await);
    assert!(other != tenth && (60..=140).contains(&other.len()), "{}", other.len());
    // Nested paths, aggregates, conditions and joins are of the sample.
    let rows = bench
        .sql(
            "SELECT count(*), count(f._id) FROM events e LEFT JOIN events f TABLESAMPLE (10) ON e.n = f.n \
             UNION ALL SELECT count(*), count(e.kind) FROM events e TABLESAMPLE (10) \
             UNION ALL SELECT count(*), 0 FROM (SELECT * FROM events TABLESAMPLE (10)) s WHERE s.kind = 'k9'",
        )
        .await
        .0;
    let of_tenth = tenth.len();
    let expected = [
        format!("1000 | {of_tenth}"),
        format!("{of_tenth} | {of_tenth}"),
        "0 | 0".to_owned(),
    ];
    assert_eq!(
        rows.into_iter().collect::<BTreeSet<_>>(),
        expected.into_iter().collect()
    );
    // Rows that are not documents are taken by chance.
    let drawn = bench
        .sql("SELECT count(*) BETWEEN 300 AND 700 FROM (SELECT n FROM events) t TABLESAMPLE (50)")
        .await
        .0;
    assert_eq!(drawn, ["true"]);
    for (from, word) in [
        ("events TABLESAMPLE (101)", "from 0 to 100"),
        ("events TABLESAMPLE (-1)", "from 0 to 100"),
        ("events TABLESAMPLE (10 ROWS)", "number of rows"),
        ("events TABLESAMPLE (n)", "is a number"),
        ("events TABLESAMPLE (BUCKET 1 OUT OF 4)", "buckets"),
        ("(SELECT n FROM events) t TABLESAMPLE (10) REPEATABLE (1)", "REPEATABLE"),
    ] {
        let problem = refused(&bench, &format!("SELECT * FROM {from}")).await;
        assert!(
            problem.detail.contains(word) && problem.hint.is_some(),
            "{from}: {problem:?}"
        );
    }
}

/// Trades and prices, as the statements below see them.
fn market() -> Vec<Value> {
    let trade = |id: &str, symbol: &str, at: i64| json!({ "_id": id, "trade": symbol, "t": at });
    let price = |symbol: &str, at: i64, price: i64| json!({ "price_of": symbol, "t": at, "price": price });
    vec![
        trade("a", "x", 10),
        trade("b", "x", 20),
        trade("c", "x", 25),
        trade("d", "y", 20),
        trade("e", "z", 20),
        trade("f", "x", 5),
        price("x", 10, 100),
        price("x", 20, 200),
        price("x", 30, 300),
        price("y", 1, 7),
        price("y", 2, 8),
        // Without a time it matches nothing, and ends no other row.
        json!({ "price_of": "x", "price": 1 }),
    ]
}

#[tokio::test]
async fn an_asof_join_finds_the_row_next_in_time_in_all_spellings() {
    let bench = bench(market()).await;
    let sides = "(SELECT _id AS id, trade AS symbol, t FROM events WHERE trade IS NOT NULL) o";
    let joined = async |join: &str| {
        let sql = format!("SELECT o.id, p.price FROM {sides} {join} ORDER BY o.id");
        bench.sql(&sql).await.0
    };
    let latest = ["a | 100", "b | 200", "c | 200", "d | 8"];
    for join in [
        "ASOF JOIN events p ON o.symbol = p.price_of AND o.t >= p.t",
        "ASOF INNER JOIN events p ON o.symbol = p.price_of AND p.t <= o.t",
        "ASOF JOIN events p MATCH_CONDITION (o.t >= p.t) ON o.symbol = p.price_of",
        "ASOF JOIN (SELECT price_of AS symbol, t, price FROM events) p USING (symbol, t)",
        "ASOF JOIN (SELECT price_of AS symbol, t, price FROM events) p MATCH_CONDITION (o.t >= p.t) USING (symbol)",
    ] {
        assert_eq!(joined(join).await, latest, "{join}");
    }
    let left = ["a | 100", "b | 200", "c | 200", "d | 8", "e | ", "f | "];
    for join in [
        "ASOF LEFT JOIN events p ON o.symbol = p.price_of AND o.t >= p.t",
        "LEFT ASOF JOIN events p ON o.symbol = p.price_of AND o.t >= p.t",
        "ASOF LEFT OUTER JOIN events p ON o.symbol = p.price_of AND o.t >= p.t",
    ] {
        assert_eq!(joined(join).await, left, "{join}");
    }
    for (op, expected) in [
        (">", &["b | 100", "c | 200", "d | 8"][..]),
        ("<=", &["a | 100", "b | 200", "c | 300", "f | 100"]),
        ("<", &["a | 200", "b | 300", "c | 300", "f | 100"]),
    ] {
        let join = format!("ASOF JOIN events p ON o.symbol = p.price_of AND o.t {op} p.t");
        assert_eq!(joined(&join).await, expected, "{join}");
    }
    let without_keys = joined("ASOF JOIN (SELECT t, price FROM events WHERE price > 0) p ON o.t >= p.t").await;
    assert_eq!(
        without_keys,
        ["a | 100", "b | 200", "c | 200", "d | 200", "e | 200", "f | 8"]
    );
}

#[tokio::test]
async fn an_asof_join_with_other_conditions_is_an_error_with_a_hint() {
    let bench = bench(market()).await;
    for (join, word) in [
        ("ASOF JOIN events p ON a.trade = p.price_of", "needs a comparison"),
        ("ASOF JOIN events p ON a.t >= p.t AND a.t < p.t", "one comparison"),
        (
            "ASOF JOIN events p ON a.t >= p.t AND p.price > 3",
            "each table with the other",
        ),
        (
            "ASOF JOIN events p ON a.t >= p.t OR a.trade = p.price_of",
            "each table with the other",
        ),
        (
            "ASOF JOIN (events p JOIN events q ON p.t = q.t) ON a.t >= p.t",
            "parentheses",
        ),
        // Two texts may be one number, or one time.
        (
            "ASOF JOIN (SELECT concat(price, '') AS k, t FROM events) p ON length(a.trade) = p.k AND a.t >= p.t",
            "of different types",
        ),
        (
            "ASOF JOIN events p ON to_timestamp(a.t + 0) = p.price_of AND a.t >= p.t",
            "of different types",
        ),
    ] {
        let problem = refused(&bench, &format!("SELECT 1 FROM events a {join}")).await;
        assert!(
            problem.detail.contains(word) && problem.hint.is_some(),
            "{join}: {problem:?}"
        );
    }
    let rows = bench
        .sql("SELECT count(*) FROM events a GLOBAL JOIN events p ON a._id = p._id")
        .await
        .0;
    assert_eq!(rows, ["12"], "GLOBAL JOIN is a JOIN");
}

#[tokio::test]
async fn an_asof_join_orders_rows_as_it_compares_them() {
    let mut documents = market();
    // Sorted as texts, the second price comes before the first.
    let offered = |at: &str, price: i64| json!({ "offered": at, "price": price });
    documents.extend([
        offered("1970-01-01T00:00:12Z", 1),
        offered("1970-01-01T00:00:12.5Z", 2),
        offered("1970-01-01T02:00:22+02:00", 3),
        // A stray value is next to nothing.
        offered("unknown", 9),
        json!({ "price_of": "x", "t": "unknown", "price": 9 }),
    ]);
    let bench = bench(documents).await;
    let sides =
        "(SELECT _id AS id, trade AS symbol, t, to_timestamp(t + 0) AS at FROM events WHERE trade IS NOT NULL) o";
    for (join, expected) in [
        (
            "ASOF LEFT JOIN (SELECT concat(offered, '') AS offered, price FROM events) p ON o.at >= p.offered::timestamp",
            ["a | ", "b | 2", "c | 3", "d | 2", "e | 2", "f | "],
        ),
        (
            "ASOF LEFT JOIN (SELECT concat(offered, '') AS offered, price FROM events) p ON o.at::timestamp >= p.offered",
            ["a | ", "b | 2", "c | 3", "d | 2", "e | 2", "f | "],
        ),
        (
            // Only the type of a column says that these are times.
            "ASOF LEFT JOIN (SELECT concat(offered, '') AS offered, price FROM events) p ON o.at >= p.offered",
            ["a | ", "b | 2", "c | 3", "d | 2", "e | 2", "f | "],
        ),
        (
            "ASOF LEFT JOIN events p ON o.symbol = p.price_of AND o.t >= p.t",
            ["a | 100", "b | 200", "c | 200", "d | 8", "e | ", "f | "],
        ),
        (
            // As texts, 9 comes behind 10.
            "ASOF LEFT JOIN (SELECT (t::int)::text AS t, price FROM events WHERE price > 0 AND t > 0) p \
             ON o.t::int >= p.t",
            ["a | 100", "b | 200", "c | 200", "d | 200", "e | 200", "f | 8"],
        ),
    ] {
        let sql = format!("SELECT o.id, p.price FROM {sides} {join} ORDER BY o.id");
        assert_eq!(bench.sql(&sql).await.0, expected, "{join}");
    }
    let using = "ASOF JOIN (SELECT price_of AS symbol, t, price FROM events) p USING (symbol, t)";
    let sql = format!("SELECT symbol, t, price FROM {sides} {using} ORDER BY id");
    assert_eq!(
        bench.sql(&sql).await.0,
        ["x | 10 | 100", "x | 20 | 200", "x | 25 | 200", "y | 20 | 8"]
    );
}

#[tokio::test]
async fn an_asof_join_compares_values_of_any_kind_each_with_its_own() {
    let bench = bench([
        json!({ "trade": "a", "at": "2026-01-02" }),
        json!({ "trade": "b", "at": "2026-01-04" }),
        json!({ "trade": "n", "at": 5 }),
        json!({ "ticks": [{ "at": "2026-01-01", "price": 1 }, { "at": "2026-01-03", "price": 3 }, { "at": 4, "price": 4 }] }),
        json!({ "price": 1, "offered": "2026-01-01" }),
        json!({ "price": 3, "offered": "2026-01-03" }),
        json!({ "price": 4, "offered": 4 }),
        json!({ "price": 9, "offered": [1] }),
    ])
    .await;
    let trades = "(SELECT trade, at FROM events WHERE trade IS NOT NULL) o";
    for right in [
        "(SELECT i.at AS offered, i.price FROM events, unnest(ticks) AS i)",
        "(SELECT to_json(offered) AS offered, price FROM events WHERE price > 0)",
        "(SELECT offered, price FROM events WHERE price > 0)",
    ] {
        for (condition, expected) in [
            ("o.at >= p.offered", ["a | 1", "b | 3", "n | 4"]),
            ("p.offered < o.at", ["a | 1", "b | 3", "n | 4"]),
            ("o.at <= p.offered", ["a | 3", "b | ", "n | "]),
        ] {
            let sql =
                format!("SELECT o.trade, p.price FROM {trades} ASOF LEFT JOIN {right} p ON {condition} ORDER BY 1");
            assert_eq!(bench.sql(&sql).await.0, expected, "{sql}");
        }
    }
    let texts = "(SELECT trade, at FROM events WHERE trade < 'n') o";
    let sql = format!("SELECT o.trade, p.price FROM {texts} ASOF JOIN events p ON o.at >= p.offered ORDER BY 1");
    assert_eq!(
        bench.sql(&sql).await.0,
        ["a | 1", "b | 3"],
        "texts beside a stray number"
    );
}

#[tokio::test]
async fn summarize_reads_names_that_are_words_of_sql() {
    let document = json!({ "case": 1, "null": 2, "user-agent": "x", "events": { "count": 7 }, "count": 8, "a.b": 3 });
    let bench = bench([document]).await;
    bench.sql("CREATE FIELD events.count AS 9").await;
    let summary = bench.sql("SUMMARIZE events").await.0;
    for (column, least) in [
        ("case", "1"),
        ("null", "2"),
        ("user-agent", "x"),
        ("events.count", "7"),
        ("count", ""),
        ("\"a.b\"", "3"),
    ] {
        let rows: Vec<&String> = summary
            .iter()
            .filter(|row| row.starts_with(&format!("{column} |")))
            .collect();
        let [row] = rows.as_slice() else {
            panic!("{column}: {summary:#?}")
        };
        assert_eq!(row.split(" | ").nth(2), Some(least), "{row}");
    }
    let twice = bench.sql("SUMMARIZE SELECT count, count FROM events").await.0;
    assert_eq!(twice.len(), 2, "{twice:?}");
}

#[tokio::test]
async fn a_local_time_that_comes_twice_or_never_is_one_point_in_time() {
    let bench = bench([json!({ "at": 1, "local": "2026-10-25 02:30" })]).await;
    for (sql, expected) in [
        (
            "SELECT TIMESTAMP '2026-10-25 02:30' AT TIME ZONE 'Europe/Berlin'",
            "2026-10-25T01:30:00Z",
        ),
        (
            "SELECT concat(local, '')::timestamp AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin' FROM events",
            "2026-10-25T01:30:00Z",
        ),
        (
            "SELECT TIMESTAMP '2026-03-29 02:30' AT TIME ZONE 'Europe/Berlin'",
            "2026-03-29T01:30:00Z",
        ),
    ] {
        assert_eq!(bench.sql(sql).await.0, [expected], "{sql}");
    }
    for time in ["$1::timestamp", "($1)::timestamp", "((($1)::timestamp))"] {
        let query = SqlQuery {
            sql: format!("SELECT {time} AT TIME ZONE 'Europe/Berlin'"),
            parameters: vec![json!("2026-01-31 08:30")],
            ..SqlQuery::default()
        };
        let (batches, _) = read(bench.engine.query(query).await.expect("an answer"))
            .await
            .expect("rows");
        assert_eq!(lines(&batches), ["2026-01-31T07:30:00Z"], "{time}: as the literal");
    }
}

#[tokio::test]
async fn summarize_describes_the_values_of_each_column() {
    let documents = [
        json!({ "_id": "a", "n": 1, "user": { "name": "ann" }, "at": 1_700_000_000, "tags": [1] }),
        json!({ "_id": "b", "n": 3, "user": { "name": "bob" }, "at": 1_700_000_001, "ok": true }),
        json!({ "_id": "c", "n": 5.5, "user": { "name": "ann" }, "at": 1_700_000_002, "mixed": "x" }),
        json!({ "_id": "d", "at": 1_700_000_003, "mixed": 4 }),
    ];
    let bench = bench(documents).await;
    let summary = bench.sql("SUMMARIZE events").await.0;
    let of = |column: &str| {
        let row = summary.iter().find(|row| row.starts_with(&format!("{column} |")));
        row.unwrap_or_else(|| panic!("{column}: {summary:#?}")).as_str()
    };
    let n = of("n");
    let begins = n.starts_with("n | DOUBLE | 1.0 | 5.5 | 3 | 3.1666666666666665 | 2.2546248764");
    assert!(begins && n.ends_with(" | 1.5 | 3.0 | 4.875 | 3 | 25.0"), "{n}");
    assert_eq!(
        of("user.name"),
        "user.name | TEXT | ann | bob | 2 |  |  |  |  |  | 3 | 25.0"
    );
    assert!(
        of("_time").starts_with("_time | TIMESTAMP | 2023-11-14T22:13:20"),
        "{}",
        of("_time")
    );
    assert!(
        of("mixed").ends_with("| 2 | 50.0") && of("mixed").contains("|  |  | 2 |"),
        "{}",
        of("mixed")
    );
    assert!(of("ok").starts_with("ok | BOOLEAN | true | true | 1 |"), "{}", of("ok"));
    let of_query = bench
        .sql("SUMMARIZE SELECT n * 2 AS twice, user.name FROM events WHERE n > 1")
        .await
        .0;
    assert!(
        of_query[0].starts_with("twice | DOUBLE | 6.0 | 11.0 | 2 | 8.5 |"),
        "{of_query:?}"
    );
    assert_eq!(of_query.len(), 2, "{of_query:?}");
    bench
        .sql("CREATE VIEW named AS SELECT user.name AS name FROM events")
        .await;
    assert_eq!(
        bench.sql("summarise named").await.0,
        ["name | TEXT | ann | bob | 2 |  |  |  |  |  | 3 | 25.0"]
    );
    assert!(bench.sql("SUMMARIZE rachis.collections").await.0.len() > 3);
    for (sql, word) in [
        ("SUMMARIZE", "needs a table"),
        ("SUMMARIZE nothing", "nothing"),
        ("SUMMARIZE SELECT FROM", "Expected"),
        ("SUMMARIZE events events", "unexpected"),
    ] {
        let problem = refused(&bench, sql).await;
        assert!(problem.detail.contains(word), "{sql}: {problem:?}");
    }
}
