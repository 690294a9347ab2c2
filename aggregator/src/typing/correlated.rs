//! Correlated sub-queries compare columns: DataFusion turns them into joins only where they do. What a comparison computes of the rows around
//! it, or of its own, is computed below as a column of its own.
//!
//! ```text
//!   Filter: (SELECT … WHERE json_get(e.user, 'id', 'int') = outer(json_get(u.id, '', 'int'))) > 1     over u
//!     -> Filter: (SELECT … FROM (SELECT *, json_get(e.user, …) AS a FROM e) WHERE a = outer(b)) > 1   over (SELECT *, json_get(u.id, …) AS b FROM u)
//! ```

use std::sync::Arc;

use datafusion::{
    common::{
        Column, ExprSchema as _, Result,
        tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable as _, Filter, LogicalPlan, Operator, Projection, Subquery,
        expr::{Exists, InSubquery, ScalarFunction},
        lit,
        utils::{conjunction, split_conjunction_owned},
    },
};
use plan::{Kinds, column::is_json, functions::json};

use super::operand::call;

/// A plan in which correlated sub-queries compare columns.
pub fn columns_compared(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !plan.exists(|node| Ok(has_subquery(node)))? {
        return Ok(plan);
    }
    let mut names = Names(0);
    let inner = plan.transform_up_with_subqueries(|node| Ok(Transformed::yes(inner_columns(node, &mut names)?)))?.data;
    Ok(inner.transform_up_with_subqueries(|node| Ok(Transformed::yes(outer_columns(node, &mut names)?)))?.data)
}

/// Names of computed columns. None is twice in a statement: a condition that becomes a join's passes the columns of the sub-queries around it.
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
    expr.exists(|node| Ok(matches!(node, Expr::OuterReferenceColumn(..)))).unwrap_or(false)
}

/// In a filter over rows and rows around it, each side of an equality that is computed of the rows themselves.
fn inner_columns(plan: LogicalPlan, names: &mut Names) -> Result<LogicalPlan> {
    let LogicalPlan::Filter(filter) = &plan else { return Ok(plan) };
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
    let conditions = split_conjunction_owned(filter.predicate.clone()).into_iter().map(|condition| match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if has_outer(&left) != has_outer(&right) => {
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

fn with_computed(input: &LogicalPlan, computed: Vec<Expr>) -> Result<LogicalPlan> {
    let own = input.schema().iter().map(|column| Expr::Column(Column::from(column)));
    Ok(LogicalPlan::Projection(Projection::try_new(own.chain(computed).collect(), Arc::new(input.clone()))?))
}

/// Of a node with sub-queries, each view of JSON that these take of its rows.
fn outer_columns(plan: LogicalPlan, names: &mut Names) -> Result<LogicalPlan> {
    let inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
    let Some(around) = inputs.first() else { return Ok(plan) };
    let lateral = matches!((&plan, inputs.get(1)), (LogicalPlan::Join(_), Some(LogicalPlan::Subquery(_))));
    let mut asked: Vec<(Expr, Column)> = Vec::new();
    let mut replaced = |subquery: Subquery| replaced_in(subquery, around, &mut asked, names);
    let with_exprs = plan.clone().map_expressions(|expr| {
        expr.transform(|node| {
            Ok(match node {
                Expr::ScalarSubquery(subquery) => Transformed::yes(Expr::ScalarSubquery(replaced(subquery)?)),
                Expr::Exists(Exists { subquery, negated }) => Transformed::yes(Expr::Exists(Exists { subquery: replaced(subquery)?, negated })),
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery: replaced(subquery)?, negated }))
                }
                other => Transformed::no(other),
            })
        })
    })?;
    let beside = match inputs.get(1) {
        Some(LogicalPlan::Subquery(subquery)) if lateral => Some(LogicalPlan::Subquery(replaced(subquery.clone())?)),
        other => other.cloned(),
    };
    if asked.is_empty() {
        return Ok(plan);
    }
    let schema = Arc::clone(plan.schema());
    let own = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
    let computed = asked.into_iter().map(|(expr, column)| expr.alias(column.name)).collect();
    let mut children = std::iter::once(with_computed(around, computed)?).chain(beside);
    let plan = with_exprs.data.map_children(|child| Ok(Transformed::yes(children.next().unwrap_or(child))))?.data.recompute_schema()?;
    if own {
        return Ok(plan);
    }
    let before = schema.iter().map(|column| Expr::Column(Column::from(column))).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(before, Arc::new(plan))?))
}

/// The sub-query with columns in the place of views of the rows around it, which are asked for.
fn replaced_in(subquery: Subquery, around: &LogicalPlan, asked: &mut Vec<(Expr, Column)>, names: &mut Names) -> Result<Subquery> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(subquery);
    }
    let before = asked.len();
    let rewritten = subquery.subquery.as_ref().clone().transform_down_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_down(|node| {
                let Some(view) = view_around(&node, around) else { return Ok(Transformed::no(node)) };
                let field = view.to_field(around.schema())?.1;
                let column = match asked.iter().find(|(known, _)| *known == view) {
                    Some((_, column)) => column.clone(),
                    None => {
                        let column = Column::from_name(names.next());
                        asked.push((view, column.clone()));
                        column
                    }
                };
                Ok(Transformed::new(Expr::OuterReferenceColumn(field, column), true, TreeNodeRecursion::Jump))
            })
        })
    })?;
    if asked.len() == before && !rewritten.transformed {
        return Ok(subquery);
    }
    let plan = rewritten.data;
    Ok(Subquery { outer_ref_columns: plan.all_out_ref_exprs(), subquery: Arc::new(plan), spans: subquery.spans })
}

/// `json_get(outer(column), …)` as a view of the rows around.
fn view_around(expr: &Expr, around: &LogicalPlan) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let Some(Expr::OuterReferenceColumn(_, column)) = args.first() else { return None };
    if func.name() != json::GET || !around.schema().has_column(column) {
        return None;
    }
    let mut args = args.clone();
    args[0] = Expr::Column(column.clone());
    Some(Expr::ScalarFunction(ScalarFunction { func: Arc::clone(func), args }))
}

/// A node whose sub-queries find the columns around them as JSON, as they were planned: what is grouped by, or one of a set, has a type by now.
pub fn json_around(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut outer: Vec<Column> = Vec::new();
    let mut look = |subquery: &Subquery| {
        outer.extend(subquery.outer_ref_columns.iter().filter_map(|expr| match expr {
            Expr::OuterReferenceColumn(field, column) if is_json(field.data_type()) => Some(column.clone()),
            _ => None,
        }));
    };
    plan.apply_expressions(|expr| {
        expr.apply(|node| {
            match node {
                Expr::ScalarSubquery(subquery) | Expr::Exists(Exists { subquery, .. }) | Expr::InSubquery(InSubquery { subquery, .. }) => {
                    look(subquery)
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
    if let (LogicalPlan::Join(_), Some(LogicalPlan::Subquery(lateral))) = (&plan, inputs.get(1)) {
        look(lateral);
    }
    let Some(around) = inputs.first() else { return Ok(plan) };
    let changed =
        |column: &Column| outer.contains(column) && around.schema().field_from_column(column).is_ok_and(|field| !is_json(field.data_type()));
    let columns = around.schema().columns();
    if !columns.iter().any(changed) {
        return Ok(plan);
    }
    let seen = columns.into_iter().map(|column| match changed(&column) {
        true => {
            let kinds = Kinds::of_type(around.schema().field_from_column(&column)?.data_type());
            let spelled = call(json::TO_JSON, vec![Expr::Column(column.clone())]);
            Ok(call(json::GET, vec![spelled, lit(""), lit("json"), lit(kinds.0.to_string())]).alias_qualified(column.relation, column.name))
        }
        false => Ok(Expr::Column(column)),
    });
    let around = LogicalPlan::Projection(Projection::try_new(seen.collect::<Result<_>>()?, Arc::new(around.clone()))?);
    let mut children = std::iter::once(around).chain(inputs.into_iter().skip(1));
    Ok(plan.map_children(|child| Ok(Transformed::yes(children.next().unwrap_or(child))))?.data)
}
