#![doc = include_str!("../README.md")]

pub mod address;
pub mod catalog;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod controller;
pub mod document_change;
pub mod ingest;
pub mod json;
pub mod limits;
pub mod node;
pub mod place_ranges;
pub mod problem;
pub mod rebalance;
pub mod record;
pub mod replacement;
pub mod replica;
pub mod routing;
pub mod service;
pub mod snapshot;
pub mod status;
pub mod tailer;
pub mod wire;

pub use address::{Address, Position, PositionVector, SourceName};
pub use catalog::{Catalog, CollectionName, CollectionUid};
pub use problem::{Code, Problem};
