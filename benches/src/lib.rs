#![doc = include_str!("../README.md")]

mod access_log;
mod answer;
mod bluesky;
mod consumer;
mod documents;
mod feed;
mod footprint;
mod github;
mod measure;
mod question;
mod report;
pub mod rivals;
pub mod suite;
mod system;
