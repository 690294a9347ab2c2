//! Calls of literals alone are computed while a statement is typed: one that has no answer is a mistake of the
//! statement.

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
    functions::{self, Query, checked, interval, json},
};

use super::operand::{Operand, bad, literal};

/// Bytes of a literal with which a function is computed before anything is planned.
const LITERAL_BYTES_MAX: usize = 1_000;

/// What a function makes of literals alone, if that is a number, a time or a boolean. Where it has no answer, the
/// statement is wrong: of a row it would be NULL and counted.
pub fn computed(func: &ScalarUDF, operands: &[Operand], taken: &[FieldRef]) -> Result<Option<ScalarValue>> {
    let literals: Option<Vec<&ScalarValue>> = operands.iter().map(|operand| literal(&operand.expr)).collect();
    let Some(literals) =
        literals.filter(|literals| !literals.is_empty() && literals.iter().all(|literal| !literal.is_null()))
    else {
        return Ok(None);
    };
    let large = |literal: &&ScalarValue| {
        literal
            .try_as_str()
            .flatten()
            .is_some_and(|text| text.len() > LITERAL_BYTES_MAX)
    };
    // A cast of JSON may be one that is tried.
    let excepted =
        func.signature().volatility != Volatility::Immutable || func.short_circuits() || func.name() == json::GET;
    if excepted || literals.iter().any(large) {
        return Ok(None);
    }
    let args: Vec<ScalarValue> = match literals
        .iter()
        .zip(taken)
        .map(|(literal, field)| literal.cast_to(field.data_type()))
        .collect()
    {
        Ok(args) => args,
        Err(_) => return Ok(None),
    };
    let scalars: Vec<Option<&ScalarValue>> = args.iter().map(Some).collect();
    let return_field = func.return_field_from_args(ReturnFieldArgs {
        arg_fields: taken,
        scalar_arguments: &scalars,
    })?;
    let of = return_field.data_type();
    if !(of.is_primitive() || *of == DataType::Boolean) {
        return Ok(None);
    }
    let (query, mut config) = (Query::default(), functions::settings().options().as_ref().clone());
    config.extensions.insert(query.clone());
    let answer = func.invoke_with_args(ScalarFunctionArgs {
        args: args.into_iter().map(ColumnarValue::Scalar).collect(),
        arg_fields: taken.to_vec(),
        number_rows: 1,
        return_field,
        config_options: Arc::new(config),
    });
    match answer {
        _ if !query.notices.warnings().is_empty() => Err(bad(
            format!("{} has no answer", spelled_call(func.name(), &literals)),
            "change the literals; for a value of a document the result would be NULL and counted in warnings",
        )),
        Ok(ColumnarValue::Scalar(value)) if !value.is_null() => Ok(Some(value)),
        // Some functions exist only to be rewritten by the planner, and fail when they are called: they stay calls.
        _ => Ok(None),
    }
}

/// A literal converted as the same value in a document is, if it can be.
pub fn converted(literal: &ScalarValue, to: Type) -> Option<ScalarValue> {
    let texts = json::json_of(&literal.to_array().ok()?).ok()?;
    let text = ScalarValue::try_from_array(&texts, 0).ok()?;
    let value = proto::json::parse(text.try_as_str()??.as_bytes()).ok()?;
    let mut built = plan::builder::Builder::new(to, 1);
    built.push(plan::value::view(&value, || None, plan::View { to, cast: true }));
    ScalarValue::try_from_array(&built.finish(), 0)
        .ok()
        .filter(|converted| !converted.is_null())
}

/// A call as a statement spells it.
fn spelled_call(name: &str, literals: &[&ScalarValue]) -> String {
    let spelled: Vec<String> = literals.iter().map(|literal| spelled(literal)).collect();
    let operator = functions::arithmetic::operator(name).map(|operator| operator.to_string());
    match (name, literals, spelled.as_slice()) {
        (checked::SUM | checked::DOUBLE_SUM, [signs, ..], [_, terms @ ..]) => {
            let signs = signs.try_as_str().flatten().unwrap_or_default().chars();
            let whole: String = signs.zip(terms).map(|(sign, term)| format!(" {sign} {term}")).collect();
            whole.trim_start_matches(" + ").trim_start().to_owned()
        }
        (interval::SHIFT, [sign, ..], [_, moment, interval]) => {
            format!(
                "{moment} {} {interval}",
                sign.try_as_str().flatten().unwrap_or_default()
            )
        }
        (functions::convert::CAST, [_, _, to], [value, ..]) => {
            format!("{value}::{}", to.try_as_str().flatten().unwrap_or_default())
        }
        (checked::PRODUCT | checked::DOUBLE_PRODUCT | interval::SCALE, ..) => spelled.join(" * "),
        (checked::QUOTIENT, ..) => spelled.join(" / "),
        (checked::REMAINDER, ..) => spelled.join(" % "),
        _ => match operator {
            Some(operator) => spelled.join(&format!(" {operator} ")),
            None => format!("{name}({})", spelled.join(", ")),
        },
    }
}

/// A literal as a statement spells it.
pub fn spelled(value: &ScalarValue) -> String {
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
