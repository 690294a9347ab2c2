//! `||` over texts. A chain of them is one call, and its result is bounded: texts that are joined with themselves grow without an end.

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

use super::function::{Call, Function, Returns, limit};

/// `text_join(a, b, c)` is `a || b || c`: NULL where one of them is.
pub const JOIN: &str = "text_join";

/// Bytes that the rows of one batch may come to: 32 KiB each in a full batch.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// The function, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new(JOIN, None, Returns::Type(DataType::Utf8View), join).strict().into()]
}

fn join(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?.iter().map(|column| Ok(cast(column, &DataType::Utf8View)?)).collect::<Result<Vec<_>>>()?;
    let columns: Vec<_> = columns.iter().map(|column| column.as_string_view()).collect();
    let parts = |row| columns.iter().map(move |column| column.is_valid(row).then(|| column.value(row)));
    let bytes: usize = (0..call.rows).filter_map(|row| parts(row).map(|part| part.map(str::len)).sum::<Option<usize>>()).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(limit(
            format!("|| makes {bytes} bytes of {} rows at once; the limit is {BATCH_BYTES_MAX}", call.rows),
            "join shorter texts, such as left(x, 1000), or fewer of them",
        ));
    }
    let mut joined = StringViewBuilder::with_capacity(call.rows);
    let mut text = String::new();
    for row in 0..call.rows {
        text.clear();
        let whole = parts(row).all(|part| {
            part.is_some_and(|part| {
                text.push_str(part);
                true
            })
        });
        joined.append_option(whole.then_some(text.as_str()));
    }
    Ok(Arc::new(joined.finish()))
}
