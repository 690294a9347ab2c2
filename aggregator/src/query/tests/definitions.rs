//! Definitions: versions, tags, functions and saved queries, and what is refused.

use proto::{
    Code,
    catalog::{Change, DefinitionId},
};
use serde_json::json;

use super::*;

pub(super) fn orders() -> Vec<Value> {
    vec![
        json!({ "_id": "a", "cents": 250, "user": "ann" }),
        json!({ "_id": "b", "cents": 120, "user": "bob" }),
        json!({ "_id": "c", "cents": 990, "user": "ann" }),
    ]
}

/// Runs statements that must succeed.
pub(super) async fn run(bench: &Bench, statements: &[&str]) {
    for statement in statements {
        bench.sql(statement).await;
    }
}

pub(super) async fn refused(bench: &Bench, statement: &str) -> Problem {
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
            "upper is a function of Rachis or of another system",
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
        (
            "ALTER FUNCTION twice RENAME TO lower",
            "lower is a function of Rachis or of another system",
        ),
        ("ALTER FIELD events.cost RENAME TO _time", "_time is a system column"),
        ("ALTER FIELD events.cost RENAME TO _Time", "_Time is a system column"),
        (
            "CREATE FIELD events.\"\" AS 1",
            "the name of a field cannot have empty parts or control characters",
        ),
        (
            "CREATE FIELD events.a.\"b\0\" AS 1",
            "the name of a field cannot have empty parts or control characters",
        ),
        ("SHOW ERRORS OF events.cost", "events is not a kind of definition"),
        (
            "DIFF events.cost@1 TO events.cost@2",
            "events is not a kind of definition",
        ),
        (
            "DROP FIELD events.cost@1",
            "cost@1: DROP is about a definition, not about a version",
        ),
        (
            "ALTER FIELD events.cost RENAME TO cost@2",
            "cost@2: ALTER is about a definition, not about a version",
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
    run(
        &bench,
        &[
            "CREATE QUERY one(k int) AS SELECT $k + 1 AS next",
            "CREATE QUERY year(t timestamp, j json DEFAULT null) AS SELECT extract(year FROM $t) AS year, $j AS j",
        ],
    )
    .await;
    for (call, row) in [
        ("CALL one(4)", "5"),
        ("CALL year('2026-01-31')", "2026 | "),
        ("CALL year(1769853600)", "2026 | "),
        ("CALL year('1769853600000', true)", "2026 | true"),
    ] {
        assert_eq!(bench.sql(call).await.0, [row], "{call}");
    }
    let problem = refused(&bench, "CALL year(1.5)").await;
    assert_eq!(problem.detail, "parameter t takes TIMESTAMP, not 1.5");
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
        number: None,
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
    assert_eq!(bench.sql("SELECT * FROM users ORDER BY 1").await.0, ["ANN", "BOB"]);
    bench.changes.before.lock().push(first("SELECT user FROM events"));
    let problem = refused(&bench, "CREATE VIEW cents AS SELECT cents FROM base").await;
    assert!(problem.detail.contains("cents"), "{problem}");
    assert!(
        refused(&bench, "SELECT * FROM cents").await.detail.contains("cents"),
        "the view does not exist"
    );
}

fn lines() -> Vec<Value> {
    let line = |id: &str, line: &str| json!({ "_id": id, "line": line });
    vec![
        line("a", "10.0.0.1 GET /a?q=1 200 0.25"),
        line("b", "10.0.0.2 POST /b 500 1.5"),
        line("c", "10.0.0.1 GET /c 404 0.5"),
        line("d", "garbage"),
        json!({ "_id": "e" }),
    ]
}

const ACCESS: &str = "CREATE PARSER events.access ON line AS GROK \
                      '%{IP:client} %{WORD:method} %{NOTSPACE:target} %{NUMBER:status:int} %{NUMBER:took:float}'";

#[tokio::test]
async fn the_fields_of_a_parser_are_paths_below_its_name() {
    let bench = bench(lines()).await;
    bench.sql(ACCESS).await;
    let (rows, stats) = bench
        .sql("SELECT _id, access.client, access.status, access.took FROM events ORDER BY _id")
        .await;
    assert_eq!(
        rows,
        [
            "a | 10.0.0.1 | 200 | 0.25",
            "b | 10.0.0.2 | 500 | 1.5",
            "c | 10.0.0.1 | 404 | 0.5",
            "d |  |  | ",
            "e |  |  | "
        ]
    );
    assert_eq!(
        stats.warnings,
        ["events.access: 1 of 4 values had no result and are NULL"]
    );
    for (statement, expected) in [
        (
            "SELECT sum(access.status) AS s FROM events WHERE access.took < 1",
            "604",
        ),
        (
            "SELECT count(*) AS n FROM events WHERE access.status >= 400 AND ACCESS.Method = 'GET'",
            "1",
        ),
        (
            "SELECT access.client AS c FROM events GROUP BY access.client HAVING count(*) > 1 AND c IS NOT NULL",
            "10.0.0.1",
        ),
        ("SELECT e.access.method AS m FROM events AS e WHERE e._id = 'b'", "POST"),
        (
            "SELECT count(*) AS n FROM events WHERE search('access.method:get AND NOT access.status:>=400')",
            "1",
        ),
        (
            "SELECT access AS a FROM events WHERE _id = 'c'",
            r#"{"client":"10.0.0.1","method":"GET","status":404,"target":"/c","took":0.5}"#,
        ),
    ] {
        assert_eq!(bench.sql(statement).await.0, [expected], "{statement}");
    }
    let problem = refused(&bench, "SELECT access.statuss FROM events").await;
    assert_eq!(problem.hint.as_deref(), Some("did you mean status?"), "{problem}");
}

#[tokio::test]
async fn every_format_of_a_parser_reads_its_texts() {
    let texts = json!({
        "_id": "a", "fmt": "level=warn msg=\"disk full\"", "csv": "1;x", "json": "{\"a\":{\"b\":7}}",
        "url": "https://h/p?q=1",
        "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", "re": "code=7"
    });
    let bench = bench(vec![texts]).await;
    for (parser, path, expected) in [
        ("fmt_of ON fmt AS LOGFMT", "upper(fmt_of.msg)", "DISK FULL"),
        ("csv_of ON csv AS CSV (a, b) SEPARATOR ';'", "csv_of.b", "x"),
        ("json_of ON json AS JSON", "json_of.a.b::int + 1", "8"),
        ("url_of ON url AS URL", "url_of.params.q::int + 1", "2"),
        ("agent_of ON agent AS USER_AGENT", "agent_of.name", "Firefox"),
        (
            "re_of ON lower(re) AS REGEX 'code=(?<code>[0-9]+)'",
            "re_of.code::int + 1",
            "8",
        ),
    ] {
        bench.sql(&format!("CREATE PARSER events.{parser}")).await;
        let statement = format!("SELECT {path} AS x FROM events");
        assert_eq!(bench.sql(&statement).await.0, [expected], "{parser}");
    }
    assert_eq!(
        bench.sql("SHOW CREATE PARSER events.csv_of").await.0,
        ["CREATE OR REPLACE PARSER events.csv_of ON csv AS CSV (a, b) SEPARATOR ';'"]
    );
    bench
        .sql("CREATE FIELD events.host AS url_of.host || ':' || url_of.port")
        .await;
    assert_eq!(bench.sql("SELECT host FROM events").await.0, ["h:443"]);
}

#[tokio::test]
async fn a_parser_has_versions_and_is_checked_like_any_definition() {
    let bench = bench(lines()).await;
    run(
        &bench,
        &[
            ACCESS,
            "CREATE VIEW slow AS SELECT _id, access.took FROM events WHERE access.took > 1",
            "CREATE OR REPLACE PARSER events.access ON line AS REGEX '(?<client>[0-9.]+) .* (?<took>[0-9.]+)$'",
        ],
    )
    .await;
    assert_eq!(bench.sql("SELECT took FROM slow").await.0, ["1.5"]);
    let both = "SELECT access@1.status AS a, access.took AS b FROM events WHERE _id = 'a'";
    assert_eq!(bench.sql(both).await.0, ["200 | 0.25"]);
    for (statement, code, expected) in [
        (
            "CREATE OR REPLACE PARSER events.access ON line AS REGEX '(?<a>.)'",
            Code::InUse,
            "view slow@1",
        ),
        ("DROP PARSER events.access", Code::InUse, "view slow"),
        (
            "CREATE FIELD events.access AS line",
            Code::Conflict,
            "parser events.access already exists",
        ),
        (
            "CREATE PARSER events.x ON x.y AS GROK '%{NOPE:a}'",
            Code::BadSql,
            "no pattern named NOPE",
        ),
        (
            "CREATE PARSER events.x ON count(line) AS LOGFMT",
            Code::NotSupported,
            "an aggregate",
        ),
        (
            "CREATE PARSER events.x ON line AS XML",
            Code::BadSql,
            "XML is not a format",
        ),
        (
            "CREATE PARSER events.x ON line AS LOGFMT 'a'",
            Code::BadSql,
            "not expected",
        ),
        (
            "CREATE PARSER events.x AS LOGFMT",
            Code::BadSql,
            "the text that the parser reads is missing",
        ),
        (
            "CREATE PARSER events.x ON x.a AS LOGFMT",
            Code::Conflict,
            "would use itself",
        ),
    ] {
        let problem = refused(&bench, statement).await;
        assert_eq!(problem.code, code, "{statement}: {problem}");
        assert!(problem.to_string().contains(expected), "{statement}: {problem}");
    }
    let columns = bench
        .sql("SELECT path, type, kind FROM rachis.fields WHERE kind = 'parser' ORDER BY path")
        .await;
    assert_eq!(
        columns.0,
        [
            "access |  | parser",
            "access.client | TEXT | parser",
            "access.took | TEXT | parser"
        ]
    );
}

/// Prices as texts, some of which are not numbers.
fn priced() -> Vec<Value> {
    let price = |id: &str, price: Value, day: u32| json!({ "_id": id, "p": price, "_time": format!("2026-11-{day:02}T00:00:00Z") });
    vec![
        price("a", json!("1.5"), 1),
        price("b", json!("2,5"), 1),
        price("c", json!("7"), 2),
        price("d", Value::Null, 2),
        price("e", json!("free"), 3),
    ]
}

#[tokio::test]
async fn a_diff_says_what_changes_between_two_versions() {
    let bench = bench(priced()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.price AS p::double",
            "CREATE OR REPLACE FIELD events.price AS replace(p, ',', '.')::double",
            "CREATE VIEW prices AS SELECT price FROM events",
            "CREATE VIEW old_prices AS SELECT price@1 FROM events",
        ],
    )
    .await;
    let (rows, _) = bench.sql("DIFF FIELD events.price@1 TO events.price@2").await;
    assert_eq!(
        rows,
        [
            "total | compared | 5 |  |  |  | ",
            "total | changed | 1 |  |  |  | ",
            "total | new NULLs | 0 |  |  |  | ",
            "total | vanished NULLs | 1 |  |  |  | ",
            "total | new errors | 0 |  |  |  | ",
            "total | vanished errors | 1 |  |  |  | ",
            "time |  | 1 |  |  | of 5 | ",
            "pair | b |  |  | 2.5 | vanished error: cannot be read as DOUBLE | \
             {\"_id\":\"b\",\"_time\":\"2026-11-01T00:00:00Z\",\"p\":\"2,5\"}",
            "follows | view prices@1 |  |  |  |  | ",
        ]
    );
    let totals = |rows: &[String]| -> Vec<String> {
        let total = rows.iter().filter_map(|row| row.strip_prefix("total | "));
        total
            .map(|row| row.split(" |  |").next().unwrap_or_default().to_owned())
            .collect()
    };
    let back = bench.sql("DIFF FIELD events.price@2 TO 1 WHERE p <> '7'").await.0;
    assert_eq!(
        totals(&back),
        [
            "compared | 3",
            "changed | 1",
            "new NULLs | 1",
            "vanished NULLs | 0",
            "new errors | 1",
            "vanished errors | 0"
        ]
    );
    let same = bench.sql("DIFF FIELD events.price@2 TO latest").await.0;
    assert_eq!(totals(&same)[..2], ["compared | 5", "changed | 0"]);
    let sampled = bench.sql("DIFF FIELD events.price@1 TO @2 SAMPLE 100 PERCENT").await.0;
    assert_eq!(
        sampled[0],
        "total | compared | 5 |  |  | in all documents about 5 ± 0 | "
    );
    for (statement, expected) in [
        ("DIFF FIELD events.price@1 TO events.price@9", "has no version 9"),
        ("DIFF FIELD events.price@1", "TO and another version are missing"),
        (
            "DIFF FIELD events.price@1 TO events.cost@2",
            "is not field events.price",
        ),
        ("DIFF VIEW prices@1 TO prices@1", "DIFF of a view is not supported"),
        (
            "DIFF FIELD events.price@1 TO 2 WHERE count(*) > 1",
            "an aggregate function cannot be in WHERE",
        ),
        ("DIFF FIELD events.price@1 TO 2 SAMPLE 0 PERCENT", "SAMPLE needs"),
        ("DIFF FIELD events.price@1 TO 2 now", "unexpected now"),
    ] {
        let problem = refused(&bench, statement).await;
        assert!(problem.to_string().contains(expected), "{statement}: {problem}");
    }
}

#[tokio::test]
async fn documents_without_a_result_are_listed_with_the_reason_until_a_better_version_heals_them() {
    let bench = bench(priced()).await;
    run(
        &bench,
        &[
            "CREATE FIELD events.price AS p::double",
            "CREATE PARSER events.parts ON p AS REGEX '(?<cents>[0-9])$'",
        ],
    )
    .await;
    let listed = "SELECT name, version, id, reason FROM rachis.definition_errors ORDER BY name, id";
    assert_eq!(
        bench.sql(listed).await.0,
        [
            "parts | 1 | e | the text does not match events.parts",
            "price | 1 | b | cannot be read as DOUBLE",
            "price | 1 | e | cannot be read as DOUBLE"
        ]
    );
    bench
        .sql("CREATE OR REPLACE FIELD events.price AS replace(p, ',', '.')::double")
        .await;
    let of_price = |rows: Vec<String>| -> Vec<String> {
        rows.iter()
            .map(|row| row.split(" | ").skip(3).take(3).collect::<Vec<_>>().join(" "))
            .collect()
    };
    assert_eq!(
        of_price(bench.sql("SHOW ERRORS OF FIELD events.price").await.0),
        ["2 e cannot be read as DOUBLE"]
    );
    let mut before = of_price(bench.sql("SHOW ERRORS OF FIELD events.price@1").await.0);
    before.sort();
    assert_eq!(before, ["1 b cannot be read as DOUBLE", "1 e cannot be read as DOUBLE"]);
}

#[tokio::test]
async fn each_row_that_fails_is_found_among_many() {
    let documents = (0..3_000).map(|n| match n % 7 {
        0 => json!({ "_id": format!("{n:04}"), "p": format!("x{n}") }),
        1 => json!({ "_id": format!("{n:04}") }),
        _ => json!({ "_id": format!("{n:04}"), "p": n.to_string() }),
    });
    let bench = bench(documents).await;
    bench.sql("CREATE FIELD events.price AS p::bigint").await;
    bench
        .sql("CREATE OR REPLACE FIELD events.price AS coalesce(p::bigint, 0)")
        .await;
    let (rows, _) = bench.sql("DIFF FIELD events.price@1 TO 2").await;
    let expected = [3_000, 858, 0, 858, 0, 429];
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!(row.split(" | ").nth(2), Some(expected.to_string().as_str()), "{row}");
    }
}
