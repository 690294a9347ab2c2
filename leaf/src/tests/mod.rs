//! Guarantees of a leaf: what it accepts, stores, shows and recovers.

mod damage;
mod dead_letters;
mod deletions;
pub(crate) mod made_up;
mod many;
mod push;
mod redrives;
mod replay;
mod segments;
pub(crate) mod splits;
pub(crate) mod support;
mod views;
