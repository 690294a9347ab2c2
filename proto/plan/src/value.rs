//! Value: what a view shows of one JSON value. The reference: an index, a stored column or a function over JSON text is
//! right where it says the same. Shared by: leaf (columns of documents), aggregator (JSON that a query has computed).
//!
//! - strict views take values of their own kind only (a double takes an int too); any other value is a misfit: NULL,
//!   and counted
//! - casts convert what can be converted; text is trimmed and must be the type as a whole
//! - `null` and a missing value are NULL and no misfit

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use proto::json::Value;

use crate::{
    column::{Type, View},
    kinds::Kinds,
    path::{Path, Step},
};

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each holds the value of its type")]
pub enum Scalar<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    /// Also JSON text.
    Text(Cow<'a, str>),
    /// Microseconds since 1970.
    Time(i64),
}

/// What a view sees of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<'a> {
    /// There is none, or `null`.
    Absent,
    /// There is one that does not fit.
    Misfit,
    /// It fits.
    Fits(Scalar<'a>),
}

/// The value at a path; indexes count from 0.
pub fn at<'a, 'v>(root: &'a Value<'v>, path: &Path) -> Option<&'a Value<'v>> {
    path.steps().iter().try_fold(root, |value, step| match (step, value) {
        (Step::Key(key), Value::Object(_)) => value.get(key),
        (Step::Index(index), Value::Array(items)) => items.get(*index as usize),
        _ => None,
    })
}

/// A value seen through a view. `verbatim` gives the value's text in the document; it is asked only where the view
/// shows it.
pub fn view<'a>(value: &'a Value<'_>, verbatim: impl FnOnce() -> Option<&'a str>, view: View) -> Seen<'a> {
    if *value == Value::Null {
        return Seen::Absent;
    }
    let scalar = match (view.to, view.cast) {
        (Type::Json, _) => verbatim().map(|text| Scalar::Text(Cow::Borrowed(text))),
        (Type::Canonical, _) => Some(Scalar::Text(Cow::Owned(canonical(value)))),
        (Type::Rank, _) => Some(Scalar::Text(Cow::Owned(rank(value)))),
        (Type::Text, false) => text_of(value),
        (Type::Text, true) => text_of(value).or_else(|| verbatim().map(|text| Scalar::Text(Cow::Borrowed(text)))),
        (Type::Bool, cast) => bool_of(value, cast).map(Scalar::Bool),
        (Type::Int, cast) => int_of(value, cast).map(Scalar::Int),
        (Type::Double, cast) => double_of(value, cast).map(Scalar::Double),
        (Type::Time, cast) => time_of(value, cast).map(Scalar::Time),
    };
    scalar.map_or(Seen::Misfit, Seen::Fits)
}

fn text_of<'a>(value: &'a Value<'_>) -> Option<Scalar<'a>> {
    match value {
        Value::Text(text) => Some(Scalar::Text(Cow::Borrowed(text))),
        _ => None,
    }
}

/// Casts: the words PostgreSQL takes, and an int that is or is not 0.
fn bool_of(value: &Value<'_>, cast: bool) -> Option<bool> {
    match value {
        Value::Bool(bool) => Some(*bool),
        Value::Int(int) if cast => Some(*int != 0),
        Value::Text(text) if cast => bool_of_text(text),
        _ => None,
    }
}

/// A cast of text to a boolean.
pub fn bool_of_text(text: &str) -> Option<bool> {
    const TRUE: [&str; 6] = ["true", "t", "yes", "y", "on", "1"];
    const FALSE: [&str; 6] = ["false", "f", "no", "n", "off", "0"];
    let text = text.trim();
    let is_one_of = |words: [&str; 6]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_one_of(TRUE) {
        Some(true)
    } else {
        is_one_of(FALSE).then_some(false)
    }
}

/// Casts: a double is rounded, halves to the even neighbour, as PostgreSQL does.
fn int_of(value: &Value<'_>, cast: bool) -> Option<i64> {
    match value {
        Value::Int(int) => Some(*int),
        Value::Float(float) if cast => int_of_double(*float),
        Value::Bool(bool) if cast => Some(i64::from(*bool)),
        Value::Text(text) if cast => int_of_text(text),
        _ => None,
    }
}

/// A cast of a double to an int: rounded, halves to even; None beyond int64.
pub fn int_of_double(float: f64) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0; // 2^63: the first double above int64
    let rounded = float.round_ties_even();
    (-BEYOND..BEYOND).contains(&rounded).then_some(rounded as i64)
}

/// A cast of text to an int.
pub fn int_of_text(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

fn double_of(value: &Value<'_>, cast: bool) -> Option<f64> {
    match value {
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        Value::Bool(bool) if cast => Some(f64::from(u8::from(*bool))),
        Value::Text(text) if cast => double_of_text(text),
        _ => None,
    }
}

/// A cast of text to a double: finite, or none.
pub fn double_of_text(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|float: &f64| float.is_finite())
}

/// A point in time in microseconds since 1970. Casts: a number, too.
pub fn time_of(value: &Value<'_>, cast: bool) -> Option<i64> {
    match value {
        Value::Text(text) => time_of_text(text),
        Value::Int(int) if cast => time_of_int(*int),
        Value::Float(float) if cast => time_of_double(*float),
        _ => None,
    }
}

/// The one reader of times, in microseconds since 1970; finer digits are cut. RFC 3339, or a date with or without a
/// time of day and a zone, apart by a blank or a `T`; UTC where no zone is said. Shared by: documents, literals, casts
/// and searches.
pub fn time_of_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let plausible =
        text.len() >= "2000-01-01".len() && text.as_bytes()[0].is_ascii_digit() && text.as_bytes()[4] == b'-';
    if !plausible {
        return None;
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros());
    }
    let zoned = [
        "%Y-%m-%d %H:%M:%S%.f%#z",
        "%Y-%m-%dT%H:%M:%S%.f%#z",
        "%Y-%m-%d %H:%M%#z",
        "%Y-%m-%dT%H:%M%#z",
    ];
    let zoned = zoned
        .into_iter()
        .find_map(|format| DateTime::parse_from_str(text, format).ok())
        .map(|time| time.timestamp_micros());
    let in_utc = || {
        let text = text.trim_end_matches(['Z', 'z']).trim_end();
        let formats = [
            "%Y-%m-%d %H:%M:%S%.f",
            "%Y-%m-%dT%H:%M:%S%.f",
            "%Y-%m-%d %H:%M",
            "%Y-%m-%dT%H:%M",
        ];
        formats
            .into_iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .map(|time| time.and_utc().timestamp_micros())
    };
    zoned.or_else(in_utc)
}

/// Below each limit a number since 1970 counts seconds, milliseconds, microseconds; above all, nanoseconds. In seconds
/// the first is the year 5138.
const SECONDS_MAX: u64 = 100_000_000_000;
const MILLISECONDS_MAX: u64 = SECONDS_MAX * 1_000;
const MICROSECONDS_MAX: u64 = MILLISECONDS_MAX * 1_000;

/// A cast of an int to a time in microseconds: its size says in which unit it counts.
pub fn time_of_int(int: i64) -> Option<i64> {
    match int.unsigned_abs() {
        size if size < SECONDS_MAX => int.checked_mul(1_000_000),
        size if size < MILLISECONDS_MAX => int.checked_mul(1_000),
        size if size < MICROSECONDS_MAX => Some(int),
        _ => Some(int.div_euclid(1_000)),
    }
}

/// A cast of a double to a time in microseconds: as an int, with its fraction; none beyond int64.
pub fn time_of_double(float: f64) -> Option<i64> {
    let factor = match float.abs() {
        size if size < SECONDS_MAX as f64 => 1e6,
        size if size < MILLISECONDS_MAX as f64 => 1e3,
        size if size < MICROSECONDS_MAX as f64 => 1.0,
        _ => 1e-3,
    };
    int_of_double((float * factor).floor())
}

const BEYOND_INT: f64 = 9_223_372_036_854_775_808.0; // 2^63: the first double above int64

/// The canonical JSON text of a value: no blanks, keys in order, one spelling of each text and of each number. Two
/// values are equal exactly where these are: `1` and `1.0`, `"a/b"` and `"a\/b"`, `{"a":1}` and `{ "a": 1 }`.
pub fn canonical(value: &Value<'_>) -> String {
    let mut text = String::new();
    write_canonical(&mut text, value);
    text
}

fn write_canonical(out: &mut String, value: &Value<'_>) {
    use std::fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Null => write!(out, "null"),
        Value::Bool(bool) => write!(out, "{bool}"),
        Value::Int(int) => write!(out, "{int}"),
        Value::Float(float) => write!(out, "{}", canonical_double(*float)),
        Value::Big(digits) => write!(out, "{digits}"),
        Value::Text(text) => write!(out, "{}", serde_json::Value::from(text.as_ref())),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_canonical(out, item);
            }
            write!(out, "]")
        }
        Value::Object(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            out.push('{');
            for (place, (key, value)) in sorted.into_iter().enumerate() {
                let comma = if place > 0 { "," } else { "" };
                let _ = write!(out, "{comma}{}:", serde_json::Value::from(key.as_ref()));
                write_canonical(out, value);
            }
            write!(out, "}}")
        }
    };
}

/// The canonical text of a number: an integer where it is one within int64, else the shortest that reads back.
pub fn canonical_double(double: f64) -> String {
    match double {
        double if double.fract() == 0.0 && (-BEYOND_INT..BEYOND_INT).contains(&double) => (double as i64).to_string(),
        double => serde_json::Value::from(double).to_string(),
    }
}

/// A text whose bytes compare as ORDER BY does: numbers by their exact value, then texts by their bytes, then the rest
/// by its canonical text.
pub fn rank(value: &Value<'_>) -> String {
    let number = |double: f64, remainder: i16| {
        let bits = (double + 0.0).to_bits();
        let ordered = if bits >> 63 == 0 { bits ^ (1 << 63) } else { !bits };
        format!("1{ordered:016x}{:04x}", i32::from(remainder) + 0x8000)
    };
    match value {
        // What the nearest double leaves over tells wide integers apart; it is below 2^10.
        Value::Int(int) => number(*int as f64, (i128::from(*int) - (*int as f64) as i128) as i16),
        Value::Float(float) => number(*float, 0),
        Value::Big(digits) => number(
            if digits.starts_with('-') {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            },
            0,
        ),
        Value::Text(text) => format!("2{text}"),
        other => format!("3{}", canonical(other)),
    }
}

/// How two values of one kind compare; None between kinds, and of what has no order.
pub fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<std::cmp::Ordering> {
    let is_number = |value: &Value<'_>| Kinds::of(value).any(Kinds::NUMBER);
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) if is_number(a) && is_number(b) => Some(rank(a).cmp(&rank(b))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a view shows of a JSON text, in words.
    fn seen(json: &str, to: Type, cast: bool) -> String {
        let value = proto::json::parse(json.as_bytes()).expect("JSON");
        match view(&value, || Some(json), View { to, cast }) {
            Seen::Absent => "absent".into(),
            Seen::Misfit => "misfit".into(),
            Seen::Fits(scalar) => match scalar {
                Scalar::Bool(bool) => bool.to_string(),
                Scalar::Int(int) => int.to_string(),
                Scalar::Double(double) => format!("{double:?}"),
                Scalar::Text(text) => format!("'{text}'"),
                Scalar::Time(us) => format!("{us}us"),
            },
        }
    }

    #[test]
    fn a_strict_view_takes_its_own_kind_and_nothing_else() {
        let values = [
            "null",
            "true",
            "12",
            "1.50",
            "1e999",
            r#""12""#,
            r#""2024-01-02T03:04:05.6Z""#,
            "{\"a\":1}",
            "[1]",
        ];
        let table = [
            (
                Type::Bool,
                [
                    "absent", "true", "misfit", "misfit", "misfit", "misfit", "misfit", "misfit", "misfit",
                ],
            ),
            (
                Type::Int,
                [
                    "absent", "misfit", "12", "misfit", "misfit", "misfit", "misfit", "misfit", "misfit",
                ],
            ),
            (
                Type::Double,
                [
                    "absent", "misfit", "12.0", "1.5", "misfit", "misfit", "misfit", "misfit", "misfit",
                ],
            ),
            (
                Type::Text,
                [
                    "absent",
                    "misfit",
                    "misfit",
                    "misfit",
                    "misfit",
                    "'12'",
                    "'2024-01-02T03:04:05.6Z'",
                    "misfit",
                    "misfit",
                ],
            ),
            (
                Type::Time,
                [
                    "absent",
                    "misfit",
                    "misfit",
                    "misfit",
                    "misfit",
                    "misfit",
                    "1704164645600000us",
                    "misfit",
                    "misfit",
                ],
            ),
            (
                Type::Json,
                [
                    "absent",
                    "'true'",
                    "'12'",
                    "'1.50'",
                    "'1e999'",
                    "'\"12\"'",
                    "'\"2024-01-02T03:04:05.6Z\"'",
                    "'{\"a\":1}'",
                    "'[1]'",
                ],
            ),
        ];
        for (to, expected) in table {
            let got: Vec<String> = values.iter().map(|json| seen(json, to, false)).collect();
            assert_eq!(got, expected, "strict views as {to:?} of {values:?}");
        }
    }

    #[test]
    fn a_cast_converts_what_can_be_converted() {
        let cases = [
            (Type::Int, r#"" -12 ""#, "-12"),
            (Type::Int, r#""12x""#, "misfit"),
            (Type::Int, r#""1.7""#, "misfit"),
            (Type::Int, "1.7", "2"),
            (Type::Int, "2.5", "2"),
            (Type::Int, "1e30", "misfit"),
            (Type::Int, "true", "1"),
            (Type::Int, "[1]", "misfit"),
            (Type::Int, "null", "absent"),
            (Type::Double, r#"" 1.5e3""#, "1500.0"),
            (Type::Double, r#""NaN""#, "misfit"),
            (Type::Double, r#""""#, "misfit"),
            (Type::Bool, r#""TRUE""#, "true"),
            (Type::Bool, r#""off""#, "false"),
            (Type::Bool, "0", "false"),
            (Type::Bool, "0.5", "misfit"),
            (Type::Text, "1.50", "'1.50'"),
            (Type::Text, r#""1.50""#, "'1.50'"),
            (Type::Text, r#"{"a": [1,  2]}"#, r#"'{"a": [1,  2]}'"#),
            (Type::Text, "true", "'true'"),
            (Type::Time, r#""2024-01-02""#, "1704153600000000us"),
            (Type::Time, r#""2024-01-02 03:04:05.678""#, "1704164645678000us"),
            (Type::Time, r#""2024-01-02T03:04:05+01:00""#, "1704161045000000us"),
            (Type::Time, r#""yesterday""#, "misfit"),
            (Type::Time, "1704164645", "1704164645000000us"),
            (Type::Time, "1704164645.25", "1704164645250000us"),
            (Type::Time, "1704164645678", "1704164645678000us"),
            (Type::Time, "1704164645678901", "1704164645678901us"),
            (Type::Time, "1704164645678901999", "1704164645678901us"),
            (Type::Time, "-1", "-1000000us"),
        ];
        for (to, json, expected) in cases {
            assert_eq!(seen(json, to, true), expected, "{json} cast to {to:?}");
        }
    }
}
