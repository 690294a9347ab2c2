//! DataFusion's errors -> problems: what a user did is never called our fault.

use datafusion::{arrow::error::ArrowError, error::DataFusionError};
use proto::{Code, Problem};

use super::memory::TOGETHER;

/// The problem that an error is told as.
pub(crate) fn problem(error: DataFusionError) -> Problem {
    let told = of_root(error.find_root());
    match error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        Some(span) if told.at.is_none() && span.start.line > 0 => told.at(span.start.line, span.start.column),
        _ => told,
    }
}

/// A problem as an error that travels through DataFusion and comes out by [`problem`] as it was.
pub(crate) fn error(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(problem))
}

fn of_root(root: &DataFusionError) -> Problem {
    match root {
        DataFusionError::External(inner) => of_external(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::ExternalError(inner) => of_external(inner.as_ref()),
            other if speaks_of_itself(&other.to_string()) => unsupported(&other.to_string()),
            ArrowError::DivideByZero => {
                Problem::new(Code::BadSql, "a division by zero").hint("write NULLIF(divisor, 0)")
            }
            other => Problem::new(Code::BadSql, other.to_string()),
        },
        DataFusionError::ResourcesExhausted(message) => exhausted(message),
        DataFusionError::NotImplemented(message) => unsupported(message),
        // Names are resolved before: what is missing now got lost around a sub-query.
        DataFusionError::SchemaError(error, _) if !error.to_string().contains("must appear in the GROUP BY") => {
            unsupported(&format!("Subquery: {error}"))
        }
        DataFusionError::IoError(e) => Problem::new(Code::Unavailable, format!("cannot spill to disk: {e}")),
        DataFusionError::ExecutionJoin(e) => {
            tracing::error!(error = %e, "a part of a query panicked");
            Problem::new(
                Code::Internal,
                "the query met a fault of ours; it ended and nothing else did",
            )
        }
        DataFusionError::Internal(message) => unsupported(message),
        DataFusionError::SQL(e, _) => Problem::new(Code::BadSql, e.to_string()),
        other => {
            let said = first_line(&other.message());
            match ungrouped(&said) {
                Some(name) => Problem::new(Code::BadSql, format!("{name} is neither grouped by nor aggregated"))
                    .hint(format!("add it to GROUP BY, or take one of its values: min({name})")),
                None if speaks_of_itself(&said) => unsupported(&said),
                None => Problem::new(Code::BadSql, said),
            }
        }
    }
}

/// The query engine names its operators and pools; a user knows memory and disk.
fn exhausted(message: &str) -> Problem {
    tracing::debug!(message, "a query met a limit of the query engine");
    if message.contains(TOGETHER) {
        return Problem::new(
            Code::LimitReached,
            "the queries of this node need more memory than they may have together",
        )
        .hint("ask again when others have ended, or ask for less at once");
    }
    let what = if message.contains("disk") {
        "disk for what it puts aside"
    } else {
        "memory"
    };
    Problem::new(
        Code::LimitReached,
        format!("the query needs more {what} than it may have"),
    )
    .hint("narrow it by a condition, group by less, add a LIMIT, or leave long columns out")
}

/// Words by which a message of the query engine is about itself. A user cannot act on such a message.
const INSIDE: [&str; 33] = [
    "Correlated scalar subquery",
    "scalar correlated subquery",
    "PARTITION BY",
    "Arrow error",
    "Cast error",
    "Compute error",
    "Execution error",
    "Invalid argument error",
    "Parser error",
    "IntervalMonthDayNano",
    "IntervalDayTime",
    "Decimal128",
    "Value(",
    "Literal types",
    "Unsupported",
    "accumulator",
    "null_aware",
    ":json",
    "@0",
    "LargeUtf8",
    "Utf8",
    "Int64",
    "Float64",
    "Timestamp(",
    "CAST(",
    "Internal error",
    "logical expression",
    "Schema",
    "schema",
    "coerce",
    "signature",
    "argument type",
    "LogicalPlan",
];

fn speaks_of_itself(message: &str) -> bool {
    INSIDE.iter().any(|word| message.contains(word))
}

/// What the query engine cannot do. A sub-query where it knows none is the usual reason.
fn unsupported(message: &str) -> Problem {
    tracing::warn!(message, "the query engine could not do something");
    let said = first_line(message);
    if ["Expects PARTITION BY", "All partition by columns"]
        .iter()
        .any(|words| message.contains(words))
    {
        let detail = "a window, EXCEPT ALL or INTERSECT ALL over a constant column of DISTINCT, EXCEPT or INTERSECT is not supported";
        return Problem::new(Code::NotSupported, detail)
            .hint("leave the constant out of the query and add it around: SELECT 'x', t.* FROM (…) AS t");
    }
    let subquery = ["Subquery", "subquery", "Exists", "OuterReferenceColumn"]
        .iter()
        .any(|word| message.contains(word));
    match (subquery, speaks_of_itself(&said)) {
        (true, _) => Problem::new(
            Code::NotSupported,
            "a sub-query in this place, or that compares with the rows around it in this way, is not supported",
        )
        .hint("compare by =, put it into WHERE, or join"),
        (false, true) => Problem::new(
            Code::NotSupported,
            "this combination of types or clauses is not supported",
        )
        .hint("convert the values with x::type, or compute a part in a sub-query"),
        (false, false) => Problem::new(Code::NotSupported, said),
    }
}

/// The name in DataFusion's complaint about a column that a grouped query cannot show, as the user knows it.
fn ungrouped(said: &str) -> Option<&str> {
    let column = said
        .split_once("must appear in the GROUP BY clause")?
        .0
        .rsplit('"')
        .nth(1)?;
    let name = column.split_once('.').map_or(column, |(_, name)| name);
    Some(name.rsplit_once(':').map_or(name, |(name, _)| name))
}

fn of_external(inner: &(dyn std::error::Error + Send + Sync + 'static)) -> Problem {
    if let Some(problem) = inner.downcast_ref::<Problem>() {
        return problem.clone();
    }
    match inner.downcast_ref::<DataFusionError>() {
        Some(nested) => of_root(nested.find_root()),
        None => Problem::new(Code::BadSql, first_line(&inner.to_string())),
    }
}

/// Messages end where a backtrace or an appeal to report a bug begins.
fn first_line(message: &str) -> String {
    let end = message
        .find("\n\nbacktrace")
        .or_else(|| message.find("\nThis issue was likely caused"))
        .unwrap_or(message.len());
    message[..end].trim().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_comes_out_of_datafusion_as_it_went_in() {
        let gone = Problem::new(Code::Timeout, "too late").hint("ask again").at(3, 7);
        let wrapped = error(gone.clone()).context("while scanning").context("while sorting");
        assert_eq!(problem(wrapped), gone);
        let through_arrow = DataFusionError::from(ArrowError::ExternalError(Box::new(error(gone.clone()))));
        assert_eq!(problem(through_arrow), gone);
        let shared = DataFusionError::Shared(std::sync::Arc::new(error(gone.clone())));
        assert_eq!(problem(shared), gone);
    }

    #[test]
    fn what_a_user_did_is_not_our_fault() {
        for error in [
            DataFusionError::Plan("no".into()),
            DataFusionError::Internal("no".into()),
            DataFusionError::Execution("no".into()),
            DataFusionError::NotImplemented("no".into()),
        ] {
            assert_eq!(problem(error).code.status(), 400);
        }
        assert_eq!(
            problem(DataFusionError::ResourcesExhausted("no".into())).code,
            Code::LimitReached
        );
    }
}
