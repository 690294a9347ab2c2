//! Path tree: what a part knows about every path. A query trusts columns and postings only where the path tree says
//! that they are complete.
//!
//! Paths form a tree of keys. Values inside of arrays (`inside`) are separate from all others (`outside`), because a
//! SQL path sees only the latter and a search sees both.

use std::{collections::HashMap, io};

use plan::{Kinds, Path, path::Step};
use roaring::RoaringBitmap;

use super::encoding::{ByteReader, ByteWriter};

/// The path of the whole document.
pub(super) const ROOT: u32 = 0;

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
}

impl ArrayScope {
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

    fn write(&self, to: &mut ByteWriter) -> io::Result<()> {
        for count in [self.nulls, self.bools, self.ints, self.floats, self.texts] {
            to.u32(count);
        }
        for documents in [&self.long_texts, &self.big_numbers, &self.arrays, &self.objects] {
            to.bitmap(documents)?;
        }
        Ok(())
    }

    fn read(from: &mut ByteReader) -> io::Result<Self> {
        Ok(Self {
            nulls: from.u32()?,
            bools: from.u32()?,
            ints: from.u32()?,
            floats: from.u32()?,
            texts: from.u32()?,
            long_texts: from.bitmap()?,
            big_numbers: from.bitmap()?,
            arrays: from.bitmap()?,
            objects: from.bitmap()?,
        })
    }
}

/// A path and what is known about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PathNode {
    /// The path without its last key. The root is its own parent.
    pub parent: u32,
    /// The last key.
    pub key: Box<str>,
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
    /// All paths except those of the `untracked` documents. The first is the root.
    pub nodes: Vec<PathNode>,
    /// Documents of which only the header is indexed: they could not be parsed, or no index could be built with them.
    pub header_only: RoaringBitmap,
    /// Documents with a value at a path that is not in the tree.
    pub untracked: RoaringBitmap,
    /// Documents with a scalar at a path of the tree that has no column.
    pub partly_indexed: RoaringBitmap,
    /// Documents with a token too long for postings.
    pub oversized_tokens: RoaringBitmap,
    by_key: HashMap<(u32, Box<str>), u32>,
}

impl PathTree {
    /// A tree of these paths, parents first.
    pub(super) fn new(documents: u32, nodes: Vec<PathNode>) -> Self {
        let by_key = nodes
            .iter()
            .zip(0..)
            .skip(1)
            .map(|(node, id)| ((node.parent, node.key.clone()), id))
            .collect();
        Self {
            documents,
            nodes,
            by_key,
            ..Self::default()
        }
    }

    /// The path with these keys, if it is in the tree.
    pub(super) fn find<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Option<u32> {
        keys.into_iter()
            .try_fold(ROOT, |at, key| self.by_key.get(&(at, key.into())).copied())
    }

    /// Documents that may have values at paths that are not in the tree.
    pub(super) fn incomplete(&self) -> RoaringBitmap {
        &self.header_only | &self.untracked
    }

    /// The path of a node.
    pub(super) fn path(&self, id: u32) -> Path {
        let mut keys = Vec::new();
        let mut at = id;
        while at != ROOT {
            let node = &self.nodes[at as usize];
            keys.push(Step::Key(node.key.clone()));
            at = node.parent;
        }
        keys.reverse();
        Path::new(keys)
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut to = ByteWriter::default();
        to.u32(self.documents);
        to.u32(self.nodes.len() as u32);
        for node in &self.nodes {
            to.u32(node.parent);
            to.text(&node.key);
            to.u32(u32::from(node.column) | u32::from(node.postings) << 1 | u32::from(node.sample.is_some()) << 2);
            node.outside.write(&mut to)?;
            node.inside.write(&mut to)?;
            if let Some(sample) = &node.sample {
                to.text(sample);
            }
        }
        for documents in [
            &self.header_only,
            &self.untracked,
            &self.partly_indexed,
            &self.oversized_tokens,
        ] {
            to.bitmap(documents)?;
        }
        Ok(to.into_bytes())
    }

    /// Decodes the result of [`encode`](Self::encode).
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut from = ByteReader::new(bytes);
        let documents = from.u32()?;
        let count = from.u32()?;
        let nodes = (0..count)
            .map(|_| read_node(&mut from))
            .collect::<io::Result<Vec<_>>>()?;
        if nodes.is_empty() || nodes.iter().zip(0..).skip(1).any(|(node, id)| node.parent >= id) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the paths of the split do not form a tree",
            ));
        }
        let paths = Self::new(documents, nodes);
        Ok(Self {
            header_only: from.bitmap()?,
            untracked: from.bitmap()?,
            partly_indexed: from.bitmap()?,
            oversized_tokens: from.bitmap()?,
            ..paths
        })
    }
}

fn read_node(from: &mut ByteReader) -> io::Result<PathNode> {
    let (parent, key, flags) = (from.u32()?, from.text()?, from.u32()?);
    let (outside, inside) = (ArrayScope::read(from)?, ArrayScope::read(from)?);
    let sample = if flags & 4 != 0 { Some(from.text()?) } else { None };
    Ok(PathNode {
        parent,
        key: key.into(),
        column: flags & 1 != 0,
        postings: flags & 2 != 0,
        outside,
        inside,
        sample,
    })
}
