//! Conversion between problems and gRPC statuses. A status carries the whole problem in its details; a status without
//! details comes from the transport.

use prost::Message as _;
use tonic::{Code as Grpc, Status};

use super::v1;
use crate::problem::{Code, Problem};

/// The gRPC code of an error code, for clients that do not read the details.
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
            code: problem.code.as_str().to_owned(),
            detail: problem.detail,
            hint: problem.hint,
            line,
            column,
        }
    }
}

impl From<v1::Problem> for Problem {
    fn from(message: v1::Problem) -> Self {
        let code = Code::TABLE
            .iter()
            .find(|row| row.1 == message.code)
            .map_or(Code::Internal, |row| row.0);
        Self {
            code,
            detail: message.detail,
            hint: message.hint,
            at: message.line.zip(message.column),
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
        if !status.details().is_empty()
            && let Ok(problem) = v1::Problem::decode(status.details())
        {
            return problem.into();
        }
        let detail = match std::error::Error::source(&status) {
            Some(source) => format!("{}: {}", status.message(), innermost(source)),
            None => status.message().to_owned(),
        };
        let code = match status.code() {
            // The message is over the size limit, or the method does not exist: a retry would fail as well.
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

/// The error for a message with missing or invalid content.
pub fn malformed(what: &str) -> Problem {
    Problem::new(Code::BadRequest, format!("the message is invalid: {what}")).hint("run the same version on both nodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_round_trips_through_a_status() {
        for (code, ..) in Code::TABLE {
            let problem = Problem::new(code, "what").hint("do").at(3, 4);
            assert_eq!(Problem::from(Status::from(problem.clone())), problem);
        }
        assert_eq!(Problem::from(Status::unavailable("gone")).code, Code::Unavailable);
    }
}
