//! Problem <-> gRPC status. The whole problem travels in the status' details; a status without them comes from the
//! transport.

use prost::Message as _;
use tonic::{Code as Grpc, Status};

use super::v1;
use crate::problem::{Code, Problem};

/// The gRPC code of each of ours, for those who know no details.
fn grpc(code: Code) -> Grpc {
    match code {
        Code::BadRequest
        | Code::BadSql
        | Code::TooComplex
        | Code::TooLarge
        | Code::UnsupportedMedia
        | Code::NotAcceptable
        | Code::MethodNotAllowed => Grpc::InvalidArgument,
        Code::NotSupported => Grpc::Unimplemented,
        Code::NotFound => Grpc::NotFound,
        Code::Forbidden => Grpc::PermissionDenied,
        Code::Conflict => Grpc::AlreadyExists,
        Code::InUse => Grpc::FailedPrecondition,
        Code::LimitReached | Code::Busy => Grpc::ResourceExhausted,
        Code::Unavailable | Code::Incomplete => Grpc::Unavailable,
        Code::Timeout => Grpc::DeadlineExceeded,
        Code::UnknownOutcome => Grpc::Unknown,
        Code::Cancelled => Grpc::Cancelled,
        Code::Internal => Grpc::Internal,
    }
}

impl From<Problem> for v1::Problem {
    fn from(problem: Problem) -> Self {
        let (line, column) = problem.at.unzip();
        Self {
            code: problem.code.word().to_owned(),
            detail: problem.detail,
            hint: problem.hint,
            line,
            column,
        }
    }
}

impl From<v1::Problem> for Problem {
    fn from(told: v1::Problem) -> Self {
        let code = Code::TABLE
            .iter()
            .find(|row| row.1 == told.code)
            .map_or(Code::Internal, |row| row.0);
        Self {
            code,
            detail: told.detail,
            hint: told.hint,
            at: told.line.zip(told.column),
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let (code, detail) = (grpc(problem.code), problem.detail.clone());
        Status::with_details(code, detail, v1::Problem::from(problem).encode_to_vec().into())
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        if let Some(told) = (!status.details().is_empty())
            .then(|| v1::Problem::decode(status.details()).ok())
            .flatten()
        {
            return told.into();
        }
        let detail = match std::error::Error::source(&status) {
            Some(source) => format!("{}: {}", status.message(), innermost(source)),
            None => status.message().to_owned(),
        };
        let code = match status.code() {
            // The message is larger than both sides have agreed on, or the method is not there: no later attempt will
            // do better.
            Grpc::OutOfRange | Grpc::InvalidArgument => Code::TooLarge,
            Grpc::Unimplemented => Code::NotSupported,
            Grpc::DeadlineExceeded => Code::Timeout,
            _ => Code::Unavailable,
        };
        Self::new(code, detail)
    }
}

fn innermost(mut error: &dyn std::error::Error) -> &dyn std::error::Error {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// A message that does not say what it must.
pub fn malformed(what: &str) -> Problem {
    Problem::new(Code::BadRequest, format!("the message does not read: {what}"))
        .hint("both nodes should have the same version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_comes_back_as_it_was() {
        for (code, ..) in Code::TABLE {
            let problem = Problem::new(code, "what").hint("do").at(3, 4);
            assert_eq!(Problem::from(Status::from(problem.clone())), problem);
        }
        assert_eq!(Problem::from(Status::unavailable("gone")).code, Code::Unavailable);
    }
}
