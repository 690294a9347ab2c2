//! Errors of the resolver.

use datafusion::sql::sqlparser::tokenizer::Span;
use proto::{Code, Problem};

/// Adds a position in the statement to a problem.
pub(super) fn at(problem: Problem, span: Span) -> Problem {
    match span.start.line {
        0 => problem,
        line => problem.at(line, span.start.column),
    }
}

/// The error for a part of SQL that we do not support.
pub(super) fn not_offered(what: impl std::fmt::Display) -> Problem {
    Problem::new(Code::NotSupported, format!("{what} is not supported"))
}

pub(super) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadSql, detail)
}

/// The beginning of a long text, for messages.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 120;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
