//! Path statistics: the first of two passes over the documents of a part. It counts how many documents have each path
//! and which paths hold running text. This decides which paths get columns and which get postings.
//!
//! Memory is bounded: a document may add a limited number of new paths, and when there are too many, the rarest are
//! pruned. So if junk keys arrive before good ones, the junk loses its index and not the good keys.

use std::collections::HashMap;

use proto::json::Value;

use super::path_tree::{PathNode, ROOT};

/// Paths that a part tracks, not counting new paths of the latest document.
const PATHS_MAX: usize = 20_000;
/// New paths that one document may add.
const DOCUMENT_PATHS_MAX: usize = 5_000;
/// Paths with columns.
const COLUMN_PATHS_MAX: usize = 2_000;
/// Bytes of the longest string in a dictionary.
pub(super) const DICTIONARY_VALUE_BYTES_MAX: usize = 256;
/// Above this number of children, a path finds them by a hash table.
const CHILDREN_LISTED_MAX: usize = 8;

/// A path and its counts.
#[derive(Debug, Default)]
struct PathCounts {
    parent: u32,
    key: Box<str>,
    children: Vec<u32>,
    by_key: Option<HashMap<Box<str>, u32>>,
    /// Documents that have it.
    documents: u32,
    /// The last of these documents, counted from 1.
    last_document: u32,
    scalars: bool,
    text_like: bool,
}

/// The paths seen so far.
#[derive(Debug)]
pub(super) struct PathStats {
    paths: Vec<PathCounts>,
}

impl PathStats {
    pub(super) fn new() -> Self {
        Self {
            paths: vec![PathCounts::default()],
        }
    }

    /// Counts the paths of the next document. Documents are numbered from 0.
    pub(super) fn document(&mut self, number: u32, value: &Value) {
        if self.paths.len() > PATHS_MAX {
            self.prune_rarest_paths();
        }
        let paths_max = self.paths.len() + DOCUMENT_PATHS_MAX;
        self.visit(ROOT, value, number + 1, paths_max);
    }

    fn visit(&mut self, at: u32, value: &Value, document: u32, paths_max: usize) {
        let counts = &mut self.paths[at as usize];
        if counts.last_document != document {
            counts.last_document = document;
            counts.documents += 1;
        }
        match value {
            Value::Null | Value::Big(_) => {}
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => counts.scalars = true,
            Value::Text(text) => {
                counts.scalars = true;
                counts.text_like = counts.text_like || is_text_like(text);
            }
            Value::Array(items) => items.iter().for_each(|item| self.visit(at, item, document, paths_max)),
            Value::Object(entries) => {
                let mut expected = 0;
                for (key, value) in entries {
                    if let Some(child) = self
                        .child(at, key, &mut expected)
                        .or_else(|| self.add(at, key, paths_max))
                    {
                        self.visit(child, value, document, paths_max);
                    }
                }
            }
        }
    }

    /// The path with one more key. Similar documents have their keys in the same order, so the child at `expected`,
    /// which follows the last one found, is tried first.
    pub(super) fn child(&self, at: u32, key: &str, expected: &mut usize) -> Option<u32> {
        let PathCounts { children, by_key, .. } = &self.paths[at as usize];
        let is = |id: &u32| *self.paths[*id as usize].key == *key;
        if let Some(id) = children.get(*expected).filter(|id| is(id)) {
            *expected += 1;
            return Some(*id);
        }
        match by_key {
            Some(table) => table.get(key).copied(),
            None => {
                let position = children.iter().position(is)?;
                *expected = position + 1;
                children.get(position).copied()
            }
        }
    }

    fn add(&mut self, parent: u32, key: &str, paths_max: usize) -> Option<u32> {
        if self.paths.len() >= paths_max {
            return None;
        }
        let id = self.paths.len() as u32;
        self.paths.push(PathCounts {
            parent,
            key: key.into(),
            ..PathCounts::default()
        });
        self.link_child(parent, id);
        Some(id)
    }

    fn link_child(&mut self, parent: u32, id: u32) {
        let key = self.paths[id as usize].key.clone();
        let PathCounts { children, by_key, .. } = &mut self.paths[parent as usize];
        children.push(id);
        let child_count = children.len();
        match by_key {
            Some(table) => {
                table.insert(key, id);
            }
            None if child_count > CHILDREN_LISTED_MAX => {
                let table = self.paths[parent as usize]
                    .children
                    .iter()
                    .map(|id| (self.paths[*id as usize].key.clone(), *id))
                    .collect();
                self.paths[parent as usize].by_key = Some(table);
            }
            None => {}
        }
    }

    /// Removes the rarest paths until at most half of [`PATHS_MAX`] are left. A path is never rarer than one below it.
    fn prune_rarest_paths(&mut self) {
        let mut frequencies: Vec<u32> = self.paths.iter().skip(1).map(|counts| counts.documents).collect();
        frequencies.sort_unstable_by(|a, b| b.cmp(a));
        let threshold = frequencies.get(PATHS_MAX / 2).copied().unwrap_or(0);
        let old = std::mem::take(&mut self.paths);
        let mut new_ids: Vec<Option<u32>> = Vec::with_capacity(old.len());
        for (id, mut counts) in old.into_iter().enumerate() {
            let parent = new_ids.get(counts.parent as usize).copied().flatten();
            let keep = id == ROOT as usize || (counts.documents > threshold && parent.is_some());
            new_ids.push(keep.then_some(self.paths.len() as u32));
            if !keep {
                continue;
            }
            counts.children.clear();
            counts.by_key = None;
            counts.parent = parent.unwrap_or(ROOT);
            let (parent, id) = (counts.parent, self.paths.len() as u32);
            self.paths.push(counts);
            if id != ROOT {
                self.link_child(parent, id);
            }
        }
    }

    /// The nodes of the path tree, in the order of the paths. The most frequent paths get columns, and of these the
    /// text-like ones get postings.
    pub(super) fn nodes(&self) -> Vec<PathNode> {
        let mut ranked: Vec<usize> = (0..self.paths.len()).filter(|id| self.paths[*id].scalars).collect();
        ranked.sort_by_key(|id| std::cmp::Reverse(self.paths[*id].documents));
        let mut nodes: Vec<PathNode> = self
            .paths
            .iter()
            .map(|counts| PathNode {
                parent: counts.parent,
                key: counts.key.clone(),
                column: !counts.scalars,
                ..PathNode::default()
            })
            .collect();
        for id in ranked.into_iter().take(COLUMN_PATHS_MAX) {
            nodes[id].column = true;
            nodes[id].postings = self.paths[id].text_like;
        }
        nodes
    }
}

/// Whether a string is running text rather than an id: it has white space or non-ASCII letters, or is too long for the
/// dictionary.
fn is_text_like(text: &str) -> bool {
    text.len() > DICTIONARY_VALUE_BYTES_MAX || text.bytes().any(|b| !b.is_ascii() || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_keys_do_not_displace_good_keys() {
        let mut stats = PathStats::new();
        let junk: Vec<String> = (0..10)
            .map(|d| {
                format!(
                    "{{{}}}",
                    (0..10_000)
                        .map(|k| format!("\"j{d}_{k}\":{k}"))
                        .collect::<Vec<_>>()
                        .join(",")
                )
            })
            .collect();
        let good = r#"{"level":"error","ms":12}"#;
        let documents: Vec<&str> = junk
            .iter()
            .map(String::as_str)
            .chain(std::iter::repeat_n(good, 50))
            .collect();
        for (number, document) in documents.iter().enumerate() {
            stats.document(number as u32, &proto::json::parse(document.as_bytes()).expect("JSON"));
        }
        assert!(stats.paths.len() <= PATHS_MAX + DOCUMENT_PATHS_MAX);
        let nodes = stats.nodes();
        for key in ["level", "ms"] {
            assert!(
                nodes.iter().any(|node| &*node.key == key && node.column),
                "{key} has a column"
            );
        }
        assert!(nodes.iter().filter(|node| node.column).count() <= COLUMN_PATHS_MAX + 1);
    }

    #[test]
    fn pruning_keeps_every_path_under_its_parent() {
        let mut stats = PathStats::new();
        for number in 0..30 {
            let document = (0..1_000)
                .map(|k| format!("\"k{}\":{{\"x\":1,\"y{number}\":2}}", k + number * 700))
                .collect::<Vec<_>>()
                .join(",");
            stats.document(
                number,
                &proto::json::parse(format!("{{\"always\":{{\"a\":1}},{document}}}").as_bytes()).expect("JSON"),
            );
        }
        stats.prune_rarest_paths();
        let always = stats
            .child(ROOT, "always", &mut 0)
            .expect("a frequent path is not pruned");
        assert!(stats.child(always, "a", &mut 0).is_some());
        for (id, counts) in stats.paths.iter().enumerate().skip(1) {
            assert!((counts.parent as usize) < id);
            assert_eq!(stats.child(counts.parent, &counts.key, &mut 0), Some(id as u32));
        }
    }
}
