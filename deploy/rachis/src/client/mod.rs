//! Client commands: what is typed -> requests to a server -> what a person or a program reads. They know nothing of the
//! server but its HTTP surface.

pub mod collection;
pub mod debug;
pub mod http;
pub mod output;
pub mod push;
mod push_blocks;
pub mod search;
pub mod source;
pub mod sql;

use std::fmt;

/// Why a command did not do what it should, as a person is told.
#[derive(Debug)]
pub struct Failure {
    detail: String,
    hint: Option<String>,
    exit_code: u8,
}

/// What a process ends with that failed, that was not understood, and whose answer was cut.
const FAILED: u8 = 1;
const NOT_UNDERSTOOD: u8 = 2;
const ANSWER_CUT: u8 = 3;

impl Failure {
    /// It failed.
    pub fn new(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            hint: None,
            exit_code: FAILED,
        }
    }

    /// It was not understood.
    pub fn usage(detail: impl Into<String>) -> Self {
        Self {
            exit_code: NOT_UNDERSTOOD,
            ..Self::new(detail)
        }
    }

    /// The answer was written, and is not all of the result.
    pub fn cut(detail: impl Into<String>) -> Self {
        Self {
            exit_code: ANSWER_CUT,
            ..Self::new(detail)
        }
    }

    /// It failed, because of this and what is behind it.
    pub fn of(what: &str, error: &dyn std::error::Error) -> Self {
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

    /// With what to do about it.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.detail)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}
