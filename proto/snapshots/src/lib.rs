#![doc = include_str!("../README.md")]

mod manifest;
mod marker;
mod remove;
mod restore;
mod schedule;
mod store;
mod take;
mod verify;
mod write;

pub use manifest::{CollectionSnapshot, Manifest, ShardFiles, ShardSnapshot, StoredFile, Summary};
pub(crate) use marker::Marker;
pub use marker::{Running, Work};
pub use remove::{Removed, remove};
pub use restore::{RestoreRequest, RestoreStep, lists_of, plan_restore};
pub use schedule::{age, is_due, newest_first, of_schedule, surplus};
pub use store::{Known, SnapshotStore, hash_file};
pub use take::{Take, TakeInput, new_id};
pub use verify::{Verified, verify};
pub use write::{Pace, ShardSource, write_shard};
