//! Promises of a leaf: what it takes, keeps, shows and finds again.

mod push;
mod replay;
mod speed;
mod splits;
mod support;
mod views;
