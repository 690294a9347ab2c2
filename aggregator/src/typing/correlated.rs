//! Makes correlated subqueries compare plain columns, because DataFusion can turn only such subqueries into joins. An
//! expression over the rows of the subquery or of the outer query becomes a computed column of a projection below.
//!
//! ```text
//!   Filter: (SELECT … WHERE json_get(e.user, 'id', 'int') = outer(json_get(u.id, '', 'int'))) > 1
//!     u
//! ->
//!   Filter: (SELECT … FROM (SELECT *, json_get(e.user, …) AS a FROM e) WHERE a = outer(b)) > 1
//!     (SELECT *, json_get(u.id, …) AS b FROM u)
//! ```

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema, ExprSchema as _, Result,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable as _, Filter, LogicalPlan, Operator, Projection, Subquery, lit,
        utils::{conjunction, merge_schema, split_conjunction, split_conjunction_owned},
    },
};
use plan::walk::{
    Walk as _, apply_subqueries, map_expressions, map_subqueries, transform_down_with_subqueries,
    transform_up_with_subqueries,
};

/// Replaces the computed operands of comparisons in correlated subqueries with columns.
pub(super) fn compare_by_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !plan.exists(|node| Ok(has_subquery(node)))? {
        return Ok(plan);
    }
    let mut names = ColumnNames(0);
    let inner = transform_up_with_subqueries(plan, &mut |node| {
        Ok(Transformed::yes(compute_inner_columns(node, &mut names)?))
    })?
    .data;
    Ok(transform_up_with_subqueries(inner, &mut |node| {
        Ok(Transformed::yes(compute_outer_columns(node, &mut names)?))
    })?
    .data)
}

/// Generates the names of computed columns, which are unique in a statement. A condition that becomes part of a join
/// moves past the computed columns of other subqueries, and must not refer to one of those by mistake.
struct ColumnNames(usize);

impl ColumnNames {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("\u{1}compared_{}", self.0)
    }
}

fn has_subquery(plan: &LogicalPlan) -> bool {
    let mut found = matches!(plan, LogicalPlan::Subquery(_));
    let visited = apply_subqueries(plan, &mut |_| {
        found = true;
        Ok(TreeNodeRecursion::Stop)
    });
    found || visited.is_err()
}

/// Whether an expression refers to a column of an outer query.
fn has_outer(expr: &Expr) -> bool {
    expr.exists(|node| Ok(matches!(node, Expr::OuterReferenceColumn(..))))
        .unwrap_or(false)
}

/// In a filter of a correlated subquery, computes each side of an equality that depends only on the subquery's own rows
/// as a column below the filter.
fn compute_inner_columns(plan: LogicalPlan, names: &mut ColumnNames) -> Result<LogicalPlan> {
    let LogicalPlan::Filter(filter) = &plan else {
        return Ok(plan);
    };
    if !has_outer(&filter.predicate) {
        return Ok(plan);
    }
    let mut computed: Vec<Expr> = Vec::new();
    let mut side = |expr: Expr, computed: &mut Vec<Expr>| match expr {
        plain @ (Expr::Column(_) | Expr::OuterReferenceColumn(..) | Expr::Literal(..)) => plain,
        other if has_outer(&other) || other.column_refs().is_empty() => other,
        other => {
            let name = names.next();
            computed.push(other.alias(&name));
            Expr::Column(Column::from_name(name))
        }
    };
    let conditions = split_conjunction_owned(filter.predicate.clone())
        .into_iter()
        .map(|condition| match without_null_guard(condition) {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Eq,
                right,
            }) if has_outer(&left) != has_outer(&right) => {
                let (left, right) = (side(*left, &mut computed), side(*right, &mut computed));
                Expr::BinaryExpr(BinaryExpr::new(Box::new(left), Operator::Eq, Box::new(right)))
            }
            other => other,
        });
    let predicate = conjunction(conditions.collect::<Vec<_>>());
    match predicate {
        Some(predicate) if !computed.is_empty() => {
            let input = append_columns(&filter.input, computed)?;
            Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
        }
        _ => Ok(plan),
    }
}

/// In a filter, `CASE WHEN a IS NULL AND … THEN false ELSE a = b END` is the same as `a = b`, because a filter treats
/// NULL as false.
fn without_null_guard(condition: Expr) -> Expr {
    let Expr::Case(case) = &condition else { return condition };
    match (case.when_then_expr.as_slice(), case.else_expr.as_deref()) {
        (
            [(when, then)],
            Some(
                equality @ Expr::BinaryExpr(BinaryExpr {
                    left, op: Operator::Eq, ..
                }),
            ),
        ) if case.expr.is_none()
            && **then == lit(false)
            && split_conjunction(when)
                .into_iter()
                .any(|part| matches!(part, Expr::IsNull(side) if side == left)) =>
        {
            equality.clone()
        }
        _ => condition,
    }
}

/// A projection with all columns of the input, then the computed ones.
fn append_columns(input: &LogicalPlan, computed: Vec<Expr>) -> Result<LogicalPlan> {
    let existing = input.schema().iter().map(|column| Expr::Column(Column::from(column)));
    Ok(LogicalPlan::Projection(Projection::try_new(
        existing.chain(computed).collect(),
        Arc::new(input.clone()),
    )?))
}

/// Changes the subqueries that can refer to the rows of a node: those in its expressions and, for a join, the lateral
/// one on its right side.
fn map_correlated(plan: LogicalPlan, mut change: impl FnMut(Subquery) -> Result<Subquery>) -> Result<LogicalPlan> {
    let plan = map_subqueries(plan, &mut |node| map_subquery(node, &mut change))?.data;
    match plan {
        LogicalPlan::Join(mut join) => {
            join.right = Arc::new(map_lateral(join.right.as_ref().clone(), change)?);
            Ok(LogicalPlan::Join(join))
        }
        other => Ok(other),
    }
}

/// Changes the subquery that is the right side of a lateral join.
fn map_lateral(right: LogicalPlan, mut change: impl FnMut(Subquery) -> Result<Subquery>) -> Result<LogicalPlan> {
    let mapped = right.transform_down(|node| match node {
        LogicalPlan::SubqueryAlias(_) => Ok(Transformed::no(node)),
        node => Ok(Transformed {
            tnr: TreeNodeRecursion::Jump,
            ..map_subquery(node, &mut change)?
        }),
    })?;
    mapped.data.recompute_schema()
}

fn map_subquery(
    node: LogicalPlan,
    change: &mut impl FnMut(Subquery) -> Result<Subquery>,
) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Subquery(subquery) => Ok(Transformed::yes(LogicalPlan::Subquery(change(subquery)?))),
        other => Ok(Transformed::no(other)),
    }
}

/// The subquery with another plan.
fn with_plan(subquery: &Subquery, plan: LogicalPlan) -> Subquery {
    Subquery {
        outer_ref_columns: plan.all_out_ref_exprs(),
        subquery: Arc::new(plan),
        spans: subquery.spans.clone(),
    }
}

/// Applies `assign_types` to the inputs of a node, then to the subqueries that can refer to its rows. An outer column
/// was JSON when the subquery was planned; a group key or a column of a set operation has another type by now.
pub(super) fn map_inputs(
    plan: LogicalPlan,
    assign_types: &mut impl FnMut(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let plan = match plan {
        LogicalPlan::Join(mut join) => {
            join.left = Arc::new(assign_types(join.left.as_ref().clone())?);
            let left = Arc::clone(join.left.schema());
            let right = map_lateral(join.right.as_ref().clone(), |subquery| {
                with_outer_fields(&subquery, &left)
            })?;
            join.right = Arc::new(assign_types(right)?);
            LogicalPlan::Join(join)
        }
        other => {
            other
                .map_children(|input| Ok(Transformed::yes(assign_types(input)?)))?
                .data
        }
    };
    let outer = merge_schema(&plan.inputs());
    let mut change = |subquery: Subquery| {
        let correlated = with_outer_fields(&subquery, &outer)?;
        Ok(with_plan(
            &subquery,
            assign_types(correlated.subquery.as_ref().clone())?,
        ))
    };
    match plan {
        // The right side of a lateral join: its outer columns have their types already.
        LogicalPlan::Subquery(subquery) => Ok(LogicalPlan::Subquery(with_plan(
            &subquery,
            subquery.subquery.as_ref().clone(),
        ))),
        other => Ok(map_subqueries(other, &mut |node| map_subquery(node, &mut change))?.data),
    }
}

/// The subquery with the fields that its outer columns have in this schema.
fn with_outer_fields(subquery: &Subquery, outer: &DFSchema) -> Result<Subquery> {
    let updated = subquery.subquery.as_ref().clone().transform_down(|node| {
        map_expressions(node, &mut |expr| {
            expr.transform_down(|part| match part {
                Expr::OuterReferenceColumn(_, ref column) if outer.has_column(column) => {
                    let field = Arc::clone(outer.field_from_column(column)?);
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column.clone())))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })?;
    Ok(with_plan(subquery, updated.data))
}

/// For a node with correlated subqueries, computes the expressions that these take over its rows as columns below it.
fn compute_outer_columns(plan: LogicalPlan, names: &mut ColumnNames) -> Result<LogicalPlan> {
    let Some(outer) = plan.inputs().first().map(|input| (*input).clone()) else {
        return Ok(plan);
    };
    let mut computed: Vec<(Expr, Column)> = Vec::new();
    let replaced = map_correlated(plan.clone(), |subquery| {
        replace_outer_expressions(subquery, &outer, &mut computed, names)
    })?;
    if computed.is_empty() {
        return Ok(plan);
    }
    let defines_columns = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
    let computed = computed
        .into_iter()
        .map(|(expr, column)| expr.alias(column.name))
        .collect();
    let mut first_input = Some(append_columns(&outer, computed)?);
    let replaced = replaced
        .map_children(|input| Ok(Transformed::yes(first_input.take().unwrap_or(input))))?
        .data
        .recompute_schema()?;
    if defines_columns {
        return Ok(replaced);
    }
    // The node passes on the columns of its inputs: hide the computed ones.
    let own_columns = plan
        .schema()
        .iter()
        .map(|column| Expr::Column(Column::from(column)))
        .collect();
    Ok(LogicalPlan::Projection(Projection::try_new(
        own_columns,
        Arc::new(replaced),
    )?))
}

/// Replaces the expressions that the subquery computes over outer rows with outer columns, and adds these to
/// `computed`.
fn replace_outer_expressions(
    subquery: Subquery,
    outer: &LogicalPlan,
    computed: &mut Vec<(Expr, Column)>,
    names: &mut ColumnNames,
) -> Result<Subquery> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(subquery);
    }
    let computed_before = computed.len();
    let rewritten = transform_down_with_subqueries(subquery.subquery.as_ref().clone(), &mut |node| {
        map_expressions(node, &mut |expr| {
            expr.transform_down(|node| {
                let Some(outer_expr) = outer_expression(&node, outer) else {
                    return Ok(Transformed::no(node));
                };
                let field = outer_expr.to_field(outer.schema())?.1;
                let column = match computed.iter().find(|(existing, _)| *existing == outer_expr) {
                    Some((_, column)) => column.clone(),
                    None => {
                        let column = Column::from_name(names.next());
                        computed.push((outer_expr, column.clone()));
                        column
                    }
                };
                Ok(Transformed::new(
                    Expr::OuterReferenceColumn(field, column),
                    true,
                    TreeNodeRecursion::Jump,
                ))
            })
        })
    })?;
    match computed.len() == computed_before && !rewritten.transformed {
        true => Ok(subquery),
        false => Ok(with_plan(&subquery, rewritten.data)),
    }
}

/// If a function or a cast takes outer columns only, the same expression over the outer rows.
fn outer_expression(expr: &Expr, outer: &LogicalPlan) -> Option<Expr> {
    if !matches!(expr, Expr::ScalarFunction(_) | Expr::Cast(_) | Expr::TryCast(_))
        || !has_outer(expr)
        || expr.is_volatile()
    {
        return None;
    }
    let mut only_outer = true;
    let over_outer = expr.clone().transform_down(|part| match part {
        Expr::OuterReferenceColumn(_, column) if outer.schema().has_column(&column) => {
            Ok(Transformed::yes(Expr::Column(column)))
        }
        Expr::OuterReferenceColumn(..)
        | Expr::Column(_)
        | Expr::ScalarSubquery(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_) => {
            only_outer = false;
            Ok(Transformed {
                data: part,
                transformed: false,
                tnr: TreeNodeRecursion::Stop,
            })
        }
        other => Ok(Transformed::no(other)),
    });
    over_outer.ok().filter(|_| only_outer).map(|rewritten| rewritten.data)
}
