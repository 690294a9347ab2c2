//! Changes of definitions: what they would break, files of them, and what DIFF says about them.

use proto::Code;
use serde_json::json;

use super::{
    definitions::{orders, refused, run},
    *,
};

#[tokio::test]
async fn no_change_lets_a_definition_use_itself() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.a AS cents",
            "CREATE OR REPLACE FIELD events.a AS 1",
            "ALTER FIELD events.a RENAME TO cents",
            "CREATE FIELD events.b AS user",
        ],
    )
    .await;
    for statement in ["REVERT FIELD events.cents", "ALTER FIELD events.b RENAME TO user"] {
        let problem = refused(&bench, statement).await;
        assert!(problem.detail.contains("would use itself"), "{statement}: {problem}");
    }
    assert_eq!(
        bench.sql("SELECT max(cents) AS c, max(b) AS b FROM events").await.0,
        ["1 | bob"]
    );
    run(
        &bench,
        &["ALTER FIELD events.cents RENAME TO a", "REVERT FIELD events.a"],
    )
    .await;
    assert_eq!(bench.sql("SELECT max(a) AS a FROM events").await.0, ["990"]);
}

#[tokio::test]
async fn a_new_definition_breaks_nothing_that_already_has_its_name() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &["CREATE VIEW states AS SELECT x.status AS s, cents FROM events"],
    )
    .await;
    let problem = refused(&bench, "CREATE PARSER events.x ON user AS REGEX '(?<level>[a-z]+)'").await;
    assert_eq!(problem.code, Code::InUse);
    assert!(problem.detail.contains("view states@1"), "{problem}");
    run(
        &bench,
        &[
            "CREATE PARSER events.x ON user AS REGEX '(?<status>[a-z]+)'",
            "CREATE PARSER events.cen ON user AS REGEX '(?<other>[a-z]+)'",
        ],
    )
    .await;
    assert_eq!(bench.sql("SELECT max(s) AS s FROM states").await.0, ["bob"]);
}

#[tokio::test]
async fn a_file_is_applied_as_a_whole_and_comes_back_as_it_was_exported() {
    let bench = bench(orders()).await;
    let apply = |file: &str| bench.engine.apply_definitions(file.to_owned(), None, false);
    let wrong = "CREATE FIELD events.price AS cents; CREATE FIELD events.cost AS no_such(price);";
    let problem = apply(wrong).await.expect_err("a function is missing");
    assert!(problem.detail.starts_with("field events.cost: "), "{problem}");
    assert_eq!(problem.at, Some((1, 65)), "{problem}");
    assert!(bench.engine.catalog().definitions.is_empty(), "nothing was changed");
    let wrong = "CREATE FIELD events.price AS cents; ALTER FIELD events.price SET TAG prod TO 7;";
    let problem = apply(wrong).await.expect_err("there is no such version");
    assert!(problem.detail.starts_with("field events.price: "), "{problem}");
    let file = "CREATE FUNCTION f() RETURNS bigint AS 1;
                CREATE FUNCTION g() RETURNS bigint AS f@1();
                CREATE FUNCTION f() RETURNS bigint AS g() + 1;
                ALTER FUNCTION f SET TAG prod TO 1;
                CREATE FIELD events.n@3 AS f() + f@prod();";
    assert_eq!(apply(file).await.expect("it is applied").len(), 5);
    assert_eq!(
        bench.sql("SELECT max(n) AS n, max(n@3) AS m FROM events").await.0,
        ["3 | 3"]
    );
    let exported = crate::definition_file::export(&bench.engine.catalog());
    assert!(apply(&exported).await.expect("it is known").is_empty(), "{exported}");
    for dropped in ["FIELD events.n", "FUNCTION g", "FUNCTION f"] {
        let drop = format!("DROP {dropped}");
        if dropped == "FUNCTION g" {
            bench.sql("REVERT FUNCTION f").await;
            bench.sql("ALTER FUNCTION f DROP TAG prod").await;
        }
        bench.sql(&drop).await;
    }
    assert_eq!(apply(&exported).await.expect("it is applied").len(), 5, "{exported}");
    assert_eq!(crate::definition_file::export(&bench.engine.catalog()), exported);
    for (statement, expected) in [
        ("CREATE OR REPLACE FIELD events.n@4 AS 7", "a version never changes"),
        ("CREATE OR REPLACE FIELD events.n@2 AS 7", "versions up to 4"),
        ("CREATE OR REPLACE FIELD events.n@prod AS 7", "gets tags later"),
    ] {
        let problem = refused(&bench, statement).await;
        assert!(problem.detail.contains(expected), "{statement}: {problem}");
    }
    assert_eq!(
        bench.sql("CREATE OR REPLACE FIELD events.n@9 AS 7").await.0,
        ["field events.n | 9"]
    );
}

#[tokio::test]
async fn a_diff_compares_values_of_any_two_types() {
    let bench = bench(vec![
        json!({ "_id": "a", "zip": "01234", "at": "1700000000" }),
        json!({ "_id": "b", "zip": "77", "at": "x" }),
    ])
    .await;
    run(
        &bench,
        &[
            "CREATE FIELD events.code AS zip::text",
            "CREATE OR REPLACE FIELD events.code AS zip::int",
            "CREATE FIELD events.time AS at::bigint",
            "CREATE OR REPLACE FIELD events.time AS to_timestamp(at::bigint)",
            "CREATE OR REPLACE FIELD events.time AS string_to_array(at, '0')",
        ],
    )
    .await;
    for (diff, changed) in [
        ("DIFF FIELD events.code@1 TO 2", 2),
        ("DIFF FIELD events.time@1 TO 2", 1),
        ("DIFF FIELD events.time@2 TO 3", 2),
    ] {
        let (rows, stats) = bench.sql(diff).await;
        assert_eq!(rows[1], format!("total | changed | {changed} |  |  |  | "), "{diff}");
        assert_eq!(stats.shards_total, 2, "{diff} says what it has read");
    }
}

#[tokio::test]
async fn a_diff_of_lists_says_which_rows_change() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.pair AS [user, cents]",
            "CREATE OR REPLACE FIELD events.pair AS [user, CASE WHEN cents = 990 THEN 991 ELSE cents END]",
            "CREATE FIELD events.list AS [cents]",
            "CREATE OR REPLACE FIELD events.list AS [cents + 0]",
        ],
    )
    .await;
    for (field, changed) in [("pair", 1), ("list", 0)] {
        let (rows, _) = bench.sql(&format!("DIFF FIELD events.{field}@1 TO 2")).await;
        assert_eq!(rows[1], format!("total | changed | {changed} |  |  |  | "), "{field}");
    }
}

#[tokio::test]
async fn names_of_definitions_are_found_in_any_case() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.\"Total\" AS cents / 100.0",
            "CREATE FIELD events.\"TOTAL\" AS cents",
            "CREATE FIELD events.\"Whole\" AS cents",
            "CREATE PARSER events.part ON user AS REGEX '(?<letters>[a-z]+)'",
        ],
    )
    .await;
    let sql = "SELECT max(whole) AS w, max(PART.letters) AS l, max(\"Total\") AS t FROM events";
    assert_eq!(bench.sql(sql).await.0, ["990 | bob | 9.9"]);
    let (_, stats) = bench.sql("SELECT total FROM events").await;
    let warning = stats.warnings.first().map(String::as_str).unwrap_or_default();
    assert!(
        warning.contains("did you mean"),
        "two definitions differ in case only: {warning:?}"
    );
}

#[tokio::test]
async fn the_errors_of_a_parser_include_parts_that_do_not_fit_their_type() {
    let bench = bench(vec![
        json!({ "_id": "a", "line": "n=1 m=x" }),
        json!({ "_id": "b", "line": "n=99999999999999999999 m=y" }),
        json!({ "_id": "c", "line": "nothing" }),
        json!({ "_id": "d", "line": 7 }),
        json!({ "_id": "e" }),
    ])
    .await;
    run(
        &bench,
        &["CREATE PARSER events.p ON line AS GROK 'n=%{INT:n:int} m=%{WORD:m}'"],
    )
    .await;
    let errors = bench.sql("SHOW ERRORS OF PARSER events.p").await.0;
    let mut found: Vec<String> = errors
        .iter()
        .map(|row| row.split(" | ").skip(4).take(2).collect::<Vec<_>>().join(" "))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "b events.p.n is not of its type",
            "c the text does not match events.p",
            "d the text does not match events.p"
        ]
    );
}

#[tokio::test]
async fn what_reads_a_field_through_all_columns_of_a_view_is_not_broken() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE VIEW everything AS SELECT * FROM events",
            "CREATE FIELD events.extra AS cents * 2",
            "CREATE VIEW some AS SELECT extra + 1 AS more FROM everything",
        ],
    )
    .await;
    for statement in [
        "DROP FIELD events.extra",
        "ALTER FIELD events.extra RENAME TO other",
        "CREATE OR REPLACE FIELD events.extra AS [1]",
    ] {
        let problem = refused(&bench, statement).await;
        assert_eq!(problem.code, Code::InUse, "{statement}");
        assert!(problem.detail.contains("view some@1"), "{statement}: {problem}");
    }
    assert_eq!(bench.sql("SELECT max(more) AS m FROM some").await.0, ["1981"]);
}

#[tokio::test]
async fn what_names_a_field_that_is_defined_later_is_known_to_use_it() {
    let bench = bench(orders()).await;
    run(&bench, &["CREATE VIEW early AS SELECT later, cents FROM events"]).await;
    let (_, stats) = bench.sql("CREATE FIELD events.later AS cents + 1").await;
    assert_eq!(stats.warnings, ["view early@1 reads field events.later from now on"]);
    run(&bench, &["CREATE OR REPLACE FIELD events.later AS cents + 2"]).await;
    assert_eq!(
        bench.sql("SHOW DEPENDENTS OF FIELD events.later").await.0,
        ["view early | 1 | field events.later@latest | 2 | true"]
    );
    let (rows, _) = bench.sql("DIFF FIELD events.later@1 TO 2").await;
    assert!(
        rows.contains(&"follows | view early@1 |  |  |  |  | ".to_owned()),
        "{rows:?}"
    );
    let problem = refused(&bench, "DROP FIELD events.later").await;
    assert!(
        problem.detail.contains("view early@1 (it reads field events.later)"),
        "{problem}"
    );
    // What hides a path of documents gives it back.
    run(&bench, &["CREATE FIELD events.cents AS 7", "DROP FIELD events.cents"]).await;
    assert_eq!(bench.sql("SELECT max(cents) AS c FROM early").await.0, ["990"]);
}

#[tokio::test]
async fn items_of_a_list_of_any_kinds_are_found() {
    let bench = bench(vec![
        json!({ "_id": "a", "name": "x", "price": 1 }),
        json!({ "_id": "b", "name": "y", "price": "x" }),
        json!({ "_id": "c", "name": "1", "price": { "x": 2 } }),
        json!({ "_id": "d", "price": 2.5 }),
    ])
    .await;
    run(&bench, &["CREATE FIELD events.both AS [name, price]"]).await;
    for (condition, found) in [
        ("'x' = ANY(both)", "a b"),
        ("list_contains(both, 'x')", "a b"),
        ("has([name, price], 'x')", "a b"),
        ("1 = ANY(both)", "a c"),
        ("name = ANY(both)", "a b c"),
        ("array_position(both, 'x') = 2", "b"),
        ("search('both:x')", "a b"),
        ("search('both:>2')", "d"),
        ("search('both:2')", ""),
    ] {
        let sql = format!("SELECT _id FROM events WHERE {condition} ORDER BY _id");
        assert_eq!(bench.sql(&sql).await.0.join(" "), found, "{condition}");
    }
    assert_eq!(
        bench.sql("SELECT to_json(both) AS j FROM events ORDER BY _id").await.0,
        [r#"["x",1]"#, r#"["y","x"]"#, r#"["1",{"x":2}]"#, "[null,2.5]"]
    );
}

#[tokio::test]
async fn a_mistaken_statement_about_a_definition_says_what_to_write() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.a AS 'good'",
            "CREATE OR REPLACE FIELD events.a AS 'mistake'",
            "REVERT FIELD events.a",
            "CREATE OR REPLACE FIELD events.a AS 'second mistake'",
            "REVERT FIELD events.a",
            "ALTER FIELD events.a RENAME TO events.b",
            "CREATE QUERY top(k int DEFAULT 1) AS SELECT b FROM events LIMIT $k",
        ],
    )
    .await;
    assert_eq!(bench.sql("SELECT max(b) AS b FROM events").await.0, ["good"]);
    assert_eq!(bench.sql("SHOW QUERIES").await.0.len(), 1);
    assert_eq!(bench.sql("SHOW VIEWS").await.0.len(), 0);
    for (statement, expected) in [
        ("CREATE FIELD events.r AS random()", "a random function"),
        ("CREATE FIELD events.r AS gen_random_uuid()", "a random function"),
        (
            "CREATE FUNCTION dayofweek(x int) RETURNS int AS x",
            "or of another system",
        ),
        ("SELECT nosuch@1 FROM events", "no field or parser nosuch"),
        ("CALL top(k => -1)", "-1 is not a number of rows"),
    ] {
        let problem = refused(&bench, statement).await;
        assert!(problem.detail.contains(expected), "{statement}: {problem}");
    }
}

#[tokio::test]
async fn trying_a_definition_says_what_creating_it_would_break_and_changes_nothing() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.price AS cents / 100.0",
            "CREATE VIEW dear AS SELECT price * 2 AS twice FROM events",
        ],
    )
    .await;
    let before = bench.engine.catalog();
    let (rows, stats) = bench.sql("TRY LIMIT 2 CREATE FIELD events.price AS [cents, 1]").await;
    assert!(
        rows.len() == 2 && rows.iter().all(|row| row.contains(",1]")),
        "{rows:?}"
    );
    let warning = stats.warnings.first().map(String::as_str).unwrap_or_default();
    assert!(
        warning.contains("would break 1 definition: view dear@1"),
        "{:?}",
        stats.warnings
    );
    let (_, stats) = bench.sql("TRY CREATE FIELD events.price AS cents").await;
    assert!(stats.warnings.is_empty(), "{:?}", stats.warnings);
    assert!(Arc::ptr_eq(&before, &bench.engine.catalog()));
    let problem = refused(&bench, "TRY CREATE FIELD events.price AS\n  cents + price").await;
    assert!(problem.detail.contains("would use itself"), "{problem}");
}
