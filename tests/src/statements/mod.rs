//! Random SQL over real documents: a seed and a profile of the documents produce statements that both the server and
//! DuckDB can answer.
//!
//! A statement is a small tree. Every node has two spellings, the server's and DuckDB's, so one tree is sent to both
//! and can be shrunk while it still fails. The profile (`profile`) chooses paths with one kind of value and flattens
//! them into columns for DuckDB; nothing here knows how the server reads a path.
//!
//! Left out, because the two differ in meaning or because other tests cover it:
//!
//! - paths of mixed kinds, and comparisons, casts and set operations across kinds: `stray_values` covers those;
//! - integers beyond 2^53 in documents and products beyond 64 bits: NULL here, an error in DuckDB;
//! - `/` and `%` by zero, `sqrt` and `ln` outside of their domain: NULL here; DuckDB gets `nullif` and `abs` around the
//!   argument;
//! - the text of a computed number, a fraction as text (`36.98::text`), a fraction or a boolean cast to an integer, a
//!   string cast to a number unless it is digits or not a number at all: the two round, spell and reject differently;
//! - `upper`, `lower`, `reverse` and `initcap` beyond ASCII: case folding differs by library;
//! - `extract(second …)` and `extract(epoch …)`: an integer in one, a fraction in the other;
//! - `stddev`, `median`, approximate aggregates, `array_agg`, lists and objects as values;
//! - LIKE patterns with a backslash: an escape here, an ordinary character in DuckDB;
//! - regular expressions beyond literals, classes and anchors;
//! - LIMIT over computed fractions, whose last digit may decide which row is cut;
//! - NATURAL JOIN, table functions, row values, `unnest`, and `search(…)`, which DuckDB lacks or the server rejects.

mod compare;
mod duck;
mod expression;
mod generate;
mod predicate;
mod profile;
mod query;
mod shapes;
mod shrink;

pub use compare::{difference, shown};
pub use duck::{DuckDb, DuckResult};
pub use expression::{Dialect, Expr, Kind};
pub use generate::StatementGenerator;
pub use profile::{Column, DocumentSet};
pub use query::{FromItem, GroupingSets, Join, Query, Relation, SetOperation, SortKey};
pub use shapes::{Family, GeneratedStatement};
pub use shrink::shrink_candidates;
