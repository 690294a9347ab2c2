//! Correlated sub-queries compare columns: DataFusion turns them into joins only where they do. What a comparison
//! computes of the rows around it, or of its own, is computed below as a column of its own.
//!
//! ```text
//!   Filter: (SELECT … WHERE json_get(e.user, 'id', 'int') = outer(json_get(u.id, '', 'int'))) > 1     over u
//!     -> Filter: (SELECT … FROM (SELECT *, json_get(e.user, …) AS a FROM e) WHERE a = outer(b)) > 1   over (SELECT *, json_get(u.id, …) AS b FROM u)
//! ```

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema, ExprSchema as _, Result,
        tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable as _, Filter, LogicalPlan, Operator, Projection, Subquery, lit,
        utils::{conjunction, merge_schema, split_conjunction, split_conjunction_owned},
    },
};

/// A plan in which correlated sub-queries compare columns.
pub fn columns_compared(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !plan.exists(|node| Ok(has_subquery(node)))? {
        return Ok(plan);
    }
    let mut names = Names(0);
    let inner = plan
        .transform_up_with_subqueries(|node| Ok(Transformed::yes(inner_columns(node, &mut names)?)))?
        .data;
    Ok(inner
        .transform_up_with_subqueries(|node| Ok(Transformed::yes(outer_columns(node, &mut names)?)))?
        .data)
}

/// Names of computed columns, each used once in a statement. A condition that becomes part of a join moves past the
/// columns that other sub-queries have computed, and must not take one of those for its own.
struct Names(usize);

impl Names {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("\u{1}compared_{}", self.0)
    }
}

fn has_subquery(plan: &LogicalPlan) -> bool {
    let mut found = matches!(plan, LogicalPlan::Subquery(_));
    let looked = plan.apply_subqueries(|_| {
        found = true;
        Ok(TreeNodeRecursion::Stop)
    });
    found || looked.is_err()
}

fn has_outer(expr: &Expr) -> bool {
    expr.exists(|node| Ok(matches!(node, Expr::OuterReferenceColumn(..))))
        .unwrap_or(false)
}

/// In a filter over rows and rows around it, each side of an equality that is computed of the rows themselves.
fn inner_columns(plan: LogicalPlan, names: &mut Names) -> Result<LogicalPlan> {
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
        .map(|condition| match never_null(condition) {
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
            let input = with_computed(&filter.input, computed)?;
            Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
        }
        _ => Ok(plan),
    }
}

/// `CASE WHEN a IS NULL AND … THEN false ELSE a = b END` is `a = b` for a filter, which takes NULL for false.
fn never_null(condition: Expr) -> Expr {
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

fn with_computed(input: &LogicalPlan, computed: Vec<Expr>) -> Result<LogicalPlan> {
    let own = input.schema().iter().map(|column| Expr::Column(Column::from(column)));
    Ok(LogicalPlan::Projection(Projection::try_new(
        own.chain(computed).collect(),
        Arc::new(input.clone()),
    )?))
}

/// Changes the sub-queries of a node that see its rows: those in its expressions and, of a join, the lateral ones on
/// its right side.
fn map_seeing(plan: LogicalPlan, mut change: impl FnMut(Subquery) -> Result<Subquery>) -> Result<LogicalPlan> {
    let plan = plan.map_subqueries(|node| map_subquery(node, &mut change))?.data;
    match plan {
        LogicalPlan::Join(mut join) => {
            join.right = Arc::new(map_lateral(join.right.as_ref().clone(), change)?);
            Ok(LogicalPlan::Join(join))
        }
        other => Ok(other),
    }
}

/// Changes the sub-query that is the right side of a lateral join.
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

/// A sub-query over another plan.
fn with_plan(subquery: &Subquery, plan: LogicalPlan) -> Subquery {
    Subquery {
        outer_ref_columns: plan.all_out_ref_exprs(),
        subquery: Arc::new(plan),
        spans: subquery.spans.clone(),
    }
}

/// Gives a node's inputs their types, then the sub-queries that see its rows. A column of a row around was JSON when
/// the sub-query was planned; one by which rows are grouped, or of a set operation, has a type by now.
pub fn map_inputs(
    plan: LogicalPlan,
    typed: &mut impl FnMut(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let plan = match plan {
        LogicalPlan::Join(mut join) => {
            join.left = Arc::new(typed(join.left.as_ref().clone())?);
            let left = Arc::clone(join.left.schema());
            let right = map_lateral(join.right.as_ref().clone(), |subquery| {
                with_fields_around(&subquery, &left)
            })?;
            join.right = Arc::new(typed(right)?);
            LogicalPlan::Join(join)
        }
        other => other.map_children(|input| Ok(Transformed::yes(typed(input)?)))?.data,
    };
    let around = merge_schema(&plan.inputs());
    let mut change = |subquery: Subquery| {
        let seen = with_fields_around(&subquery, &around)?;
        Ok(with_plan(&subquery, typed(seen.subquery.as_ref().clone())?))
    };
    match plan {
        // What the right side of a lateral join sees has its type by now.
        LogicalPlan::Subquery(subquery) => Ok(LogicalPlan::Subquery(with_plan(
            &subquery,
            subquery.subquery.as_ref().clone(),
        ))),
        other => Ok(other.map_subqueries(|node| map_subquery(node, &mut change))?.data),
    }
}

/// The sub-query with the fields that columns of the rows around it have.
fn with_fields_around(subquery: &Subquery, around: &DFSchema) -> Result<Subquery> {
    let seen = subquery.subquery.as_ref().clone().transform_down(|node| {
        node.map_expressions(|expr| {
            expr.transform_down(|part| match part {
                Expr::OuterReferenceColumn(_, ref column) if around.has_column(column) => {
                    let field = Arc::clone(around.field_from_column(column)?);
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column.clone())))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })?;
    Ok(with_plan(subquery, seen.data))
}

/// Of a node with sub-queries, each expression that these take of its rows.
fn outer_columns(plan: LogicalPlan, names: &mut Names) -> Result<LogicalPlan> {
    let Some(around) = plan.inputs().first().map(|input| (*input).clone()) else {
        return Ok(plan);
    };
    let mut asked: Vec<(Expr, Column)> = Vec::new();
    let replaced = map_seeing(plan.clone(), |subquery| {
        replaced_in(subquery, &around, &mut asked, names)
    })?;
    if asked.is_empty() {
        return Ok(plan);
    }
    let own = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
    let computed = asked
        .into_iter()
        .map(|(expr, column)| expr.alias(column.name))
        .collect();
    let mut first = Some(with_computed(&around, computed)?);
    let replaced = replaced
        .map_children(|input| Ok(Transformed::yes(first.take().unwrap_or(input))))?
        .data
        .recompute_schema()?;
    if own {
        return Ok(replaced);
    }
    let before = plan
        .schema()
        .iter()
        .map(|column| Expr::Column(Column::from(column)))
        .collect();
    Ok(LogicalPlan::Projection(Projection::try_new(
        before,
        Arc::new(replaced),
    )?))
}

/// Replaces what the sub-query computes from the rows around it by columns, and adds these to `asked`.
fn replaced_in(
    subquery: Subquery,
    around: &LogicalPlan,
    asked: &mut Vec<(Expr, Column)>,
    names: &mut Names,
) -> Result<Subquery> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(subquery);
    }
    let before = asked.len();
    let rewritten = subquery
        .subquery
        .as_ref()
        .clone()
        .transform_down_with_subqueries(|node| {
            node.map_expressions(|expr| {
                expr.transform_down(|node| {
                    let Some(view) = computed_around(&node, around) else {
                        return Ok(Transformed::no(node));
                    };
                    let field = view.to_field(around.schema())?.1;
                    let column = match asked.iter().find(|(known, _)| *known == view) {
                        Some((_, column)) => column.clone(),
                        None => {
                            let column = Column::from_name(names.next());
                            asked.push((view, column.clone()));
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
    match asked.len() == before && !rewritten.transformed {
        true => Ok(subquery),
        false => Ok(with_plan(&subquery, rewritten.data)),
    }
}

/// If a function or a cast takes columns of the rows around and nothing else: the same expression over those rows.
fn computed_around(expr: &Expr, around: &LogicalPlan) -> Option<Expr> {
    if !matches!(expr, Expr::ScalarFunction(_) | Expr::Cast(_) | Expr::TryCast(_))
        || !has_outer(expr)
        || expr.is_volatile()
    {
        return None;
    }
    let mut theirs = true;
    let seen = expr.clone().transform_down(|part| match part {
        Expr::OuterReferenceColumn(_, column) if around.schema().has_column(&column) => {
            Ok(Transformed::yes(Expr::Column(column)))
        }
        Expr::OuterReferenceColumn(..)
        | Expr::Column(_)
        | Expr::ScalarSubquery(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_) => {
            theirs = false;
            Ok(Transformed {
                data: part,
                transformed: false,
                tnr: TreeNodeRecursion::Stop,
            })
        }
        other => Ok(Transformed::no(other)),
    });
    seen.ok().filter(|_| theirs).map(|seen| seen.data)
}
