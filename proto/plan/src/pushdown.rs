//! Decides which conditions may be pushed down to a leaf. No other code decides this.

use datafusion::{
    common::tree_node::TreeNodeRecursion,
    logical_expr::{Expr, Volatility},
};

use crate::walk::Walk as _;

/// Whether a leaf evaluates this condition exactly: every node is on the list below and every function is
/// deterministic. Any other condition is evaluated above the scan.
///
/// In a cluster of mixed versions both sides know the expressions on the list. Functions and search clauses are not
/// listed: an older leaf refuses a request with one that it does not know, so upgrade the leaves first.
pub fn is_exact(condition: &Expr) -> bool {
    let mut exact = true;
    let walked = condition.apply(|node| {
        exact = match node {
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Placeholder(_)
            | Expr::Alias(_)
            | Expr::BinaryExpr(_)
            | Expr::Not(_)
            | Expr::Negative(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::InList(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_) => true,
            Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
            _ => false,
        };
        Ok(if exact {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    });
    exact && walked.is_ok()
}
