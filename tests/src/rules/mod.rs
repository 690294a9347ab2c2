//! What values mean to each other, in plain Rust: an opinion on SQL over mixed documents that shares no code with the
//! server.
//!
//! The rules: equality looks at each value and is false, never NULL, between kinds; a quoted literal also equals the
//! number or boolean that it spells; order between kinds is NULL; as text a value is what `->>` gives; arithmetic takes
//! numbers only; two values are one group exactly where `=` says so. `value` has them, `expression` and `statement`
//! apply them row by row, `generate` writes documents and statements.
//!
//! Where the rules do not say what an answer is, the evaluator says so ([`Unsaid`]): such a statement is still asked by
//! columns and raw, and with and without stray values, which must agree. That is so of
//!
//! - the text of a list or an object that is not written compactly, and of a number that was computed;
//! - order among lists and objects, and of a boolean beside a quoted literal;
//! - casts that round or guess: 1.5 to an integer, text with a fraction to an integer, numbers to booleans and back,
//!   'y' and '1' to booleans;
//! - arithmetic and doubles beyond 2^53, and sums with such a value among them;
//! - the order of booleans, lists and objects behind numbers and texts, which may be any that is always the same.

mod expression;
mod generate;
mod statement;
mod value;

pub use expression::{Expr, Row};
pub use generate::{Documents, Generator};
pub use statement::{Answer, Statement};
pub use value::{Number, Unsaid, V};
