#![doc = include_str!("../README.md")]

pub mod clause;
pub mod column;
pub mod kinds;
pub mod path;
pub mod pushdown;
pub mod scan;
pub mod search;
pub mod token;
pub mod value;

pub use column::{Column, Type, View, What};
pub use kinds::{Kinds, PathKinds};
pub use path::Path;
