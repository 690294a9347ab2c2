#![doc = include_str!("../README.md")]

pub mod arrays;
pub mod builder;
pub mod byte_lru;
pub mod calendar;
pub mod client;
pub mod column;
pub mod functions;
pub mod kinds;
pub mod matcher;
pub mod nearest;
pub mod parser;
pub mod path;
pub mod pushdown;
pub mod regex_states;
pub mod scan;
pub mod search;
pub mod simplify;
pub mod token;
pub mod value;
pub mod views;
pub mod walk;
pub mod wire;

pub use column::{Column, ColumnSource, PathType, Type};
pub use kinds::{Kinds, PathKinds};
pub use path::Path;
