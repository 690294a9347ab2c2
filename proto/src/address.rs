//! Where an event is: source, partition, offset, item. Shared by: everybody.
//!
//! A document's address is its name for ever: row key, default `_id`, tie-break of every sort, content of every cursor.
//! Nothing local to one replica (a split, a row number) ever leaves a leaf.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The name of a source, unique in its collection: `[a-z0-9_][a-z0-9_.-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// The source that every collection has: what is pushed over HTTP.
    pub const PUSH: &'static str = "push";

    /// The collection's own push source.
    pub fn push() -> Self {
        Self(Self::PUSH.into())
    }

    /// Whether this is the collection's own push source.
    pub fn is_push(&self) -> bool {
        &*self.0 == Self::PUSH
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not what it should be (a name, a position, an address).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct Malformed {
    /// The text that was given.
    pub text: String,
    /// What was expected, with an example.
    pub expected: &'static str,
}

pub(crate) fn malformed(text: &str, expected: &'static str) -> Malformed {
    Malformed {
        text: text.chars().take(200).collect(),
        expected,
    }
}

/// `[a-z0-9_]` followed by at most 127 of `[a-z0-9_-]` and, where `dots`, of `.`.
pub(crate) fn is_name(text: &str, dots: bool) -> bool {
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(&b) if first(b))
        && bytes.len() <= 128
        && bytes.iter().all(|&b| first(b) || b == b'-' || (dots && b == b'.'))
}

impl FromStr for SourceName {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        match is_name(text, true) {
            true => Ok(Self(text.into())),
            false => Err(malformed(
                text,
                "the name of a source (lower-case letters, digits, `_`, `-` and `.`, at most 128, such as clicks)",
            )),
        }
    }
}

impl TryFrom<String> for SourceName {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a source partition has been taken in, through and including `offset`: `clicks/0@1234`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The source.
    pub source: SourceName,
    /// Its partition, from 0.
    pub partition: i32,
    /// The last offset that is in; -1 before the first.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.source, self.partition, self.offset)
    }
}

const POSITION: &str = "a position such as clicks/0@1234";

impl FromStr for Position {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let split = || {
            let (source, rest) = text.rsplit_once('/')?;
            let (partition, offset) = rest.split_once('@')?;
            Some(Self {
                source: source.parse().ok()?,
                partition: number(partition)?,
                offset: offset.parse().ok().filter(|o| *o >= -1)?,
            })
        };
        split().ok_or_else(|| malformed(text, POSITION))
    }
}

/// One position per source partition of a collection. Travels with answers and questions: an answer at a vector holds
/// every record through it and none after it. As text: `clicks/0@1234,clicks/1@998`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PositionVector(BTreeMap<(SourceName, i32), i64>);

impl PositionVector {
    /// Notes a position; the farther of the two stays.
    pub fn advance(&mut self, source: &SourceName, partition: i32, offset: i64) {
        let at = self.0.entry((source.clone(), partition)).or_insert(offset);
        *at = (*at).max(offset);
    }

    /// Takes over whatever is farther in the other.
    pub fn merge(&mut self, other: &Self) {
        other
            .iter()
            .for_each(|p| self.advance(&p.source, p.partition, p.offset));
    }

    /// The offset of a partition, if the vector speaks of it.
    pub fn get(&self, source: &SourceName, partition: i32) -> Option<i64> {
        self.0.get(&(source.clone(), partition)).copied()
    }

    /// Whether everything through `other` is in.
    pub fn covers(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|(key, offset)| *offset < 0 || self.0.get(key).is_some_and(|mine| mine >= offset))
    }

    /// In words, what of `other` is not in.
    pub fn lacking(&self, other: &Self) -> String {
        let one = |p: &Position| match self.get(&p.source, p.partition) {
            Some(mine) if mine >= p.offset => None,
            Some(mine) if mine >= 0 => Some(format!("{p} (it is at {mine})")),
            _ => Some(format!("{p} (nothing of it is there)")),
        };
        let mut lacking = other.iter().filter(|p| p.offset >= 0).filter_map(|p| one(&p));
        let named: Vec<String> = lacking.by_ref().take(NAMED_PARTITIONS_MAX).collect();
        let more = lacking.count();
        named.join(", ")
            + &if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            }
    }

    /// All positions, by source and partition.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        self.0.iter().map(|((source, partition), offset)| Position {
            source: source.clone(),
            partition: *partition,
            offset: *offset,
        })
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Position> for PositionVector {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        let mut vector = Self::default();
        positions
            .into_iter()
            .for_each(|p| vector.advance(&p.source, p.partition, p.offset));
        vector
    }
}

/// Above this many partitions a vector is told in its short form.
const SPELLED_PARTITIONS_MAX: usize = 32;
/// How many partitions are named that lack something.
const NAMED_PARTITIONS_MAX: usize = 4;

impl fmt::Display for PositionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > SPELLED_PARTITIONS_MAX {
            use base64::Engine as _;
            let spelled: Vec<String> = self.iter().map(|p| p.to_string()).collect();
            return write!(
                f,
                "v1.{}",
                base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(spelled.join(","))
            );
        }
        for (i, position) in self.iter().enumerate() {
            write!(f, "{}{position}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for PositionVector {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if let Some(short) = text.strip_prefix("v1.") {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(short)
                .map_err(|_| malformed(text, POSITION))?;
            let spelled = String::from_utf8(bytes).map_err(|_| malformed(text, POSITION))?;
            return spelled.split(',').map(str::parse::<Position>).collect();
        }
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse::<Position>)
            .collect()
    }
}

impl TryFrom<String> for PositionVector {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<PositionVector> for String {
    fn from(vector: PositionVector) -> String {
        vector.to_string()
    }
}

/// A document's position: `clicks/0@1234`, or `clicks/0@1234.7` when one record holds many. Ordered by source,
/// partition, offset, item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The source.
    pub source: SourceName,
    /// Its partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The item in the record, from 0, where one record holds many.
    pub item: Option<u32>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.source, self.partition, self.offset)?;
        self.item.map_or(Ok(()), |item| write!(f, ".{item}"))
    }
}

impl FromStr for Address {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let split = || {
            let (source, rest) = text.rsplit_once('/')?;
            let (partition, offset) = rest.split_once('@')?;
            let (offset, item) = offset
                .split_once('.')
                .map_or((offset, None), |(offset, item)| (offset, Some(item)));
            let item = match item {
                Some(item) => Some(number(item)?),
                None => None,
            };
            Some(Self {
                source: source.parse().ok()?,
                partition: number(partition)?,
                offset: number(offset)?,
                item,
            })
        };
        split().ok_or_else(|| malformed(text, "an address such as clicks/0@1234 or clicks/0@1234.7"))
    }
}

/// A number as we print it: digits, no sign, no leading zero. So every address has one spelling.
fn number<N: FromStr>(text: &str) -> Option<N> {
    let canonical =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for text in [
            "clicks/0@1234",
            "clicks/12@0.7",
            "push/0@9223372036854775807",
            "a.b-c/3@1",
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "clicks",
            "clicks/0",
            "clicks/0@",
            "clicks/00@1",
            "clicks/0@-1",
            "clicks/0@1.",
            "clicks/0@+1",
            "Clicks/0@1",
            "/0@1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text} is no address");
        }
    }

    #[test]
    fn a_vector_reads_back_in_both_forms() {
        for partitions in [0, 1, 32, 33, 500] {
            let vector: PositionVector = (0..partitions)
                .map(|p| Position {
                    source: SourceName::push(),
                    partition: p,
                    offset: i64::from(p) - 1,
                })
                .collect();
            assert_eq!(vector.to_string().parse(), Ok(vector));
        }
    }

    #[test]
    fn a_vector_covers_what_is_not_farther() {
        let at = |text: &str| text.parse::<PositionVector>().expect("a vector");
        assert!(at("a/0@5,a/1@3").covers(&at("a/0@5")));
        assert!(!at("a/0@5").covers(&at("a/0@6")));
        assert!(!at("a/0@5").covers(&at("b/0@1")));
        assert!(
            at("a/0@5").covers(&at("b/0@-1")),
            "nothing is asked of a partition that is at its start"
        );
        assert_eq!(
            at("a/0@5,a/1@3").lacking(&at("a/0@6,a/1@3,b/0@-1,b/1@0")),
            "a/0@6 (it is at 5), b/1@0 (nothing of it is there)"
        );
        assert_eq!(
            at("")
                .lacking(&at("a/0@1,a/1@1,a/2@1,a/3@1,a/4@1,a/5@1"))
                .split(" and ")
                .nth(1),
            Some("2 more")
        );
    }
}
