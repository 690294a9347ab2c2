//! Queries that once had a wrong result or an error, found by comparing results with those of other databases.

use super::{answers::check, test_schema::TestSchema};

fn test_schema() -> TestSchema {
    TestSchema::with(&[
        (
            "e",
            &[
                r#"{"k":1,"n":1,"s":"7f00","status":200,"due":"2026-01-31","at":"2018-01-05T12:30:00","l":[9,10,100],"b":true,"big":9007199254740993,"x":1}"#,
                r#"{"k":2,"n":2,"s":"zz","status":404,"due":"9999-12-31","at":"2018-01-06T00:00:00","l":[2,"x"],"b":false,"big":0.5,"x":1.0}"#,
                r#"{"k":3,"n":4,"s":null,"status":200,"due":null,"at":"soon","l":[],"b":true,"big":9007199254740992,"x":"a/b"}"#,
                r#"{"k":4,"n":7,"status":500,"min":-9223372036854775808,"b":null,"x":"a\/b"}"#,
            ],
        ),
        (
            "t",
            &[
                r#"{"t":"a","u":"a","i":1}"#,
                r#"{"t":"b","u":null,"i":1}"#,
                r#"{"t":"zz","u":"q","i":2}"#,
            ],
        ),
        (
            "code",
            &[
                r#"{"k":1,"c":200}"#,
                r#"{"k":2,"c":"200"}"#,
                r#"{"k":3,"c":true}"#,
                r#"{"k":4,"c":{"a":1}}"#,
                r#"{"k":5,"c":{ "a": 1.0 }}"#,
                r#"{"k":6}"#,
            ],
        ),
    ])
}

#[test]
fn operators_use_the_types_that_datafusion_derives() {
    check(
        &test_schema(),
        &[
            ("select count(*) from e where now() - _time > interval '1 day'", "4"),
            ("select count(*) from e where now() - _time > interval '100 years'", "0"),
            ("select median(n) + 1 from e", "4.0"),
            (
                "select round(n) / 2, round(n) * 3000000000 from e where k = 4",
                "3.5|21000000000",
            ),
            (
                "select extract(hour from _time) / 24 from e where k = 1",
                "0.9166666666666666",
            ),
            (
                "select to_char(_time, 'YYYY-MM-DD'), to_char(_time, '%H:%M') from e where k = 1",
                "2023-11-14|22:13",
            ),
            (
                "select status::text, count(*) from e group by status order by 1",
                "200|2; 404|1; 500|1",
            ),
            (
                "select status + 1, count(*) from e group by status order by 1",
                "201|2; 405|1; 501|1",
            ),
            ("select count(*) from e where due::date = '2026-01-31'", "1"),
            (
                "select k, due::date from e order by k",
                "1|2026-01-31; 2|9999-12-31; 3|NULL; 4|NULL",
            ),
            (
                "select _time at time zone 'America/New_York' from e where k = 1",
                "2023-11-14T17:13:20",
            ),
            // A literal without a zone is a local time; one with a zone, and a document's time, are points in time.
            (
                "select timestamp '2026-01-31 08:30' at time zone 'Europe/Berlin', \
                 '2026-07-31'::timestamp at time zone 'Europe/Berlin', \
                 timestamp with time zone '2026-01-31 08:30' at time zone 'Europe/Berlin', \
                 (timestamp '2026-01-31T08:30:00Z') at time zone 'Europe/Berlin'",
                "2026-01-31T07:30:00Z|2026-07-30T22:00:00Z|2026-01-31T09:30:00|2026-01-31T09:30:00",
            ),
            (
                "select _time at time zone 'UTC' at time zone 'America/New_York' from e where k = 1",
                "2023-11-15T03:13:20Z",
            ),
            (
                "select min / -1, min % -1, -min from e where k = 4",
                "9.223372036854776e18|0|NULL",
            ),
            ("select length(s), upper(status) from e where k = 1", "4|200"),
            ("select 7 / 2, 7 % 2, 7.0 / 2", "3.5|1|3.5"),
            (
                "select sum(n), avg(n), max(n) from e where n > (select avg(n) from e)",
                "11|5.5|7",
            ),
        ],
    );
}

#[test]
fn numbers_without_a_result_are_null() {
    let table = [
        (
            "select encode(decode(s, 'hex'), 'hex') from e order by k",
            "7f00; NULL; NULL; NULL",
        ),
        ("select substr(s, 1, n - 3) from e where k = 1", "NULL"),
        ("select power(n - 1, -1) from e where k = 2", "1.0"),
        (
            "select sqrt(n - 2) from e order by k",
            "NULL; 0.0; 1.4142135623730951; 2.23606797749979",
        ),
        (
            "select n / (n - 1) from e order by k",
            "NULL; 2.0; 1.3333333333333333; 1.1666666666666667",
        ),
        (
            "select n::decimal(38,0) * '99999999999999999999999999999999999999'::decimal(38,0) from e where k < 3 order by k",
            "99999999999999999999999999999999999999; NULL",
        ),
        (
            "select sum(k)/4, sum(k)/3 = 10/3, (sum(k)/4)::int, sum(k)/1000000 from e",
            "2.5|true|2|0.00001",
        ),
        (
            "select 2.7::decimal(4,1)::int, (n + 0.7)::decimal(4,1)::int, 0.5::decimal(2,1)::int from e where k = 1",
            "3|2|1",
        ),
        (
            "select (k * 1e308) / 0.1, ((k * 1e308) / 0.1) is null from e where k = 1",
            "NULL|true",
        ),
        (
            "select try_cast('\"x\"'::json as int) is null, try_cast(1e30 as int) is null",
            "true|true",
        ),
        (
            "select '99999999999999999999999999999999999999'::decimal(38,0) + n::decimal(38,0) from e where k = 1",
            "NULL",
        ),
        ("select (select max(n) from e) * 1e308 from t where i = 2", "NULL"),
        (
            "select (select max(n) from e)::decimal(38,0) * '99999999999999999999999999999999999999'::decimal(38,0) is null",
            "true",
        ),
        (
            "select sqrt((select min(k) - 5 from e)), chr((select min(k) - 100 from e)) is null",
            "NULL|true",
        ),
        (
            "select '99999999999999999999'::decimal(38,0) * n::decimal(38,0)::int is null from e where k = 1",
            "false",
        ),
        (
            "select ('99999999999999999999'::decimal(38,0) * n::decimal(38,0))::int from e where k = 1",
            "NULL",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn dates_without_a_result_are_null() {
    let table = [
        (
            "select '2024-01-31'::date + n * interval '1 month' from e where k < 3 order by k",
            "2024-02-29; 2024-03-31",
        ),
        (
            "select '2024-01-31'::date + k, '2024-01-31'::date + k * 1000000000 from e where k = 1",
            "2024-02-01|NULL",
        ),
        (
            "select due::date + n * interval '150000 years' from e where k < 3 order by k",
            "+152026-01-31; NULL",
        ),
        (
            "select '1970-01-01'::date + n * 100000000 is null from e where k = 4",
            "true",
        ),
        (
            "select '2024-03-01'::date - k::int, '2024-03-01'::date - due, due::date + null is null from e where k = 1",
            "2024-02-29|-PT60566400S|true",
        ),
        (
            "select (k + 1)::date, 5::date, k::date from e where k = 1",
            "1970-01-01|1970-01-01|1970-01-01",
        ),
        (
            "select '2024-01-31'::date + 1.0, '2024-01-31'::date - 1",
            "2024-02-01|2024-01-30",
        ),
        (
            "select k + '2024-01-31'::date, '2024-01-31'::date - interval '1 hour' from e where k = 1",
            "2024-02-01|2024-01-30",
        ),
        (
            "select n * interval '1000000000 months' + interval '2000000000 months' is null from e where k < 3 order by k",
            "true; true",
        ),
        (
            "select ('10:30'::time - '10:00'::time) > interval '29 minutes' from t where i = 2",
            "true",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn values_without_a_result_are_counted_in_warnings() {
    let schema = test_schema();
    let (_, _, warnings) = schema.run("select n / (n - 1) from e", &[]);
    assert_eq!(warnings, ["division: 1 of 4 values had no result and are NULL"]);
    let (_, _, warnings) = schema.run("select n * 1e308 from e", &[]);
    assert_eq!(warnings, ["arithmetic: 3 of 4 values had no result and are NULL"]);
    let (_, _, warnings) = schema.run("select s::decimal(10,2), n::decimal(2,2) from e", &[]);
    assert_eq!(
        warnings,
        [
            "as DECIMAL(10,2): 2 of 2 values had no result and are NULL",
            "as DECIMAL(2,2): 4 of 4 values had no result and are NULL"
        ]
    );
    let (_, _, warnings) = schema.run("select max(due) - min(due) from e", &[]);
    assert!(
        matches!(warnings.as_slice(), [only] if only.ends_with("if they are times, convert them: x::timestamp")),
        "{warnings:?}"
    );
}

/// Statements with errors in literals or types, and the details of the errors.
const LITERAL_ERRORS: [(&str, &str); 24] = [
    ("select cast('x' as int)", "'x' cannot be read as BIGINT"),
    ("select timestamp 'tomorrow'", "'tomorrow' is not a point in time"),
    (
        "select _time at time zone 'Mars/Base' from e",
        "time zone Mars/Base does not exist",
    ),
    ("select 'x'::date", "'x' is not a point in time"),
    ("select 'NaN'::double", "'NaN' cannot be read as DOUBLE"),
    ("select 12345::decimal(4,2)", "12345 cannot be read as DECIMAL(4,2)"),
    (
        "select (s like 'x')::date from e",
        "an expression is a boolean, which cannot be cast to DATE",
    ),
    (
        "select (interval '1 day')::int",
        "interval '1 days' is an interval, which cannot be cast to BIGINT",
    ),
    (
        "select '99999999999999999999'::decimal(38,0)::int",
        "99999999999999999999 cannot be read as BIGINT",
    ),
    (
        "select 9223372036854775807 + 1",
        "9223372036854775807 + 1 has no result",
    ),
    (
        "select -9223372036854775807 - 2",
        "-9223372036854775807 - 2 has no result",
    ),
    (
        "select 4611686018427387904 * 2",
        "4611686018427387904 * 2 has no result",
    ),
    ("select 1e308 * 10", "1e308 * 10.0 has no result"),
    ("select sqrt(2 - 3), n from e", "sqrt(-1) has no result"),
    ("select 1e30::int", "1e30 cannot be read as BIGINT"),
    (
        "select -(-9223372036854775808)",
        "-(-9223372036854775808) has no result",
    ),
    (
        "select sum(k)::interval from e",
        "an expression is a number, which cannot be cast to INTERVAL",
    ),
    (
        "select k from e order by (select max(i) from t where t.i = e.k)",
        "a subquery in this place, or correlated with the outer query in this way, is not supported",
    ),
    ("select ln(0)", "ln(0) has no result"),
    (
        "select abs(-9223372036854775807 - 1)",
        "abs(-9223372036854775808) has no result",
    ),
    (
        "select '2024-01-31'::date + 1000000000",
        "'2024-01-31T00:00:00Z' + interval '1000000000 days' has no result",
    ),
    ("select interval '1 day' / 0", "division by zero"),
    (
        "select '10:30'::time + interval '1 hour'",
        "an expression + interval '1 hours': + does not accept TIME and an interval",
    ),
    (
        "select n::decimal(38,20) * k::decimal(38,20) from e",
        "the result of * would have more than 38 digits",
    ),
];

#[test]
fn literals_without_a_result_are_errors() {
    let schema = test_schema();
    for (sql, detail) in LITERAL_ERRORS {
        let problem = schema.problem(sql).unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(problem.detail, detail, "{sql}");
    }
}

#[test]
fn equality_compares_each_value_by_its_kind() {
    let table = [
        ("select k from code where c = '200' order by k", "1; 2"),
        ("select k from code where c = 200 order by k", "1"),
        ("select k from code where c <> '200' order by k", "3; 4; 5"),
        ("select k from code where c <> 200 order by k", "2; 3; 4; 5"),
        ("select k from code where c = 'true'", "3"),
        ("select k from code where c in (200, 'x') order by k", "1"),
        ("select k from code where c not in (200, 'x') order by k", "2; 3; 4; 5"),
        (
            "select k from code where c is distinct from 200 order by k",
            "2; 3; 4; 5; 6",
        ),
        (
            "select k from code where c is not distinct from '200' order by k",
            "1; 2",
        ),
        (
            "select case c when 200 then 'n' when '200' then 't' else 'o' end from code order by k",
            "n; t; o; o; o; o",
        ),
        ("select k from e where big = 9007199254740993", "1"),
        ("select k from e where big > 9007199254740992", "1"),
        (
            "select k, big from e where big is not null order by big",
            "2|0.5; 3|9007199254740992; 1|9007199254740993",
        ),
        ("select count(*) from e a join e b on a.big = b.big", "3"),
        ("select count(*) from e where k = status", "0"),
        ("select count(*) from e where s = status", "0"),
        ("select count(*) from e where s <> status", "2"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn conditions_on_values_of_several_kinds_can_be_combined() {
    let table = [
        (
            "select k from code where c not in (200, 'x') or c not in (7, 'y') order by k",
            "1; 2; 3; 4; 5",
        ),
        (
            "select k from code where c in (200, 'x') and c not in (7, null) order by k",
            "",
        ),
        (
            "select t from t a where exists (select 1 from e b where b.k = 1 and (a.u not in ('q', 'r') or a.u not in ('z', 'y'))) order by t",
            "a; zz",
        ),
        (
            "select k from code where k = 1 or ((c in (1, 2, 3, 4) and c in (5, 6, 7, 8)) is not null) = false order by k",
            "1; 6",
        ),
        (
            "select k from code where c between 'f' and 'n' or c < 'TRUE' or c >= 'yes' order by k",
            "2",
        ),
        (
            "select k, c < 'true', c >= 'false' from code where k < 5 order by k",
            "1|NULL|NULL; 2|true|false; 3|false|true; 4|NULL|NULL",
        ),
        (
            "select t, i in (1, 7) and i in (2, 8), (u in ('a') and u in ('q')) is null from t order by t",
            "a|false|false; b|false|true; zz|false|false",
        ),
        (
            "select coalesce(case when i in (1, 2, 3, 4) then 'a' when i in (5, 6, 8, 9) then 'b' end, 'other') from t",
            "a; a; a",
        ),
        (
            "select coalesce(u) in ('a', 'b', 'c', 'd') and u in ('q', 'r', 's', 'v') from t where t = 'b'",
            "NULL",
        ),
        (
            "select t, count(*) from t group by t having (t = 'a' or t = 'b') and t not in ('x', 'y', null, 'q')",
            "",
        ),
        (
            "select a.t from t a join t b on a.t = b.t where (a.t = 'a' or a.t = 'x') and a.t not in (null, 'q', 'r', 's')",
            "",
        ),
        (
            "select k, not (c not in (200) or (c <> 200 and c <> 1 and c <> 'z')) from code order by k",
            "1|true; 2|false; 3|false; 4|false; 5|false; 6|NULL",
        ),
        (
            "select a.k from code a join code b on a.k = b.k and (not (a.c = 200 or a.c = 2) or not (a.c in (1, 200, 'abc'))) order by 1",
            "2; 3; 4; 5",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn joins_and_groups_compare_as_equality_does() {
    let table = [
        ("select count(*) from code a join code b on a.c = b.c", "7"),
        (
            "select c, count(*) from code group by c order by 2 desc, 1",
            "{\"a\":1}|2; 200|1; \"200\"|1; true|1; NULL|1",
        ),
        ("select count(*) from (select distinct x from e) d", "2"),
        ("select x, count(*) from e group by x order by x", "1|2; \"a/b\"|2"),
        ("select c from code where k < 3 intersect select '200'", "\"200\""),
    ];
    check(&test_schema(), &table);
}

#[test]
fn order_between_kinds_is_null_and_order_by_sorts_numbers_then_texts_then_the_rest() {
    let schema = test_schema();
    check(
        &schema,
        &[
            ("select k from code where c < 300", "1"),
            ("select k from code where c < '300' order by k", "1; 2"),
            ("select k from code where not (c < 300)", ""),
            ("select k from code where c between 100 and 300", "1"),
            (
                "select c from code order by c",
                "200; \"200\"; true; {\"a\":1}; { \"a\": 1.0 }; NULL",
            ),
            (
                "select x, n from e order by x, n desc",
                "1.0|2; 1|1; \"a\\/b\"|7; \"a/b\"|4",
            ),
            ("select min(c), max(c) from code", "200|200"),
            ("select max(c) from code where k = 2", "\"200\""),
            (
                "select k, greatest(c, 100), least(c, 'x') from code where k < 3 order by k",
                "1|200|200; 2|100|200",
            ),
        ],
    );
}

#[test]
fn a_value_converted_to_text_keeps_its_own_text() {
    check(
        &test_schema(),
        &[
            (
                "select c || '!' from code order by k",
                "200!; 200!; true!; {\"a\":1}!; { \"a\": 1.0 }!; NULL",
            ),
            (
                "select coalesce(c, 'none') from code order by k",
                "200; 200; true; {\"a\":1}; { \"a\": 1.0 }; none",
            ),
            (
                "select case when k < 3 then c else 'x' end from code order by k limit 3",
                "200; 200; x",
            ),
            ("select concat(x, '-', n) from e order by k", "1-1; 1.0-2; a/b-4; a/b-7"),
            (
                "select length(c), upper(c) from code where k in (1, 3) order by k",
                "3|200; 4|TRUE",
            ),
            ("select k from code where c like '2%' order by k", "1; 2"),
        ],
    );
}

#[test]
fn subqueries_return_the_right_rows() {
    let table = [
        (
            "select k from e where n in (select i from t) or k = 4 order by k",
            "1; 2; 4",
        ),
        ("select k from e where not (n in (select i from t)) order by k", "3; 4"),
        (
            "select t from t where (t in (select u from t)) is null order by t",
            "b; zz",
        ),
        ("select exists (select count(*) from t where i = 9)", "true"),
        (
            "select count(*) from (select distinct t as c from t) x where exists (select 1 from t y where y.t = x.c)",
            "3",
        ),
        (
            "select c, exists (select 1 from t y where y.t = x.c and i = 1) b from (select t as c from t except select 'b') x order by c",
            "a|true; zz|false",
        ),
        (
            "select c from (select due as c from e union all select _time from e where k = 1) x where exists (select 1 from e y where y.due = x.c)",
            "2026-01-31T00:00:00Z; 9999-12-31T00:00:00Z",
        ),
        (
            "select c, c > 1, c = 1, exists (select 1 from e y where y.s = x.c) from (select s as c from e group by s) x order by c",
            "7f00|NULL|false|true; zz|NULL|false|true; NULL|NULL|NULL|false",
        ),
        (
            "select c, (select count(*) from e y where y.due = x.c) from (select due::date as c from e) x order by c",
            "2026-01-31|1; 9999-12-31|1; NULL|0; NULL|0",
        ),
        (
            "select x.n, l.i from (select distinct n from e) x, lateral (select i from t where t.i = x.n) l order by 1",
            "1|1; 1|1; 2|2",
        ),
        (
            "select c, (select max(i) from t y where y.i = x.c) from (select i as c from t group by i) x order by c",
            "1|1; 2|2",
        ),
        (
            "select k from e a where exists (select 1 from code b where b.k = a.n and not exists (select 1 from t c where c.i = b.k)) order by k",
            "3",
        ),
        (
            "select k from e a where exists (select 1 from code b where b.k + 0 = a.n + 0 and exists (select 1 from t c where c.i + 0 = b.k + 0)) order by k",
            "1; 2",
        ),
        ("select sum(i) from t where i > all (select 1)", "2"),
        (
            "select t from t a where t not in (select u from t b where b.i = a.i)",
            "zz",
        ),
        (
            "select t, t in (select u from t b where b.i = a.i) from t a order by t",
            "a|true; b|NULL; zz|false",
        ),
        (
            "select t, n from t a, lateral (select count(*) n from t b where b.i = a.i) x order by t",
            "a|2; b|2; zz|1",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn groups_and_set_operations_return_the_right_rows() {
    let table = [
        ("select i from t except all select 1", "1; 2"),
        ("select i from t intersect all select i from t where i = 1", "1; 1"),
        (
            "select 3 as x, t, i from t group by 1, 2, 3 order by t",
            "3|a|1; 3|b|1; 3|zz|2",
        ),
        ("select 7 x, count(*) from t group by x", "7|3"),
        ("select count(distinct t) from t having sum(i) <> 143", "3"),
        ("select (-7) x, count(*) from t group by 1", "-7|3"),
        ("select distinct b is true from e order by 1", "false; true"),
        (
            "select b is true, count(*) from e group by 1 order by 1",
            "false|2; true|2",
        ),
        (
            "select 118 c from t union all select coalesce(n, n, 118) from e union select 83 from t order by 1",
            "1; 2; 4; 7; 83; 118",
        ),
        ("select distinct 1, i, i from t order by i", "1|1|1; 1|2|2"),
    ];
    check(&test_schema(), &table);
}

#[test]
fn windows_return_the_right_values() {
    let table = [
        (
            "select sum(k) over (partition by c < t) from code a join t on t.i = a.k order by 1",
            "2; 2; 2",
        ),
        (
            "select sum(k) over (partition by length(t) + 0.5 > 2 order by k) from e join t on t.i = e.k order by 1",
            "2; 2; 2",
        ),
        (
            "select max(u) over (order by t rows between unbounded preceding and 2 preceding) m from t order by m",
            "a; NULL; NULL",
        ),
        (
            "select sum(v) over (order by i rows between 1 preceding and current row) from (values (1, 9223372036854775807), (2, 1), (3, 1), (4, 1)) x(i, v)",
            "9223372036854775807; 9223372036854775808; 2; 2",
        ),
        (
            "select sum(v) over w, avg(v) over w from (values (1, 1e300), (2, 1.0), (3, 1.0), (4, null), (5, 4.0)) x(i, v) window w as (order by i rows between 1 preceding and current row)",
            "1e300|1e300; 1e300|5e299; 2.0|1.0; 1.0|1.0; 4.0|4.0",
        ),
        (
            "select min(c) over w, max(c) over w from code window w as (order by k rows between 1 preceding and current row)",
            "200|200; 200|200; \"200\"|\"200\"; true|true; NULL|NULL; NULL|NULL",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn casts_lists_and_times_return_the_right_values() {
    let table = [
        ("select t from t where t not in (u, 'zz') order by t", ""),
        (
            "select z.i from (select i, -(i - i) * 0.5 as z from t) z where z.z = 0.0 or z.z = 2.5 or z.z = 3.5 or z.z = 4.5 order by 1",
            "1; 1; 2",
        ),
        ("select -(i - 2.0) in (0.0, 7.0, 8.0, 9.0) from t where i = 2", "true"),
        (
            "select big::text::int, b::text::boolean from e where k = 2",
            "NULL|false",
        ),
        (
            "select s.b::int from (select big::text as b from e where k = 2) s",
            "NULL",
        ),
        (
            "select (i < null)::text, (i + null)::text x from t where i = 2",
            "NULL|NULL",
        ),
        (
            "select x.v::double is null from (select 'Na' || 'N' as v, s from e where k = 1) x",
            "true",
        ),
        ("select unnest(array['a','b','12'])", "a; b; 12"),
        (
            "select max(x.n) from (select unnest(l) as n from e where k = 1) x",
            "100",
        ),
        ("select max(l[0]), max(l[1]) from e", "9|10"),
        ("select array_agg(l order by k) from e where k < 2", "[[9,10,100]]"),
        ("select count(*) from e where at > timestamp '2018-01-05'", "2"),
        (
            "select at - interval '1 day' from e where k = 1",
            "2018-01-04T12:30:00Z",
        ),
        (
            "select max(at::timestamp) - min(at::timestamp) > interval '11 hours' from e",
            "true",
        ),
        (
            "select 2 * interval '1 day' < interval '49 hours', interval '1 month' > interval '29 days'",
            "true|true",
        ),
        ("select t from t where t like 'z!z' escape '!'", "zz"),
        (
            "select sum(a::int), sum(a::double) from (select i::text as a from t) s",
            "4|4.0",
        ),
        (
            "select cast(2.5 as int), cast(n + 0.5 as int) from e where k < 3 order by k",
            "2|2; 2|2",
        ),
    ];
    check(&test_schema(), &table);
}

/// Documents whose paths have values of several kinds.
fn mixed_schema() -> TestSchema {
    TestSchema::with(&[(
        "c",
        &[
            r#"{"n":1,"v":9,"a":1,"b":null,"t":"2024-01-01T10:00:00Z","ms":1704067200000,"l":[[1,2],[3]],"re":"a.","big":9007199254740993}"#,
            r#"{"n":2,"v":10,"a":2,"b":2,"t":"2024-01-02T10:00:00Z","ms":1704067201000,"l":[[4]],"re":"(","big":9007199254740992}"#,
            r#"{"n":3,"v":100,"a":null,"b":null,"t":"2024-01-09T10:00:00Z","ms":"zz","l":[],"re":"xyz","big":0.5}"#,
            r#"{"n":4,"v":"x","a":0.5}"#,
        ],
    )])
}

#[test]
fn comparisons_of_mixed_values_return_the_right_rows() {
    let table = [
        ("select n from c where a is distinct from b and n > 3", "4"),
        (
            "select n from c where b is not distinct from null or n = 2 order by n",
            "1; 2; 3; 4",
        ),
        (
            "select n from c where n = 1 or a is not distinct from b and n = 2 order by n",
            "1; 2",
        ),
        (
            "select n from c where v > all (select v from c where n = 1) order by n",
            "2; 3",
        ),
        ("select n from c where v >= all (select v from c where n < 4)", "3"),
        (
            "select n from c where v < any (select v from c where n = 3) order by n",
            "1; 2",
        ),
        (
            "select n from c where v > some (select v from c where n < 3) order by n",
            "2; 3",
        ),
        (
            "select n from c where n <> all (select n from c where n > 2) order by n",
            "1; 2",
        ),
        (
            "select x.n, y.n m from c x join c y on x.big > y.big order by 1, 2",
            "1|2; 1|3; 2|3",
        ),
        (
            "select v <> timestamp '2024-01-01', v = timestamp '2024-01-01' from c where n in (1, 4) order by n",
            "true|false; true|false",
        ),
        (
            "select 'ab' ~ re, 'ab' !~ re from c where n < 4 order by n",
            "true|false; NULL|NULL; false|true",
        ),
        ("select n from c where big = 9007199254740992.0", "2"),
        (
            "select count(*) from c x join c y on x.big = y.big + 0.0 where x.n in (1, 2)",
            "2",
        ),
    ];
    check(&mixed_schema(), &table);
}

#[test]
fn functions_and_groups_of_mixed_values_return_the_right_rows() {
    let table = [
        (
            "select n, count(*) over (order by t range between interval '1 day' preceding and current row) from c where n < 4 order by n",
            "1|1; 2|2; 3|1",
        ),
        (
            "select 'id-' || (a + 1), (a + 1)::text from c where n < 3 order by n",
            "id-2|2; id-3|3",
        ),
        (
            "select to_timestamp_millis(ms)::text from c order by n",
            "2024-01-01T00:00:00Z; 2024-01-01T00:00:01Z; NULL; NULL",
        ),
        (
            "select x.l[0], x.l[0][1] from (select n, l from c) x where n < 3 order by n",
            "[1,2]|2; [4]|NULL",
        ),
        ("select t + n * interval '100000 years' from c where n = 3", "NULL"),
        ("select left('abcdef', a) from c where n < 3 order by n", "a; ab"),
        ("select approx_distinct(a), approx_distinct(v) from c", "3|4"),
        (
            "select distinct on (a) a, n from c order by a, n desc",
            "0.5|4; 1.0|1; 2.0|2; NULL|3",
        ),
        (
            "select n % 2, grouping(n % 2), count(*) from c group by rollup(n % 2) order by 1, 2",
            "0|0|2; 1|0|2; NULL|1|4",
        ),
        ("select max(n order by v) from c", "4"),
        ("select array_length(l) from c where n < 3 order by n", "2; 1"),
        (
            "select k, s || '!' from (select n % 2 as k, string_agg(v::text, ',' order by n) s from c group by 1) x order by k",
            "0|10,x!; 1|9,100!",
        ),
        (
            "select to_char(t::timestamp + interval '7000 years', 'YYYY') from c where n = 1",
            "NULL",
        ),
        ("select ln(n - 2) from c where n < 3 order by n", "NULL; NULL"),
    ];
    check(&mixed_schema(), &table);
}

#[test]
fn warnings_and_parameters_of_mixed_values_are_right() {
    let schema = mixed_schema();
    let (_, _, warnings) = schema.run("select ln(-n) from c", &[]);
    assert_eq!(warnings, ["ln: 4 of 4 values had no result and are NULL"]);
    let double = serde_json::from_str("9007199254740985.0").expect("a number");
    assert_eq!(schema.run("select $1 = 9007199254740985.0", &[double]).1, [["true"]]);
    let (_, rows, _) = schema.run("select sum($1), max($1)", &[serde_json::json!(3)]);
    assert_eq!(rows, [["3", "3"]]);
    assert!(
        schema
            .problem("select 1 / 0")
            .is_some_and(|problem| problem.detail == "division by zero")
    );
}
