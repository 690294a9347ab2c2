#![doc = include_str!("../README.md")]

pub mod changes;
pub mod kafka;
pub mod service;

pub use changes::{FileChanges, LogFileError};
pub use kafka::{Tailer, TailerOptions};
