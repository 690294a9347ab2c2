#![doc = include_str!("../README.md")]

pub mod changes;
pub mod error;

pub use changes::FileChanges;
pub use error::Error;
