//! The functions that both aggregator and leaf know: those of DataFusion, which return NULL for values without a
//! result, and those of Rachis, which are inserted where the types of the operands require them. A statement cannot
//! name a function of Rachis, except those that the resolver itself writes into statements (`GENERATED_CALLS` in the
//! aggregator's `sql/resolve/function.rs`: `json_get`, `to_json` and `search_match`): it cannot tell its own calls from
//! those of the user.

pub mod arithmetic;
pub mod bounded;
mod bounded_collect;
pub mod checked;
pub mod constants;
mod context;
pub mod convert;
mod distinct_count;
pub mod extreme;
pub mod familiar;
mod function;
mod in_utc;
pub mod interval;
pub mod json;
pub mod lenient;
pub mod sliding;
pub mod text;
pub mod warnings;

use std::sync::{Arc, LazyLock};

use datafusion::{
    common::ScalarValue,
    execution::{SessionStateDefaults, TaskContext},
    logical_expr::{AggregateUDF, ScalarUDF},
    prelude::SessionConfig,
};

pub use context::FunctionContext;
pub use function::schema_name;
pub use warnings::WarningCounts;

/// All scalar functions, for registration with a session.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .map(lenient::lenient)
        .chain(rachis_functions())
        .collect()
}

/// All aggregate functions, for registration with a session.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let library = SessionStateDefaults::default_aggregate_functions()
        .into_iter()
        .map(bounded_collect::bounded)
        .map(distinct_count::with_shared_table);
    library
        .chain(extreme::aggregates())
        .chain(sliding::aggregates())
        .collect()
}

/// The scalar functions of Rachis.
pub fn rachis_functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        json::functions(),
        arithmetic::functions(),
        checked::functions(),
        convert::functions(),
        extreme::functions(),
        familiar::functions(),
        interval::functions(),
        text::functions(),
    ];
    all.into_iter().flatten().collect()
}

static RACHIS_FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(rachis_functions);

/// A function of Rachis by its name.
pub fn rachis_function(name: &str) -> Arc<ScalarUDF> {
    Arc::clone(
        RACHIS_FUNCTIONS
            .iter()
            .find(|function| function.name() == name)
            .expect("callers use the constant of a Rachis function"),
    )
}

/// Whether a function is one of Rachis.
pub fn is_rachis_function(name: &str) -> bool {
    RACHIS_FUNCTIONS.iter().any(|function| function.name() == name)
}

/// Settings that determine the meaning of expressions and which plans are accepted.
pub fn settings() -> SessionConfig {
    SessionConfig::new()
        .set("datafusion.execution.time_zone", &ScalarValue::from("UTC"))
        // The check compares two nullability analyses of DataFusion and rejects plans for which they differ.
        .set_bool("datafusion.execution.skip_physical_aggregate_schema_check", true)
}

/// All functions by name, for decoding expressions from another process.
pub fn registry() -> &'static TaskContext {
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

/// A function under its name and each of its aliases.
fn under_names<F>(function: &Arc<F>, name: &str, aliases: &[String]) -> Vec<(String, Arc<F>)> {
    std::iter::once(name)
        .chain(aliases.iter().map(String::as_str))
        .map(|name| (name.to_owned(), Arc::clone(function)))
        .collect()
}
