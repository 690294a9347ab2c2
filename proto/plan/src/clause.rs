//! A search clause, decided on a document's values: the reference for what an index finds. Shared by: leaf (documents),
//! aggregator (fields).

use std::{borrow::Cow, cmp::Ordering};

use proto::json::Value;

use crate::{
    path::{Path, Step},
    search::{Clause, Limit, Match},
    token,
};

/// A clause, made ready to be asked of many documents.
#[derive(Debug, Clone)]
pub struct Matcher {
    path: Option<Path>,
    asks: Asks,
}

#[derive(Debug, Clone)]
enum Asks {
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

/// On which side of a bound a value must lie.
#[derive(Debug, Clone, Copy)]
struct Bound {
    above: bool,
    inclusive: bool,
}

impl Bound {
    fn holds(self, value_to_bound: Ordering) -> bool {
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
    /// The number that a text spells, as JSON would.
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

    /// By value: an int and a double are compared without rounding either.
    pub fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Int(a), Self::Double(b)) => int_to_double(a, b),
            (Self::Double(a), Self::Int(b)) => int_to_double(b, a).reverse(),
        }
    }
}

fn int_to_double(int: i64, double: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0; // 2^63
    match double {
        double if double >= BEYOND => Ordering::Less,
        double if double < -BEYOND => Ordering::Greater,
        double => int
            .cmp(&(double.trunc() as i64))
            .then_with(|| 0.0.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)),
    }
}

impl Matcher {
    /// Makes a clause ready.
    pub fn new(clause: &Clause) -> Self {
        Self {
            path: clause.path.clone(),
            asks: asks(&clause.matches),
        }
    }

    /// Whether a document's values match.
    pub fn matches(&self, root: &Value<'_>) -> bool {
        match (&self.path, &self.asks) {
            (None, Asks::Exists) => *root != Value::Null,
            (None, asks) => anywhere(root, asks),
            (Some(path), asks) => at_path(root, path.steps(), asks),
        }
    }
}

fn asks(matches: &Match) -> Asks {
    match matches {
        Match::Exists | Match::Range { from: None, to: None } => Asks::Exists,
        Match::Prefix(prefix) => Asks::Prefix(token::lower(prefix).into_owned()),
        Match::Words(text) => Asks::Words {
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
                move |limit: &Limit| {
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
            numbers.map_or(Asks::Strings(bounds), Asks::Numbers)
        }
    }
}

/// Any value of the document, at whatever depth.
fn anywhere(value: &Value<'_>, asks: &Asks) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| anywhere(item, asks)),
        Value::Object(entries) => entries.iter().any(|(_, value)| anywhere(value, asks)),
        scalar => scalar_matches(scalar, asks),
    }
}

/// Any value at the path, arrays on the way and at its end looked through.
fn at_path(value: &Value<'_>, steps: &[Step], asks: &Asks) -> bool {
    match (value, steps) {
        (Value::Array(items), [Step::Index(index), rest @ ..]) => {
            items.get(*index as usize).is_some_and(|item| at_path(item, rest, asks))
        }
        (Value::Array(_), []) if matches!(asks, Asks::Exists) => true,
        (Value::Array(items), _) => items.iter().any(|item| at_path(item, steps, asks)),
        (Value::Object(_), [Step::Key(key), rest @ ..]) => {
            value.get(key).is_some_and(|value| at_path(value, rest, asks))
        }
        (value, []) => scalar_matches(value, asks),
        _ => false,
    }
}

fn scalar_matches(value: &Value<'_>, asks: &Asks) -> bool {
    match (asks, value) {
        (Asks::Exists, value) => *value != Value::Null,
        (Asks::Words { tokens, .. }, Value::Text(text)) => token::holds(text, tokens),
        (Asks::Words { number, .. }, Value::Int(_) | Value::Float(_)) => number
            .zip(Number::of(value))
            .is_some_and(|(asked, value)| asked.compare(value) == Ordering::Equal),
        (Asks::Words { boolean, .. }, Value::Bool(bool)) => *boolean == Some(*bool),
        (Asks::Prefix(prefix), Value::Text(text)) => token::holds_prefix(text, prefix),
        (Asks::Numbers(bounds), value) => Number::of(value)
            .is_some_and(|value| bounds.iter().all(|(limit, bound)| bound.holds(value.compare(*limit)))),
        (Asks::Strings(bounds), Value::Text(text)) => bounds
            .iter()
            .all(|(limit, bound)| bound.holds(text.as_ref().cmp(limit))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(document: &str, path: &str, matches: Match) -> bool {
        let path = (!path.is_empty()).then(|| Path::parse(path).expect("a path"));
        let value = proto::json::parse(document.as_bytes()).expect("JSON");
        Matcher::new(&Clause { path, matches }).matches(&value)
    }

    fn range(from: Option<(&str, bool)>, to: Option<(&str, bool)>) -> Match {
        let limit = |bound: Option<(&str, bool)>| {
            bound.map(|(value, inclusive)| Limit {
                value: value.into(),
                inclusive,
            })
        };
        Match::Range {
            from: limit(from),
            to: limit(to),
        }
    }

    #[test]
    fn words_match_where_their_tokens_stand_side_by_side() {
        let document = r#"{"msg":"Disk FULL on /dev/sda1","n":12,"f":1.5,"ok":true,"tags":["Änderung",{"deep":["x-y z"]}],"nul":null}"#;
        let words = |path: &str, text: &str| matches(document, path, Match::Words(text.into()));
        assert!(words("msg", "disk full") && words("msg", "full") && words("", "sda1") && words("msg", "on dev"));
        assert!(!words("msg", "disk on") && !words("msg", "ful") && !words("tags", "disk"));
        assert!(words("n", "12") && words("n", "12.0") && words("", "1.5") && !words("n", "1"));
        assert!(words("ok", "true") && !words("ok", "false") && words("", "true"));
        assert!(
            words("tags", "änderung")
                && words("tags.deep", "x y")
                && words("tags[1].deep", "z")
                && !words("tags[0].deep", "z")
        );
        assert!(!words("", "--") && !words("nul", "null"));
    }

    #[test]
    fn prefixes_ranges_and_existence_look_at_values_of_their_kind() {
        let document =
            r#"{"msg":"Timeout after 30s","n":9007199254740993,"s":"b","a":[1,5],"e":[],"nul":null,"o":{"x":null}}"#;
        let ask = |path: &str, asks: Match| matches(document, path, asks);
        assert!(
            ask("msg", Match::Prefix("time".into()))
                && ask("", Match::Prefix("30".into()))
                && !ask("msg", Match::Prefix("out".into()))
        );
        assert!(
            ask("n", range(Some(("9007199254740992", false)), None))
                && !ask("n", range(Some(("9007199254740993", false)), None))
        );
        assert!(
            ask("a", range(Some(("4.5", true)), Some(("5", true))))
                && !ask("a", range(Some(("2", true)), Some(("4", true))))
        );
        assert!(
            ask("s", range(Some(("a", true)), Some(("b", true))))
                && !ask("s", range(Some(("a", true)), Some(("b", false))))
        );
        assert!(
            !ask("s", range(Some(("1", true)), None)),
            "a number does not lie among strings"
        );
        assert!(
            ask("e", Match::Exists)
                && ask("o", Match::Exists)
                && !ask("nul", Match::Exists)
                && !ask("o.x", Match::Exists)
                && !ask("zzz", Match::Exists)
        );
    }

    #[test]
    fn ints_and_doubles_are_compared_without_rounding() {
        let compare = |int, double| Number::Int(int).compare(Number::Double(double));
        assert_eq!(
            compare(9_007_199_254_740_993, 9_007_199_254_740_992.0),
            Ordering::Greater
        );
        assert_eq!(compare(i64::MAX, 9_223_372_036_854_775_808.0), Ordering::Less);
        assert_eq!(compare(i64::MIN, -9_223_372_036_854_775_808.0), Ordering::Equal);
        assert_eq!(compare(-1, -1.5), Ordering::Greater);
        assert_eq!(compare(1, 1.5), Ordering::Less);
    }
}
