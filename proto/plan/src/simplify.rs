//! DataFusion's simplifier, mended where it changes answers.
//!
//! - It merges two lists of one needle: `x IN (1) AND x IN (2)` becomes false, `x NOT IN (1) OR x NOT IN (2)` true, and
//!   `x IN (1) AND x NOT IN (NULL)` becomes `x IN (1)`. Where `x` or an element is NULL, each of them is NULL, and nothing may become of it that
//!   is true or false. Here two lists stay two.
//! - It makes lists of equalities, `x = 0.0 OR x = 1.5`, and a list tells -0 from 0, which are equal. Here a list that has one has both.

use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, expr::InList, lit, simplify::SimplifyContext, utils::merge_schema},
    optimizer::{
        ApplyOrder, OptimizerConfig, OptimizerRule,
        simplify_expressions::{ExprSimplifier, SimplifyExpressions},
        utils::NamePreserver,
    },
    scalar::ScalarValue,
};

/// Simplifies an expression.
pub fn simplify(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    Ok(with_both_zeros(apart(expr, simplifier)?)?.data)
}

/// Simplifies an expression, save that two lists of one needle stay two.
fn apart(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    match has_two_lists_of_one_needle(&expr) {
        true => Ok(expr.map_children(|part| apart(part, simplifier).map(Transformed::yes))?.data),
        false => simplifier.simplify(expr),
    }
}

fn with_both_zeros(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| match part {
        Expr::InList(mut list) if lacks_a_zero(&list) => {
            list.list.extend([lit(0.0), lit(-0.0)]);
            Ok(Transformed::yes(Expr::InList(list)))
        }
        part => Ok(Transformed::no(part)),
    })
}

fn lacks_a_zero(list: &InList) -> bool {
    let signs = |negative: bool| {
        let is_it =
            |item: &Expr| matches!(item, Expr::Literal(ScalarValue::Float64(Some(zero)), _) if *zero == 0.0 && zero.is_sign_negative() == negative);
        list.list.iter().any(is_it)
    };
    signs(true) != signs(false)
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

/// Whether an expression of a plan is one that [`simplify`] treats in its own way.
fn has(plan: &LogicalPlan, special: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= special(expr);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
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
        let names = NamePreserver::new(&plan);
        let each = |plan: LogicalPlan, change: &dyn Fn(Expr) -> Result<Transformed<Expr>>| {
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                change(expr)?.map_data(|expr| Ok(name.restore(expr)))
            })
        };
        let simple = match has(&plan, has_two_lists_of_one_needle)? {
            false => self.0.rewrite(plan, config)?,
            // What a scan filters by came from above, and was simplified there.
            true if matches!(plan, LogicalPlan::TableScan(_)) => Transformed::no(plan),
            true => {
                let context = SimplifyContext::builder()
                    .with_schema(merge_schema(&plan.inputs()).into())
                    .with_config_options(config.options())
                    .with_query_execution_start_time(config.query_execution_start_time());
                let simplifier = ExprSimplifier::new(context.build()).with_canonicalize(!matches!(plan, LogicalPlan::Join(_)));
                each(plan, &|expr| {
                    let simple = apart(expr.clone(), &simplifier)?;
                    Ok(Transformed::new_transformed(simple.clone(), simple != expr))
                })?
            }
        };
        let lacking = |expr: &Expr| expr.exists(|part| Ok(matches!(part, Expr::InList(list) if lacks_a_zero(list)))).unwrap_or_default();
        simple.transform_data(|plan| if has(&plan, lacking)? { each(plan, &with_both_zeros) } else { Ok(Transformed::no(plan)) })
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
