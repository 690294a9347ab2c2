//! How mixed values behave in SQL: a reference evaluator in plain Rust that shares no code with the server.
//!
//! The rules: equality is decided per value and is false, never NULL, between kinds; a quoted literal also equals the
//! number or boolean that it spells; order between kinds is NULL; a value's text is what `->>` returns; arithmetic
//! accepts only numbers; two values are in one group exactly if `=` is true. `value` defines them, `evaluate` applies
//! them to an expression and `answer` to a statement, `generate` makes random documents and statements, and
//! `difference` compares answers.
//!
//! Where the rules do not define a result, the evaluator returns [`Unspecified`]. Such a statement is still run by
//! columns and from raw documents, with and without stray values, and these answers must agree. Unspecified are
//!
//! - the text of a list or an object that is not written compactly, and of a computed number;
//! - the order among lists and objects, and of a boolean against a quoted literal;
//! - casts that round or guess: 1.5 to an integer, a string with a fraction to an integer, numbers to booleans and
//!   back, 'y' and '1' to booleans;
//! - arithmetic and doubles beyond 2^53, and sums that contain such a value;
//! - the order of booleans, lists and objects behind numbers and strings: any order, as long as it is stable.

mod answer;
mod difference;
mod evaluate;
mod expression;
mod generate;
mod statement;
mod value;

pub use answer::ExpectedRows;
pub use expression::{ComparisonOp, EvalExpr, Row};
pub use generate::{Documents, MixedGenerator};
pub use statement::EvalStatement;
pub use value::{Number, SqlValue, Unspecified};
