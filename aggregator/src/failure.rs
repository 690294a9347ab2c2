//! Converts DataFusion's errors to problems. An error that the statement caused is never reported as internal.

use datafusion::{arrow::error::ArrowError, error::DataFusionError};
use proto::{Code, Problem};

use crate::query::{connection_problem, sent_problem};

/// Marks a refusal by the node's memory limit, as opposed to the query's own.
pub(crate) const NODE_LIMIT_MARKER: &str = "all queries of the node together";

/// The problem that users see for an error, with its place in the statement if DataFusion knows it.
pub(crate) fn problem(error: DataFusionError) -> Problem {
    let problem = from_root(error.find_root());
    match error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        Some(span) if problem.at.is_none() && span.start.line > 0 => problem.at(span.start.line, span.start.column),
        _ => problem,
    }
}

/// Wraps a problem so that it passes through DataFusion unchanged; [`problem`] unwraps it.
pub(crate) fn error(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(problem))
}

fn from_root(root: &DataFusionError) -> Problem {
    match root {
        DataFusionError::External(inner) => from_external(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::ExternalError(inner) => from_external(inner.as_ref()),
            other if is_internal(&other.to_string()) => unsupported(&other.to_string()),
            ArrowError::DivideByZero => Problem::new(Code::BadSql, "division by zero").hint("write NULLIF(divisor, 0)"),
            other => Problem::new(Code::BadSql, other.to_string()),
        },
        DataFusionError::ResourcesExhausted(message) => exhausted(message),
        DataFusionError::NotImplemented(message) => unsupported(message),
        // Our resolver has found every name, so a name that is missing here was lost around a subquery.
        DataFusionError::SchemaError(error, _) if !error.to_string().contains("must appear in the GROUP BY") => {
            unsupported(&format!("Subquery: {error}"))
        }
        DataFusionError::IoError(e) => Problem::new(Code::Unavailable, format!("cannot spill to disk: {e}")),
        DataFusionError::ExecutionJoin(e) => {
            tracing::error!(error = %e, "a task of a query panicked");
            Problem::new(
                Code::Internal,
                "an internal error ended this query; other queries are not affected",
            )
        }
        DataFusionError::Internal(message) => unsupported(message),
        DataFusionError::SQL(e, _) => Problem::new(Code::BadSql, e.to_string()),
        other => {
            let message = first_line(&other.message());
            if let Some(problem) = sent_problem(&message) {
                return problem;
            }
            match ungrouped(&message) {
                Some(name) => Problem::new(Code::BadSql, format!("{name} is neither in GROUP BY nor aggregated")).hint(
                    format!("add it to GROUP BY, or aggregate it, for example by min({name})"),
                ),
                None if message.starts_with("Aggregate functions are not allowed in the WHERE clause") => Problem::new(
                    Code::BadSql,
                    "an aggregate function cannot be in WHERE, which chooses rows",
                )
                .hint("put the condition into HAVING, which chooses groups"),
                None if is_internal(&message) => unsupported(&message),
                None => Problem::new(Code::BadSql, message),
            }
        }
    }
}

/// DataFusion's message names operators and memory pools, which users do not know: say memory or disk instead.
fn exhausted(message: &str) -> Problem {
    tracing::debug!(error = message, "a query reached a limit of the query engine");
    if message.contains(NODE_LIMIT_MARKER) {
        return Problem::new(
            Code::LimitReached,
            "the queries on this node have reached their shared memory limit",
        )
        .hint("retry when other queries have finished, or narrow the query");
    }
    let resource = if message.contains("disk") {
        "disk space for spilling"
    } else {
        "memory"
    };
    Problem::new(
        Code::LimitReached,
        format!("the query needs more {resource} than its limit allows"),
    )
    .hint("add a condition or a LIMIT, group by fewer values, or leave long columns out")
}

/// Terms of DataFusion's internals. A user cannot act on a message that contains one.
const INTERNAL_TERMS: [&str; 33] = [
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

fn is_internal(message: &str) -> bool {
    INTERNAL_TERMS.iter().any(|term| message.contains(term))
}

/// The query engine does not support the statement, most often because of a subquery.
fn unsupported(message: &str) -> Problem {
    tracing::warn!(error = message, "the query engine does not support a statement");
    let message_line = first_line(message);
    if ["Expects PARTITION BY", "All partition by columns"]
        .iter()
        .any(|words| message.contains(words))
    {
        let detail = "a window, EXCEPT ALL or INTERSECT ALL over a constant column of DISTINCT, EXCEPT or INTERSECT \
                      is not supported";
        return Problem::new(Code::NotSupported, detail)
            .hint("move the constant into an outer query: SELECT 'x', t.* FROM (…) AS t");
    }
    let has_subquery = ["Subquery", "subquery", "Exists", "OuterReferenceColumn"]
        .iter()
        .any(|word| message.contains(word));
    match (has_subquery, is_internal(&message_line)) {
        (true, _) => Problem::new(
            Code::NotSupported,
            "a subquery in this place, or correlated with the outer query in this way, is not supported",
        )
        .hint("correlate by =, move the subquery to WHERE, or use a join"),
        (false, true) => Problem::new(
            Code::NotSupported,
            "this combination of types or clauses is not supported",
        )
        .hint("cast the values with x::type, or compute a part of it in a subquery"),
        (false, false) => Problem::new(Code::NotSupported, message_line),
    }
}

/// The user's name of the column in DataFusion's message that a column must be grouped by.
fn ungrouped(message: &str) -> Option<&str> {
    let column = message
        .split_once("must appear in the GROUP BY clause")?
        .0
        .rsplit('"')
        .nth(1)?;
    let name = column.split_once('.').map_or(column, |(_, name)| name);
    Some(name.rsplit_once(':').map_or(name, |(name, _)| name))
}

fn from_external(inner: &(dyn std::error::Error + Send + Sync + 'static)) -> Problem {
    if let Some(problem) = inner.downcast_ref::<Problem>() {
        return problem.clone();
    }
    if let Some(problem) = connection_problem(inner) {
        return problem;
    }
    match inner.downcast_ref::<DataFusionError>() {
        Some(nested) => from_root(nested.find_root()),
        None => Problem::new(Code::BadSql, first_line(&inner.to_string())),
    }
}

/// Cuts off a backtrace and an appeal to report a bug.
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
    fn a_problem_passes_through_datafusion_unchanged() {
        let original = Problem::new(Code::Timeout, "too late").hint("retry").at(3, 7);
        let wrapped = error(original.clone())
            .context("while scanning")
            .context("while sorting");
        assert_eq!(problem(wrapped), original);
        let through_arrow = DataFusionError::from(ArrowError::ExternalError(Box::new(error(original.clone()))));
        assert_eq!(problem(through_arrow), original);
        let shared = DataFusionError::Shared(std::sync::Arc::new(error(original.clone())));
        assert_eq!(problem(shared), original);
    }

    #[test]
    fn an_error_in_the_statement_is_not_internal() {
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
