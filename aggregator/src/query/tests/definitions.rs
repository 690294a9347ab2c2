//! Definitions: versions, tags, functions and saved queries, and what is refused.

use proto::{
    Code,
    catalog::{Change, DefinitionId},
};
use serde_json::json;

use super::*;

fn orders() -> Vec<Value> {
    vec![
        json!({ "_id": "a", "cents": 250, "user": "ann" }),
        json!({ "_id": "b", "cents": 120, "user": "bob" }),
        json!({ "_id": "c", "cents": 990, "user": "ann" }),
    ]
}

/// Runs statements that must succeed.
async fn run(bench: &Bench, statements: &[&str]) {
    for statement in statements {
        bench.sql(statement).await;
    }
}

async fn refused(bench: &Bench, statement: &str) -> Problem {
    match bench.try_sql(statement).await {
        Err(problem) => problem,
        Ok(_) => panic!("{statement} was accepted"),
    }
}

#[tokio::test]
async fn versions_of_a_field_stand_side_by_side_and_tags_move_between_them() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.price AS cents / 100.0 COMMENT 'in euros'",
            "CREATE OR REPLACE FIELD events.price AS cents / 1000.0",
            "ALTER FIELD events.price SET TAG prod TO 1",
        ],
    )
    .await;
    let all = "SELECT max(price) AS p, max(price@1) AS a, max(price@2) AS b, max(price@prod) AS c, \
               max(price@latest) AS d FROM events";
    assert_eq!(bench.sql(all).await.0, ["0.99 | 9.9 | 0.99 | 9.9 | 0.99"]);
    assert_eq!(
        bench.sql("REVERT FIELD events.price").await.0,
        ["field events.price | 1"]
    );
    assert_eq!(bench.sql(all).await.0, ["9.9 | 9.9 | 0.99 | 9.9 | 9.9"]);
    assert_eq!(refused(&bench, "REVERT FIELD events.price").await.code, Code::Conflict);
    run(
        &bench,
        &[
            "REVERT FIELD events.price TO 2",
            "ALTER FIELD events.price SET TAG prod TO 2 FROM 1",
        ],
    )
    .await;
    assert_eq!(bench.sql(all).await.0, ["0.99 | 9.9 | 0.99 | 0.99 | 0.99"]);
    let problem = refused(&bench, "ALTER FIELD events.price SET TAG prod TO 1 FROM 1").await;
    assert_eq!(
        (problem.code, problem.detail.as_str()),
        (
            Code::Conflict,
            "tag prod of field events.price is not on version 1: version 2 has it"
        )
    );
    let versions = bench.sql("SHOW VERSIONS OF FIELD events.price").await.0;
    assert!(
        versions[0].starts_with("1 |  | cents / 100.0 | in euros | "),
        "{versions:?}"
    );
    assert!(
        versions[1].starts_with("2 | latest, prod | cents / 1000.0 | "),
        "{versions:?}"
    );
    assert_eq!(
        bench.sql("SHOW CREATE FIELD events.price@1").await.0,
        ["CREATE OR REPLACE FIELD events.price AS cents / 100.0 COMMENT 'in euros'"]
    );
    let problem = refused(&bench, "SELECT price@3 FROM events").await;
    assert_eq!(problem.detail, "field events.price has no version 3");
    assert_eq!(problem.hint.as_deref(), Some("its versions are 1, 2"));
    let problem = refused(&bench, "SELECT price@test FROM events").await;
    assert_eq!(problem.detail, "field events.price has no tag test");
    run(&bench, &["ALTER FIELD events.price RENAME TO cost"]).await;
    assert_eq!(bench.sql("SELECT max(cost@1) AS c FROM events").await.0, ["9.9"]);
}

#[tokio::test]
async fn a_field_with_a_version_is_a_path_like_any_other() {
    let bench = bench(vec![json!({ "a": { "b": 1 }, "x": { "y": 7 } })]).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.o AS _doc->'a'",
            "CREATE OR REPLACE FIELD events.o AS _doc->'x'",
            "CREATE FIELD events.p.q AS 3",
            "CREATE OR REPLACE FIELD events.p.q AS 4",
        ],
    )
    .await;
    assert_eq!(
        bench
            .sql("SELECT o.y, o@1.b, e.o@1.b AS c, p.q@1 AS d, p.q AS q FROM events e")
            .await
            .0,
        ["7 | 1 | 1 | 3 | 4"]
    );
}

#[tokio::test]
async fn views_have_versions_and_use_versions() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.price AS cents / 100.0",
            "CREATE VIEW dear AS SELECT _id, price AS now, price@1 AS first FROM events WHERE price > 2",
            "CREATE OR REPLACE VIEW dear AS SELECT * FROM dear@1 WHERE first > 5",
            "CREATE OR REPLACE FIELD events.price AS cents / 10.0",
        ],
    )
    .await;
    assert_eq!(bench.sql("SELECT * FROM dear").await.0, ["c | 99.0 | 9.9"]);
    assert_eq!(bench.sql("SELECT count(*) AS n FROM dear@1").await.0, ["3"]);
    let dependents = bench.sql("SHOW DEPENDENTS OF FIELD events.price").await.0;
    assert_eq!(
        dependents,
        [
            "view dear | 1 | field events.price@1 | 1 | true",
            "view dear | 1 | field events.price@latest | 2 | true",
            "view dear | 2 | view dear@1 | 1 | false",
        ]
    );
}

#[tokio::test]
async fn functions_take_typed_arguments_and_nest() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FUNCTION euros(cents bigint) RETURNS double AS cents / 100.0",
            "CREATE FUNCTION with_tax(cents bigint, rate double) RETURNS double AS euros(cents) * (1 + rate)",
            "CREATE FIELD events.gross AS with_tax(cents, 1)",
        ],
    )
    .await;
    let rows = bench
        .sql("SELECT euros(cents) AS e, gross, euros('700') AS t FROM events WHERE gross > 3 ORDER BY 1")
        .await;
    assert_eq!(rows.0, ["2.5 | 5.0 | 7.0", "9.9 | 19.8 | 7.0"]);
    run(
        &bench,
        &["CREATE OR REPLACE FUNCTION euros(cents bigint) RETURNS double AS cents / 10.0"],
    )
    .await;
    assert_eq!(
        bench
            .sql("SELECT max(gross) AS g, max(euros@1(cents)) AS e FROM events")
            .await
            .0,
        ["198.0 | 9.9"]
    );
    assert_eq!(
        bench
            .sql("SELECT euros(euros(cents)) AS e FROM events ORDER BY 1 LIMIT 1")
            .await
            .0,
        ["1.2"]
    );
    for (statement, detail) in [
        ("SELECT euros(1, 2)", "function euros takes 1 arguments, not 2"),
        ("DROP FUNCTION euros", "function euros is used by function with_tax"),
        (
            "CREATE FUNCTION upper(x text) RETURNS text AS x",
            "upper is a function of Rachis",
        ),
        (
            "CREATE FUNCTION f(x text) AS x",
            "the type of the function's result is missing",
        ),
        (
            "CREATE FUNCTION f(x blob) RETURNS text AS x",
            "the type BLOB of the parameter x is not supported",
        ),
        (
            "CREATE FUNCTION f(x int, X int) RETURNS int AS x",
            "two parameters have the name x",
        ),
        (
            "CREATE FUNCTION f(x int) RETURNS int AS f(x) + 1",
            "function f would use itself: function f -> function f",
        ),
        (
            "CREATE FUNCTION f(x int) RETURNS int AS (SELECT x)",
            "a function cannot contain a subquery",
        ),
        (
            "CREATE FUNCTION f(x int) RETURNS int AS sum(x)",
            "a function cannot contain an aggregate",
        ),
    ] {
        let problem = refused(&bench, statement).await;
        assert_eq!(problem.detail, detail, "{statement}");
    }
    let problem = refused(&bench, "CREATE FUNCTION f(x int) RETURNS int AS y + 1").await;
    assert!(problem.detail.contains('y'), "{problem}");
}

#[tokio::test]
async fn the_arguments_of_a_function_are_uses_of_the_definition_that_calls_it() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE FUNCTION twice(x double) RETURNS double AS twice.x * 2",
            "CREATE FIELD events.price AS cents / 10.0",
            "CREATE FIELD events.cost AS twice(twice(price))",
        ],
    )
    .await;
    assert_eq!(bench.sql("SELECT max(cost) AS c FROM events").await.0, ["396.0"]);
    let problem = refused(&bench, "DROP FIELD events.price").await;
    assert_eq!(problem.detail, "field events.price is used by field events.cost");
    for (statement, detail) in [
        ("ALTER FUNCTION twice RENAME TO lower", "lower is a function of Rachis"),
        ("ALTER FIELD events.cost RENAME TO _time", "_time is a system column"),
        (
            "ALTER FIELD events.cost RENAME TO cost@2",
            "cost@2: the catalog assigns version numbers",
        ),
        (
            "CREATE QUERY q(k int) AS SELECT $1",
            "$1 is not a parameter of the query",
        ),
        (
            "CREATE QUERY q(k int DEFAULT 'x') AS SELECT $k",
            "parameter k takes INT, not \"x\"",
        ),
    ] {
        assert_eq!(refused(&bench, statement).await.detail, detail, "{statement}");
    }
    assert_eq!(
        bench
            .sql("CREATE OR REPLACE FIELD events.price AS cents / 10.0")
            .await
            .0,
        ["field events.price | 1"],
        "an equal replacement creates no version"
    );
    let nine = |call: &str| [call; 9].join(" + ");
    let mut tower = format!("CREATE FUNCTION f0(x double) RETURNS double AS {}", nine("f0.x"));
    for n in 1..8 {
        if bench.try_sql(&tower).await.is_err() {
            break;
        }
        tower = format!(
            "CREATE FUNCTION f{n}(x double) RETURNS double AS {}",
            nine(&format!("f{}(x)", n - 1))
        );
    }
    assert_eq!(
        refused(&bench, &tower).await.code,
        Code::TooComplex,
        "each multiplies the copies by nine"
    );
}

#[tokio::test]
async fn a_key_with_an_at_sign_is_no_version() {
    let bench = bench(vec![
        json!({ "price": 1, "price@eur": 2, "a@b.c": { "d@e": 3 }, "price@2": 4 }),
    ])
    .await;
    run(
        &bench,
        &["CREATE FIELD events.price AS 10", "CREATE FIELD events.a AS 11"],
    )
    .await;
    let sql = "SELECT \"price@eur\" AS x, \"a@b.c\".\"d@e\" AS y, price@1 AS z, price@2 AS s FROM events";
    assert_eq!(bench.sql(sql).await.0, ["2 | 3 | 10 | 4"]);
    let all = bench.sql("SELECT * FROM events").await.0;
    assert_eq!(all.len(), 1, "{all:?}");
    run(&bench, &["CREATE OR REPLACE FIELD events.price AS 20"]).await;
    assert_eq!(bench.sql("SELECT price@2 AS z FROM events").await.0, ["20"]);
}

#[tokio::test]
async fn saved_queries_bind_their_parameters() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE QUERY top(least int DEFAULT 100, who text DEFAULT lower('ANN'), k int DEFAULT 10) AS \
           SELECT _id, cents FROM events WHERE cents >= $least AND user = $who ORDER BY cents DESC LIMIT $k",
        ],
    )
    .await;
    for (call, rows) in [
        ("CALL top", &["c | 990", "a | 250"][..]),
        ("CALL top(k => 1)", &["c | 990"]),
        ("CALL top(300)", &["c | 990"]),
        ("CALL top('300')", &["c | 990"]),
        ("CALL top(who => 'bob', least => null)", &[]),
        ("CALL top(who => 'bob')", &["b | 120"]),
        ("CALL top@1(who => 'x'' OR 1 = 1 --')", &[]),
    ] {
        assert_eq!(bench.sql(call).await.0, rows, "{call}");
    }
    for (statement, detail) in [
        ("CALL top(least => 'many')", "parameter least takes INT, not \"many\""),
        ("CALL top(most => 1)", "the query has no parameter most"),
        ("CALL top(k => 1, k => 2)", "parameter k is given twice"),
        (
            "CALL top(1, 'x', 2, 3)",
            "the query takes 3 parameters, and more values were given",
        ),
        ("CALL top(k => $1)", "parameter $1 has no value"),
        ("CALL top@2", "query top has no version 2"),
        ("CALL bottom", "query bottom does not exist"),
        (
            "CREATE QUERY q(k int) AS SELECT $l",
            "$l is not a parameter of the query",
        ),
        (
            "CREATE QUERY q(timeout_ms int) AS SELECT 1",
            "timeout_ms cannot be the name of a parameter",
        ),
        ("CREATE QUERY q(k int) SELECT $k", "the query is missing"),
    ] {
        let problem = refused(&bench, statement).await;
        assert_eq!(problem.detail, detail, "{statement}");
    }
    run(&bench, &["CREATE QUERY one(k int) AS SELECT $k + 1 AS next"]).await;
    assert_eq!(bench.sql("CALL one(4)").await.0, ["5"]);
    let problem = refused(&bench, "CALL one").await;
    assert_eq!(
        (problem.code, problem.detail.as_str()),
        (Code::BadRequest, "the parameter k has no value")
    );
}

#[tokio::test]
async fn a_change_that_would_break_what_uses_it_is_refused_with_the_list() {
    let bench = bench(orders()).await;
    run(
        &bench,
        &[
            "CREATE VIEW one AS SELECT _id, cents, user FROM events",
            "CREATE VIEW two AS SELECT cents + 1 AS more FROM one",
            "CREATE VIEW three AS SELECT more FROM two",
            "CREATE QUERY ask(least int) AS SELECT user FROM one WHERE cents > $least",
            "CREATE VIEW pinned AS SELECT cents FROM one@1",
        ],
    )
    .await;
    let problem = refused(&bench, "CREATE OR REPLACE VIEW one AS SELECT _id, user FROM events").await;
    assert_eq!(problem.code, Code::InUse);
    for user in ["query ask@1 (", "view two@1 (", "view three@1 ("] {
        assert!(problem.detail.contains(user), "{problem}");
    }
    assert!(
        problem.detail.contains("would break 3 ") && !problem.detail.contains("pinned"),
        "{problem}"
    );
    run(
        &bench,
        &["CREATE OR REPLACE VIEW one AS SELECT _id, cents, upper(user) AS user FROM events"],
    )
    .await;
    assert_eq!(bench.sql("CALL ask(200)").await.0, ["ANN", "ANN"]);
    let problem = refused(&bench, "DROP VIEW one").await;
    assert_eq!(problem.detail, "view one is used by query ask, view pinned, view two");
}

#[tokio::test]
async fn a_change_is_checked_again_if_another_one_came_first() {
    let bench = bench(orders()).await;
    run(&bench, &["CREATE VIEW base AS SELECT cents, user FROM events"]).await;
    let first = |text: &str| Change::Define {
        id: DefinitionId::view("base"),
        text: text.to_owned(),
        uses: Vec::new(),
        reads: vec!["events".parse().expect("a name")],
        replace: true,
        note: None,
        author: None,
    };
    bench
        .changes
        .before
        .lock()
        .push(first("SELECT cents, upper(user) AS user FROM events"));
    run(
        &bench,
        &["CREATE VIEW users AS SELECT DISTINCT user FROM base ORDER BY 1"],
    )
    .await;
    assert_eq!(bench.sql("SELECT * FROM users").await.0, ["ANN", "BOB"]);
    bench.changes.before.lock().push(first("SELECT user FROM events"));
    let problem = refused(&bench, "CREATE VIEW cents AS SELECT cents FROM base").await;
    assert!(problem.detail.contains("cents"), "{problem}");
    assert!(
        refused(&bench, "SELECT * FROM cents").await.detail.contains("cents"),
        "the view does not exist"
    );
}
