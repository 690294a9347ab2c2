//! Lowers untyped expressions: gives every operand the type that its use requires.
//!
//! DataFusion plans a statement over JSON columns and the functions of [`super::untyped`], which accept anything. Given
//! the types that DataFusion derives for the operands, they become plain operators and functions over typed reads of
//! paths. The outcome depends on the types of the operands and on the kinds that a path has had. The kinds only choose
//! between expressions with equal results.

mod access;
pub(super) mod arguments;
mod call;
mod cast;
mod operator;
mod pattern;
mod temporal;
mod time_format;
mod unify;

use std::sync::Arc;

use datafusion::{
    common::{Column, DFSchema, Result},
    logical_expr::{
        Between, BinaryExpr, Case, Expr, LogicalPlanBuilder, Operator, Subquery,
        expr::{InSubquery, ScalarFunction},
    },
};

use super::{
    aggregates::{lower_aggregate_call, lower_window},
    compare::{equality_operands, lower_comparison, lower_in_list},
    operand::Operand,
    untyped::UntypedFunction,
};

pub(crate) use call::TIME_UNITS;
pub(super) use call::lower_call;
pub(super) use unify::unify;

/// Lowers one node whose operands are already lowered.
pub(super) fn lower(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let operand = |expr: &Expr| Operand::of(expr.clone(), schema);
    let boxed_condition = |expr: Box<Expr>| condition(*expr, schema).map(Box::new);
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => match func.inner().downcast_ref::<UntypedFunction>() {
            Some(untyped) => lower_call(untyped, &Operand::all(args, schema)?),
            None => Ok(Expr::ScalarFunction(ScalarFunction { func, args })),
        },
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => Ok(condition(*left, schema)?.and(condition(*right, schema)?)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => Ok(condition(*left, schema)?.or(condition(*right, schema)?)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            operator::lower_operator(op, &operand(&left)?, &operand(&right)?)
        }
        Expr::Not(inner) => Ok(Expr::Not(boxed_condition(inner)?)),
        Expr::Negative(inner) => operator::negate(&operand(&inner)?),
        Expr::IsNull(inner) => Ok(Expr::IsNull(Box::new(operand(&inner)?.group_key()))),
        Expr::IsNotNull(inner) => Ok(Expr::IsNotNull(Box::new(operand(&inner)?.group_key()))),
        Expr::IsTrue(inner) => Ok(Expr::IsTrue(boxed_condition(inner)?)),
        Expr::IsNotTrue(inner) => Ok(Expr::IsNotTrue(boxed_condition(inner)?)),
        Expr::IsFalse(inner) => Ok(Expr::IsFalse(boxed_condition(inner)?)),
        Expr::IsNotFalse(inner) => Ok(Expr::IsNotFalse(boxed_condition(inner)?)),
        Expr::IsUnknown(inner) => Ok(Expr::IsUnknown(boxed_condition(inner)?)),
        Expr::IsNotUnknown(inner) => Ok(Expr::IsNotUnknown(boxed_condition(inner)?)),
        Expr::Between(between) => lower_between(between, schema),
        Expr::InList(list) => lower_in_list(&operand(&list.expr)?, &Operand::all(list.list, schema)?, list.negated),
        Expr::InSubquery(InSubquery {
            expr,
            subquery,
            negated,
        }) => {
            let (value, subquery) = equality_with_subquery(&operand(&expr)?, subquery)?;
            Ok(Expr::InSubquery(InSubquery::new(Box::new(value), subquery, negated)))
        }
        Expr::Like(like) => pattern::lower_like(like, schema, Expr::Like),
        Expr::SimilarTo(like) => pattern::lower_like(like, schema, Expr::SimilarTo),
        Expr::Case(case) => lower_case(case, schema),
        Expr::Cast(inner) => cast::lower_cast(&operand(&inner.expr)?, inner.field.data_type(), false, schema),
        Expr::TryCast(inner) => cast::lower_cast(&operand(&inner.expr)?, inner.field.data_type(), true, schema),
        Expr::AggregateFunction(function) => lower_aggregate_call(function, schema),
        Expr::WindowFunction(function) => lower_window(*function, schema),
        other => Ok(other),
    }
}

/// An expression as a condition. The type of an expression that can only be a condition is not derived: deriving a type
/// costs time in proportion to the depth of the expression.
pub(super) fn condition(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            op: And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom,
            ..
        })
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_) => Ok(expr),
        other => Operand::of(other, schema)?.condition(),
    }
}

/// `value [NOT] BETWEEN low AND high`.
fn lower_between(between: Between, schema: &DFSchema) -> Result<Expr> {
    let value = Operand::of(*between.expr, schema)?;
    let low = Operand::of(*between.low, schema)?;
    let high = Operand::of(*between.high, schema)?;
    let inside = lower_comparison(&value, Operator::GtEq, &low)?.and(lower_comparison(&value, Operator::LtEq, &high)?);
    Ok(if between.negated {
        Expr::Not(Box::new(inside))
    } else {
        inside
    })
}

/// `CASE`: results get one common type.
fn lower_case(case: Case, schema: &DFSchema) -> Result<Expr> {
    let operand = case.expr.map(|operand| Operand::of(*operand, schema)).transpose()?;
    let (mut conditions, mut results) = (Vec::new(), Vec::new());
    for (when, then) in case.when_then_expr {
        conditions.push(match &operand {
            Some(operand) => lower_comparison(operand, Operator::Eq, &Operand::of(*when, schema)?)?,
            None => condition(*when, schema)?,
        });
        results.push(Operand::of(*then, schema)?);
    }
    let has_else = case.else_expr.is_some();
    if let Some(other) = case.else_expr {
        results.push(Operand::of(*other, schema)?);
    }
    let (mut results, _) = unify(&results)?;
    let otherwise = if has_else { results.pop().map(Box::new) } else { None };
    let when_then = conditions
        .into_iter()
        .map(Box::new)
        .zip(results.into_iter().map(Box::new))
        .collect();
    Ok(Expr::Case(Case::new(None, when_then, otherwise)))
}

/// An operand and the column of a subquery, converted so that they are equal exactly where the values are.
fn equality_with_subquery(value: &Operand, subquery: Subquery) -> Result<(Expr, Subquery)> {
    let schema = subquery.subquery.schema();
    let column = Operand::of(Expr::Column(Column::from(schema.qualified_field(0))), schema)?;
    let (left, right) = equality_operands(value, &column)?;
    if right == column.expr {
        return Ok((left, subquery));
    }
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .project([right.alias("in")])?
        .build()?;
    Ok((left, subquery.with_plan(Arc::new(plan))))
}
