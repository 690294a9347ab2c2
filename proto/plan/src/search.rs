//! Search: what `q=` and `search('…')` say. A query is a tree of clauses; a clause is a boolean column of a scan, so a search can stand
//! wherever a condition can, and means the same by index and by raw document.
//!
//! Grammar: words, `"a phrase"`, `path:word`, `path:"a phrase"`, `path:pre*`, `path:[1 TO 9]`, `path:{1 TO 9}`, `path:>3` (`>=`, `<`, `<=`),
//! `path:*` (there is a value), `AND`, `OR`, `NOT`, `-`, `+`, parentheses. Two clauses side by side must both match.
//!
//! What a clause means, for one value of a document: `Words` is split into tokens (runs of letters and digits, lower-cased), which must
//! stand side by side in the tokens of a string; where the text is a number it also equals that number, where it is `true` or `false` that
//! boolean. A document matches where any value does, inside arrays too: at the clause's path or, without one, anywhere.

use serde::{Deserialize, Serialize};

use crate::path::Path;

/// One condition of a search.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clause {
    /// Where; anywhere, if none.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "in")]
    pub path: Option<Path>,
    /// What.
    #[serde(flatten)]
    pub matches: Match,
}

/// What a clause asks of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Its tokens side by side.
    Words(String),
    /// A token that begins so (lower-case letters and digits).
    Prefix(String),
    /// Between two bounds: as numbers where the bounds are numbers, as strings (whole, byte by byte) otherwise.
    Range {
        /// The lower bound, if any.
        from: Option<Limit>,
        /// The upper bound, if any.
        to: Option<Limit>,
    },
    /// Any value but null.
    Exists,
}

/// A bound of a range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// As written.
    pub value: String,
    /// Whether the bound itself is in.
    pub inclusive: bool,
}

/// A search as written: paths are names that the resolver still has to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Everything (`*`, or nothing written).
    All,
    /// All of them.
    And(Vec<Query>),
    /// At least one.
    Or(Vec<Query>),
    /// Not this.
    Not(Box<Query>),
    /// A condition.
    Clause {
        /// The name before the colon.
        name: Option<String>,
        /// What is asked of its values.
        matches: Match,
    },
}
