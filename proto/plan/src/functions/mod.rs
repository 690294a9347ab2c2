//! Functions that aggregator and leaf both know: DataFusion's, which give NULL for values that have no answer, and
//! those of our own that typed expressions call. A statement cannot name those of our own: they stand where the types
//! of operands ask for them.

pub mod arithmetic;
pub mod bounded;
pub mod checked;
mod collected;
pub mod constants;
pub mod convert;
mod distinct;
pub mod extreme;
mod function;
pub mod interval;
pub mod json;
pub mod lenient;
pub mod notices;
mod query;
pub mod sliding;
pub mod text;

use std::sync::{Arc, LazyLock};

use datafusion::{
    common::ScalarValue,
    execution::{SessionStateDefaults, TaskContext},
    logical_expr::{AggregateUDF, ScalarUDF},
    prelude::SessionConfig,
};

pub use function::schema_name;
pub use notices::Notices;
pub use query::Query;

/// All functions of rows, to be registered with a session.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .map(lenient::lenient)
        .chain(own())
        .collect()
}

/// All functions of groups.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let library = SessionStateDefaults::default_aggregate_functions()
        .into_iter()
        .map(collected::bounded)
        .map(distinct::shared);
    library
        .chain(extreme::aggregates())
        .chain(sliding::aggregates())
        .collect()
}

/// Functions of rows of our own.
pub fn own() -> Vec<Arc<ScalarUDF>> {
    let all = [
        json::functions(),
        arithmetic::functions(),
        checked::functions(),
        convert::functions(),
        extreme::functions(),
        interval::functions(),
        text::functions(),
    ];
    all.into_iter().flatten().collect()
}

static OWN: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(own);

/// One function of our own by its name.
pub fn own_named(name: &str) -> Arc<ScalarUDF> {
    Arc::clone(
        OWN.iter()
            .find(|function| function.name() == name)
            .expect("a function of our own is asked for by its constant"),
    )
}

/// Whether a function is one of our own.
pub fn is_own(name: &str) -> bool {
    OWN.iter().any(|function| function.name() == name)
}

/// Settings that decide what an expression means and which plans are accepted.
pub fn settings() -> SessionConfig {
    SessionConfig::new()
        .set("datafusion.execution.time_zone", &ScalarValue::from("UTC"))
        // The check compares what two analyses of DataFusion say of NULL, and refuses plans where these differ.
        .set_bool("datafusion.execution.skip_physical_aggregate_schema_check", true)
}

/// All functions by name, for expressions that come from another process.
pub fn by_name() -> &'static TaskContext {
    static ALL: LazyLock<TaskContext> = LazyLock::new(|| {
        let (scalar, aggregates) = (scalar(), aggregates());
        let scalar = scalar
            .iter()
            .flat_map(|function| under_names(function, function.name(), function.aliases()));
        let aggregates = aggregates
            .iter()
            .flat_map(|function| under_names(function, function.name(), function.aliases()));
        TaskContext::new(
            None,
            String::new(),
            settings(),
            scalar.collect(),
            Default::default(),
            aggregates.collect(),
            Default::default(),
            Arc::default(),
        )
    });
    &ALL
}

/// A function by its name and by every alias.
fn under_names<F>(function: &Arc<F>, name: &str, aliases: &[String]) -> Vec<(String, Arc<F>)> {
    std::iter::once(name)
        .chain(aliases.iter().map(String::as_str))
        .map(|name| (name.to_owned(), Arc::clone(function)))
        .collect()
}
