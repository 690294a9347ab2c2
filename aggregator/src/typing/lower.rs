//! Lowers untyped expressions: gives every operand the type that its use requires.
//!
//! DataFusion plans a statement over JSON columns and the functions of [`super::untyped`], which accept anything. Given
//! the types that DataFusion derives for the operands, they become plain operators and functions over typed reads of
//! paths. The outcome depends on the types of the operands and on the kinds that a path has had. The kinds only choose
//! between expressions with equal results.

mod access;
mod call;
mod cast;
mod operator;
mod pattern;
mod temporal;
mod time_format;
mod unify;

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef, TimeUnit},
    common::{Column, DFSchema, Result, internal_err, tree_node::Transformed},
    logical_expr::{
        Between, BinaryExpr, Case, Expr, LogicalPlanBuilder, Operator, ScalarUDF, Subquery,
        expr::{InSubquery, ScalarFunction},
        type_coercion::functions::fields_with_udf,
    },
};
use plan::functions::registry::{self, ArgumentTypes};

use super::{
    aggregates::{lower_aggregate_call, lower_window},
    compare::{equality_operands, lower_comparison, lower_in_list},
    literals,
    operand::{Operand, TypeClass, bad_sql, describe_type, try_cast},
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

/// The arguments in the types that the named function takes.
pub(super) fn coerce_arguments(name: &str, args: &[Operand]) -> Result<Vec<Expr>> {
    let types = registry::function(name).map_or(ArgumentTypes::Texts(&[]), |function| function.arguments);
    Ok(match types {
        ArgumentTypes::Typed => args.iter().map(|arg| arg.expr.clone()).collect(),
        ArgumentTypes::Numbers => args.iter().map(Operand::number).collect::<Result<_>>()?,
        ArgumentTypes::Integers => args.iter().map(Operand::integer).collect::<Result<_>>()?,
        ArgumentTypes::Doubles => args.iter().map(Operand::double).collect::<Result<_>>()?,
        ArgumentTypes::Conditions => args.iter().map(Operand::condition).collect::<Result<_>>()?,
        ArgumentTypes::Common => unify(args)?.0,
        ArgumentTypes::Native => args.iter().map(Operand::native).collect(),
        ArgumentTypes::Texts(integers) => {
            let coerce = |(position, operand): (usize, &Operand)| {
                if integers.contains(&position) {
                    operand.integer()
                } else {
                    Ok(operand.text())
                }
            };
            args.iter().enumerate().map(coerce).collect::<Result<_>>()?
        }
        ArgumentTypes::Json(values) => {
            let coerce = |(position, operand): (usize, &Operand)| match operand.class() {
                _ if !values.contains(&position) => operand.text(),
                TypeClass::Json(_) => operand.expr.clone(),
                _ => super::operand::call(plan::functions::json::TO_JSON, vec![operand.expr.clone()]),
            };
            args.iter().enumerate().map(coerce).collect()
        }
        ArgumentTypes::Times(times) => {
            let coerce = |(position, operand): (usize, &Operand)| match operand.class() {
                TypeClass::Interval => Ok(operand.expr.clone()),
                _ if times.contains(&position) => operand.time(),
                _ => Ok(operand.text()),
            };
            args.iter().enumerate().map(coerce).collect::<Result<_>>()?
        }
    })
}

/// A function of the library, which returns NULL for values without a result.
fn library_function(name: &str) -> Result<Arc<ScalarUDF>> {
    static ALL: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(plan::functions::scalar);
    ALL.iter().find(|function| function.name() == name).map_or_else(
        || internal_err!("function {name} does not exist"),
        |found| Ok(Arc::clone(found)),
    )
}

fn function_call(func: Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction { func, args })
}

/// Coerces the arguments of a call to the parameter types of the function; a number that does not fit becomes NULL.
/// Returns an error if the function does not accept arguments of these types.
pub(super) fn coerce_to_signature(node: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let parameters = |args: &[Operand], fields: Result<Vec<FieldRef>>, name: &str| match fields {
        Ok(fields) => Ok(fields),
        Err(_) if args.is_empty() => Ok(vec![]),
        Err(_) => Err(signature_error(name, args)),
    };
    match node {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let operands = Operand::all(args, schema)?;
            let fields = fields_with_udf(&fields_of(&operands), func.as_ref());
            let parameters = parameters(&operands, fields, func.name())?;
            if let Some(folded) = literals::fold_call(&func, &operands, &parameters)? {
                return Ok(Transformed::yes(Expr::Literal(folded, None)));
            }
            let coerce = |(position, operand): (usize, Operand)| match parameters.get(position).map(|p| p.data_type()) {
                Some(wanted)
                    if wanted != operand.data_type()
                        && !operand.is_literal()
                        && may_not_fit(operand.data_type(), wanted) =>
                {
                    try_cast(operand.expr, wanted.clone())
                }
                _ => operand.expr,
            };
            let args = operands.into_iter().enumerate().map(coerce).collect();
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        Expr::AggregateFunction(call) => {
            let operands = Operand::all(call.params.args.clone(), schema)?;
            let fields = fields_with_udf(&fields_of(&operands), call.func.as_ref());
            parameters(&operands, fields, call.func.name())?;
            Ok(Transformed::no(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether some values of one type are outside the range of the other: integers have a smaller range than other
/// numbers, and timestamps in nanoseconds a smaller one than those in other units.
fn may_not_fit(from: &DataType, to: &DataType) -> bool {
    (from.is_numeric() && to.is_integer())
        || matches!(
            (from, to),
            (DataType::Timestamp(..), DataType::Timestamp(TimeUnit::Nanosecond, _))
        )
}

fn fields_of(args: &[Operand]) -> Vec<FieldRef> {
    args.iter().map(|arg| Arc::clone(&arg.field)).collect()
}

/// The error for a function or operator that does not accept these arguments.
pub(super) fn signature_error(name: &str, args: &[Operand]) -> datafusion::error::DataFusionError {
    let types: Vec<String> = args.iter().map(describe_type).collect();
    match types.as_slice() {
        [] => bad_sql(format!("{name} needs an argument"), "write it in the parentheses"),
        [_, _]
            if ["+", "-", "*", "/", "%"].contains(&name)
                && args.iter().any(|arg| arg.class() == TypeClass::Decimal) =>
        {
            bad_sql(
                format!("the result of {name} would have more than 38 digits"),
                "use decimals with fewer digits, such as x::decimal(18, 4), or x::double",
            )
        }
        types => bad_sql(
            format!("{name} does not accept {}", types.join(", ")),
            "check how many arguments it takes, or convert them: x::text, x::double, …",
        ),
    }
}
