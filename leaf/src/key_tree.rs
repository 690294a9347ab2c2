//! Key tree: paths as a tree of the keys of JSON objects, with a value for each path.
//!
//! Documents of one stream usually have the same keys in the same order. So a lookup first tries the child that follows
//! the last one found, needs one comparison, and allocates nothing.

use std::{
    collections::HashMap,
    ops::{Index, IndexMut},
};

use plan::{Path, path::Step};

/// The path of the whole document. It is its own parent.
pub(crate) const ROOT: u32 = 0;
/// A path with more children finds them by hash.
const SCANNED_CHILDREN_MAX: usize = 8;

#[derive(Debug, Clone, Default, PartialEq)]
struct KeyNode<T> {
    parent: u32,
    key: Box<str>,
    children: Vec<u32>,
    /// The indexes of `children` by key, if there are too many to scan.
    by_key: Option<HashMap<Box<str>, u32>>,
    value: T,
}

/// A tree of paths. Each has an id, and parents have lower ids than their children.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeyTree<T> {
    nodes: Vec<KeyNode<T>>,
}

impl<T: Default> Default for KeyTree<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Index<u32> for KeyTree<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        &self.nodes[id as usize].value
    }
}

impl<T> IndexMut<u32> for KeyTree<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.nodes[id as usize].value
    }
}

impl<T> KeyTree<T> {
    /// A tree of the root only.
    pub(crate) fn new(root: T) -> Self {
        Self {
            nodes: vec![node(ROOT, "", root)],
        }
    }

    /// The number of paths, including the root.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The values with their ids, parents first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(self.nodes.iter().map(|node| &node.value))
    }

    /// All values, parents first.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.nodes.iter_mut().map(|node| &mut node.value)
    }

    /// The paths but the root, parents first: parent, last key and value.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (u32, &str, &T)> {
        self.nodes
            .iter()
            .skip(1)
            .map(|node| (node.parent, &*node.key, &node.value))
    }

    /// The path with one more key, if it is in the tree. `expected` begins at 0 for each object; then it is the child
    /// after the last one found.
    pub(crate) fn child(&self, parent: u32, key: &str, expected: &mut usize) -> Option<u32> {
        let KeyNode { children, by_key, .. } = &self.nodes[parent as usize];
        let is = |id: &u32| *self.nodes[*id as usize].key == *key;
        if !children.get(*expected).is_some_and(is) {
            *expected = match by_key {
                Some(table) => *table.get(key)? as usize,
                None => children.iter().position(is)?,
            };
        }
        *expected += 1;
        children.get(*expected - 1).copied()
    }

    /// Adds a path that is not in the tree yet.
    pub(crate) fn add(&mut self, parent: u32, key: &str, value: T) -> u32 {
        let id = self.nodes.len() as u32;
        self.nodes.push(node(parent, key, value));
        self.link(parent, id);
        id
    }

    /// Adds a node to the children of its parent.
    fn link(&mut self, parent: u32, id: u32) {
        let KeyNode { children, by_key, .. } = &mut self.nodes[parent as usize];
        let index = children.len();
        children.push(id);
        if let Some(mut table) = by_key.take() {
            table.insert(self.nodes[id as usize].key.clone(), index as u32);
            self.nodes[parent as usize].by_key = Some(table);
        } else if index >= SCANNED_CHILDREN_MAX {
            let children = &self.nodes[parent as usize].children;
            let key = |id: &u32| self.nodes[*id as usize].key.clone();
            let table = children.iter().map(key).zip(0..).collect();
            self.nodes[parent as usize].by_key = Some(table);
        }
    }

    /// The path with these keys, if it is in the tree.
    pub(crate) fn find<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Option<u32> {
        keys.into_iter().try_fold(ROOT, |at, key| self.child(at, key, &mut 0))
    }

    /// The keys of a path.
    pub(crate) fn path(&self, mut id: u32) -> Path {
        let mut steps = Vec::new();
        while id != ROOT {
            let node = &self.nodes[id as usize];
            steps.push(Step::Key(node.key.clone()));
            id = node.parent;
        }
        steps.reverse();
        Path::new(steps)
    }

    /// The tree with other values at the same paths.
    pub(crate) fn into_map<U>(self, mut map: impl FnMut(T) -> U) -> KeyTree<U> {
        let mapped = self.nodes.into_iter().map(|node| KeyNode {
            parent: node.parent,
            key: node.key,
            children: node.children,
            by_key: node.by_key,
            value: map(node.value),
        });
        KeyTree {
            nodes: mapped.collect(),
        }
    }

    /// Removes paths, each with everything below it. The root stays; the other ids change.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let old = std::mem::take(&mut self.nodes);
        let mut new_ids: Vec<Option<u32>> = Vec::with_capacity(old.len());
        for KeyNode { parent, key, value, .. } in old {
            if new_ids.is_empty() {
                self.nodes.push(node(ROOT, "", value));
                new_ids.push(Some(ROOT));
                continue;
            }
            let parent = new_ids[parent as usize].filter(|_| keep(&value));
            new_ids.push(parent.map(|parent| self.add(parent, &key, value)));
        }
    }
}

fn node<T>(parent: u32, key: &str, value: T) -> KeyNode<T> {
    KeyNode {
        parent,
        key: key.into(),
        children: Vec::new(),
        by_key: None,
        value,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A path as a list of short keys, so that many paths share prefixes.
    fn keys() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec((0..30u32).prop_map(|key| format!("k{key}")), 1..4)
    }

    fn add_all(tree: &mut KeyTree<u32>, keys: &[String], value: u32) -> u32 {
        keys.iter().fold(ROOT, |at, key| {
            let found = tree.child(at, key, &mut 0);
            found.unwrap_or_else(|| tree.add(at, key, value))
        })
    }

    proptest! {
        #[test]
        fn a_tree_finds_what_a_map_of_paths_finds(
            paths in prop::collection::vec((keys(), 0..9u32), 0..200),
            prune: bool,
        ) {
            let (mut tree, mut model) = (KeyTree::new(0), BTreeMap::from([(Vec::new(), 0)]));
            for (keys, value) in &paths {
                add_all(&mut tree, keys, *value);
                for length in 1..=keys.len() {
                    model.entry(keys[..length].to_vec()).or_insert(*value);
                }
            }
            let keep = |value: &u32| !prune || value.is_multiple_of(2);
            if prune {
                tree.retain(keep);
                let all = model.clone();
                model.retain(|keys, _| (1..=keys.len()).all(|length| keep(&all[&keys[..length]])));
            }
            prop_assert_eq!(tree.len(), model.len());
            for (id, value) in tree.iter() {
                let path = tree.path(id);
                let keys: Vec<String> = path.keys().expect("it has no index").into_iter().map(str::to_owned).collect();
                prop_assert_eq!(model.get(&keys), Some(value));
                prop_assert_eq!(tree.find(keys.iter().map(String::as_str)), Some(id));
            }
            prop_assert_eq!(tree.find(["other"]), None);
            prop_assert_eq!(tree.clone().into_map(|value| value), tree);
        }
    }

    #[test]
    fn children_in_the_same_order_are_found_without_a_search() {
        let mut tree = KeyTree::new(());
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let added: Vec<u32> = keys.iter().map(|key| tree.add(ROOT, key, ())).collect();
        let mut expected = 0;
        for (position, (key, id)) in keys.iter().zip(added).enumerate() {
            assert_eq!(expected, position);
            assert_eq!(tree.child(ROOT, key, &mut expected), Some(id));
        }
        assert_eq!(tree.child(ROOT, "7", &mut expected), Some(8));
        assert_eq!(expected, 8, "the next child is expected after the one found");
    }
}
