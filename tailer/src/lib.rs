#![doc = include_str!("../README.md")]

mod changes;
mod kafka;
pub mod service;

pub use changes::{
    CatalogFile, CatalogReplica, FileChanges, Follower, LogFileError, LogLineError,
    topic::{TopicChanges, create_change_log, read_change_log, restore_change_log},
};
pub use kafka::{Tailer, TailerOptions, cluster::ClusterKafka};
