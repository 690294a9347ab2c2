//! Errors of statements: codes, details, hints and positions. Hostile statements must fail quickly and do no harm.

use std::time::{Duration, Instant};

use proto::Code;

use super::{
    super::{DefinitionChange, Statement, parse},
    test_schema::TestSchema,
};

pub(super) fn test_schema() -> TestSchema {
    TestSchema::with(&[
        (
            "events",
            &[r#"{"type":"a","id":1,"Mixed":2,"items":[{"sku":1}],"user":{"name":"x"}}"#],
        ),
        ("users", &[r#"{"id":1,"city":"Ulm"}"#]),
    ])
}

/// A statement, the code and the detail of its error, and a part of the hint.
type ErrorCase = (&'static str, Code, &'static str, &'static str);

/// Errors in names.
const NAME_ERRORS: [ErrorCase; 7] = [
    (
        "select id from events, users",
        Code::BadSql,
        "id is ambiguous: events and users have it",
        "write events.id or users.id",
    ),
    (
        "select * from evnts",
        Code::NotFound,
        "collection evnts does not exist",
        "did you mean events?",
    ),
    (
        "select * from rachis.nothing",
        Code::NotFound,
        "table rachis.nothing does not exist",
        "SHOW TABLES",
    ),
    (
        "select x from rachis.sources",
        Code::BadSql,
        "column x does not exist",
        "available columns: source, lag, last_record",
    ),
    (
        "select sorce from rachis.sources",
        Code::BadSql,
        "column sorce does not exist",
        "did you mean source?",
    ),
    (
        "select lenght(type) from events",
        Code::BadSql,
        "function lenght does not exist",
        "did you mean length?",
    ),
    (
        "select * from events e, users e",
        Code::BadSql,
        "e names two tables in FROM",
        "AS other",
    ),
];

/// SQL that is not supported.
const UNSUPPORTED: [ErrorCase; 10] = [
    (
        "select repeat('a', 1000000000)",
        Code::NotSupported,
        "the function repeat is not supported",
        "more data than a query may hold",
    ),
    (
        "select lpad('a', id) from events",
        Code::NotSupported,
        "lpad: the length must be a literal number up to 10000",
        "write the length",
    ),
    (
        "select * from read_parquet('a.parquet')",
        Code::NotSupported,
        "the table function read_parquet is not supported",
        "tables are collections",
    ),
    (
        "select * from events for update",
        Code::NotSupported,
        "FOR UPDATE or FOR SHARE is not supported",
        "do not lock",
    ),
    (
        "select * into x from events",
        Code::NotSupported,
        "SELECT INTO is not supported",
        "",
    ),
    (
        "select * from events natural join users",
        Code::NotSupported,
        "NATURAL JOIN is not supported",
        "USING",
    ),
    (
        "select type similar to type from events",
        Code::NotSupported,
        "SIMILAR TO with a computed pattern or ESCAPE is not supported",
        "~",
    ),
    (
        "select id from events group by rollup(id, id)",
        Code::NotSupported,
        "a repeated column in ROLLUP (id, id) is not supported",
        "name it once",
    ),
    (
        "select (type in (select city from users)), count(*) from events group by 1",
        Code::NotSupported,
        "a subquery in GROUP BY is not supported",
        "compute it in FROM",
    ),
    (
        "select type::regclass from events",
        Code::NotSupported,
        "the type REGCLASS is not supported",
        "use BOOLEAN",
    ),
];

/// Errors in the clauses of a query.
const CLAUSE_ERRORS: [ErrorCase; 7] = [
    (
        "select (select 1, 2)",
        Code::BadSql,
        "a subquery of 2 columns is used as one value",
        "",
    ),
    (
        "select type from events order by 2",
        Code::BadSql,
        "ORDER BY 2: the select list has 1 items",
        "",
    ),
    (
        "select type from events limit type",
        Code::BadSql,
        "column type cannot be used here",
        "",
    ),
    (
        "select 1 union select 1, 2",
        Code::BadSql,
        "UNION of 1 and 2 columns",
        "same number of columns",
    ),
    (
        "select type, count(*) from events group by 1, 2",
        Code::BadSql,
        "GROUP BY 2: count(*) is an aggregate",
        "",
    ),
    (
        "select type, id from events group by 1",
        Code::BadSql,
        "id is neither in GROUP BY nor aggregated",
        "min(id)",
    ),
    (
        "select 3 as x, type, id from events group by 1, 2",
        Code::BadSql,
        "id is neither in GROUP BY nor aggregated",
        "min(id)",
    ),
];

/// Errors in values and searches, and limits.
const VALUE_ERRORS: [ErrorCase; 6] = [
    (
        "select * from events where _time > 'tomorrow'",
        Code::BadSql,
        "'tomorrow' is not a point in time",
        "2026-01-31",
    ),
    (
        "select search('(')",
        Code::BadRequest,
        "a search term is missing here",
        "",
    ),
    (
        "select count(*) from events e, users u where search('x')",
        Code::BadSql,
        "search is ambiguous: it could search several tables",
        "search(e, '…')",
    ),
    (
        "select count(*) from events where type ~ '((a{1000}){1000}){1000}'",
        Code::TooComplex,
        "the regular expressions of the statement have 1000000000 states: the limit is 200000",
        "repeat less",
    ),
    (
        "select count(*) from events group by cube (a, b, c, d, e), cube (f, g, h, i, j)",
        Code::TooComplex,
        "GROUP BY asks for 1024 grouping sets; the limit is 512",
        "GROUPING SETS",
    ),
    (
        "select date_trunc('wek', _time) from events",
        Code::BadSql,
        "wek is not a unit of time",
        "week",
    ),
];

/// What other systems know, and how it is written here.
const OTHER_WORDS: [ErrorCase; 17] = [
    (
        "select items[1:1] from events",
        Code::NotSupported,
        "a slice of items, a list in documents, is not supported",
        "array_slice(items, 1, 2)",
    ),
    (
        "select items[id] from events",
        Code::NotSupported,
        "a computed index of items, a list in documents, is not supported",
        "array_element(items, n::int)",
    ),
    (
        "select id, (select sum(i.sku) from unnest(items) as t(i)) from events",
        Code::NotSupported,
        "unnest of a list of the outer query is not supported",
        "FROM events AS d, unnest(d.list) AS t(item) GROUP BY 1",
    ),
    (
        "select list_sum(items) from events",
        Code::NotSupported,
        "the function list_sum is not supported",
        "SELECT d._id, sum(t.item) FROM events AS d, unnest(d.list) AS t(item) GROUP BY 1",
    ),
    (
        "select unnest(items, items) from events",
        Code::BadSql,
        "unnest takes one list in a select list",
        "unnest(e.a, e.b) AS t(x, y)",
    ),
    (
        "select mode() within group (order by type) from events",
        Code::NotSupported,
        "WITHIN GROUP with mode is not supported",
        "write mode(type)",
    ),
    (
        "select percentile_disc(0.9) within group (order by id) from events",
        Code::NotSupported,
        "the function percentile_disc is not supported",
        "write quantile_disc(id, 0.9)",
    ),
    (
        "select percentile_disc(id, 0.9) from events",
        Code::NotSupported,
        "the function percentile_disc is not supported",
        "write quantile_disc(x, 0.5)",
    ),
    (
        "select approx_top_k(type) from events",
        Code::BadSql,
        "approx_top_k takes a value and how many values to return",
        "write approx_top_k(type, 10)",
    ),
    (
        "select array_agg(id order by id desc limit 3) from events",
        Code::NotSupported,
        "LIMIT in the parentheses of array_agg is not supported",
        "array_agg(id ORDER BY id DESC)[1:3]",
    ),
    (
        "select count(*) from events where id = $1",
        Code::BadSql,
        "parameter $1 has no value",
        "no parameters were given",
    ),
    (
        "describe select 1",
        Code::NotSupported,
        "DESCRIBE of a query is not supported",
        "SUMMARIZE SELECT",
    ),
    (
        "show tables like 'a%'",
        Code::NotSupported,
        "LIKE after SHOW TABLES is not supported",
        "information_schema.tables WHERE table_name LIKE",
    ),
    (
        "show views like 'a%'",
        Code::NotSupported,
        "LIKE after SHOW VIEWS is not supported",
        "rachis.definitions",
    ),
    (
        "select * from events using sample 10%",
        Code::BadSql,
        "unexpected using",
        "TABLESAMPLE (10 PERCENT)",
    ),
    (
        "select * from events where type in $1",
        Code::BadSql,
        "Expected: (, found: $1",
        "IN ($1)",
    ),
    (
        "select * from events e, unnest([1], [2]) as t(x, y)",
        Code::NotSupported,
        "unnest of several lists, or with positions, outside of a table is not supported",
        "FROM unnest(list) AS t(item)",
    ),
];

/// Checks all cases and reports every one that differs.
fn check_errors(cases: &[ErrorCase]) {
    let schema = test_schema();
    let mut wrong = Vec::new();
    for (sql, code, detail, hint) in cases {
        match schema.problem(sql) {
            None => wrong.push(format!("{sql}: no error")),
            Some(p) if p.code == *code && p.detail == *detail && p.hint.as_deref().unwrap_or("").contains(hint) => {}
            Some(p) => wrong.push(format!("{sql}: {p:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_in_names_have_a_code_and_a_hint() {
    check_errors(&NAME_ERRORS);
}

#[test]
fn unsupported_sql_has_a_code_and_a_hint() {
    check_errors(&UNSUPPORTED);
}

#[test]
fn errors_in_clauses_have_a_code_and_a_hint() {
    check_errors(&CLAUSE_ERRORS);
}

#[test]
fn errors_in_values_and_limits_have_a_code_and_a_hint() {
    check_errors(&VALUE_ERRORS);
}

#[test]
fn words_of_other_systems_have_a_hint_that_works() {
    check_errors(&OTHER_WORDS);
}

#[test]
fn more_parameters_than_a_statement_has_are_refused() {
    let (schema, given) = (test_schema(), [serde_json::json!(1), serde_json::json!(2)]);
    let problem = schema.resolve("select $1", &given).expect_err("two values");
    assert_eq!(problem.code, Code::BadSql);
    assert_eq!(
        problem.detail,
        "the last parameter of the statement is $1, but 2 parameters were given"
    );
    assert!(
        schema.resolve("select $2", &given).is_ok(),
        "a parameter may be left out"
    );
    let problem = schema.resolve("select $2", &given[..1]).expect_err("one value");
    assert_eq!(problem.hint.as_deref(), Some("1 parameter was given"));
}

#[test]
fn other_statements_are_not_supported() {
    for sql in [
        "insert into events values (1)",
        "set x = 1",
        "create table t (a int)",
        "drop table events",
        "copy events to 'x'",
        "begin",
        "truncate events",
        "show variables",
        "pragma x",
    ] {
        let problem = parse(sql, 1 << 20).expect_err(sql);
        assert_eq!(problem.code, Code::NotSupported, "{sql}: {problem}");
        assert!(problem.hint.is_some(), "{sql}");
    }
    for sql in [
        "",
        " ; ",
        "-- nothing",
        "select 1; select 2",
        "select",
        "select * from",
        "select 'a",
        "create field events.x",
        "select 1 1",
    ] {
        let problem = parse(sql, 1 << 20).expect_err(sql);
        assert_eq!(problem.code, Code::BadSql, "{sql}: {problem}");
    }
    let problem = parse("select a\nfrom events\nwhere )", 1 << 20).expect_err("a syntax error");
    assert_eq!(problem.at, Some((3, 7)), "{problem:?}");
}

#[test]
fn statements_of_rachis_are_parsed() {
    let shown = |sql: &str| match parse(sql, 1 << 20).unwrap_or_else(|p| panic!("{sql}: {p}")) {
        Statement::Query(query) => format!("query {query}"),
        Statement::Summarize(summarized) => format!("summarize {}", summarized.relation),
        Statement::Explain { query, options } => format!("explain {} {query}", options.analyze),
        Statement::ChangeDefinition(DefinitionChange::Define(new)) => {
            let note = new.note.map_or(String::new(), |note| format!(" ({note})"));
            format!("define {} as [{}] {}{note}", new.id, new.text, new.replace)
        }
        Statement::ChangeDefinition(DefinitionChange::MoveTag { id, tag, to, from }) => {
            format!("move {tag} of {id} to {to:?} from {from:?}")
        }
        Statement::ChangeDefinition(DefinitionChange::Rename { id, to }) => format!("rename {id} to {to}"),
        Statement::ChangeDefinition(DefinitionChange::Drop { id, if_exists }) => format!("drop {id} {if_exists}"),
        Statement::Call { id, version, arguments } => format!("call {id}{version} {:?}", arguments.0),
        Statement::Delete(delete) => format!("delete {}", delete.text),
        Statement::ShowVersions(id) => format!("versions of {id}"),
        Statement::ShowDependents(id) => format!("dependents of {id}"),
        Statement::ShowCreate { id, version } => format!("create {id}{version}"),
        Statement::ShowErrors { id, version } => format!("errors of {id}{version}"),
        Statement::Try { new, limit } => format!("try {limit} {} as [{}]", new.id, new.text),
        Statement::Diff(diff) => {
            let condition = diff
                .condition
                .map_or(String::new(), |condition| format!(" where {condition}"));
            format!(
                "diff {} {} {}{condition} {:?}",
                diff.id, diff.from, diff.to, diff.sample
            )
        }
        Statement::ShowDefinitions(kind) => kind.map_or("definitions", |kind| kind.as_str()).into(),
        Statement::ShowTables => "tables".into(),
        Statement::ShowFunctions { pattern } => format!("functions {pattern:?}"),
        Statement::Describe { name } => format!("describe {name}"),
    };
    let table = [
        (
            "create field events.price as (_doc->>'p')::double / 100 ;",
            "define field events.price as [(_doc->>'p')::double / 100] false",
        ),
        (
            "CREATE OR REPLACE FIELD \"my-events\".user.\"odd key\" AS 'ä' || x",
            "define field my-events.user.\"odd key\" as ['ä' || x] true",
        ),
        (
            "create parser logs.access on message as grok '%{IP:a}' comment 'of the servers'",
            "define parser logs.access as [on message as grok '%{IP:a}'] false (of the servers)",
        ),
        (
            "try limit 3 create parser logs.a on m as csv (x, y)",
            "try 3 parser logs.a as [on m as csv (x, y)]",
        ),
        ("show errors of field e.price@2", "errors of field e.price@2"),
        (
            "diff field e.price@1 to e.price@prod where a = 1 sample 0.5 percent",
            "diff field e.price @1 @prod where a = 1 Some(0.5)",
        ),
        (
            "create view slow as\nselect *\nfrom events -- all",
            "define view slow as [select *\nfrom events] false",
        ),
        (
            "create field events.price as p / 100 comment 'ann''s price'",
            "define field events.price as [p / 100] false (ann's price)",
        ),
        (
            "create function Euros(cents bigint) returns double as cents / 100.0",
            "define function euros as [(cents bigint) returns double as cents / 100.0] false",
        ),
        (
            "create query top(k int default 10) as select user from events limit $k comment 'often used'",
            "define query top as [(k int default 10) as select user from events limit $k] false (often used)",
        ),
        (
            "alter field events.price set tag Prod to 2 from 1",
            "move prod of field events.price to Version(Number(2)) from Some(1)",
        ),
        (
            "alter view slow set tag prod to @latest",
            "move prod of view slow to Version(Tag(\"latest\")) from None",
        ),
        (
            "alter view slow drop tag prod",
            "move prod of view slow to Nowhere from None",
        ),
        (
            "alter field events.price rename to user.cost",
            "rename field events.price to user.cost",
        ),
        (
            "revert field events.price",
            "move latest of field events.price to Back from None",
        ),
        (
            "revert view slow to 3",
            "move latest of view slow to Version(Number(3)) from None",
        ),
        (
            "call top@prod(k => -3, since => $1, null)",
            "call query top@prod [Argument { name: Some(\"k\"), value: Literal(Number(-3)) }, \
             Argument { name: Some(\"since\"), value: Parameter(1) }, Argument { name: None, value: Literal(Null) }]",
        ),
        ("call top", "call query top@latest []"),
        ("delete from events where a = 1 ;", "delete a = ?"),
    ];
    for (sql, expected) in table {
        assert_eq!(shown(sql), expected, "{sql}");
    }
}

/// Statements that are long, deep or not SQL.
fn hostile_statements() -> Vec<String> {
    let deep = |open: &str, close: &str, n: usize| format!("select {}1{}", open.repeat(n), close.repeat(n));
    vec![
        format!("select 1{}", " + 1".repeat(20_000)),
        deep("(", ")", 10_000),
        deep("(select ", ")", 200),
        deep("case when ", " then 1 end", 200),
        deep("array[", "]", 200),
        deep("not ", "", 900),
        deep("- ", "", 900),
        deep("abs(", ")", 60),
        format!("select * from {}events{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("select 1 {}", "union select 1 ".repeat(5_000)),
        format!("select {} from events", "a.".repeat(20_000) + "b"),
        format!("select x{} from events", "[0]".repeat(20_000)),
        format!("select x{} from events", "::int".repeat(5_000)),
        format!("select x{} from events", "->'a'".repeat(5_000)),
        format!(
            "select {}",
            (0..24).fold("1".to_owned(), |inner, _| format!("({inner}{})", "+1".repeat(900)))
        ),
        format!(
            "select {}",
            (0..40).fold("1".to_owned(), |inner, _| format!(
                "(true and {inner} = 1{})",
                " or 1 = 2".repeat(200)
            ))
        ),
        format!("select * from events {}", "join users u on true ".repeat(2_000)),
        format!("select '{}", "x".repeat(1 << 19)),
        format!("select {}", "/*".repeat(100_000)),
        "x".repeat(2 << 20),
        "\u{0}\u{fffd}\u{202e}select\u{feff} 1".into(),
        "select 😀 from 🎉 where ½ = ²".into(),
        format!("select {}", "interval ".repeat(2_000)),
        format!("with {} select 1", "recursive ".repeat(2_000)),
        doubling(20),
        doubling(500),
    ]
}

#[test]
fn hostile_statements_end_quickly_in_an_error() {
    let schema = test_schema();
    for sql in hostile_statements() {
        let shown: String = sql.chars().take(40).collect();
        let started = Instant::now();
        let result = match parse(&sql, 1 << 20) {
            Ok(Statement::Query(query)) => super::super::resolve(&query, &schema, &[], &[]).map(drop),
            Ok(_) => Ok(()),
            Err(problem) => Err(problem),
        };
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{shown} took {took:?}");
        let problem = result.expect_err(&shown);
        assert!(
            [Code::BadSql, Code::TooComplex, Code::NotSupported, Code::NotFound].contains(&problem.code),
            "{shown}: {problem:?}"
        );
    }
}

#[test]
fn a_name_has_at_most_200_dots() {
    let schema = test_schema();
    let named = |dots: usize| format!("select {}b, 1.5, {}c from events", "a.".repeat(dots), "a.".repeat(dots));
    assert!(schema.problem(&named(200)).is_none(), "each name counts on its own");
    let problem = schema.problem(&named(201)).expect("too many dots");
    assert_eq!(problem.code, Code::TooComplex);
    assert!(problem.detail.contains("200 dots"), "{problem:?}");
}

#[test]
fn expressions_that_multiply_when_expanded_reach_a_limit() {
    let schema = test_schema();
    let forms = [
        "(coalesce({e}, id < 5) in (true, id > 5))",
        "coalesce({e}, id < 5)",
        "nullif({e}, id < 5)",
        "({e} in (true, id > 5, id < 2))",
        "({e} between (id < 5) and (id > 3))",
        "(case when {e} then id < 5 else id > 5 end)",
        "(case {e} when id < 5 then id > 2 else id > 5 end)",
        "(nvl({e}, id < 5) = (id > 3))",
        "(case when coalesce(id, 3) = 5 then {e} else id > 5 end)",
    ];
    for form in forms {
        let nested = |depth| (0..depth).fold("(id = 1)".to_owned(), |inner, _| form.replace("{e}", &inner));
        let mut refused = Vec::new();
        for depth in 1..=15 {
            let started = Instant::now();
            let problem = schema.problem(&format!("select count(*) from events where {}", nested(depth)));
            let took = started.elapsed();
            assert!(took < Duration::from_secs(20), "{form} {depth} deep took {took:?}");
            match problem {
                Some(problem) if problem.code == Code::TooComplex => refused.push(depth),
                Some(problem) => panic!("{form} {depth} deep: {problem:?}"),
                None => {}
            }
        }
        match form.starts_with("(case when coalesce") {
            true => assert_eq!(refused, [0; 0], "{form} copies nothing"),
            false => assert!(!refused.contains(&3) && refused.contains(&15), "{form}: {refused:?}"),
        }
    }
}

/// WITH queries, each of which uses the one before twice.
fn doubling(queries: usize) -> String {
    let further = (1..queries).map(|n| format!(", c{n} as (select l.x from c{0} l join c{0} r on l.x = r.x)", n - 1));
    format!(
        "with c0 as (select 1 x){} select * from c{}",
        further.collect::<String>(),
        queries - 1
    )
}

#[test]
fn large_statements_within_the_limits_run() {
    let schema = test_schema();
    let table = [
        format!(
            "select count(*) from events where {}",
            (0..900).map(|i| format!("id = {i}")).collect::<Vec<_>>().join(" or ")
        ),
        format!(
            "select {}",
            (0..300).map(|i| format!("id + {i}")).collect::<Vec<_>>().join(", ") + " from events"
        ),
        format!(
            "select count(*) from events where id in ({})",
            (0..5_000).map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
        ),
        format!("select {}1{}", "(".repeat(40), ")".repeat(40)),
        format!("select 1{}", " + 1".repeat(300)),
        format!(
            "select * from {}(select 1 as one) t{}",
            "(select * from ".repeat(20),
            ") t".repeat(20)
        ),
    ];
    for sql in table {
        let started = Instant::now();
        assert!(!schema.answer(&sql).is_empty(), "{sql}");
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{} took {:?}",
            &sql[..40],
            started.elapsed()
        );
    }
}

/// A definition, and the code and the detail of its error.
const INVALID_DEFINITIONS: [(&str, Code, &str); 13] = [
    (
        "create field events.a as 1",
        Code::Conflict,
        "field events.a already exists",
    ),
    (
        "create or replace field events.a as b",
        Code::Conflict,
        "field events.a would use itself: field events.a -> field events.b -> field events.a",
    ),
    (
        "create field events.id as id + 1",
        Code::Conflict,
        "field events.id would use itself: field events.id -> field events.id",
    ),
    (
        "create field events.c as count(*)",
        Code::NotSupported,
        "a field cannot contain an aggregate",
    ),
    (
        "create field events.c as (select 1)",
        Code::NotSupported,
        "a field cannot contain a subquery",
    ),
    ("create field events._id as 1", Code::BadSql, "_id is a system column"),
    (
        "create field nothing.c as 1",
        Code::NotFound,
        "collection nothing does not exist",
    ),
    (
        "create field events.c as lenght(type)",
        Code::BadSql,
        "function lenght does not exist",
    ),
    (
        "create view events as select 1",
        Code::Conflict,
        "a collection named events already exists",
    ),
    (
        "create view w as select * from w",
        Code::Conflict,
        "view w would use itself: view w -> view w",
    ),
    (
        "create or replace view v as select * from v",
        Code::Conflict,
        "view v would use itself: view v -> view v",
    ),
    ("create view w as drop view v", Code::BadSql, "a view must be a query"),
    (
        "create view w as insert into v values (1)",
        Code::NotSupported,
        "INSERT is not a supported statement",
    ),
];

#[test]
fn invalid_definitions_are_errors() {
    let mut schema = test_schema();
    schema.create("create field events.a as id + 1").expect("created");
    schema.create("create field events.b as a + 1").expect("created");
    schema.create("create view v as select b from events").expect("created");
    let mut wrong = Vec::new();
    for (sql, code, detail) in INVALID_DEFINITIONS {
        match schema.create(sql) {
            Err(p) if p.code == code && (p.detail == detail || detail.is_empty()) => {}
            other => wrong.push(format!("{sql}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let id = proto::catalog::DefinitionId::view("v");
    assert_eq!(
        schema.uses(&id),
        (vec!["field events.b@latest".to_owned()], vec!["events".to_owned()])
    );
}

#[test]
fn definitions_that_double_in_size_reach_a_limit() {
    let mut schema = test_schema();
    schema.create("create field events.f0 as id + id").expect("created");
    let mut refused = None;
    for i in 1..60 {
        if let Err(problem) = schema.create(&format!("create field events.f{i} as f{0} + f{0}", i - 1)) {
            refused = Some(problem.code);
            break;
        }
    }
    assert_eq!(refused, Some(Code::TooComplex));
}
