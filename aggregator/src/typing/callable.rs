//! Which functions statements may call. [`registry`] lists them.

use plan::functions::registry::{self, FunctionKind};
use proto::{Code, Problem};

/// Whether an aggregate function has this name, in any case.
pub(crate) fn is_aggregate(name: &str) -> bool {
    registry::function(&name.to_lowercase()).is_some_and(|function| function.kind == FunctionKind::Aggregate)
}

/// Returns an error unless statements may call this function.
pub(crate) fn check_function(name: &str) -> Result<(), Problem> {
    if registry::is_refused(name) {
        return Err(
            Problem::new(Code::NotSupported, format!("the function {name} is not supported"))
                .hint("it can produce more data than a query may hold, or is not part of this SQL dialect"),
        );
    }
    if registry::function(name).is_some_and(|function| function.is_callable()) {
        return Ok(());
    }
    let problem = Problem::new(Code::BadSql, format!("function {name} does not exist"));
    Err(match plan::nearest::nearest(name, registry::callable()) {
        Some(near) => problem.hint(format!("did you mean {near}?")),
        None => problem,
    })
}
