#![doc = include_str!("../README.md")]

pub mod bluesky;
pub mod measure;
pub mod rival;
