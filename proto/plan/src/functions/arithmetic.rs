//! DataFusion's arithmetic operators as lenient functions: a row whose result does not fit is NULL and counted.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _},
        compute::kernels::numeric,
        datatypes::{DataType, Decimal128Type, Field},
    },
    common::{Result, exec_err, internal_err},
    logical_expr::{Operator, ReturnFieldArgs, ScalarUDF, binary::BinaryTypeCoercer},
    physical_expr_common::datum::apply,
};

use super::{
    function::{Call, Function, Returns},
    lenient::lenient,
};

const NAMES: [(Operator, &str); 5] = [
    (Operator::Plus, "add"),
    (Operator::Minus, "subtract"),
    (Operator::Multiply, "multiply"),
    (Operator::Divide, "divide"),
    (Operator::Modulo, "modulo"),
];

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |(_, name)| {
        lenient(
            Function::new(name, Some(2), Returns::Of(field), compute)
                .strict()
                .into(),
        )
    };
    NAMES.map(function).into()
}

/// The function of an operator, if it is an arithmetic operator.
pub fn name(operator: Operator) -> Option<&'static str> {
    NAMES
        .iter()
        .find(|(named, _)| *named == operator)
        .map(|(_, name)| *name)
}

/// The operator of a function, if it is one of these.
pub fn operator(name: &str) -> Option<Operator> {
    NAMES
        .iter()
        .find(|(_, named)| *named == name)
        .map(|(operator, _)| *operator)
}

fn require_operator(name: &str) -> Result<Operator> {
    operator(name).map_or_else(|| internal_err!("{name} is not an arithmetic operator"), Ok)
}

fn field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let [left, right] = args.arg_fields else {
        return exec_err!("{name} takes two numbers");
    };
    let data_type =
        BinaryTypeCoercer::new(left.data_type(), &require_operator(name)?, right.data_type()).get_result_type()?;
    Ok(Field::new(name, data_type, true))
}

fn compute(call: &Call) -> Result<ArrayRef> {
    let operator = require_operator(call.name)?;
    let [left, right] = call.args() else {
        return exec_err!("{} takes two numbers", call.name);
    };
    let (left_type, right_type) =
        BinaryTypeCoercer::new(&left.data_type(), &operator, &right.data_type()).get_input_types()?;
    let (left, right) = (left.cast_to(&left_type, None)?, right.cast_to(&right_type, None)?);
    let computed = match operator {
        Operator::Plus => apply(&left, &right, numeric::add),
        Operator::Minus => apply(&left, &right, numeric::sub),
        Operator::Multiply => apply(&left, &right, numeric::mul),
        Operator::Divide => apply(&left, &right, numeric::div),
        Operator::Modulo => apply(&left, &right, numeric::rem),
        other => internal_err!("{other} is not an arithmetic operator"),
    }?;
    let computed = computed.into_array(call.rows)?;
    // The kernels only detect an overflow of 128 bits, which hold more digits than a decimal may have.
    if let DataType::Decimal128(digits, _) = computed.data_type() {
        computed
            .as_primitive::<Decimal128Type>()
            .validate_decimal_precision(*digits)?;
    }
    Ok(computed)
}
