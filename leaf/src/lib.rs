#![doc = include_str!("../README.md")]

mod disk;
pub mod document;
pub mod error;
mod fault;
pub mod leaf;
pub mod matches;
pub mod options;
pub mod raw;
pub mod scan;
pub mod service;
mod shard;
pub mod split;
mod store;
pub mod view;

pub use error::Error;
pub use leaf::Leaf;
pub use options::LeafOptions;

// Unit tests share the fixture of the integration tests.
#[cfg(test)]
use crate as under_test;
#[cfg(test)]
#[allow(dead_code, reason = "no single test uses every helper")]
#[path = "../tests/leaf/support.rs"]
mod support;
