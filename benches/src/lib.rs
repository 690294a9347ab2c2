#![doc = include_str!("../README.md")]

pub mod baseline;
pub mod bluesky;
pub mod measure;
