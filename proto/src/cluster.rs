//! Cluster membership and shard placement. Used by every role.
//!
//! Each node announces itself by a change of the catalog. Placement is part of the catalog, too: rendezvous hashing
//! computes it once, when a collection is created.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    address::{Malformed, malformed, name_conversions},
    catalog::CollectionUid,
    limits::{CAPACITY_MAX, ZONE_BYTES_MAX},
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A member of the cluster, as it has announced itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it does.
    pub role: Role,
    /// Where other nodes reach it, for example `http://10.0.0.7:7700`.
    pub url: String,
    /// The id of its data folder: a node of the same name with another data folder is another node.
    pub instance: Uuid,
    /// The part of the infrastructure that fails together, such as a rack or an availability zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How many shards a leaf takes in proportion to others: one with 2 gets twice as many as one with 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub capacity: u32,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(capacity: &u32) -> bool {
    *capacity == 1
}

impl Member {
    /// A member without a zone, of capacity 1.
    pub fn new(role: Role, url: impl Into<String>, instance: Uuid) -> Self {
        Self {
            role,
            url: url.into(),
            instance,
            zone: None,
            capacity: 1,
        }
    }

    /// Why its URL, zone or capacity is invalid, if one is.
    pub fn fault(&self) -> Option<String> {
        let rest = self.url.strip_prefix("http://").unwrap_or_default();
        let port = rest.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if rest.starts_with(':') || rest.contains(['/', '@', ' ']) || port.is_none_or(|port| port == 0) {
            let url = &self.url;
            return Some(format!("{url:?} is no URL of a node; one is http://10.0.0.7:7700"));
        }
        let is_zone = |zone: &String| (1..=ZONE_BYTES_MAX).contains(&zone.len()) && !zone.contains(char::is_control);
        if !self.zone.as_ref().is_none_or(is_zone) {
            return Some(format!(
                "a zone has 1 to {ZONE_BYTES_MAX} bytes, without control characters"
            ));
        }
        if !(1..=CAPACITY_MAX).contains(&self.capacity) {
            return Some(format!(
                "a capacity is a number from 1 to {CAPACITY_MAX}, not {}",
                self.capacity
            ));
        }
        None
    }
}

/// A leaf that can take shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementLeaf {
    /// Its name.
    pub name: NodeName,
    /// Its [capacity](Member::capacity).
    pub capacity: u32,
    /// Its [zone](Member::zone).
    pub zone: Option<String>,
}

/// Assigns the replicas of each shard of a new collection to leaves, each to another one, and to another zone as far as
/// there are zones. Of these leaves, the one that then holds the fewest replicas of this collection for its capacity is
/// next, and among those the one with the highest rendezvous weight. With fewer leaves than `replicas`, each leaf has a
/// replica of each shard.
pub fn place(collection: CollectionUid, shards: u32, replicas: u32, leaves: &[PlacementLeaf]) -> Vec<Vec<NodeName>> {
    let mut assigned = vec![0_u64; leaves.len()];
    let mut place_one = |number: u32, chosen: &[usize]| {
        let is_free = |leaf: &usize| !chosen.contains(leaf);
        // A leaf without a zone is a zone by itself.
        let shares_zone = |leaf: usize| {
            let zone = leaves[leaf].zone.as_ref();
            zone.is_some() && chosen.iter().any(|other| leaves[*other].zone.as_ref() == zone)
        };
        // Of two leaves, `(a + 1) / capacity` is compared without a division.
        let load = |leaf: usize, other: usize| (assigned[leaf] + 1) * u64::from(leaves[other].capacity);
        let compare = |a: usize, b: usize| {
            let by_zone = shares_zone(a).cmp(&shares_zone(b));
            by_zone.then_with(|| load(a, b).cmp(&load(b, a)))
        };
        let least = (0..leaves.len()).filter(is_free).min_by(|a, b| compare(*a, *b))?;
        let equal = (0..leaves.len())
            .filter(is_free)
            .filter(|leaf| compare(*leaf, least).is_eq());
        let prefix = format!("{collection}/{number}/");
        let weight = |leaf: &usize| xxh3_64([prefix.as_str(), leaves[*leaf].name.as_str()].concat().as_bytes());
        let best = equal.max_by_key(weight)?;
        assigned[best] += 1;
        Some(best)
    };
    let place_replicas = |number| {
        let mut chosen = Vec::new();
        while chosen.len() < replicas.max(1) as usize
            && let Some(leaf) = place_one(number, &chosen)
        {
            chosen.push(leaf);
        }
        let names: Vec<NodeName> = chosen.iter().map(|leaf| leaves[*leaf].name.clone()).collect();
        (!names.is_empty()).then_some(names)
    };
    (0..shards).map_while(place_replicas).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(capacities: &[u32]) -> Vec<PlacementLeaf> {
        let leaf = |(number, capacity): (usize, &u32)| PlacementLeaf {
            name: format!("leaf-{number}").parse().expect("a name"),
            capacity: *capacity,
            zone: None,
        };
        capacities.iter().enumerate().map(leaf).collect()
    }

    /// How many replicas each leaf holds.
    fn held(placed: &[Vec<NodeName>], leaves: &[PlacementLeaf]) -> Vec<usize> {
        let count = |leaf: &PlacementLeaf| placed.iter().filter(|row| row.contains(&leaf.name)).count();
        leaves.iter().map(count).collect()
    }

    #[test]
    fn placement_is_even_and_deterministic() {
        let uid = CollectionUid(Uuid::from_u128(7));
        for (shards, count) in [(1, 3), (4, 3), (16, 5), (1024, 7)] {
            let leaves = leaves(&vec![1; count]);
            let placed = place(uid, shards, 1, &leaves);
            assert_eq!(placed, place(uid, shards, 1, &leaves));
            let held = held(&placed, &leaves);
            assert!(
                held.iter().max() <= held.iter().min().map(|least| least + 1).as_ref(),
                "{shards} on {count}: {held:?}"
            );
        }
        assert!(place(uid, 4, 2, &[]).is_empty());
    }

    #[test]
    fn a_leaf_takes_shards_in_proportion_to_its_capacity() {
        let leaves = leaves(&[1, 3, 2]);
        let placed = place(CollectionUid(Uuid::from_u128(7)), 12, 1, &leaves);
        assert_eq!(held(&placed, &leaves), [2, 6, 4]);
    }

    #[test]
    fn replicas_of_a_shard_are_on_different_leaves_and_in_different_zones() {
        let uid = CollectionUid(Uuid::from_u128(7));
        let mut leaves = leaves(&[1; 6]);
        for (number, leaf) in leaves.iter_mut().enumerate() {
            leaf.zone = Some(format!("zone-{}", number % 3));
        }
        let zone_of = |name: &NodeName| {
            leaves
                .iter()
                .find(|leaf| leaf.name == *name)
                .and_then(|leaf| leaf.zone.clone())
        };
        for replicas in [2, 3] {
            let placed = place(uid, 60, replicas, &leaves);
            for row in &placed {
                let zones: std::collections::BTreeSet<_> = row.iter().map(zone_of).collect();
                assert_eq!(
                    (row.len(), zones.len()),
                    (replicas as usize, replicas as usize),
                    "{row:?}"
                );
            }
            assert_eq!(held(&placed, &leaves), [10 * replicas as usize; 6]);
        }
        let placed = place(uid, 4, 4, &leaves);
        let distinct = |row: &Vec<NodeName>| row.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(
            placed.iter().all(|row| distinct(row) == 4),
            "there are only three zones"
        );
        assert!(
            place(uid, 4, 3, &leaves[..2]).iter().all(|row| row.len() == 2),
            "there are only two leaves"
        );
    }

    #[test]
    fn a_member_has_a_url_a_zone_and_a_capacity_that_make_sense() {
        let member = |url: &str| Member::new(Role::Leaf, url, Uuid::nil());
        for good in [
            "http://10.0.0.7:7700",
            "http://leaf-0.leaf:1",
            "http://[2001:db8::1]:7700",
        ] {
            assert_eq!(member(good).fault(), None, "{good}");
        }
        for bad in [
            "",
            "leaf-1:7700",
            "https://a:1",
            "http://a",
            "http://:1",
            "http://a:0",
            "http://a:1/b",
            "http://a:99999",
        ] {
            assert!(member(bad).fault().is_some(), "{bad}");
        }
        for zone in ["", "a\nb", &"z".repeat(ZONE_BYTES_MAX + 1)] {
            let zoned = Member {
                zone: Some(zone.to_owned()),
                ..member("http://a:1")
            };
            assert!(zoned.fault().is_some(), "{zone:?}");
        }
        for capacity in [0, CAPACITY_MAX + 1] {
            assert!(
                Member {
                    capacity,
                    ..member("http://a:1")
                }
                .fault()
                .is_some()
            );
        }
    }
}
