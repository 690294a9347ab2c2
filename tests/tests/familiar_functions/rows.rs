//! Rows of generated values: NULLs, empty and Unicode texts, huge and negative integers, times before 1970, leap days,
//! ends of months and weeks over a new year.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

/// A document, and the same row in the table of each home.
pub(crate) type GeneratedRow = Map<String, Value>;

/// The columns: a key and a group, a boolean, integers (any, small, positive), a double, texts (any, short, of numbers,
/// of times), two times, seconds since 1970, JSON, and lists of integers and texts.
pub(crate) const COLUMNS: [&str; 17] = [
    "k", "g", "b", "i", "j", "u", "d", "s", "x", "n", "h", "t", "w", "e", "m", "l", "p",
];

const ROWS: usize = 48;
const GROUPS: usize = 7;

const INTEGERS: [i64; 12] = [
    0,
    1,
    -1,
    7,
    255,
    256,
    -129,
    65_536,
    4_294_967_297,
    9_007_199_254_740_993,
    -9_007_199_254_740_993,
    9_223_372_036_854_775_806,
];
const DOUBLES: [f64; 10] = [0.0, 0.5, -0.5, 1.999, -1.999, 3.7, -3.7, 122.25, 123_456.789, 1e18];
const TEXTS: [&str; 14] = [
    "",
    "a",
    "b",
    "ab",
    "abc",
    "a\nb",
    "ABC",
    "aéb",
    "日本b",
    "😀b😀",
    "a,b,,c",
    " b ",
    "ÀÉ",
    "31/1/15",
];
const SHORT: [&str; 6] = ["a", "b", "é", ",", "ab", "😀"];
const NUMBERS: [&str; 12] = [
    "1",
    "-1",
    "+12",
    "3.7",
    "abc",
    "1e3",
    "007",
    "300",
    "x1",
    "-0",
    "2147483648",
    "1 2",
];
const CLOCKS: [&str; 7] = [
    "2015-01-31 10:11:12",
    "2000-02-29 00:00:00",
    "1999-12-31 23:59:59",
    "2026-11-24 12:00:00",
    "not a time",
    "2015-02-31 00:00:00",
    "2038-01-19 03:14:08",
];
const TIMES: [&str; 16] = [
    "1970-01-01 00:00:00",
    "1969-12-31 23:59:59.999500",
    "1968-02-29 12:34:56.789012",
    "1901-01-01 00:00:01",
    "2000-02-29 23:59:59",
    "2000-01-01 00:00:00",
    "1999-12-31 23:59:59.000001",
    "2015-12-31 10:00:00",
    "2016-01-03 10:00:00",
    "2016-12-31 00:00:00",
    "2021-01-01 12:00:00",
    "2024-02-29 13:14:15.500000",
    "2026-05-31 00:00:00",
    "2026-05-06 10:11:12",
    "2100-02-28 23:00:00",
    "2200-06-15 15:16:17",
];

/// Rows with these values, and with random ones.
pub(crate) fn generate(random: &mut StdRng) -> Vec<GeneratedRow> {
    (0..ROWS).map(|number| row(number, random)).collect()
}

fn row(number: usize, random: &mut StdRng) -> GeneratedRow {
    let i: Value = match random.random_range(0..4) {
        0 => random.random_range(-1_000_000_000_000_i64..1_000_000_000_000).into(),
        _ => INTEGERS[(number + random.random_range(0..3)) % INTEGERS.len()].into(),
    };
    let d: Value = match random.random_range(0..3) {
        0 => (f64::from(random.random_range(-1_000_000..1_000_000)) / 64.0).into(),
        _ => DOUBLES[(number + random.random_range(0..2)) % DOUBLES.len()].into(),
    };
    let s: Value = match random.random_range(0..4) {
        0 => (0..random.random_range(1..6))
            .map(|_| *['a', 'b', 'c', 'é', '\n', '😀'].choose(random).unwrap_or(&'a'))
            .collect::<String>()
            .into(),
        _ => TEXTS[number % TEXTS.len()].into(),
    };
    let (t, w) = (time(number, random), time(number * 5 + 3, random));
    let list = |length: usize, random: &mut StdRng| -> Vec<Value> {
        (0..length).map(|_| random.random_range(-3..12).into()).collect()
    };
    let length = random.random_range(0..4);
    let l = list(length, random);
    let p: Vec<&str> = (0..random.random_range(0..4))
        .map(|_| *SHORT.choose(random).unwrap_or(&"a"))
        .collect();
    let mut row = GeneratedRow::new();
    let values = json!({
        "k": number, "g": number % GROUPS, "b": random.random_bool(0.5), "i": i, "j": random.random_range(-6..8),
        "u": random.random_range(1..20), "d": d, "s": s, "x": SHORT[random.random_range(0..SHORT.len())],
        "n": NUMBERS[number % NUMBERS.len()], "h": CLOCKS[number % CLOCKS.len()], "t": t, "w": w,
        "e": random.random_range(70_000_i64..4_000_000_000), "m": document(number, random), "l": l, "p": p,
    });
    for column in COLUMNS {
        // Never NULL: keys, and what some homes have no NULL of. A whole group has only NULLs.
        let is_present = matches!(column, "k" | "g" | "l" | "p" | "u" | "e" | "t" | "w");
        let is_null = !is_present && (number.is_multiple_of(GROUPS) || random.random_bool(0.1));
        row.insert(
            column.to_owned(),
            if is_null { Value::Null } else { values[column].clone() },
        );
    }
    // Without its documents this would be no row with all values NULL.
    if number == 1 {
        row["t"] = Value::from(TIMES[1]);
    }
    row
}

fn time(number: usize, random: &mut StdRng) -> String {
    if number.is_multiple_of(3) {
        let day = random.random_range(1..29);
        let (year, month) = (random.random_range(1_905..2_240), random.random_range(1..13));
        let (hour, minute, second) = (
            random.random_range(0..24),
            random.random_range(0..60),
            random.random_range(0..60),
        );
        return format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    }
    TIMES[number % TIMES.len()].to_owned()
}

/// A document of any shape.
fn document(number: usize, random: &mut StdRng) -> Value {
    match number % 12 {
        0 => json!({ "a": 1, "b": [1, 2, [1]], "c": { "d": true } }),
        1 => json!({ "a": "1", "b": [] }),
        2 => json!({ "a": "x", "b": ["1", 1], "c": { "d": null } }),
        3 => json!({ "a": null, "c": {} }),
        4 => json!([1, "1", null]),
        5 => json!(["a", [1]]),
        6 => json!({ "a": 2.5, "b": [2], "c": { "d": "é" } }),
        7 => json!({ "a": true, "b": { "a": 1 } }),
        8 => json!({ "a": [1], "1": 2 }),
        9 => json!({ "a": { "x": 1 }, "c": { "d": random.random_range(-5..5) } }),
        10 => json!({}),
        _ => json!({ "a": random.random_range(-3..3), "b": [1], "c": 5 }),
    }
}

/// A value as a literal of a statement.
pub(crate) fn literal(column: &str, value: &Value) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match (column, value) {
        ("t" | "w", Value::Null) => "NULL::timestamp".to_owned(),
        (_, Value::Null) => "NULL".to_owned(),
        ("t" | "w", Value::String(time)) => format!("timestamp {}", quoted(time)),
        ("m", document) => format!("{}::jsonb", quoted(&document.to_string())),
        (_, Value::String(text)) => quoted(text),
        (_, Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| literal("", item)).collect();
            format!("[{}]", items.join(", "))
        }
        (_, number) => match number.as_f64().is_some_and(|number| number < 0.0) {
            true => format!("({number})"),
            false => number.to_string(),
        },
    }
}
