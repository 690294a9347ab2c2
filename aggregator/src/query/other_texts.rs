//! Conditions with other texts than those that they were planned with.

use std::collections::HashMap;

use datafusion::{
    common::{
        Result, ScalarValue,
        tree_node::{Transformed, TransformedResult as _, TreeNode as _},
    },
    logical_expr::Expr,
};

/// The same condition with other texts.
pub(super) fn with_texts(condition: &Expr, texts: &HashMap<String, String>) -> Result<Expr> {
    let replace = |expr: Expr| {
        let Expr::Literal(value, metadata) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let Some(other) = value.try_as_str().flatten().and_then(|text| texts.get(text)) else {
            return Ok(Transformed::no(expr));
        };
        let other = Some(other.clone());
        let value = match value {
            ScalarValue::Utf8View(_) => ScalarValue::Utf8View(other),
            ScalarValue::LargeUtf8(_) => ScalarValue::LargeUtf8(other),
            _ => ScalarValue::Utf8(other),
        };
        Ok(Transformed::yes(Expr::Literal(value, metadata.clone())))
    };
    condition.clone().transform_up(replace).data()
}
