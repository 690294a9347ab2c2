//! Snapshots: how an aggregator has leaves write the files of their shards to an object store. Shared by: leaf, crate
//! snapshots, `client/ingest.rs`.
//!
//! ```text
//! aggregator ── write shard 3 for snapshot S (what an earlier one has) ──> leaf: begins in the background
//!            <── so far; at the end the list of its files ──────────────────     again and again
//! ```
//!
//! The aggregator may repeat a call, or lose its answer: the leaf starts one upload for each snapshot and shard, and cancels
//! it after two minutes without a call.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    address::{Malformed, is_name, malformed, name_conversions},
    ingest::ShardId,
    problem::Problem,
};

/// The name of a snapshot, such as `20261130-021500-3f9a1c07`. Those of one cluster sort by when they were begun.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(Arc<str>);

name_conversions!(SnapshotId);

impl FromStr for SnapshotId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        match is_name(text, false) {
            true => Ok(Self(text.into())),
            false => Err(malformed(
                text,
                "the name of a snapshot (such as 20261130-021500-3f9a1c07; `rachis snapshot list` lists all)",
            )),
        }
    }
}

/// A file in a snapshot store, which is named by its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoredObject {
    /// The SHA-256 of its bytes.
    pub sha256: Sha256,
    /// Its size.
    pub bytes: u64,
}

/// A SHA-256; as text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let wrong = || malformed(text, "a SHA-256 of 64 hexadecimal digits");
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(is_hex) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> Self {
        hash.to_string()
    }
}

/// Has a leaf write the files of its replica of a shard to the snapshot store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSnapshotRequest {
    /// The snapshot. For each one, the files are those of one moment.
    pub snapshot: SnapshotId,
    /// The shard.
    pub shard: ShardId,
    /// The list of files that an earlier snapshot has of this shard: what has not changed since is not written again.
    pub earlier: Option<StoredObject>,
}

/// How far a leaf is with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSnapshotStatus {
    /// Bytes that are in the store, those of earlier snapshots included …
    pub bytes: u64,
    /// … of so many.
    pub total: u64,
    /// Bytes that were written for this snapshot.
    pub written: u64,
    /// How it has ended; `None` while it goes on.
    pub ended: Option<Result<StoredObject, Problem>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_as_its_digits_and_read_again() {
        let hash = Sha256(std::array::from_fn(|at| at as u8 * 7));
        let text = hash.to_string();
        assert!(text.starts_with("00070e15") && text.len() == 64, "{text}");
        assert_eq!(text.parse(), Ok(hash));
        for wrong in [
            "",
            "00",
            &text[..63],
            &text.to_uppercase(),
            &format!("{text}0"),
            &"é".repeat(32),
        ] {
            assert!(wrong.parse::<Sha256>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_name_of_a_snapshot_is_no_path() {
        for (text, is_name) in [
            ("20261130-021500-3f9a1c07", true),
            ("../objects", false),
            ("a/b", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<SnapshotId>().is_ok(), is_name, "{text}");
        }
    }
}
