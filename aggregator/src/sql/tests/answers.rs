//! Questions and their answers, through the planner and its operators, over documents whose columns are computed by definition.

use super::world::Small;

/// Requests: the same path as number and text, a list, nested keys, keys that need quotes.
fn world() -> Small {
    Small::with(&[
        (
            "events",
            &[
                r#"{"type":"click","ms":12,"user":{"name":"ann","id":1},"ok":true,"items":[{"sku":"a","n":1},{"sku":"b"}],"at":"2026-01-01T00:00:00Z"}"#,
                r#"{"type":"click","ms":"slow","user":{"name":"bob","id":2},"ok":false,"odd key":{"x":7},"at":"2026-01-02T00:00:00Z"}"#,
                r#"{"type":"view","ms":30,"user":{"name":"ann","id":1},"price":2.5,"code":"200","at":"2026-01-03T00:00:00Z"}"#,
                r#"{"type":"view","ms":null,"user":{"id":3},"price":4,"code":"404"}"#,
            ],
        ),
        ("users", &[r#"{"id":1,"city":"Ulm"}"#, r#"{"id":2,"city":"Bonn"}"#, r#"{"id":9,"city":"Kiel"}"#]),
    ])
}

#[test]
fn questions_about_one_collection_are_answered() {
    let world = world();
    let table = [
        ("select count(*) from events", "4"),
        ("select type, count(*) from events group by type order by type", "click|2; view|2"),
        ("select type, count(*) n from events group by 1 order by n desc, 1", "click|2; view|2"),
        ("select user.name from events where user.name is not null order by user.name", "ann; ann; bob"),
        ("select sum(ms) from events", "42"),
        ("select sum(ms), avg(ms), min(ms), max(ms), count(ms) from events", "42|21.0|12|30|3"),
        ("select ms from events order by ms", "12; 30; \"slow\"; NULL"),
        ("select ms from events order by ms desc limit 2", "NULL; \"slow\""),
        ("select ms from events where ms > 12", "30"),
        ("select ms from events where ms = 'slow'", "\"slow\""),
        ("select ms from events where ms in (30, 'slow') order by _offset", "\"slow\"; 30"),
        ("select count(*) from events where ms is null", "1"),
        ("select items[0].sku, items[1].sku from events where items is not null", "\"a\"|\"b\""),
        ("select _doc->'user'->>'name' from events order by _offset", "ann; bob; ann; NULL"),
        ("select \"odd key\".x from events where \"odd key\".x = 7", "7"),
        ("select USER.NAME from events where Type = 'click' order by 1", "ann; bob"),
        ("select price / 2 from events where price is not null order by 1", "1.25; 2.0"),
        ("select price / 0, ms % 0 from events where type = 'view' order by _offset", "NULL|NULL; NULL|NULL"),
        ("select user.id / 2 from events order by _offset", "0; 1; 0; 1"),
        ("select code::int + 1 from events where code is not null order by 1", "201; 405"),
        ("select (_doc->>'price')::double from events order by _offset", "NULL; NULL; 2.5; 4.0"),
        ("select count(*) from events where ok", "1"),
        ("select count(*) from events where not ok or type like 'v%'", "3"),
        ("select upper(type), length(user.name) from events order by _offset limit 1", "CLICK|3"),
        ("select distinct type from events order by type", "click; view"),
        ("select case when ms > 20 then 'slow' else 'fast' end, count(*) from events group by 1 order by 1", "fast|3; slow|1"),
        ("select type from events group by type having count(*) > 1 and max(ms) > 12", "view"),
        ("select count(*) from events where at >= '2026-01-02'", "2"),
        ("select count(*) from events where at::timestamp >= timestamp '2026-01-02 00:00'", "2"),
        ("select count(*) from events where _time >= '2023-11-14T22:14:20Z'", "3"),
        ("select count(*) from events where _time > now() - interval '1 hour'", "0"),
        ("select date_trunc('hour', _time), count(*) from events group by 1", "2023-11-14T22:00:00Z|4"),
        ("select extract(year from at::timestamp) from events where at is not null limit 1", "2026"),
        ("select coalesce(user.name, 'nobody') from events order by _offset", "ann; bob; ann; nobody"),
        ("select type || ':' || user.id from events order by _offset limit 1", "click:1"),
        ("select count(*) filter (where type = 'view'), count(distinct user.id) from events", "2|3"),
        ("select type, row_number() over (partition by type order by _offset) from events order by _offset", "click|1; click|2; view|1; view|2"),
        ("select max(x) from (select ms as x from events) t", "30"),
        ("select nothing from events limit 1", "NULL"),
        ("select count(*) from events where nothing = 3", "0"),
        ("select count(*) from events where search('ann')", "2"),
        ("select count(*) from events where search('user.name:ann AND ms:>20') or search('items.sku:b')", "2"),
        ("select e.user.name from events e where e.type = 'click' order by 1 desc", "bob; ann"),
        ("select events.type from events limit 1", "click"),
        ("select unnest(items) from events", "{\"sku\":\"a\",\"n\":1}; {\"sku\":\"b\"}"),
        ("values (1, 'a'), (2, 'b')", "1|a; 2|b"),
        ("select 1 + 1, 'a'", "2|a"),
    ];
    for (sql, expected) in table {
        assert_eq!(world.answer(sql), expected, "{sql}\n{}", world.text(sql));
    }
}
