//! Positions and addresses: where an event is, as source, partition, offset and item. Used by every role.
//!
//! An address identifies a document for good: it is the row key, the default `_id`, the tie-breaker of every sort and
//! the content of every cursor. Nothing that is local to one replica (a split, a row number) leaves a leaf.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The conversions of a name, which is a text that `FromStr` has checked.
macro_rules! name_conversions {
    ($name:ident) => {
        impl $name {
            /// The name as a string slice.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::address::Malformed;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use name_conversions;

/// The conversions of what has one spelling.
macro_rules! text_conversions {
    ($($name:ident)*) => {
        $(
            impl TryFrom<String> for $name {
                type Error = Malformed;
                fn try_from(text: String) -> Result<Self, Malformed> {
                    text.parse()
                }
            }

            impl From<$name> for String {
                fn from(value: $name) -> Self {
                    value.to_string()
                }
            }
        )*
    };
}
text_conversions! { Position PositionVector Address }

/// The name of a source, unique in its collection: `[a-z0-9_][a-z0-9_.-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// The source that every collection has: documents pushed over HTTP.
    pub const PUSH: &'static str = "push";

    /// The collection's own push source.
    pub fn push() -> Self {
        Self(Self::PUSH.into())
    }

    /// Whether this is the collection's own push source.
    pub fn is_push(&self) -> bool {
        &*self.0 == Self::PUSH
    }

    /// The source of the changes of documents: deletes. A collection has it from its first change on. Its partitions are
    /// as many as the collection's shards.
    pub const CHANGES: &'static str = "_changes";

    /// The collection's own source of changes.
    pub fn changes() -> Self {
        Self(Self::CHANGES.into())
    }

    /// Whether this is the collection's own source of changes.
    pub fn is_changes(&self) -> bool {
        &*self.0 == Self::CHANGES
    }

    /// Whether the source belongs to the collection and reads no topic of a user.
    pub fn is_own(&self) -> bool {
        self.is_push() || self.is_changes()
    }
}

name_conversions!(SourceName);

/// A text that is not a valid name, position or address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct Malformed {
    /// The text, cut to 200 characters.
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

/// Whether the text is `[a-z0-9_]` followed by at most 127 of `[a-z0-9_-]` (and `.`, if `dots`).
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

impl fmt::Debug for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a source partition has been ingested, up to and including `offset`: `clicks/0@1234`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// The source.
    pub source: SourceName,
    /// The partition, from 0.
    pub partition: i32,
    /// The last ingested offset; -1 before the first.
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

/// One position per source partition of a collection. Queries and answers carry one: an answer at a vector covers every
/// record up to it and none after it. As text: `clicks/0@1234,clicks/1@998`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PositionVector(BTreeMap<(SourceName, i32), i64>);

impl PositionVector {
    /// Raises the position of a partition; a lower offset changes nothing.
    pub fn advance(&mut self, source: &SourceName, partition: i32, offset: i64) {
        let at = self.0.entry((source.clone(), partition)).or_insert(offset);
        *at = (*at).max(offset);
    }

    /// Raises every position to that of `other`, where `other` is further ahead.
    pub fn merge(&mut self, other: &Self) {
        other
            .iter()
            .for_each(|p| self.advance(&p.source, p.partition, p.offset));
    }

    /// The offset of a partition, if the vector contains it.
    pub fn get(&self, source: &SourceName, partition: i32) -> Option<i64> {
        self.0.get(&(source.clone(), partition)).copied()
    }

    /// Whether everything up to `other` has been ingested.
    pub fn covers(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|(key, offset)| *offset < 0 || self.0.get(key).is_some_and(|mine| mine >= offset))
    }

    /// Describes which positions of `other` have not been reached, for an error message.
    pub fn describe_missing(&self, other: &Self) -> String {
        let describe = |p: Position| match self.get(&p.source, p.partition) {
            Some(mine) if mine >= p.offset => None,
            Some(mine) if mine >= 0 => Some(format!("{p} (it is at {mine})")),
            _ => Some(format!("{p} (nothing is stored yet)")),
        };
        let mut missing = other.iter().filter(|p| p.offset >= 0).filter_map(describe);
        let named: Vec<String> = missing.by_ref().take(NAMED_PARTITIONS_MAX).collect();
        let more = missing.count();
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

    /// Whether the vector has no partition.
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

/// A vector of more partitions than this is written in its compact form: `v1.` and base64.
const SPELLED_PARTITIONS_MAX: usize = 32;
/// How many partitions an error message names.
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
        if let Some(compact) = text.strip_prefix("v1.") {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(compact)
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

/// The address of a document: `clicks/0@1234`, or `clicks/0@1234.7` if the record has several items. Ordered by source,
/// partition, offset, item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The source.
    pub source: SourceName,
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The item within the record, from 0, if the record has several.
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

/// Parses a number as we print it: digits, no sign, no leading zero. So every address has exactly one spelling.
fn number<N: FromStr>(text: &str) -> Option<N> {
    let canonical =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
