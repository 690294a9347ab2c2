//! Path tree: what a part knows about every path. A query trusts columns and postings only where the path tree says
//! that they are complete.
//!
//! Paths form a tree of keys. Values inside of arrays (`inside`) are separate from all others (`outside`), because a
//! SQL path sees only the latter and a search sees both.
//!
//! Encoded, each path and each of its two scopes is a record with its length in front, so that it can grow.

use plan::{Kinds, Path};
use roaring::RoaringBitmap;

use super::statistics::{TimeBounds, ValueBounds};
use crate::{
    codec::{DecodeResult, ValueReader, ValueWriter, decode_error},
    key_tree::{KeyTree, ROOT},
};

/// What is known about the values of a path, either inside or outside of arrays.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ArrayScope {
    /// Numbers of values by kind. Outside of arrays, a document has at most one value.
    pub nulls: u32,
    pub bools: u32,
    pub ints: u32,
    pub floats: u32,
    /// Strings in the dictionary.
    pub texts: u32,
    /// Documents with strings too long for the dictionary.
    pub long_texts: RoaringBitmap,
    /// Documents with numbers outside the range of a double.
    pub big_numbers: RoaringBitmap,
    pub arrays: RoaringBitmap,
    pub objects: RoaringBitmap,
    /// The lowest and the highest of its numbers and strings, long strings included.
    pub bounds: ValueBounds,
}

impl ArrayScope {
    /// Counts an int.
    pub(super) fn add_int(&mut self, value: i64) {
        self.bounds.observe_int(value);
        self.ints += 1;
    }

    /// Counts a float.
    pub(super) fn add_float(&mut self, value: f64) {
        self.bounds.observe_float(value);
        self.floats += 1;
    }

    /// Counts a string, which is in the dictionary unless it is `long`.
    pub(super) fn add_text(&mut self, document: u32, text: &str, long: bool) {
        self.bounds.observe_text(text);
        if long {
            // Documents come in order.
            let _already_last = self.long_texts.try_push(document);
        } else {
            self.texts += 1;
        }
    }

    /// The kinds of its values.
    pub(super) fn kinds(&self) -> Kinds {
        let seen = [
            (self.nulls > 0, Kinds::NULL),
            (self.bools > 0, Kinds::BOOL),
            (self.ints > 0, Kinds::INT),
            (self.floats > 0, Kinds::FLOAT),
            (self.texts > 0 || !self.long_texts.is_empty(), Kinds::TEXT),
            (!self.big_numbers.is_empty(), Kinds::BIG),
            (!self.arrays.is_empty(), Kinds::ARRAY),
            (!self.objects.is_empty(), Kinds::OBJECT),
        ];
        seen.into_iter()
            .filter(|(any, _)| *any)
            .fold(Kinds::default(), |all, (_, kind)| all | kind)
    }

    /// The number of non-null values, if each document has at most one.
    pub(super) fn present(&self) -> u64 {
        let rare: u64 = [&self.long_texts, &self.big_numbers, &self.arrays, &self.objects]
            .iter()
            .map(|documents| documents.len())
            .sum();
        u64::from(self.bools) + u64::from(self.ints) + u64::from(self.floats) + u64::from(self.texts) + rare
    }

    fn write(&self, to: ValueWriter) -> ValueWriter {
        if *self == Self::default() {
            return to.u32(0);
        }
        let record = self.encode();
        to.u32(record.len() as u32).rest(&record)
    }

    fn encode(&self) -> Vec<u8> {
        let to = ValueWriter::unversioned();
        let counts = [self.nulls, self.bools, self.ints, self.floats, self.texts];
        let documents = [&self.long_texts, &self.big_numbers, &self.arrays, &self.objects];
        let to = counts.into_iter().fold(to, ValueWriter::u32);
        let to = documents.into_iter().fold(to, ValueWriter::u32_bitmap);
        to.bytes(&self.bounds.encode()).finish()
    }

    fn read(from: &mut ValueReader) -> DecodeResult<Self> {
        let record = from.u32_bytes()?;
        if record.is_empty() {
            return Ok(Self::default());
        }
        let mut from = ValueReader::unversioned(record);
        Ok(Self {
            nulls: from.u32()?,
            bools: from.u32()?,
            ints: from.u32()?,
            floats: from.u32()?,
            texts: from.u32()?,
            long_texts: from.u32_bitmap()?,
            big_numbers: from.u32_bitmap()?,
            arrays: from.u32_bitmap()?,
            objects: from.u32_bitmap()?,
            bounds: ValueBounds::decode(from.bytes()?)?,
        })
    }
}

/// What is known about a path.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PathNode {
    /// Whether all of its scalars are in columns, as is true of a path without scalars. If not, they must be read from
    /// the raw documents.
    pub column: bool,
    /// Whether all of its strings have postings.
    pub postings: bool,
    /// Values outside of arrays.
    pub outside: ArrayScope,
    /// Values inside of arrays.
    pub inside: ArrayScope,
    /// A value as JSON text.
    pub sample: Option<String>,
}

/// What a part knows about its paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PathTree {
    /// Documents in the part.
    pub documents: u32,
    /// The level of the code that built it.
    pub builder_level: u32,
    /// The times of all documents.
    pub times: TimeBounds,
    /// All paths except those of the `untracked` documents.
    pub nodes: KeyTree<PathNode>,
    /// Documents of which only the header is indexed: they could not be parsed, or no index could be built with them.
    pub header_only: RoaringBitmap,
    /// Documents with a value at a path that is not in the tree.
    pub untracked: RoaringBitmap,
    /// Documents with a scalar at a path of the tree that has no column.
    pub partly_indexed: RoaringBitmap,
    /// Documents with a token too long for postings.
    pub oversized_tokens: RoaringBitmap,
}

impl PathTree {
    /// The path with these keys, if it is in the tree.
    pub(super) fn find<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Option<u32> {
        self.nodes.find(keys)
    }

    /// Documents that may have values at paths that are not in the tree.
    pub(super) fn incomplete(&self) -> RoaringBitmap {
        &self.header_only | &self.untracked
    }

    /// The path of a node.
    pub(super) fn path(&self, id: u32) -> Path {
        self.nodes.path(id)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let to = ValueWriter::unversioned()
            .u32(self.documents)
            .u32(self.builder_level)
            .bytes(&self.times.encode())
            .u32(self.nodes.len() as u32);
        let to = write_node(to, ROOT, "", &self.nodes[ROOT]);
        let to = self
            .nodes
            .edges()
            .fold(to, |to, (parent, key, node)| write_node(to, parent, key, node));
        let incomplete = [
            &self.header_only,
            &self.untracked,
            &self.partly_indexed,
            &self.oversized_tokens,
        ];
        incomplete.into_iter().fold(to, ValueWriter::u32_bitmap).finish()
    }

    /// Decodes the result of [`encode`](Self::encode).
    pub(super) fn decode(bytes: &[u8]) -> DecodeResult<Self> {
        let mut from = ValueReader::unversioned(bytes);
        let (documents, builder_level) = (from.u32()?, from.u32()?);
        let times = TimeBounds::decode(from.bytes()?)?;
        let count = from.u32()?;
        if count == 0 {
            return decode_error("the paths of the split have no root");
        }
        let (_, _, root) = read_node(&mut from)?;
        let mut nodes = KeyTree::new(root);
        for id in 1..count {
            let (parent, key, node) = read_node(&mut from)?;
            if parent >= id {
                return decode_error("the paths of the split do not form a tree");
            }
            nodes.add(parent, key, node);
        }
        Ok(Self {
            documents,
            builder_level,
            times,
            nodes,
            header_only: from.u32_bitmap()?,
            untracked: from.u32_bitmap()?,
            partly_indexed: from.u32_bitmap()?,
            oversized_tokens: from.u32_bitmap()?,
        })
    }
}

fn write_node(to: ValueWriter, parent: u32, key: &str, node: &PathNode) -> ValueWriter {
    let flags = u32::from(node.column) | u32::from(node.postings) << 1 | u32::from(node.sample.is_some()) << 2;
    let record = ValueWriter::unversioned().u32(parent).u32_text(key).u32(flags);
    let record = node.inside.write(node.outside.write(record));
    let record = node
        .sample
        .iter()
        .fold(record, |to, sample| to.u32_text(sample))
        .finish();
    to.u32(record.len() as u32).rest(&record)
}

/// Parent, last key and the rest of a path.
fn read_node<'a>(from: &mut ValueReader<'a>) -> DecodeResult<(u32, &'a str, PathNode)> {
    let mut from = ValueReader::unversioned(from.u32_bytes()?);
    let (parent, key, flags) = (from.u32()?, from.u32_text()?, from.u32()?);
    let (outside, inside) = (ArrayScope::read(&mut from)?, ArrayScope::read(&mut from)?);
    let sample = if flags & 4 != 0 {
        Some(from.u32_text()?.to_owned())
    } else {
        None
    };
    let node = PathNode {
        column: flags & 1 != 0,
        postings: flags & 2 != 0,
        outside,
        inside,
        sample,
    };
    Ok((parent, key, node))
}
