//! DataFusion's simplifier, mended where it changes answers.
//!
//! - It merges two lists over one expression: `x IN (1) AND x IN (2)` becomes false, `x NOT IN (1) OR x NOT IN (2)`
//!   true, and `x IN (1) AND x NOT IN (NULL)` becomes `x IN (1)`. Where `x` or an element is NULL, the right result is
//!   NULL. Here two lists stay two.
//! - It makes a list of equalities such as `x = 0.0 OR x = 1.5`. `=` takes -0 for 0, but a list does not. Here a list
//!   that has one of them has both.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
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

/// Simplifies an expression.
pub fn simplify(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    Ok(with_both_zeros(apart(expr, simplifier)?)?.data)
}

/// Simplifies an expression, except that two lists over one expression stay two: each is simplified alone and then
/// hidden from the rest.
fn apart(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    if !may_merge_lists(&expr) {
        return simplifier.simplify(expr);
    }
    let mut lists: Vec<Expr> = Vec::new();
    let hidden = expr.transform_down(|part| {
        if comparison(&part).is_none() {
            return Ok(Transformed::no(part));
        }
        let parts = part
            .map_children(|part| Ok(Transformed::yes(apart(part, simplifier)?)))?
            .data;
        let list = if may_merge_lists(&parts) {
            parts
        } else {
            simplifier.simplify(parts)?
        };
        let shown = match list {
            constant @ Expr::Literal(..) => constant,
            list => {
                let place = lists.iter().position(|known| *known == list).unwrap_or(lists.len());
                if place == lists.len() {
                    lists.push(list);
                }
                let field = Field::new("list", DataType::Boolean, true);
                Expr::Placeholder(Placeholder::new_with_field(
                    format!("{HIDDEN}{place}"),
                    Some(Arc::new(field)),
                ))
            }
        };
        Ok(Transformed::new(shown, true, TreeNodeRecursion::Jump))
    })?;
    let simple = simplifier.simplify(hidden.data)?;
    let list_of = |id: &str| {
        id.strip_prefix(HIDDEN)
            .and_then(|place| lists.get(place.parse::<usize>().ok()?))
            .cloned()
    };
    let shown = simple.transform_down(|part| match &part {
        Expr::Placeholder(placeholder) => Ok(match list_of(&placeholder.id) {
            Some(list) => Transformed::new(list, true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        }),
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(shown.data)
}

/// What the name of a hidden list begins with.
const HIDDEN: &str = "\u{1}list_";

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

/// Whether a list has one of the two zeros.
fn lacks_a_zero(list: &InList) -> bool {
    let has = |negative| list.list.iter().any(|item| is_zero(item, negative));
    has(true) != has(false)
}

fn is_zero(item: &Expr, negative: bool) -> bool {
    matches!(item, Expr::Literal(ScalarValue::Float64(Some(zero)), _) if *zero == 0.0 && zero.is_sign_negative() == negative)
}

/// Whether the simplifier could merge lists here: two comparisons with constants share a column, a column of a row
/// around, or a sub-query. It makes lists of equalities on its way, under NOT too, but an OR of equalities over one
/// expression is one list.
fn may_merge_lists(expr: &Expr) -> bool {
    let mut needles = Vec::new();
    compared(expr, &mut needles);
    let mut seen = HashSet::new();
    needles.len() > 1
        && needles
            .iter()
            .any(|needle| inputs(needle).into_iter().filter(|input| !seen.insert(*input)).count() > 0)
}

/// What the value of an expression depends on: all of its leaves that are not literals.
fn inputs(expr: &Expr) -> HashSet<&Expr> {
    let mut inputs = HashSet::new();
    let visited = expr.apply(|part| {
        if is_input(part) {
            inputs.insert(part);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing above fails");
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

fn compared<'a>(expr: &'a Expr, needles: &mut Vec<&'a Expr>) {
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
                        compared(needle, needles);
                    }
                    _ => compared(side, needles),
                }
            }
            needles.append(&mut equal);
            return Ok(TreeNodeRecursion::Jump);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing above fails");
}

/// The expression that a list or an equality compares with constants, and whether it asks for equality.
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

/// Whether an expression of a plan is one that [`simplify`] treats in its own way.
fn has(plan: &LogicalPlan, special: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= special(expr);
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
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
            let named = |expr: Expr| {
                let name = names.save(&expr);
                change(expr)?.map_data(|expr| Ok(name.restore(expr)))
            };
            plan.map_expressions(|expr| {
                if let Expr::GroupingSet(_) = expr {
                    expr.map_children(named)
                } else {
                    named(expr)
                }
            })
        };
        let simple = match has(&plan, may_merge_lists)? {
            false => self.0.rewrite(plan, config)?,
            // What a scan filters by came from above, and was simplified there.
            true if matches!(plan, LogicalPlan::TableScan(_)) => Transformed::no(plan),
            true => {
                let context = SimplifyContext::builder()
                    .with_schema(merge_schema(&plan.inputs()).into())
                    .with_config_options(config.options())
                    .with_query_execution_start_time(config.query_execution_start_time());
                let simplifier =
                    ExprSimplifier::new(context.build()).with_canonicalize(!matches!(plan, LogicalPlan::Join(_)));
                each(plan, &|expr| {
                    let simple = apart(expr.clone(), &simplifier)?;
                    Ok(Transformed::new_transformed(simple.clone(), simple != expr))
                })?
            }
        };
        let lacking = |expr: &Expr| {
            expr.exists(|part| Ok(matches!(part, Expr::InList(list) if lacks_a_zero(list))))
                .unwrap_or_default()
        };
        simple.transform_data(|plan| {
            if has(&plan, lacking)? {
                each(plan, &with_both_zeros)
            } else {
                Ok(Transformed::no(plan))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::Schema,
        common::DFSchema,
        prelude::{cast, col, lit},
    };

    use super::*;

    fn list(needle: &str, of: i64, negated: bool) -> Expr {
        col(needle).in_list(vec![lit(of), lit(of + 1), lit(of + 2), lit(of + 3)], negated)
    }

    /// A list of a column of the row around a sub-query.
    fn around(of: i64, negated: bool) -> Expr {
        let field = Arc::new(Field::new("x", DataType::Int64, true));
        Expr::OuterReferenceColumn(field, "x".into()).in_list(vec![lit(of), lit(of + 1)], negated)
    }

    #[test]
    fn what_stands_around_two_lists_is_simplified() {
        let schema = Schema::new(["x", "y"].map(|name| Field::new(name, DataType::Int64, true)).to_vec());
        let schema = Arc::new(DFSchema::try_from(schema).expect("a schema"));
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(schema).build());
        let simple = |expr: Expr| simplify(expr, &simplifier).expect("simple");
        let (one, other) = (list("x", 1, false), list("x", 7, true));
        let same = col("y").gt(lit(3i64));
        assert_eq!(
            simple(one.clone().and(other.clone()).and(lit(true))),
            one.clone().and(other.clone())
        );
        assert_eq!(simple(one.clone().and(other.clone()).and(lit(false))), lit(false));
        assert_eq!(
            simple(same.clone().and(one.clone()).or(same.clone().and(other.clone()))),
            same.and(one.clone().or(other.clone())),
            "what both sides of an OR ask is asked once"
        );
        assert_eq!(
            simple(
                col("x")
                    .is_null()
                    .and(lit(1i64).gt(lit(2i64)).or(other.clone().or(other.clone())))
            ),
            col("x").is_null().and(other)
        );
    }

    #[test]
    fn what_may_become_two_lists_over_one_expression_is_seen_wherever_it_stands() {
        let (within, without) = (list("x", 1, false), list("x", 7, true));
        for merges in [
            within.clone().and(within.clone()),
            within.clone().and(without.clone()),
            without.clone().or(without.clone()),
            (!(within.clone().and(col("y").gt(lit(1i64)).or(without.clone())))).is_null(),
            col("x").eq(lit(1i64)).or(col("x").eq(lit(2i64))).and(within.clone()),
            within.clone().or(without.clone()),
            without.clone().and(col("x").eq(lit(1i64))),
            !(without
                .clone()
                .or(col("x").not_eq(lit(1i64)).and(col("x").not_eq(lit(2i64))))),
            without
                .clone()
                .and(col("x").eq(cast(lit("1"), DataType::Int64)).or(col("x").eq(lit(2i64)))),
            col("y")
                .eq(lit(1i64))
                .or(within.clone().and(list("x", 9, false)).is_not_null().eq(lit(false))),
            around(1, false).and(around(7, false)),
            around(1, true).or(around(7, true)).is_null(),
        ] {
            assert!(may_merge_lists(&merges), "{merges}");
        }
        for stays in [
            within.clone().and(list("y", 1, true)),
            within.clone().or(within.clone()).or(col("x").eq(lit(1i64))),
            col("x").eq(lit(1i64)).or(col("x").eq(lit(2i64))),
            without.and(col("y").eq(lit(1i64))),
        ] {
            assert!(!may_merge_lists(&stays), "{stays}");
        }
    }
}
