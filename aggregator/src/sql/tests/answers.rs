//! Queries and their results, through the planner and its operators. The columns of the documents are computed directly
//! by the definition of path types.

use super::test_schema::TestSchema;

/// Events with numbers and texts at one path, a list, nested keys, and a key that needs quotes; and users.
pub(super) fn test_schema() -> TestSchema {
    TestSchema::with(&[
        (
            "events",
            &[
                r#"{"type":"click","ms":12,"user":{"name":"ann","id":1},"ok":true,"items":[{"sku":"a","n":1},{"sku":"b"}],"at":"2026-01-01T00:00:00Z"}"#,
                r#"{"type":"click","ms":"slow","user":{"name":"bob","id":2},"ok":false,"odd key":{"x":7},"at":"2026-01-02T00:00:00Z"}"#,
                r#"{"type":"view","ms":30,"user":{"name":"ann","id":1},"price":2.5,"code":"200","at":"2026-01-03T00:00:00Z"}"#,
                r#"{"type":"view","ms":null,"user":{"id":3},"price":4,"code":"404"}"#,
            ],
        ),
        (
            "users",
            &[
                r#"{"id":1,"city":"Ulm"}"#,
                r#"{"id":2,"city":"Bonn"}"#,
                r#"{"id":9,"city":"Kiel"}"#,
            ],
        ),
    ])
}

/// Compares the results of all queries, and reports every one that differs.
pub(super) fn check(schema: &TestSchema, table: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, expected) in table {
        let answer =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| schema.answer(sql))).unwrap_or_else(|panic| {
                panic
                    .downcast_ref::<String>()
                    .map_or("panic".into(), |text| text.clone())
            });
        if answer != *expected {
            wrong.push(format!(
                "{sql}\n  answer:   {answer}\n  expected: {expected}\n  resolved: {}",
                schema.resolved_sql(sql)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn groups_and_aggregates_are_computed_and_ordered() {
    let table = [
        ("select count(*) from events", "4"),
        (
            "select cast(case type when 'click' then 1 else price end as bigint) n, count(*) from events group by n order by n",
            "1|2; 2|1; 4|1",
        ),
        (
            "select cast(case when type = 'view' then 2.5 when true then 1 end as bigint) n from events order by n",
            "1; 1; 2; 2",
        ),
        (
            "select type, count(*) from events group by type order by type",
            "click|2; view|2",
        ),
        (
            "select type, count(*) n from events group by 1 order by n desc, 1",
            "click|2; view|2",
        ),
        (
            "select user.name from events where user.name is not null order by user.name",
            "ann; ann; bob",
        ),
        ("select sum(ms) from events", "42"),
        (
            "select sum(ms), avg(ms), min(ms), max(ms), count(ms) from events",
            "42|21.0|12|30|3",
        ),
        ("select ms from events order by ms", "12; 30; \"slow\"; NULL"),
        ("select ms from events order by ms desc limit 2", "NULL; \"slow\""),
        (
            "select m from (select ms m from events) t order by m",
            "12; 30; \"slow\"; NULL",
        ),
        (
            "select ms, count(*) from events group by ms order by ms",
            "12|1; 30|1; \"slow\"|1; NULL|1",
        ),
        (
            "with c as (select ms m from events) select m, row_number() over (order by m desc) from c order by 2",
            "NULL|1; \"slow\"|2; 30|3; 12|4",
        ),
        (
            "select array_agg(ms order by ms desc) from events where ms is not null",
            "[\"slow\", 30, 12]",
        ),
        ("select distinct type from events order by type", "click; view"),
        (
            "select case when ms > 20 then 'slow' else 'fast' end, count(*) from events group by 1 order by 1",
            "fast|3; slow|1",
        ),
        (
            "select type from events group by type having count(*) > 1 and max(ms) > 12",
            "view",
        ),
        (
            "select count(*) filter (where type = 'view'), count(distinct user.id) from events",
            "2|3",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn conditions_compare_each_value() {
    let table = [
        ("select ms from events where ms > 12", "30"),
        ("select ms from events where ms = 'slow'", "\"slow\""),
        (
            "select ms from events where ms in (30, 'slow') order by _offset",
            "\"slow\"; 30",
        ),
        ("select count(*) from events where ms is null", "1"),
        ("select count(*) from events where ok", "1"),
        ("select count(*) from events where not ok or type like 'v%'", "3"),
        ("select count(*) from events where nothing = 3", "0"),
        ("select count(*) from events where ms not in (12, 'x')", "2"),
        ("select count(*) from events where ms>-1 and ms<>-5 and ms>=+12", "2"),
        ("select count(*) from events where ms not in (12, 'x', null)", "0"),
        ("select count(*) from events where ms in (12, 'slow', null)", "2"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn paths_reach_nested_and_missing_values() {
    let table = [
        (
            "select items[0].sku, items[1].sku from events where items is not null",
            "\"a\"|\"b\"",
        ),
        (
            "select _doc->'user'->>'name' from events order by _offset",
            "ann; bob; ann; NULL",
        ),
        ("select \"odd key\".x from events where \"odd key\".x = 7", "7"),
        (
            "select USER.NAME from events where Type = 'click' order by 1",
            "ann; bob",
        ),
        (
            "select coalesce(user.name, 'nobody') from events order by _offset",
            "ann; bob; ann; nobody",
        ),
        (
            "select type || ':' || user.id from events order by _offset limit 1",
            "click:1",
        ),
        ("select nothing from events limit 1", "NULL"),
        (
            "select e.user.name from events e where e.type = 'click' order by 1 desc",
            "bob; ann",
        ),
        ("select events.type from events limit 1", "click"),
        (
            "select upper(type), length(user.name) from events order by _offset limit 1",
            "CLICK|3",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn arithmetic_and_casts_are_computed() {
    let table = [
        (
            "select price / 2 from events where price is not null order by 1",
            "1.25; 2.0",
        ),
        (
            "select price / 0, ms % 0 from events where type = 'view' order by _offset",
            "NULL|NULL; NULL|NULL",
        ),
        ("select user.id / 2 from events order by _offset", "0.5; 1.0; 0.5; 1.5"),
        (
            "select code::int + 1 from events where code is not null order by 1",
            "201; 405",
        ),
        (
            "select (_doc->>'price')::double from events order by _offset",
            "NULL; NULL; 2.5; 4.0",
        ),
        ("values (1, 'a'), (2, 'b')", "1|a; 2|b"),
        (
            "select 3 * -7 - 2 + 1, 4000000000 * 2000000000",
            "-22|8000000000000000000",
        ),
        (
            "select 10 - 3 - 2 + 1, 2 * 3 * 4, 10 - (3 - 2), -(user.id) from events order by _offset limit 1",
            "6|24|9|-1",
        ),
        (
            "select user.id * 4611686018427387904 from events order by _offset",
            "4611686018427387904; NULL; 4611686018427387904; NULL",
        ),
        ("select 1 + 1, 'a'", "2|a"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn times_and_windows_are_computed() {
    let table = [
        ("select count(*) from events where at >= '2026-01-02'", "2"),
        (
            "select count(*) from events where at::timestamp >= timestamp '2026-01-02 00:00'",
            "2",
        ),
        ("select count(*) from events where _time >= '2023-11-14T22:14:20Z'", "3"),
        (
            "select count(*) from events where _time > now() - interval '1 hour'",
            "0",
        ),
        (
            "select date_trunc('hour', _time), count(*) from events group by 1",
            "2023-11-14T22:00:00Z|4",
        ),
        (
            "select extract(year from at::timestamp) from events where at is not null limit 1",
            "2026",
        ),
        (
            "select type, row_number() over (partition by type order by _offset) from events order by _offset",
            "click|1; click|2; view|1; view|2",
        ),
        ("select max(x) from (select ms as x from events) t", "30"),
        (
            "select sum(user.id) over (order by _offset rows between 1 preceding and current row) from events order by _offset limit 2",
            "1; 3",
        ),
        (
            "select to_timestamp_millis(user.id) from events order by _offset limit 1",
            "1970-01-01T00:00:00.001Z",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn searches_lists_and_patterns_match() {
    let table = [
        ("select count(*) from events where search('ann')", "2"),
        (
            "select count(*) from events where search('user.name:ann AND ms:>20') or search('items.sku:b')",
            "2",
        ),
        (
            "select unnest(items) from events",
            "{\"sku\":\"a\",\"n\":1}; {\"sku\":\"b\"}",
        ),
        (
            "select 'bc' similar to '[^a]%', 'a.c' similar to 'a[._]c', 'abc' similar to 'a[._]c', '^c' similar to '[a^]c'",
            "true|true|false|true",
        ),
        (
            "select type from events where type similar to 'v_e%' group by type",
            "view",
        ),
        (
            "select 'abc' similar to 'b', 'abc' similar to '(x|ab)%', 'a.c' similar to 'a.c', 'abc' similar to 'a.c'",
            "false|true|true|false",
        ),
        (
            "select item from events, unnest(items) t(item)",
            "{\"sku\":\"a\",\"n\":1}; {\"sku\":\"b\"}",
        ),
        (
            "with a as (select 1 x), b as (select l.x from a l join a r on l.x = r.x) select count(*) from b l join b r on l.x = r.x",
            "1",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn joins_and_with_queries_return_rows() {
    let table = [
        (
            "select e.type, u.city from events e join users u on e.user.id = u.id order by e._offset",
            "click|Ulm; click|Bonn; view|Ulm",
        ),
        (
            "select city, count(*) from events e join users u on e.user.id = u.id group by city order by 2 desc, 1",
            "Ulm|2; Bonn|1",
        ),
        (
            "select u.city, e.type from users u left join events e on e.user.id = u.id and e.type = 'view' order by 1",
            "Bonn|NULL; Kiel|NULL; Ulm|view",
        ),
        (
            "select count(*) from events a, events b where a._offset < b._offset",
            "6",
        ),
        (
            "select a.id, b.city from users a join users b using (id) order by id",
            "1|Ulm; 2|Bonn; 9|Kiel",
        ),
        (
            "select id, count(*) from users join (select id as id from users) t using (id) group by id order by id",
            "1|1; 2|1; 9|1",
        ),
        (
            "with v as (select * from events where type = 'view') select count(*), sum(ms) from v",
            "2|30",
        ),
        (
            "with a as (select user.id as id from events), b as (select id from a where id > 1) select count(*) from b",
            "2",
        ),
        (
            "with v(kind, n) as (select type, count(*) from events group by type) select kind from v order by n, kind",
            "click; view",
        ),
        (
            "with recursive n as (select 1 as i union all select i + 1 from n where i < 4) select sum(i) from n",
            "10",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn subqueries_return_rows() {
    let table = [
        (
            "select city from users where id in (select user.id from events where ok) ",
            "Ulm",
        ),
        (
            "select city from users u where not exists (select 1 from events e where e.user.id = u.id)",
            "Kiel",
        ),
        (
            "select city from users where id not in (select user.id from events) order by city",
            "Kiel",
        ),
        (
            "select city, (select count(*) from events e where e.user.id = u.id) from users u order by city",
            "Bonn|1; Kiel|0; Ulm|2",
        ),
        (
            "select type from events where ms = (select max(ms) from events)",
            "view",
        ),
        (
            "select t.user.name, t.ms from (select user, ms from events) t where t.ms > 12",
            "ann|30",
        ),
        (
            "select name from (select user.name from events) t where name = 'bob'",
            "bob",
        ),
        (
            "select t.ms + 1 from (select ms from events) t order by 1",
            "13; 31; NULL; NULL",
        ),
        ("select (select 1), exists (select 1 from users)", "1|true"),
        (
            "select a.type from events a where a.user.id = any (select id from users where city = 'Bonn')",
            "click",
        ),
        (
            "select city, n from users u, lateral (select count(*) n from events e where e.user.id = u.id) l where n > 1",
            "Ulm|2",
        ),
        (
            "select city, id in (select user.id from events where ok) from users order by 1",
            "Bonn|false; Kiel|false; Ulm|true",
        ),
        (
            "select city, not exists (select 1 from events e where e.user.id = u.id) from users u order by 1",
            "Bonn|false; Kiel|true; Ulm|false",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn set_operations_unnest_and_system_tables_return_rows() {
    let table = [
        (
            "select type from events union select city from users order by type",
            "Bonn; Kiel; Ulm; click; view",
        ),
        (
            "select ms from events union all select id from users",
            "12; \"slow\"; 30; NULL; 1; 2; 9",
        ),
        ("select id from users except select user.id from events", "9"),
        (
            "select item.sku, item.n from events, unnest(items) as item order by 1",
            "\"a\"|1; \"b\"|NULL",
        ),
        (
            "select e.type, i.sku::text from events e cross join unnest(e.items) as i where i.n = 1",
            "click|a",
        ),
        (
            "select type, x.* from (select type, ms from events limit 1) x",
            "click|click|12",
        ),
        ("select source from rachis.sources where lag > 3", ""),
        ("select s.source, sources.lag from rachis.sources s, rachis.sources", ""),
        (
            "select user.id, count(*) from events group by rollup (user.id) order by 2 desc, 1 limit 1",
            "NULL|4",
        ),
        (
            "select type, ms, ms + 1 from events group by type, ms order by ms limit 2",
            "click|12|13; view|30|31",
        ),
        ("select count(*) from (values (1), (2)) t(x) where x > 1", "1"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn definitions_apply_to_all_documents_and_stored_values_stay_readable() {
    let mut schema = test_schema();
    assert_eq!(
        schema
            .create("create field events.cents as (_doc->>'price')::double * 100")
            .expect("created"),
        Vec::<String>::new()
    );
    assert_eq!(
        schema
            .create("create field events.twice as cents * 2")
            .expect("created"),
        Vec::<String>::new()
    );
    assert_eq!(
        schema.create("create field events.person as user").expect("created"),
        Vec::<String>::new()
    );
    assert_eq!(
        schema
            .create("create field events.price as (_doc->>'price')::double / 2")
            .expect("created"),
        ["price hides a path of the same name in documents; use _doc->'price' to read the stored value"]
    );
    schema
        .create("create view views as select _id, user, ms, cents from events where type = 'view'")
        .expect("created");
    schema
        .create("create view ann as select ms from views where user.name = 'ann'")
        .expect("created");
    let table = [
        (
            "select cents from events where cents is not null order by 1",
            "250.0; 400.0",
        ),
        ("select sum(twice) from events", "1300.0"),
        (
            "select price, _doc->'price' from events where price > 1 order by 1",
            "1.25|2.5; 2.0|4.0",
        ),
        (
            "select person.name, count(*) from events group by 1 order by 2 desc, 1 limit 1",
            "ann|2",
        ),
        ("select count(*) from events where person.id = 1", "2"),
        ("select count(*), sum(cents) from views", "2|650.0"),
        ("select v.user.id from views v order by 1", "1; 3"),
        ("select ms from ann", "30"),
        (
            "select count(*) from events where search('cents:250') and search('person.name:ann')",
            "1",
        ),
        ("select count(*) from events where search('price:>1.5')", "1"),
    ];
    check(&schema, &table);
    schema
        .create("create or replace field events.cents as (_doc->>'price')::double * 1000")
        .expect("replaced");
    check(
        &schema,
        &[
            ("select sum(twice) from events", "13000.0"),
            ("select sum(cents@1), sum(cents@2) from events", "650.0|6500.0"),
        ],
    );
}

#[test]
fn parameters_are_replaced_with_values() {
    let schema = test_schema();
    let (_, rows, _) = schema.run(
        "select count(*) from events where ms > $1 and type = $2",
        &[serde_json::json!(11), serde_json::json!("view")],
    );
    assert_eq!(rows, [["1"]]);
    let (_, rows, _) = schema.run(
        "select $1, $2, $3, $4 limit $5",
        &[
            serde_json::json!(-1),
            serde_json::json!(null),
            serde_json::json!(true),
            serde_json::json!(1.5),
            serde_json::json!(1),
        ],
    );
    assert_eq!(rows, [["-1", "NULL", "true", "1.5"]]);
    let problem = schema
        .resolve("select $2", &[serde_json::json!(1)])
        .expect_err("no value");
    assert_eq!(problem.detail, "parameter $2 has no value");
}

#[test]
fn star_selects_id_time_and_top_level_keys_and_repeated_names_are_numbered() {
    let mut schema = test_schema();
    let (names, rows, _) = schema.run("select * from users order by id limit 1", &[]);
    assert_eq!(names, ["_id", "_time", "city", "id"]);
    assert_eq!(rows[0][2..], ["Ulm", "1"]);
    schema.create("create field users.town as city").expect("created");
    schema
        .create("create view cities as select city, id from users")
        .expect("created");
    assert_eq!(
        schema.run("select * from users", &[]).0,
        ["_id", "_time", "city", "id", "town"]
    );
    assert_eq!(
        schema.run("select c.*, c.* from cities c", &[]).0,
        ["city", "id", "city_2", "id_2"]
    );
    assert_eq!(
        schema.run("select * from cities a join cities b using (id)", &[]).0,
        ["city", "id", "city_2"]
    );
    let named = "select user.name, count(*), sum(ms), _doc->'a'->>'b', items[0].sku, ms::int, (ms), 1 + 1, upper(type) from events group by 1, 4, 5, 6, 7, 9";
    assert_eq!(
        schema.run(named, &[]).0,
        ["name", "count", "sum", "b", "sku", "ms", "ms_2", "1 + 1", "upper"]
    );
}

/// Words that documents use as keys, and that have a meaning in SQL.
const WORDS: [&str; 62] = [
    "user",
    "type",
    "name",
    "timestamp",
    "time",
    "date",
    "level",
    "status",
    "method",
    "path",
    "host",
    "id",
    "message",
    "count",
    "value",
    "key",
    "index",
    "offset",
    "partition",
    "source",
    "window",
    "position",
    "language",
    "session",
    "action",
    "event",
    "object",
    "repo",
    "actor",
    "public",
    "org",
    "payload",
    "schema",
    "comment",
    "hash",
    "range",
    "rows",
    "interval",
    "map",
    "struct",
    "row",
    "match",
    "year",
    "month",
    "day",
    "hour",
    "second",
    "version",
    "text",
    "json",
    "data",
    "function",
    "sum",
    "min",
    "max",
    "first",
    "last",
    "file",
    "url",
    "zone",
    "role",
    "format",
];

#[test]
fn sql_keywords_are_valid_keys() {
    let mut wrong = Vec::new();
    for word in WORDS {
        let document = format!("{{\"{word}\":1,\"o\":{{\"{word}\":{{\"{word}\":2}}}}}}");
        let schema = TestSchema::with(&[("events", &[document.as_str()])]);
        for (sql, expected) in [
            (
                format!("select {word} from events where {word} = 1 and {word} < 2 group by {word} order by {word}"),
                "1",
            ),
            (
                format!(
                    "select {word} + 1 as {word}, sum({word}), max(e.{word}) from events e group by {word} having {word} > 0"
                ),
                "2|1|1",
            ),
            (
                format!(
                    "select o.{word}.{word}, {word}::text from events where o.{word}.{word} in (2) and not {word} is null"
                ),
                "2|1",
            ),
            (
                format!(
                    "select case when {word} = 1 then {word} else 0 end, {word} from events order by {word} desc limit 1"
                ),
                "1|1",
            ),
        ] {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| schema.answer(&sql))) {
                Ok(answer) if answer == expected => {}
                Ok(answer) => wrong.push(format!("{sql}: {answer}")),
                Err(panic) => wrong.push(panic.downcast_ref::<String>().map_or("panic".into(), |text| {
                    text.lines().take(3).collect::<Vec<_>>().join(" ")
                })),
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
