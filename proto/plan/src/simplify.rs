//! DataFusion's simplifier without the one law of it that does not hold for NULL.
//!
//! It merges two lists of one needle: `x IN (1) AND x IN (2)` becomes false, `x NOT IN (1) OR x NOT IN (2)` true, and `x IN (1) AND x NOT IN (NULL)`
//! becomes `x IN (1)`. Where `x` or an element is NULL, each of them is NULL, and nothing may become of it that is true or false.

use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, simplify::SimplifyContext, utils::merge_schema},
    optimizer::{
        ApplyOrder, OptimizerConfig, OptimizerRule,
        simplify_expressions::{ExprSimplifier, SimplifyExpressions},
        utils::NamePreserver,
    },
};

/// Simplifies an expression, save that two lists of one needle stay two.
pub fn simplify(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    match has_two_lists_of_one_needle(&expr) {
        true => Ok(expr.map_children(|part| simplify(part, simplifier).map(Transformed::yes))?.data),
        false => simplifier.simplify(expr),
    }
}

/// Whether the simplifier could merge lists here. An OR of equalities of a column is one list.
fn has_two_lists_of_one_needle(expr: &Expr) -> bool {
    let mut needles = Vec::new();
    lists(expr, &mut needles);
    (1..needles.len()).any(|place| needles[..place].contains(&needles[place]))
}

fn lists<'a>(expr: &'a Expr, needles: &mut Vec<&'a Expr>) {
    let visited = expr.apply(|part| {
        match part {
            Expr::InList(list) => needles.push(&list.expr),
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
                let mut merged: Vec<&Expr> = Vec::new();
                for side in datafusion::logical_expr::utils::split_binary(part, Operator::Or) {
                    match listed(side) {
                        Some(needle) if merged.contains(&needle) => {}
                        Some(needle) => merged.push(needle),
                        None => lists(side, needles),
                    }
                }
                needles.append(&mut merged);
                return Ok(TreeNodeRecursion::Jump);
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing above fails");
}

/// The needle of what the simplifier takes for a list within an OR.
fn listed(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::InList(list) if !list.negated => Some(&list.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (needle @ Expr::Column(_), Expr::Literal(..)) | (Expr::Literal(..), needle @ Expr::Column(_)) => Some(needle),
            _ => None,
        },
        _ => None,
    }
}

/// DataFusion's rule with [`simplify`].
#[derive(Debug, Default)]
pub struct Simplify(SimplifyExpressions);

impl OptimizerRule for Simplify {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut merges = false;
        plan.apply_expressions(|expr| {
            merges |= has_two_lists_of_one_needle(expr);
            Ok(if merges { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !merges {
            return self.0.rewrite(plan, config);
        }
        if matches!(plan, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(plan)); // what it filters by came from above, and was simplified there
        }
        let context = SimplifyContext::builder()
            .with_schema(merge_schema(&plan.inputs()).into())
            .with_config_options(config.options())
            .with_query_execution_start_time(config.query_execution_start_time());
        let simplifier = ExprSimplifier::new(context.build()).with_canonicalize(!matches!(plan, LogicalPlan::Join(_)));
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let simple = simplify(expr.clone(), &simplifier)?;
            Ok(Transformed::new_transformed(name.restore(simple.clone()), simple != expr))
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn list(needle: &str, of: i64, negated: bool) -> Expr {
        col(needle).in_list(vec![lit(of), lit(of + 1), lit(of + 2), lit(of + 3)], negated)
    }

    #[test]
    fn two_lists_of_one_needle_are_seen_wherever_they_stand() {
        let (within, without) = (list("x", 1, false), list("x", 7, true));
        for merges in [
            within.clone().and(within.clone()),
            within.clone().and(without.clone()),
            without.clone().or(without.clone()),
            (!(within.clone().and(col("y").gt(lit(1i64)).or(without.clone())))).is_null(),
            col("x").eq(lit(1i64)).or(col("x").eq(lit(2i64))).and(within.clone()),
            within.clone().or(without.clone()),
        ] {
            assert!(has_two_lists_of_one_needle(&merges), "{merges}");
        }
        for stays in [
            within.clone().and(list("y", 1, true)),
            within.clone().or(within.clone()).or(col("x").eq(lit(1i64))),
            col("x").eq(lit(1i64)).or(col("x").eq(lit(2i64))),
            without.and(col("x").eq(lit(1i64))),
        ] {
            assert!(!has_two_lists_of_one_needle(&stays), "{stays}");
        }
    }
}
