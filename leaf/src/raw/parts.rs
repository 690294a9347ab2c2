//! ReadParts of documents: parses only the values that a scan reads, and skips the others.

use std::fmt;

use plan::{Column, ColumnSource, Path, path::Step};
use proto::json::{self, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The values of a document that are read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum ReadParts {
    /// Those of these keys, if it is an object.
    Keys(Vec<(String, ReadParts)>),
    /// The whole value.
    #[default]
    All,
}

impl ReadParts {
    /// What these columns read; `time_path` is where `_time` is read.
    pub(crate) fn of<'c>(columns: impl IntoIterator<Item = &'c Column>, time_path: Option<&Path>) -> Self {
        let mut parts = Self::Keys(Vec::new());
        for column in columns {
            let path = match &column.source {
                ColumnSource::Path(path) => Some(path),
                ColumnSource::Time => time_path,
                ColumnSource::Search(clause) => match &clause.path {
                    Some(path) => Some(path),
                    None => return Self::All,
                },
                ColumnSource::Tokens(Some(path)) => Some(path),
                ColumnSource::Tokens(None) | ColumnSource::Score(_) => return Self::All,
                _ => None,
            };
            path.into_iter().for_each(|path| parts.add(path.steps()));
        }
        parts
    }

    /// Adds the value at a path: all of it from the first step into an array on.
    fn add(&mut self, steps: &[Step]) {
        let Self::Keys(keys) = self else { return };
        match steps {
            [Step::Key(key), rest @ ..] => {
                let at = keys.iter().position(|(known, _)| **known == **key).unwrap_or_else(|| {
                    keys.push((key.to_string(), Self::Keys(Vec::new())));
                    keys.len() - 1
                });
                keys[at].1.add(rest);
            }
            _ => *self = Self::All,
        }
    }

    /// Parses these parts of a document that was parsed before. Whatever else it has is missing in the value.
    pub(crate) fn parse<'d>(&self, document: &'d str) -> Value<'d> {
        let fast = match self {
            Self::Keys(_) if !may_have_negative_zero(document) => {
                self.deserialize(&mut sonic_rs::Deserializer::from_str(document)).ok()
            }
            _ => None,
        };
        fast.unwrap_or_else(|| json::parse(document.as_bytes()).unwrap_or(Value::Null))
    }
}

/// Whether a number may be a negative zero. Its sign depends on which parser reads the whole document, which depends on
/// the other values.
fn may_have_negative_zero(document: &str) -> bool {
    let document = document.as_bytes();
    let begins_value = |at: usize| at == 0 || b":,[ \t\r\n".contains(&document[at - 1]);
    memchr::memmem::find_iter(document, b"-0").any(begins_value)
}

impl<'de> DeserializeSeed<'de> for &ReadParts {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value<'de>, D::Error> {
        match self {
            ReadParts::All => serde::Deserialize::deserialize(from),
            ReadParts::Keys(keys) => from.deserialize_any(ObjectVisitor(keys)),
        }
    }
}

/// Reads some keys of each element of an array.
struct ElementSeed<'p>(&'p [(String, ReadParts)]);

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value<'de>, D::Error> {
        from.deserialize_any(ObjectVisitor(self.0))
    }
}

/// Reads some keys of an object, or of the objects in an array. No other value has keys.
struct ObjectVisitor<'p>(&'p [(String, ReadParts)]);

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values: Vec<Option<Value>> = vec![None; self.0.len()];
        while let Some(found) = map.next_key_seed(KeySeed(self.0))? {
            match found {
                // The last of equal keys wins.
                Some(key) => values[key] = Some(map.next_value_seed(&self.0[key].1)?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let entries = self.0.iter().zip(values);
        Ok(Value::Object(
            entries
                .filter_map(|((key, _), value)| Some((key.clone().into(), value?)))
                .collect(),
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // A search clause finds a key also in the objects of an array.
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(ElementSeed(self.0))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
}

/// Reads a key: its index among those that are read.
struct KeySeed<'p>(&'p [(String, ReadParts)]);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|(known, _)| known == key))
    }
}

#[cfg(test)]
mod tests {
    use plan::Type;
    use proptest::prelude::*;

    use super::*;
    use crate::raw::at;

    fn columns(paths: &[&str]) -> Vec<Column> {
        let path = |text: &&str| Path::parse(text).expect("a path");
        paths.iter().map(|text| Column::path(path(text), Type::Json)).collect()
    }

    #[test]
    fn only_the_values_at_the_paths_are_parsed() {
        let parts = ReadParts::of(&columns(&["a.b", "a.c[0].d", "e"]), None);
        let document = r#"{"a":{"b":1,"b":[2],"c":[{"d":3,"x":4}],"x":5},"e":{"y":6},"x":{"b":7}}"#;
        let expected = r#"{"a":{"b":[2],"c":[{"d":3,"x":4}]},"e":{"y":6}}"#;
        assert_eq!(
            parts.parse(document),
            json::parse(expected.as_bytes()).expect("a value")
        );
        let objects = parts.parse(r#"[{"e":1,"x":2},3,[{"x":4}]]"#);
        assert_eq!(objects, json::parse(br#"[{"e":1},null,[{}]]"#).expect("a value"));
        // What the fast parser refuses.
        let document = r#"{"e":1e999,"x":"\ud800"}"#;
        assert_eq!(parts.parse(document).get("e"), Some(&Value::Big("1e999".into())));
        let document = r#"{"e":1,"x":"\ud800","\ud800":2}"#;
        assert_eq!(parts.parse(document).get("e"), Some(&Value::Int(1)));
    }

    /// A JSON text with few different keys, some of them twice or with escapes.
    fn document() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "1",
            "-0.0",
            "1e400",
            "null",
            "true",
            r#""t\n""#,
            r#""\ud800""#,
            "[]",
            "{}",
        ]);
        leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
            let key = prop::sample::select(vec!["a", "b", r"\u0061", "c", r"\ud800"]);
            let object = prop::collection::vec((key, inner.clone()), 0..5).prop_map(|entries| {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| format!(r#" "{key}" :{value}"#))
                    .collect();
                format!("{{{}}}", entries.join(","))
            });
            let array = prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(" ,")));
            prop_oneof![3 => object, 1 => array]
        })
    }

    proptest! {
        #[test]
        fn a_value_is_the_same_as_in_the_whole_document(
            document in document(),
            paths in prop::sample::subsequence(vec!["a", "b", "a.b", "b.a.a", "c.a", "a[0].b", "c[1]", "a.c.b"], 0..5),
        ) {
            let whole = json::parse(document.as_bytes()).expect("a value");
            let columns = columns(&paths);
            let parts = ReadParts::of(&columns, None).parse(&document);
            for text in &paths {
                let path = Path::parse(text).expect("a path");
                let [part, whole] = [&parts, &whole].map(|value| format!("{:?}", at(value, &path)));
                prop_assert_eq!(part, whole, "{} of {}", text, document);
            }
        }
    }
}
