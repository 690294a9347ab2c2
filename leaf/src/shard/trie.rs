//! The kinds of values seen at each path of a partition, kept up to date with every document.
//!
//! Documents of one stream have the same keys in the same order, so each node remembers which child came next the last
//! time: mostly a key is compared once, and nothing is allocated unless a path or a kind is new.

use std::collections::HashMap;

use plan::{Kinds, Path, path::Step};
use proto::{json::Value, limits::PATHS_MAX};

/// Bytes of the keys of one path; a longer one is not remembered.
const PATH_BYTES_MAX: usize = 4_096;
/// Above so many children a node looks them up by hash.
const SCANNED_CHILDREN_MAX: usize = 16;
const ROOT: u32 = 0;

#[derive(Default)]
struct Node {
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
pub struct Trie {
    nodes: Vec<Node>,
    unsaved: Vec<u32>,
    overflow: bool,
    overflow_unsaved: bool,
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            unsaved: Vec::new(),
            overflow: false,
            overflow_unsaved: false,
        }
    }
}

impl Trie {
    /// From what is stored.
    pub fn load(paths: impl IntoIterator<Item = (Path, Kinds)>, overflow: bool) -> Self {
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

    /// Takes note of a document.
    pub fn observe(&mut self, document: &Value) {
        self.descend(ROOT, document, false);
    }

    /// What is new since it was last saved.
    pub fn unsaved(&self) -> Vec<(Path, Kinds)> {
        self.unsaved
            .iter()
            .map(|node| (self.path(*node), self.nodes[*node as usize].kinds))
            .collect()
    }

    /// Whether it is new that there are more paths than are remembered.
    pub fn overflow_unsaved(&self) -> bool {
        self.overflow_unsaved
    }

    /// All that was new is stored now.
    pub fn saved(&mut self) {
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

    /// The child of a key; a new one is made unless there are too many.
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
        self.nodes.push(Node {
            parent,
            key: key.into(),
            bytes,
            ..Node::default()
        });
        let node = &mut self.nodes[parent as usize];
        let at = node.children.len();
        node.children.push(child);
        node.next = at + 1;
        self.index_children(parent, at);
        Some(child)
    }

    /// Keeps the hash of children from the moment on when there are too many to scan.
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
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn observe(trie: &mut Trie, document: &str) {
        trie.observe(&proto::json::parse(document.as_bytes()).expect("json"));
    }

    fn kinds(trie: &Trie) -> BTreeMap<String, Kinds> {
        trie.unsaved()
            .into_iter()
            .map(|(path, kinds)| (path.to_string(), kinds))
            .collect()
    }

    #[test]
    fn kinds_add_up_over_documents() {
        let mut trie = Trie::default();
        observe(
            &mut trie,
            r#"{"a":1,"b":{"c":"x","d":null},"e":[1,{"f":2},[{"g":true}]],"h":[]}"#,
        );
        observe(&mut trie, r#"{"b":7,"a":1.5}"#);
        let expected = [
            ("a", Kinds::INT | Kinds::FLOAT),
            ("b", Kinds::OBJECT | Kinds::INT),
            ("b.c", Kinds::TEXT),
            ("b.d", Kinds::NULL),
            ("e", Kinds::ARRAY | Kinds::ELEMENT),
            ("e.f", Kinds::ELEMENT),
            ("e.g", Kinds::ELEMENT),
            ("h", Kinds::ARRAY),
        ];
        assert_eq!(
            kinds(&trie),
            expected
                .into_iter()
                .map(|(path, kinds)| (path.to_owned(), kinds))
                .collect()
        );
    }

    #[test]
    fn only_what_is_new_is_unsaved() {
        let mut trie = Trie::default();
        observe(&mut trie, r#"{"a":1,"b":2}"#);
        let stored = trie.unsaved();
        trie.saved();
        observe(&mut trie, r#"{"b":3,"a":4}"#);
        assert_eq!(trie.unsaved(), []);
        let mut again = Trie::load(stored, false);
        observe(&mut again, r#"{"b":3,"a":true,"c":null}"#);
        assert_eq!(
            kinds(&again),
            [
                ("a".to_owned(), Kinds::INT | Kinds::BOOL),
                ("c".to_owned(), Kinds::NULL)
            ]
            .into()
        );
    }

    #[test]
    fn many_children_and_too_many_paths_are_no_trouble() {
        let mut trie = Trie::default();
        let wide = |from: usize, to: usize| {
            format!(
                "{{{}}}",
                (from..to)
                    .map(|i| format!("\"k{i}\":{i}"))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        };
        observe(&mut trie, &wide(0, 20));
        observe(&mut trie, &wide(10, 9_000));
        assert!(!trie.overflow_unsaved());
        observe(&mut trie, &wide(5_000, 30_000));
        assert!(trie.overflow_unsaved());
        assert_eq!(trie.unsaved().len(), PATHS_MAX);
        trie.saved();
        observe(&mut trie, &wide(0, 30_000));
        assert_eq!((trie.unsaved().len(), trie.overflow_unsaved()), (0, false));
        observe(&mut trie, &format!("{{\"{}\":1}}", "x".repeat(PATH_BYTES_MAX + 1)));
        assert_eq!(trie.unsaved().len(), 0, "a path beyond the limits is not remembered");
    }
}
