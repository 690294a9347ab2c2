#![doc = include_str!("../README.md")]

mod disk;
pub mod document;
pub mod error;
mod fault;
pub mod leaf;
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

// The crate's own tests use what those beside it use.
#[cfg(test)]
use crate as under_test;
#[cfg(test)]
#[allow(dead_code, reason = "not every test needs all of it")]
#[path = "../tests/leaf/support.rs"]
mod support;
