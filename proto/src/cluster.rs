//! Cluster membership and shard placement. Used by every role.
//!
//! Each node reads the members from its settings. Placement is part of the catalog: rendezvous hashing computes it
//! once, when a collection is created.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    address::{Malformed, malformed, name_conversions},
    catalog::CollectionUid,
};

/// The name of a node, unique and stable across restarts: `[a-z0-9][a-z0-9.-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

name_conversions!(NodeName);

impl FromStr for NodeName {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        match (1..=63).contains(&text.len()) && text.bytes().all(allowed) && text.as_bytes()[0].is_ascii_alphanumeric()
        {
            true => Ok(Self(text.into())),
            false => Err(malformed(
                text,
                "the name of a node (lower-case letters, digits, `-` and `.`, at most 63, such as leaf-1)",
            )),
        }
    }
}

/// The role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads source topics and writes the change log.
    Tailer,
    /// Stores and scans shards.
    Leaf,
    /// Answers queries and takes pushes.
    Aggregator,
}

impl Role {
    /// The name of the role in settings and system tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tailer => "tailer",
            Self::Leaf => "leaf",
            Self::Aggregator => "aggregator",
        }
    }
}

/// All nodes and their URLs, for example `http://10.0.0.7:7700`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The URL of each node, by role and name.
    pub nodes: BTreeMap<(Role, NodeName), String>,
}

impl Members {
    /// Adds the nodes of a list `NAME=URL,NAME=URL`. The error says why the list is invalid.
    pub fn add(&mut self, role: Role, list: &str) -> Result<(), String> {
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, url) = entry
                .split_once('=')
                .ok_or_else(|| format!("{entry:?} is not NAME=URL"))?;
            let name: NodeName = name.trim().parse().map_err(|e: Malformed| e.to_string())?;
            let url = url.trim().trim_end_matches('/');
            if !url.starts_with("http://") || url.len() <= "http://".len() {
                return Err(format!(
                    "{url:?} is not a valid URL for {name}; an example is http://10.0.0.7:7700"
                ));
            }
            if self.nodes.keys().any(|(_, known)| *known == name) {
                return Err(format!("{name} is listed twice"));
            }
            if let Some(((_, other), _)) = self.nodes.iter().find(|(_, known)| *known == url) {
                return Err(format!("{other} and {name} have the same URL, {url}"));
            }
            self.nodes.insert((role, name), url.to_owned());
        }
        Ok(())
    }

    /// The nodes of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = (&NodeName, &str)> {
        self.nodes
            .iter()
            .filter(move |((node_role, _), _)| *node_role == role)
            .map(|((_, name), url)| (name, url.as_str()))
    }
}

/// Assigns each shard of a new collection to a leaf: the one with the highest rendezvous weight among those that hold
/// the fewest shards of this collection.
pub fn place(collection: CollectionUid, shards: u32, leaves: &[NodeName]) -> Vec<Vec<NodeName>> {
    if leaves.is_empty() {
        return Vec::new();
    }
    let mut assigned: BTreeMap<&NodeName, usize> = BTreeMap::new();
    let weight = |number: u32, leaf: &NodeName| xxh3_64(format!("{collection}/{number}/{leaf}").as_bytes());
    (0..shards)
        .map(|number| {
            let count = |leaf: &NodeName| assigned.get(leaf).copied().unwrap_or_default();
            let fewest = leaves.iter().map(count).min().unwrap_or_default();
            let best = leaves
                .iter()
                .filter(|leaf| count(leaf) == fewest)
                .max_by_key(|leaf| weight(number, leaf))
                .unwrap_or(&leaves[0]);
            *assigned.entry(best).or_default() += 1;
            vec![best.clone()]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<NodeName> {
        (1..=count)
            .map(|n| format!("leaf-{n}").parse().expect("a name"))
            .collect()
    }

    #[test]
    fn placement_is_even_and_deterministic() {
        let uid = CollectionUid(uuid::Uuid::from_u128(7));
        for (shards, count) in [(1, 3), (4, 3), (16, 5), (1024, 7)] {
            let placed = place(uid, shards, &leaves(count));
            assert_eq!(placed, place(uid, shards, &leaves(count)));
            let held: Vec<usize> = leaves(count)
                .iter()
                .map(|leaf| placed.iter().filter(|row| row[0] == *leaf).count())
                .collect();
            assert!(
                held.iter().max() <= held.iter().min().map(|least| least + 1).as_ref(),
                "{shards} on {count}: {held:?}"
            );
        }
        assert!(place(uid, 4, &[]).is_empty());
    }

    #[test]
    fn members_are_parsed_from_a_list() {
        let mut members = Members::default();
        members
            .add(Role::Leaf, "leaf-1=http://a:1/, leaf-2=http://b:2")
            .expect("a list");
        assert_eq!(
            members
                .of(Role::Leaf)
                .map(|(name, url)| format!("{name} {url}"))
                .collect::<Vec<_>>(),
            ["leaf-1 http://a:1", "leaf-2 http://b:2"]
        );
        for bad in [
            "leaf-3",
            "leaf-3=b:2",
            "Leaf=http://a:1",
            "leaf-1=http://c:3",
            "x=http://",
            "y=http://a:1",
        ] {
            assert!(members.clone().add(Role::Tailer, bad).is_err(), "{bad}");
        }
    }
}
