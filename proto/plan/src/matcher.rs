//! Matcher: evaluates a search clause on a document's values, the reference for what an index must find. Shared by:
//! leaf (documents), aggregator (fields).

mod highlight;
mod number;
mod pattern;
mod score;
mod value_test;

use proto::json::Value;

pub(crate) use self::pattern::{is_wildcard, regex};
pub use self::{
    highlight::{HighlightedPath, Highlighter, positive_clauses},
    number::Number,
    pattern::TokenTest,
    score::{
        DocumentScore, PreparedClause, ScoreStatistics, ScoredClause, ScoredSearch, Scorer, WordCounts, WordStatistics,
        count_tokens, scored_tokens, token_test,
    },
    value_test::{Range, ValueTest},
};
use crate::{
    path::{Path, Step},
    search::Clause,
};

/// A clause prepared for evaluation on many documents.
#[derive(Debug, Clone)]
pub struct Matcher {
    path: Option<Path>,
    test: ValueTest,
}

impl Matcher {
    /// Prepares a clause.
    pub fn new(clause: &Clause) -> Self {
        Self {
            path: clause.path.clone(),
            test: ValueTest::new(&clause.matches),
        }
    }

    /// Whether a document's values match.
    pub fn matches(&self, root: &Value<'_>) -> bool {
        match (&self.path, &self.test) {
            (None, ValueTest::Exists) => *root != Value::Null,
            (None, test) => anywhere(root, test),
            (Some(path), test) => at_path(root, path.steps(), test),
        }
    }
}

/// Whether any value of the document matches, at whatever depth.
fn anywhere(value: &Value<'_>, test: &ValueTest) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| anywhere(item, test)),
        Value::Object(entries) => entries.iter().any(|(_, value)| anywhere(value, test)),
        scalar => test.value(scalar),
    }
}

/// Whether any value at the path matches, including elements of arrays on the way and at its end.
fn at_path(value: &Value<'_>, steps: &[Step], test: &ValueTest) -> bool {
    match (value, steps) {
        (Value::Array(items), [Step::Index(index), rest @ ..]) => {
            items.get(*index as usize).is_some_and(|item| at_path(item, rest, test))
        }
        (Value::Array(_), []) if matches!(test, ValueTest::Exists) => true,
        (Value::Array(items), _) => items.iter().any(|item| at_path(item, steps, test)),
        (Value::Object(_), [Step::Key(key), rest @ ..]) => {
            value.get(key).is_some_and(|value| at_path(value, rest, test))
        }
        (value, []) => test.value(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
