#![doc = include_str!("../README.md")]

mod codec;
mod disk;
mod document;
mod error;
mod fault;
mod key_tree;
mod leaf;
mod matches;
mod options;
mod raw;
mod scan;
pub mod service;
mod shard;
mod split;
mod store;
mod threads;
mod view;

pub use codec::NewerVersion;
pub use error::Error;
pub use leaf::{Leaf, replicas::ReplicaLinks};
pub use options::LeafOptions;

#[cfg(test)]
mod tests;
