//! Path statistics: the first of two passes over the documents of a part. It counts how many documents have each path
//! and which paths hold running text. This decides which paths get columns and which get postings.
//!
//! Memory is bounded: a document may add a limited number of new paths, and when there are too many, the rarest are
//! pruned. So if junk keys arrive before good ones, the junk loses its index and not the good keys.

use proto::json::Value;

use super::path_tree::PathNode;
use crate::key_tree::{KeyTree, ROOT};

/// Paths that a part tracks, not counting new paths of the latest document.
const PATHS_MAX: usize = 20_000;
/// New paths that one document may add.
const DOCUMENT_PATHS_MAX: usize = 5_000;
/// Paths with columns.
const COLUMN_PATHS_MAX: usize = 2_000;
/// Bytes of the longest string in a dictionary.
pub(super) const DICTIONARY_VALUE_BYTES_MAX: usize = 256;

/// The counts of a path.
#[derive(Debug, Default)]
struct PathCounts {
    /// Documents that have it.
    documents: u32,
    /// The last of these documents, counted from 1.
    last_document: u32,
    scalars: bool,
    text_like: bool,
}

/// The paths seen so far.
#[derive(Debug, Default)]
pub(super) struct PathStats {
    paths: KeyTree<PathCounts>,
}

impl PathStats {
    /// Counts the paths of the next document. Documents are numbered from 0.
    pub(super) fn document(&mut self, number: u32, value: &Value) {
        if self.paths.len() > PATHS_MAX {
            self.prune_rarest_paths();
        }
        let paths_max = self.paths.len() + DOCUMENT_PATHS_MAX;
        self.visit(ROOT, value, number + 1, paths_max);
    }

    fn visit(&mut self, at: u32, value: &Value, document: u32, paths_max: usize) {
        let counts = &mut self.paths[at];
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
                    let child = match self.paths.child(at, key, &mut expected) {
                        Some(child) => child,
                        None if self.paths.len() < paths_max => self.paths.add(at, key, PathCounts::default()),
                        None => continue,
                    };
                    self.visit(child, value, document, paths_max);
                }
            }
        }
    }

    /// Removes the rarest paths until at most half of [`PATHS_MAX`] are left. A path is never rarer than one below it.
    fn prune_rarest_paths(&mut self) {
        let mut frequencies: Vec<u32> = self.paths.iter().skip(1).map(|(_, counts)| counts.documents).collect();
        frequencies.sort_unstable_by(|a, b| b.cmp(a));
        let threshold = frequencies.get(PATHS_MAX / 2).copied().unwrap_or(0);
        self.paths.retain(|counts| counts.documents > threshold);
    }

    /// The same paths with what a recorder needs to know. The most frequent paths get columns, and of these the
    /// text-like ones get postings.
    pub(super) fn nodes(&self) -> KeyTree<PathNode> {
        let with_scalars = self.paths.iter().filter(|(_, counts)| counts.scalars);
        let mut ranked: Vec<(u32, &PathCounts)> = with_scalars.collect();
        ranked.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.documents));
        let mut nodes = self.paths.map(|counts| PathNode {
            column: !counts.scalars,
            ..PathNode::default()
        });
        for (id, counts) in ranked.into_iter().take(COLUMN_PATHS_MAX) {
            nodes[id].column = true;
            nodes[id].postings = counts.text_like;
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
        let mut stats = PathStats::default();
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
                nodes.find([key]).is_some_and(|node| nodes[node].column),
                "{key} has a column"
            );
        }
        assert!(nodes.iter().filter(|(_, node)| node.column).count() <= COLUMN_PATHS_MAX + 1);
    }

    #[test]
    fn pruning_keeps_frequent_paths_with_their_parents() {
        let mut stats = PathStats::default();
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
        assert!(
            stats.paths.find(["always", "a"]).is_some(),
            "a frequent path is not pruned"
        );
        assert!(stats.paths.len() <= PATHS_MAX / 2 + 1);
        for ((parent, key, _), id) in stats.paths.edges().zip(1..) {
            assert!(parent < id);
            assert_eq!(stats.paths.child(parent, key, &mut 0), Some(id));
        }
    }
}
