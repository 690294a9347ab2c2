//! Matcher: evaluates a search clause on a document's values, the reference for what an index must find. Shared by:
//! leaf (documents), aggregator (fields).

use std::{borrow::Cow, cmp::Ordering};

use proto::json::Value;

use crate::{
    path::{Path, Step},
    search::{Clause, Match, RangeBound},
    token,
};

/// A clause prepared for evaluation on many documents.
#[derive(Debug, Clone)]
pub struct Matcher {
    path: Option<Path>,
    test: ClauseTest,
}

/// The test that a clause applies to a value.
#[derive(Debug, Clone)]
enum ClauseTest {
    Words {
        tokens: Vec<String>,
        number: Option<Number>,
        boolean: Option<bool>,
    },
    Prefix(String),
    Numbers(Vec<(Number, Bound)>),
    Strings(Vec<(String, Bound)>),
    Exists,
}

/// The side of a bound on which a value must lie.
#[derive(Debug, Clone, Copy)]
struct Bound {
    above: bool,
    inclusive: bool,
}

impl Bound {
    fn admits(self, value_to_bound: Ordering) -> bool {
        match value_to_bound {
            Ordering::Equal => self.inclusive,
            Ordering::Greater => self.above,
            Ordering::Less => !self.above,
        }
    }
}

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

    fn of(value: &Value<'_>) -> Option<Self> {
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

impl Matcher {
    /// Prepares a clause.
    pub fn new(clause: &Clause) -> Self {
        Self {
            path: clause.path.clone(),
            test: clause_test(&clause.matches),
        }
    }

    /// Whether a document's values match.
    pub fn matches(&self, root: &Value<'_>) -> bool {
        match (&self.path, &self.test) {
            (None, ClauseTest::Exists) => *root != Value::Null,
            (None, test) => anywhere(root, test),
            (Some(path), test) => at_path(root, path.steps(), test),
        }
    }
}

fn clause_test(matches: &Match) -> ClauseTest {
    match matches {
        Match::Exists | Match::Range { from: None, to: None } => ClauseTest::Exists,
        Match::Prefix(prefix) => ClauseTest::Prefix(token::lower(prefix).into_owned()),
        Match::Words(text) => ClauseTest::Words {
            tokens: token::tokens(text).map(Cow::into_owned).collect(),
            number: Number::of_text(text.trim()),
            boolean: match text.trim() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
        },
        Match::Range { from, to } => {
            let bound = |above| {
                move |limit: &RangeBound| {
                    (
                        limit.value.clone(),
                        Bound {
                            above,
                            inclusive: limit.inclusive,
                        },
                    )
                }
            };
            let bounds: Vec<(String, Bound)> = from
                .iter()
                .map(bound(true))
                .chain(to.iter().map(bound(false)))
                .collect();
            let numbers: Option<Vec<_>> = bounds
                .iter()
                .map(|(text, bound)| Some((Number::of_text(text.trim())?, *bound)))
                .collect();
            numbers.map_or(ClauseTest::Strings(bounds), ClauseTest::Numbers)
        }
    }
}

/// Whether any value of the document matches, at whatever depth.
fn anywhere(value: &Value<'_>, test: &ClauseTest) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| anywhere(item, test)),
        Value::Object(entries) => entries.iter().any(|(_, value)| anywhere(value, test)),
        scalar => scalar_matches(scalar, test),
    }
}

/// Whether any value at the path matches, including elements of arrays on the way and at its end.
fn at_path(value: &Value<'_>, steps: &[Step], test: &ClauseTest) -> bool {
    match (value, steps) {
        (Value::Array(items), [Step::Index(index), rest @ ..]) => {
            items.get(*index as usize).is_some_and(|item| at_path(item, rest, test))
        }
        (Value::Array(_), []) if matches!(test, ClauseTest::Exists) => true,
        (Value::Array(items), _) => items.iter().any(|item| at_path(item, steps, test)),
        (Value::Object(_), [Step::Key(key), rest @ ..]) => {
            value.get(key).is_some_and(|value| at_path(value, rest, test))
        }
        (value, []) => scalar_matches(value, test),
        _ => false,
    }
}

fn scalar_matches(value: &Value<'_>, test: &ClauseTest) -> bool {
    match (test, value) {
        (ClauseTest::Exists, value) => *value != Value::Null,
        (ClauseTest::Words { tokens, .. }, Value::Text(text)) => token::contains_phrase(text, tokens),
        (ClauseTest::Words { number, .. }, Value::Int(_) | Value::Float(_)) => number
            .zip(Number::of(value))
            .is_some_and(|(wanted, value)| wanted.compare(value) == Ordering::Equal),
        (ClauseTest::Words { boolean, .. }, Value::Bool(bool)) => *boolean == Some(*bool),
        (ClauseTest::Prefix(prefix), Value::Text(text)) => token::contains_prefix(text, prefix),
        (ClauseTest::Numbers(bounds), value) => Number::of(value)
            .is_some_and(|value| bounds.iter().all(|(limit, bound)| bound.admits(value.compare(*limit)))),
        (ClauseTest::Strings(bounds), Value::Text(text)) => bounds
            .iter()
            .all(|(limit, bound)| bound.admits(text.as_ref().cmp(limit))),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
