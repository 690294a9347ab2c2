#![doc = include_str!("../README.md")]

mod answer;
pub mod baseline;
pub mod bluesky;
mod documents;
mod footprint;
mod github;
pub mod measure;
pub mod overview;
mod question;
pub mod rivals;
pub mod suite;
mod system;
