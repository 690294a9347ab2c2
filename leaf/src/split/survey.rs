//! Survey: the first of two passes over the documents of a part: which paths there are, how often, and which hold
//! running text. From it the second pass knows which paths get columns and which get postings.
//!
//! Memory is bounded: a document may bring a limited number of new paths, and when there are too many the rarest are
//! forgotten, so junk keys in front of good ones cost the junk its index, not the good ones theirs.

use std::collections::HashMap;

use proto::json::Value;

use super::shape::{Node, ROOT};

/// Paths that a part tells apart, those of the newest document aside.
const PATHS_MAX: usize = 20_000;
/// New paths that one document may bring.
const DOCUMENT_PATHS_MAX: usize = 5_000;
/// Paths with columns.
const COLUMN_PATHS_MAX: usize = 2_000;
/// Bytes of the longest string that a dictionary holds.
pub(super) const DICTIONARY_VALUE_BYTES_MAX: usize = 256;
/// Children above which a path finds them by a table.
const CHILDREN_LISTED_MAX: usize = 8;

/// A path on its way into the shape.
#[derive(Debug, Default)]
struct Seen {
    parent: u32,
    key: Box<str>,
    children: Vec<u32>,
    by_key: Option<HashMap<Box<str>, u32>>,
    /// Documents that have it.
    documents: u32,
    /// The last of these, counted from 1.
    last: u32,
    scalars: bool,
    text_like: bool,
}

/// The paths seen so far.
#[derive(Debug)]
pub(super) struct Survey {
    paths: Vec<Seen>,
}

impl Survey {
    pub fn new() -> Self {
        Self {
            paths: vec![Seen::default()],
        }
    }

    /// Notes a document. They come in order, numbered from 0.
    pub fn document(&mut self, number: u32, value: &Value) {
        if self.paths.len() > PATHS_MAX {
            self.forget_the_rarest();
        }
        let room = self.paths.len() + DOCUMENT_PATHS_MAX;
        self.visit(ROOT, value, number + 1, room);
    }

    fn visit(&mut self, at: u32, value: &Value, document: u32, room: usize) {
        let seen = &mut self.paths[at as usize];
        if seen.last != document {
            seen.last = document;
            seen.documents += 1;
        }
        match value {
            Value::Null | Value::Big(_) => {}
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => seen.scalars = true,
            Value::Text(text) => {
                seen.scalars = true;
                seen.text_like = seen.text_like || is_text_like(text);
            }
            Value::Array(items) => items.iter().for_each(|item| self.visit(at, item, document, room)),
            Value::Object(entries) => {
                let mut expected = 0;
                for (key, value) in entries {
                    if let Some(child) = self.child(at, key, &mut expected).or_else(|| self.add(at, key, room)) {
                        self.visit(child, value, document, room);
                    }
                }
            }
        }
    }

    /// The path one key further. Documents of one kind have their keys in one order, so the place after the last found
    /// is tried first.
    pub fn child(&self, at: u32, key: &str, expected: &mut usize) -> Option<u32> {
        let Seen { children, by_key, .. } = &self.paths[at as usize];
        let is = |id: &u32| *self.paths[*id as usize].key == *key;
        if let Some(id) = children.get(*expected).filter(|id| is(id)) {
            *expected += 1;
            return Some(*id);
        }
        match by_key {
            Some(table) => table.get(key).copied(),
            None => {
                let place = children.iter().position(is)?;
                *expected = place + 1;
                children.get(place).copied()
            }
        }
    }

    fn add(&mut self, parent: u32, key: &str, room: usize) -> Option<u32> {
        if self.paths.len() >= room {
            return None;
        }
        let id = self.paths.len() as u32;
        self.paths.push(Seen {
            parent,
            key: key.into(),
            ..Seen::default()
        });
        self.adopt(parent, id);
        Some(id)
    }

    fn adopt(&mut self, parent: u32, id: u32) {
        let key = self.paths[id as usize].key.clone();
        let Seen { children, by_key, .. } = &mut self.paths[parent as usize];
        children.push(id);
        let listed = children.len();
        match by_key {
            Some(table) => {
                table.insert(key, id);
            }
            None if listed > CHILDREN_LISTED_MAX => {
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

    /// Forgets paths until at most half as many as allowed are left, the rarest first. A path is never rarer than one
    /// below it.
    fn forget_the_rarest(&mut self) {
        let mut frequencies: Vec<u32> = self.paths.iter().skip(1).map(|seen| seen.documents).collect();
        frequencies.sort_unstable_by(|a, b| b.cmp(a));
        let bar = frequencies.get(PATHS_MAX / 2).copied().unwrap_or(0);
        let old = std::mem::take(&mut self.paths);
        let mut moved: Vec<Option<u32>> = Vec::with_capacity(old.len());
        for (id, mut seen) in old.into_iter().enumerate() {
            let parent = moved.get(seen.parent as usize).copied().flatten();
            let kept = id == ROOT as usize || (seen.documents > bar && parent.is_some());
            moved.push(kept.then_some(self.paths.len() as u32));
            if !kept {
                continue;
            }
            seen.children.clear();
            seen.by_key = None;
            seen.parent = parent.unwrap_or(ROOT);
            let (parent, id) = (seen.parent, self.paths.len() as u32);
            self.paths.push(seen);
            if id != ROOT {
                self.adopt(parent, id);
            }
        }
    }

    /// The paths as the shape has them, in the same order: the most frequent with columns, of these the text-like with
    /// postings.
    pub fn nodes(&self) -> Vec<Node> {
        let mut ranked: Vec<usize> = (0..self.paths.len()).filter(|id| self.paths[*id].scalars).collect();
        ranked.sort_by_key(|id| std::cmp::Reverse(self.paths[*id].documents));
        let mut nodes: Vec<Node> = self
            .paths
            .iter()
            .map(|seen| Node {
                parent: seen.parent,
                key: seen.key.clone(),
                column: !seen.scalars,
                ..Node::default()
            })
            .collect();
        for id in ranked.into_iter().take(COLUMN_PATHS_MAX) {
            nodes[id].column = true;
            nodes[id].postings = self.paths[id].text_like;
        }
        nodes
    }
}

/// Whether a string is running text rather than an id: it has white space, or letters beyond ASCII, or no place in the
/// dictionary.
fn is_text_like(text: &str) -> bool {
    text.len() > DICTIONARY_VALUE_BYTES_MAX || text.bytes().any(|b| !b.is_ascii() || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_keys_do_not_drive_out_good_ones() {
        let mut survey = Survey::new();
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
            survey.document(number as u32, &proto::json::parse(document.as_bytes()).expect("JSON"));
        }
        assert!(survey.paths.len() <= PATHS_MAX + DOCUMENT_PATHS_MAX);
        let nodes = survey.nodes();
        for key in ["level", "ms"] {
            assert!(
                nodes.iter().any(|node| &*node.key == key && node.column),
                "{key} has a column"
            );
        }
        assert!(nodes.iter().filter(|node| node.column).count() <= COLUMN_PATHS_MAX + 1);
    }

    #[test]
    fn forgetting_keeps_every_path_under_its_parent() {
        let mut survey = Survey::new();
        for number in 0..30 {
            let document = (0..1_000)
                .map(|k| format!("\"k{}\":{{\"x\":1,\"y{number}\":2}}", k + number * 700))
                .collect::<Vec<_>>()
                .join(",");
            survey.document(
                number,
                &proto::json::parse(format!("{{\"always\":{{\"a\":1}},{document}}}").as_bytes()).expect("JSON"),
            );
        }
        survey.forget_the_rarest();
        let always = survey.child(ROOT, "always", &mut 0).expect("a frequent path stays");
        assert!(survey.child(always, "a", &mut 0).is_some());
        for (id, seen) in survey.paths.iter().enumerate().skip(1) {
            assert!((seen.parent as usize) < id);
            assert_eq!(survey.child(seen.parent, &seen.key, &mut 0), Some(id as u32));
        }
    }
}
