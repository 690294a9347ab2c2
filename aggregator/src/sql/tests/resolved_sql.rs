//! Statements as text after their names are resolved, and after their types are assigned.

use super::test_schema::TestSchema;

fn test_schema() -> TestSchema {
    TestSchema::with(&[(
        "events",
        &[
            r#"{"i":1,"f":1.5,"t":"x","b":true,"mixed":1,"o":{"K":1},"list":[{"x":1}],"n":"12"}"#,
            r#"{"i":2,"f":2,"t":"y","b":false,"mixed":"one","o":{"K":2},"list":[]}"#,
        ],
    )])
}

/// Items of a select list, and their typed expressions.
const TYPED_ITEMS: [(&str, &str); 44] = [
    ("i", r#"json_get(i, Utf8(""), Utf8("int"))"#),
    ("f", r#"json_get(f, Utf8(""), Utf8("double"))"#),
    ("mixed", r#"e.mixed:json"#),
    ("o", r#"e.o:json"#),
    ("o.K", r#"json_get(K, Utf8(""), Utf8("int"))"#),
    ("o.k", r#"json_get(k, Utf8(""), Utf8("int"))"#),
    (
        "mixed = 1",
        r#"json_get(e.mixed:json, Utf8(""), Utf8("canonical")) = to_json(Int64(1))"#,
    ),
    (
        "mixed = 1.5",
        r#"json_get(e.mixed:json, Utf8(""), Utf8("canonical")) = to_json(Float64(1.5))"#,
    ),
    (
        "mixed = 'one'",
        r#"json_get(e.mixed:json, Utf8(""), Utf8("canonical")) IN ([LargeUtf8(""one"")])"#,
    ),
    (
        "mixed like 'o%'",
        r#"json_get(e.mixed:json, Utf8(""), Utf8("text!")) LIKE CAST(Utf8("o%") AS Utf8View)"#,
    ),
    (
        "mixed + 1",
        r#"checked_sum(Utf8("++"), json_get(e.mixed:json, Utf8(""), Utf8("int")), Int64(1))"#,
    ),
    (
        "mixed is null",
        r#"json_get(e.mixed:json, Utf8(""), Utf8("canonical")) IS NULL"#,
    ),
    ("mixed::int", r#"json_get(e.mixed:json, Utf8(""), Utf8("int!"))"#),
    ("i::int", r#"json_get(e.i:json, Utf8(""), Utf8("int!"))"#),
    ("i::text", r#"json_get(e.i:json, Utf8(""), Utf8("text!"))"#),
    ("t::text", r#"json_get(e.t:json, Utf8(""), Utf8("text"))"#),
    ("_doc->>'t'", r#"json_get(e.t:json, Utf8(""), Utf8("text"))"#),
    ("_doc->>'i'", r#"json_get(e.i:json, Utf8(""), Utf8("text!"))"#),
    ("_doc->'mixed'", r#"e.mixed:json"#),
    (
        "(_doc->>'n')::double",
        r#"json_get(e.n:json, Utf8(""), Utf8("double!"))"#,
    ),
    (
        "_doc->'list'->0->>'x'",
        r#"json_get(e.list[0].x:json, Utf8(""), Utf8("text!"))"#,
    ),
    ("list[0].x", r#"e.list[0].x:json"#),
    (
        "list[0].x > 3",
        r#"json_compare(json_get(e.list[0].x:json, Utf8(""), Utf8("canonical")), to_json(Int64(3))) > Int64(0)"#,
    ),
    ("i = '2'", r#"json_get(e.i:json, Utf8(""), Utf8("int")) = Int64(2)"#),
    ("sum(i)", r#"sum(e.i:json)"#),
    ("sum(f)", r#"sum(e.f:json)"#),
    ("max(mixed)", r#"max(e.mixed:json)"#),
    ("count(mixed)", r#"count(e.mixed:json)"#),
    (
        "b and mixed",
        r#"json_get(e.b:json, Utf8(""), Utf8("bool")) AND json_get(e.mixed:json, Utf8(""), Utf8("bool"))"#,
    ),
    (
        "i / f",
        r#"checked_div(json_get(e.i:json, Utf8(""), Utf8("double")), json_get(e.f:json, Utf8(""), Utf8("double")))"#,
    ),
    (
        "i / 2",
        r#"checked_div(json_get(e.i:json, Utf8(""), Utf8("double")), Float64(2))"#,
    ),
    (
        "i between 1 and '2'",
        r#"json_get(e.i:json, Utf8(""), Utf8("int")) >= Int64(1) AND json_get(e.i:json, Utf8(""), Utf8("int")) <= Int64(2)"#,
    ),
    (
        "t < now()",
        r#"json_get(e.t:json, Utf8(""), Utf8("time")) < CAST(now() AS Timestamp(µs, "UTC"))"#,
    ),
    (
        "_time >= '2026-01-01'",
        r#"e._time >= TimestampMicrosecond(1767225600000000, Some("UTC"))"#,
    ),
    (
        "coalesce(i, f)",
        r#"coalesce(CAST(json_get(e.i:json, Utf8(""), Utf8("int")) AS Float64), json_get(e.f:json, Utf8(""), Utf8("double")))"#,
    ),
    (
        "coalesce(i, 'none')",
        r#"coalesce(json_get(e.i:json, Utf8(""), Utf8("text!")), CAST(Utf8("none") AS Utf8View))"#,
    ),
    ("_id", r#"e._id"#),
    ("_doc", r#"e._doc"#),
    ("nothing", r#"e.nothing:json"#),
    (
        "search('disk t:x')",
        r#"e.?{"words":"disk"} AND e.?{"in":"t","words":"x"}"#,
    ),
    (
        "case mixed when 1 then 'a' end",
        r#"CASE WHEN json_get(e.mixed:json, Utf8(""), Utf8("canonical")) = to_json(Int64(1)) THEN Utf8("a") END"#,
    ),
    (
        "i in (1, 2)",
        r#"json_get(e.i:json, Utf8(""), Utf8("int")) IN ([Int64(1), Int64(2)])"#,
    ),
    ("\"@odd\"", r#"e.@odd:json"#),
    ("@odd", r#"e.@odd:json"#),
];

#[test]
fn the_use_of_a_path_determines_its_type() {
    let schema = test_schema();
    let mut wrong = Vec::new();
    for (item, expected) in TYPED_ITEMS {
        let got = schema.typed_item(item);
        if got != expected {
            wrong.push(format!("{item}\n  {got}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn statements_resolve_to_flat_columns() {
    let schema = test_schema();
    let table = [
        (
            "select t, count(*) from events where i > 1 group by t order by count(*) desc limit 3",
            r#"SELECT "events"."t:json" AS "t", "count"(*) AS "count" FROM "rachis_0" AS "events" WHERE "events"."i:json" > 1 GROUP BY "events"."t:json" ORDER BY 2 DESC LIMIT 3"#,
        ),
        (
            "select a.t from events a join events b on a.i = b.mixed",
            r#"SELECT "a"."t:json" AS "t" FROM "rachis_0" AS "a" INNER JOIN "rachis_1" AS "b" ON "a"."i:json" = "b"."mixed:json""#,
        ),
        (
            "with x as (select o from events) select o.K + 1 from x",
            r#"WITH "with_0" ("o") AS (SELECT "events"."o:json" AS "o" FROM "rachis_0" AS "events") SELECT inside("x"."o", 'K', '4') + 1 AS "o.K + 1" FROM "with_0" AS "x""#,
        ),
    ];
    for (sql, expected) in table {
        assert_eq!(schema.resolved_sql(sql), expected, "{sql}");
    }
}

#[test]
fn names_that_no_document_has_cause_a_warning() {
    let schema = test_schema();
    let table = [
        (
            "select mixd from events",
            "no document in events has mixd, so it is NULL; did you mean mixed?",
        ),
        (
            "select K from events",
            "no document in events has K, so it is NULL; did you mean o.K?",
        ),
        (
            "select list.x from events",
            "list.x is inside a list, so it is NULL here; write list[0].x, or unnest the list",
        ),
        (
            "select a.z from events a, events b",
            "no document in events has z, so it is NULL",
        ),
        (
            "select zzz from events a, events b",
            "no document in a or b has zzz, so it is NULL",
        ),
        (
            "select i from events where zzz = 1",
            "no document in events has zzz, so it is NULL; if it is a text, write 'zzz' in single quotes",
        ),
        (
            "select i from events where search('nothere:5')",
            "no document in events has nothere",
        ),
        (
            "select i from events where search('exists:i')",
            "no document in events has exists; to find documents that have a path, write _exists_:path",
        ),
        (
            "select i from events where search('_missing_:i')",
            "no document in events has _missing_; to find documents without a path, write NOT _exists_:path",
        ),
    ];
    for (sql, warning) in table {
        let resolved = schema.resolve(sql, &[]).unwrap_or_else(|p| panic!("{sql}: {p}"));
        assert_eq!(resolved.warnings, [warning], "{sql}");
    }
    for sql in [
        "select i, f, mixed, o.K, list[0].x, i::text, count(*) over () from events where mixed > 1",
        "select _id, _doc->'i' from events where search('list.x:1')",
    ] {
        assert_eq!(
            schema.resolve(sql, &[]).expect("resolved").warnings,
            Vec::<String>::new(),
            "{sql}"
        );
    }
}
