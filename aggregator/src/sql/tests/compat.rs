//! What people write out of habit in other systems has the same answer as what Rachis calls it.

use proto::Code;

use super::{
    answers::{check, test_schema},
    test_schema::TestSchema,
};

#[test]
fn functions_of_other_systems_are_computed() {
    let table = [
        ("select count() from events", "4"),
        ("select countIf(type = 'click') from events", "2"),
        ("select count_if(ok) filter (where type = 'click') from events", "1"),
        ("select sumIf(price, type = 'view') from events", "6.5"),
        (
            "select arg_max(type, price), argMin(code, price) from events",
            "view|200",
        ),
        ("select uniqExact(user.name) from events", "2"),
        (
            "select if(ok, 'a', 'b') from events where ok is not null order by 1",
            "a; b",
        ),
        (
            "select multiIf(price > 3, 'high', price > 1, 'low', 'none') as p, count() from events group by p order by p",
            "high|1; low|1; none|2",
        ),
        (
            "select toHour(at::timestamp), year(at::timestamp) from events where price = 2.5",
            "0|2026",
        ),
        (
            "select date_diff('day', min(at::timestamp), max(at::timestamp)), \
             dateDiff('hour', min(at::timestamp), max(at::timestamp)), \
             datediff('month', timestamp '2025-11-30', min(at::timestamp)) from events",
            "2|48|2",
        ),
        (
            "select strftime(max(at::timestamp), '%Y/%m/%d') from events",
            "2026/01/03",
        ),
        (
            "select formatDateTime(max(at::timestamp), '%H:%i') from events",
            "00:00",
        ),
        (
            "select regexp_extract('user=bob id=7', 'id=(\\d+)', 1), regexp_extract('user=bob', '[a-z]+')",
            "7|user",
        ),
        ("select splitByChar(',', 'a,b')[2], string_split('a,b', ',')[1]", "b|a"),
        ("select substring('user=bob' from 'user=(.*)')", "bob"),
        (
            "select timestamp '2026-01-01' + interval 2 hours",
            "2026-01-01T02:00:00Z",
        ),
        ("select count(*) from events where type rlike '^cl'", "2"),
        ("select version() like 'Rachis %', current_database()", "true|rachis"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn clauses_of_other_systems_are_computed() {
    let table = [
        ("select type from events group by all order by all", "click; view"),
        (
            "select type, count(*) n from events group by all order by n desc, 1",
            "click|2; view|2",
        ),
        ("from events select type order by price desc nulls last limit 1", "view"),
        ("select * exclude n from (select 2 as n, 3 as m)", "3"),
        ("select * except (m) from (select 2 as n, 3 as m)", "2"),
        ("select * replace (n + 1 as n) from (select 2 as n, 3 as m)", "3|3"),
        (
            "select type, user.id from events \
             qualify row_number() over (partition by type order by user.id desc) = 1 order by type",
            "click|2; view|3",
        ),
        (
            "select type, count(*) n, rank() over (order by count(*) desc, type) r from events group by 1 qualify r = 1",
            "click|2|1",
        ),
        ("select type from events order by type limit 1, 2", "click; view"),
        ("select `type` from events where `odd key`.x = 7", "click"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn other_ways_into_json_read_the_same_paths() {
    let table = [
        (
            "select _doc->>'$.user.name' from events where _doc->'$.user.id' = 2",
            "bob",
        ),
        (
            "select json_extract_string(_doc, '$.items[0].sku') from events where items is not null",
            "a",
        ),
        (
            "select JSONExtractInt(_doc, 'user', 'id') from events where JSONHas(_doc, 'odd key')",
            "2",
        ),
        (
            "select JSONExtractInt(_doc, 'user', 'id') from events where code is not null order by id nulls first, code desc",
            "3; 1",
        ),
        (
            r#"select count(*) from events where _doc @> '{"type":"view","user":{"id":1}}'"#,
            "1",
        ),
        ("select count(*) from events where _doc ? 'price'", "2"),
        (
            "select json_typeof(ms), count(*) from events where ms is not null group by 1 order by 1",
            "number|2; string|1",
        ),
        (
            "select json_array_length(items), length(make_array(1, 2)) from events where items is not null",
            "2|2",
        ),
        (
            "select array_to_string(json_keys(user), '-') from events where user.id = 2",
            "name-id",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn nested_functions_of_other_systems_do_not_grow_without_bound() {
    let nested = (0..12).fold("now()".to_owned(), |inner, _| {
        format!("now() + date_diff('day', {inner}, now()) * interval '1 day'")
    });
    assert_eq!(test_schema().problem(&format!("select {nested}")), None);
    let members: Vec<String> = (0..3_000).map(|n| format!(r#""k{n}":1"#)).collect();
    let contained = format!(
        "select 1 from events where (_doc->concat('a', upper('b'), upper('c'))) @> '{{{}}}'",
        members.join(",")
    );
    assert!(test_schema().problem(&contained).is_some());
}

#[test]
fn a_name_of_another_system_without_a_meaning_says_what_to_write() {
    let schema = test_schema();
    for (sql, detail, hint) in [
        (
            "select timestampdiff('minute', now(), now())",
            "the function timestampdiff is not supported",
            "date_diff('minute', from, to)",
        ),
        (
            "select date_diff('day', now())",
            "date_diff takes 3 arguments, not 2",
            "",
        ),
        (
            "select * exclude (missing) from (select 1 as n)",
            "* has no column missing",
            "",
        ),
        (
            "select _doc->>'$.items[*].sku' from events",
            "the JSON path $.items[*].sku is not supported",
            "unnest lists",
        ),
    ] {
        let problem = schema.problem(sql).unwrap_or_else(|| panic!("{sql} is accepted"));
        assert!(
            matches!(problem.code, Code::BadSql | Code::NotSupported),
            "{sql}: {problem:?}"
        );
        assert_eq!(problem.detail, detail, "{sql}");
        assert!(
            problem.hint.as_deref().unwrap_or_default().contains(hint),
            "{sql}: {problem:?}"
        );
    }
}

#[test]
fn containment_is_true_or_false_and_goes_by_the_kind_of_each_value() {
    let schema = TestSchema::with(&[(
        "c",
        &[r#"{"a":1,"n":1,"t":["1"],"l":[1,[2],{"x":1,"y":2}],"e":[],"z":null}"#],
    )]);
    let table = [
        (r#"select count(*) from c where not (_doc @> '{"zz":1}')"#, "1"),
        ("select count(*) from c where t @> '[1]'", "0"),
        (r#"select count(*) from c where not (t @> '[1]') and t @> '["1"]'"#, "1"),
        (r#"select count(*) from c where _doc @> '{"n":"1"}'"#, "0"),
        (
            r#"select count(*) from c where _doc @> '{"n":1}' and _doc @> '{"n":1.0}'"#,
            "1",
        ),
        (
            r#"select count(*) from c where _doc @> '{}' and not (_doc @> '[]')"#,
            "1",
        ),
        (
            r#"select count(*) from c where _doc @> '{"z":null}' and _doc @> '{"e":[]}'"#,
            "1",
        ),
        (
            r#"select l @> '[1]', l @> '1', l @> '[2]', l @> '[[2]]', l @> '[{"y":2}]' from c"#,
            "true|true|false|true|true",
        ),
        ("select missing @> '{}' from c", "NULL"),
        (r#"select '[1,2]' @> '[2]', '{"a":{"b":1}}' @> '{"a":{}}'"#, "true|true"),
        ("select _doc ? 'z', _doc ? 'y', t ? '1' from c", "true|false|true"),
    ];
    check(&schema, &table);
}

#[test]
fn times_are_cut_as_their_home_cuts_them() {
    let table = [
        (
            "select time_bucket(interval '1 month', timestamp '2026-05-02')",
            "2026-05-01T00:00:00Z",
        ),
        (
            "select time_bucket(interval '1 week', timestamp '2026-05-06')",
            "2026-05-04T00:00:00Z",
        ),
        (
            "select toStartOfInterval(timestamp '2026-05-06', interval 1 week)",
            "2026-05-04T00:00:00Z",
        ),
        (
            "select toStartOfInterval(timestamp '2026-05-06 10:11:12', interval 7 hour)",
            "2026-05-06T07:00:00Z",
        ),
        (
            "select toStartOfInterval(timestamp '2026-05-06', interval '3 quarters')",
            "2026-01-01T00:00:00Z",
        ),
        (
            "select toStartOfWeek(timestamp '2026-05-06'), toMonday(timestamp '2026-05-06')",
            "2026-05-03|2026-05-04",
        ),
        (
            "select date_diff('days', timestamp '2026-05-01 23:00', timestamp '2026-05-02 01:00')",
            "1",
        ),
        ("select date_diff(type, at, at) from events where code = '200'", "NULL"),
        (
            "select strftime(timestamp '2026-05-06 01:02:03.5', '%f %M'), date_format(timestamp '2026-05-06', '%M %i')",
            "500000 02|May 00",
        ),
        ("select strptime('2026-05-06 1', '%Y-%m-%d %H')", "2026-05-06T01:00:00Z"),
        ("select epoch_ms(timestamp '1969-12-31 23:59:59.9995')", "-1"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn numbers_and_texts_are_what_they_are_at_home() {
    let table = [
        ("select intDiv(9007199254740993, 1)", "9007199254740993"),
        (
            "select toInt64(3.7), toInt64(-3.7), toUInt8(300), toInt64('12')",
            "3|-3|44|12",
        ),
        (
            "select toInt64(price) from events where price is not null order by 1",
            "2; 4",
        ),
        (
            "select regexp_extract('abc', 'x'), regexp_extract('abc', '(a)(b)', 2)",
            "|b",
        ),
        (
            "select indexOf(make_array(1, 2), 3), string_split('abc', '')",
            "0|[a, b, c]",
        ),
        (
            "select hex('a'), base64('a'), mid('hello', -2, 5), substringUTF8('hello', 2, -2)",
            "61|YQ==|lo|el",
        ),
        (
            "select JSONExtractString(_doc, 'nope'), JSONExtractInt(_doc, 'user', 'id') from events where code = '404'",
            "|3",
        ),
        (
            "select JSONExtractString(items, 1, 'sku') from events where items is not null",
            "a",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn a_text_that_is_no_number_differs_from_every_number() {
    let schema = TestSchema::with(&[("c", &[r#"{"x":"abc"}"#, r#"{"x":"5"}"#, "{}"])]);
    let table = [
        ("select x from c where not (lower(x) = 5)", "abc"),
        ("select x from c where lower(x) <> 5", "abc"),
        ("select x from c where not (5 = lower(x))", "abc"),
        ("select x from c where lower(x) = 5", "5"),
        (
            "select x from c where lower(x) is distinct from null::int order by x",
            "5; abc",
        ),
        ("select x from c where lower(x) is not distinct from null::int", "NULL"),
        ("select x from c where lower(x) not in (5, 6)", "abc"),
    ];
    check(&schema, &table);
}

#[test]
fn a_qualified_query_is_sorted_by_what_it_does_not_select() {
    let table = [
        (
            "select type from events qualify row_number() over (partition by type order by user.id desc) = 1 \
             order by user.id desc",
            "view; click",
        ),
        (
            "select type as t from events qualify row_number() over (partition by type order by user.id desc) = 1 \
             order by t desc",
            "view; click",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn a_name_that_systems_define_differently_says_what_to_write() {
    for (sql, hint) in [
        ("select week(now())", "weekofyear"),
        ("select dayofweek(now())", "isodow"),
        ("select weekday(now())", "isodow"),
        ("select anyLast(type) from events", "argMax"),
        ("select rand()", "random()"),
        ("select hex(255)", "to_hex"),
        ("select epoch_ms(1446338949298)", "make_timestamp_ms"),
        ("select date_diff('week', now(), now())", "Mondays"),
        ("select date_diff('fortnight', now(), now())", "use one of year"),
        ("select strftime(now(), '%e')", "to_char"),
        (
            "select toStartOfInterval(now(), interval '1 day 2 hours')",
            "one number and one unit",
        ),
        ("select typeof(type) from events", "json_typeof"),
        (
            "select countIf(ok) filter (where ok), quantile(price, 0.5) filter (where ok) from events",
            "",
        ),
    ] {
        let problem = test_schema()
            .problem(sql)
            .unwrap_or_else(|| panic!("{sql} is accepted"));
        let said = problem.hint.as_deref().unwrap_or_default();
        assert!(said.contains(hint), "{sql}: {problem:?}");
    }
}
