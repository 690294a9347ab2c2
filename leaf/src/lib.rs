#![doc = include_str!("../README.md")]

pub mod document;
pub mod error;
mod fault;
pub mod leaf;
pub mod options;
mod shard;
pub mod split;
mod store;
pub mod view;

pub use error::Error;
pub use leaf::Leaf;
pub use options::LeafOptions;
