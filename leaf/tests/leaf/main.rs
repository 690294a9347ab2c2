//! Promises of a leaf: what it takes, keeps, shows and finds again.

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

// The crate's own tests use `support` too.
use leaf as under_test;
