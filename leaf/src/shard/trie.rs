//! Trie of the paths of a partition with the kinds of values seen at each, updated with every document. Nothing is
//! allocated unless a path or a kind is new.

use std::collections::HashSet;

use plan::{Kinds, Path, path::Step};
use proto::{
    json::Value,
    limits::{PATHS_BYTES_MAX, PATHS_MAX},
};

use crate::key_tree::{KeyTree, ROOT};

/// Total length of the keys of a path; longer paths are not recorded.
const PATH_BYTES_MAX: usize = 4_096;

/// What was seen of a path.
#[derive(Default)]
struct SeenPath {
    /// The total length of its keys.
    bytes: usize,
    kinds: Kinds,
    unsaved: bool,
}

/// Kinds by path, for one partition.
#[derive(Default)]
pub(crate) struct Trie {
    paths: KeyTree<SeenPath>,
    /// The total length of all paths.
    bytes: usize,
    unsaved: Vec<u32>,
    overflow: bool,
    overflow_unsaved: bool,
}

impl Trie {
    /// Loads the stored kinds.
    pub(crate) fn load(paths: impl IntoIterator<Item = (Path, Kinds)>, overflow: bool) -> Self {
        let mut trie = Self {
            overflow,
            ..Self::default()
        };
        for (path, kinds) in paths {
            let step = |at: Option<u32>, step: &Step| match step {
                Step::Key(key) => trie.child(at?, key, &mut 0),
                Step::Index(_) => None,
            };
            if let Some(node) = path.steps().iter().fold(Some(ROOT), step) {
                trie.paths[node].kinds |= kinds;
            }
        }
        trie
    }

    /// Records the paths and kinds of a document.
    pub(crate) fn observe(&mut self, document: &Value) {
        self.descend(ROOT, document, false);
    }

    /// The paths with new kinds since the last [`Self::saved`], each with all of its kinds.
    pub(crate) fn unsaved(&self) -> Vec<(Path, Kinds)> {
        self.unsaved
            .iter()
            .map(|node| (self.paths.path(*node), self.paths[*node].kinds))
            .collect()
    }

    /// All paths.
    pub(crate) fn known(&self) -> HashSet<Path> {
        (0..self.paths.len() as u32)
            .filter(|node| *node != ROOT)
            .map(|node| self.paths.path(node))
            .collect()
    }

    /// Whether the path limit was first exceeded since the last [`Self::saved`].
    pub(crate) fn overflow_unsaved(&self) -> bool {
        self.overflow_unsaved
    }

    /// Marks everything as stored.
    pub(crate) fn saved(&mut self) {
        for node in std::mem::take(&mut self.unsaved) {
            self.paths[node].unsaved = false;
        }
        self.overflow_unsaved = false;
    }

    fn descend(&mut self, node: u32, value: &Value, in_array: bool) {
        match value {
            Value::Object(entries) => {
                let mut expected = 0;
                for (key, value) in entries {
                    let Some(child) = self.child(node, key, &mut expected) else {
                        continue;
                    };
                    self.mark(child, if in_array { Kinds::ELEMENT } else { Kinds::of(value) });
                    self.descend(child, value, in_array);
                }
            }
            Value::Array(items) => {
                if node != ROOT && !items.is_empty() {
                    self.mark(node, Kinds::ELEMENT);
                }
                for item in items
                    .iter()
                    .filter(|item| matches!(item, Value::Object(_) | Value::Array(_)))
                {
                    self.descend(node, item, true);
                }
            }
            _ => {}
        }
    }

    fn mark(&mut self, node: u32, kinds: Kinds) {
        let at = &mut self.paths[node];
        if kinds.only(at.kinds) {
            return;
        }
        at.kinds |= kinds;
        if !std::mem::replace(&mut at.unsaved, true) {
            self.unsaved.push(node);
        }
    }

    /// The child with a key. Adds it unless a limit is reached.
    fn child(&mut self, parent: u32, key: &str, expected: &mut usize) -> Option<u32> {
        if let Some(child) = self.paths.child(parent, key, expected) {
            return Some(child);
        }
        let bytes = self.paths[parent].bytes + key.len();
        let is_full = self.paths.len() > PATHS_MAX || self.bytes + bytes > PATHS_BYTES_MAX;
        if is_full || bytes > PATH_BYTES_MAX {
            self.overflow_unsaved |= !self.overflow;
            self.overflow = true;
            return None;
        }
        self.bytes += bytes;
        let seen = SeenPath {
            bytes,
            ..SeenPath::default()
        };
        Some(self.paths.add(parent, key, seen))
    }
}

#[cfg(test)]
mod tests;
