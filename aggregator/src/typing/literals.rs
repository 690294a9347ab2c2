//! Folds calls whose arguments are all literals while a statement is typed. A call without a result is an error of the
//! statement; over the values of a document it would be NULL, with a warning.

use std::sync::Arc;

use datafusion::{
    arrow::{
        datatypes::{DataType, FieldRef},
        util::display::array_value_to_string,
    },
    common::{Result, ScalarValue},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility},
};
use plan::{
    Type,
    functions::{self, FunctionContext, checked, convert, interval, json},
};

use super::operand::{Operand, bad_sql, literal};

/// Calls with a longer text literal than this are not folded: planning must stay fast.
const LITERAL_BYTES_MAX: usize = 1_000;

/// The result of a call whose arguments are all literals, if it is a number, a time or a boolean. Returns an error if
/// the call has no result. `parameters` are the types of the arguments that the function takes.
pub(super) fn fold_call(
    func: &ScalarUDF,
    operands: &[Operand],
    parameters: &[FieldRef],
) -> Result<Option<ScalarValue>> {
    let literals: Option<Vec<&ScalarValue>> = operands.iter().map(|operand| literal(&operand.expr)).collect();
    let Some(literals) = literals.filter(|literals| is_foldable(func, literals)) else {
        return Ok(None);
    };
    let args: Result<Vec<ScalarValue>> = literals
        .iter()
        .zip(parameters)
        .map(|(literal, field)| literal.cast_to(field.data_type()))
        .collect();
    let Ok(args) = args else { return Ok(None) };
    let scalars: Vec<Option<&ScalarValue>> = args.iter().map(Some).collect();
    let return_field = func.return_field_from_args(ReturnFieldArgs {
        arg_fields: parameters,
        scalar_arguments: &scalars,
    })?;
    let result_type = return_field.data_type();
    if !(result_type.is_primitive() || *result_type == DataType::Boolean) {
        return Ok(None);
    }
    let context = FunctionContext::default();
    let mut config = functions::settings().options().as_ref().clone();
    config.extensions.insert(context.clone());
    let result = func.invoke_with_args(ScalarFunctionArgs {
        args: args.into_iter().map(ColumnarValue::Scalar).collect(),
        arg_fields: parameters.to_vec(),
        number_rows: 1,
        return_field,
        config_options: Arc::new(config),
    });
    match result {
        _ if !context.warnings.messages().is_empty() => Err(bad_sql(
            format!("{} has no result", call_sql(func.name(), &literals)),
            "change the literals; for values of documents the result would be NULL, with a warning",
        )),
        Ok(ColumnarValue::Scalar(value)) if !value.is_null() => Ok(Some(value)),
        // Some functions exist only to be rewritten by the planner and fail when they are called: keep the call.
        _ => Ok(None),
    }
}

/// Whether a call with these literals may be computed while the statement is planned.
fn is_foldable(func: &ScalarUDF, literals: &[&ScalarValue]) -> bool {
    let is_long = |literal: &&ScalarValue| {
        literal
            .try_as_str()
            .flatten()
            .is_some_and(|text| text.len() > LITERAL_BYTES_MAX)
    };
    // A cast of JSON may be a TRY_CAST, which must not be an error.
    let excluded =
        func.signature().volatility != Volatility::Immutable || func.short_circuits() || func.name() == json::GET;
    !excluded
        && !literals.is_empty()
        && literals.iter().all(|literal| !literal.is_null())
        && !literals.iter().any(is_long)
}

/// Casts a literal as the same value in a document would be cast. None if it cannot be cast.
pub(super) fn cast_literal(literal: &ScalarValue, to: Type) -> Option<ScalarValue> {
    let cast = convert::cast_as_json(&literal.to_array().ok()?, to).ok()?;
    ScalarValue::try_from_array(&cast.finish(), 0)
        .ok()
        .filter(|cast| !cast.is_null())
}

/// A call as users write it in SQL.
fn call_sql(name: &str, literals: &[&ScalarValue]) -> String {
    let args: Vec<String> = literals.iter().map(|literal| literal_sql(literal)).collect();
    let operator = functions::arithmetic::operator(name).map(|operator| operator.to_string());
    match (name, literals, args.as_slice()) {
        (checked::SUM | checked::DOUBLE_SUM, [signs, ..], [_, terms @ ..]) => {
            let signs = signs.try_as_str().flatten().unwrap_or_default().chars();
            let sum: String = signs.zip(terms).map(|(sign, term)| format!(" {sign} {term}")).collect();
            sum.trim_start_matches(" + ").trim_start().to_owned()
        }
        (interval::SHIFT, [sign, ..], [_, time, interval]) => {
            format!("{time} {} {interval}", sign.try_as_str().flatten().unwrap_or_default())
        }
        (checked::PRODUCT | checked::DOUBLE_PRODUCT | interval::SCALE, ..) => args.join(" * "),
        (checked::QUOTIENT, ..) => args.join(" / "),
        (checked::REMAINDER, ..) => args.join(" % "),
        _ => match operator {
            Some(operator) => args.join(&format!(" {operator} ")),
            None => format!("{name}({})", args.join(", ")),
        },
    }
}

/// A literal as users write it in SQL.
pub(super) fn literal_sql(value: &ScalarValue) -> String {
    let text = || {
        value
            .to_array()
            .and_then(|array| Ok(array_value_to_string(&array, 0)?))
            .unwrap_or_else(|_| value.to_string())
    };
    match (value.is_null(), value.data_type()) {
        (true, _) => "NULL".to_owned(),
        (_, DataType::Interval(_) | DataType::Duration(_)) => format!("interval '{}'", text()),
        (_, number) if number.is_numeric() || number == DataType::Boolean => text(),
        _ => format!("'{}'", text()),
    }
}
