//! Problem: an error as a client is told (RFC 9457). Shared by: everybody. The one table of codes and their HTTP status
//! stands here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of error it is: a stable word and an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the table below says each")]
pub enum Code {
    BadRequest,
    BadSql,
    NotSupported,
    TooComplex,
    NotFound,
    Forbidden,
    Conflict,
    InUse,
    TooLarge,
    UnsupportedMedia,
    NotAcceptable,
    LimitReached,
    Busy,
    Unavailable,
    Incomplete,
    Timeout,
    UnknownOutcome,
    Cancelled,
    MethodNotAllowed,
    Internal,
}

impl Code {
    /// Code, word, HTTP status, title.
    pub const TABLE: [(Code, &'static str, u16, &'static str); 20] = [
        (Code::BadRequest, "bad_request", 400, "the request is not understood"),
        (Code::BadSql, "bad_sql", 400, "the statement is not understood"),
        (Code::NotSupported, "not_supported", 400, "this is not supported"),
        (
            Code::TooComplex,
            "too_complex",
            400,
            "the statement is too long or too deep",
        ),
        (Code::Forbidden, "forbidden", 403, "this client may not ask"),
        (Code::NotFound, "not_found", 404, "there is no such thing"),
        (
            Code::MethodNotAllowed,
            "method_not_allowed",
            405,
            "this method is not offered here",
        ),
        (
            Code::NotAcceptable,
            "not_acceptable",
            406,
            "no answer can have this form",
        ),
        (Code::Conflict, "conflict", 409, "this contradicts what is there"),
        (Code::InUse, "in_use", 409, "something else uses it"),
        (Code::TooLarge, "too_large", 413, "the body is too large"),
        (
            Code::UnsupportedMedia,
            "unsupported_media",
            415,
            "this content type or encoding is not supported",
        ),
        (Code::LimitReached, "limit_reached", 422, "the query hit its own limit"),
        (Code::Busy, "busy", 429, "too much at once"),
        (Code::Cancelled, "cancelled", 499, "the query was cancelled"),
        (Code::Internal, "internal", 500, "this is our fault"),
        (Code::Unavailable, "unavailable", 503, "not ready"),
        (Code::Incomplete, "incomplete", 503, "a part of the data did not answer"),
        (Code::Timeout, "timeout", 422, "the deadline passed"),
        (
            Code::UnknownOutcome,
            "unknown_outcome",
            504,
            "nobody knows whether it was applied",
        ),
    ];

    fn row(self) -> &'static (Code, &'static str, u16, &'static str) {
        let row = |code: Code| Self::TABLE.iter().find(move |row| row.0 == code);
        row(self).or_else(|| row(Code::Internal)).unwrap_or(&Self::TABLE[0])
    }

    /// The stable word.
    pub fn word(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().2
    }

    /// The title that all problems of this code share.
    pub fn title(self) -> &'static str {
        self.row().3
    }
}

/// An error as a client is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Problem {
    /// What kind.
    pub code: Code,
    /// What happened to whom.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement, line and column from 1.
    pub at: Option<(u64, u64)>,
}

impl Problem {
    /// A problem of this code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            hint: None,
            at: None,
        }
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With where in the statement it is, line and column from 1.
    pub fn at(mut self, line: u64, column: u64) -> Self {
        self.at = Some((line, column));
        self
    }

    /// The body of an `application/problem+json` answer.
    pub fn to_json(&self) -> serde_json::Value {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.code.title(),
            "status": self.code.status(),
            "code": self.code.word(),
            "detail": self.detail,
        });
        if let Some(hint) = &self.hint {
            body["hint"] = hint.as_str().into();
        }
        if let Some((line, column)) = self.at {
            body["line"] = line.into();
            body["column"] = column.into();
        }
        body
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code_once_and_as_serde_does() {
        for (code, word, ..) in Code::TABLE {
            assert_eq!(serde_json::to_value(code).ok(), Some(word.into()));
            assert_eq!(Code::TABLE.iter().filter(|row| row.0 == code).count(), 1);
            assert_eq!(code.word(), word);
        }
    }
}
