//! Numbers of JSON, compared by value.

use std::cmp::Ordering;

use proto::json::Value;

/// A number within int64 or double, compared exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "each holds the value of its type")]
pub enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    /// Parses a text that is a JSON number.
    pub fn of_text(text: &str) -> Option<Self> {
        match text.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => Self::of(&proto::json::parse(text.as_bytes()).ok()?),
            _ => None,
        }
    }

    pub(super) fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Int(int) => Some(Self::Int(*int)),
            Value::Float(float) => Some(Self::Double(*float)),
            _ => None,
        }
    }

    /// Compares by value: an int and a double are compared without rounding either.
    pub fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Int(a), Self::Double(b)) => compare_int_double(a, b),
            (Self::Double(a), Self::Int(b)) => compare_int_double(b, a).reverse(),
        }
    }
}

fn compare_int_double(int: i64, double: f64) -> Ordering {
    const INT64_END: f64 = 9_223_372_036_854_775_808.0; // 2^63
    match double {
        double if double >= INT64_END => Ordering::Less,
        double if double < -INT64_END => Ordering::Greater,
        double => int
            .cmp(&(double.trunc() as i64))
            .then_with(|| 0.0.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)),
    }
}
