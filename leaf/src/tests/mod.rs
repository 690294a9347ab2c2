//! Guarantees of a leaf: what it accepts, stores, shows and recovers.

mod damage;
mod dead_letters;
mod made_up;
mod many;
mod push;
mod replay;
mod segments;
mod splits;
mod support;
mod views;

// The unit tests of the crate include `support` as well; this name works in both.
use leaf as under_test;
