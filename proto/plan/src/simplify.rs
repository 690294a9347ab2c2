//! DataFusion's simplifier, corrected where it changes results.
//!
//! - It merges two lists over one expression: `x IN (1) AND x IN (2)` becomes false, `x NOT IN (1) OR x NOT IN (2)`
//!   becomes true, and `x IN (1) AND x NOT IN (NULL)` becomes `x IN (1)`. If `x` or an element is NULL, the correct
//!   result is NULL. Here two lists are never merged.
//! - It turns equalities such as `x = 0.0 OR x = 1.5` into a list. `=` treats -0 and 0 as equal, but a list does not.
//!   Here a list that contains one of them contains both.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::{
        Result,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    logical_expr::{
        BinaryExpr, Expr, LogicalPlan, Operator,
        expr::{InList, Placeholder},
        lit,
        simplify::SimplifyContext,
        utils::merge_schema,
    },
    optimizer::{
        ApplyOrder, OptimizerConfig, OptimizerRule,
        simplify_expressions::{ExprSimplifier, SimplifyExpressions},
        utils::NamePreserver,
    },
    scalar::ScalarValue,
};

use crate::walk::{Walk as _, apply_expressions, map_expressions};

/// Simplifies an expression.
pub fn simplify(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    Ok(with_both_zeros(simplify_without_merging(expr, simplifier)?)?.data)
}

/// Simplifies an expression without merging two lists over one expression: simplifies each list alone, then hides it
/// behind a placeholder while the rest is simplified.
fn simplify_without_merging(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    if !may_merge_lists(&expr) {
        return simplifier.simplify(expr);
    }
    let mut lists: Vec<Expr> = Vec::new();
    let hidden = expr.transform_down(|part| {
        if comparison(&part).is_none() {
            return Ok(Transformed::no(part));
        }
        let parts = part
            .map_children(|part| Ok(Transformed::yes(simplify_without_merging(part, simplifier)?)))?
            .data;
        let list = if may_merge_lists(&parts) {
            parts
        } else {
            simplifier.simplify(parts)?
        };
        let hidden = match list {
            constant @ Expr::Literal(..) => constant,
            list => hide(list, &mut lists),
        };
        Ok(Transformed::new(hidden, true, TreeNodeRecursion::Jump))
    })?;
    restore(simplifier.simplify(hidden.data)?, &lists)
}

/// The prefix of the placeholder names of hidden lists.
const HIDDEN: &str = "\u{1}list_";

/// Replaces a list by a placeholder. Equal lists have the same placeholder.
fn hide(list: Expr, lists: &mut Vec<Expr>) -> Expr {
    let index = lists.iter().position(|other| *other == list).unwrap_or(lists.len());
    if index == lists.len() {
        lists.push(list);
    }
    let field = Field::new("list", DataType::Boolean, true);
    Expr::Placeholder(Placeholder::new_with_field(
        format!("{HIDDEN}{index}"),
        Some(Arc::new(field)),
    ))
}

/// Replaces the placeholders by their lists.
fn restore(expr: Expr, lists: &[Expr]) -> Result<Expr> {
    let list_of = |id: &str| {
        id.strip_prefix(HIDDEN)
            .and_then(|index| lists.get(index.parse::<usize>().ok()?))
            .cloned()
    };
    let restored = expr.transform_down(|part| match &part {
        Expr::Placeholder(placeholder) => Ok(match list_of(&placeholder.id) {
            Some(list) => Transformed::new(list, true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        }),
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(restored.data)
}

fn with_both_zeros(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| match part {
        Expr::InList(mut list) if lacks_a_zero(&list) => {
            let positive = list.list.iter().any(|item| is_zero(item, false));
            list.list.push(lit(if positive { -0.0 } else { 0.0 }));
            Ok(Transformed::yes(Expr::InList(list)))
        }
        part => Ok(Transformed::no(part)),
    })
}

/// Whether a list contains exactly one of the two zeros.
fn lacks_a_zero(list: &InList) -> bool {
    let has = |negative| list.list.iter().any(|item| is_zero(item, negative));
    has(true) != has(false)
}

fn is_zero(item: &Expr, negative: bool) -> bool {
    let Expr::Literal(ScalarValue::Float64(Some(zero)), _) = item else {
        return false;
    };
    *zero == 0.0 && zero.is_sign_negative() == negative
}

/// Whether the simplifier could merge lists here: two comparisons with constants share a column, an outer reference or
/// a subquery. It also turns equalities into lists, even under NOT, but an OR of equalities over one expression is one
/// list.
fn may_merge_lists(expr: &Expr) -> bool {
    let mut needles = Vec::new();
    collect_needles(expr, &mut needles);
    let mut seen = HashSet::new();
    needles.len() > 1
        && needles
            .iter()
            .any(|needle| inputs(needle).into_iter().filter(|input| !seen.insert(*input)).count() > 0)
}

/// The inputs on which the value of an expression depends: all its leaves except literals.
fn inputs(expr: &Expr) -> HashSet<&Expr> {
    let mut inputs = HashSet::new();
    let visited = expr.apply(|part| {
        if is_input(part) {
            inputs.insert(part);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    inputs
}

fn is_input(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => false,
        Expr::Column(_)
        | Expr::OuterReferenceColumn(..)
        | Expr::ScalarSubquery(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::Placeholder(_) => true,
        Expr::ScalarFunction(function) => function.args.is_empty(),
        _ => false,
    }
}

/// Collects the expressions that `expr` compares with constants.
fn collect_needles<'a>(expr: &'a Expr, needles: &mut Vec<&'a Expr>) {
    let visited = expr.apply(|part| {
        if let Some((needle, _)) = comparison(part) {
            needles.push(needle);
        } else if let Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) = part {
            let mut equal: Vec<&Expr> = Vec::new();
            for side in datafusion::logical_expr::utils::split_binary(part, Operator::Or) {
                match comparison(side) {
                    Some((needle, true)) if equal.contains(&needle) => {}
                    Some((needle, true)) => {
                        equal.push(needle);
                        collect_needles(needle, needles);
                    }
                    _ => collect_needles(side, needles),
                }
            }
            needles.append(&mut equal);
            return Ok(TreeNodeRecursion::Jump);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
}

/// The expression that a list or an equality compares with constants, and whether it tests for equality.
fn comparison(expr: &Expr) -> Option<(&Expr, bool)> {
    match expr {
        Expr::InList(list) => Some((&list.expr, !list.negated)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::Eq | Operator::NotEq),
            right,
        }) => {
            let is_constant = |side: &Expr| !side.exists(|part| Ok(is_input(part))).unwrap_or(true);
            match (is_constant(left), is_constant(right)) {
                (false, true) => Some((left, *op == Operator::Eq)),
                (true, false) => Some((right, *op == Operator::Eq)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether the predicate is true for some expression of a plan.
fn any_expression(plan: &LogicalPlan, predicate: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    apply_expressions(plan, &mut |expr| {
        found |= predicate(expr);
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// DataFusion's rule [`SimplifyExpressions`], with the corrections of [`simplify`].
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
            let named = |expr: Expr| {
                let name = names.save(&expr);
                change(expr)?.map_data(|expr| Ok(name.restore(expr)))
            };
            map_expressions(plan, &mut |expr| {
                if let Expr::GroupingSet(_) = expr {
                    expr.map_children(named)
                } else {
                    named(expr)
                }
            })
        };
        let simple = match any_expression(&plan, may_merge_lists)? {
            false => self.0.rewrite(plan, config)?,
            // The filters of a scan were pushed down from above, where they were simplified.
            true if matches!(plan, LogicalPlan::TableScan(_)) => Transformed::no(plan),
            true => {
                let context = SimplifyContext::builder()
                    .with_schema(merge_schema(&plan.inputs()).into())
                    .with_config_options(config.options())
                    .with_query_execution_start_time(config.query_execution_start_time());
                let simplifier =
                    ExprSimplifier::new(context.build()).with_canonicalize(!matches!(plan, LogicalPlan::Join(_)));
                each(plan, &|expr| {
                    let simple = simplify_without_merging(expr.clone(), &simplifier)?;
                    Ok(Transformed::new_transformed(simple.clone(), simple != expr))
                })?
            }
        };
        let lacks_zero = |expr: &Expr| {
            expr.exists(|part| Ok(matches!(part, Expr::InList(list) if lacks_a_zero(list))))
                .unwrap_or_default()
        };
        simple.transform_data(|plan| {
            if any_expression(&plan, lacks_zero)? {
                each(plan, &with_both_zeros)
            } else {
                Ok(Transformed::no(plan))
            }
        })
    }
}

#[cfg(test)]
mod tests;
