#![doc = include_str!("../README.md")]

pub mod arrays;
pub mod builder;
pub mod clause;
pub mod client;
pub mod column;
pub mod functions;
pub mod kinds;
pub mod path;
pub mod pushdown;
pub mod scan;
pub mod search;
pub mod simplify;
pub mod token;
pub mod value;
pub mod wire;

pub use column::{Column, Type, View, What};
pub use kinds::{Kinds, PathKinds};
pub use path::Path;
