//! Calls of functions: their arguments in the types that they take, or why they do not take these.

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef, TimeUnit},
    common::{DFSchema, Result, internal_err, tree_node::Transformed},
    logical_expr::{Expr, ScalarUDF, expr::ScalarFunction, type_coercion::functions::fields_with_udf},
};
use plan::functions::registry::{self, ArgumentTypes};

use super::unify::unify;
use crate::typing::{
    literals,
    operand::{Operand, TypeClass, bad_sql, call, describe_type, try_cast},
};

/// The arguments in the types that the named function takes.
pub(in crate::typing) fn coerce_arguments(name: &str, args: &[Operand]) -> Result<Vec<Expr>> {
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
                _ => call(plan::functions::json::TO_JSON, vec![operand.expr.clone()]),
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
pub(super) fn library_function(name: &str) -> Result<Arc<ScalarUDF>> {
    static ALL: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(plan::functions::scalar);
    ALL.iter().find(|function| function.name() == name).map_or_else(
        || internal_err!("function {name} does not exist"),
        |found| Ok(Arc::clone(found)),
    )
}

pub(super) fn function_call(func: Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction { func, args })
}

/// Coerces the arguments of a call to the parameter types of the function; a number that does not fit becomes NULL.
/// Returns an error if the function does not accept arguments of these types.
pub(in crate::typing) fn coerce_to_signature(node: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
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
pub(in crate::typing) fn signature_error(name: &str, args: &[Operand]) -> datafusion::error::DataFusionError {
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
