//! Every limit on the parts of a statement: so many are accepted, and one more is refused with a hint.

use proto::Code;

use super::errors::test_schema;

/// A limit: what the error says, how many are accepted, and a statement with so many.
type Limit = (&'static str, usize, fn(usize) -> String);

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

fn nested(depth: usize, construct: &str, innermost: &str) -> String {
    (0..depth).fold(innermost.to_owned(), |inner, _| construct.replace("{}", &inner))
}

const LIMITS: [Limit; 18] = [
    ("columns", 2_000, |n| {
        format!("select {} from events", list(n, |i| format!("id as c{i}")))
    }),
    ("columns", 2_000, |n| format!("values ({})", list(n, |i| i.to_string()))),
    ("ORDER BY has", 200, |n| {
        format!("select id from events order by {}", list(n, |i| format!("id + {i}")))
    }),
    ("GROUP BY has", 1_000, |n| {
        format!(
            "select count(*) from events group by {}",
            list(n, |i| format!("id + {i}"))
        )
    }),
    ("different windows", 100, |n| {
        format!(
            "select {} from events",
            list(n, |i| format!("sum(id) over (order by id + {i}) as c{i}"))
        )
    }),
    ("a window has", 50, |n| {
        format!(
            "select sum(id) over (partition by {}) from events",
            list(n, |i| format!("id + {i}"))
        )
    }),
    ("WITH has", 100, |n| {
        format!("with {} select 1", list(n, |i| format!("c{i} as (select {i} as a)")))
    }),
    ("WITH is nested", 8, |n| {
        nested(n, "with c as ({}) select a from c", "select 1 as a")
    }),
    ("relations", 200, |n| {
        format!("select count(*) from {}", list(n, |i| format!("events as e{i}")))
    }),
    ("relations", 200, |n| {
        format!(
            "with c as (values (1)) select count(*) from {}",
            list(n, |i| format!("c as c{i}"))
        )
    }),
    ("subqueries in its expressions", 100, |n| {
        format!("select {}", list(n, |i| format!("(select {i} as a) as c{i}")))
    }),
    // As a value, IN asks the query three times.
    ("subqueries in its expressions", 33, |n| {
        format!("select {}", list(n, |i| format!("{i} in (select 1 as a) as c{i}")))
    }),
    ("nested more than 8 levels", 8, |n| {
        format!("select {}", nested(n, "(select {} as a)", "1"))
    }),
    ("arguments", 1_000, |n| {
        format!("select concat({}) from events", list(n, |_| "type".into()))
    }),
    ("branches", 1_000, |n| {
        format!(
            "select multiIf({}, 0) from events",
            list(n, |i| format!("id = {i}, {i}"))
        )
    }),
    ("branches", 1_000, |n| {
        let branches: String = (0..n).map(|i| format!("when id = {i} then id * {i} ")).collect();
        format!("select case {branches} end from events")
    }),
    ("a path has", 200, |n| {
        format!("select _doc->>'${}' from events", ".k".repeat(n))
    }),
    ("a regular expression has", 65_536, |n| {
        format!("select count(*) from events where type ~ '{}'", "a".repeat(n))
    }),
];

#[test]
fn as_many_as_a_limit_says_are_accepted_and_one_more_is_refused_with_a_hint() {
    let schema = test_schema();
    for (words, most, write) in LIMITS {
        if let Some(problem) = schema.resolve(&write(most), &[]).err() {
            panic!("{words}: {most} should be accepted: {problem:?}");
        }
        let problem = schema.resolve(&write(most + 1), &[]).expect_err("one more is too many");
        assert_eq!(problem.code, Code::TooComplex, "{words}: {problem:?}");
        assert!(problem.detail.contains(words), "{words}: {problem:?}");
        assert!(problem.hint.is_some(), "{words}");
    }
}

#[test]
fn copies_of_parts_of_a_statement_are_limited_wherever_they_are_made() {
    let schema = test_schema();
    // Each copies a part with a thousand operators again and again.
    let sum = format!("id{}", " + 1".repeat(900));
    let statements = [
        format!(
            "with c as (select {sum} as a from events) select count(*) from {}",
            list(60, |i| format!("c as c{i}"))
        ),
        format!(
            "select {sum} as a from events group by 1 having {}",
            ["a > 1"; 60].join(" and ")
        ),
        format!("select {sum} as a from events qualify {}", ["a > 1"; 60].join(" and ")),
        format!(
            "select count(*) from events group by cube ({})",
            list(9, |i| format!("{i} + {sum}"))
        ),
        format!("select {}", nested(3, "1 in (select {} from events)", &sum)),
        nested(
            7,
            "select date_diff('day', _time, now()) in ({}) as b from events",
            "select 1",
        ),
    ];
    for sql in statements {
        let shown: String = sql.chars().rev().take(60).collect::<String>().chars().rev().collect();
        let problem = schema.resolve(&sql, &[]).expect_err(&shown);
        assert_eq!(problem.code, Code::TooComplex, "{shown}: {problem:?}");
        assert!(problem.hint.is_some(), "{shown}");
    }
}

#[test]
fn conditions_that_grow_below_nested_queries_are_limited() {
    let schema = test_schema();
    let constructs = [
        "select a + a as a from ({}) as t where a > 0",
        "select case when a > 1 then a else -a end as a from ({}) as t where a > 0",
        "select a * a as a from (select a from ({}) as t group by a) as u where a > 0",
        "select t.a + t.a as a from ({}) as t join users as u on t.a > u.id",
        "select t.a + t.a as a from ({}) as t left semi join users as u on t.a > u.id",
        "select t.a + t.a as a from ({}) as t where exists (select 1 from users as u where u.id = t.a and t.a > 5)",
        "select coalesce(a, -a) as a from ({}) as t where a > 0",
    ];
    for construct in constructs {
        let sql = |depth| nested(depth, construct, "select id as a from events");
        assert!(
            schema.problem(&sql(2)).is_none(),
            "{construct}: {:?}",
            schema.problem(&sql(2))
        );
        let problem = schema.problem(&sql(24)).expect(construct);
        assert_eq!(problem.code, Code::TooComplex, "{construct}: {problem:?}");
    }
}
