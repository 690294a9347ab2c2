//! Problem: an error as clients see it (RFC 9457), and the table of error codes with their HTTP status. Used by every
//! role.

use std::{any::Any, fmt};

use serde::{Deserialize, Serialize};

use crate::address::Malformed;

/// The kind of an error: a stable word and an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the table below describes each")]
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
    /// Whether another replica of a shard may answer although this one has failed so.
    pub fn is_of_one_replica(self) -> bool {
        matches!(self, Self::Unavailable | Self::Busy | Self::NotFound | Self::Internal)
    }

    /// Each code with its stable word, HTTP status and title.
    pub const TABLE: [(Code, &'static str, u16, &'static str); 20] = [
        (Code::BadRequest, "bad_request", 400, "the request is invalid"),
        (Code::BadSql, "bad_sql", 400, "the statement is invalid"),
        (Code::NotSupported, "not_supported", 400, "this is not supported"),
        (
            Code::TooComplex,
            "too_complex",
            400,
            "the statement is too long or too deep",
        ),
        (
            Code::Forbidden,
            "forbidden",
            403,
            "this client is not allowed to do this",
        ),
        (Code::NotFound, "not_found", 404, "not found"),
        (
            Code::MethodNotAllowed,
            "method_not_allowed",
            405,
            "this method is not allowed here",
        ),
        (
            Code::NotAcceptable,
            "not_acceptable",
            406,
            "no accepted media type is available",
        ),
        (Code::Conflict, "conflict", 409, "this conflicts with the current state"),
        (Code::InUse, "in_use", 409, "it is still in use"),
        (Code::TooLarge, "too_large", 413, "the body is too large"),
        (
            Code::UnsupportedMedia,
            "unsupported_media",
            415,
            "this content type or encoding is not supported",
        ),
        (Code::LimitReached, "limit_reached", 422, "a limit was reached"),
        (Code::Busy, "busy", 429, "the server is busy"),
        (Code::Cancelled, "cancelled", 499, "the query was cancelled"),
        (Code::Internal, "internal", 500, "internal error"),
        (Code::Unavailable, "unavailable", 503, "not available right now"),
        (Code::Incomplete, "incomplete", 503, "part of the data is unavailable"),
        (Code::Timeout, "timeout", 422, "the deadline passed"),
        (
            Code::UnknownOutcome,
            "unknown_outcome",
            504,
            "it is unknown whether it was applied",
        ),
    ];

    fn row(self) -> &'static (Code, &'static str, u16, &'static str) {
        let row = |code: Code| Self::TABLE.iter().find(move |row| row.0 == code);
        row(self).or_else(|| row(Code::Internal)).unwrap_or(&Self::TABLE[0])
    }

    /// The stable word.
    pub fn as_str(self) -> &'static str {
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

/// An error as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Problem {
    /// The kind of error.
    pub code: Code,
    /// What happened, and to what.
    pub detail: String,
    /// What the client can do about it.
    pub hint: Option<String>,
    /// The place in the statement: line and column, from 1.
    pub at: Option<(u64, u64)>,
}

impl Problem {
    /// A problem without hint and place.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            hint: None,
            at: None,
        }
    }

    /// Sets the hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the place in the statement: line and column, from 1.
    pub fn at(mut self, line: u64, column: u64) -> Self {
        self.at = Some((line, column));
        self
    }

    /// The body of an `application/problem+json` response.
    pub fn to_json(&self) -> serde_json::Value {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.code.title(),
            "status": self.code.status(),
            "code": self.code.as_str(),
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

impl From<Malformed> for Problem {
    fn from(error: Malformed) -> Self {
        Self::new(Code::BadRequest, error.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table_once_with_its_serde_name() {
        for (code, word, ..) in Code::TABLE {
            assert_eq!(serde_json::to_value(code).ok(), Some(word.into()));
            assert_eq!(Code::TABLE.iter().filter(|row| row.0 == code).count(), 1);
            assert_eq!(code.as_str(), word);
        }
    }
}
