//! Trie of the paths of a partition with the kinds of values seen at each, updated with every document.
//!
//! Documents of one stream usually have the same keys in the same order, so each node remembers which child came next
//! last time. A key usually needs one comparison, and nothing is allocated unless a path or a kind is new.

use std::collections::HashMap;

use plan::{Kinds, Path, path::Step};
use proto::{json::Value, limits::PATHS_MAX};

/// Total length of the keys of a path; longer paths are not recorded.
const PATH_BYTES_MAX: usize = 4_096;
/// A node with more children finds them by hash.
const SCANNED_CHILDREN_MAX: usize = 16;
const ROOT: u32 = 0;

#[derive(Default)]
struct TrieNode {
    parent: u32,
    key: Box<str>,
    bytes: usize,
    kinds: Kinds,
    unsaved: bool,
    children: Vec<u32>,
    by_key: HashMap<Box<str>, u32>,
    next: usize,
}

/// Kinds by path, for one partition.
pub(crate) struct Trie {
    nodes: Vec<TrieNode>,
    unsaved: Vec<u32>,
    overflow: bool,
    overflow_unsaved: bool,
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![TrieNode::default()],
            unsaved: Vec::new(),
            overflow: false,
            overflow_unsaved: false,
        }
    }
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
                Step::Key(key) => trie.child(at?, key),
                Step::Index(_) => None,
            };
            if let Some(node) = path.steps().iter().fold(Some(ROOT), step) {
                trie.nodes[node as usize].kinds |= kinds;
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
            .map(|node| (self.path(*node), self.nodes[*node as usize].kinds))
            .collect()
    }

    /// Whether the path limit was first exceeded since the last [`Self::saved`].
    pub(crate) fn overflow_unsaved(&self) -> bool {
        self.overflow_unsaved
    }

    /// Marks everything as stored.
    pub(crate) fn saved(&mut self) {
        for node in std::mem::take(&mut self.unsaved) {
            self.nodes[node as usize].unsaved = false;
        }
        self.overflow_unsaved = false;
    }

    fn descend(&mut self, node: u32, value: &Value, in_array: bool) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    let Some(child) = self.child(node, key) else { continue };
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
        let at = &mut self.nodes[node as usize];
        if kinds.only(at.kinds) {
            return;
        }
        at.kinds |= kinds;
        if !std::mem::replace(&mut at.unsaved, true) {
            self.unsaved.push(node);
        }
    }

    /// The child with a key. Creates it unless a limit is reached.
    fn child(&mut self, parent: u32, key: &str) -> Option<u32> {
        let node = &self.nodes[parent as usize];
        let expected = node
            .children
            .get(node.next)
            .copied()
            .filter(|child| *self.nodes[*child as usize].key == *key);
        if let Some(child) = expected {
            self.nodes[parent as usize].next += 1;
            return Some(child);
        }
        if let Some(at) = self.position(parent, key) {
            let node = &mut self.nodes[parent as usize];
            node.next = at + 1;
            return Some(node.children[at]);
        }
        self.add(parent, key)
    }

    fn position(&self, parent: u32, key: &str) -> Option<usize> {
        let node = &self.nodes[parent as usize];
        if node.children.len() > SCANNED_CHILDREN_MAX {
            return node.by_key.get(key).map(|at| *at as usize);
        }
        node.children
            .iter()
            .position(|child| *self.nodes[*child as usize].key == *key)
    }

    fn add(&mut self, parent: u32, key: &str) -> Option<u32> {
        let bytes = self.nodes[parent as usize].bytes + key.len();
        if self.nodes.len() > PATHS_MAX || bytes > PATH_BYTES_MAX {
            self.overflow_unsaved |= !self.overflow;
            self.overflow = true;
            return None;
        }
        let child = u32::try_from(self.nodes.len()).ok()?;
        self.nodes.push(TrieNode {
            parent,
            key: key.into(),
            bytes,
            ..TrieNode::default()
        });
        let node = &mut self.nodes[parent as usize];
        let at = node.children.len();
        node.children.push(child);
        node.next = at + 1;
        self.index_children(parent, at);
        Some(child)
    }

    /// Indexes children by hash once there are too many to scan.
    fn index_children(&mut self, parent: u32, from: usize) {
        let children = &self.nodes[parent as usize].children;
        if children.len() <= SCANNED_CHILDREN_MAX {
            return;
        }
        let from = if children.len() == SCANNED_CHILDREN_MAX + 1 {
            0
        } else {
            from
        };
        let entries: Vec<(Box<str>, u32)> = (from..children.len())
            .map(|at| {
                (
                    self.nodes[children[at] as usize].key.clone(),
                    u32::try_from(at).unwrap_or(u32::MAX),
                )
            })
            .collect();
        self.nodes[parent as usize].by_key.extend(entries);
    }

    fn path(&self, mut node: u32) -> Path {
        let mut steps = Vec::new();
        while node != ROOT {
            let at = &self.nodes[node as usize];
            steps.push(Step::Key(at.key.clone()));
            node = at.parent;
        }
        steps.reverse();
        Path::new(steps)
    }
}

#[cfg(test)]
mod tests;
