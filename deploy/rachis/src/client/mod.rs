//! Client commands: command line -> HTTP requests -> output for people or programs. They know only the server's HTTP
//! API.

pub(crate) mod collection;
pub(crate) mod dead_letters;
pub(crate) mod debug;
pub(crate) mod definition;
mod export;
pub(crate) mod http;
mod interactive;
pub(crate) mod output;
pub(crate) mod push;
pub(crate) mod search;
pub(crate) mod snapshot;
pub(crate) mod source;
pub(crate) mod sql;
pub(crate) mod status;

use std::fmt;

use proto::Problem;

/// Why a command failed, with a hint for the user and the exit code of the process.
#[derive(Debug)]
pub(crate) struct Failure {
    detail: String,
    hint: Option<String>,
    exit_code: u8,
}

/// Exit codes.
const FAILED: u8 = 1;
const USAGE_ERROR: u8 = 2;
const TRUNCATED: u8 = 3;

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            hint: None,
            exit_code: FAILED,
        }
    }

    /// Invalid arguments or settings: exit code 2.
    pub(crate) fn usage(detail: impl Into<String>) -> Self {
        Self {
            exit_code: USAGE_ERROR,
            ..Self::new(detail)
        }
    }

    /// The answer was written but is not the whole result: exit code 3.
    pub(crate) fn truncated(detail: impl Into<String>) -> Self {
        Self {
            exit_code: TRUNCATED,
            ..Self::new(detail)
        }
    }

    /// A failure with an error and its chain of sources.
    pub(crate) fn with_cause(what: &str, error: &dyn std::error::Error) -> Self {
        let mut detail = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !detail.ends_with(&text) {
                detail = format!("{detail}: {text}");
            }
            cause = error.source();
        }
        Self::new(detail)
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Says in which part of a text it happened.
    pub(crate) fn within(self, what: &str) -> Self {
        Self {
            detail: format!("{what}: {}", self.detail),
            ..self
        }
    }

    /// Whether the answer was written, but is not the whole result.
    pub(crate) fn is_truncated(&self) -> bool {
        self.exit_code == TRUNCATED
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let failure = Self::new(problem.detail);
        match problem.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.detail)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}
