//! `||` over texts. A chain of them is one call.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, StringViewBuilder},
        compute::cast,
        datatypes::DataType,
    },
    common::Result,
    logical_expr::ScalarUDF,
};

use super::function::{Call, Function, Returns};

/// `text_join(a, b, c)` is `a || b || c`: NULL where one of them is.
pub const JOIN: &str = "text_join";

/// The function, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new(JOIN, None, Returns::Type(DataType::Utf8View), join).strict().into()]
}

fn join(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?.iter().map(|column| Ok(cast(column, &DataType::Utf8View)?)).collect::<Result<Vec<_>>>()?;
    let columns: Vec<_> = columns.iter().map(|column| column.as_string_view()).collect();
    let mut joined = StringViewBuilder::with_capacity(call.rows);
    let mut text = String::new();
    for row in 0..call.rows {
        text.clear();
        let whole = columns.iter().all(|column| column.is_valid(row));
        if whole {
            columns.iter().for_each(|column| text.push_str(column.value(row)));
        }
        joined.append_option(whole.then_some(text.as_str()));
    }
    Ok(Arc::new(joined.finish()))
}
