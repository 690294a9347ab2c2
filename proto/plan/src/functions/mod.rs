//! The functions that both aggregator and leaf know: those of DataFusion, which return NULL for values without a
//! result, and those of Rachis. [`registry`] has an entry for each: its name, its arguments, what it does. A statement
//! cannot name the functions that are inserted where the types of operands require them, except those that the resolver
//! itself writes into statements ([`registry::Property::IsGenerated`]): it cannot tell its own calls from those of the
//! user.

pub mod arithmetic;
pub mod bounded;
mod bounded_collect;
pub mod checked;
pub mod compat;
pub mod constants;
mod context;
pub mod convert;
mod distinct_count;
pub mod extreme;
mod formatted_times;
mod function;
mod growth;
pub mod highlight;
mod in_utc;
pub mod interval;
pub mod interval_number;
pub mod json;
pub mod lenient;
pub mod list_rows;
pub mod local_time;
pub mod parsed;
pub mod registry;
pub mod score;
pub mod series;
pub mod sliding;
pub mod text;
pub mod value_counts;
pub mod warnings;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::datatypes::DataType,
    common::{ScalarValue, internal_err},
    execution::{SessionStateDefaults, TaskContext},
    logical_expr::{AggregateUDF, ScalarUDF},
    prelude::SessionConfig,
};

/// `failure_of(value)`: why the computation of a value failed. The aggregator replaces each call, because a function gets
/// only values that are computed.
pub const FAILURE_OF: &str = "failure_of";

pub use context::{FunctionContext, call_in_context};
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
        .chain(value_counts::aggregates())
        .collect()
}

/// The scalar functions of Rachis.
pub fn rachis_functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        json::functions(),
        arithmetic::functions(),
        checked::functions(),
        compat::functions(),
        convert::functions(),
        extreme::functions(),
        highlight::functions(),
        score::functions(),
        interval::functions(),
        interval_number::functions(),
        list_rows::functions(),
        local_time::functions(),
        parsed::functions(),
        series::functions(),
        text::functions(),
        vec![failure_of()],
    ];
    all.into_iter().flatten().collect()
}

fn failure_of() -> Arc<ScalarUDF> {
    let returns = function::Returns::Type(DataType::Utf8View);
    function::Function::new(FAILURE_OF, Some(1), returns, |call| {
        internal_err!("{} was not replaced", call.name)
    })
    .volatile()
    .into()
}

static RACHIS_FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let named = |function: Arc<ScalarUDF>| (function.name().to_owned(), function);
    rachis_functions().into_iter().map(named).collect()
});

/// A function of Rachis by its name.
pub fn rachis_function(name: &str) -> Arc<ScalarUDF> {
    let found = RACHIS_FUNCTIONS.get(name);
    Arc::clone(found.expect("callers use the constant of a Rachis function"))
}

/// Whether a function is one of Rachis.
pub fn is_rachis_function(name: &str) -> bool {
    RACHIS_FUNCTIONS.contains_key(name)
}

/// Settings that determine the meaning of expressions and which plans are accepted.
pub fn settings() -> SessionConfig {
    SessionConfig::new()
        .set("datafusion.execution.time_zone", &ScalarValue::from("UTC"))
        // The check compares two nullability analyses of DataFusion and rejects plans for which they differ.
        .set_bool("datafusion.execution.skip_physical_aggregate_schema_check", true)
}

/// All functions by name, for decoding expressions from another process.
pub fn task_context() -> &'static TaskContext {
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
