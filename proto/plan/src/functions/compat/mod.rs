//! Functions of other systems that DataFusion cannot express. Each returns what the original returns, NULLs included;
//! where the original reports an error, the row is NULL and counted.
//!
//! Names here are ours. The [registry](super::registry) says which name of which system is which of these.

mod calendar;
mod containment;
mod each_row;
mod json_values;
mod numbers;
mod texts;
mod time_text;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub use calendar::{DAY_OF, DIFF as DATE_DIFF, EPOCH_MILLIS, EPOCH_MILLIS_TRUNCATED, check_unit};
pub use json_values::{DEFAULT as JSON_DEFAULT, VALUE_LENGTH};
pub use numbers::WRAPPED as WRAPPED_INT;
pub use texts::HEX as TEXT_HEX;

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        calendar::functions(),
        containment::functions(),
        json_values::functions(),
        numbers::functions(),
        texts::functions(),
        time_text::functions(),
    ];
    all.into_iter().flatten().collect()
}
