//! JSON parsing: the one way in which documents are read. Leaves index and scan documents with it, aggregators split a
//! push into items.
//!
//! The parser accepts everything that the grammar of RFC 8259 allows: numbers outside of int64 and double keep their
//! text, a lone surrogate becomes U+FFFD, and the last of several equal keys wins. The bytes of a document are never
//! rewritten.
//!
//! The fast parser (sonic-rs) refuses some of that. A document that it refuses is parsed again by a slow parser, level
//! by level, from raw values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX};

/// A JSON value, borrowed from the document where possible.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// An integer within int64, written as an integer (`-0` is a float). Its text is its only spelling.
    Int(i64),
    /// Any other number within the range of double; always finite.
    Float(f64),
    /// The text of a number outside the range of double.
    Big(Cow<'a, str>),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object. Keys are unique, in the order of their last occurrence.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    /// The value of a key; `None` if this is not an object or lacks the key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Why bytes are not a valid document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// No bytes, or only white space.
    #[error("the value is empty")]
    Empty,
    /// More bytes than [`DOCUMENT_BYTES_MAX`].
    #[error("the document has {bytes} bytes; the limit is {DOCUMENT_BYTES_MAX}")]
    TooBig {
        /// The size of the document.
        bytes: usize,
    },
    /// Nested deeper than [`DOCUMENT_DEPTH_MAX`].
    #[error("the document is nested more than {DOCUMENT_DEPTH_MAX} levels deep")]
    TooDeep,
    /// Not UTF-8, or not JSON.
    #[error("not JSON: {reason}")]
    Syntax {
        /// The message of the parser.
        reason: String,
    },
}

impl JsonError {
    /// The stable word for this error.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooBig { .. } => "too_big",
            Self::TooDeep => "too_deep",
            Self::Syntax { .. } => "not_json",
        }
    }
}

/// Parses a document, within the limits of size and depth.
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, JsonError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(JsonError::TooBig { bytes: bytes.len() });
    }
    if bytes.iter().all(|b| b.is_ascii_whitespace()) {
        return Err(JsonError::Empty);
    }
    if depth_over(bytes, DOCUMENT_DEPTH_MAX) {
        return Err(JsonError::TooDeep);
    }
    if let Ok(value) = sonic_rs::from_slice::<Value>(bytes) {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError::Syntax { reason: e.to_string() })?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| JsonError::Syntax { reason: e.to_string() })?;
    from_raw(raw.get()).map_err(|e| JsonError::Syntax { reason: e.to_string() })
}

/// Whether brackets outside of strings nest deeper than `max`. Exact for JSON; anything else is left to the parser.
fn depth_over(bytes: &[u8], max: usize) -> bool {
    if count_brackets(bytes) <= max {
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

/// The number of opening brackets. In chunks whose count fits into a byte, so that the compiler uses vector instructions:
/// this reads every byte of every document.
fn count_brackets(bytes: &[u8]) -> usize {
    let of_chunk = |chunk: &[u8]| chunk.iter().map(|b| u8::from(matches!(b, b'[' | b'{'))).sum::<u8>();
    bytes
        .chunks(u8::MAX.into())
        .map(|chunk| usize::from(of_chunk(chunk)))
        .sum()
}

/// The verbatim text of the value at a path of keys and indexes, if the document has it; the last of equal keys wins.
/// The document must have been parsed before.
pub fn raw_at<'a>(document: &'a str, path: &[Step<impl AsRef<str>>]) -> Option<&'a str> {
    path.iter().try_fold(document.trim_ascii(), |at, step| match step {
        Step::Key(key) if at.starts_with('{') => raw_entries(at)
            .ok()?
            .into_iter()
            .rev()
            .find(|(name, _)| **name == *key.as_ref())
            .map(|(_, value)| value),
        Step::Index(index) if at.starts_with('[') => raw_items(at).ok()?.get(*index as usize).copied(),
        _ => None,
    })
}

/// One step of a path into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step<K> {
    /// The value of a key of an object.
    Key(K),
    /// An element of an array, counted from 0.
    Index(u32),
}

impl<K: AsRef<str>> Step<K> {
    /// The key, if the step is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key.as_ref()),
            Self::Index(_) => None,
        }
    }
}

/// The elements of an array, verbatim.
pub fn raw_items(array: &str) -> Result<Vec<&str>, serde_json::Error> {
    let items: Vec<&RawValue> = serde_json::from_str(array)?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// The entries of an object in order, with duplicate keys, values verbatim.
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
            while let Some((LossyText(key), value)) = map.next_entry::<LossyText<'de>, &'de RawValue>()? {
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

/// A string in which each lone surrogate is replaced by U+FFFD. serde_json yields such a string only as bytes.
struct LossyText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for LossyText<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct LossyVisitor;
        impl<'de> Visitor<'de> for LossyVisitor {
            type Value = LossyText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E: serde::de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(LossyText(replace_surrogates(bytes)))
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(LossyText(Cow::Owned(replace_surrogates(bytes).into_owned())))
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(LossyText(Cow::Borrowed(text)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(LossyText(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_bytes(LossyVisitor)
    }
}

/// Decodes UTF-8 in which surrogates may be encoded as if they were characters (ED A0..BF xx): each becomes one U+FFFD.
fn replace_surrogates(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        match rest {
            [0xED, 0xA0..=0xBF, _, tail @ ..] => {
                replaced.extend_from_slice("\u{FFFD}".as_bytes());
                rest = tail;
            }
            _ => {
                replaced.push(*first);
                rest = tail;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&replaced).into_owned())
}

/// The slow parser: it accepts everything that the grammar allows.
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
        Some(b'"') => Value::Text(serde_json::from_str::<LossyText>(raw)?.0),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => number(raw),
    })
}

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

/// Removes all but the last entry of each key.
fn last_wins<'a>(mut entries: Vec<(Cow<'a, str>, Value<'a>)>) -> Vec<(Cow<'a, str>, Value<'a>)> {
    if has_duplicates(&entries) {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        entries.reverse();
        entries.retain(|(name, _)| seen.insert(name.clone()));
        entries.reverse();
    }
    entries
}

/// Whether a key occurs twice. A key is compared with those before it only if one of them has the same mark, so most
/// keys are compared with none.
fn has_duplicates(entries: &[(Cow<str>, Value)]) -> bool {
    /// In an object with more entries, too many keys have the same mark.
    const MARKED_ENTRIES_MAX: usize = 256;
    if entries.len() > MARKED_ENTRIES_MAX {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        return !entries.iter().all(|(name, _)| seen.insert(name.as_ref()));
    }
    let mut marks = [0u64; 8];
    (0..).zip(entries).any(|(index, (name, _))| {
        let mark = mark(name.as_bytes());
        let (word, bit) = (&mut marks[mark >> 6], 1 << (mark & 63));
        let may_be_known = *word & bit != 0;
        *word |= bit;
        may_be_known && entries[..index].iter().any(|(other, _)| other == name)
    })
}

/// A number below 512 from the length of a key and its first and last bytes.
fn mark(key: &[u8]) -> usize {
    /// Odd, with bits well spread (2^64 divided by the golden ratio).
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        _ => key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    ((word ^ key.len() as u64).wrapping_mul(SPREAD) >> 55) as usize
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
            Err(E::custom("a number outside the range of double"))
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

/// An object key, borrowed where possible.
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
mod tests;
