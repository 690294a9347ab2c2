//! Path statistics: counts how many documents of a part have each path, to choose the paths that the part tracks if it
//! cannot track all.
//!
//! Memory is bounded: a document may add a limited number of new paths, and when there are too many, the rarest are
//! pruned. So if junk keys arrive before good ones, the junk loses its index and not the good keys.

use proto::json::Value;

use crate::key_tree::{KeyTree, ROOT};

/// Paths that a part tracks, not counting new paths of the latest document.
pub(super) const PATHS_MAX: usize = 20_000;
/// New paths that one document may add.
pub(super) const DOCUMENT_PATHS_MAX: usize = 5_000;

/// The counts of a path.
#[derive(Debug, Default)]
struct PathCounts {
    /// Documents that have it.
    documents: u32,
    /// The last of these documents, counted from 1.
    last_document: u32,
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
            _ => {}
        }
    }

    /// Removes the rarest paths until at most half of [`PATHS_MAX`] are left. A path is never rarer than one below it.
    fn prune_rarest_paths(&mut self) {
        let mut frequencies: Vec<u32> = self.paths.iter().skip(1).map(|(_, counts)| counts.documents).collect();
        frequencies.sort_unstable_by(|a, b| b.cmp(a));
        let threshold = frequencies.get(PATHS_MAX / 2).copied().unwrap_or(0);
        self.paths.retain(|counts| counts.documents > threshold);
    }

    /// The paths.
    pub(super) fn into_paths(self) -> KeyTree<()> {
        self.paths.into_map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
