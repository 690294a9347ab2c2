//! What a statement becomes, as text: the views that its uses pick, and the warnings about them.

use super::world::Small;

fn world() -> Small {
    Small::with(&[(
        "events",
        &[
            r#"{"i":1,"f":1.5,"t":"x","b":true,"mixed":1,"o":{"K":1},"list":[{"x":1}],"n":"12"}"#,
            r#"{"i":2,"f":2,"t":"y","b":false,"mixed":"one","o":{"K":2},"list":[]}"#,
        ],
    )])
}

#[test]
fn the_use_of_a_path_picks_its_view() {
    let world = world();
    let table = [
        ("i", r#""e"."i:int""#),
        ("f", r#""e"."f:double""#),
        ("mixed", r#""e"."mixed:json""#),
        ("o", r#""e"."o:json""#),
        ("o.K", r#""e"."o.K:int""#),
        ("o.k", r#""e"."o.K:int""#),
        ("mixed = 1", r#""e"."mixed:int" = 1"#),
        ("mixed = 1.5", r#""e"."mixed:int" = 1.5"#),
        ("mixed = 'one'", r#""e"."mixed:text" = 'one'"#),
        ("mixed like 'o%'", r#""e"."mixed:text" LIKE 'o%'"#),
        ("mixed + 1", r#"checked_sum('++', "e"."mixed:int", 1)"#),
        ("mixed is null", r#""e"."mixed:json" IS NULL"#),
        ("mixed::int", r#""e"."mixed:int!""#),
        ("i::int", r#""e"."i:int""#),
        ("i::text", r#""e"."i:text!""#),
        ("t::text", r#""e"."t:text""#),
        ("_doc->>'t'", r#""e"."t:text""#),
        ("_doc->>'i'", r#""e"."i:text!""#),
        ("_doc->'mixed'", r#""e"."mixed:json""#),
        ("(_doc->>'n')::double", r#""e"."n:double!""#),
        ("_doc->'list'->0->>'x'", r#""e"."list[0].x:text!""#),
        ("list[0].x", r#""e"."list[0].x:json""#),
        ("list[0].x > 3", r#""e"."list[0].x:double" > 3"#),
        ("i = '2'", r#""e"."i:int" = 2"#),
        ("sum(i)", r#"sum(CAST("e"."i:int" AS DECIMAL(20,0)))"#),
        ("sum(f)", r#"sum("e"."f:double")"#),
        ("max(mixed)", r#"max("e"."mixed:int")"#),
        ("count(mixed)", r#"count("e"."mixed:json")"#),
        ("b and mixed", r#""e"."b:bool" AND "e"."mixed:bool""#),
        ("i / f", r#""e"."i:int" / nullif("e"."f:double", 0)"#),
        ("i / 2", r#""e"."i:int" / 2"#),
        ("i between 1 and '2'", r#""e"."i:int" BETWEEN 1 AND 2"#),
        ("t < now()", r#""e"."t:time" < arrow_cast(now(), 'Timestamp(Microsecond, Some("UTC"))')"#),
        ("_time >= '2026-01-01'", r#""e"."_time" >= arrow_cast('2026-01-01T00:00:00.000000Z', 'Timestamp(Microsecond, Some("UTC"))')"#),
        ("coalesce(i, f)", r#"coalesce("e"."i:int", "e"."f:double")"#),
        ("coalesce(i, 'none')", r#"coalesce("e"."i:text!", 'none')"#),
        ("_id", r#""e"."_id""#),
        ("_doc", r#""e"."_doc""#),
        ("nothing", r#""e"."nothing:json""#),
        ("search('disk t:x')", r#"((("e"."?{""words"":""disk""}") AND ("e"."?{""in"":""t"",""words"":""x""}")))"#),
        ("case mixed when 1 then 'a' end", r#"CASE "e"."mixed:int" WHEN 1 THEN 'a' END"#),
        ("i in (1, 2)", r#""e"."i:int" IN (1, 2)"#),
        ("\"@odd\"", r#""e"."@odd:json""#),
        ("@odd", r#""e"."@odd:json""#),
    ];
    let mut wrong = Vec::new();
    for (item, expected) in table {
        let text = world.text(&format!("select {item} from events e"));
        let got = text
            .strip_prefix("SELECT ")
            .and_then(|t| t.strip_suffix(r#" FROM "rachis_0" AS "e""#))
            .map(|t| t.rsplit_once(" AS ").map_or(t, |(t, _)| t));
        let got = got.unwrap_or(&text);
        if got != expected && got != format!("({expected})") {
            wrong.push(format!("{item}\n  {got}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whole_statements_become_what_the_planner_takes() {
    let world = world();
    let table = [
        (
            "select t, count(*) from events where i > 1 group by t order by count(*) desc limit 3",
            r#"SELECT "events"."t:text" AS "t", count(*) AS "count" FROM "rachis_0" AS "events" WHERE "events"."i:int" > 1 GROUP BY "events"."t:text" ORDER BY 2 DESC LIMIT 3"#,
        ),
        (
            "select a.t from events a join events b on a.i = b.mixed",
            r#"SELECT "a"."t:text" AS "t" FROM "rachis_0" AS "a" INNER JOIN "rachis_1" AS "b" ON "a"."i:int" = "b"."mixed:int""#,
        ),
        (
            "with x as (select mixed m from events) select m + 1 from x",
            r#"WITH "with_0" ("m") AS (SELECT "events"."mixed:json" AS "m" FROM "rachis_0" AS "events") SELECT checked_sum('++', json_get("x"."m", '', 'int'), 1) AS "m + 1" FROM "with_0" AS "x""#,
        ),
        (
            "select mixed from events order by mixed desc",
            r#"SELECT "events"."mixed:json" AS "mixed" FROM "rachis_0" AS "events" ORDER BY "events"."mixed:int" DESC NULLS FIRST, "events"."mixed:text" DESC NULLS FIRST"#,
        ),
    ];
    for (sql, expected) in table {
        assert_eq!(world.text(sql), expected, "{sql}");
    }
}

#[test]
fn what_will_be_null_is_told() {
    let world = world();
    let table = [
        ("select sum(t) from events", "t is used as a number but holds text, so it is NULL there; t::double converts it"),
        ("select i like 'x' from events", "i is used as a text but holds integer, so it is NULL there; i::text converts it"),
        ("select n + 1 from events", "n is used as a number but holds text, so it is NULL there; n::double converts it"),
        ("select mixd from events", "no document of events has mixd, so it is NULL; perhaps mixed was meant"),
        ("select K from events", "no document of events has K, so it is NULL; perhaps o.K was meant"),
        ("select list.x from events", "list.x lies inside of a list, so it is NULL here; write list[0].x, or unnest the list"),
        ("select a.z from events a, events b", "no document of events has z, so it is NULL"),
        ("select zzz from events a, events b", "no document of a or b has zzz, so it is NULL"),
    ];
    for (sql, warning) in table {
        let resolved = world.resolved(sql, &[]).unwrap_or_else(|p| panic!("{sql}: {p}"));
        assert_eq!(resolved.warnings, [warning], "{sql}");
    }
    for sql in [
        "select i, f, mixed, o.K, list[0].x, i::text, count(*) over () from events where mixed > 1",
        "select _id, _doc->'i' from events where search('list.x:1')",
    ] {
        assert_eq!(world.resolved(sql, &[]).expect("resolved").warnings, Vec::<String>::new(), "{sql}");
    }
}
