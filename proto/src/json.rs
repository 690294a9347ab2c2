//! Bytes -> JSON value: the one reading of a document. Shared by: leaf (indexes and scans it), aggregator (splits a
//! push into items).
//!
//! Everything that the grammar of RFC 8259 allows is read: numbers that no machine type holds keep their text, a lone
//! surrogate becomes U+FFFD, the last of several equal keys wins. The bytes themselves are never rewritten by anybody.
//!
//! The fast reader (sonic-rs) refuses some of that; what it refuses is read again, slowly, level by level, as raw
//! values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX};

/// A JSON value, borrowed from the document where it can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// An integer within int64, spelled as such (`-0` is a float). Its text is the only spelling of it.
    Int(i64),
    /// Any other number within double; finite.
    Float(f64),
    /// A number beyond double: its text.
    Big(Cow<'a, str>),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object: keys differ from one another, in the order of their last appearance.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    /// The value of a key, where this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Why bytes are not a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// No bytes, or white space only.
    #[error("the value is empty")]
    Empty,
    /// Over the limit.
    #[error("{bytes} bytes are over the limit of {DOCUMENT_BYTES_MAX} bytes for a document")]
    TooBig {
        /// How many there were.
        bytes: usize,
    },
    /// Over the limit.
    #[error("nested over {DOCUMENT_DEPTH_MAX} levels deep")]
    TooDeep,
    /// Not UTF-8, or not JSON.
    #[error("not JSON: {reason}")]
    Syntax {
        /// What the reader said.
        reason: String,
    },
}

impl NotJson {
    /// The stable word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooBig { .. } => "too_big",
            Self::TooDeep => "too_deep",
            Self::Syntax { .. } => "not_json",
        }
    }
}

/// Reads a document within the limits of size and depth.
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, NotJson> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(NotJson::TooBig { bytes: bytes.len() });
    }
    parse_item(bytes)
}

fn parse_item(bytes: &[u8]) -> Result<Value<'_>, NotJson> {
    if bytes.iter().all(|b| b.is_ascii_whitespace()) {
        return Err(NotJson::Empty);
    }
    if depth_over(bytes, DOCUMENT_DEPTH_MAX) {
        return Err(NotJson::TooDeep);
    }
    if let Ok(value) = sonic_rs::from_slice::<Value>(bytes) {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes).map_err(|e| NotJson::Syntax { reason: e.to_string() })?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| NotJson::Syntax { reason: e.to_string() })?;
    from_raw(raw.get()).map_err(|e| NotJson::Syntax { reason: e.to_string() })
}

/// Whether brackets outside of strings nest deeper than `max`. Right for JSON; for anything else the reader decides.
fn depth_over(bytes: &[u8], max: usize) -> bool {
    if bytes.iter().filter(|b| matches!(b, b'[' | b'{')).take(max + 1).count() <= max {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The verbatim text of the value at a path of keys and indexes, where the document has it; the last of equal keys
/// wins. The document has been read before, so it is JSON.
pub fn raw_at<'a>(document: &'a str, path: &[Step<'_>]) -> Option<&'a str> {
    path.iter().try_fold(document.trim_ascii(), |at, step| match step {
        Step::Key(key) if at.starts_with('{') => raw_entries(at)
            .ok()?
            .into_iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value),
        Step::Index(index) if at.starts_with('[') => raw_items(at).ok()?.get(*index as usize).copied(),
        _ => None,
    })
}

/// One step into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step<'a> {
    /// Into an object.
    Key(&'a str),
    /// Into an array, from 0.
    Index(u32),
}

/// The elements of an array, verbatim.
pub fn raw_items(array: &str) -> Result<Vec<&str>, serde_json::Error> {
    let items: Vec<&RawValue> = serde_json::from_str(array)?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// The entries of an object in order, equal keys included, values verbatim.
pub fn raw_entries(object: &str) -> Result<Vec<(Cow<'_, str>, &str)>, serde_json::Error> {
    struct Entries<'a>(Vec<(Cow<'a, str>, &'a str)>);
    struct EntriesVisitor;
    impl<'de> Visitor<'de> for EntriesVisitor {
        type Value = Entries<'de>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((Lossy(key), value)) = map.next_entry::<Lossy<'de>, &'de RawValue>()? {
                entries.push((key, value.get()));
            }
            Ok(Entries(entries))
        }
    }
    impl<'de> Deserialize<'de> for Entries<'de> {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            d.deserialize_map(EntriesVisitor)
        }
    }
    serde_json::from_str::<Entries>(object).map(|entries| entries.0)
}

/// A string in which a lone surrogate is U+FFFD: serde_json hands it out only to those who ask for bytes.
struct Lossy<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Lossy<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct LossyVisitor;
        impl<'de> Visitor<'de> for LossyVisitor {
            type Value = Lossy<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E: serde::de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Lossy(without_surrogates(bytes)))
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Lossy(Cow::Owned(without_surrogates(bytes).into_owned())))
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Lossy(Cow::Borrowed(text)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Lossy(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_bytes(LossyVisitor)
    }
}

/// UTF-8 in which surrogates may be encoded as if they were characters (ED A0..BF xx): each becomes one U+FFFD.
fn without_surrogates(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut mended = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        match rest {
            [0xED, 0xA0..=0xBF, _, tail @ ..] => {
                mended.extend_from_slice("\u{FFFD}".as_bytes());
                rest = tail;
            }
            _ => {
                mended.push(*first);
                rest = tail;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&mended).into_owned())
}

/// The slow reading: everything the grammar allows.
fn from_raw(raw: &str) -> Result<Value<'_>, serde_json::Error> {
    let raw = raw.trim_ascii();
    Ok(match raw.as_bytes().first() {
        Some(b'{') => Value::Object(last_wins(
            raw_entries(raw)?
                .into_iter()
                .map(|(key, value)| Ok((key, from_raw(value)?)))
                .collect::<Result<_, serde_json::Error>>()?,
        )),
        Some(b'[') => Value::Array(raw_items(raw)?.into_iter().map(from_raw).collect::<Result<_, _>>()?),
        Some(b'"') => Value::Text(serde_json::from_str::<Lossy>(raw)?.0),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => number(raw),
    })
}

/// A number's text, read.
fn number(text: &str) -> Value<'_> {
    let integral = !text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) && text != "-0";
    if let (true, Ok(int)) = (integral, text.parse::<i64>()) {
        return Value::Int(int);
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Value::Float(float),
        _ => Value::Big(Cow::Borrowed(text)),
    }
}

/// Keeps the last of equal keys.
fn last_wins<'a>(mut entries: Vec<(Cow<'a, str>, Value<'a>)>) -> Vec<(Cow<'a, str>, Value<'a>)> {
    const SMALL: usize = 16;
    let repeated = if entries.len() <= SMALL {
        (1..entries.len()).any(|i| entries[..i].iter().any(|(name, _)| *name == entries[i].0))
    } else {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        !entries.iter().all(|(name, _)| seen.insert(name.as_ref()))
    };
    if repeated {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        entries.reverse();
        entries.retain(|(name, _)| seen.insert(name.clone()));
        entries.reverse();
    }
    entries
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Int(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.is_finite() {
            Ok(Value::Float(value))
        } else {
            Err(E::custom("a number beyond double"))
        }
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((KeyText(key), value)) = map.next_entry::<KeyText<'de>, Value<'de>>()? {
            entries.push((key, value));
        }
        Ok(Value::Object(last_wins(entries)))
    }
}

/// A key, borrowed where it can be.
struct KeyText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for KeyText<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match d.deserialize_str(ValueVisitor)? {
            Value::Text(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a key must be a string")),
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value<'_> {
        Value::Text(text.into())
    }

    #[test]
    fn what_the_grammar_allows_is_read() {
        let cases = [
            ("1", Value::Int(1)),
            ("-0", Value::Float(-0.0)),
            ("1.0", Value::Float(1.0)),
            ("1e2", Value::Float(100.0)),
            ("9223372036854775807", Value::Int(i64::MAX)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("9223372036854775808", Value::Float(9223372036854775808.0)),
            ("123456789012345678901234567890", Value::Float(1.2345678901234568e29)),
            ("1e400", Value::Big("1e400".into())),
            (r#""\ud800""#, text("\u{FFFD}")),
            (r#""\ud83d\ude00""#, text("😀")),
            (r#""\u0000""#, text("\0")),
            (
                r#" {"a":1,"b":2,"a":3} "#,
                Value::Object(vec![("b".into(), Value::Int(2)), ("a".into(), Value::Int(3))]),
            ),
            (
                r#"{"\udc00x":[null,true,1e999]}"#,
                Value::Object(vec![(
                    "\u{FFFD}x".into(),
                    Value::Array(vec![Value::Null, Value::Bool(true), Value::Big("1e999".into())]),
                )]),
            ),
        ];
        for (json, value) in cases {
            assert_eq!(parse(json.as_bytes()), Ok(value.clone()), "{json}");
            assert_eq!(from_raw(json).ok(), Some(value), "{json}, read slowly");
        }
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        for json in [
            "",
            "  ",
            "{",
            "nul",
            "01",
            "1.",
            ".5",
            "+1",
            "NaN",
            "'a'",
            "{\"a\":1,}",
            "[1,]",
            "1 2",
            "\"a\nb\"",
            "\"\\x\"",
            "\"\\ud8\"",
            "{a:1}",
            "\u{feff}1",
        ] {
            assert!(parse(json.as_bytes()).is_err(), "{json:?} is refused");
        }
        assert!(parse(b"\"\xff\"").is_err(), "what is not UTF-8 is refused");
        assert_eq!(parse(&b"[".repeat(101)), Err(NotJson::TooDeep));
        let deepest = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(deepest.as_bytes()).is_ok());
        assert!(parse(format!("[{deepest}]").as_bytes()).is_err());
        assert!(
            parse(format!("\"{}\"", "[".repeat(500)).as_bytes()).is_ok(),
            "brackets in a string do not nest"
        );
    }

    #[test]
    fn a_value_is_found_verbatim() {
        let document = r#" {"a": {"b": [1.50, {"c" : "x\u0041"}]}, "n":1e2, "a.b":3, "n": -0 }"#;
        let at = |path: &[Step]| raw_at(document, path);
        assert_eq!(at(&[Step::Key("a"), Step::Key("b"), Step::Index(0)]), Some("1.50"));
        assert_eq!(
            at(&[Step::Key("a"), Step::Key("b"), Step::Index(1), Step::Key("c")]),
            Some(r#""x\u0041""#)
        );
        assert_eq!(at(&[Step::Key("n")]), Some("-0"), "the last wins");
        assert_eq!(at(&[Step::Key("a.b")]), Some("3"));
        assert_eq!(at(&[Step::Key("a"), Step::Index(0)]), None);
        assert_eq!(at(&[]), Some(document.trim()));
    }

    #[test]
    fn two_hundred_thousand_keys_are_read_in_no_time() {
        let entries: Vec<String> = (0..200_000).map(|i| format!("\"k{i}\":{i}")).collect();
        let document = format!("{{{}}}", entries.join(","));
        assert!(matches!(parse(document.as_bytes()), Ok(Value::Object(entries)) if entries.len() == 200_000));
    }

    /// JSON text with what readers trip over: escapes, surrogates, odd numbers, equal keys, white space.
    fn any_json() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let string = prop::collection::vec(
            prop_oneof![
                "[a-z]{1,3}",
                Just(r"\n".into()),
                Just(r"\ud800".into()),
                Just(r"\udc00".into()),
                Just(r"\u0000".into()),
                Just("é😀".into())
            ],
            0..4,
        )
        .prop_map(|parts| format!("\"{}\"", parts.concat()));
        let number = prop_oneof![
            "-?(0|[1-9][0-9]{0,25})",
            "-?[0-9]\\.[0-9]{1,20}",
            "[1-9]e[+-]?[0-9]{1,3}"
        ];
        let scalar = prop_oneof![
            Just("null".to_owned()),
            Just("true".into()),
            Just("false".into()),
            number,
            string.clone()
        ];
        scalar.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[ {} ]", items.join(" , "))),
                prop::collection::vec((string.clone(), inner), 0..5).prop_map(|entries| format!(
                    "{{{}}}",
                    entries
                        .iter()
                        .map(|(key, value)| format!("{key} : {value}"))
                        .collect::<Vec<_>>()
                        .join(",")
                )),
            ]
        })
    }

    proptest::proptest! {
        #[test]
        fn both_readings_agree_on_all_json(json in any_json()) {
            let value = parse(json.as_bytes());
            proptest::prop_assert!(value.is_ok(), "{json} is refused");
            proptest::prop_assert_eq!(value.ok(), from_raw(&json).ok());
        }

        #[test]
        fn what_a_strict_reader_refuses_is_refused(text in "[\\[\\]{}:,\"0-9a-z.eE+\\- \\\\\n\t]{0,24}") {
            let strict = serde_json::from_str::<&RawValue>(&text).is_ok();
            proptest::prop_assert_eq!(parse(text.as_bytes()).is_ok(), strict, "{:?}", text);
        }
    }
}
