//! Reads one JSON value as the type of a column. This is the reference: an index, a stored column or a function over
//! JSON text is correct if it returns the same. Shared by: leaf (columns of documents), aggregator (JSON computed by a
//! query).
//!
//! - A strict read accepts values of its own kind only (a double also accepts an int).
//! - A cast converts what can be converted. Text is trimmed, and all of it must parse as the type.
//! - A value that a strict read or a cast does not accept is a cast failure: it is NULL, and counted.
//! - `null` and a missing value are NULL, and no cast failures.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use proto::json::Value;

use crate::{
    column::{PathType, Type},
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
    /// A string, or JSON text.
    Text(Cow<'a, str>),
    /// A SQL TIMESTAMP: microseconds since 1970.
    Time(i64),
}

/// The outcome of reading a JSON value as a type.
#[derive(Debug, Clone, PartialEq)]
pub enum CastResult<'a> {
    /// The value is missing or `null`.
    Absent,
    /// The value does not fit the type: a cast failure.
    Failed,
    /// The value, in this type.
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

/// Reads a value as a type. `verbatim` returns the value's text in the document; it is called only if the type needs
/// that text.
pub fn read_value<'a>(
    value: &'a Value<'_>,
    verbatim: impl FnOnce() -> Option<&'a str>,
    read_as: PathType,
) -> CastResult<'a> {
    if *value == Value::Null {
        return CastResult::Absent;
    }
    let scalar = match (read_as.to, read_as.cast) {
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
    scalar.map_or(CastResult::Failed, CastResult::Fits)
}

fn text_of<'a>(value: &'a Value<'_>) -> Option<Scalar<'a>> {
    match value {
        Value::Text(text) => Some(Scalar::Text(Cow::Borrowed(text))),
        _ => None,
    }
}

/// A cast accepts the words that PostgreSQL accepts; an int is true unless it is 0.
fn bool_of(value: &Value<'_>, cast: bool) -> Option<bool> {
    match value {
        Value::Bool(bool) => Some(*bool),
        Value::Int(int) if cast => Some(*int != 0),
        Value::Text(text) if cast => bool_of_text(text),
        _ => None,
    }
}

/// Casts text to a boolean.
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

/// A cast rounds a double, halves to even, as PostgreSQL does.
fn int_of(value: &Value<'_>, cast: bool) -> Option<i64> {
    match value {
        Value::Int(int) => Some(*int),
        Value::Float(float) if cast => int_of_double(*float),
        Value::Bool(bool) if cast => Some(i64::from(*bool)),
        Value::Text(text) if cast => int_of_text(text),
        _ => None,
    }
}

/// Casts a double to an int: rounds halves to even; None outside int64.
pub fn int_of_double(float: f64) -> Option<i64> {
    let rounded = float.round_ties_even();
    (-INT64_END..INT64_END).contains(&rounded).then_some(rounded as i64)
}

/// Casts text to an int.
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

/// Casts text to a double; None unless it is finite.
pub fn double_of_text(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|float: &f64| float.is_finite())
}

/// A point in time in microseconds since 1970. A cast also accepts a number.
pub fn time_of(value: &Value<'_>, cast: bool) -> Option<i64> {
    match value {
        Value::Text(text) => time_of_text(text),
        Value::Int(int) if cast => time_of_int(*int),
        Value::Float(float) if cast => time_of_double(*float),
        _ => None,
    }
}

/// Parses a time into microseconds since 1970, truncating finer digits. Accepts RFC 3339, or a date with an optional
/// time of day (after a blank or a `T`) and an optional zone; without a zone it is UTC.
///
/// Documents, literals, casts to TIMESTAMP or DATE, `to_timestamp(x)`, `to_date(x)` and searches share this parser.
/// Only functions with a format and `to_timestamp_seconds` and its relatives parse text with DataFusion's.
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

/// The magnitude of a number decides its unit since 1970: below each limit seconds, milliseconds or microseconds, above
/// all of them nanoseconds. The first limit, in seconds, is the year 5138.
const SECONDS_MAX: u64 = 100_000_000_000;
const MILLISECONDS_MAX: u64 = SECONDS_MAX * 1_000;
const MICROSECONDS_MAX: u64 = MILLISECONDS_MAX * 1_000;

/// Casts an int to a time in microseconds; its magnitude decides the unit.
pub fn time_of_int(int: i64) -> Option<i64> {
    match int.unsigned_abs() {
        size if size < SECONDS_MAX => int.checked_mul(1_000_000),
        size if size < MILLISECONDS_MAX => int.checked_mul(1_000),
        size if size < MICROSECONDS_MAX => Some(int),
        _ => Some(int.div_euclid(1_000)),
    }
}

/// Casts a double to a time in microseconds, as for an int but with its fraction; None outside int64.
pub fn time_of_double(float: f64) -> Option<i64> {
    let factor = match float.abs() {
        size if size < SECONDS_MAX as f64 => 1e6,
        size if size < MILLISECONDS_MAX as f64 => 1e3,
        size if size < MICROSECONDS_MAX as f64 => 1.0,
        _ => 1e-3,
    };
    int_of_double((float * factor).floor())
}

/// 2^63: the first double above int64.
const INT64_END: f64 = 9_223_372_036_854_775_808.0;

/// The canonical JSON text of a value: no blanks, sorted keys, one spelling for each text and each number. Two values
/// are equal exactly if their canonical texts are: `1` and `1.0`, `"a/b"` and `"a\/b"`, `{"a":1}` and `{ "a": 1 }`.
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

/// The canonical text of a number: an integer if it is one within int64, otherwise the shortest text that parses back
/// to the same double.
pub fn canonical_double(double: f64) -> String {
    match int_within(double) {
        Some(int) => int.to_string(),
        None => serde_json::Value::from(double).to_string(),
    }
}

/// The integer within int64 that a double is, if it is one.
fn int_within(double: f64) -> Option<i64> {
    // From 2^63 on, this is the greatest integer, which is no double.
    let int = double as i64;
    (int as f64 == double && int != i64::MAX).then_some(int)
}

/// A computed double as a value of a document: what its canonical text is parsed to. None unless it is finite.
pub fn number(double: f64) -> Option<Value<'static>> {
    double
        .is_finite()
        .then(|| int_within(double).map_or(Value::Float(double), Value::Int))
}

/// A sort key whose bytes compare as ORDER BY does: numbers first, by exact value, then texts by their bytes, then
/// everything else by its canonical text.
pub fn rank(value: &Value<'_>) -> String {
    let number = |double: f64, remainder: i16| {
        let bits = (double + 0.0).to_bits();
        let ordered = if bits >> 63 == 0 { bits ^ (1 << 63) } else { !bits };
        format!("1{ordered:016x}{:04x}", i32::from(remainder) + 0x8000)
    };
    match value {
        // The difference from the nearest double, which is below 2^10, distinguishes wide integers.
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

/// Compares two values of one kind; None for different kinds and for kinds without an order.
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
mod tests;
