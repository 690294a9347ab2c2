//! Lists: unnested, generated, counted, and as parameters.

use super::{
    answers::{check, test_schema},
    test_schema::TestSchema,
};

#[test]
fn lists_are_unnested_in_step_with_positions_and_kept_when_empty() {
    let schema = TestSchema::with(&[(
        "e",
        &[
            r#"{"k":1,"a":["x","y"],"b":[10,20,30]}"#,
            r#"{"k":2,"a":[],"b":[40]}"#,
            r#"{"k":3,"a":null,"b":[]}"#,
            r#"{"k":4,"a":"text"}"#,
        ],
    )]);
    let table = [
        (
            "select k, i, n from e, unnest(a) with ordinality as t(i, n) order by k, n",
            "1|\"x\"|1; 1|\"y\"|2",
        ),
        (
            "select k, unnest, ordinality from e cross join unnest(a) with ordinality order by k, ordinality",
            "1|\"x\"|1; 1|\"y\"|2",
        ),
        (
            "select k, i, o from e, unnest(a) as i with offset as o order by k, o",
            "1|\"x\"|0; 1|\"y\"|1",
        ),
        (
            "select k, x, y from e, unnest(a, b) as t(x, y) order by k, y",
            "1|\"x\"|10; 1|\"y\"|20; 1|NULL|30; 2|NULL|40",
        ),
        (
            "select k, x, y, n from e, unnest(a, b) with ordinality as t(x, y, n) order by k, n",
            "1|\"x\"|10|1; 1|\"y\"|20|2; 1|NULL|30|3; 2|NULL|40|1",
        ),
        (
            "select k, i from e left join unnest(a) as t(i) on true order by k, i",
            "1|\"x\"; 1|\"y\"; 2|NULL; 3|NULL; 4|NULL",
        ),
        (
            "select k, i, n from e left join unnest(a) with ordinality as t(i, n) on true where k < 3 order by k, n",
            "1|\"x\"|1; 1|\"y\"|2; 2|NULL|NULL",
        ),
        (
            "select k, x, y from e left join unnest(a, b) as t(x, y) on true where k > 1 order by k, y",
            "2|NULL|40; 3|NULL|NULL; 4|NULL|NULL",
        ),
        (
            "select k, i, j from e, unnest(a) as t(i), unnest(b) as u(j) where k = 1 and j < 30 order by i, j",
            "1|\"x\"|10; 1|\"x\"|20; 1|\"y\"|10; 1|\"y\"|20",
        ),
        ("select count(*) from e join unnest(a) as t(i) on true", "2"),
        (
            "select sum(j) from (select k from e where k = 1) s join e on s.k = e.k, unnest(e.b) as t(j)",
            "60.0",
        ),
    ];
    check(&schema, &table);
}

#[test]
fn series_of_numbers_and_times_fill_gaps() {
    let table = [
        ("select * from generate_series(1, 3) order by 1", "1; 2; 3"),
        (
            "select n, n * n from generate_series(3, 1, -1) as g(n) order by n",
            "1|1; 2|4; 3|9",
        ),
        (
            "select count(*), min(r), max(r) from range(0, 100000) as r",
            "100000|0|99999",
        ),
        (
            "select generate_series(1, 0), range(3), generate_series(null, 3)",
            "[]|[0, 1, 2]|NULL",
        ),
        (
            "select t from generate_series(timestamp '2026-01-31', timestamp '2026-04-01', interval '1 month') as g(t) order by t",
            "2026-01-31T00:00:00Z; 2026-02-28T00:00:00Z; 2026-03-28T00:00:00Z",
        ),
        (
            "select d.t, count(e.type) from generate_series(timestamp '2026-01-01', timestamp '2026-01-04', interval '1 day') as d(t) \
             left join events e on date_trunc('day', e.at::timestamp) = d.t group by 1 order by 1",
            "2026-01-01T00:00:00Z|1; 2026-01-02T00:00:00Z|1; 2026-01-03T00:00:00Z|1; 2026-01-04T00:00:00Z|0",
        ),
        (
            "select count(*) from range(timestamp '2026-01-01', timestamp '2026-01-02', interval '15 minutes')",
            "96",
        ),
        (
            "select type, s from events, unnest(generate_series(1, user.id)) as t(s) where ms = 12 order by s",
            "click|1",
        ),
    ];
    check(&test_schema(), &table);
}

#[test]
fn values_are_counted_by_mode_top_k_and_histogram() {
    let schema = TestSchema::with(&[(
        "e",
        &[
            r#"{"g":1,"t":"b","n":1,"m":1}"#,
            r#"{"g":1,"t":"a","n":2.5,"m":1.0}"#,
            r#"{"g":1,"t":"a","n":1,"m":"1"}"#,
            r#"{"g":2,"t":"c","m":true}"#,
            r#"{"g":2,"t":"b","m":null}"#,
            r#"{"g":3}"#,
        ],
    )]);
    let table = [
        ("select mode(t), mode(n) from e", "a|1.0"),
        ("select g, mode(t) from e group by g order by g", "1|a; 2|b; 3|NULL"),
        (
            "select approx_top_k(t, 2), approx_top_k(n, 10) from e",
            "[a, b]|[1.0, 2.5]",
        ),
        ("select approx_top_k(t, 1) from e where g = 3", "NULL"),
        (
            "select histogram(t), histogram(n) from e",
            r#"{"a":2,"b":2,"c":1}|{"1":2,"2.5":1}"#,
        ),
        ("select histogram(m) from e", r#"{"1":3,"true":1}"#),
        ("select mode(m), histogram(t) from e where g = 1", r#"1|{"a":2,"b":1}"#),
        ("select mode(t) filter (where g = 2), count(*) from e", "b|6"),
        (
            "select t, mode(t) over (order by t, g rows between 1 preceding and current row) from e where g = 1 order by t, g",
            "a|a; a|a; b|a",
        ),
    ];
    check(&schema, &table);
}

#[test]
fn parameters_can_be_lists() {
    use serde_json::json;
    let schema = test_schema();
    for (sql, parameters, expected) in [
        (
            "select count(*) from events where type = any($1)",
            json!([["click", "other"]]),
            "2",
        ),
        (
            "select count(*) from events where type in ($1)",
            json!([["click", "view"]]),
            "4",
        ),
        (
            "select count(*) from events where type in ('view', $1)",
            json!([["click"]]),
            "4",
        ),
        (
            "select count(*) from events where type not in ($1)",
            json!([["click"]]),
            "2",
        ),
        (
            "select count(*) from events where type <> all($1)",
            json!([["click", "view"]]),
            "0",
        ),
        ("select count(*) from events where type = any($1)", json!([[]]), "0"),
        ("select count(*) from events where type not in ($1)", json!([[]]), "4"),
        (
            "select count(*) from events where user.id in ($1)",
            json!([[1, -2, 3.0]]),
            "3",
        ),
        ("select unnest($1) order by 1", json!([["b", "a"]]), "a; b"),
        ("select array_length($1)", json!([[true, false]]), "2"),
        (
            "select count(*) from events where at::timestamp >= $1 and type = any($2)",
            json!(["2026-01-02", ["view", "click"]]),
            "2",
        ),
    ] {
        let parameters = parameters.as_array().expect("a list");
        let (_, rows, _) = schema.run(sql, parameters);
        let rows: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(rows.join("; "), expected, "{sql} {parameters:?}");
    }
    let problem = schema
        .resolve("select $1", &[json!([[1]])])
        .expect_err("a list in a list");
    assert!(problem.hint.is_some() && problem.detail.contains("$1"), "{problem}");
}

#[test]
fn length_counts_the_items_of_a_list_and_the_characters_of_a_text() {
    let schema = TestSchema::with(&[
        (
            "e",
            &[
                r#"{"k":1,"a":["x","y"],"o":{"l":[7]},"t":"grün"}"#,
                r#"{"k":2,"a":"four"}"#,
                r#"{"k":3,"a":[]}"#,
                r#"{"k":4,"a":12.5}"#,
                r#"{"k":5,"a":null}"#,
                r#"{"k":6,"a":{"b":1}}"#,
            ],
        ),
        ("p", &[r#"{"items":[{"l":[1,2,3]},{"l":"ab"}]}"#]),
        ("q", &[r#"{"l":[[1,2,3],[4,5]]}"#]),
    ]);
    let table = [
        (
            "select k, length(a), len(a) from e order by k",
            "1|2|2; 2|4|4; 3|0|0; 4|4|4; 5|NULL|NULL; 6|7|7",
        ),
        ("select char_length(a), lengthUTF8(a) from e where k = 1", "9|9"),
        ("select count(*) from e where len(a) = 2", "1"),
        (
            "select length(o.l), length(_doc->'a'), length((a)), length(t) from e where k = 1",
            "1|2|2|4",
        ),
        ("select max(length(a)) from e", "7"),
        ("select length(v.b) from (select a as b from e where k = 1) v", "2"),
        (
            "select length(t.i.l) as n from p, unnest(items) as t(i) order by n",
            "2; 3",
        ),
        ("select length(list(k)), length('abc') from e", "6|3"),
        // Through a subquery, as an item, and computed.
        ("select length(v.b) from (select items[0].l as b from p) v", "3"),
        ("select length(items[0].l) from p", "3"),
        ("select length(i) from q, unnest(l) as t(i) order by 1", "2; 3"),
        (
            "select length(coalesce(a, t)) from e where k in (1, 2) order by k",
            "2; 4",
        ),
        ("select length(_doc) from p", "36"),
    ];
    check(&schema, &table);
}

#[test]
fn items_are_taken_from_the_end_and_by_position() {
    let schema = TestSchema::with(&[
        (
            "e",
            &[
                r#"{"k":1,"a":["x","y","z"],"p":[{"n":1},{"n":2}]}"#,
                r#"{"k":2,"a":"text","p":[]}"#,
            ],
        ),
        ("f", &[r#"{"o":{"l":[7]}}"#]),
    ]);
    let table = [
        (
            "select a[-1], a[-3], a[-4] from e order by k",
            "\"z\"|\"x\"|NULL; NULL|NULL|NULL",
        ),
        ("select p[-1].n, (p)[-2].n from e order by k", "2|1; NULL|NULL"),
        ("select k from e where a[-1] = 'z'", "1"),
        (
            "select e.a[-1], d.p[-1].n from e join e as d on e.k = d.k where e.k = 1",
            "\"z\"|2",
        ),
        (
            "select d.b[-1], d.A[-1] from (select a as b, a from e where k = 1) as d",
            "\"z\"|\"z\"",
        ),
        ("select O.L[-1], o.l[-1] from f", "7|7"),
        (
            "select list_extract(a, 1), array_element(a, k), a[0] from e where k = 1",
            "\"x\"|\"x\"|\"x\"",
        ),
        ("select array_slice(a, 1, 2) from e where k = 1", "[\"x\", \"y\"]"),
        ("select list(k order by k)[-1], list(k order by k)[1] from e", "2|1"),
        ("select [1, 2, 3][2:3]", "[2, 3]"),
    ];
    check(&schema, &table);
}

#[test]
fn a_list_stands_alone_in_from() {
    let schema = test_schema();
    let table = [
        ("select * from unnest(['b', 'a']) t(x) order by x", "a; b"),
        (
            "select x + 1 from unnest(generate_series(1, 3)) as x order by 1",
            "2; 3; 4",
        ),
        (
            "select type, x from events, unnest(array[1, 2]) as t(x) where ms = 12 order by x",
            "click|1; click|2",
        ),
        (
            "select t from generate_series('2015-01-01', '2015-01-03', interval '1 day') as g(t) order by t",
            "2015-01-01T00:00:00Z; 2015-01-02T00:00:00Z; 2015-01-03T00:00:00Z",
        ),
    ];
    check(&schema, &table);
    let (_, rows, _) = schema.run(
        "select x from unnest($1) as t(x) order by x",
        &[serde_json::json!(["b", "a"])],
    );
    assert_eq!(rows, [["a"], ["b"]]);
}
