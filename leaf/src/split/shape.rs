//! Shape: what a part of a segment knows of every path. A column or an index is believed only where the shape says that
//! it is whole.
//!
//! Paths are a tree of keys; values that lie in an array on the way are told apart (`inside`) from those that do not
//! (`outside`), because a SQL path sees only the latter and a search sees both.

use std::{collections::HashMap, io};

use plan::{Kinds, Path, path::Step};
use roaring::RoaringBitmap;

use super::bytes::{Reader, Writer};

/// The document itself.
pub(super) const ROOT: u32 = 0;

/// What is known of the values of a path on one side of the arrays.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Side {
    /// Values by kind (outside of arrays a document has at most one value).
    pub nulls: u32,
    pub bools: u32,
    pub ints: u32,
    pub floats: u32,
    /// Strings that the dictionary holds.
    pub texts: u32,
    /// Documents with strings too long for the dictionary, numbers beyond double, arrays, objects.
    pub longs: RoaringBitmap,
    pub bigs: RoaringBitmap,
    pub arrays: RoaringBitmap,
    pub objects: RoaringBitmap,
}

impl Side {
    /// The kinds seen.
    pub fn kinds(&self) -> Kinds {
        let seen = [
            (self.nulls > 0, Kinds::NULL),
            (self.bools > 0, Kinds::BOOL),
            (self.ints > 0, Kinds::INT),
            (self.floats > 0, Kinds::FLOAT),
            (self.texts > 0 || !self.longs.is_empty(), Kinds::TEXT),
            (!self.bigs.is_empty(), Kinds::BIG),
            (!self.arrays.is_empty(), Kinds::ARRAY),
            (!self.objects.is_empty(), Kinds::OBJECT),
        ];
        seen.into_iter()
            .filter(|(any, _)| *any)
            .fold(Kinds::default(), |all, (_, kind)| all | kind)
    }

    /// Values other than null, where there is at most one a document.
    pub fn present(&self) -> u64 {
        let rare: u64 = [&self.longs, &self.bigs, &self.arrays, &self.objects]
            .iter()
            .map(|documents| documents.len())
            .sum();
        u64::from(self.bools) + u64::from(self.ints) + u64::from(self.floats) + u64::from(self.texts) + rare
    }

    fn write(&self, to: &mut Writer) -> io::Result<()> {
        for count in [self.nulls, self.bools, self.ints, self.floats, self.texts] {
            to.u32(count);
        }
        for documents in [&self.longs, &self.bigs, &self.arrays, &self.objects] {
            to.bitmap(documents)?;
        }
        Ok(())
    }

    fn read(from: &mut Reader) -> io::Result<Self> {
        Ok(Self {
            nulls: from.u32()?,
            bools: from.u32()?,
            ints: from.u32()?,
            floats: from.u32()?,
            texts: from.u32()?,
            longs: from.bitmap()?,
            bigs: from.bitmap()?,
            arrays: from.bitmap()?,
            objects: from.bitmap()?,
        })
    }
}

/// A path.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Node {
    /// The path one key shorter; the root is its own.
    pub parent: u32,
    /// The last key.
    pub key: Box<str>,
    /// Whether its scalars are in columns; if not, only the raw documents know them.
    pub column: bool,
    /// Whether its strings have postings, all of them.
    pub postings: bool,
    /// Values that do not lie in an array.
    pub outside: Side,
    /// Values that do.
    pub inside: Side,
    /// A value as JSON text.
    pub sample: Option<String>,
}

/// What a part knows of its paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shape {
    /// Documents in the part.
    pub documents: u32,
    /// All paths but those of `untracked`; the first is the root.
    pub nodes: Vec<Node>,
    /// Documents of which nothing is indexed.
    pub failed: RoaringBitmap,
    /// Documents with a value at a path that is not here.
    pub untracked: RoaringBitmap,
    /// Documents with a scalar at a path that has no column.
    pub unindexed: RoaringBitmap,
    /// Documents with a token too long for postings.
    pub giant: RoaringBitmap,
    by_key: HashMap<(u32, Box<str>), u32>,
}

impl Shape {
    /// Of these paths.
    pub fn new(documents: u32, nodes: Vec<Node>) -> Self {
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

    /// Where a path of keys is, if it was seen.
    pub fn find<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Option<u32> {
        keys.into_iter()
            .try_fold(ROOT, |at, key| self.by_key.get(&(at, key.into())).copied())
    }

    /// Documents of which a path that was not seen may still have a value.
    pub fn unknown(&self) -> RoaringBitmap {
        &self.failed | &self.untracked
    }

    /// The path of a node.
    pub fn path(&self, id: u32) -> Path {
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

    /// As bytes.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut to = Writer::default();
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
        for documents in [&self.failed, &self.untracked, &self.unindexed, &self.giant] {
            to.bitmap(documents)?;
        }
        Ok(to.into_bytes())
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        let documents = from.u32()?;
        let count = from.u32()?;
        let nodes = (0..count)
            .map(|_| read_node(&mut from))
            .collect::<io::Result<Vec<_>>>()?;
        if nodes.is_empty() || nodes.iter().zip(0..).skip(1).any(|(node, id)| node.parent >= id) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the paths of a split are no tree",
            ));
        }
        let shape = Self::new(documents, nodes);
        Ok(Self {
            failed: from.bitmap()?,
            untracked: from.bitmap()?,
            unindexed: from.bitmap()?,
            giant: from.bitmap()?,
            ..shape
        })
    }
}

fn read_node(from: &mut Reader) -> io::Result<Node> {
    let (parent, key, flags) = (from.u32()?, from.text()?, from.u32()?);
    let (outside, inside) = (Side::read(from)?, Side::read(from)?);
    let sample = if flags & 4 != 0 { Some(from.text()?) } else { None };
    Ok(Node {
        parent,
        key: key.into(),
        column: flags & 1 != 0,
        postings: flags & 2 != 0,
        outside,
        inside,
        sample,
    })
}
