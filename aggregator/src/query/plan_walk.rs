//! Visits the operators and expressions of a logical plan.

use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::Result,
    logical_expr::{Expr, LogicalPlan, Volatility},
};
use plan::walk::{Walk as _, apply_expressions, apply_with_subqueries};

/// Whether a plan means the same at any time: it calls no function such as `now()` or `random()`.
pub(super) fn is_repeatable(plan: &LogicalPlan) -> bool {
    let mut repeatable = true;
    let walked = each_node(plan, |expr| {
        if let Some(Expr::ScalarFunction(call)) = expr {
            repeatable &= call.func.signature().volatility == Volatility::Immutable;
        }
        repeatable
    });
    repeatable && walked.is_ok()
}

/// Visits each operator (`None`) and each expression of a plan and of its subqueries, until `visit` returns false.
pub(super) fn each_node(plan: &LogicalPlan, mut visit: impl FnMut(Option<&Expr>) -> bool) -> Result<TreeNodeRecursion> {
    let recursion = |goes_on: bool| match goes_on {
        true => TreeNodeRecursion::Continue,
        false => TreeNodeRecursion::Stop,
    };
    apply_with_subqueries(plan, &mut |node| {
        if !visit(None) {
            return Ok(TreeNodeRecursion::Stop);
        }
        apply_expressions(node, &mut |expr| expr.apply(|expr| Ok(recursion(visit(Some(expr))))))
    })
}
