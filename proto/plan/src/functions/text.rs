//! Operators over texts as functions, which are computed within bounds: `||`, a chain of which is one call, and LIKE with a pattern of each row's own.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Datum, Scalar, StringViewBuilder},
        compute::{cast, ilike, like},
        datatypes::DataType,
        error::ArrowError,
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarUDF},
};

use super::function::{Call, Function, Returns};

/// `text_join(a, b, c)` is `a || b || c`: NULL where one of them is.
pub const JOIN: &str = "text_join";

/// `text_like(text, pattern)` is `text LIKE pattern`.
pub const LIKE: &str = "text_like";
/// `text_ilike(text, pattern)` is `text ILIKE pattern`.
pub const ILIKE: &str = "text_ilike";

/// The functions, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let matches = |name, compute| Function::new(name, Some(2), Returns::Type(DataType::Boolean), compute).strict().into();
    vec![
        Function::new(JOIN, None, Returns::Type(DataType::Utf8View), join).strict().into(),
        matches(LIKE, |call| matched(call, like)),
        matches(ILIKE, |call| matched(call, ilike)),
    ]
}

/// A kernel of arrow that compares texts with patterns.
type Kernel = fn(&dyn Datum, &dyn Datum) -> std::result::Result<BooleanArray, ArrowError>;

fn matched(call: &Call, kernel: Kernel) -> Result<ArrayRef> {
    let texts = cast(&call.column(0)?, &DataType::Utf8View)?;
    // A pattern for all rows is compiled once.
    let patterns: Box<dyn Datum> = match call.args().get(1) {
        Some(ColumnarValue::Scalar(pattern)) => Box::new(Scalar::new(pattern.cast_to(&DataType::Utf8View)?.to_array()?)),
        _ => Box::new(cast(&call.column(1)?, &DataType::Utf8View)?),
    };
    Ok(Arc::new(kernel(&texts, patterns.as_ref())?))
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
