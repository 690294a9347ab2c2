//! Text operators as functions, so that their memory and work are bounded: `||`, where a chain is one call, and LIKE
//! with a different pattern in each row.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Datum, Scalar, StringViewBuilder},
        compute::{cast, ilike, like},
        datatypes::DataType,
        error::ArrowError,
    },
    common::Result,
    logical_expr::{ColumnarValue, Expr, Like, ScalarUDF},
};

use super::{
    context::limit_reached,
    function::{Call, Function, Returns},
    growth::is_compiled,
};

/// `text_join(a, b, c)` is `a || b || c`: NULL if one of them is.
pub const JOIN: &str = "text_join";

/// `text_like(text, pattern)` is `text LIKE pattern`.
pub const LIKE: &str = "text_like";
/// `text_ilike(text, pattern)` is `text ILIKE pattern`.
pub const ILIKE: &str = "text_ilike";

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let matches = |name, compute| Function::new(name, Some(2), Returns::Type(DataType::Boolean), compute).strict();
    vec![
        Function::new(JOIN, None, Returns::Type(DataType::Utf8View), join)
            .strict()
            .into(),
        matches(LIKE, |call| matched(call, like))
            .simplified(|args| as_like(args, false))
            .into(),
        matches(ILIKE, |call| matched(call, ilike))
            .simplified(|args| as_like(args, true))
            .into(),
    ]
}

/// Maximum length of a pattern with inner wildcards that matches texts of any length quickly.
const QUICK_PATTERN_BYTES_MAX: usize = 64;

/// Whether matching a long text against a pattern may take long.
pub fn is_slow_pattern(pattern: &str) -> bool {
    pattern.len() > QUICK_PATTERN_BYTES_MAX && is_compiled(pattern)
}

/// The LIKE operator, which an index may decide, if the pattern turned out to be a quick constant.
fn as_like(args: &[Expr], case_insensitive: bool) -> Option<Expr> {
    let [text, pattern] = args else { return None };
    let Expr::Literal(constant, _) = pattern else {
        return None;
    };
    let quick = !is_slow_pattern(constant.try_as_str().flatten()?);
    quick.then(|| {
        Expr::Like(Like::new(
            false,
            Box::new(text.clone()),
            Box::new(pattern.clone()),
            None,
            case_insensitive,
        ))
    })
}

/// An Arrow kernel that matches texts against patterns.
type Kernel = fn(&dyn Datum, &dyn Datum) -> std::result::Result<BooleanArray, ArrowError>;

fn matched(call: &Call, kernel: Kernel) -> Result<ArrayRef> {
    let texts = cast(&call.column(0)?, &DataType::Utf8View)?;
    // A pattern that is the same for all rows is compiled once.
    let patterns: Box<dyn Datum> = match call.args().get(1) {
        Some(ColumnarValue::Scalar(pattern)) => {
            Box::new(Scalar::new(pattern.cast_to(&DataType::Utf8View)?.to_array()?))
        }
        _ => Box::new(cast(&call.column(1)?, &DataType::Utf8View)?),
    };
    let too_large = |_| {
        limit_reached(
            "a LIKE pattern is too large".to_owned(),
            "write fewer wildcards, or use strpos(x, 'text') > 0",
        )
    };
    Ok(Arc::new(kernel(&texts, patterns.as_ref()).map_err(too_large)?))
}

fn join(call: &Call) -> Result<ArrayRef> {
    let columns = call
        .columns(0)?
        .iter()
        .map(|column| Ok(cast(column, &DataType::Utf8View)?))
        .collect::<Result<Vec<_>>>()?;
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
