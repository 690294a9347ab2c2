//! Statements that write themselves: a seed and a profile of real documents give SQL that the server and DuckDB can
//! both answer.
//!
//! A statement is a small tree. Every node knows two spellings, ours and DuckDB's, and which parts it has, so one tree
//! is asked of both and can be cut down while it still fails. The profile (`profile`) chooses paths that hold one kind
//! of value and lays them out flat for DuckDB: nothing here knows how the server reads a path.
//!
//! What is left out, because the two mean different things by it or because what it means is promised elsewhere:
//!
//! - paths of mixed kinds, and comparisons, casts and set operations across kinds: `stray_values` asks those;
//! - integers beyond 2^53 in documents and products that leave 64 bits: NULL here, an error in DuckDB;
//! - `/` and `%` by zero, `sqrt` and `ln` of what they are not defined for: NULL here; DuckDB is asked with `nullif`
//!   and `abs` around it;
//! - the text of a number that was computed, and a fraction as text (`36.98::text`), a fraction or a boolean cast to an
//!   integer, text cast to a number unless it is digits or no number at all: the two round, spell and refuse
//!   differently;
//! - `upper`, `lower`, `reverse` and `initcap` beyond ASCII: case folding differs by library;
//! - `extract(second …)` and `extract(epoch …)`: whole in one, with a fraction in the other;
//! - `stddev`, `median`, approximate aggregates, `array_agg`, lists and objects as values;
//! - LIKE patterns with a backslash: it escapes here, and is a character in DuckDB;
//! - regular expressions beyond literals, classes and anchors;
//! - LIMIT over computed fractions, whose last digit may choose the row;
//! - NATURAL JOIN, table functions, rows of values, `unnest`, and `search(…)`, which DuckDB has not or the server
//!   refuses.

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
pub use duck::{Duck, Said};
pub use expression::{Expr, Kind, Spelling};
pub use generate::Generator;
pub use profile::{Column, Set};
pub use query::{Combine, Join, Order, Query, Relation, Sets, Source};
pub use shapes::{Family, Statement};
pub use shrink::smaller;
