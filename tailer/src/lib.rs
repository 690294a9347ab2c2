#![doc = include_str!("../README.md")]

pub mod changes;
pub mod error;
pub mod kafka;
pub mod service;

pub use changes::FileChanges;
pub use error::Error;
pub use kafka::{Tailer, TailerOptions};
