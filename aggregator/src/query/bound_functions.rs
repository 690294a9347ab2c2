//! Functions in physical expressions, which find their query in the settings that they were planned with.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::Schema,
    common::tree_node::{Transformed, TransformedResult as _},
    config::ConfigOptions,
    error::Result,
    physical_expr::{HigherOrderFunctionExpr, PhysicalExpr, ScalarFunctionExpr},
};
use plan::walk::Walk as _;

/// Whether an expression contains a scalar function.
pub(super) fn has_function(expr: &Arc<dyn PhysicalExpr>) -> bool {
    contains(expr, is_function)
}

/// Whether any part of an expression is such.
pub(super) fn contains(expr: &Arc<dyn PhysicalExpr>, is: fn(&dyn PhysicalExpr) -> bool) -> bool {
    expr.exists(|part| Ok(is(part.as_ref()))).unwrap_or(true)
}

pub(super) fn is_function(expr: &dyn PhysicalExpr) -> bool {
    expr.is::<ScalarFunctionExpr>() || is_bound(expr)
}

/// Whether an expression refers to the settings of its query and is not replaced in a copy.
pub(super) fn is_bound(expr: &dyn PhysicalExpr) -> bool {
    expr.is::<HigherOrderFunctionExpr>()
}

/// The same expression, whose functions find their query in these settings.
pub(super) fn with_settings(
    expr: &Arc<dyn PhysicalExpr>,
    settings: &Arc<ConfigOptions>,
) -> Result<Arc<dyn PhysicalExpr>> {
    let replace = |part: Arc<dyn PhysicalExpr>| {
        let Some(call) = part.downcast_ref::<ScalarFunctionExpr>() else {
            return Ok(Transformed::no(part));
        };
        let replaced = ScalarFunctionExpr::new(
            call.name(),
            Arc::new(call.fun().clone()),
            call.args().to_vec(),
            // It is fixed, whatever the input.
            call.return_field(&Schema::empty())?,
            Arc::clone(settings),
        );
        Ok(Transformed::yes(Arc::new(replaced) as Arc<dyn PhysicalExpr>))
    };
    Arc::clone(expr).transform_up(replace).data()
}
