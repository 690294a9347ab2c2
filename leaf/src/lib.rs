#![doc = include_str!("../README.md")]

pub mod document;
pub mod error;
pub mod options;
pub mod split;
pub mod view;

pub use error::Error;
pub use options::LeafOptions;
